"""A user's program that names everything the package offers. `stubs.py` has it checked as strictly as a type checker can; it is never run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Optional

from agent_sentinel import (
    AgentKilledError,
    AgentSentinelError,
    ApprovalRequest,
    ApprovalResponse,
    ApprovalStatus,
    BackgroundSync,
    BudgetExceededError,
    ComplianceMetadata,
    ConfigurationError,
    CostTracker,
    ExecutionContext,
    HumanApprovalHandler,
    InterventionTracker,
    KillSwitchClient,
    KillSwitchUnavailableError,
    Ledger,
    NetworkError,
    NoPolicyForWriteError,
    PolicyConfig,
    PolicyEngine,
    PolicyNotConfiguredError,
    PolicySync,
    PolicyViolationError,
    ReplayDivergenceError,
    ReplayMode,
    ReplayedError,
    SyncConfig,
    SyncError,
    TimeoutError,
    __version__,
    add_data_lineage,
    enable_remote_sync,
    flush,
    flush_and_stop,
    get_compliance_metadata,
    get_sync,
    guarded_action,
    manual_flush,
    replay_mode,
    set_compliance_metadata,
    set_decision_rationale,
    set_model_card,
)


@guarded_action(name="search", cost_usd=0.01, tags=["web"], risk_level="minimal")
def search(query: str, most: int = 10) -> list[str]:
    set_decision_rationale("asked for it", confidence=0.9, alternatives=["nothing"])
    add_data_lineage("index", "2025-01", rows=most)
    set_model_card("model", "1", "provider")
    said: Optional[ComplianceMetadata] = get_compliance_metadata()
    set_compliance_metadata(said or ComplianceMetadata())
    return [query] * most


@guarded_action(requires_human_approval=True, approval_description="pay", wait_for_approval=1.5, impact="high", fail_closed=True)
async def pay(amount: float) -> float:
    return amount


@guarded_action(agent_id="a", task_id="t", mission_id="m")
def items() -> Iterator[int]:
    yield 1


@guarded_action()
async def chunks() -> AsyncIterator[bytes]:
    yield b""


class Tool:
    @guarded_action(name="use")
    def use(self, thing: str) -> str:
        return thing


def approve(request: ApprovalRequest) -> ApprovalResponse:
    small = request.estimated_cost < 1
    return ApprovalResponse(request.request_id, ApprovalStatus.APPROVED if small else ApprovalStatus.REJECTED, approver_id="me")


async def approve_async(request: ApprovalRequest) -> ApprovalResponse:
    return approve(request)


def set_up() -> None:
    PolicyEngine.configure(session_budget=5.0, run_budget=1.0, rate_limits={"search": {"max_count": 10, "window_seconds": 60}})
    PolicyEngine.apply_config(PolicyConfig(denied_actions=["drop"], allowed_actions=["search"]))
    config: Optional[PolicyConfig] = PolicyEngine.get_config()
    print(__version__, config, PolicyEngine.is_configured())
    HumanApprovalHandler.set_approval_handler(approve)
    HumanApprovalHandler.set_async_approval_handler(approve_async)
    KillSwitchClient.configure("https://platform.example", "token", agent_id="a")
    enable_remote_sync("https://platform.example", "token", flush_interval=1.0)
    sync: Optional[BackgroundSync] = get_sync()
    own = BackgroundSync(SyncConfig(platform_url="https://platform.example", api_token="token"))
    print(sync is not None and sync.is_running(), own.accepted, PolicySync("https://platform.example", "token").fetch())


def read() -> None:
    stats: dict[str, Any] = CostTracker.get_action_stats("search")
    blocked: list[dict[str, Any]] = InterventionTracker.get_interventions(limit=10)
    line: str = Ledger.record("noted", inputs={"a": 1}, cost_usd=0.5, tags=["own"])
    print(CostTracker.get_run_total() + CostTracker.get_session_total(), stats, blocked, line)
    print(flush(), manual_flush(), flush_and_stop(timeout=1.0))


def again(run_id: str) -> None:
    with replay_mode(run_id=run_id):
        found: list[str] = search("again")
    with ReplayMode.from_run_id(run_id, strict=False) as replay:
        print(found, replay.get_progress(), replay.get_divergences())


def main() -> None:
    set_up()
    try:
        with ExecutionContext(agent_id="a", run_id="r"):
            words: list[str] = search("word", most=2)
            paid: float = asyncio.run(pay(0.5))
        print(words, paid, sum(items()), chunks(), Tool().use("hammer"))
    except BudgetExceededError as error:
        spent: Optional[float] = error.spent
        print(spent, error.limit, error.budget_type, error.to_dict())
    except (PolicyNotConfiguredError, NoPolicyForWriteError) as error:
        print(error.error_code, error.recoverable)
    except PolicyViolationError as error:
        print(error.reason_code, error.remediation, error.details)
    except (KillSwitchUnavailableError, AgentKilledError, ConfigurationError, TimeoutError) as error:
        print(error)
    except (NetworkError, SyncError) as error:
        print(error)
    except (ReplayDivergenceError, ReplayedError, AgentSentinelError) as error:
        print(error)
    read()
    again("r")


if __name__ == "__main__":
    main()
