"""Takes what this package knows of a thread along to the threads that it starts.

A new thread begins with no context variables, and one of a pool with those of whoever happened to make it need that thread. Here what is
carried is what `Thread.start` and `ThreadPoolExecutor.submit` were called with. Only the variables of this package are carried.

Invariant: work runs under the context of whoever asked for it.
"""

from __future__ import annotations

import functools
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Callable

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_variables: list[ContextVar[Any]] = []
_lock = threading.Lock()
_carries = False


def carried(variable: ContextVar[Any]) -> None:
    """From now on this variable goes along."""
    global _carries
    if variable in _variables:
        return
    with _lock:
        if variable not in _variables:
            _variables.append(variable)
        if not _carries:
            _carries = True
            _carry()


def _carry() -> None:
    from concurrent.futures import ThreadPoolExecutor

    start: Callable[[threading.Thread], None] = threading.Thread.start
    submit: Callable[..., Future[Any]] = ThreadPoolExecutor.submit

    @functools.wraps(start)
    def started(thread: threading.Thread) -> None:
        values = _values()
        if values:
            # On the instance: a subclass may have a `run` of its own.
            thread.run = functools.partial(_under, values, thread.run)  # type: ignore[method-assign]
        start(thread)

    @functools.wraps(submit)
    def submitted(pool: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        # Also where there are none: the pool's thread has those of whoever made it start.
        return submit(pool, _under, _values(), fn, *args, **kwargs)

    # `setattr`, as the signatures of both are those of the originals only to whoever calls them.
    setattr(threading.Thread, "start", started)
    setattr(ThreadPoolExecutor, "submit", submitted)


def _values() -> list[tuple[ContextVar[Any], Any]]:
    """The variables that are set here."""
    found = ((variable, variable.get(None)) for variable in _variables)
    return [(variable, value) for variable, value in found if value is not None]


def _under(values: list[tuple[ContextVar[Any], Any]], work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    for variable in _variables:
        variable.set(None)
    for variable, value in values:
        variable.set(value)
    return work(*args, **kwargs)
