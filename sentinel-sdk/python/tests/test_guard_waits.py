"""While an action waits (for another process's turn at the ledger, for a human), nothing else does; and budgets hold however many ask at once."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

from _guard_case import PATIENCE, GuardCase

from agent_sentinel import (
    AgentSentinelError,
    BudgetExceededError,
    CostTracker,
    PolicyEngine,
    PolicyViolationError,
    guarded_action,
)
from agent_sentinel._runtime import runtime

PROCESSES = Path(__file__).resolve().parent / "_processes.py"

# Holds the turn until its standard input closes: as a living member, on the board and by the lock.
HOLDER = """
import fcntl, mmap, sys, time
MEMBER = 77
with open(sys.argv[1], "r+b", buffering=0) as file:
    fcntl.lockf(file, fcntl.LOCK_EX, 1, MEMBER)
    fcntl.lockf(file, fcntl.LOCK_EX, 1, 0)
    with mmap.mmap(file.fileno(), 4096) as board, memoryview(board) as page, page.cast("Q") as words:
        while words[1]:
            time.sleep(0.001)
        words[1] = words[2] = MEMBER
        print("held", flush=True)
        sys.stdin.read()
        words[1] = 0
"""


class LockedLedger(GuardCase):
    def setUp(self) -> None:
        super().setUp()
        guarded_action(name="first")(lambda: None)()

    def hold(self) -> subprocess.Popen[str]:
        holder = self.python(HOLDER, str(self.home / "ledger.lock"))
        assert holder.stdout is not None
        self.assertEqual(holder.stdout.readline(), "held\n")
        return holder

    def let_go(self, holder: subprocess.Popen[str]) -> None:
        assert holder.stdin is not None
        holder.stdin.close()

    def test_a_thread_goes_on_while_another_waits(self) -> None:
        holder = self.hold()
        acts = self.start(guarded_action(name="waits")(lambda: None))
        # This thread could do nothing of this, were the interpreter's lock held by the one that waits.
        self.assertEqual(self.outcomes("waits"), [])
        self.assertTrue(acts.is_alive())
        self.let_go(holder)
        acts.join(PATIENCE)
        self.assertEqual(self.outcomes("waits"), ["success"])

    def test_an_interrupt_ends_the_wait_for_another_processs_turn(self) -> None:
        holder = self.hold()
        process = self.python(
            "import agent_sentinel\n"
            "@agent_sentinel.guarded_action(name='waits')\n"
            "def waits(): print('it ran')\n"
            "try:\n"
            "    print('begins', flush=True)\n"
            "    waits()\n"
            "except KeyboardInterrupt: print('interrupted')\n"
        )
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "begins\n")
        # By then it waits; where it doesn't yet, it is interrupted before.
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.said(process), "interrupted\n")
        self.let_go(holder)
        self.assertEqual(self.outcomes("waits"), [])
        # And who waits on has its turn.
        guarded_action(name="waits")(lambda: None)()
        self.assertEqual(self.outcomes("waits"), ["success"])

    def test_an_async_program_goes_on_while_an_action_begins_and_while_one_ends(self) -> None:
        async def main() -> None:
            holders = [self.hold()]

            async def tick() -> None:
                for _ in range(20):
                    await asyncio.sleep(0.001)
                self.let_go(holders[-1])

            @guarded_action(name="waits")
            async def waits() -> None:
                holders.append(self.hold())
                asyncio.ensure_future(tick())

            asyncio.ensure_future(tick())
            # Neither tick could come to its end, were the loop blocked: and then the action couldn't.
            await asyncio.wait_for(waits(), PATIENCE)

        asyncio.run(main())
        self.assertEqual(self.outcomes("waits"), ["success"])

    def test_a_task_that_is_cancelled_while_its_action_begins_does_not_run_it(self) -> None:
        async def main() -> None:
            holder = self.hold()

            @guarded_action(name="waits")
            async def waits() -> None:
                self.fail("it ran")

            task = asyncio.ensure_future(waits())
            await asyncio.sleep(0)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task
            self.let_go(holder)
            # It is let start all the same, and given up at once.
            while self.outcomes("waits") != ["cancelled"]:
                await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(main(), PATIENCE))

    def test_the_end_of_an_async_generator_does_not_block_the_program_either(self) -> None:
        async def main() -> None:
            @guarded_action(name="items")
            async def items():  # type: ignore[no-untyped-def]
                yield 1

            walk = items()
            await walk.__anext__()
            holder = self.hold()

            async def tick() -> None:
                for _ in range(20):
                    await asyncio.sleep(0.001)
                self.let_go(holder)

            asyncio.ensure_future(tick())
            await asyncio.wait_for(walk.aclose(), PATIENCE)

        asyncio.run(main())
        self.assertEqual(self.outcomes("items"), ["cancelled"])


class Approvals(GuardCase):
    def setUp(self) -> None:
        super().setUp()
        PolicyEngine.configure(require_approval=True, approval_actions=["pay"], approval_timeout_seconds=600)

    def waiting(self) -> list[str]:
        """The approvals that somebody has asked for."""
        return [line["id"] for line in self.lines("pay", "pending")]

    def approve(self, id: str) -> None:
        runtime.own().decide_approval(id, True)

    def test_a_thread_goes_on_while_another_waits_for_a_human(self) -> None:
        acts = self.start(guarded_action(name="pay", wait_for_approval=PATIENCE)(lambda: None))
        self.wait_until(lambda: len(self.waiting()) == 1)
        guarded_action(name="other")(lambda: None)()
        self.approve(self.waiting()[0])
        acts.join(PATIENCE)
        self.assertEqual((self.outcomes("other"), self.outcomes("pay")), (["success"], ["success"]))

    def test_any_number_of_tasks_that_wait_keep_no_other_from_acting(self) -> None:
        @guarded_action(name="pay", wait_for_approval=PATIENCE)
        async def pay(number: int) -> int:
            return number

        @guarded_action(name="other")
        async def other() -> None: ...

        async def main() -> None:
            tasks = [asyncio.ensure_future(pay(number)) for number in range(40)]
            while len(self.waiting()) < 40:
                await asyncio.sleep(0.01)
            await other()
            for id in self.waiting():
                self.approve(id)
            self.assertEqual(await asyncio.gather(*tasks), list(range(40)))

        asyncio.run(asyncio.wait_for(main(), PATIENCE))
        self.assertEqual(self.outcomes("other"), ["success"])

    def test_a_program_whose_task_was_cancelled_ends_though_nobody_has_spoken(self) -> None:
        process = self.python(
            "import asyncio\n"
            "from agent_sentinel import PolicyEngine, guarded_action\n"
            "PolicyEngine.configure(require_approval=True, approval_actions=['pay'], approval_timeout_seconds=600)\n"
            "@guarded_action(name='pay', wait_for_approval=600)\n"
            "async def pay(): pass\n"
            "async def main():\n"
            "    try: await asyncio.wait_for(pay(), 1)\n"
            "    except asyncio.TimeoutError: print('late')\n"
            "asyncio.run(main())"
        )
        self.assertEqual(self.said(process), "late\n")
        self.assertEqual(self.outcomes("pay"), [])

    def test_a_program_whose_task_was_cancelled_ends_though_its_handler_never_answers(self) -> None:
        process = self.python(
            "import asyncio\n"
            "from agent_sentinel import HumanApprovalHandler, guarded_action\n"
            "async def handler(request): await asyncio.Event().wait()\n"
            "HumanApprovalHandler.set_async_approval_handler(handler)\n"
            "@guarded_action(name='pay', requires_human_approval=True)\n"
            "async def pay(): pass\n"
            "async def main():\n"
            "    try: await asyncio.wait_for(pay(), 1)\n"
            "    except asyncio.TimeoutError: print('late')\n"
            "asyncio.run(main())"
        )
        self.assertEqual(self.said(process), "late\n")
        self.assertEqual(self.outcomes("pay"), [])

    def test_ctrl_c_ends_the_wait_for_a_human(self) -> None:
        process = self.python(
            "from agent_sentinel import PolicyEngine, guarded_action\n"
            "PolicyEngine.configure(require_approval=True, approval_actions=['pay'], approval_timeout_seconds=600)\n"
            "try: guarded_action(name='pay', wait_for_approval=600)(lambda: print('ran'))()\n"
            "except KeyboardInterrupt: print('interrupted')"
        )
        self.wait_until(lambda: len(self.waiting()) == 1)
        process.send_signal(signal.SIGINT)
        self.assertEqual(self.said(process), "interrupted\n")
        self.assertEqual(self.outcomes("pay"), [])


class Budgets(GuardCase):
    def setUp(self) -> None:
        super().setUp()
        PolicyEngine.configure(session_budget=1.0)

    def test_of_50_threads_exactly_the_10_run_that_the_budget_pays(self) -> None:
        told: list[str] = []
        together = threading.Barrier(50)
        paid = guarded_action(name="paid", cost_usd=0.1)(lambda: None)

        def act() -> None:
            together.wait(PATIENCE)
            try:
                paid()
                told.append("ran")
            except BudgetExceededError:
                told.append("refused")

        threads = [self.start(act) for _ in range(50)]
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual((told.count("ran"), told.count("refused")), (10, 40))
        self.assertEqual(CostTracker.get_session_total(), 1.0)

    def test_of_50_tasks_exactly_the_10_run_that_the_budget_pays(self) -> None:
        @guarded_action(name="paid", cost_usd=0.1)
        async def paid() -> str:
            await asyncio.sleep(0.01)
            return "ran"

        async def main() -> list[object]:
            return await asyncio.gather(*(paid() for _ in range(50)), return_exceptions=True)

        told = asyncio.run(main())
        self.assertEqual(told.count("ran"), 10)
        self.assertEqual(sum(isinstance(one, BudgetExceededError) for one in told), 40)
        self.assertEqual(CostTracker.get_session_total(), 1.0)

    def test_children_of_every_kind_share_the_budget_and_the_parent_goes_on(self) -> None:
        for method in ("os.fork", "fork", "spawn", "forkserver"):
            with self.subTest(method):
                self.forget()
                CostTracker.reset_all()
                process = subprocess.run(
                    [sys.executable, str(PROCESSES), method], capture_output=True, text=True, timeout=PATIENCE
                )
                self.assertEqual((process.stdout, process.returncode), ("10 10 refused\n", 0), process.stderr)

    def test_of_many_refusals_at_once_none_lets_a_body_run(self) -> None:
        PolicyEngine.configure(denied_actions=["no"])
        no = guarded_action(name="no")(lambda: self.fail("it ran"))

        def act() -> None:
            for _ in range(20):
                with self.assertRaises(PolicyViolationError):
                    no()

        threads = [self.start(act) for _ in range(8)]
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(self.outcomes("no"), ["blocked"] * 160)

    def test_a_policy_that_changes_meanwhile_never_leaves_a_moment_without_one(self) -> None:
        stop = threading.Event()
        ran: list[bool] = []

        def change() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                PolicyEngine.configure(denied_actions=["no"], session_budget=number)
                try:
                    PolicyEngine.configure(session_budget=-1)
                except AgentSentinelError:
                    pass

        PolicyEngine.configure(denied_actions=["no"])
        changes = self.start(change)
        # Also where this test fails: it would go on for ever.
        self.addCleanup(stop.set)
        no = guarded_action(name="no")(lambda: ran.append(True))
        for _ in range(200):
            with self.assertRaises(PolicyViolationError):
                no()
        stop.set()
        changes.join(PATIENCE)
        self.assertEqual(ran, [])


if __name__ == "__main__":
    unittest.main()
