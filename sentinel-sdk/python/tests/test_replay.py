"""Statements 50 to 54: a program runs again, and gets what was recorded of it."""

from __future__ import annotations

import _home

import asyncio
import datetime
import json
import os
import shutil
import tempfile
import threading
import unittest
from typing import Any, Iterator

from agent_sentinel import (
    BudgetExceededError,
    CostTracker,
    ExecutionContext,
    PolicyEngine,
    PolicyViolationError,
    ReplayDivergenceError,
    ReplayMode,
    ReplayedError,
    guarded_action,
    replay_mode,
)

ran: list[str] = []


@guarded_action(cost_usd=0.25)
def search(query: str, **more: Any) -> dict[str, Any]:
    ran.append(query)
    return {"found": query.upper(), "at": [1, 2]}


@guarded_action()
def fail(text: str) -> None:
    raise ValueError(text)


class Own(Exception):
    """One of the program's own, which can't be made of a text by its constructor."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")


# Which of two of the same name it was, nobody can tell.
TWINS = [type("Twin", (Exception,), {}), type("Twin", (Exception,), {})]


@guarded_action()
def fail_with_own() -> None:
    raise Own(7, "broken")


@guarded_action()
def fail_with_twin() -> None:
    raise TWINS[0]("broken")


@guarded_action()
def outer(text: str) -> str:
    return str(search(text)["found"])


@guarded_action()
async def fetch(name: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    ran.append(name)
    return name.upper()


@guarded_action()
def count(most: int) -> Iterator[int]:
    yield from range(most)


class Replay(unittest.TestCase):
    def setUp(self) -> None:
        ran.clear()
        PolicyEngine.reset()

    def test_statement_50_the_body_does_not_run_and_its_recorded_output_is_returned_for_nothing(self) -> None:
        with ExecutionContext(run_id="50"):
            search("a")
        before = CostTracker.get_session_total()
        ran.clear()
        with replay_mode(run_id="50"):
            self.assertEqual(search("a"), {"found": "A", "at": [1, 2]})
        self.assertEqual((ran, CostTracker.get_session_total()), ([], before))
        line = _home.last("search")
        self.assertEqual((line["outcome"], line["cost_usd"]), ("replayed", 0))
        self.assertEqual(search("a")["found"], "A")
        self.assertEqual(ran, ["a"], "and after it bodies run again")

    def test_statement_51_other_inputs_diverge_with_a_diff(self) -> None:
        with ExecutionContext(run_id="51"):
            search("a")
        with replay_mode(run_id="51"), self.assertRaises(ReplayDivergenceError) as caught:
            search("b")
        self.assertIn('- inputs.args[0]: "a"\n+ inputs.args[0]: "b"', str(caught.exception))
        self.assertEqual(caught.exception.details["type"], "input_mismatch")
        self.assertEqual(ran, ["a"])

    def test_statement_51_another_order_of_actions_diverges(self) -> None:
        with ExecutionContext(run_id="51b"):
            search("a")
            list(count(2))
        with replay_mode(run_id="51b"):
            with self.assertRaises(ReplayDivergenceError) as caught:
                list(count(2))
            self.assertEqual(search("a")["found"], "A", "nothing was used up")
        told = caught.exception.details
        self.assertEqual((told["type"], told["expected"], told["actual"]), ("action_mismatch", "search", "count"))

    def test_statement_52_without_strictness_the_recorded_value_comes_and_the_divergence_is_listed(self) -> None:
        with ExecutionContext(run_id="52"):
            search("a")
        with replay_mode(run_id="52", strict=False) as replay:
            self.assertEqual(search("b")["found"], "A")
        [divergence] = replay.get_divergences()
        self.assertEqual((divergence["type"], divergence["index"]), ("input_mismatch", 0))

    def test_statement_53_a_run_is_replayed_alone_and_an_unknown_one_is_an_error(self) -> None:
        for run in ("53a", "53b"):
            with ExecutionContext(run_id=run):
                search(run)
        self.assertEqual(ReplayMode.from_run_id("53a").get_progress(), (0, 1))
        with self.assertRaisesRegex(ValueError, "nothing was recorded under the run `53c`"):
            ReplayMode.from_run_id("53c")

    def test_statement_53_replayed_lines_are_no_recording(self) -> None:
        with ExecutionContext(run_id="53r"):
            search("a")
            with replay_mode(run_id="53r"):
                search("a")
        self.assertEqual(ReplayMode.from_run_id("53r").get_progress(), (0, 1))

    def test_statement_54_a_recorded_error_is_raised_again(self) -> None:
        with ExecutionContext(run_id="54"):
            for guarded in (lambda: fail("nope"), fail_with_own, fail_with_twin):
                with self.assertRaises(Exception):
                    guarded()
        with replay_mode(run_id="54"):
            with self.assertRaises(ValueError) as caught:
                fail("nope")
            self.assertEqual(str(caught.exception), "nope")
            with self.assertRaises(Own) as own:
                fail_with_own()
            self.assertEqual(str(own.exception), "7 broken")
            with self.assertRaises(ReplayedError) as twin:
                fail_with_twin()
        self.assertEqual(str(twin.exception), "Twin: broken")

    def test_statement_54_a_block_is_raised_again_and_never_a_value(self) -> None:
        PolicyEngine.configure(denied_actions=["fail"], action_budgets={"search": 0.0})
        with ExecutionContext(run_id="54b"):
            with self.assertRaises(PolicyViolationError):
                fail("x")
            with self.assertRaises(BudgetExceededError):
                search("x")
        PolicyEngine.reset()
        with replay_mode(run_id="54b"):
            with self.assertRaises(PolicyViolationError) as caught:
                fail("x")
            self.assertEqual(caught.exception.remediation["reason_code"], "DENIED_ACTION")
            with self.assertRaises(BudgetExceededError) as spent:
                search("x")
            self.assertEqual((spent.exception.limit, spent.exception.budget_type), (0, "action"))

    def test_statement_54_redacted_and_datetime_inputs_match(self) -> None:
        when = datetime.datetime(2026, 11, 25, 12, 0)
        with ExecutionContext(run_id="54c"):
            search("a", api_key="hunter2", when=when, these={"b", "a"})
        self.assertNotIn("hunter2", json.dumps(_home.lines("search")))
        with replay_mode(run_id="54c"):
            self.assertEqual(search("a", api_key="hunter2", when=when, these={"a", "b"})["found"], "A")
        with replay_mode(run_id="54c"), self.assertRaises(ReplayDivergenceError):
            search("a", api_key="hunter3", when=when, these={"a", "b"})

    def test_statement_54_one_call_too_many_is_a_divergence(self) -> None:
        with ExecutionContext(run_id="54d"):
            search("a")
        for strict in (True, False):
            with replay_mode(run_id="54d", strict=strict):
                search("a")
                with self.assertRaises(ReplayDivergenceError) as caught:
                    search("a")
                self.assertEqual(caught.exception.details["type"], "exhausted")

    def test_calls_that_overlapped_may_come_in_any_order(self) -> None:
        async def both(*names: str) -> list[str]:
            return await asyncio.gather(*(fetch(name, 0.1) for name in names))

        with ExecutionContext(run_id="gather"):
            asyncio.run(both("a", "b"))
        with replay_mode(run_id="gather"):
            self.assertEqual(asyncio.run(both("b", "a")), ["B", "A"])
        self.assertEqual(len(ran), 2, "the recording's own")

    def test_what_a_body_had_begun_is_left_out_with_it(self) -> None:
        with ExecutionContext(run_id="nested"):
            outer("a")
            search("b")
        with replay_mode(run_id="nested"):
            self.assertEqual(outer("a"), "A")
            self.assertEqual(search("b")["found"], "B")

    def test_a_generator_gives_its_recorded_items(self) -> None:
        with ExecutionContext(run_id="generator"):
            list(count(3))
        with replay_mode(run_id="generator"):
            self.assertEqual(list(count(3)), [0, 1, 2])

    def test_other_threads_go_on_and_those_that_it_starts_are_answered(self) -> None:
        with ExecutionContext(run_id="threads"):
            search("a")
        ran.clear()
        inside, done = threading.Event(), threading.Event()

        def stranger() -> None:
            inside.wait(10)
            search("real")
            done.set()

        other = threading.Thread(target=stranger)
        other.start()
        answers: list[str] = []
        with replay_mode(run_id="threads"):
            inside.set()
            self.assertTrue(done.wait(10))
            own = threading.Thread(target=lambda: answers.append(search("a")["found"]))
            own.start()
            own.join()
        other.join()
        self.assertEqual((ran, answers), (["real"], ["A"]))

    def test_a_ledger_that_was_changed_is_not_replayed(self) -> None:
        with ExecutionContext(run_id="changed"):
            search("a")
        with tempfile.TemporaryDirectory() as folder:
            copy = os.path.join(folder, "ledger.jsonl")
            shutil.copy(os.path.join(_home.HOME, "ledger.jsonl"), copy)
            self.assertEqual(ReplayMode.from_run_id("changed", copy).get_progress(), (0, 1))
            with open(copy, encoding="utf-8") as file:
                text = file.read()
            with open(copy, "w", encoding="utf-8") as file:
                file.write(text.replace('"found":"A"', '"found":"B"'))
            with self.assertRaisesRegex(ValueError, "changed after it was written"):
                ReplayMode.from_run_id("changed", copy)

    def test_a_missing_ledger_is_a_file_not_found(self) -> None:
        with self.assertRaisesRegex(FileNotFoundError, "can't be read"):
            ReplayMode.from_ledger_file("/nonexistent/ledger.jsonl")

    def test_a_bundle_of_entries_is_replayed(self) -> None:
        entry = {"action": "search", "inputs": {"args": ["a"], "kwargs": {}}, "outputs": {"found": "Z"}, "outcome": "success"}
        with ReplayMode.from_json(json.dumps({"run_id": "x", "entries": [entry]})):
            self.assertEqual(search("a"), {"found": "Z"})
        for wrong in ({}, {"entries": [7]}, {"entries": [{}]}):
            with self.assertRaises(ValueError):
                ReplayMode.from_json(wrong)


if __name__ == "__main__":
    unittest.main()
