"""What the document says happens when a block has run, and what it takes for done before: `_document_blocks.py` says which belongs where."""

from __future__ import annotations

import gzip
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Optional

import _platform
from _document import Block


@dataclass
class Ran:
    """A block that has run: what it defined and what it printed."""

    block: Block
    names: dict[str, Any]
    printed: str = ""

    def refused(self, kind: str, name: str, *args: Any, **kwargs: Any) -> Any:
        """The error of this kind that calling what the block defined raises."""
        import agent_sentinel

        try:
            self.names[name](*args, **kwargs)
        except getattr(agent_sentinel, kind) as error:
            return error
        raise AssertionError(f"`{name}` was not refused")


LEDGER = Path(".agent-sentinel/ledger.jsonl")

_stub = _platform.Platform()


def ledger(path: Path = LEDGER) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ended(action: str, path: Path = LEDGER) -> list[dict[str, Any]]:
    """The lines of this action that tell how it ended. What it was called with stands in the line of its start, which has the same id."""
    found = []
    inputs: dict[str, Any] = {}
    for line in ledger(path):
        if line["action"] == action and line["outcome"] == "started":
            inputs[line["id"]] = line["payload"]["inputs"]
        elif line["action"] == action:
            line["payload"]["inputs"] = line["payload"]["inputs"] or inputs[line["id"]]
            found.append(line)
    return found


def guarded(name: str, cost_usd: float = 0.0, error: Optional[Exception] = None) -> None:
    """Does an action, as an agent would before or after a block."""
    from agent_sentinel import guarded_action

    @guarded_action(name=name, cost_usd=cost_usd)
    def body() -> None:
        if error is not None:
            raise error

    try:
        body()
    except type(error) if error is not None else ():
        pass


def _has(line: Mapping[str, Any], **expected: Any) -> None:
    for key, value in expected.items():
        assert line[key] == value, f"{key} is {line[key]!r}, not {value!r}"


def searched(ran: Ran) -> None:
    assert ran.names["response"] == {"results": ["a", "b"], "count": 2}, ran.names["response"]
    (line,) = ended("search_tool")
    _has(line, cost_usd=0.01, outcome="success", tags=["search", "api"])
    assert line["payload"]["inputs"] == {"args": ["Python best practices"], "kwargs": {}}, line
    assert line["payload"]["outputs"] == {"results": ["a", "b"], "count": 2}, line


def generated(ran: Ran) -> None:
    assert ran.names["result"] == "gpt-4: Write a haiku about Python"
    _has(ended("generate_text")[0], cost_usd=0.05, outcome="success", tags=["llm"])


def stringified(_: Ran) -> None:
    (line,) = ended("process_data")
    context, data = line["payload"]["inputs"]["args"]
    assert context.startswith("Context(user_id=123, session='abc', connection=<socket.socket"), context
    assert data == {"value": 42} and line["payload"]["outputs"] == {"processed": True, "user": 123}, line


def has_the_shape(ran: Ran) -> None:
    from agent_sentinel import guarded_action

    @guarded_action(name="search_tool", cost_usd=0.01, tags=["search", "api"])
    def search_web(query: str) -> dict[str, Any]:
        return {"results": ["..."], "count": 10}

    search_web(query="Python best practices")
    (line,) = ended("search_tool")
    example = json.loads(ran.block.text)
    assert list(line)[: len(example)] == list(example), list(line)
    for key in ("action", "cost_usd", "outcome", "tags", "payload"):
        assert line[key] == example[key], f"{key}: {line[key]!r}"
    assert str(uuid.UUID(line["id"])) == line["id"]
    for stamp in (line["timestamp"], example["timestamp"]):
        when = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
        assert when.utcoffset() == timedelta(0), stamp
    assert isinstance(line["duration_ms"], float)


def is_held_to_budgets(ran: Ran) -> None:
    assert ran.printed == "Run total: $0.00\n", ran.printed
    call_gpt4 = ran.names["call_gpt4"]
    assert call_gpt4("hello") == "text for hello"
    # 0.60 of 0.50 for the action
    assert ran.refused("BudgetExceededError", "call_gpt4", "hello").budget_type == "action"
    tracker = ran.names["CostTracker"]
    assert tracker.get_run_total() == 0.30
    tracker.reset_run()
    assert (tracker.get_run_total(), tracker.get_session_total()) == (0.0, 0.30)


def write_yaml(ran: Ran) -> None:
    from _document import DOCUMENT, blocks

    texts = [block.text for block in blocks(DOCUMENT.read_text(encoding="utf-8")) if block.language == "yaml"]
    Path("callguard.yaml").write_text(texts[0])


def yaml_is_read(ran: Ran) -> None:
    write_yaml(ran)
    exec("from agent_sentinel import PolicyEngine; PolicyEngine.load_from_yaml('callguard.yaml')", ran.names)
    yaml_applies(ran)


def yaml_applies(ran: Ran) -> None:
    from agent_sentinel import BudgetExceededError, PolicyEngine, PolicyViolationError

    config = PolicyEngine.get_config()
    assert config is not None and PolicyEngine.is_configured()
    assert (config.session_budget, config.run_budget, config.action_budgets) == (5.0, 1.0, {"expensive_llm": 0.50})
    assert config.denied_actions == ["dangerous_operation", "delete_database"] and config.strict_mode is True
    for action in ("delete_database", "dangerous_operation"):
        _denied(PolicyViolationError, action)
    _denied(BudgetExceededError, "expensive_llm", 0.51)
    _denied(BudgetExceededError, "anything", 1.01)
    guarded("anything", 1.0)


def _denied(kind: type[Exception], action: str, cost_usd: float = 0.0) -> None:
    try:
        guarded(action, cost_usd)
    except kind:
        return
    raise AssertionError(f"`{action}` was not refused")


def deletes_nothing(ran: Ran) -> None:
    assert ran.refused("PolicyViolationError", "delete_database").reason_code == "DENIED_ACTION"
    guarded("something_else")


def allows_only_what_is_listed(_: Ran) -> None:
    from agent_sentinel import PolicyViolationError

    _denied(PolicyViolationError, "write_file")
    for action in ("read_file", "search_web"):
        guarded(action)


def start_platform(_: Ran) -> None:
    """A platform in this process, which stands for the host that the document names."""
    from agent_sentinel import _http

    _platform.TOKEN = "your-jwt-token"
    _stub.up()
    made = _http.Platform.__init__

    def redirected(self: _http.Platform, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        self.url = _stub.url

    setattr(_http.Platform, "__init__", redirected)
    guarded("was_done", 0.01)


def everything_was_uploaded(_: Ran) -> None:
    names = [entry["action"] for entry in _stub.entries()]
    assert "was_done" in names, names
    _stub.down()


def was_uploaded_under_its_run(ran: Ran) -> None:
    assert not ran.names["sync"].is_running()
    assert {batch["run_id"] for batch in _stub.batches} == {"custom-run-id"}, _stub.batches
    everything_was_uploaded(ran)


def is_named(ran: Ran) -> None:
    # The first function of that name is gone: the second has taken its place.
    ran.names["my_function"]()
    _has(ended("custom_name")[0], cost_usd=0.01)
    source = ran.block.text.split("\n\n")[0]
    exec(source, ran.names)
    ran.names["my_function"]()
    _has(ended("my_function")[0], cost_usd=0.01)


def is_tagged(ran: Ran) -> None:
    ran.names["expensive_operation"]()
    _has(ended("expensive_operation")[0], cost_usd=1.5, tags=["llm", "gpt4", "production"])


def was_raised_and_recorded(ran: Ran) -> None:
    assert ran.printed == "Caught: Oops!\n", ran.printed
    (line,) = ended("might_fail")
    _has(line, outcome="error")
    assert line["payload"]["outputs"] == "ValueError: Oops!", line
    ran.names["something_bad"] = False
    assert ran.names["risky_operation"]() == "success"


def own_var_log(_: Ran) -> None:
    """`/var/log` is the machine's: this program is given one of its own."""
    encode = os.environ.encodevalue  # type: ignore[attr-defined]
    setattr(os.environ, "encodevalue", lambda value: encode(value.replace("/var/log", f"{os.getcwd()}/var/log")))


def logs_go_there(_: Ran) -> None:
    guarded("logged")
    assert len(ended("logged", Path("var/log/my-agent/ledger.jsonl"))) == 1
    assert not LEDGER.exists()


def do_three_things(_: Ran) -> None:
    guarded("works", 0.25)
    guarded("fails", 0.50, ValueError("no"))
    guarded("works", 0.25)


def is_added_up(ran: Ran) -> None:
    assert ran.printed == "Total cost: $1.00\nFound 1 errors\n", ran.printed


def is_wrapped(ran: Ran) -> None:
    assert ran.names["my_function"](1, arg2=2) == 3
    (line,) = ended("my_action")
    _has(line, cost_usd=0.05, tags=["api", "external"])
    assert line["payload"] == {"inputs": {"args": [1], "kwargs": {"arg2": 2}}, "outputs": 3}, line


def was_caught(ran: Ran) -> None:
    budget, policy = ran.printed.splitlines()
    assert budget.startswith("Budget exceeded: ") and "run budget" in budget, budget
    assert policy.startswith("Policy violation: ") and "`denied_operation`" in policy, policy
    base = ran.names["AgentSentinelError"]
    for name in ("BudgetExceededError", "PolicyViolationError", "ReplayDivergenceError"):
        assert issubclass(ran.names[name], base), name


def spend(_: Ran) -> None:
    guarded("expensive_llm", 0.1)
    guarded("expensive_llm", 0.1)


def is_counted(ran: Ran) -> None:
    assert ran.printed == "Calls: 2, Cost: $0.20\nexpensive_llm: 2 calls, $0.20\n", ran.printed
    assert (ran.names["session_total"], ran.names["run_total"]) == (0.2, 0.2)
    expected = {
        "session_total": 0.2,
        "run_total": 0.0,
        "action_counts": {"expensive_llm": 2},
        "action_costs": {"expensive_llm": 0.2},
    }
    assert ran.names["snapshot"] == expected, ran.names["snapshot"]


def was_configured_and_reset(ran: Ran) -> None:
    assert ran.printed == "Run budget: $1.0\n", ran.printed
    assert not ran.names["PolicyEngine"].is_configured()
    guarded("delete_database", 100.0)


def was_recorded(_: Ran) -> None:
    from agent_sentinel import CostTracker

    (line,) = ended("manual_entry")
    _has(line, cost_usd=0.01, duration_ms=100.0, outcome="success", tags=["manual"])
    assert line["payload"] == {"inputs": {"key": "value"}, "outputs": {"result": 42}}, line
    assert CostTracker.get_session_total() == 0.0


def called_llm(ran: Ran) -> None:
    import asyncio

    assert asyncio.run(ran.names["call_llm"]([{"role": "user", "content": "hi"}])) == "gpt-4: hi"
    _has(ended("llm_call")[0], cost_usd=0.03, outcome="success", tags=["openai", "gpt4"])


def tools_were_called(ran: Ran) -> None:
    assert ran.names["query_database"]("select 1") == [("select 1",)]
    assert ran.names["call_external_api"]("status") == {"url": "/base/status"}
    _has(ended("database_query")[0], cost_usd=0.001, tags=["db"])
    _has(ended("api_request")[0], cost_usd=0.01, tags=["external"])


def both_agents_acted(ran: Ran) -> None:
    assert ran.names["plan_tasks"]("win") == ["task1", "task2", "task3"]
    assert ran.names["execute_task"]("task1") == {"status": "done", "task": "task1"}
    _has(ended("planner_think")[0], cost_usd=0.02, tags=["agent1", "planning"])
    _has(ended("executor_run")[0], cost_usd=0.05, tags=["agent2", "execution"])


def folder_is_told(ran: Ran) -> None:
    expected = f"Log directory: {Path.cwd() / '.agent-sentinel'}\nExists: True\nWritable: True\n"
    assert ran.printed == expected, ran.printed


def goes_on_after_a_rotation(_: Ran) -> None:
    from agent_sentinel import CostTracker

    (packed,) = Path(".agent-sentinel").glob("ledger-*.jsonl.gz")
    with gzip.open(packed, "rt") as old:
        assert sum("works" in line for line in old) == 4  # two actions, a line for start and end of each
    assert not LEDGER.exists()
    guarded("after")
    assert len(ended("after")) == 1 and not ended("works")
    assert CostTracker.get_session_total() == 1.0
