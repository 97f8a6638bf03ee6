"""`CostTracker`: what was spent, and how often what was started."""

from __future__ import annotations

import unittest
from typing import Any

from _guard_case import GuardCase

from agent_sentinel import BudgetExceededError, CostTracker, PolicyEngine, guarded_action


def act(name: str, cost_usd: float, error: Any = None) -> None:
    @guarded_action(name=name, cost_usd=cost_usd)
    def body() -> None:
        if error is not None:
            raise error

    body()


class Cost(GuardCase):
    def test_statement_39_an_action_has_its_count_and_its_cost(self) -> None:
        act("x", 0.1)
        act("x", 0.2)
        act("y", 1.0)
        self.assertEqual(CostTracker.get_action_stats("x"), {"count": 2, "total_cost": 0.3})

    def test_statement_39_an_action_that_never_ran_has_zeros(self) -> None:
        self.assertEqual(CostTracker.get_action_stats("unknown"), {"count": 0, "total_cost": 0.0})

    def test_statement_40_all_actions_have_a_map_of_counts_and_one_of_costs(self) -> None:
        act("x", 0.1)
        act("y", 1.0)
        act("x", 0.2)
        self.assertEqual(CostTracker.get_action_stats(), {"counts": {"x": 2, "y": 1}, "costs": {"x": 0.3, "y": 1.0}})

    def test_statement_40_a_snapshot_has_all_of_it(self) -> None:
        act("x", 0.1)
        CostTracker.reset_run()
        act("y", 1.0)
        expected = {
            "session_total": 1.1,
            "run_total": 1.0,
            "action_counts": {"x": 1, "y": 1},
            "action_costs": {"x": 0.1, "y": 1.0},
        }
        self.assertEqual(CostTracker.get_snapshot(), expected)

    def test_statement_40_before_anything_was_done_it_is_all_zero(self) -> None:
        expected = {"session_total": 0.0, "run_total": 0.0, "action_counts": {}, "action_costs": {}}
        self.assertEqual(CostTracker.get_snapshot(), expected)

    def test_statement_12_a_call_over_the_budget_does_not_run(self) -> None:
        PolicyEngine.configure(run_budget=1.0)
        act("paid", 0.9)
        with self.assertRaises(BudgetExceededError) as raised:
            act("paid", 0.3, AssertionError("it ran"))
        self.assertEqual((raised.exception.spent, raised.exception.limit), (1.2, 1.0))
        self.assertEqual(CostTracker.get_action_stats("paid"), {"count": 1, "total_cost": 0.9})

    def test_statement_13_a_budget_can_be_spent_to_the_last_cent(self) -> None:
        PolicyEngine.configure(run_budget=1.0)
        act("paid", 0.5)
        act("paid", 0.5)
        with self.assertRaises(BudgetExceededError):
            act("paid", 0.01)

    def test_statement_17_an_action_that_failed_is_charged(self) -> None:
        with self.assertRaises(ValueError):
            act("fails", 0.4, ValueError("no"))
        self.assertEqual(CostTracker.get_run_total(), 0.4)

    def test_statement_18_a_new_run_has_a_fresh_run_budget_alone(self) -> None:
        PolicyEngine.configure(run_budget=1.0, action_budgets={"dear": 0.5})
        act("dear", 0.5)
        CostTracker.reset_run()
        self.assertEqual((CostTracker.get_run_total(), CostTracker.get_session_total()), (0.0, 0.5))
        with self.assertRaises(BudgetExceededError) as raised:
            act("dear", 0.1)
        self.assertEqual(raised.exception.budget_type, "action")
        act("other", 1.0)

    def test_while_an_action_runs_its_cost_is_reserved(self) -> None:
        seen = []
        guarded_action(name="paid", cost_usd=0.25)(lambda: seen.append(CostTracker.get_run_total()))()
        self.assertEqual((seen, CostTracker.get_run_total()), ([0.25], 0.25))

    def test_reset_all_forgets_the_session(self) -> None:
        PolicyEngine.configure(session_budget=0.5)
        act("paid", 0.5)
        CostTracker.reset_all()
        self.assertEqual((CostTracker.get_session_total(), CostTracker.get_run_total()), (0.0, 0.0))
        act("paid", 0.5)


if __name__ == "__main__":
    unittest.main()
