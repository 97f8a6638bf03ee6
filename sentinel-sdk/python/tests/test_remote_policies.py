"""Statement 67, from end to end: what the platform says tightens what the program configured, and is enforced."""

from __future__ import annotations

import _home

import time
import unittest
from pathlib import Path

from _platform import TOKEN, Platform

from agent_sentinel import (
    BudgetExceededError,
    ConfigurationError,
    PolicyEngine,
    PolicyViolationError,
    SyncError,
    guarded_action,
)


@guarded_action(name="drop_table")
def drop_table() -> None: ...


@guarded_action(name="pay", cost_usd=1.0)
def pay() -> None: ...


class RemotePolicies(unittest.TestCase):
    def setUp(self) -> None:
        PolicyEngine.reset()
        (Path(_home.HOME) / "policy_cache.json").unlink(missing_ok=True)
        self.platform = Platform()
        self.platform.up()
        self.addCleanup(self.platform.down)
        self.addCleanup(PolicyEngine.reset)

    def enable(self, **more: float) -> None:
        PolicyEngine.enable_remote_sync(self.platform.url, TOKEN, "agent-1", "run-1", **more)

    def in_force(self) -> tuple[object, object]:
        config = PolicyEngine.get_config()
        assert config is not None
        return config.run_budget, sorted(config.denied_actions)

    def test_statement_67_budgets_are_the_least_and_denials_those_of_both(self) -> None:
        PolicyEngine.configure(run_budget=3.0, denied_actions=["delete"])
        self.platform.policies = [{"run_budget": 0.5, "denied_actions": ["drop_table"]}]
        drop_table()
        self.enable()
        self.assertEqual(self.in_force(), (0.5, ["delete", "drop_table"]))
        with self.assertRaises(PolicyViolationError):
            drop_table()
        with self.assertRaises(BudgetExceededError):
            pay()

    def test_statement_67_a_refresh_never_drops_the_local_policy(self) -> None:
        PolicyEngine.configure(run_budget=3.0)
        self.platform.policies = [{"run_budget": 0.5}]
        self.enable(refresh_interval=0.05)
        self.platform.policies = []
        deadline = time.monotonic() + 10
        while self.in_force()[0] != 3.0 and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(self.in_force(), (3.0, []), "and never nothing")

    def test_a_looser_configuration_afterwards_is_tightened_too(self) -> None:
        self.platform.policies = [{"denied_actions": ["drop_table"]}]
        self.enable()
        PolicyEngine.configure(run_budget=9.0, strict_mode=False)
        self.assertEqual(self.in_force(), (9.0, ["drop_table"]))
        with self.assertRaises(PolicyViolationError):
            drop_table()

    def test_a_platform_that_can_not_be_had_lets_nothing_run(self) -> None:
        self.platform.down()
        with self.assertRaises(SyncError):
            self.enable()
        with self.assertRaises(PolicyViolationError):
            pay()

    def test_a_policy_that_says_more_is_not_halved_in_silence(self) -> None:
        path = Path(_home.HOME) / "more.yaml"
        path.write_text("budgets: {run: 3.0}\nlimits: {max_calls: 5}\n", encoding="utf-8")
        self.enable()
        with self.assertRaisesRegex(ConfigurationError, "can't be brought together"):
            PolicyEngine.load_from_yaml(path)
        with self.assertRaises(PolicyViolationError):
            pay()
        path.write_text("budgets: {run: 3.0}\n", encoding="utf-8")
        PolicyEngine.load_from_yaml(path)
        self.assertEqual(self.in_force(), (3.0, []))

    def test_a_refresh_does_not_make_up_for_a_configuration_that_is_none(self) -> None:
        self.enable(refresh_interval=0.05)
        with self.assertRaises(ConfigurationError):
            PolicyEngine.configure(run_budget=-1.0)
        asked = len(self.platform.requests)
        deadline = time.monotonic() + 10
        while len(self.platform.requests) < asked + 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        with self.assertRaises(PolicyViolationError):
            pay()
        with self.assertRaises(ConfigurationError):
            self.enable()
        PolicyEngine.configure(run_budget=9.0)
        pay()

    def test_after_a_stop_what_the_platform_said_last_goes_on_to_hold(self) -> None:
        self.platform.policies = [{"denied_actions": ["drop_table"]}]
        self.enable()
        PolicyEngine.stop_remote_sync()
        with self.assertRaises(PolicyViolationError):
            drop_table()
        PolicyEngine.configure(run_budget=9.0)
        drop_table()


if __name__ == "__main__":
    unittest.main()
