"""What the exceptions say, to programs and to models."""

from __future__ import annotations

import builtins
import pickle
import unittest

import _load  # noqa: F401

from agent_sentinel import errors

LISTS = {"missing_requirements", "required_prior_actions", "safe_alternatives", "stale_evidence", "argument_violations"}

CODES = {
    "AgentSentinelError": "AGENT_SENTINEL_ERROR",
    "BudgetExceededError": "BUDGET_EXCEEDED",
    "PolicyViolationError": "POLICY_VIOLATION",
    "ReplayDivergenceError": "REPLAY_DIVERGENCE",
    "NetworkError": "NETWORK_ERROR",
    "SyncError": "SYNC_ERROR",
    "TimeoutError": "TIMEOUT",
    "ConfigurationError": "CONFIGURATION_ERROR",
    "PolicyNotConfiguredError": "POLICY_NOT_CONFIGURED",
    "NoPolicyForWriteError": "NO_POLICY_FOR_WRITE",
    "AgentKilledError": "AGENT_KILLED",
    "KillSwitchUnavailableError": "KILL_SWITCH_UNAVAILABLE",
}


class Errors(unittest.TestCase):
    def test_statement_69_all_errors_derive_from_one_and_tell_themselves_in_five_keys(self) -> None:
        for name, code in CODES.items():
            error = getattr(errors, name)("no")
            self.assertIsInstance(error, errors.AgentSentinelError, name)
            told = error.to_dict()
            self.assertEqual(list(told), ["error_type", "error_code", "message", "details", "recoverable"], name)
            self.assertEqual((told["error_type"], told["error_code"], told["message"]), (name, code, "no"))
            self.assertEqual(str(error), "no")

    def test_statement_69_a_budget_is_no_policy_violation_and_has_its_numbers_twice(self) -> None:
        error = errors.BudgetExceededError("run budget exceeded", spent=1.2, limit=1.0, budget_type="run")
        self.assertNotIsInstance(error, errors.PolicyViolationError)
        self.assertEqual((error.spent, error.limit, error.budget_type), (1.2, 1.0, "run"))
        self.assertEqual(error.details, {"spent": 1.2, "limit": 1.0, "budget_type": "run"})
        again = errors.BudgetExceededError("no", details={"spent": 2, "limit": 1, "budget_type": "action"})
        self.assertEqual((again.spent, again.limit, again.budget_type), (2, 1, "action"))

    def test_statement_70_every_block_carries_a_whole_remediation(self) -> None:
        for name in CODES:
            error = getattr(errors, name)("no")
            is_block = name in {
                "BudgetExceededError", "PolicyViolationError", "PolicyNotConfiguredError", "NoPolicyForWriteError",
                "AgentKilledError", "KillSwitchUnavailableError",
            }  # fmt: skip
            self.assertEqual(hasattr(error, "remediation"), is_block, name)
            if is_block:
                self.assertEqual(error.remediation["reason_code"], CODES[name])
                self.assertTrue(error.remediation["retry_guidance"])
                self.assertTrue(LISTS <= set(error.remediation), name)
                self.assertFalse(error.recoverable, name)

    def test_statement_70_only_rate_limits_are_recoverable(self) -> None:
        limited = errors.PolicyViolationError("too many", reason_code="RATE_LIMITED", remediation={"retry_after_seconds": 3})
        self.assertTrue(limited.recoverable)
        self.assertEqual((limited.retry_after_seconds, limited.remediation["retry_after_seconds"]), (3, 3))
        for wrong in (None, -1, float("nan"), "3", True):
            never = errors.PolicyViolationError("never", reason_code="RATE_LIMITED", remediation={"retry_after_seconds": wrong})
            self.assertFalse(never.recoverable, wrong)
            self.assertNotIn("retry_after_seconds", never.remediation)
        denied = errors.PolicyViolationError("no", recoverable=True, remediation={"reason_code": "DENIED_ACTION", "retry_after_seconds": 3})
        self.assertFalse(denied.recoverable)
        self.assertIn("don't retry", denied.remediation["retry_guidance"])

    def test_what_a_remediation_is_given_stays(self) -> None:
        made = errors.remediation("NOT_IN_ALLOWLIST", safe_alternatives=["read_file"])
        error = errors.PolicyViolationError("no", remediation=made)
        self.assertEqual(error.remediation["safe_alternatives"], ["read_file"])
        self.assertEqual(error.reason_code, "NOT_IN_ALLOWLIST")
        with self.assertRaisesRegex(TypeError, "`safe_alternative`"):
            errors.remediation("DENIED_ACTION", safe_alternative=["a"])

    def test_the_tree_is_the_documented_one(self) -> None:
        self.assertTrue(issubclass(errors.PolicyNotConfiguredError, errors.PolicyViolationError))
        self.assertTrue(issubclass(errors.NoPolicyForWriteError, errors.PolicyViolationError))
        self.assertTrue(issubclass(errors.KillSwitchUnavailableError, errors.AgentKilledError))
        self.assertFalse(issubclass(errors.AgentKilledError, errors.PolicyViolationError))
        self.assertFalse(issubclass(errors.TimeoutError, builtins.TimeoutError))

    def test_a_network_error_is_recoverable_where_trying_again_can_help(self) -> None:
        for status, expected in ((500, True), (503, True), (408, True), (429, True), (400, False), (401, False)):
            self.assertEqual(errors.NetworkError("no", status_code=status).recoverable, expected, status)

    def test_an_error_survives_the_way_from_a_worker_process(self) -> None:
        for name in CODES:
            error = getattr(errors, name)("no", details={"a": 1})
            back = pickle.loads(pickle.dumps(error))
            self.assertEqual((type(back), back.to_dict(), str(back)), (type(error), error.to_dict(), "no"))
            self.assertEqual(getattr(back, "remediation", None), getattr(error, "remediation", None))


if __name__ == "__main__":
    unittest.main()
