"""`PolicyEngine`: where a policy comes from, what it says of itself, and that one that is wrong lets nothing run."""

from __future__ import annotations

import json
import os
import unittest
from decimal import Decimal
from pathlib import Path
from typing import Any

from _guard_case import GuardCase

from agent_sentinel import (
    AgentSentinelError,
    BudgetExceededError,
    ConfigurationError,
    PolicyConfig,
    PolicyEngine,
    PolicyNotConfiguredError,
    PolicyViolationError,
    guarded_action,
)

LISTS = {"missing_requirements", "required_prior_actions", "safe_alternatives", "stale_evidence", "argument_violations"}


class PolicyCase(GuardCase):
    def setUp(self) -> None:
        super().setUp()
        before = Path.cwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)

    def try_action(self, name: str, cost_usd: float = 0.0) -> bool:
        """Whether it ran. What keeps it from running is raised."""
        ran: list[bool] = []
        guarded_action(name=name, cost_usd=cost_usd)(lambda: ran.append(True))()
        return bool(ran)

    def blocked(self, name: str, cost_usd: float = 0.0) -> Any:
        ran: list[bool] = []
        with self.assertRaises(AgentSentinelError) as raised:
            guarded_action(name=name, cost_usd=cost_usd)(lambda: ran.append(True))()
        self.assertEqual(ran, [])
        return raised.exception


class Places(PolicyCase):
    def write(self, path: Path, action: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"denied_actions: [{action}]\n")

    def test_statement_33_without_a_path_the_first_of_three_places_is_read(self) -> None:
        places = [Path("callguard.yaml"), Path(".agent-sentinel/callguard.yaml"), self.home / "callguard.yaml"]
        for number, path in enumerate(places):
            self.write(path, f"place_{number}")
        for number, path in enumerate(places):
            PolicyEngine.load_from_yaml()
            config = PolicyEngine.get_config()
            assert config is not None
            self.assertEqual(config.denied_actions, [f"place_{number}"])
            path.unlink()

    def test_statement_33_none_of_the_places_is_an_error_that_names_them(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, r"`callguard.yaml`.*`.agent-sentinel/callguard.yaml`.*home/callguard.yaml`"):
            PolicyEngine.load_from_yaml()
        self.blocked("anything")

    def test_a_path_may_be_a_text_or_a_path(self) -> None:
        self.write(Path("mine.yaml"), "delete")
        for path in ("mine.yaml", Path("mine.yaml"), self.folder / "mine.yaml"):
            PolicyEngine.load_from_yaml(path)
            self.assertEqual(self.blocked("delete").reason_code, "DENIED_ACTION")
            self.assertTrue(self.try_action("read"))


class Configuration(PolicyCase):
    def test_statement_35_it_says_whether_it_is_configured_and_with_what(self) -> None:
        self.assertFalse(PolicyEngine.is_configured())
        self.assertIsNone(PolicyEngine.get_config())
        PolicyEngine.configure(run_budget=1.5, denied_actions=["no"])
        self.assertTrue(PolicyEngine.is_configured())
        config = PolicyEngine.get_config()
        assert config is not None
        self.assertEqual((config.run_budget, config.session_budget, config.denied_actions), (1.5, None, ["no"]))
        PolicyEngine.reset()
        self.assertFalse(PolicyEngine.is_configured())
        self.assertIsNone(PolicyEngine.get_config())
        self.assertTrue(self.try_action("no"))

    def test_statement_36_each_configuration_replaces_the_whole_policy(self) -> None:
        PolicyEngine.configure(denied_actions=["no"], run_budget=1.0)
        PolicyEngine.configure(session_budget=5.0)
        config = PolicyEngine.get_config()
        assert config is not None
        self.assertEqual((config.run_budget, config.denied_actions), (None, []))
        self.assertTrue(self.try_action("no", 2.0))

    def test_changing_what_get_config_gave_changes_nothing(self) -> None:
        PolicyEngine.configure(denied_actions=["no"])
        config = PolicyEngine.get_config()
        assert config is not None
        config.denied_actions.clear()
        self.assertEqual(self.blocked("no").reason_code, "DENIED_ACTION")

    def test_a_config_can_be_applied_as_a_whole(self) -> None:
        PolicyEngine.apply_config(PolicyConfig(allowed_actions=["yes"]))
        self.assertTrue(self.try_action("yes"))
        self.assertEqual(self.blocked("other").reason_code, "NOT_IN_ALLOWLIST")

    def test_lists_may_be_tuples_and_sets_and_amounts_decimals_of_floats(self) -> None:
        PolicyEngine.configure(denied_actions=("no",), allowed_actions={"yes", "no"}, session_budget=float(Decimal("0.3")))
        self.assertEqual(self.blocked("no").reason_code, "DENIED_ACTION")
        for _ in range(3):
            self.try_action("yes", 0.1)
        self.assertEqual(self.blocked("yes", 0.1).budget_type, "session")

    def test_a_child_that_was_forked_has_its_parents_policy(self) -> None:
        PolicyEngine.configure(denied_actions=["no"])
        child = os.fork()
        if child == 0:
            status = 1
            try:
                self.blocked("no")
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)


class Failures(PolicyCase):
    def assert_nothing_runs(self, *words: str) -> None:
        """And the refusal says why, and what to do."""
        error = self.blocked("anything")
        self.assertIsInstance(error, PolicyNotConfiguredError)
        for word in ("`anything`", "nothing may start", "configure one that is right", *words):
            self.assertIn(word, str(error))
        for word in ("malformed", "panicked", "unwrap"):
            self.assertNotIn(word, str(error))
        self.assertFalse(PolicyEngine.is_configured())

    def test_statement_34_whatever_is_wrong_with_a_configuration_lets_nothing_run(self) -> None:
        wrong: list[dict[str, Any]] = [
            {"denied_actions": "delete"},
            {"denied_actions": 5},
            {"denied_actions": [1]},
            {"allowed_actions": [""]},
            {"session_budget": "5"},
            {"session_budget": -1},
            {"run_budget": float("nan")},
            {"session_budget": True},
            {"session_budget": object()},
            {"action_budgets": ["paid"]},
            {"action_budgets": {"paid": None}},
            {"rate_limits": {"paid": 5}},
            {"rate_limits": {"paid": {"max": 1}}},
            {"strict_mode": "yes"},
            {"require_approval": True, "approval_timeout_seconds": "soon"},
            {"require_approval": True, "approval_timeout_seconds": float("nan")},
            {"require_approval": True, "approval_timeout_seconds": 0.5},
            {"require_approval": True, "approval_threshold_usd": "much"},
        ]
        for before in ({}, {"denied_actions": ["no"]}):
            for one in wrong:
                with self.subTest(one):
                    PolicyEngine.reset()
                    if before:
                        PolicyEngine.configure(**before)  # type: ignore[arg-type]
                    with self.assertRaises(ConfigurationError) as raised:
                        PolicyEngine.configure(**one)
                    self.assert_nothing_runs(str(raised.exception).splitlines()[0])

    def test_statement_34_whatever_is_wrong_with_a_file_lets_nothing_run(self) -> None:
        Path("folder").mkdir()
        for content, word in (
            (b"", "the file holds no policy"),
            (b"budgets: {run: \xff}", "can't be read"),
            (b"budget: {run: 1}", "did you mean `budgets`"),
            (b"budgets:\n  run: '1.0'", "write it without quotes"),
            (b"[a, b]", "error"),
            (b"a: [", "error"),
        ):
            with self.subTest(content):
                PolicyEngine.reset()
                Path("callguard.yaml").write_bytes(content)
                with self.assertRaisesRegex(ConfigurationError, word):
                    PolicyEngine.load_from_yaml("callguard.yaml")
                self.assert_nothing_runs()
        for path in ("folder", "missing.yaml", "nul\0", 5):
            with self.subTest(path):
                PolicyEngine.reset()
                with self.assertRaisesRegex(ConfigurationError, "can't be read"):
                    PolicyEngine.load_from_yaml(path)  # type: ignore[arg-type]
                self.assert_nothing_runs()

    def test_the_problems_of_a_file_are_told_with_their_lines(self) -> None:
        Path("callguard.yaml").write_text("budgets:\n  run: -1\n  sesion: 2\n")
        with self.assertRaises(ConfigurationError) as raised:
            PolicyEngine.load_from_yaml("callguard.yaml")
        told = str(raised.exception)
        for place in ("callguard.yaml:2:8", "callguard.yaml:3:3", "did you mean `session`"):
            self.assertIn(place, told)
        self.assertTrue(told.startswith("error: "), told)

    def test_after_a_failure_a_right_policy_holds_again(self) -> None:
        with self.assertRaises(ConfigurationError):
            PolicyEngine.configure(session_budget=-1)
        PolicyEngine.configure(denied_actions=["no"])
        self.assertTrue(self.try_action("yes"))
        self.assertEqual(self.blocked("no").reason_code, "DENIED_ACTION")

    def test_a_failure_before_anything_was_done_holds_for_the_first_action(self) -> None:
        with self.assertRaises(ConfigurationError):
            PolicyEngine.load_from_yaml("missing.yaml")
        self.assertFalse(self.path.exists())
        self.assert_nothing_runs()

    def test_what_is_blocked_while_no_policy_can_be_read_stands_in_the_ledger(self) -> None:
        with self.assertRaises(ConfigurationError):
            PolicyEngine.load_from_yaml("missing.yaml")
        self.assertEqual(self.blocked("act").reason_code, "POLICY_NOT_CONFIGURED")
        lines = [json.loads(line) for line in self.path.read_text().splitlines()]
        (line,) = (line for line in lines if line["action"] == "act")
        self.assertEqual((line["outcome"], line["kind"], line["cost_usd"]), ("blocked", "action", 0.0))
        self.assertIn("missing.yaml", line["payload"]["outputs"])
        PolicyEngine.configure(allowed_actions=["act"])
        self.assertTrue(self.try_action("act"))


class Blocks(PolicyCase):
    def test_statement_70_every_block_says_why_and_what_to_do_instead(self) -> None:
        PolicyEngine.configure(
            session_budget=1.0,
            denied_actions=["no"],
            allowed_actions=["no", "limited", "never", "paid"],
            rate_limits={"limited": {"max_count": 1, "window_seconds": 60}, "never": {"max_count": 0, "window_seconds": 60}},
        )
        self.try_action("limited")
        for action, cost, kind, code in (
            ("no", 0.0, PolicyViolationError, "DENIED_ACTION"),
            ("unknown", 0.0, PolicyViolationError, "NOT_IN_ALLOWLIST"),
            ("limited", 0.0, PolicyViolationError, "RATE_LIMITED"),
            ("never", 0.0, PolicyViolationError, "RATE_LIMITED"),
            ("paid", 2.0, BudgetExceededError, "BUDGET_EXCEEDED"),
        ):
            with self.subTest(action):
                error = self.blocked(action, cost)
                self.assertIs(type(error), kind)
                self.assertEqual(error.remediation["reason_code"], code)
                self.assertTrue(error.remediation["retry_guidance"])
                self.assertTrue(LISTS <= set(error.remediation), error.remediation)
                self.assertIn(f"`{action}`", str(error))
                is_limit = action == "limited"
                self.assertEqual((error.recoverable, error.retry_after_seconds is not None), (is_limit, is_limit))
        self.assertGreater(self.blocked("limited").retry_after_seconds, 0)
        self.assertEqual(self.blocked("unknown").remediation["safe_alternatives"], ["limited", "never", "no", "paid"])

    def test_statement_69_a_block_tells_itself_in_five_keys(self) -> None:
        PolicyEngine.configure(run_budget=1.0)
        error = self.blocked("paid", 1.5)
        self.assertNotIsInstance(error, PolicyViolationError)
        told = error.to_dict()
        self.assertEqual(list(told), ["error_type", "error_code", "message", "details", "recoverable"])
        self.assertEqual((told["error_type"], told["error_code"]), ("BudgetExceededError", "BUDGET_EXCEEDED"))
        self.assertEqual(
            {key: told["details"][key] for key in ("spent", "limit", "budget_type")},
            {"spent": 1.5, "limit": 1.0, "budget_type": "run"},
        )


if __name__ == "__main__":
    unittest.main()
