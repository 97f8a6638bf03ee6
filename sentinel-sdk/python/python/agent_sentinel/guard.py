"""`guarded_action`: asks before a function runs, and tells how it ended.

Invariant: the body runs only between a *yes* and the word how it ended, whatever kind of function it is and however it is left.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, Callable, Optional, TypeVar, cast

from ._json import encoded
from ._runtime import Begun, Request
from .approval import asked

Function = TypeVar("Function", bound=Callable[..., Any])

_NOTHING = "null"


class _Action:
    """What the decorator was told."""

    __slots__ = ("cost_usd", "description", "name", "needs_human", "patience", "risk_level", "tags")

    def __init__(
        self,
        name: str,
        cost_usd: float,
        tags: list[str],
        risk_level: Optional[str],
        needs_human: bool,
        description: str,
        patience: Optional[float],
    ) -> None:
        self.name = name
        self.patience = patience
        self.cost_usd = cost_usd
        self.tags = tags
        self.risk_level = risk_level
        self.needs_human = needs_human
        self.description = description

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Begun:
        # Before the body: it may change what it was called with.
        inputs = encoded({"args": args, "kwargs": kwargs})
        request = Request(self.name, self.cost_usd, self.tags, inputs, self.risk_level, self.patience)
        return asked(request, self.needs_human, self.description, {"args": args, "kwargs": kwargs})

    async def begin_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Begun:
        """In a thread, so that the loop goes on. One that nobody waits for any more is ended as cancelled."""
        begun: asyncio.Future[Begun] = asyncio.ensure_future(asyncio.to_thread(self.begin, args, kwargs))
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(_give_up)
            raise


def _give_up(begun: asyncio.Future[Begun]) -> None:
    if not begun.cancelled() and begun.exception() is None:
        begun.result().end("cancelled", _NOTHING)


def _failed(begun: Begun, error: BaseException) -> None:
    if isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError):
        begun.end("error", encoded(f"{type(error).__name__}: {_text(error)}"))
    else:
        begun.end("cancelled", encoded(type(error).__name__))


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"<its text can't be made: {type(broken).__name__}>"


def guarded_action(
    name: Optional[str] = None,
    cost_usd: float = 0.0,
    tags: Optional[Sequence[str]] = None,
    requires_human_approval: bool = False,
    approval_description: Optional[str] = None,
    *,
    risk_level: Optional[str] = None,
    wait_for_approval: Optional[float] = None,
) -> Callable[[Function], Function]:
    """Guards a function: it runs only if policy, budgets and limits let it, and the ledger says so.

    Works on functions, methods, async functions, generators and async generators. A generator is one action from its first item to its
    end. What the body raises is raised; what keeps it from running is raised as `PolicyViolationError` or `BudgetExceededError`.

    Where the policy wants a human's word, this process's approval handler is asked, and under `sentinel run` the operator;
    `wait_for_approval` waits so many seconds for somebody else's word instead.
    """
    if callable(name):
        raise TypeError("`guarded_action` is called with parentheses: write `@guarded_action()`")
    given = [tags] if isinstance(tags, str) else list(tags or ())

    def decorate(function: Function) -> Function:
        called: str = name or getattr(function, "__name__", type(function).__name__)
        description = approval_description or f"Execute {called}"
        action = _Action(
            called, cost_usd, given, risk_level, requires_human_approval, description, wait_for_approval
        )
        wrapper: Callable[..., Any]
        if inspect.isasyncgenfunction(function):
            wrapper = _async_generator(function, action)
        elif inspect.iscoroutinefunction(function):
            wrapper = _coroutine(function, action)
        elif inspect.isgeneratorfunction(function):
            wrapper = _generator(function, action)
        else:
            wrapper = _plain(function, action)
        return cast(Function, wrapper)

    return decorate


def _plain(function: Callable[..., Any], action: _Action) -> Callable[..., Any]:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        begun = action.begin(args, kwargs)
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            _failed(begun, error)
            raise
        if inspect.isawaitable(result):
            return _awaited(result, begun)
        begun.end("success", encoded(result))
        return result

    return guarded


async def _awaited(result: Any, begun: Begun) -> Any:
    """A plain function that returns what is to be awaited ends when that does."""
    try:
        value = await result
    except BaseException as error:
        await asyncio.shield(asyncio.to_thread(_failed, begun, error))
        raise
    await asyncio.to_thread(begun.end, "success", encoded(value))
    return value


def _coroutine(function: Callable[..., Any], action: _Action) -> Callable[..., Any]:
    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        begun = await action.begin_async(args, kwargs)
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            await asyncio.shield(asyncio.to_thread(_failed, begun, error))
            raise
        await asyncio.shield(asyncio.to_thread(begun.end, "success", encoded(result)))
        return result

    return guarded


def _generator(function: Callable[..., Any], action: _Action) -> Callable[..., Any]:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        begun = action.begin(args, kwargs)
        try:
            result = yield from function(*args, **kwargs)
        except BaseException as error:
            _failed(begun, error)
            raise
        begun.end("success", encoded(result))
        return result

    return guarded


def _async_generator(function: Callable[..., Any], action: _Action) -> Callable[..., Any]:
    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        begun = await action.begin_async(args, kwargs)
        items = function(*args, **kwargs)
        try:
            sent = None
            while True:
                try:
                    item = await items.asend(sent)
                except StopAsyncIteration:
                    break
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    item = await items.athrow(thrown)
                    sent = yield item
        except BaseException as error:
            await items.aclose()
            _failed(begun, error)
            raise
        begun.end("success", _NOTHING)

    return guarded


__all__ = ["guarded_action"]
