"""What becomes of an action where no policy has anything to say: the enforcement modes of AgentSentinel.

`fail_open`, the default, lets it start and records it as unconfigured: the quick start needs no policy. `fail_closed_writes` stops what
changes something, `fail_closed` everything. They are read from the call, else from what the program has set, else from
`$AGENT_SENTINEL_ENFORCEMENT`.

Invariant: a mode that is none is an error at every call, never the default.
"""

from __future__ import annotations

import os
from typing import Optional

from .errors import ConfigurationError, NoPolicyForWriteError, PolicyNotConfiguredError

ENFORCEMENT = "AGENT_SENTINEL_ENFORCEMENT"
MODES = ("fail_open", "fail_closed_writes", "fail_closed")
IMPACTS = ("read", "low", "medium", "high")
_HARMLESS = ("read", "low")

_set: Optional[str] = None


def set_mode(mode: Optional[str]) -> None:
    """From now on, in this process; none: as the environment says."""
    global _set
    _set = None if mode is None else checked(mode, "`set_enforcement_mode`")


def mode(fail_closed: Optional[bool] = None) -> str:
    """The one that holds. Raises `ConfigurationError` where the environment names none that there is."""
    if fail_closed is not None:
        return "fail_closed" if fail_closed else "fail_open"
    return _set or checked(os.environ.get(ENFORCEMENT) or "fail_open", f"`${ENFORCEMENT}`")


def checked(mode: str, where: str) -> str:
    """The mode, if there is one of this name."""
    if mode not in MODES:
        raise ConfigurationError(f"{where} is `{mode}`; write one of {', '.join(f'`{one}`' for one in MODES)}")
    return mode


def check(action: str, impact: str, fail_closed: Optional[bool]) -> None:
    """Raises what keeps an action from starting that no policy has anything to say about."""
    chosen = mode(fail_closed)
    if chosen == "fail_closed":
        raise PolicyNotConfiguredError(
            f"no policy says whether `{action}` may run; configure one with `PolicyEngine.configure(...)`"
        )
    if chosen == "fail_closed_writes" and impact not in _HARMLESS:
        raise NoPolicyForWriteError(
            f"no policy says whether `{action}` may run, and its impact is `{impact}`; configure one, or declare `impact=\"read\"`"
        )
