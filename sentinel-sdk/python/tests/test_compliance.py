"""Statements 61 and 62: what is said inside an action's body stands on that action's line, and only there."""

from __future__ import annotations

import _home

import asyncio
import threading
import unittest
from typing import Iterator

from agent_sentinel import (
    ComplianceMetadata,
    add_data_lineage,
    get_compliance_metadata,
    guarded_action,
    set_compliance_metadata,
    set_decision_rationale,
    set_model_card,
)

KEYS = {
    "requires_human_approval",
    "approval_status",
    "human_in_the_loop_id",
    "human_in_the_loop_email",
    "approval_timestamp",
    "approval_notes",
    "decision_rationale",
    "confidence_score",
    "alternative_actions_considered",
    "input_data_sources",
    "model_card",
    "policy_violations_checked",
    "override_reason",
}


class Compliance(unittest.TestCase):
    def test_statement_61_rationale_lineage_and_model_stand_on_the_actions_own_line(self) -> None:
        @guarded_action()
        def decide() -> None:
            set_decision_rationale("because", confidence=0.9)
            add_data_lineage("Postgres", version="v12", table="accounts")
            add_data_lineage("S3", version="2")
            set_model_card("gpt-4", "2024-04-09", "OpenAI")

        decide()
        told = _home.last("decide")["compliance_metadata"]
        self.assertEqual((told["decision_rationale"], told["confidence_score"]), ("because", 0.9))
        self.assertEqual(
            told["input_data_sources"],
            [{"source": "Postgres", "version": "v12", "table": "accounts"}, {"source": "S3", "version": "2"}],
        )
        self.assertEqual(told["model_card"], {"name": "gpt-4", "version": "2024-04-09", "provider": "OpenAI"})

    def test_statement_62_there_are_thirteen_keys(self) -> None:
        @guarded_action()
        def say_one_thing() -> None:
            set_decision_rationale("x")

        say_one_thing()
        told = _home.last("say_one_thing")["compliance_metadata"]
        self.assertEqual(set(told), KEYS)
        self.assertEqual((told["approval_status"], told["requires_human_approval"]), ("not_required", False))

    def test_an_action_that_says_nothing_has_none(self) -> None:
        guarded_action(name="silent")(lambda: None)()
        self.assertNotIn("compliance_metadata", _home.last("silent"))

    def test_an_action_that_fails_has_what_it_said(self) -> None:
        @guarded_action()
        def say_and_fail() -> None:
            set_decision_rationale("it seemed right")
            raise OSError("no")

        with self.assertRaises(OSError):
            say_and_fail()
        self.assertEqual(_home.last("say_and_fail")["compliance_metadata"]["decision_rationale"], "it seemed right")

    def test_statement_61_under_threads(self) -> None:
        @guarded_action(name="of_thread")
        def say(number: int) -> int:
            gate.wait()
            set_decision_rationale(str(number))
            return number

        gate = threading.Barrier(20)
        threads = [threading.Thread(target=say, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ended = [line for line in _home.lines("of_thread") if line["outcome"] == "success"]
        self.assertEqual(len(ended), 20)
        for line in ended:
            self.assertEqual(line["compliance_metadata"]["decision_rationale"], str(line["payload"]["outputs"]))

    def test_statement_61_under_tasks(self) -> None:
        @guarded_action(name="of_task")
        async def say(number: int) -> int:
            await asyncio.sleep(0.01)
            set_decision_rationale(str(number))
            await asyncio.sleep(0.01)
            return number

        async def all_of_them() -> None:
            await asyncio.gather(*(say(number) for number in range(20)))

        asyncio.run(all_of_them())
        ended = [line for line in _home.lines("of_task") if line["outcome"] == "success"]
        self.assertEqual(len(ended), 20)
        for line in ended:
            self.assertEqual(line["compliance_metadata"]["decision_rationale"], str(line["payload"]["outputs"]))

    def test_statement_61_under_nesting(self) -> None:
        @guarded_action()
        def inner() -> None:
            set_decision_rationale("inner")

        @guarded_action()
        def outer() -> None:
            set_decision_rationale("outer")
            inner()
            add_data_lineage("after", version="1")

        outer()
        told = _home.last("outer")["compliance_metadata"]
        self.assertEqual((told["decision_rationale"], told["input_data_sources"][0]["source"]), ("outer", "after"))
        self.assertEqual(_home.last("inner")["compliance_metadata"]["decision_rationale"], "inner")
        self.assertEqual(_home.lines("inner")[0]["parent"], _home.last("outer")["id"])

    def test_a_thread_that_a_body_starts_speaks_of_that_body(self) -> None:
        @guarded_action()
        def with_a_thread() -> None:
            thread = threading.Thread(target=set_decision_rationale, args=("from the thread",))
            thread.start()
            thread.join()

        with_a_thread()
        self.assertEqual(_home.last("with_a_thread")["compliance_metadata"]["decision_rationale"], "from the thread")

    def test_between_a_generators_items_its_caller_is_not_its_body(self) -> None:
        @guarded_action()
        def items() -> Iterator[int]:
            set_decision_rationale("the generator's")
            yield 1
            add_data_lineage("later", version="1")

        for _ in items():
            self.assertIsNone(get_compliance_metadata())
        self.assertEqual(_home.last("items")["compliance_metadata"]["input_data_sources"][0]["source"], "later")

    def test_outside_every_action_nothing_is_said_and_that_is_logged(self) -> None:
        with self.assertLogs("agent_sentinel", "WARNING") as logged:
            set_decision_rationale("nowhere")
        self.assertIn("outside every guarded action", logged.output[0])
        self.assertIsNone(get_compliance_metadata())

    def test_all_can_be_said_at_once(self) -> None:
        @guarded_action()
        def at_once() -> None:
            set_compliance_metadata(ComplianceMetadata(override_reason="told to"))

        at_once()
        self.assertEqual(_home.last("at_once")["compliance_metadata"]["override_reason"], "told to")


if __name__ == "__main__":
    unittest.main()
