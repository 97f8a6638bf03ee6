"""A human's word: who is asked, when, and that without a plain yes nothing runs."""

from __future__ import annotations

import asyncio
import datetime
import unittest
from typing import Any, Callable

from _guard_case import PATIENCE, GuardCase, answering

from agent_sentinel import (
    ApprovalRequest,
    ApprovalStatus,
    BudgetExceededError,
    CostTracker,
    HumanApprovalHandler,
    InterventionTracker,
    PolicyEngine,
    PolicyViolationError,
    TimeoutError,
    guarded_action,
)
from agent_sentinel._runtime import runtime


def synchronous(**given: Any) -> Callable[..., object]:
    @guarded_action(name="pay", **given)
    def pay(to: str = "anna") -> str:
        return f"paid {to}"

    return pay


def asynchronous(**given: Any) -> Callable[..., object]:
    @guarded_action(name="pay", **given)
    async def pay(to: str = "anna") -> str:
        return f"paid {to}"

    return lambda *args: asyncio.run(pay(*args))  # type: ignore[arg-type]


class ApprovalCase(GuardCase):
    def needs_human(self, **given: Any) -> list[tuple[str, Callable[..., object]]]:
        """The ways to say that an action needs a human's word."""
        PolicyEngine.configure(require_approval=True, approval_actions=["policy"], session_budget=10.0)
        ways = []
        for kind in (synchronous, asynchronous):
            ways.append((f"{kind.__name__}, by the decorator", kind(cost_usd=1.0, requires_human_approval=True, **given)))
        return ways

    def by_policy(self, **given: Any) -> list[tuple[str, Callable[..., object]]]:
        PolicyEngine.configure(require_approval=True, approval_actions=["pay"], session_budget=10.0)
        return [(f"{kind.__name__}, by the policy", kind(cost_usd=1.0, **given)) for kind in (synchronous, asynchronous)]

    def assert_did_not_run(self) -> None:
        """And nothing was charged for it."""
        self.assertLessEqual(set(self.outcomes("pay")), {"aborted", "blocked"})
        self.assertEqual((CostTracker.get_session_total(), CostTracker.get_action_stats("pay")["total_cost"]), (0.0, 0.0))

    def each(self, test: Callable[[Callable[..., object]], None], **given: Any) -> None:
        for make in (self.needs_human, self.by_policy):
            for number in range(2):
                self.forget()
                CostTracker.reset_all()
                way, pay = make(**given)[number]
                with self.subTest(way):
                    test(pay)


class Words(ApprovalCase):
    def test_statement_55_without_anybody_to_ask_it_does_not_run(self) -> None:
        def test(pay: Callable[..., object]) -> None:
            with self.assertRaisesRegex(PolicyViolationError, "set_approval_handler") as raised:
                pay()
            self.assertEqual(raised.exception.reason_code, "NO_APPROVER")
            self.assert_did_not_run()

        self.each(test)

    def test_statement_56_approved_it_runs_and_is_charged(self) -> None:
        def test(pay: Callable[..., object]) -> None:
            answering(ApprovalStatus.APPROVED, "fine")
            self.assertEqual(pay("ben"), "paid ben")
            self.assertEqual(self.outcomes("pay")[-1], "success")
            self.assertEqual(CostTracker.get_session_total(), 1.0)

        self.each(test)

    def test_statement_56_any_other_word_keeps_it_from_running(self) -> None:
        for status in (ApprovalStatus.REJECTED, ApprovalStatus.EXPIRED, ApprovalStatus.CANCELLED, ApprovalStatus.PENDING):

            def test(pay: Callable[..., object]) -> None:
                answering(status, "not today")
                with self.assertRaisesRegex(PolicyViolationError, f"status is: ApprovalStatus.{status.name}") as raised:
                    pay()
                self.assertEqual(raised.exception.details["notes"], "not today")
                self.assert_did_not_run()

            self.each(test)

    def test_a_handler_that_fails_or_answers_something_else_keeps_it_from_running(self) -> None:
        def fails(_: ApprovalRequest) -> Any:
            raise ZeroDivisionError

        for handler, error in ((fails, ZeroDivisionError), (lambda _: True, PolicyViolationError), (lambda _: None, PolicyViolationError)):

            def test(pay: Callable[..., object]) -> None:
                HumanApprovalHandler.set_approval_handler(handler)  # type: ignore[arg-type]
                with self.assertRaises(error):
                    pay()
                self.assert_did_not_run()

            self.each(test)

    def test_statement_56_the_word_stands_in_the_ledger_and_on_the_actions_line(self) -> None:
        def test(pay: Callable[..., object]) -> None:
            answering(ApprovalStatus.APPROVED, "fine")
            pay()
            said = self.lines("pay", "success")[-1]["compliance_metadata"]
            expected = (True, "approved", "u1", "a@b.c", "fine")
            keys = ("requires_human_approval", "approval_status", "human_in_the_loop_id", "human_in_the_loop_email", "approval_notes")
            self.assertEqual(tuple(said[key] for key in keys), expected)
            self.assertIsNotNone(datetime.datetime.fromisoformat(said["approval_timestamp"]).tzinfo)
            answering(ApprovalStatus.REJECTED, "not today")
            with self.assertRaises(PolicyViolationError):
                pay()
            words = [(line["outcome"], line["payload"]["outputs"].get("note")) for line in self.ledger() if line["kind"] == "approval"]
            self.assertEqual(words[-4:], [("pending", None), ("approved", "fine"), ("pending", None), ("rejected", "not today")])
            newest = InterventionTracker.get_interventions(1)[0]
            self.assertEqual((newest["outcome"], newest["action_name"]), ("rejected_after_review", "pay"))
            self.assertIn("not today", newest["reason"])

        self.each(test)

    def test_statement_22_a_refused_call_leaves_its_budget_to_others(self) -> None:
        def test(pay: Callable[..., object]) -> None:
            answering(ApprovalStatus.REJECTED)
            for _ in range(12):
                with self.assertRaises(PolicyViolationError):
                    pay()
            answering(ApprovalStatus.APPROVED)
            for _ in range(10):
                pay()
            with self.assertRaises(BudgetExceededError):
                pay()

        self.each(test)


class Questions(ApprovalCase):
    def test_the_human_is_shown_what_is_asked(self) -> None:
        asked: list[ApprovalRequest] = []

        def test(pay: Callable[..., object]) -> None:
            answering(ApprovalStatus.APPROVED, asked=asked)
            pay("ben")
            shown = asked[-1]
            self.assertEqual((shown.action_name, shown.estimated_cost, shown.risk_level), ("pay", 1.0, "high"))
            self.assertEqual(shown.inputs, {"args": ("ben",), "kwargs": {}})
            self.assertIsNotNone(shown.created_at.tzinfo)

        self.each(test, risk_level="high")
        self.each(test, risk_level="high", approval_description="pays somebody")
        self.assertEqual([shown.action_description for shown in asked], ["Execute pay"] * 4 + ["pays somebody"] * 4)
        self.assertEqual(len({shown.request_id for shown in asked}), 8)

    def test_the_human_is_asked_once_where_both_policy_and_decorator_want_it(self) -> None:
        asked: list[ApprovalRequest] = []
        answering(ApprovalStatus.APPROVED, asked=asked)
        PolicyEngine.configure(require_approval=True)
        synchronous(requires_human_approval=True)()
        self.assertEqual(len(asked), 1)

    def test_each_call_is_asked_for_by_itself(self) -> None:
        asked: list[ApprovalRequest] = []
        answering(ApprovalStatus.APPROVED, asked=asked)
        for _, pay in self.by_policy():
            pay()
            pay()
        self.assertEqual(len(asked), 4)

    def test_statement_57_a_policy_asks_for_listed_actions_tags_risks_and_amounts(self) -> None:
        asked: list[ApprovalRequest] = []
        answering(ApprovalStatus.APPROVED, asked=asked)
        PolicyEngine.configure(
            require_approval=True,
            approval_actions=["listed"],
            approval_tags=["production"],
            approval_risk_levels=["high"],
            approval_threshold_usd=1.0,
        )
        for expected, given in (
            (True, {"name": "listed"}),
            (True, {"name": "tagged", "tags": ["a", "production"]}),
            (True, {"name": "risky", "risk_level": "HIGH"}),
            (True, {"name": "dear", "cost_usd": 1.0}),
            (False, {"name": "cheap", "cost_usd": 0.99, "tags": ["a"], "risk_level": "low"}),
        ):
            asked.clear()
            guarded_action(**given)(lambda: None)()  # type: ignore[arg-type]
            self.assertEqual(bool(asked), expected, given)

    def test_statement_57_without_any_criterion_it_asks_for_all(self) -> None:
        asked: list[ApprovalRequest] = []
        answering(ApprovalStatus.APPROVED, asked=asked)
        PolicyEngine.configure(require_approval=True)
        guarded_action(name="anything")(lambda: None)()
        self.assertEqual(len(asked), 1)

    def test_statement_57_a_policy_that_doesnt_require_it_asks_for_none(self) -> None:
        asked: list[ApprovalRequest] = []
        answering(ApprovalStatus.APPROVED, asked=asked)
        PolicyEngine.configure(require_approval=False, approval_actions=["anything"])
        guarded_action(name="anything")(lambda: None)()
        self.assertEqual(asked, [])

    def test_statement_59_nobody_is_asked_about_what_is_denied_anyway(self) -> None:
        asked: list[ApprovalRequest] = []
        answering(ApprovalStatus.APPROVED, asked=asked)
        for kind in (synchronous, asynchronous):
            for policy, error in (
                ({"denied_actions": ["pay"]}, PolicyViolationError),
                ({"allowed_actions": []}, PolicyViolationError),
                ({"session_budget": 0.5}, BudgetExceededError),
                ({"rate_limits": {"pay": {"max_count": 0, "window_seconds": 1}}}, PolicyViolationError),
            ):
                for by_policy in (True, False):
                    PolicyEngine.configure(require_approval=by_policy, **policy)  # type: ignore[arg-type]
                    with self.assertRaises(error):
                        kind(cost_usd=1.0, requires_human_approval=not by_policy)()
        self.assertEqual(asked, [])


class Waiting(ApprovalCase):
    def test_one_that_waits_runs_once_somebody_else_has_approved_it(self) -> None:
        results: list[object] = []
        for way, pay in self.by_policy(wait_for_approval=PATIENCE):
            with self.subTest(way):
                waits = self.start(lambda: results.append(pay()))
                before = len(results)
                self.wait_until(lambda: len(self.lines("pay", "pending")) > before)
                self.assertEqual(len(results), before)
                runtime.own().decide_approval(self.lines("pay", "pending")[-1]["id"], True)
                waits.join(PATIENCE)
        self.assertEqual(results, ["paid anna"] * 2)

    def test_one_that_is_denied_while_it_waits_does_not_run(self) -> None:
        errors: list[PolicyViolationError] = []

        def wait(pay: Callable[..., object]) -> None:
            try:
                pay()
            except PolicyViolationError as error:
                errors.append(error)

        _, pay = self.by_policy(wait_for_approval=PATIENCE)[0]
        waits = self.start(wait, pay)
        self.wait_until(lambda: len(self.lines("pay", "pending")) == 1)
        runtime.own().decide_approval(self.lines("pay", "pending")[0]["id"], False, "not today")
        waits.join(PATIENCE)
        self.assertEqual([error.reason_code for error in errors], ["APPROVAL_REJECTED"])
        self.assertIn("not today", str(errors[0]))
        self.assert_did_not_run()

    def test_statement_58_past_the_policys_time_it_is_a_timeout(self) -> None:
        PolicyEngine.configure(require_approval=True, approval_timeout_seconds=1)
        for kind in (synchronous, asynchronous):
            with self.assertRaisesRegex(TimeoutError, "nobody approved it within 1 s"):
                kind(wait_for_approval=PATIENCE)()
        self.assert_did_not_run()


if __name__ == "__main__":
    unittest.main()
