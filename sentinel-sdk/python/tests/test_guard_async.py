"""`guarded_action` on async functions, generators and async generators, and on what returns futures."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import unittest
from collections.abc import AsyncGenerator, Generator
from typing import Any

from _guard_case import PATIENCE, GuardCase

from agent_sentinel import PolicyEngine, PolicyViolationError, guarded_action


class Coroutines(GuardCase):
    def test_an_async_callable_object_is_awaited_as_before(self) -> None:
        class Search:
            async def __call__(self, query: str) -> str:
                await asyncio.sleep(0)
                return query.upper()

        self.assertEqual(asyncio.run(guarded_action()(Search())("a")), "A")
        self.assertEqual(self.outcomes("Search"), ["success"])

    def test_an_async_partial_is_awaited_as_before(self) -> None:
        async def add(a: int, b: int) -> int:
            return a + b

        self.assertEqual(asyncio.run(guarded_action()(functools.partial(add, 1))(2)), 3)
        self.assertEqual(self.outcomes("add"), ["success"])

    def test_a_coroutine_that_a_plain_function_returns_is_part_of_the_action(self) -> None:
        async def work() -> str:
            self.assertEqual(self.outcomes("start"), ["started"])
            return "done"

        start = guarded_action(name="start")(lambda: work())
        self.assertEqual(asyncio.run(start()), "done")
        self.assertEqual((self.outcomes("start"), self.outputs("start")), (["success"], "done"))

    def test_a_task_that_a_plain_function_returns_stays_one_and_is_part_of_the_action(self) -> None:
        async def fails() -> None:
            await asyncio.sleep(0)
            raise ValueError("late")

        async def main() -> None:
            go = asyncio.Event()
            made = []

            @guarded_action(name="start")
            def start() -> asyncio.Task[Any]:
                made.append(asyncio.get_running_loop().create_task(go.wait()))
                return made[0]

            task = start()
            self.assertIs(task, made[0])
            self.assertEqual(self.outcomes("start"), ["started"])
            go.set()
            self.assertTrue(await task)
            with self.assertRaises(ValueError):
                await guarded_action(name="fails")(lambda: asyncio.ensure_future(fails()))()
            stopped = guarded_action(name="stopped")(lambda: asyncio.ensure_future(asyncio.sleep(600)))()
            stopped.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await stopped

        asyncio.run(main())
        for action, outcome in (("start", "success"), ("fails", "error"), ("stopped", "cancelled")):
            self.wait_until(lambda: self.outcomes(action) == [outcome])

    def test_the_body_sees_the_callers_context_and_the_caller_the_bodys(self) -> None:
        who: contextvars.ContextVar[str] = contextvars.ContextVar("who")

        @guarded_action(name="sees")
        async def sees() -> str:
            seen = who.get()
            who.set("body")
            return seen

        async def main() -> tuple[str, str]:
            who.set("caller")
            return await sees(), who.get()

        self.assertEqual(asyncio.run(main()), ("caller", "body"))

    def test_a_refused_one_raises_when_it_is_awaited_and_does_not_run(self) -> None:
        PolicyEngine.configure(denied_actions=["no"])

        @guarded_action(name="no")
        async def no() -> None:
            self.fail("it ran")

        waiting = no()
        with self.assertRaises(PolicyViolationError):
            asyncio.run(waiting)
        self.assertEqual(self.outcomes("no"), ["blocked"])


class WrongArguments(GuardCase):
    def test_a_call_with_wrong_arguments_is_an_error_of_every_kind_of_function(self) -> None:
        @guarded_action(name="async")
        async def later(one: int) -> None: ...

        @guarded_action(name="items")
        def items(one: int) -> Generator[int, None, None]:
            yield one

        @guarded_action(name="async items")
        async def later_items(one: int) -> AsyncGenerator[int, None]:
            yield one

        async def walk() -> None:
            async for _ in later_items():  # type: ignore[call-arg]
                pass

        for name, call in (
            ("async", lambda: asyncio.run(later())),  # type: ignore[call-arg]
            ("items", lambda: list(items())),  # type: ignore[call-arg]
            ("async items", lambda: asyncio.run(walk())),
        ):
            with self.assertRaisesRegex(TypeError, "one"):
                call()
            self.assertEqual(self.outcomes(name), ["error"], name)


class Generators(GuardCase):
    def test_a_generator_is_one_action_from_its_first_item_to_its_end(self) -> None:
        @guarded_action(name="count")
        def count(upto: int) -> Generator[int, None, str]:
            yield from range(upto)
            return "all"

        items = count(3)
        self.assertEqual(self.outcomes("count"), [])
        self.assertEqual(next(items), 0)
        self.assertEqual(self.outcomes("count"), ["started"])
        self.assertEqual(list(items), [1, 2])
        self.assertEqual(self.outcomes("count"), ["success"])
        self.assertEqual(self.outputs("count"), {"items": [0, 1, 2], "returned": "all"})

    def test_what_is_sent_and_thrown_reaches_it(self) -> None:
        @guarded_action(name="talks")
        def talks() -> Generator[str, str, None]:
            said = "nothing"
            while said != "end":
                try:
                    said = yield said.upper()
                except KeyError:
                    said = "caught"

        items = talks()
        self.assertEqual((next(items), items.send("a"), items.throw(KeyError())), ("NOTHING", "A", "CAUGHT"))
        with self.assertRaises(StopIteration):
            items.send("end")
        self.assertEqual(self.outcomes("talks"), ["success"])

    def test_one_that_is_never_finished_is_cancelled_when_it_is_given_up(self) -> None:
        closed = []

        @guarded_action(name="endless")
        def endless() -> Generator[int, None, None]:
            try:
                while True:
                    yield 1
            finally:
                closed.append(True)

        for _ in endless():
            break
        gc.collect()
        self.assertEqual((closed, self.outcomes("endless")), ([True], ["cancelled"]))

    def test_one_that_is_never_begun_is_no_action(self) -> None:
        PolicyEngine.configure(denied_actions=["count"])

        @guarded_action(name="count")
        def count() -> Generator[int, None, None]:
            yield 1

        count().close()
        self.assertEqual(self.outcomes("count"), [])
        with self.assertRaises(PolicyViolationError):
            next(count())

    def test_an_error_within_is_the_actions(self) -> None:
        @guarded_action(name="fails")
        def fails() -> Generator[int, None, None]:
            yield 1
            raise ValueError("Oops!")

        with self.assertRaises(ValueError):
            list(fails())
        self.assertEqual((self.outcomes("fails"), self.outputs("fails", "error")), (["error"], "ValueError: Oops!"))


class AsyncGenerators(GuardCase):
    def test_an_async_generator_is_one_action_from_its_first_item_to_its_end(self) -> None:
        @guarded_action(name="count")
        async def count(upto: int) -> AsyncGenerator[int, None]:
            for number in range(upto):
                yield number

        async def main() -> list[int]:
            items = count(3)
            first = await items.__anext__()
            self.assertEqual(self.outcomes("count"), ["started"])
            return [first] + [item async for item in items]

        self.assertEqual(asyncio.run(main()), [0, 1, 2])
        self.assertEqual(self.outcomes("count"), ["success"])

    def test_what_is_sent_and_thrown_reaches_it_each_time(self) -> None:
        @guarded_action(name="talks")
        async def talks() -> AsyncGenerator[str, str]:
            said = "nothing"
            while said != "end":
                try:
                    said = yield said.upper()
                except KeyError:
                    said = "caught"

        async def main() -> None:
            items = talks()
            self.assertEqual([await items.asend(None), await items.asend("a")], ["NOTHING", "A"])  # type: ignore[arg-type]
            self.assertEqual([await items.athrow(KeyError()) for _ in range(3)], ["CAUGHT"] * 3)
            self.assertEqual(await items.asend("b"), "B")
            with self.assertRaises(StopAsyncIteration):
                await items.asend("end")

        asyncio.run(main())
        self.assertEqual(self.outcomes("talks"), ["success"])

    def test_one_that_ends_on_what_is_thrown_has_ended(self) -> None:
        @guarded_action(name="ends")
        async def ends() -> AsyncGenerator[int, None]:
            try:
                yield 1
            except KeyError:
                return

        async def main() -> None:
            items = ends()
            await items.__anext__()
            with self.assertRaises(StopAsyncIteration):
                await items.athrow(KeyError())

        asyncio.run(main())
        self.assertEqual(self.outcomes("ends"), ["success"])

    def test_one_that_is_never_finished_is_cancelled_and_closed(self) -> None:
        closed = []

        @guarded_action(name="endless")
        async def endless() -> AsyncGenerator[int, None]:
            try:
                while True:
                    yield 1
            finally:
                await asyncio.sleep(0)
                closed.append(True)

        async def main() -> None:
            async for _ in endless():
                break
            while not closed:
                await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(main(), PATIENCE))
        self.assertEqual((closed, self.outcomes("endless")), ([True], ["cancelled"]))

    def test_an_error_within_is_the_actions(self) -> None:
        @guarded_action(name="fails")
        async def fails() -> AsyncGenerator[int, None]:
            yield 1
            raise ValueError("Oops!")

        async def main() -> None:
            async for _ in fails():
                pass

        with self.assertRaises(ValueError):
            asyncio.run(main())
        self.assertEqual((self.outcomes("fails"), self.outputs("fails", "error")), (["error"], "ValueError: Oops!"))


if __name__ == "__main__":
    unittest.main()
