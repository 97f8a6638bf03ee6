"""`InterventionTracker`: what was kept from happening, as AgentSentinel's SDK tells it."""

from __future__ import annotations

import os
import unittest
from typing import Any

from _guard_case import GuardCase, answering

from agent_sentinel import AgentSentinelError, ApprovalStatus, InterventionTracker, PolicyEngine, guarded_action

KEYS = {
    "intervention_type", "outcome", "action_name", "action_description", "agent_id", "run_id", "task_id", "mission_id", "policy_name",
    "estimated_cost", "actual_cost", "risk_level", "blast_radius", "reason", "agent_intent", "original_inputs", "modified_inputs", "context",
    "remediation_payload", "timestamp",
}  # fmt: skip


class Interventions(GuardCase):
    def try_action(self, name: str, cost_usd: float = 0.0, *args: Any) -> None:
        try:
            guarded_action(name=name, cost_usd=cost_usd)(lambda *_: None)(*args)
        except AgentSentinelError:
            pass

    def told(self) -> list[tuple[str, str, str]]:
        tracked = InterventionTracker.get_interventions()
        return [(one["intervention_type"], one["outcome"], one["action_name"]) for one in tracked]

    def test_statement_60_every_kind_of_block_is_one_and_the_newest_is_first(self) -> None:
        PolicyEngine.configure(
            session_budget=1.0,
            denied_actions=["no"],
            allowed_actions=["no", "limited", "paid"],
            rate_limits={"limited": {"max_count": 1, "window_seconds": 60}},
        )
        for name, cost in (("no", 0.0), ("unknown", 0.0), ("limited", 0.0), ("limited", 0.0), ("paid", 2.0)):
            self.try_action(name, cost)
        self.assertEqual(
            self.told(),
            [
                ("budget_exceeded", "blocked", "paid"),
                ("rate_limited", "blocked", "limited"),
                ("hard_block", "blocked", "unknown"),
                ("hard_block", "blocked", "no"),
            ],
        )

    def test_statement_60_a_block_has_the_documented_keys(self) -> None:
        PolicyEngine.configure(run_budget=1.0)
        self.try_action("paid", 2.5, {"api_key": "hunter2", "n": 1})
        (one,) = InterventionTracker.get_interventions()
        self.assertLessEqual(KEYS, set(one))
        self.assertEqual((one["estimated_cost"], one["actual_cost"]), (2.5, 0.0))
        self.assertEqual(one["blast_radius"], {"funds_protected": 1.0, "cost_prevented": 2.5})
        self.assertEqual(one["remediation_payload"]["reason_code"], "BUDGET_EXCEEDED")
        self.assertEqual(one["original_inputs"], {"args": [{"api_key": "[redacted:key]", "n": 1}], "kwargs": {}})

    def test_statement_60_what_was_only_warned_about_is_one_too(self) -> None:
        PolicyEngine.configure(run_budget=1.0, strict_mode=False)
        self.try_action("paid", 2.0)
        self.assertEqual(self.told(), [("warning", "warned", "paid")])
        self.assertEqual(self.outcomes("paid")[-1], "success")

    def test_statement_60_what_a_human_was_asked_and_said_is_one_each(self) -> None:
        PolicyEngine.configure(require_approval=True)
        answering(ApprovalStatus.APPROVED)
        self.try_action("pay")
        answering(ApprovalStatus.REJECTED)
        self.try_action("pay")
        self.assertEqual(
            [outcome for _, outcome, _ in self.told()],
            ["rejected_after_review", "escalated", "approved_after_review", "escalated"],
        )

    def test_what_ran_is_none(self) -> None:
        self.try_action("yes")
        self.assertEqual(self.told(), [])

    def test_before_there_is_a_ledger_there_are_none(self) -> None:
        self.assertEqual(InterventionTracker.get_interventions(), [])
        self.assertFalse(self.path.exists())

    def test_only_as_many_as_are_wanted_are_told(self) -> None:
        PolicyEngine.configure(denied_actions=["a", "b", "c"])
        for name in ("a", "b", "c"):
            self.try_action(name)
        for limit, expected in ((0, []), (1, ["c"]), (2, ["c", "b"]), (9, ["c", "b", "a"]), (None, ["c", "b", "a"])):
            self.assertEqual([one["action_name"] for one in InterventionTracker.get_interventions(limit)], expected)

    def test_those_of_older_parts_come_after_whatever_the_parts_are_called(self) -> None:
        PolicyEngine.configure(denied_actions=["a", "b", "c"])
        for name, part in (("a", "ledger-20250115.jsonl"), ("b", "ledger-0001.jsonl")):
            self.try_action(name)
            self.path.rename(self.home / part)
        self.try_action("c")
        self.assertEqual([name for _, _, name in self.told()], ["c", "b", "a"])

    def test_a_part_that_has_two_names_is_told_once(self) -> None:
        PolicyEngine.configure(denied_actions=["a"])
        self.try_action("a")
        os.link(self.path, self.home / "ledger-00000000000000000001.jsonl")
        self.assertEqual(len(self.told()), 1)


if __name__ == "__main__":
    unittest.main()
