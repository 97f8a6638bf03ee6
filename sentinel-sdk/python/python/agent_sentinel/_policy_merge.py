"""Brings policies together so that the result is at least as strict as each of them.

Invariant: adding a policy never allows what was refused before. What can't be understood is an error, as a rule that is left out allows.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, Callable

from .errors import ConfigurationError

Policy = dict[str, Any]

# The seed's where a rate limit leaves one out.
DEFAULT_MAX_COUNT = 999999
DEFAULT_WINDOW_SECONDS = 60.0

_CRITERIA = ("approval_actions", "approval_tags", "approval_risk_levels", "approval_threshold_usd")

# The platform may name them; nothing here enforces them, so they have to be empty.
_UNSUPPORTED = (
    "evidence_requirements",
    "evidence_max_age_seconds",
    "commit_actions",
    "evidence_actions",
    "argument_constraints",
    "grounding_rules",
)


def merge(local: Policy, remote: Sequence[Policy]) -> Policy:
    """The local policy, tightened by each of the remote ones that is enabled. The arguments stay as they are.

    Raises `ConfigurationError` that names what can't be understood.
    """
    merged = checked(local, "the local policy")
    for index, policy in enumerate(remote):
        name = f"the platform's policy {index + 1}"
        if isinstance(policy, dict) and "enabled" in policy:
            enabled = policy["enabled"]
            if not isinstance(enabled, bool):
                raise ConfigurationError(f"{name}: `enabled` is `{enabled}`; it is true or false")
            policy = {key: value for key, value in policy.items() if key != "enabled"}
            if not enabled:
                checked(policy, name)
                continue
        merged = _tightened(merged, checked(policy, name))
    return merged


def checked(policy: object, name: str) -> Policy:
    """A copy without what isn't said. Raises `ConfigurationError`."""
    if not isinstance(policy, dict):
        raise ConfigurationError(f"{name} is no object of keys and values")
    known = {**_CHECKS, **{key: _empty for key in _UNSUPPORTED}}
    unknown = [str(key) for key in policy if key not in known]
    if unknown:
        names = ", ".join(f"`{key}`" for key in unknown)
        raise ConfigurationError(f"{name}: unknown keys {names}; known are {', '.join(_CHECKS)}")
    made: Policy = {}
    for key, value in policy.items():
        if value is not None:
            try:
                made[key] = copy.deepcopy(known[key](value))
            except ValueError as error:
                raise ConfigurationError(f"{name}: `{key}` {error}") from error
    return {key: value for key, value in made.items() if key not in _UNSUPPORTED}


def _tightened(one: Policy, other: Policy) -> Policy:
    merged: Policy = {}
    for key in _CHECKS:
        if key in one and key in other:
            merged[key] = _MERGES[key](one[key], other[key])
        elif key in one or key in other:
            merged[key] = one[key] if key in one else other[key]
    if _asks_about_everything(one) or _asks_about_everything(other):
        # No criterion means every action. One that came from the other policy would turn that into these alone.
        for key in _CRITERIA:
            merged.pop(key, None)
    return merged


def _asks_about_everything(policy: Policy) -> bool:
    has_criterion = any(policy.get(key) for key in _CRITERIA[:3]) or "approval_threshold_usd" in policy
    return bool(policy.get("require_approval")) and not has_criterion


# --- what a value may be ---


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"is `{value}`; it is true or false")
    return value


def _amount(value: object) -> float:
    # A NaN is neither above nor below any limit: it would switch the limit off.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"is `{value}`; it is a number")
    try:
        is_amount = math.isfinite(value) and value >= 0
    except OverflowError:
        is_amount = False
    if not is_amount:
        raise ValueError(f"is `{value}`; it is a finite number from 0")
    return value


def _above_zero(value: object) -> float:
    amount = _amount(value)
    if amount == 0:
        raise ValueError("is `0`; it is a number above 0")
    return amount


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"is `{value}`; it is a whole number from 0")
    return value


def _names(value: object) -> list[str]:
    # A string has an `in` of its own: `delete_database` would forbid `database` and not itself alone.
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"is `{value}`; it is a list of names")
    return list(dict.fromkeys(value))


def _by_name(value: object, check: Callable[[object], Any]) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"is `{value}`; it has a name for each value")
    made = {}
    for name, inner in value.items():
        try:
            made[name] = check(inner)
        except ValueError as error:
            raise ValueError(f"of `{name}` {error}") from error
    return made


def _amounts(value: object) -> dict[str, float]:
    return _by_name(value, _amount)


def _rate(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"is `{value}`; it has `max_count` and `window_seconds`")
    unknown = [str(key) for key in value if key not in ("max_count", "window_seconds")]
    if unknown:
        raise ValueError(f"has the unknown key `{unknown[0]}`; known are `max_count` and `window_seconds`")
    return {
        "max_count": _count(value.get("max_count", DEFAULT_MAX_COUNT)),
        "window_seconds": _above_zero(value.get("window_seconds", DEFAULT_WINDOW_SECONDS)),
    }


def _rates(value: object) -> dict[str, dict[str, Any]]:
    return _by_name(value, _rate)


def _empty(value: object) -> None:
    if isinstance(value, (list, dict)) and not value:
        return None
    raise ValueError("can't be enforced here; take it out of the platform's policy")


# --- how two of them become one ---


def _union(one: list[str], other: list[str]) -> list[str]:
    return list(dict.fromkeys(one + other))


def _intersection(one: list[str], other: list[str]) -> list[str]:
    """Empty where they have nothing in common: then nothing is allowed. None is what would allow all."""
    return [name for name in one if name in other]


def _least(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {name: min(one.get(name, math.inf), other.get(name, math.inf)) for name in {**one, **other}}


def _strictest(one: dict[str, dict[str, Any]], other: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The smaller count in the longer window: whoever keeps to that keeps to both."""
    merged: dict[str, dict[str, Any]] = {**one, **other}
    for name in set(one) & set(other):
        merged[name] = {
            "max_count": min(one[name]["max_count"], other[name]["max_count"]),
            "window_seconds": max(one[name]["window_seconds"], other[name]["window_seconds"]),
        }
    return merged


def _either(one: bool, other: bool) -> bool:
    return one or other


_RULES: dict[str, tuple[Callable[[object], Any], Callable[[Any, Any], Any]]] = {
    "session_budget": (_amount, min),
    "run_budget": (_amount, min),
    "action_budgets": (_amounts, _least),
    "denied_actions": (_names, _union),
    "allowed_actions": (_names, _intersection),
    "rate_limits": (_rates, _strictest),
    "strict_mode": (_flag, _either),
    "require_approval": (_flag, _either),
    "approval_actions": (_names, _union),
    "approval_tags": (_names, _union),
    "approval_risk_levels": (_names, _union),
    "approval_threshold_usd": (_amount, min),
    "approval_timeout_seconds": (_amount, min),
}
_CHECKS = {key: check for key, (check, _) in _RULES.items()}
_MERGES = {key: rule for key, (_, rule) in _RULES.items()}
