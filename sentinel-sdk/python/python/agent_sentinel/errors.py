"""What goes wrong, as exceptions that a program and a model can act on.

All derive from `AgentSentinelError`. Those that keep an action from running are *blocks*: each carries `remediation`, a
dictionary that says why in a code and what to do instead in a sentence, so that an agent neither guesses nor retries blindly.

Invariant: only a rate limit is recoverable among the blocks, and only it says `retry_after_seconds`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Optional

__all__ = [
    "AgentKilledError",
    "AgentSentinelError",
    "BudgetExceededError",
    "ConfigurationError",
    "KillSwitchUnavailableError",
    "NetworkError",
    "NoPolicyForWriteError",
    "PolicyNotConfiguredError",
    "PolicyViolationError",
    "ReplayDivergenceError",
    "ReplayedError",
    "SyncError",
    "TimeoutError",
    "remediation",
]

# The keys of a remediation that are lists, whether or not there is something in them.
_LISTS = (
    "missing_requirements",
    "required_prior_actions",
    "safe_alternatives",
    "stale_evidence",
    "argument_violations",
)

# What to do where whoever raises the exception doesn't know better.
_GUIDANCE = {
    "AGENT_KILLED": "don't retry it; stop, and report that an operator has ended this agent",
    "BUDGET_EXCEEDED": "don't retry it; use a cheaper action, or ask the operator for a larger budget",
    "DENIED_ACTION": "don't retry it; do the task another way, or report that policy forbids it",
    "KILL_SWITCH_UNAVAILABLE": "don't retry it at once; report that the platform can't be asked whether this agent may go on",
    "NOT_IN_ALLOWLIST": "don't retry it; use one of `safe_alternatives`, or ask the operator to allow it",
    "NO_POLICY_FOR_WRITE": "the operator has to configure a policy before anything is changed",
    "POLICY_NOT_CONFIGURED": "the operator has to configure a policy first",
    "POLICY_VIOLATION": "don't retry it; do the task another way, or report that policy forbids it",
    "RATE_LIMITED": "wait `retry_after_seconds`, then try again",
}


def remediation(
    reason_code: str,
    retry_guidance: Optional[str] = None,
    retry_after_seconds: Optional[float] = None,
    **lists: Sequence[Any],
) -> dict[str, Any]:
    """What a block tells its reader. The lists are the seed's: `safe_alternatives`, `missing_requirements` and so on."""
    unknown = sorted(set(lists) - set(_LISTS))
    if unknown:
        raise TypeError(f"a remediation has no `{unknown[0]}`; it has {', '.join(_LISTS)}")
    if retry_guidance is None:
        retry_guidance = _GUIDANCE.get(reason_code, _GUIDANCE["POLICY_VIOLATION"])
    made: dict[str, Any] = {"reason_code": reason_code, "retry_guidance": retry_guidance}
    for name in _LISTS:
        made[name] = list(lists.get(name, ()))
    if retry_after_seconds is not None:
        made["retry_after_seconds"] = retry_after_seconds
    return made


class AgentSentinelError(Exception):
    """The base of all. `error_code` is for programs, the message for people."""

    default_code = "AGENT_SENTINEL_ERROR"
    default_recoverable = False

    def __init__(
        self,
        message: str,
        error_code: Optional[str] = None,
        details: Optional[Mapping[str, Any]] = None,
        recoverable: Optional[bool] = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = self.default_code if error_code is None else error_code
        self.details: dict[str, Any] = dict(details or {})
        self.recoverable = self.default_recoverable if recoverable is None else recoverable

    def to_dict(self) -> dict[str, Any]:
        """For logs and for tools that answer in JSON."""
        return {
            "error_type": type(self).__name__,
            "error_code": self.error_code,
            "message": self.message,
            "details": self.details,
            "recoverable": self.recoverable,
        }

    def __reduce__(self) -> tuple[Callable[..., AgentSentinelError], tuple[Any, ...]]:
        # The default calls the class with `args` alone, which loses or breaks on further arguments. A worker process has to be
        # able to hand its error back whole.
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[AgentSentinelError], args: tuple[Any, ...], state: dict[str, Any]) -> AgentSentinelError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class _Block(AgentSentinelError):
    """What the exceptions have in common that keep an action from running."""

    default_reason = "POLICY_VIOLATION"

    def __init__(
        self,
        message: str,
        error_code: Optional[str] = None,
        details: Optional[Mapping[str, Any]] = None,
        recoverable: Optional[bool] = None,
        remediation: Optional[Mapping[str, Any]] = None,
        reason_code: Optional[str] = None,
    ) -> None:
        super().__init__(message, error_code, details, recoverable)
        given = dict(remediation or {})
        code = given.pop("reason_code", None) or reason_code or self.default_reason
        made = _complete(code, given)
        self.remediation: dict[str, Any] = made
        self.reason_code: str = code
        # A limit that is never lifted, as one of 0 calls, says no time: waiting doesn't help.
        self.retry_after_seconds: Optional[float] = made.get("retry_after_seconds")
        self.recoverable = self.retry_after_seconds is not None


def _complete(code: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """All keys of a remediation, from those that are given. A time to wait is for rate limits alone."""
    made = remediation(code)
    made.update({key: value for key, value in given.items() if value is not None})
    seconds = made.get("retry_after_seconds")
    if code != "RATE_LIMITED" or not _is_time(seconds):
        made.pop("retry_after_seconds", None)
    return made


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


class BudgetExceededError(_Block):
    """A budget has no room for the action. `spent` is what would have been spent with it. No `PolicyViolationError`."""

    default_code = "BUDGET_EXCEEDED"
    default_reason = "BUDGET_EXCEEDED"

    def __init__(
        self,
        message: str,
        spent: Optional[float] = None,
        limit: Optional[float] = None,
        budget_type: Optional[str] = None,
        details: Optional[Mapping[str, Any]] = None,
        remediation: Optional[Mapping[str, Any]] = None,
        error_code: Optional[str] = None,
        recoverable: Optional[bool] = None,
    ) -> None:
        told = dict(details or {})
        for key, value in (("spent", spent), ("limit", limit), ("budget_type", budget_type)):
            if value is not None:
                told[key] = value
        super().__init__(message, error_code, told, recoverable, remediation)
        self.spent: Optional[float] = told.get("spent")
        self.limit: Optional[float] = told.get("limit")
        self.budget_type: Optional[str] = told.get("budget_type")


class PolicyViolationError(_Block):
    """A rule of the policy forbids the action: a list, a rate, an approval that wasn't given."""

    default_code = "POLICY_VIOLATION"


class PolicyNotConfiguredError(PolicyViolationError):
    """There is no policy, and nothing may run without one."""

    default_code = "POLICY_NOT_CONFIGURED"
    default_reason = "POLICY_NOT_CONFIGURED"


class NoPolicyForWriteError(PolicyViolationError):
    """There is no policy, and what changes something may not run without one."""

    default_code = "NO_POLICY_FOR_WRITE"
    default_reason = "NO_POLICY_FOR_WRITE"


class AgentKilledError(_Block):
    """An operator has ended the agent, the run or the mission on the platform."""

    default_code = "AGENT_KILLED"
    default_reason = "AGENT_KILLED"


class KillSwitchUnavailableError(AgentKilledError):
    """Whether the agent was ended is unknown, and unknown means no."""

    default_code = "KILL_SWITCH_UNAVAILABLE"
    default_reason = "KILL_SWITCH_UNAVAILABLE"


class ReplayDivergenceError(AgentSentinelError):
    """A replayed program asks for something else than what was recorded."""

    default_code = "REPLAY_DIVERGENCE"


class ReplayedError(AgentSentinelError):
    """An error that was recorded, of a type that can't be made again here. Its text is `Type: message`."""

    default_code = "REPLAYED_ERROR"


class NetworkError(AgentSentinelError):
    """The platform was not reached, or answered with an error. Recoverable where trying again can help."""

    default_code = "NETWORK_ERROR"

    def __init__(
        self,
        message: str,
        error_code: Optional[str] = None,
        details: Optional[Mapping[str, Any]] = None,
        recoverable: Optional[bool] = None,
        status_code: Optional[int] = None,
    ) -> None:
        told = dict(details or {})
        if status_code is not None:
            told["status_code"] = status_code
            if recoverable is None:
                recoverable = status_code >= 500 or status_code in (408, 429)
        super().__init__(message, error_code, told, recoverable)
        self.status_code = status_code


class SyncError(AgentSentinelError):
    """What the platform has and what is here could not be brought together; it is tried again."""

    default_code = "SYNC_ERROR"
    default_recoverable = True


class TimeoutError(AgentSentinelError):  # the seed's name
    """Something that was waited for did not come in time."""

    default_code = "TIMEOUT"
    default_recoverable = True


class ConfigurationError(AgentSentinelError):
    """A setting is wrong. It is told when it is set, never later."""

    default_code = "CONFIGURATION_ERROR"
