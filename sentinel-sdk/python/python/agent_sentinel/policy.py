"""`PolicyEngine`: what may run, as the program itself says it.

Under `sentinel run` the operator's policy holds, and what is configured here can only narrow it.

Invariant: a policy that can't be read lets nothing run, and says what is wrong with it, line by line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from . import _modes
from ._home import home_folder
from ._runtime import runtime
from .errors import AgentSentinelError, ConfigurationError

if TYPE_CHECKING:
    # With much of the standard library behind it: imported when a file is first named.
    from pathlib import Path
    # Most programs have no platform, and needn't wait for the import of what asks it.
    from .policy_sync import PolicySync


@dataclass
class PolicyConfig:
    """What was configured. To change it, configure anew: changes here change nothing."""

    session_budget: Optional[float] = None
    run_budget: Optional[float] = None
    action_budgets: dict[str, float] = field(default_factory=dict)
    denied_actions: list[str] = field(default_factory=list)
    allowed_actions: Optional[list[str]] = None
    rate_limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    strict_mode: bool = True
    require_approval: bool = False
    approval_actions: list[str] = field(default_factory=list)
    approval_tags: list[str] = field(default_factory=list)
    approval_risk_levels: list[str] = field(default_factory=list)
    approval_threshold_usd: Optional[float] = None
    approval_timeout_seconds: float = 3600

    def said(self) -> dict[str, Any]:
        """What it says, as the platform would say it. `strict_mode` is nobody's but this program's."""
        told = {key: value for key, value in vars(self).items() if value is not None and key != "strict_mode"}
        if not self.require_approval:
            told = {key: value for key, value in told.items() if not key.startswith("approval_")}
        return told

    def text(self) -> str:
        """As a policy's text. JSON is YAML."""
        policy: dict[str, Any] = {"strict_mode": self.strict_mode}
        budgets: dict[str, Any] = {}
        if self.session_budget is not None:
            budgets["session"] = self.session_budget
        if self.run_budget is not None:
            budgets["run"] = self.run_budget
        if self.action_budgets:
            budgets["actions"] = dict(self.action_budgets)
        if budgets:
            policy["budgets"] = budgets
        if self.denied_actions:
            policy["denied_actions"] = list(self.denied_actions)
        if self.allowed_actions is not None:
            policy["allowed_actions"] = list(self.allowed_actions)
        if self.rate_limits:
            policy["rate_limits"] = {name: dict(limit) for name, limit in self.rate_limits.items()}
        if self.require_approval:
            policy["approvals"] = self._approvals()
        try:
            return json.dumps(policy, allow_nan=False, indent=1)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"the policy has a value that none can have: {error}") from None

    def _approvals(self) -> dict[str, Any]:
        approvals: dict[str, Any] = {"timeout_seconds": int(self.approval_timeout_seconds)}
        if self.approval_actions:
            approvals["actions"] = list(self.approval_actions)
        if self.approval_tags:
            approvals["tags"] = list(self.approval_tags)
        if self.approval_risk_levels:
            approvals["risk_levels"] = list(self.approval_risk_levels)
        if self.approval_threshold_usd is not None:
            approvals["above_usd"] = self.approval_threshold_usd
        return approvals


class PolicyEngine:
    """The policy of this process."""

    _config: Optional[PolicyConfig] = None
    _remote: Optional[PolicySync] = None
    # The local policy with what the platform says on top of it.
    _in_force: Optional[PolicyConfig] = None
    # Nothing may run until it is configured rightly, whatever the platform says meanwhile.
    _is_broken = False

    @classmethod
    def configure(
        cls,
        session_budget: Optional[float] = None,
        run_budget: Optional[float] = None,
        action_budgets: Optional[Mapping[str, float]] = None,
        denied_actions: Optional[Sequence[str]] = None,
        allowed_actions: Optional[Sequence[str]] = None,
        rate_limits: Optional[Mapping[str, Mapping[str, Any]]] = None,
        strict_mode: bool = True,
        *,
        require_approval: bool = False,
        approval_actions: Optional[Sequence[str]] = None,
        approval_tags: Optional[Sequence[str]] = None,
        approval_risk_levels: Optional[Sequence[str]] = None,
        approval_threshold_usd: Optional[float] = None,
        approval_timeout_seconds: float = 3600,
    ) -> None:
        """Replaces the whole policy. `allowed_actions=None` allows all but what is denied, `[]` none.

        Raises `ConfigurationError`; then nothing may run until it is configured rightly.
        """
        cls._apply(
            lambda: PolicyConfig(
                session_budget=session_budget,
                run_budget=run_budget,
                action_budgets=dict(action_budgets or {}),
                denied_actions=_names("denied_actions", denied_actions) or [],
                allowed_actions=_names("allowed_actions", allowed_actions),
                rate_limits={name: dict(limit) for name, limit in (rate_limits or {}).items()},
                strict_mode=strict_mode,
                require_approval=require_approval,
                approval_actions=_names("approval_actions", approval_actions) or [],
                approval_tags=_names("approval_tags", approval_tags) or [],
                approval_risk_levels=_names("approval_risk_levels", approval_risk_levels) or [],
                approval_threshold_usd=approval_threshold_usd,
                approval_timeout_seconds=approval_timeout_seconds,
            )
        )

    @classmethod
    def apply_config(cls, config: PolicyConfig) -> None:
        """Decides by this from now on. Raises as `configure` does."""
        cls._apply(lambda: config)

    @classmethod
    def _apply(cls, made: Callable[[], PolicyConfig]) -> None:
        cls._config = None
        try:
            config = made()
            cls._is_broken = False
            if cls._remote is not None:
                # What the platform says goes on to hold, on top of this.
                cls._remote.set_local(config.said())
            else:
                runtime.set_policy("configured", config.text())
        except Exception as error:  # whatever it was given: what was meant to be forbidden must not be allowed for it
            cause = error.message if isinstance(error, ConfigurationError) else f"the policy has a value that none can have: {error}"
            cls._is_broken = True
            runtime.fail_policy(cause)
            raise ConfigurationError(cause) from None
        cls._config = config

    @classmethod
    def load_from_yaml(cls, path: Optional[Union[str, "os.PathLike[str]"]] = None) -> None:
        """Reads a policy from `path`, else from the first that is there of `./callguard.yaml`, `./.agent-sentinel/callguard.yaml` and
        `$AGENT_SENTINEL_HOME/callguard.yaml`.

        Raises `ConfigurationError` with all that is wrong with it; then nothing may run until a policy is read.
        """
        cls._config = None
        chosen = path if path is not None else _found()
        try:
            from pathlib import Path

            text = Path(chosen).read_text(encoding="utf-8")
        except (OSError, TypeError, ValueError) as error:
            cause = f"the policy `{chosen}` can't be read: {error}"
            runtime.fail_policy(cause)
            raise ConfigurationError(cause) from None
        if cls._remote is None:
            runtime.set_policy(str(chosen), text)
            cls._config, _ = _summary()
        else:
            cls._apply(lambda: _whole(str(chosen), runtime.summary_of(str(chosen), text)))

    @classmethod
    def enable_remote_sync(
        cls,
        platform_url: str,
        api_token: str,
        agent_id: Optional[str] = None,
        run_id: Optional[str] = None,
        refresh_interval: float = 300.0,
        cache_ttl: float = 600.0,
        *,
        signing_key: Optional[str] = None,
        allow_http: bool = False,
    ) -> None:
        """Tightens this process's policy by what the platform says, now and every `refresh_interval` seconds. It is never loosened by it.

        Raises `SyncError` where the platform can't be reached and no cached word of it is valid; then nothing may run.
        """
        from .policy_sync import PolicySync

        broken = runtime.failure()
        if broken is not None:
            raise ConfigurationError(f"nothing may run until the policy of this process is mended: {broken}")
        local = _whole("in force", runtime.own().policy_summary()) if runtime.is_configured() else PolicyConfig()
        cls.stop_remote_sync()
        remote = PolicySync(
            platform_url,
            api_token,
            agent_id,
            run_id,
            refresh_interval,
            cache_ttl,
            signing_key=signing_key,
            allow_http=allow_http,
        )
        try:
            cls._is_broken = False
            remote.start(local.said(), _tightened)
        except AgentSentinelError as error:
            runtime.fail_policy(error.message)
            raise
        cls._remote = remote
        cls._config = cls._config or local

    @classmethod
    def stop_remote_sync(cls) -> None:
        """Asks the platform no more. What it said last goes on to hold until the policy is configured anew."""
        remote, cls._remote = cls._remote, None
        if remote is not None:
            cls._config = cls._in_force
            remote.stop()

    @classmethod
    def set_enforcement_mode(cls, mode: Optional[str]) -> None:
        """What becomes of actions where no policy is configured: `fail_open`, `fail_closed_writes` or `fail_closed`; none: as
        `$AGENT_SENTINEL_ENFORCEMENT` says, else `fail_open`. Raises `ConfigurationError` where it is none of them."""
        _modes.set_mode(mode)

    @classmethod
    def get_enforcement_mode(cls) -> str:
        """The one that holds."""
        return _modes.mode()

    @classmethod
    def is_configured(cls) -> bool:
        """Whether a policy decides."""
        return runtime.is_configured()

    @classmethod
    def get_config(cls) -> Optional[PolicyConfig]:
        """What holds; none where nothing was configured."""
        if cls._remote is not None:
            return cls._in_force
        if cls._config is None and runtime.is_configured():
            # The environment named it.
            cls._config, _ = _summary()
        return cls._config

    @classmethod
    def reset(cls) -> None:
        """Back to no policy of this process, nor of a platform. Under `sentinel run` the operator's still holds."""
        cls.stop_remote_sync()
        runtime.set_policy("unconfigured", None)
        cls._config = None


def _summary() -> tuple[PolicyConfig, bool]:
    """The policy in force as a configuration, and whether that is all that it says."""
    told = json.loads(runtime.own().policy_summary())
    is_whole = bool(told.pop("is_whole"))
    return PolicyConfig(**told), is_whole


def _whole(name: str, summary: str) -> PolicyConfig:
    """A policy as a configuration. Raises `ConfigurationError` where that would leave something of it out."""
    told = json.loads(summary)
    if not told.pop("is_whole"):
        raise ConfigurationError(
            f"the policy `{name}` says more than budgets, lists, rates and approvals, which can't be brought together with remote policies; "
            "leave that out, or call `PolicyEngine.stop_remote_sync()`"
        )
    return PolicyConfig(**told)


def _tightened(policy: dict[str, Any]) -> None:
    """From now on this holds: the local policy, and what the platform says on top of it."""
    if PolicyEngine._is_broken:
        return
    # Strict whatever the program says: a platform's rule that only warned would not tighten anything.
    config = PolicyConfig(**policy)
    runtime.set_policy("remote", config.text())
    PolicyEngine._in_force = config


def _names(key: str, names: Optional[Sequence[str]]) -> Optional[list[str]]:
    if isinstance(names, str):
        raise ConfigurationError(f"`{key}` is a list of names: write `[{names!r}]`")
    return None if names is None else list(names)


def _found() -> Path:
    from pathlib import Path

    candidates = [Path("callguard.yaml"), Path(".agent-sentinel/callguard.yaml"), home_folder() / "callguard.yaml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    shown = ", ".join(f"`{candidate}`" for candidate in candidates)
    cause = f"there is no policy to read: none of {shown} is there; name its file"
    runtime.fail_policy(cause)
    raise ConfigurationError(cause)
