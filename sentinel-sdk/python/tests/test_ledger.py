"""`Ledger`: where it is, what a line says, and what a program may write there itself."""

from __future__ import annotations

import datetime
import os
import stat
import unittest
import uuid
from pathlib import Path
from typing import Any

from _guard_case import GuardCase

from agent_sentinel import AgentSentinelError, CostTracker, Ledger, PolicyEngine, PolicyViolationError, guarded_action

# Of AgentSentinel's SDK, in its order.
KEYS = ["id", "timestamp", "action", "cost_usd", "duration_ms", "outcome", "tags", "payload"]


class Lines(GuardCase):
    def test_statement_41_a_line_has_the_documented_keys_first(self) -> None:
        @guarded_action(name="search_tool", cost_usd=0.01, tags=["search", "api"])
        def search(query: str, limit: int = 10) -> dict[str, Any]:
            return {"results": ["..."], "count": limit}

        search("Python", limit=3)
        (line,) = self.lines("search_tool", "success")
        self.assertEqual(list(line)[: len(KEYS)], KEYS)
        self.assertEqual(uuid.UUID(line["id"]).version, 4)
        when = datetime.datetime.fromisoformat(line["timestamp"].replace("Z", "+00:00"))
        self.assertEqual(when.utcoffset(), datetime.timedelta(0))
        self.assertEqual((line["cost_usd"], line["tags"]), (0.01, ["search", "api"]))
        self.assertGreaterEqual(line["duration_ms"], 0)
        self.assertEqual(line["payload"]["outputs"], {"results": ["..."], "count": 3})

    def test_statement_41_what_it_was_called_with_stands_in_the_lines_of_its_start_and_of_its_end(self) -> None:
        @guarded_action(name="search_tool")
        def search(query: str, limit: int = 10) -> None: ...

        search("Python", limit=3)
        (started,), (ended,) = self.lines("search_tool", "started"), self.lines("search_tool", "success")
        for line in (started, ended):
            self.assertEqual(line["payload"]["inputs"], {"args": ["Python"], "kwargs": {"limit": 3}})
        self.assertEqual(started["id"], ended["id"])

    def test_statement_41_what_is_long_stands_in_the_line_of_the_start_alone(self) -> None:
        act = guarded_action(name="long")(lambda text: None)
        act("x" * 5_000)
        (started,), (ended,) = self.lines("long", "started"), self.lines("long", "success")
        self.assertEqual(started["payload"]["inputs"]["args"], ["x" * 5_000])
        self.assertIsNone(ended["payload"]["inputs"])

    def test_every_line_of_the_ledger_has_the_documented_keys(self) -> None:
        PolicyEngine.configure(denied_actions=["no"])
        guarded_action(name="yes")(lambda: None)()
        with self.assertRaises(PolicyViolationError):
            guarded_action(name="no")(lambda: None)()
        CostTracker.reset_run()
        Ledger.record("manual")
        for line in self.ledger():
            self.assertEqual(list(line)[: len(KEYS)], KEYS, line)

    def test_the_documents_sum_is_what_was_spent(self) -> None:
        PolicyEngine.configure(run_budget=1.0)
        paid = guarded_action(name="paid", cost_usd=0.4)(lambda: None)
        for _ in range(5):
            try:
                paid()
            except AgentSentinelError:
                pass
        self.assertEqual(sum(line["cost_usd"] for line in self.ledger()), 0.8)

    def test_a_blocked_call_leaves_a_line_that_says_why(self) -> None:
        PolicyEngine.configure(denied_actions=["no"])
        with self.assertRaises(PolicyViolationError):
            guarded_action(name="no", cost_usd=0.5)(lambda x: None)(1)
        (line,) = self.lines("no", "blocked")
        self.assertEqual((line["cost_usd"], line["duration_ms"]), (0.0, 0.0))
        self.assertEqual(line["payload"]["inputs"], {"args": [1], "kwargs": {}})
        self.assertTrue(line["payload"]["outputs"].startswith("it stands in `denied_actions`"), line)


class Places(GuardCase):
    def setUp(self) -> None:
        super().setUp()
        before = Path.cwd()
        self.addCleanup(os.chdir, before)
        os.chdir(self.folder)

    def test_statement_41_without_a_home_it_is_below_the_folder_of_the_first_action(self) -> None:
        del os.environ["AGENT_SENTINEL_HOME"]
        act = guarded_action(name="a")(lambda: None)
        act()
        ledger = self.folder / ".agent-sentinel/ledger.jsonl"
        self.assertEqual(Ledger.path(), ledger)
        before = ledger.stat().st_size
        # A program that changes its folder goes on with the same one.
        os.chdir("/")
        act()
        self.assertGreater(ledger.stat().st_size, before)

    def test_statement_42_the_environment_moves_it(self) -> None:
        os.environ["AGENT_SENTINEL_HOME"] = "elsewhere"
        guarded_action(name="a")(lambda: None)()
        self.assertEqual(Ledger.path(), self.folder / "elsewhere/ledger.jsonl")
        self.assertTrue(Ledger.path().exists())
        self.assertFalse(Path(".agent-sentinel").exists())

    def test_only_its_owner_can_read_it(self) -> None:
        guarded_action(name="a")(lambda: None)()
        for path, mode in ((self.home, 0o700), (self.path, 0o600)):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), mode, path)

    def test_a_ledger_that_can_not_be_written_keeps_the_body_from_running(self) -> None:
        for home in ("/dev/null/home", "/proc/home"):
            os.environ["AGENT_SENTINEL_HOME"] = home
            self.forget()
            with self.assertRaises(PolicyViolationError) as raised:
                guarded_action(name="a")(lambda: self.fail("it ran"))()
            self.assertEqual(raised.exception.reason_code, "LEDGER_UNAVAILABLE")
            for word in (home, "AGENT_SENTINEL_HOME"):
                self.assertIn(word, str(raised.exception))

    def test_statement_44_after_a_move_the_next_action_begins_a_new_one(self) -> None:
        PolicyEngine.configure(session_budget=1.0)
        paid = guarded_action(name="paid", cost_usd=0.6)(lambda: None)
        paid()
        moved = self.path.rename(self.home / "x")
        guarded_action(name="free")(lambda: None)()
        self.assertEqual((self.outcomes("free"), self.outcomes("paid")), (["success"], []))
        self.assertIn('"paid"', moved.read_text())
        # What was spent stays spent.
        with self.assertRaises(AgentSentinelError):
            paid()


class Records(GuardCase):
    def test_statement_43_a_recorded_line_says_what_it_was_told_and_charges_nothing(self) -> None:
        PolicyEngine.configure(session_budget=0.001)
        id = Ledger.record(
            action="manual_entry",
            inputs={"key": "value"},
            outputs={"result": 42},
            cost_usd=0.01,
            duration_ms=100.0,
            outcome="success",
            tags=["manual"],
        )
        (line,) = self.lines("manual_entry", "success")
        self.assertEqual(list(line)[: len(KEYS)], KEYS)
        self.assertEqual((line["id"], line["cost_usd"], line["duration_ms"], line["tags"]), (id, 0.01, 100.0, ["manual"]))
        self.assertEqual(line["payload"], {"inputs": {"key": "value"}, "outputs": {"result": 42}})
        self.assertEqual(CostTracker.get_session_total(), 0.0)
        self.assertEqual(CostTracker.get_action_stats("manual_entry"), {"count": 0, "total_cost": 0.0})

    def test_a_record_needs_no_more_than_a_name(self) -> None:
        Ledger.record("manual")
        (line,) = self.lines("manual", "success")
        self.assertEqual((line["cost_usd"], line["duration_ms"], line["tags"]), (0.0, 0.0, []))

    def test_one_tag_may_be_given_as_a_text(self) -> None:
        Ledger.record("manual", tags="llm")
        self.assertEqual(self.lines("manual", "success")[0]["tags"], ["llm"])

    def test_a_record_takes_any_value_and_keeps_no_secret(self) -> None:
        Ledger.record("manual", inputs={"api_key": "hunter2", "thing": object()}, outputs=[float("nan"), {1, 2}])
        (line,) = self.lines("manual", "success")
        self.assertEqual(line["payload"], {"inputs": {"api_key": "[redacted:key]", "thing": "<object object>"}, "outputs": ["nan", [1, 2]]})

    def test_a_record_that_could_pass_for_a_decision_is_refused(self) -> None:
        for outcome in ("blocked", "started", "approved", "interrupted", "anything"):
            with self.assertRaisesRegex(AgentSentinelError, f"`{outcome}` is no outcome that can be recorded; write `success`"):
                Ledger.record("manual", outcome=outcome)
        self.assertEqual(self.outcomes("manual"), [])

    def test_what_is_wrong_with_a_record_is_told(self) -> None:
        for wrong, word in (({"cost_usd": -1.0}, "of the cost"), ({"duration_ms": -1.0}, "of the duration"), ({"tags": [""]}, "of a tag")):
            with self.assertRaisesRegex(AgentSentinelError, word):
                Ledger.record("manual", **wrong)  # type: ignore[arg-type]
        with self.assertRaisesRegex(AgentSentinelError, "of the action"):
            Ledger.record("")


if __name__ == "__main__":
    unittest.main()
