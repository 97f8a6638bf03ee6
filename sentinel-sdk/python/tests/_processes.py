"""Children of this program act in one budget: `_processes.py METHOD` with a method of `multiprocessing`, or `os.fork`.

Each of 4 children tries 5 actions of 0.1, where 1.0 may be spent; then the parent tries one more, and one that is free. Prints how many of the
children's ran and were refused, and what became of the parent's.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

from agent_sentinel import BudgetExceededError, PolicyEngine, guarded_action

CHILDREN = 4

# On a host it is the operator who says so. A spawned child imports this module, and so configures itself.
if not os.environ.get("AGENT_SENTINEL_SOCKET"):
    PolicyEngine.configure(session_budget=1.0)


@guarded_action(name="paid", cost_usd=0.1)
def paid() -> None: ...


@guarded_action(name="free")
def free() -> None: ...


def try_one() -> str:
    try:
        paid()
    except BudgetExceededError:
        return "refused"
    return "ran"


def try_five(_: int = 0) -> list[str]:
    return [try_one() for _ in range(5)]


def of_forks() -> list[str]:
    told = []
    for _ in range(CHILDREN):
        read, write = os.pipe()
        if os.fork() == 0:
            os.write(write, " ".join(try_five()).encode())
            os._exit(0)
        os.close(write)
        told.append(read)
    results = []
    for read in told:
        with open(read) as pipe:
            results += pipe.read().split()
        os.wait()
    return results


def of_pool(method: str) -> list[str]:
    with multiprocessing.get_context(method).Pool(CHILDREN) as pool:
        return [result for results in pool.map(try_five, range(CHILDREN), chunksize=1) for result in results]


if __name__ == "__main__":
    # The parent has a connection, or a ledger, of its own when it forks.
    free()
    results = of_forks() if sys.argv[1] == "os.fork" else of_pool(sys.argv[1])
    print(results.count("ran"), results.count("refused"), try_one())
    free()
