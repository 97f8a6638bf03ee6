"""Statement 38: what becomes of an action where nobody has configured a policy."""

from __future__ import annotations

import _home  # noqa: F401

import os
import unittest
from unittest import mock

from agent_sentinel import (
    ConfigurationError,
    NoPolicyForWriteError,
    PolicyEngine,
    PolicyNotConfiguredError,
    guarded_action,
)


def runs(impact: str, fail_closed: object = None) -> bool:
    ran: list[bool] = []

    @guarded_action(name="some_action", impact=impact, fail_closed=fail_closed)  # type: ignore[arg-type]
    def some_action() -> None:
        ran.append(True)

    some_action()
    return bool(ran)


class Modes(unittest.TestCase):
    def setUp(self) -> None:
        PolicyEngine.reset()
        PolicyEngine.set_enforcement_mode(None)
        os.environ.pop("AGENT_SENTINEL_ENFORCEMENT", None)

    def test_by_default_everything_runs_and_is_recorded_as_unconfigured(self) -> None:
        self.assertEqual(PolicyEngine.get_enforcement_mode(), "fail_open")
        for impact in ("read", "low", "medium", "high"):
            self.assertTrue(runs(impact))

    def test_statement_38_fail_closed_writes_lets_through_what_changes_nothing(self) -> None:
        with mock.patch.dict(os.environ, {"AGENT_SENTINEL_ENFORCEMENT": "fail_closed_writes"}):
            self.assertTrue(runs("read") and runs("low"))
            for impact in ("medium", "high"):
                with self.assertRaises(NoPolicyForWriteError):
                    runs(impact)

    def test_statement_38_fail_closed_lets_nothing_through(self) -> None:
        PolicyEngine.set_enforcement_mode("fail_closed")
        with self.assertRaises(PolicyNotConfiguredError):
            runs("read")
        PolicyEngine.configure(run_budget=1.0)
        self.assertTrue(runs("high"), "with a policy it is the policy that decides")

    def test_a_call_may_want_more_or_less(self) -> None:
        with self.assertRaises(PolicyNotConfiguredError):
            runs("read", fail_closed=True)
        PolicyEngine.set_enforcement_mode("fail_closed")
        self.assertTrue(runs("high", fail_closed=False))

    def test_statement_38_a_mode_that_is_none_is_an_error_every_time(self) -> None:
        with mock.patch.dict(os.environ, {"AGENT_SENTINEL_ENFORCEMENT": "fail_close"}):
            for _ in range(2):
                with self.assertRaisesRegex(ConfigurationError, "`fail_close`; write one of `fail_open`"):
                    runs("read")
        with self.assertRaises(ConfigurationError):
            PolicyEngine.set_enforcement_mode("open")
        with self.assertRaises(ValueError):
            runs("harmless")


if __name__ == "__main__":
    unittest.main()
