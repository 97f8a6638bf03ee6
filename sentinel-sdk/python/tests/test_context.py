"""For whom a program works: on its lines, in its threads and tasks, and before the kill switch (statement 68)."""

from __future__ import annotations

import _home

import asyncio
import threading
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Optional
from unittest import mock

from agent_sentinel import AgentKilledError, ExecutionContext, KillSwitchClient, PolicyEngine, guarded_action


@guarded_action(name="work")
def work() -> Optional[str]:
    return ExecutionContext.get_agent_id()


class Context(unittest.TestCase):
    def test_its_ids_stand_on_the_actions_line(self) -> None:
        with ExecutionContext("a", "r", "t", "m"):
            work()
        line = _home.lines("work")[-2]
        self.assertEqual([line[key] for key in ("agent_id", "run_id", "task_id", "mission_id")], ["a", "r", "t", "m"])

    def test_an_inner_context_adds_to_the_outer_one(self) -> None:
        with ExecutionContext(agent_id="a", run_id="r"):
            with ExecutionContext(task_id="t"):
                current = ExecutionContext.current()
                assert current is not None
                self.assertEqual((current.agent_id, current.run_id, current.task_id), ("a", "r", "t"))
            self.assertIsNone(ExecutionContext.get_task_id())
        self.assertIsNone(ExecutionContext.current())

    def test_what_the_decorator_says_comes_first(self) -> None:
        @guarded_action(name="own_id", agent_id="own")
        def own() -> None: ...

        with ExecutionContext(agent_id="a", run_id="r"):
            own()
        line = _home.lines("own_id")[0]
        self.assertEqual((line["agent_id"], line["run_id"]), ("own", "r"))

    def test_it_reaches_threads_pools_and_tasks(self) -> None:
        async def in_tasks() -> list[Optional[str]]:
            loop = asyncio.get_running_loop()
            in_task: list[Optional[str]] = await asyncio.gather(asyncio.to_thread(work))
            return [*in_task, await loop.run_in_executor(None, work)]

        found: list[Optional[str]] = []
        with ThreadPoolExecutor(1) as pool:
            pool.submit(work).result()
            with ExecutionContext(agent_id="a"):
                thread = threading.Thread(target=lambda: found.append(work()))
                thread.start()
                thread.join()
                found.append(pool.submit(work).result())
                found.extend(asyncio.run(in_tasks()))
            self.assertEqual(found, ["a"] * 4)
            self.assertIsNone(pool.submit(work).result(), "a pool's thread keeps nothing of an earlier one")

    def test_an_id_that_no_line_takes_is_refused_at_once(self) -> None:
        for wrong in ("", "x" * 129, "a\nb"):
            with self.assertRaises(ValueError):
                ExecutionContext(agent_id=wrong)
        with self.assertRaises(TypeError):
            ExecutionContext(agent_id=7)  # type: ignore[arg-type]


class KillSwitch(unittest.TestCase):
    def setUp(self) -> None:
        self.killed: list[str] = []
        PolicyEngine.configure(run_budget=10.0)

        def check(agent_id: Any = None, run_id: Any = None, mission_id: Any = None) -> None:
            if agent_id in self.killed:
                raise AgentKilledError(f"agent `{agent_id}` was ended on the platform")

        for name, value in (("check", check), ("is_configured", lambda: True)):
            patch = mock.patch.object(KillSwitchClient, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        self.addCleanup(PolicyEngine.reset)

    def test_statement_68_a_killed_agent_is_stopped_before_the_body_and_that_is_recorded(self) -> None:
        with ExecutionContext(agent_id="a"):
            self.assertEqual(work(), "a")
            self.killed.append("a")
            with self.assertRaises(AgentKilledError):
                work()
        line = _home.last("work")
        self.assertEqual((line["outcome"], line["cost_usd"]), ("aborted", 0))
        self.assertIn("was ended on the platform", line["payload"]["outputs"])

    def test_statement_68_in_every_thread(self) -> None:
        self.killed.append("a")
        raised: list[bool] = []

        def try_it() -> None:
            try:
                work()
            except AgentKilledError:
                raised.append(True)

        with ExecutionContext(agent_id="a"):
            thread = threading.Thread(target=try_it)
            thread.start()
            thread.join()
        self.assertEqual(raised, [True])
        self.assertIsNone(work(), "who isn't that agent goes on")


if __name__ == "__main__":
    unittest.main()
