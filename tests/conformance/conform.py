"""Makes the calls of a conformance case with the Python SDK, and prints what came of each as a line of JSON: see `tests/src/bin/conform.rs`."""

import json
import os
import sys
import threading
import time

from agent_sentinel import (
    BudgetExceededError,
    CostTracker,
    PolicyEngine,
    PolicyViolationError,
    guarded_action,
)
from agent_sentinel import errors
from agent_sentinel import _native
from agent_sentinel._runtime import Request, runtime


def one(call):
    cost = call.get("cost_usd", 0.0)
    given = call.get("inputs", {"args": [], "kwargs": {}})

    @guarded_action(
        name=call["action"],
        cost_usd=float(cost),
        tags=call.get("tags"),
        risk_level=call.get("risk_level"),
        wait_for_approval=call.get("approval_milliseconds", 0) / 1000,
    )
    def body(*args, **kwargs):
        if "raises" in call:
            raise RuntimeError(call["raises"])
        return call.get("returns")

    if "actual_cost_usd" in call:
        declared = _native.Declared(call["action"], float(cost), [], None, None, False)
        begun = runtime.begin(Request(call["action"], declared, json.dumps(given)))
        begun.end("success", "null", call["actual_cost_usd"])
        return {"ran": 1}
    try:
        body(*given["args"], **given["kwargs"])
    except RuntimeError:
        pass
    except errors.AgentSentinelError as error:
        return refused(error)
    return {"ran": 1}


def refused(error):
    reason = error.details.get("reason", {})
    told = {"refused": reason.get("code", error.error_code)}
    if isinstance(error, BudgetExceededError):
        told.update(budget=error.budget_type, spent=error.spent, limit=error.limit)
    elif isinstance(error, PolicyViolationError):
        if error.reason_code == "NOT_IN_ALLOWLIST":
            told["safe_alternatives"] = error.remediation["safe_alternatives"]
        if error.reason_code == "RATE_LIMITED":
            told["recoverable"] = error.recoverable
    return told


def made(call):
    if "totals" in call:
        return {"session": CostTracker.get_session_total(), "run": CostTracker.get_run_total()}
    if "reset_run" in call:
        CostTracker.reset_run()
        return {"session": CostTracker.get_session_total(), "run": CostTracker.get_run_total()}
    if "wait" in call:
        time.sleep(call["wait"])
        return {}
    if "threads" not in call:
        return one(call)
    ran = []
    threads = [threading.Thread(target=lambda: ran.append(one(call))) for _ in range(call["threads"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"ran": sum(1 for result in ran if "ran" in result)}


policy = os.environ.get("CONFORM_POLICY")
if policy:
    PolicyEngine.load_from_yaml(policy)
for call in json.loads(sys.argv[1]):
    print(json.dumps(made(call)), flush=True)
