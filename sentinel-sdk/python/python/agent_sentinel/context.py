"""`ExecutionContext`: which agent, run, task and mission a program works for, for its ledger lines and the kill switch.

Invariant: an inner context adds to the outer one and never takes from it; threads and tasks work under the context they were started in.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType
from typing import NamedTuple, Optional

from ._carry import carried

# The longest id that a ledger line takes.
_MOST_CHARACTERS = 128


class Identity(NamedTuple):
    """What a context says."""

    agent_id: Optional[str] = None
    run_id: Optional[str] = None
    task_id: Optional[str] = None
    mission_id: Optional[str] = None
    harness: Optional[str] = None
    principal: Optional[str] = None

    def within(self, outer: Identity) -> Identity:
        """This, and what it doesn't say as the outer one does."""
        if self == NOBODY:
            return outer
        return Identity(*(own if own is not None else around for own, around in zip(self, outer)))

    def checked(self) -> Identity:
        """The same. Raises `TypeError` or `ValueError` for what can't stand on a ledger line."""
        for key, value in self._asdict().items():
            if value is None:
                continue
            if not isinstance(value, str):
                raise TypeError(f"`{key}` is {value!r}; give a text")
            if not 1 <= len(value) <= _MOST_CHARACTERS or not value.isprintable():
                raise ValueError(f"`{key}` is {value!r}; give 1 to {_MOST_CHARACTERS} printable characters")
        return self


# What holds outside every context.
NOBODY = Identity()
_current: ContextVar[Optional[Identity]] = ContextVar("agent_sentinel_identity", default=None)


class ExecutionContext:
    """`with ExecutionContext(agent_id="researcher", run_id="7"): …`, also as `async with`.

    What is not given is that of the context around it.
    """

    def __init__(
        self,
        agent_id: Optional[str] = None,
        run_id: Optional[str] = None,
        task_id: Optional[str] = None,
        mission_id: Optional[str] = None,
        harness: Optional[str] = None,
        principal: Optional[str] = None,
    ) -> None:
        self._given = Identity(agent_id, run_id, task_id, mission_id, harness, principal).checked()
        self._before: list[Optional[Identity]] = []

    def __enter__(self) -> ExecutionContext:
        carried(_current)
        before = _current.get()
        self._before.append(before)
        _current.set(self._given.within(before or NOBODY))
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        _current.set(self._before.pop())

    async def __aenter__(self) -> ExecutionContext:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.__exit__(kind, error, trace)

    @staticmethod
    def current() -> Optional[Identity]:
        """What holds here; none outside every context."""
        return _current.get()

    @staticmethod
    def get_agent_id() -> Optional[str]:
        """Which agent."""
        return identity().agent_id

    @staticmethod
    def get_run_id() -> Optional[str]:
        """Which run."""
        return identity().run_id

    @staticmethod
    def get_task_id() -> Optional[str]:
        """Which task."""
        return identity().task_id

    @staticmethod
    def get_mission_id() -> Optional[str]:
        """Which mission."""
        return identity().mission_id

    @staticmethod
    def get_harness() -> Optional[str]:
        """In which program that runs agents."""
        return identity().harness

    @staticmethod
    def get_principal() -> Optional[str]:
        """For whom."""
        return identity().principal


# What holds here; none outside every context. Not a function of its own: it is asked for with every call.
current_identity = _current.get


def identity() -> Identity:
    """What holds here; nothing outside every context."""
    return current_identity() or NOBODY
