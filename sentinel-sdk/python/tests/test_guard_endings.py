"""However an action ends, the ledger says how: returned, failed, cancelled, interrupted, killed, or refused half way."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import signal
import unittest
from typing import Any

from _guard_case import PATIENCE, GuardCase

from agent_sentinel import (
    AgentSentinelError,
    BudgetExceededError,
    CostTracker,
    PolicyEngine,
    PolicyViolationError,
    guarded_action,
)


class Interruptions(GuardCase):
    def test_statement_11_an_interrupt_and_an_exit_are_cancellations_and_go_on(self) -> None:
        for error in (KeyboardInterrupt(), SystemExit(3), GeneratorExit()):

            @guarded_action(name="stops", cost_usd=0.25)
            def stops() -> None:
                raise error

            with self.assertRaises(type(error)) as raised:
                stops()
            self.assertIs(raised.exception, error)
            self.assertEqual(self.outputs("stops", "cancelled"), type(error).__name__)
        self.assertEqual(self.outcomes("stops"), ["cancelled"] * 3)

    def test_statement_11_a_cancelled_task_is_cancelled(self) -> None:
        async def main() -> None:
            begun = asyncio.Event()

            @guarded_action(name="waits")
            async def waits() -> None:
                begun.set()
                await asyncio.sleep(600)

            task = asyncio.ensure_future(waits())
            await begun.wait()
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.assertEqual(self.outcomes("waits"), ["cancelled"])

        asyncio.run(main())

    def test_a_timeout_around_an_action_cancels_it(self) -> None:
        @guarded_action(name="waits")
        async def waits() -> None:
            await asyncio.sleep(600)

        async def main() -> None:
            # Long enough to begin on any machine.
            await asyncio.wait_for(waits(), 2)

        with self.assertRaises(asyncio.TimeoutError):
            asyncio.run(main())
        self.assertEqual(self.outcomes("waits"), ["cancelled"])

    def test_ctrl_c_in_a_body_ends_it_as_cancelled(self) -> None:
        process = self.python(
            "import time\n"
            "from agent_sentinel import guarded_action\n"
            "@guarded_action(name='long')\n"
            "def long():\n"
            "    print('in', flush=True)\n"
            "    time.sleep(600)\n"
            "try: long()\n"
            "except KeyboardInterrupt: print('interrupted')"
        )
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "in\n")
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.said(process), "interrupted\n")
        self.assertEqual(self.outcomes("long"), ["cancelled"])

    def test_a_process_that_is_killed_in_a_body_leaves_a_line_that_it_began(self) -> None:
        process = self.python(
            "import time\n"
            "from agent_sentinel import guarded_action\n"
            "@guarded_action(name='long', cost_usd=0.5)\n"
            "def long():\n"
            "    print('in', flush=True)\n"
            "    time.sleep(600)\n"
            "long()"
        )
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "in\n")
        process.kill()
        process.wait(PATIENCE)
        self.assertEqual(self.outcomes("long"), ["started"])
        self.assertEqual(CostTracker.get_session_total(), 0.5)
        self.assertEqual(self.outcomes("long"), ["abandoned"])

    def test_what_nobody_waits_for_is_said_before_the_program_ends(self) -> None:
        process = self.python(
            "import asyncio\n"
            "from agent_sentinel import guarded_action\n"
            "start = guarded_action(name='start')(lambda: asyncio.ensure_future(asyncio.sleep(0)))\n"
            "async def main(): await start()\n"
            "asyncio.run(main())"
        )
        self.said(process)
        self.assertEqual(self.outcomes("start"), ["success"])


class Processes(GuardCase):
    def test_a_fork_within_a_body_does_not_end_the_parents_action(self) -> None:
        @guarded_action(name="forks")
        def forks() -> int:
            return os.fork()

        child = forks()
        if child == 0:
            os._exit(0)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertEqual(self.outcomes("forks"), ["success"])

    def test_a_child_of_a_fork_has_actions_of_its_own_in_the_same_budget(self) -> None:
        PolicyEngine.configure(session_budget=0.5)
        paid = guarded_action(name="paid", cost_usd=0.25)(lambda: None)
        paid()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                paid()
                paid()
            except BudgetExceededError:
                status = 0
            finally:
                os._exit(status)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        self.assertEqual(CostTracker.get_session_total(), 0.5)
        with self.assertRaises(BudgetExceededError):
            paid()
        guarded_action(name="free")(lambda: None)()

    def test_a_fork_while_other_threads_act_leaves_a_child_that_can_act(self) -> None:
        paid = guarded_action(name="paid")(lambda: None)
        stop = []

        def act() -> None:
            while not stop:
                paid()

        threads = [self.start(act) for _ in range(4)]
        # Also where this test fails: they would go on for ever.
        self.addCleanup(stop.append, True)
        for _ in range(20):
            child = os.fork()
            if child == 0:
                signal.alarm(int(PATIENCE))  # a child that hangs dies of it
                status = 1
                try:
                    guarded_action(name="of the child")(lambda: None)()

                    @guarded_action(name="async of the child")
                    async def later() -> None: ...

                    asyncio.run(later())
                    status = 0
                finally:
                    os._exit(status)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        stop.append(True)
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(self.outcomes("of the child"), ["success"] * 20)
        self.assertEqual(self.outcomes("async of the child"), ["success"] * 20)
        self.assertEqual(set(self.outcomes("paid")), {"success"})


def refused_elsewhere(kind: str) -> None:
    if kind == "budget":
        raise BudgetExceededError("run budget exceeded", spent=1.5, limit=1.0, budget_type="run")
    denied()


denied = guarded_action(name="denied")(lambda: None)


class Pickling(GuardCase):
    def test_an_error_comes_whole_from_a_worker_process(self) -> None:
        PolicyEngine.configure(denied_actions=["denied"])
        with multiprocessing.get_context("fork").Pool(1) as pool:
            with self.assertRaises(BudgetExceededError) as budget:
                pool.apply(refused_elsewhere, ("budget",))
            with self.assertRaises(PolicyViolationError) as policy:
                pool.apply(refused_elsewhere, ("policy",))
        self.assertEqual((budget.exception.spent, budget.exception.limit, budget.exception.budget_type), (1.5, 1.0, "run"))
        self.assertEqual(policy.exception.remediation["reason_code"], "DENIED_ACTION")
        self.assertIn("`denied`", str(policy.exception))

    def test_what_a_policy_raises_can_be_pickled(self) -> None:
        PolicyEngine.configure(run_budget=1.0, allowed_actions=["paid"], rate_limits={"paid": {"max_count": 1}})
        raised: list[Any] = []
        for name, cost in (("paid", 2.0), ("other", 0.0), ("paid", 0.0), ("paid", 0.0)):
            try:
                guarded_action(name=name, cost_usd=cost)(lambda: None)()
            except AgentSentinelError as error:
                raised.append(error)
        self.assertEqual([error.remediation["reason_code"] for error in raised], ["BUDGET_EXCEEDED", "NOT_IN_ALLOWLIST", "RATE_LIMITED"])
        for error in raised:
            back = pickle.loads(pickle.dumps(error))
            self.assertEqual((type(back), str(back), back.to_dict()), (type(error), str(error), error.to_dict()))


if __name__ == "__main__":
    unittest.main()
