"""Measures guarded calls of the package `agent_sentinel` in a folder: `worker.py FOLDER`.

Prints the time of its import in ms, of a call and of an awaited call in µs (medians), and the calls a second of eight threads.
"""

from __future__ import annotations

import sys
import time

CALLS = 5_000
THREADS = 8
CALLS_OF_A_THREAD = 1_500


def main() -> None:
    sys.path.insert(0, sys.argv[1])
    start = time.perf_counter()
    import agent_sentinel

    imported = (time.perf_counter() - start) * 1e3

    import asyncio
    import logging
    import threading

    logging.disable(logging.CRITICAL)
    agent_sentinel.PolicyEngine.configure(
        session_budget=1e6,
        run_budget=1e6,
        action_budgets={"act": 1e6},
        denied_actions=["forbidden"],
        allowed_actions=["act"],
    )

    @agent_sentinel.guarded_action(name="act", cost_usd=0.0001, tags=["bench"])
    def act(number: int) -> int:
        return number

    @agent_sentinel.guarded_action(name="act", cost_usd=0.0001, tags=["bench"])
    async def act_async(number: int) -> int:
        return number

    def called(count: int) -> float:
        clock, times = time.perf_counter_ns, []
        for number in range(count):
            before = clock()
            act(number)
            times.append(clock() - before)
        return sorted(times)[count // 2] / 1e3

    async def awaited(count: int) -> float:
        clock, times = time.perf_counter_ns, []
        for number in range(count):
            before = clock()
            await act_async(number)
            times.append(clock() - before)
        return sorted(times)[count // 2] / 1e3

    def a_second() -> float:
        ready = threading.Barrier(THREADS + 1)

        def work() -> None:
            ready.wait()
            for number in range(CALLS_OF_A_THREAD):
                act(number)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        ready.wait()
        before = time.perf_counter()
        for thread in threads:
            thread.join()
        return THREADS * CALLS_OF_A_THREAD / (time.perf_counter() - before)

    # The first calls find out who decides, and open the ledger.
    called(CALLS // 10)
    call = called(CALLS)
    print(imported, call, asyncio.run(awaited(CALLS // 2)), a_second())


main()
