"""`CostTracker`: what was spent, by this process and all that share its ledger."""

from __future__ import annotations

from typing import Any, Optional

from . import _native
from ._runtime import runtime, told


class CostTracker:
    """What the session has spent, reservations of what runs now included.

    Under `sentinel run` session and run are the agent's account; the rest is that of this program's own folder.
    """

    @classmethod
    def get_session_total(cls) -> float:
        """Spent by the session, in dollars."""
        return cls._totals()[0]

    @classmethod
    def get_run_total(cls) -> float:
        """Spent by the run, in dollars."""
        return cls._totals()[1]

    @classmethod
    def get_action_stats(cls, action: Optional[str] = None) -> dict[str, Any]:
        """`{"count", "total_cost"}` of an action, zeros where it never ran; without one `{"counts", "costs"}` of all."""
        actions = cls._snapshot()[2]
        if action is not None:
            count, cost = actions.get(action, (0, 0.0))
            return {"count": count, "total_cost": cost}
        return {
            "counts": {name: count for name, (count, _) in actions.items()},
            "costs": {name: cost for name, (_, cost) in actions.items()},
        }

    @classmethod
    def get_snapshot(cls) -> dict[str, Any]:
        """All of it."""
        session, run = cls._totals()
        actions = cls._snapshot()[2]
        return {
            "session_total": session,
            "run_total": run,
            "action_counts": {name: count for name, (count, _) in actions.items()},
            "action_costs": {name: cost for name, (_, cost) in actions.items()},
        }

    @classmethod
    def reset_run(cls) -> None:
        """Begins a new run, with a fresh run budget. Session, counts and costs of actions stay."""
        agent = runtime.agent()
        try:
            if agent is not None:
                agent.reset_run()
            runtime.own().reset_run()
        except _native.Refused as refused:
            raise told(refused) from None

    @classmethod
    def reset_all(cls) -> None:
        """Forgets what was spent in this program's own account. The agent's stays: only its operator resets that."""
        try:
            runtime.own().reset_session()
        except _native.Refused as refused:
            raise told(refused) from None

    @classmethod
    def _totals(cls) -> tuple[float, float]:
        client = runtime.agent() or runtime.own()
        try:
            session, run, _, _ = client.totals()
        except _native.Refused as refused:
            raise told(refused) from None
        return session, run

    @classmethod
    def _snapshot(cls) -> tuple[float, float, dict[str, tuple[int, float]]]:
        try:
            return runtime.own().snapshot()
        except _native.Refused as refused:
            raise told(refused) from None
