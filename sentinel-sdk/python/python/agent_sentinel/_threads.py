"""Threads for what blocks an async program: the question whether an action may start, and the word how it ended.

Not those of asyncio: these are few, so that actions which wait for a human would keep all others from starting and from ending; and a
program that is told to end would wait for them.

Invariant: no call waits for another one's thread, and none keeps the program from ending.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import queue
import sys
import threading
from typing import TYPE_CHECKING, Any, Callable, TypeVar

if TYPE_CHECKING:
    # Only programs that use it have to wait for its import.
    import asyncio

Result = TypeVar("Result")

# So many threads wait for the next call; others end with theirs.
_MOST_IDLE = 32
# A call that nobody waits for is waited for at the program's end, so long: no answer of the agent takes longer.
_EXIT_SECONDS = 6.0


class _Threads:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        # How many threads wait that no call is meant for yet.
        self._idle = 0
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        # How many calls go on that nobody waits for.
        self._apart = 0
        self._apart_ended = threading.Condition(self._lock)

    def start(self, call: Callable[[], None]) -> None:
        """Makes the call in a thread. It must not raise."""
        with self._lock:
            is_one_idle = self._idle > 0
            if is_one_idle:
                self._idle -= 1
        if not is_one_idle:
            threading.Thread(target=self._work, name="agent-sentinel-wait", daemon=True).start()
        self._calls.put(call)

    def start_apart(self, call: Callable[[], None]) -> None:
        """As `start`; `finish` waits for it."""
        with self._lock:
            self._apart += 1

        def counted() -> None:
            try:
                call()
            finally:
                with self._lock:
                    self._apart -= 1
                    self._apart_ended.notify_all()

        self.start(counted)

    def finish(self, seconds: float) -> None:
        """Waits for the calls that nobody else waits for."""
        with self._lock:
            self._apart_ended.wait_for(lambda: self._apart == 0, seconds)

    def _work(self) -> None:
        while True:
            self._calls.get()()
            with self._lock:
                if self._idle >= _MOST_IDLE:
                    return
                self._idle += 1


_threads = _Threads()


def _forget() -> None:
    """In a forked child: the threads are its parent's."""
    global _threads
    _threads = _Threads()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
atexit.register(lambda: _threads.finish(_EXIT_SECONDS))


def in_thread(function: Callable[..., Result], *args: Any) -> asyncio.Future[Result]:
    """What the function answers, for the running loop; it sees the caller's context variables.

    Whoever is cancelled while waiting for it shields it: the call goes on. Its answer is dropped if the loop has ended.
    """
    import asyncio

    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Result] = loop.create_future()
    context = contextvars.copy_context()

    def call() -> None:
        try:
            result = context.run(function, *args)
        except BaseException as error:
            _tell(loop, _fail, answer, error)
        else:
            _tell(loop, _settle, answer, result)

    _threads.start(call)
    return answer


def is_future(value: object) -> bool:
    """Whether it is one of asyncio's. Where nobody has imported that, nothing is."""
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and isinstance(value, asyncio.Future)


def apart(function: Callable[..., object], *args: Any) -> None:
    """Makes a call that nobody waits for, but the program's end. It must not raise."""

    def call() -> None:
        function(*args)

    _threads.start_apart(call)


def _tell(loop: asyncio.AbstractEventLoop, how: Callable[..., None], *args: Any) -> None:
    try:
        loop.call_soon_threadsafe(how, *args)
    except RuntimeError:
        pass  # the loop has ended: nobody waits any more


def _settle(answer: asyncio.Future[Any], result: object) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[Any], error: BaseException) -> None:
    if answer.done():
        return
    if isinstance(error, StopIteration):
        # No future can hold it.
        error = RuntimeError(f"a handler raised {type(error).__name__}")
    answer.set_exception(error)
