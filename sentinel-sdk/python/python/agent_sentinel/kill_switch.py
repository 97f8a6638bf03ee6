"""Asks the platform whether an agent, a run or a mission was ended, before each action.

Invariant: who was ended stays ended, in every thread, until the platform says otherwise; that it can't be asked, or says something that
can't be understood, is no such word.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Optional

from .errors import AgentKilledError, ConfigurationError, KillSwitchUnavailableError, NetworkError

if TYPE_CHECKING:
    # Most programs have no platform, and needn't wait for the import of what asks it.
    from ._http import Platform

__all__ = ["KillSwitchClient"]

logger = logging.getLogger("agent_sentinel.kill_switch")

CHECK_PATH = "/api/v1/kill-switch/check"
REQUEST_SECONDS = 5.0

# After a failure the platform isn't asked again for so long: threads that wait for each other would add up their timeouts.
_FAILURE_SECONDS = 1.0


class _Target:
    """An agent, a run or a mission. One thread asks about it at a time; the others wait for that answer."""

    def __init__(self, kind: str, id: str) -> None:
        self.kind = kind
        self.id = id
        self.lock = threading.Lock()
        self.is_killed = False
        # By the monotonic clock: until when the last answer, or the last failure, is good.
        self.answered_until = 0.0
        self.failed_until = 0.0
        self.failure = ""


class _Setup(NamedTuple):
    """What was configured."""

    platform: Platform
    cache_ttl: float
    fail_open: bool
    ids: tuple[Optional[str], Optional[str], Optional[str]]


class KillSwitchClient:
    """One for the process: it holds in all threads, whatever context they run in."""

    _setup: Optional[_Setup] = None
    _targets: dict[tuple[str, str], _Target] = {}
    _lock = threading.Lock()

    @classmethod
    def configure(
        cls,
        platform_url: str,
        api_token: str,
        cache_ttl: float = 5.0,
        fail_open: bool = False,
        agent_id: Optional[str] = None,
        run_id: Optional[str] = None,
        mission_id: Optional[str] = None,
        allow_http: bool = False,
    ) -> None:
        """From now on `check` asks this platform. The ids that are given here are checked where a call names none of its own.

        Raises `ConfigurationError`; then what was configured before goes on to hold. Who is known to be ended stays so.
        """
        is_number = isinstance(cache_ttl, (int, float)) and not isinstance(cache_ttl, bool)
        if not is_number or not math.isfinite(cache_ttl) or cache_ttl < 0:
            raise ConfigurationError(f"`cache_ttl` is `{cache_ttl}`; give seconds from 0")
        if not isinstance(fail_open, bool):
            raise ConfigurationError(f"`fail_open` is `{fail_open}`; it is true or false")
        from ._http import Platform

        setup = _Setup(Platform(platform_url, api_token, allow_http), cache_ttl, fail_open, (agent_id, run_id, mission_id))
        with cls._lock:
            cls._setup = setup
            for target in cls._targets.values():
                target.answered_until = target.failed_until = 0.0

    @classmethod
    def is_configured(cls) -> bool:
        """Whether there is a platform to ask."""
        return cls._setup is not None

    @classmethod
    def reset(cls) -> None:
        """Forgets everything. For tests."""
        with cls._lock:
            cls._setup, cls._targets = None, {}

    @classmethod
    def check(cls, agent_id: Optional[str] = None, run_id: Optional[str] = None, mission_id: Optional[str] = None) -> None:
        """Returns where the action may go on. Call it before the action's body.

        Raises `AgentKilledError`, or `KillSwitchUnavailableError` where nobody can say and `fail_open` isn't set. Where no kill switch is
        configured, nobody is ended.
        """
        setup = cls._setup
        if setup is None:
            return
        given = (agent_id, run_id, mission_id)
        ids = [one if one is not None else default for one, default in zip(given, setup.ids)]
        targets = [cls._target(kind, id) for kind, id in zip(("agent", "run", "mission"), ids) if id is not None]
        if not targets:
            _unavailable(setup, "nothing says which agent, run or mission this is; give `agent_id` to `KillSwitchClient.configure`")
        # First those that are known to be ended: that another can't be asked about must not hide it.
        for target in sorted(targets, key=lambda target: not target.is_killed):
            cls._check(setup, target)

    @classmethod
    def _target(cls, kind: str, id: str) -> _Target:
        with cls._lock:
            return cls._targets.setdefault((kind, id), _Target(kind, id))

    @classmethod
    def _check(cls, setup: _Setup, target: _Target) -> None:
        with target.lock:
            now = time.monotonic()
            if now >= target.answered_until and now >= target.failed_until:
                _ask(setup, target)
            is_killed, failure = target.is_killed, target.failure
        if is_killed:
            raise AgentKilledError(
                f"{target.kind} `{target.id}` was ended on the platform; an operator can revive it there",
                details={"target_type": target.kind, "target_id": target.id},
            )
        if failure:
            _unavailable(setup, f"whether {target.kind} `{target.id}` was ended is unknown: {failure}")


def _ask(setup: _Setup, target: _Target) -> None:
    """Brings the target up to date."""
    try:
        answer = setup.platform.get(CHECK_PATH, {"target_type": target.kind, "target_id": target.id}, REQUEST_SECONDS)
        if answer.status != 200:
            raise NetworkError(f"the platform answered {answer.status}", status_code=answer.status)
        said = answer.json()
        is_killed = said.get("is_killed") if isinstance(said, dict) else None
        if not isinstance(is_killed, bool):
            raise NetworkError("the platform's answer has no `is_killed` that is true or false", recoverable=False)
    except NetworkError as error:
        target.failure = error.message
        target.failed_until = time.monotonic() + min(_FAILURE_SECONDS, setup.cache_ttl)
        return
    if is_killed != target.is_killed:
        logger.error("%s `%s` was %s on the platform", target.kind, target.id, "ended" if is_killed else "revived")
    target.is_killed, target.failure = is_killed, ""
    target.answered_until = time.monotonic() + setup.cache_ttl


def _unavailable(setup: _Setup, message: str) -> None:
    """Unknown means no, unless the operator has said that it means yes."""
    if not setup.fail_open:
        raise KillSwitchUnavailableError(message)
    logger.warning("%s; the action goes on, as `fail_open` is set", message)


def _renew_locks() -> None:
    """In a forked child: a lock may be held by a thread that isn't there. What is known stays known."""
    KillSwitchClient._lock = threading.Lock()
    for target in KillSwitchClient._targets.values():
        target.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)
