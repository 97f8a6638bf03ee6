"""Guarded actions for Python agents: decided before they run, recorded, and under `sentinel run` enforced by the kernel.

    from agent_sentinel import guarded_action

    @guarded_action(name="search_tool", cost_usd=0.01, tags=["search"])
    def search(query: str) -> list[str]: ...
"""

import os as _os
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from ._native import __version__
from .approval import ApprovalRequest, ApprovalResponse, ApprovalStatus, HumanApprovalHandler
from .compliance import (
    ComplianceMetadata,
    add_data_lineage,
    get_compliance_metadata,
    set_compliance_metadata,
    set_decision_rationale,
    set_model_card,
)
from .context import ExecutionContext
from .cost import CostTracker
from .errors import (
    AgentKilledError,
    AgentSentinelError,
    BudgetExceededError,
    ConfigurationError,
    KillSwitchUnavailableError,
    NetworkError,
    NoPolicyForWriteError,
    PolicyNotConfiguredError,
    PolicyViolationError,
    ReplayDivergenceError,
    ReplayedError,
    SyncError,
    TimeoutError,
)
from .guard import guarded_action
from .kill_switch import KillSwitchClient
from .ledger import InterventionTracker, Ledger
from .policy import PolicyConfig, PolicyEngine
from .replay import ReplayMode, replay_mode

if _TYPE_CHECKING:
    from .policy_sync import PolicySync
    from .sync import (
        BackgroundSync,
        SyncConfig,
        enable_remote_sync,
        flush,
        flush_and_stop,
        get_sync,
        manual_flush,
    )

# What talks to a platform needs much of the standard library, and most programs don't need it: imported when it is first asked for.
_WHEN_NEEDED = {
    "BackgroundSync": "sync",
    "PolicySync": "policy_sync",
    "SyncConfig": "sync",
    "enable_remote_sync": "sync",
    "flush": "sync",
    "flush_and_stop": "sync",
    "get_sync": "sync",
    "manual_flush": "sync",
}


def __getattr__(name: str) -> object:
    if name in ("policy_sync", "sync"):
        return _import_module(f".{name}", __name__)
    if name not in _WHEN_NEEDED:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    value: object = getattr(_import_module(f".{_WHEN_NEEDED[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHEN_NEEDED})


def _refuse_another() -> None:
    # Both are imported as `agent_sentinel`: whichever was installed last has overwritten files of the other. Looked for by its name alone:
    # `importlib.metadata` takes longer than all else here.
    prefix, ends = "agentsentinel_sdk-", (".dist-info", ".egg-info")
    folder = _os.path.dirname(_os.path.dirname(_os.path.abspath(__file__)))
    others = [name for name in _os.listdir(folder) if name.startswith(prefix) and name.endswith(ends)]
    if not others:
        return
    version = others[0][len(prefix) :].rsplit(".", 1)[0]
    raise ImportError(
        f"`agentsentinel-sdk` {version} is installed beside `sentinel-agent-sdk`, and both are imported as `agent_sentinel`; "
        "run `pip uninstall agentsentinel-sdk`, then `pip install --force-reinstall sentinel-agent-sdk`"
    )


_refuse_another()

__all__ = [
    "AgentKilledError",
    "AgentSentinelError",
    "ApprovalRequest",
    "ApprovalResponse",
    "ApprovalStatus",
    "BackgroundSync",
    "BudgetExceededError",
    "ComplianceMetadata",
    "ConfigurationError",
    "CostTracker",
    "ExecutionContext",
    "HumanApprovalHandler",
    "InterventionTracker",
    "KillSwitchClient",
    "KillSwitchUnavailableError",
    "Ledger",
    "NetworkError",
    "NoPolicyForWriteError",
    "PolicyConfig",
    "PolicyEngine",
    "PolicyNotConfiguredError",
    "PolicySync",
    "PolicyViolationError",
    "ReplayDivergenceError",
    "ReplayMode",
    "ReplayedError",
    "SyncConfig",
    "SyncError",
    "TimeoutError",
    "__version__",
    "add_data_lineage",
    "enable_remote_sync",
    "flush",
    "flush_and_stop",
    "get_compliance_metadata",
    "get_sync",
    "guarded_action",
    "manual_flush",
    "replay_mode",
    "set_compliance_metadata",
    "set_decision_rationale",
    "set_model_card",
]
