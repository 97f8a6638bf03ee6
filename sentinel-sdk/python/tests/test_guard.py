"""`guarded_action`: what it does to a function, and what it tells the ledger of a call."""

from __future__ import annotations

import asyncio
import datetime
import functools
import json
import unittest
import uuid
from decimal import Decimal
from typing import Any
from unittest import mock

from _guard_case import GuardCase

from agent_sentinel import BudgetExceededError, PolicyEngine, PolicyViolationError, guarded_action


class Names(GuardCase):
    def test_statement_1_without_a_name_an_action_has_the_functions(self) -> None:
        @guarded_action()
        def search() -> None: ...

        @guarded_action(name="custom_name")
        def other() -> None: ...

        search()
        other()
        self.assertEqual((self.outcomes("search"), self.outcomes("custom_name")), (["success"], ["success"]))

    def test_statement_2_without_more_it_costs_nothing_and_has_no_tags(self) -> None:
        @guarded_action(name="plain")
        def plain() -> None: ...

        plain()
        (line,) = self.lines("plain", "success")
        self.assertEqual((line["cost_usd"], line["tags"]), (0.0, []))

    def test_statement_2_tags_and_cost_are_those_that_were_given(self) -> None:
        @guarded_action(name="tagged", cost_usd=0.5, tags=["b", "a"])
        def tagged() -> None: ...

        tagged()
        (line,) = self.lines("tagged", "success")
        self.assertEqual((line["cost_usd"], line["tags"]), (0.5, ["b", "a"]))

    def test_what_is_wrapped_looks_as_before(self) -> None:
        @guarded_action(name="documented")
        def search(query: str) -> int:
            """Searches."""
            return len(query)

        self.assertEqual((search.__name__, search.__doc__, search.__module__), ("search", "Searches.", __name__))

    def test_a_partial_has_the_name_of_what_it_calls(self) -> None:
        def add(a: int, b: int) -> int:
            return a + b

        self.assertEqual(guarded_action()(functools.partial(add, 1))(2), 3)
        self.assertEqual(self.outcomes("add"), ["success"])

    def test_a_callable_object_has_the_name_of_its_class(self) -> None:
        class Search:
            def __call__(self, query: str) -> str:
                return query.upper()

        self.assertEqual(guarded_action()(Search())("a"), "A")
        self.assertEqual(self.outcomes("Search"), ["success"])


class Results(GuardCase):
    def test_statement_3_the_result_is_the_very_object_that_the_body_returned(self) -> None:
        thing = object()

        @guarded_action(name="sync")
        def sync() -> object:
            return thing

        @guarded_action(name="async")
        async def later() -> object:
            return thing

        self.assertIs(sync(), thing)
        self.assertIs(asyncio.run(later()), thing)

    def test_statement_4_an_error_is_raised_as_it_is_and_recorded_once(self) -> None:
        error = ValueError("Oops!")

        @guarded_action(name="fails", cost_usd=0.25)
        def fails() -> None:
            raise error

        with self.assertRaises(ValueError) as raised:
            fails()
        self.assertIs(raised.exception, error)
        self.assertEqual(self.outcomes("fails"), ["error"])

    def test_statement_5_its_line_carries_type_and_message(self) -> None:
        @guarded_action(name="fails")
        async def fails() -> None:
            raise KeyError("Oops!")

        with self.assertRaises(KeyError):
            asyncio.run(fails())
        self.assertEqual(self.outputs("fails", "error"), "KeyError: 'Oops!'")

    def test_an_error_without_a_text_is_recorded_too(self) -> None:
        class Mute(Exception):
            def __str__(self) -> str:
                raise RuntimeError("no")

        @guarded_action(name="fails")
        def fails() -> None:
            raise Mute

        with self.assertRaises(Mute):
            fails()
        self.assertIn("Mute: <its text can't be made", self.outputs("fails", "error"))


class Payloads(GuardCase):
    def recorded(self, value: Any) -> Any:
        """What the ledger has of a value that is an argument and the result."""

        @guarded_action(name="echo")
        def echo(given: Any) -> Any:
            return given

        self.assertIs(echo(value), value)
        (argument,) = self.inputs("echo")["args"]
        self.assertEqual(self.outputs("echo"), argument)
        return argument

    def test_statement_6_what_json_has_no_form_for_is_a_text(self) -> None:
        class Context:
            def __str__(self) -> str:
                return "a context"

        self.assertEqual(self.recorded({"context": Context(), "n": 1}), {"context": "a context", "n": 1})
        self.assertEqual(self.recorded(b"\x00\xff"), "b'\\x00\\xff'")

    def test_statement_7_times_uuids_and_tuples_have_their_forms(self) -> None:
        known = uuid.UUID("550e8400-e29b-41d4-a716-446655440000")
        when = datetime.datetime(2025, 1, 15, 10, 30)
        self.assertEqual(
            self.recorded([when, when.date(), known, (1, 2), Decimal("1.10")]),
            ["2025-01-15T10:30:00", "2025-01-15", str(known), [1, 2], "1.10"],
        )

    def test_statement_8_what_can_not_be_encoded_leaves_a_placeholder_and_the_rest_stays(self) -> None:
        cycle: list[Any] = [1]
        cycle.append(cycle)
        self.assertEqual(self.recorded({"cycle": cycle, "n": 1}), {"cycle": [1, "<it holds itself>"], "n": 1})
        self.assertEqual(self.recorded({(1, 2): "odd key"}), {"(1, 2)": "odd key"})

        class Broken:
            def __repr__(self) -> str:
                raise RuntimeError("no")

        self.assertEqual(self.recorded([Broken(), 1]), ["<Broken: its text can't be made: RuntimeError>", 1])

    def test_statement_8_a_number_too_long_for_a_text_leaves_a_placeholder(self) -> None:
        self.assertEqual(self.recorded([10**5000, 1]), ["<int: its text can't be made: ValueError>", 1])

    def test_statement_8_a_nesting_too_deep_for_readers_is_cut(self) -> None:
        deep: list[Any] = []
        for _ in range(100_000):
            deep = [deep]

        @guarded_action(name="deep")
        def echo(given: Any) -> Any:
            return given

        self.assertIs(echo(deep), deep)
        for recorded in (self.inputs("deep"), self.outputs("deep")):
            self.assertIn("<too deep>", json.dumps(recorded))

    def test_statement_8_half_a_character_as_in_names_of_files_is_replaced(self) -> None:
        self.assertEqual(self.recorded({"name\udc80": "\ud800"}), {"name\ufffd": "\ufffd"})
        self.assertEqual(self.recorded("whole: \U0001f600 ä"), "whole: \U0001f600 ä")

    def test_statement_9_what_is_no_number_is_a_text(self) -> None:
        self.assertEqual(self.recorded([float("nan"), float("inf"), 1.5]), ["nan", "inf", 1.5])
        for line in self.path.read_bytes().splitlines():
            json.loads(line, parse_constant=self.fail)

    def test_statement_10_inputs_are_those_before_the_body_ran(self) -> None:
        @guarded_action(name="changes")
        def changes(given: list[int], *, named: dict[str, int]) -> None:
            given.append(2)
            named["b"] = 2

        changes([1], named={"a": 1})
        self.assertEqual(self.inputs("changes"), {"args": [[1]], "kwargs": {"named": {"a": 1}}})

    def test_the_same_call_is_recorded_alike_in_every_process(self) -> None:
        source = (
            "from agent_sentinel import guarded_action\n"
            "class Agent:\n"
            "    @guarded_action()\n"
            "    def pay(self, names): pass\n"
            "Agent().pay({'anna', 'ben', 'cem', 'dora', 'emil'})"
        )
        recorded = set()
        for seed in ("1", "2", "3"):
            with mock.patch.dict("os.environ", PYTHONHASHSEED=seed):
                self.said(self.python(source))
            recorded.add(json.dumps(self.inputs("pay")))
        self.assertEqual(recorded, {'{"args": ["<__main__.Agent object>", ["anna", "ben", "cem", "dora", "emil"]], "kwargs": {}}'})

    def test_inputs_beyond_what_is_kept_leave_their_beginning_and_a_digest(self) -> None:
        @guarded_action(name="long")
        def echo(given: str) -> str:
            return given

        self.assertEqual(echo("x" * 100_000), "x" * 100_000)
        for recorded in (self.inputs("long"), self.outputs("long")):
            self.assertEqual(sorted(recorded), ["bytes", "sha256", "truncated"])
            self.assertIn("xxx", recorded["truncated"])


class Methods(GuardCase):
    def test_a_methods_self_stands_first_in_its_inputs(self) -> None:
        class Bank:
            def __str__(self) -> str:
                return "the bank"

            @guarded_action()
            def pay(self, amount: int) -> int:
                return amount

        self.assertEqual(Bank().pay(3), 3)
        self.assertEqual(self.inputs("pay"), {"args": ["the bank", 3], "kwargs": {}})

    def test_class_and_static_methods_are_guarded_in_either_order(self) -> None:
        class Bank:
            @guarded_action(name="a")
            @staticmethod
            def a(x: int) -> int:
                return x

            @staticmethod
            @guarded_action(name="b")
            def b(x: int) -> int:
                return x

            @guarded_action(name="c")
            @classmethod
            def c(cls, x: int) -> tuple[Any, int]:
                return cls, x

            @classmethod
            @guarded_action(name="d")
            def d(cls, x: int) -> tuple[Any, int]:
                return cls, x

        for bank in (Bank, Bank()):
            self.assertEqual((bank.a(1), bank.b(2), bank.c(3), bank.d(4)), (1, 2, (Bank, 3), (Bank, 4)))
        for name in ("a", "b", "c", "d"):
            self.assertEqual(self.outcomes(name), ["success"] * 2, name)


class Nesting(GuardCase):
    def test_an_action_within_an_action_is_one_of_its_own(self) -> None:
        @guarded_action(name="inner", cost_usd=0.5)
        def inner() -> str:
            return "done"

        @guarded_action(name="outer", cost_usd=0.25)
        def outer() -> str:
            return inner()

        self.assertEqual(outer(), "done")
        actions = [(line["action"], line["outcome"]) for line in self.ledger() if line["kind"] == "action"]
        self.assertEqual(actions, [("outer", "started"), ("inner", "started"), ("inner", "success"), ("outer", "success")])

    def test_a_refused_inner_action_is_an_error_of_the_outer(self) -> None:
        PolicyEngine.configure(denied_actions=["inner"])
        inner = guarded_action(name="inner")(lambda: self.fail("it ran"))

        @guarded_action(name="outer")
        def outer() -> None:
            inner()

        with self.assertRaises(PolicyViolationError):
            outer()
        self.assertEqual((self.outcomes("inner"), self.outcomes("outer")), (["blocked"], ["error"]))

    def test_each_call_of_a_recursion_counts(self) -> None:
        PolicyEngine.configure(session_budget=0.3)
        depths = []

        @guarded_action(name="dig", cost_usd=0.1)
        def dig(depth: int) -> None:
            depths.append(depth)
            dig(depth + 1)

        with self.assertRaises(BudgetExceededError):
            dig(1)
        self.assertEqual(depths, [1, 2, 3])


class Misuse(GuardCase):
    def test_the_decorator_without_parentheses_says_how_it_is_written(self) -> None:
        with self.assertRaisesRegex(TypeError, r"write `@guarded_action\(\)`"):
            guarded_action(lambda: None)  # type: ignore[arg-type]

    def test_one_tag_may_be_given_as_a_text(self) -> None:
        guarded_action(name="tagged", tags="llm")(lambda: None)()
        self.assertEqual(self.lines("tagged", "success")[0]["tags"], ["llm"])

    def test_names_tags_and_levels_that_are_no_texts_are_told_at_once(self) -> None:
        for wrong in ({"name": 5}, {"tags": [1]}, {"tags": [None]}, {"risk_level": 2}):
            with self.assertRaisesRegex(TypeError, f"`{next(iter(wrong))}` is given .*; write a text"):
                guarded_action(**wrong)  # type: ignore[arg-type]

    def test_a_cost_that_is_no_number_is_told_at_once(self) -> None:
        for wrong in ("cheap", None, [1], 10**400):
            with self.assertRaisesRegex(TypeError, "`cost_usd` is given .*; write a number such as 0.05"):
                guarded_action(cost_usd=wrong)  # type: ignore[arg-type]

    def test_a_cost_may_be_a_decimal_or_a_text_that_is_a_number(self) -> None:
        for cost in (Decimal("0.5"), "0.5", 0.5):
            guarded_action(name="paid", cost_usd=cost)(lambda: None)()  # type: ignore[arg-type]
        self.assertEqual([line["cost_usd"] for line in self.lines("paid", "success")], [0.5] * 3)

    def test_statement_21_a_cost_that_is_no_amount_keeps_the_body_from_running(self) -> None:
        for wrong in (-0.01, float("nan"), float("inf")):
            body = mock.Mock(__name__="paid")
            with self.assertRaisesRegex(PolicyViolationError, "amount|negative"):
                guarded_action(name="paid", cost_usd=wrong)(body)()
            body.assert_not_called()

    def test_a_name_or_tag_that_is_none_keeps_the_body_from_running(self) -> None:
        for wrong in ({"name": "a\nb"}, {"name": "x" * 500}, {"tags": [""]}, {"tags": ["t"] * 100}, {"risk_level": ""}):
            body = mock.Mock(__name__="named")
            with self.assertRaisesRegex(PolicyViolationError, "malformed"):
                guarded_action(**wrong)(body)()  # type: ignore[arg-type]
            body.assert_not_called()

    def test_a_call_with_wrong_arguments_is_an_error_like_any_other(self) -> None:
        @guarded_action(name="strict")
        def strict(one: int) -> int:
            return one

        with self.assertRaisesRegex(TypeError, "one"):
            strict()  # type: ignore[call-arg]
        self.assertEqual(self.outcomes("strict"), ["error"])


if __name__ == "__main__":
    unittest.main()
