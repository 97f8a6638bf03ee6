"""Replay: a program runs again, and its guarded actions are answered with what was recorded of them. No body runs, nothing is charged.

Invariant: a call gets what was recorded of the same action with the same inputs, or `ReplayDivergenceError`; a recorded error is raised, and
a recorded block never becomes a value.
"""

from __future__ import annotations

import builtins
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Optional, Union

from . import _native
from ._carry import carried
from ._json import encoded
from .errors import AgentSentinelError, BudgetExceededError, PolicyViolationError, ReplayDivergenceError, ReplayedError
from .ledger import Ledger

logger = logging.getLogger("agent_sentinel")

_active: ContextVar[Optional[ReplayMode]] = ContextVar("agent_sentinel_replay", default=None)
# Which recording answers here. Not a function of its own: it is asked for with every call.
active_replay = _active.get


class ReplayMode:
    """`with ReplayMode.from_run_id("7"): …` answers the actions of this task, and of the threads and tasks that it starts."""

    def __init__(self, recording: _native.Recording, strict: bool = True, warn_on_divergence: bool = True) -> None:
        self._recording = recording
        self.strict = strict
        self.warn_on_divergence = warn_on_divergence
        self._before: list[Optional[ReplayMode]] = []

    @classmethod
    def from_run_id(
        cls,
        run_id: str,
        ledger_path: Optional[Union[str, os.PathLike[str]]] = None,
        strict: bool = True,
        warn_on_divergence: bool = True,
    ) -> ReplayMode:
        """What was recorded under `ExecutionContext(run_id=…)`, in this program's ledger or another.

        Raises `FileNotFoundError`, or `ValueError` where nothing was recorded under it, or the ledger was changed.
        """
        return cls(_native.Recording.read(_ledger(ledger_path), run_id), strict, warn_on_divergence)

    @classmethod
    def from_ledger_file(
        cls,
        ledger_path: Union[str, os.PathLike[str]],
        strict: bool = True,
        warn_on_divergence: bool = True,
    ) -> ReplayMode:
        """All that a ledger holds. Raises as `from_run_id`."""
        return cls(_native.Recording.read(_ledger(ledger_path), None), strict, warn_on_divergence)

    @classmethod
    def from_json(
        cls,
        bundle: Union[str, Mapping[str, Any]],
        strict: bool = True,
        warn_on_divergence: bool = True,
    ) -> ReplayMode:
        """`{"run_id": …, "entries": […]}`, each entry a ledger line, or with `inputs` and `outputs` beside the other keys."""
        told = json.loads(bundle) if isinstance(bundle, str) else bundle
        entries = told.get("entries") if isinstance(told, Mapping) else None
        if not isinstance(entries, list):
            raise ValueError("a bundle is `{\"run_id\": …, \"entries\": […]}`; this has no list `entries`")
        return cls(_native.Recording.of_lines([_line(entry) for entry in entries]), strict, warn_on_divergence)

    def get_progress(self) -> tuple[int, int]:
        """How many calls were answered, and how many are recorded."""
        return self._recording.progress

    def get_divergences(self) -> list[dict[str, Any]]:
        """How the program differed, each with its `type` and the call's `index`."""
        found: list[dict[str, Any]] = json.loads(self._recording.divergences)
        return found

    @classmethod
    def is_active(cls) -> bool:
        """Whether actions are answered from a recording here."""
        return _active.get() is not None

    @classmethod
    def get_active(cls) -> Optional[ReplayMode]:
        """Which recording answers here."""
        return _active.get()

    def __enter__(self) -> ReplayMode:
        carried(_active)
        self._before.append(_active.get())
        _active.set(self)
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        _active.set(self._before.pop())

    def answer(self, action: str, inputs: str, tags: list[str]) -> Any:
        """What was recorded of this call; raises what was raised then."""
        noted = len(self.get_divergences())
        try:
            outcome, outputs, reason = self._recording.replay(action, inputs, self.strict)
        except _native.Diverged as diverged:
            message, details = diverged.args
            raise ReplayDivergenceError(message, details=json.loads(details)) from None
        if self.warn_on_divergence:
            for divergence in self.get_divergences()[noted:]:
                logger.warning("the replay diverges at call %s: %s", divergence.get("index"), divergence.get("type"))
        value = json.loads(outputs)
        Ledger.record(action, json.loads(inputs), None, 0.0, 0.0, "replayed", tags)
        if outcome == "error":
            raise _raised(value)
        if outcome == "blocked":
            raise _blocked(value, reason)
        return value


@contextmanager
def replay_mode(
    run_id: Optional[str] = None,
    ledger_path: Optional[Union[str, os.PathLike[str]]] = None,
    strict: bool = True,
    warn_on_divergence: bool = True,
) -> Iterator[ReplayMode]:
    """Answers actions with what was recorded: of a run, or of a whole ledger; this program's own where none is named."""
    if run_id is not None:
        replay = ReplayMode.from_run_id(run_id, ledger_path, strict, warn_on_divergence)
    else:
        replay = ReplayMode.from_ledger_file(_ledger(ledger_path), strict, warn_on_divergence)
    with replay:
        yield replay


def _ledger(path: Optional[Union[str, os.PathLike[str]]]) -> str:
    from pathlib import Path

    return str(Ledger.path() if path is None else Path(path).absolute())


def _line(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        raise ValueError(f"an entry of a bundle is an object, not {entry!r}")
    line = dict(entry)
    if "payload" not in line:
        line["payload"] = {"inputs": line.pop("inputs", None), "outputs": line.pop("outputs", None)}
    return encoded(line)


def _raised(text: Any) -> BaseException:
    """The exception that a line tells of as `Type: message`; of its own type where that is to be had."""
    name, _, message = str(text).partition(": ")
    kind = getattr(builtins, name, None) or _by_name(name)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            error = kind.__new__(kind, message)
            error.args = (message,)
            if str(error) == message:
                return error
        except Exception as broken:  # a type that can't be made of a text alone
            logger.debug("a recorded `%s` can't be made again: %s", name, broken)
    return ReplayedError(str(text))


def _by_name(name: str) -> Optional[type[Exception]]:
    """The one exception of this program that is called so."""
    found: set[type[Exception]] = set()
    waiting: list[type[Exception]] = [Exception]
    while waiting:
        for kind in waiting.pop().__subclasses__():
            waiting.append(kind)
            if kind.__name__ == name:
                found.add(kind)
    return found.pop() if len(found) == 1 else None


def _blocked(message: Any, reason: Optional[str]) -> AgentSentinelError:
    told: dict[str, Any] = json.loads(reason) if reason is not None else {}
    code = told.get("code", "POLICY_VIOLATION")
    if code == "BUDGET_EXCEEDED":
        spent, limit, budget = told.get("spent"), told.get("limit"), told.get("budget")
        return BudgetExceededError(str(message), spent=spent, limit=limit, budget_type=budget)
    return PolicyViolationError(str(message), details={"reason": told}, reason_code=code)
