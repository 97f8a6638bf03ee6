"""`guarded_action`: asks before a function runs, and tells how it ended.

Invariant: the body runs only between a *yes* and the word how it ended, whatever kind of function it is and however it is left.
"""

from __future__ import annotations

import datetime
import functools
import inspect
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, cast

from . import _modes, _native
from ._denials import explain
from ._json import encoded, encoded_call
from ._runtime import Request, runtime, told
from ._threads import apart, in_thread, is_future
from .approval import ApprovalRequest, ApprovalResponse, asked, handlers_run_on
from .compliance import Body, ComplianceMetadata, current_body
from .context import NOBODY, Identity, current_identity, identity
from .errors import ReplayDivergenceError
from .kill_switch import KillSwitchClient
from .replay import ReplayMode, active_replay

if TYPE_CHECKING:
    # Only programs that use it have to wait for its import.
    import asyncio

Function = TypeVar("Function", bound=Callable[..., Any])

_NOTHING = "null"
# What of a context stands on a ledger line.
_RECORDED = ("agent_id", "run_id", "task_id", "mission_id")
# Of a generator so many items are recorded.
_MOST_ITEMS = 1000
# What can't be awaited, without a look at more than its type.
_NEVER_AWAITED = frozenset({bool, bytes, dict, float, int, list, str, tuple, type(None)})


class _Action:
    """What the decorator was told."""

    __slots__ = (
        "_declared",
        "cost_usd",
        "description",
        "fail_closed",
        "identity",
        "impact",
        "is_anonymous",
        "name",
        "needs_human",
        "patience",
        "risk_level",
        "tags",
    )

    def __init__(
        self,
        name: str,
        cost_usd: float,
        tags: list[str],
        risk_level: Optional[str],
        needs_human: bool,
        description: str,
        patience: Optional[float],
        identity: Identity,
        impact: str,
        fail_closed: Optional[bool],
    ) -> None:
        self.name = name
        self.patience = patience
        self.cost_usd = cost_usd
        self.tags = tags
        self.risk_level = risk_level
        self.needs_human = needs_human
        self.description = description
        self.identity = identity
        self.is_anonymous = identity == NOBODY
        self.impact = impact
        self.fail_closed = fail_closed
        self._declared: Optional[_native.Declared] = None

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Running:
        annotations = self._annotations()
        # What it is called with is taken down before the body runs, which may change it.
        inputs: Optional[str] = None
        declared = self._declared or self.declared()
        own, agent = runtime.deciders
        # The way of most: the policies alone are asked.
        if own is not None and not KillSwitchClient.is_configured():
            try:
                begun = own.begin_call(declared, args, kwargs, annotations, agent)
                if begun is None:
                    inputs = encoded_call(args, kwargs)
                    begun = own.begin(declared, inputs, annotations, agent)
                return Running(begun)
            except _native.Refused as refused:
                self._raise_unless_needed(refused)
        if inputs is None:
            inputs = encoded_call(args, kwargs)
        check = None
        if KillSwitchClient.is_configured() or runtime.is_unconfigured():
            check = functools.partial(self._check, self.identity.within(identity()))
        shown = ApprovalRequest(
            self.name, self.description, {"args": args, "kwargs": kwargs}, self.cost_usd, self.risk_level or "minimal"
        )
        request = Request(self.name, declared, inputs, annotations)
        asked_for, response = asked(request, shown, self.patience is not None, check)
        return Running(asked_for, None if response is None else _approved(response))

    def begin_at_once(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Optional[Running]:
        """The same, where nothing and nobody has to be waited for; none where it has to."""
        own, agent = runtime.deciders
        if own is None or agent is not None or KillSwitchClient.is_configured():
            return None
        annotations = self._annotations()
        declared = self._declared or self.declared()
        try:
            begun = own.begin_call_at_once(declared, args, kwargs, annotations)
            if begun is None:
                begun = own.begin_at_once(declared, encoded_call(args, kwargs), annotations)
        except _native.Refused as refused:
            self._raise_unless_needed(refused)
            return None
        return None if begun is None else Running(begun)

    def _annotations(self) -> Optional[str]:
        """What else is recorded at its begin, as JSON; none where there is nothing."""
        around = current_body()
        if around is None and self.is_anonymous and current_identity() is None:
            return None
        who = self.identity.within(identity())
        said = {key: value for key, value in who._asdict().items() if value is not None and key in _RECORDED}
        if around is not None:
            said["parent"] = around.action.id
        return encoded(said) if said else None

    def declared(self) -> _native.Declared:
        """The same for the compiled half."""
        if self._declared is None:
            self._declared = _native.Declared(
                self.name, self.cost_usd, self.tags, self.risk_level, self.patience, self.needs_human
            )
        return self._declared

    def _raise_unless_needed(self, refused: _native.Refused) -> None:
        """Raises what was refused, unless it lacks but a human's word that this process can ask for: then it is asked for again."""
        error = told(refused)
        is_needed = refused.args[0] == "APPROVAL_NEEDED" and error.details.get("decided_by") != "host"
        if not is_needed or self.patience is not None:
            raise error from None

    def _check(self, who: Identity) -> None:
        """What may keep it from running beside the policy."""
        KillSwitchClient.check(who.agent_id, who.run_id, who.mission_id)
        if runtime.is_unconfigured():
            _modes.check(self.name, self.impact, self.fail_closed)

    async def begin_async(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Running:
        """In a thread, where something has to be waited for: the loop goes on. One that nobody waits for any more is ended as cancelled."""
        at_once = self.begin_at_once(args, kwargs)
        if at_once is not None:
            return at_once
        import asyncio

        with handlers_run_on(asyncio.get_running_loop()):
            begun = in_thread(self.begin, args, kwargs)
        try:
            return await asyncio.shield(begun)
        except asyncio.CancelledError:
            begun.add_done_callback(_give_up)
            raise

    def replayed(self, replay: ReplayMode, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What was recorded of this call."""
        return replay.answer(self.name, encoded_call(args, kwargs), self.tags)


class Running(Body):
    """An action whose body runs."""

    __slots__ = ()

    def end(self, outcome: str, outputs: str) -> None:
        """It ends, with what was said of it meanwhile."""
        try:
            self.action.end(outcome, outputs, None, self._said())
        except _native.Refused as refused:
            raise told(refused) from None

    def succeed(self, result: object) -> None:
        """It did what it should."""
        if self.metadata is None and self.action.succeed(result):
            return
        self.end("success", encoded(result))

    async def end_async(self, outcome: str, outputs: str) -> None:
        """The same, in a thread where something has to be waited for."""
        if self.action.end_at_once(outcome, outputs, self._said()):
            return
        await _finished(self.end, outcome, outputs)

    def _said(self) -> Optional[str]:
        return None if self.metadata is None else encoded({"compliance_metadata": self.metadata.to_dict()})


def _approved(response: ApprovalResponse) -> ComplianceMetadata:
    return ComplianceMetadata(
        requires_human_approval=True,
        approval_status=response.status.value,
        human_in_the_loop_id=response.approver_id,
        human_in_the_loop_email=response.approver_email,
        approval_timestamp=response.approved_at or datetime.datetime.now(datetime.timezone.utc),
        approval_notes=response.notes,
    )


async def _finished(function: Callable[..., object], *args: Any) -> None:
    """Makes the call in a thread, and waits for it; it goes on where nobody waits any more."""
    import asyncio

    await asyncio.shield(in_thread(function, *args))


def _give_up(begun: asyncio.Future[Running]) -> None:
    if not begun.cancelled() and begun.exception() is None:
        apart(begun.result().end, "cancelled", _NOTHING)


def _failed(begun: Running, error: BaseException) -> None:
    # Also asyncio's word that a task was cancelled: it is no `Exception`.
    if not isinstance(error, Exception):
        begun.end("cancelled", encoded(type(error).__name__))
        return
    denials = explain(error, begun.action)
    text = f"{type(error).__name__}: {_text(error)}"
    if denials:
        begun.end("error", encoded({"error": text, "kernel_denials": [one._asdict() for one in denials]}))
    else:
        begun.end("error", encoded(text))


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
    agent_id: Optional[str] = None,
    task_id: Optional[str] = None,
    mission_id: Optional[str] = None,
    impact: str = "medium",
    fail_closed: Optional[bool] = None,
) -> Callable[[Function], Function]:
    """Guards a function: it runs only if policy, budgets and limits let it, and the ledger says so.

    Works on functions, methods, async functions, generators and async generators. A generator is one action from its first item to its
    end. What the body raises is raised; what keeps it from running is raised as `PolicyViolationError` or `BudgetExceededError`.

    The ledger is told the positional arguments, of a method `self` first, and the named ones, as they were before the body ran. What JSON has
    no form for is recorded as its `str()`.

    Where the policy wants a human's word, this process's approval handler is asked, and under `sentinel run` the operator;
    `wait_for_approval` waits so many seconds for somebody else's word instead.

    `agent_id`, `task_id` and `mission_id` are those of the context where they aren't given. `impact` (`read`, `low`, `medium`, `high`) and
    `fail_closed` say what becomes of it where there is no policy at all.
    """
    if impact not in _modes.IMPACTS:
        raise ValueError(f"`impact` is `{impact}`; write one of {', '.join(f'`{one}`' for one in _modes.IMPACTS)}")
    own = Identity(agent_id=agent_id, task_id=task_id, mission_id=mission_id).checked()
    if callable(name):
        raise TypeError("`guarded_action` is called with parentheses: write `@guarded_action()`")
    dollars = _number("cost_usd", cost_usd)
    patience = None if wait_for_approval is None else _number("wait_for_approval", wait_for_approval)
    given = [tags] if isinstance(tags, str) else list(tags or ())
    for what, text in (("name", name), ("risk_level", risk_level), *(("tags", tag) for tag in given)):
        if not isinstance(text, str) and (text is not None or what == "tags"):
            raise TypeError(f"`{what}` is given `{text!r}`; write a text")

    def decorate(function: Function) -> Function:
        if isinstance(function, (staticmethod, classmethod)):
            return cast(Function, type(function)(decorate(function.__func__)))
        called = name or _name_of(function)
        description = approval_description or f"Execute {called}"
        action = _Action(
            called,
            dollars,
            given,
            risk_level,
            requires_human_approval,
            description,
            patience,
            own,
            impact,
            fail_closed,
        )
        wrapper: Callable[..., Any]
        if _is(inspect.isasyncgenfunction, function):
            wrapper = _async_generator(function, action)
        elif _is(inspect.iscoroutinefunction, function):
            wrapper = _coroutine(function, action)
        elif _is(inspect.isgeneratorfunction, function):
            wrapper = _generator(function, action)
        else:
            wrapper = _plain(function, action)
        return cast(Function, wrapper)

    return decorate


def _number(what: str, value: Any) -> float:
    """Also of a `Decimal`, and of a text that is a number. Whether it is one that may be is decided with the action."""
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"`{what}` is given `{value!r}`; write a number such as 0.05") from None


def _name_of(function: Callable[..., Any]) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    return str(getattr(function, "__name__", type(function).__name__))


def _is(kind: Callable[[object], bool], function: Callable[..., Any]) -> bool:
    """Whether it is of this kind; of an object that can be called, its `__call__` may be."""
    return kind(function) or (not inspect.isclass(function) and kind(type(function).__call__))


def _plain(function: Callable[..., Any], action: _Action) -> Callable[..., Any]:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        replay = active_replay()
        if replay is not None:
            return action.replayed(replay, args, kwargs)
        begun = action.begin(args, kwargs)
        begun.enter()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            _failed(begun, error)
            raise
        finally:
            begun.leave()
        if type(result) in _NEVER_AWAITED:
            begun.succeed(result)
            return result
        # A plain function that returns what is to be awaited ends when that does.
        if is_future(result):
            result.add_done_callback(functools.partial(_done, begun))
            return result
        if inspect.isawaitable(result):
            return _ended(lambda: result, begun)
        begun.end("success", encoded(result))
        return result

    return guarded


def _done(begun: Running, result: asyncio.Future[Any]) -> None:
    """A task or another future has ended, and the action with it. It is handed on as it is: whoever has it may cancel it."""
    if result.cancelled():
        apart(begun.end, "cancelled", encoded("CancelledError"))
        return
    error = result.exception()
    if error is not None:
        apart(_failed, begun, error)
    else:
        apart(begun.end, "success", encoded(result.result()))


async def _ended(made: Callable[[], Any], begun: Running) -> Any:
    """Awaits the body, and tells how it ended."""
    begun.enter()
    try:
        value = await made()
    except BaseException as error:
        await _finished(_failed, begun, error)
        raise
    finally:
        begun.leave()
    await begun.end_async("success", encoded(value))
    return value


def _coroutine(function: Callable[..., Any], action: _Action) -> Callable[..., Any]:
    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        replay = active_replay()
        if replay is not None:
            return action.replayed(replay, args, kwargs)
        begun = await action.begin_async(args, kwargs)
        return await _ended(lambda: function(*args, **kwargs), begun)

    return guarded


class _Items:
    """What a generator gave, for its line and its replay."""

    __slots__ = ("_items", "_more")

    def __init__(self) -> None:
        self._items: list[Any] = []
        self._more = False

    def add(self, item: Any) -> None:
        """One more."""
        if len(self._items) < _MOST_ITEMS:
            self._items.append(item)
        else:
            self._more = True

    def encoded(self, returned: Any) -> str:
        """As outputs."""
        items: dict[str, Any] = {"items": self._items, "returned": returned}
        if self._more:
            items["more_items"] = True
        return encoded(items)


def _recorded_items(action: _Action, outputs: Any) -> tuple[list[Any], Any]:
    """What a generator gave then, and returned."""
    if not isinstance(outputs, dict) or "items" not in outputs or outputs.get("more_items"):
        raise ReplayDivergenceError(
            f"`{action.name}` gave more items than were recorded, or none were; a generator is replayed up to {_MOST_ITEMS} items"
        )
    return list(outputs["items"]), outputs.get("returned")


def _generator(function: Callable[..., Any], action: _Action) -> Callable[..., Any]:
    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        replay = active_replay()
        if replay is not None:
            recorded, returned = _recorded_items(action, action.replayed(replay, args, kwargs))
            yield from recorded
            return returned
        begun = action.begin(args, kwargs)
        given = _Items()
        try:
            result = yield from _noted(function(*args, **kwargs), begun, given)
        except BaseException as error:
            _failed(begun, error)
            raise
        begun.end("success", given.encoded(result))
        return result

    return guarded


def _noted(items: Generator[Any, Any, Any], body: Body, given: _Items) -> Generator[Any, Any, Any]:
    """The same items. Its body's context holds only while the body itself runs, not while its caller does."""
    step: Callable[[], Any] = functools.partial(next, items)
    while True:
        body.enter()
        try:
            item = step()
        except StopIteration as stop:
            return stop.value
        finally:
            body.leave()
        given.add(item)
        try:
            sent = yield item
        except GeneratorExit:
            items.close()
            raise
        except BaseException as thrown:
            step = functools.partial(items.throw, thrown)
        else:
            step = functools.partial(items.send, sent)


def _async_generator(function: Callable[..., Any], action: _Action) -> Callable[..., Any]:
    @functools.wraps(function)
    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        replay = active_replay()
        if replay is not None:
            recorded, _ = _recorded_items(action, action.replayed(replay, args, kwargs))
            for item in recorded:
                yield item
            return
        begun = await action.begin_async(args, kwargs)
        given = _Items()
        items: Optional[AsyncGenerator[Any, Any]] = None
        try:
            items = function(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(items.asend, None)
            while True:
                begun.enter()
                try:
                    item = await step()
                except StopAsyncIteration:
                    break
                finally:
                    begun.leave()
                given.add(item)
                try:
                    sent = yield item
                except GeneratorExit:
                    raise
                except BaseException as thrown:
                    step = functools.partial(items.athrow, thrown)
                else:
                    step = functools.partial(items.asend, sent)
        except BaseException as error:
            try:
                if items is not None:
                    await items.aclose()
            finally:
                await _finished(_failed, begun, error)
            raise
        await begun.end_async("success", given.encoded(None))

    return guarded


__all__ = ["guarded_action"]
