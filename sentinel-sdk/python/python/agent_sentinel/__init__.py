"""Guarded actions for Python agents: decided before they run, recorded, and under `sentinel run` enforced by the kernel.

    from agent_sentinel import guarded_action

    @guarded_action(name="search_tool", cost_usd=0.01, tags=["search"])
    def search(query: str) -> list[str]: ...
"""

from importlib import metadata as _metadata

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
from .policy_sync import PolicySync
from .replay import ReplayMode, replay_mode
from .sync import (
    BackgroundSync,
    SyncConfig,
    enable_remote_sync,
    flush,
    flush_and_stop,
    get_sync,
    manual_flush,
)


def _refuse_another() -> None:
    # Both are imported as `agent_sentinel`: whichever was installed last has overwritten files of the other.
    try:
        other = _metadata.version("agentsentinel-sdk")
    except _metadata.PackageNotFoundError:
        return
    raise ImportError(
        f"`agentsentinel-sdk` {other} is installed beside `sentinel-agent-sdk`, and both are imported as `agent_sentinel`; "
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
