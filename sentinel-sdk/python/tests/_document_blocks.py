"""What each block of the seed's document needs to run, and what the document says happens then.

Invariant: the text of a block is never changed. What it leaves open (`call_search_api` and the like) is filled in by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Callable

import _document_checks as then
from _document_checks import Ran


def nothing(_: Ran) -> None:
    """Needs nothing, or says nothing."""


@dataclass(frozen=True)
class Setting:
    """What stands around a block."""

    # Of the document; `…(2)` is the second block of that first line.
    first_line: str
    # What the document says happens. It is given what ran.
    after: Callable[[Ran], None]
    # What the block uses and doesn't define: the name, and the source that defines it.
    fillers: Mapping[str, str] = field(default_factory=dict)
    # What the document takes for done before it.
    before: Callable[[Ran], None] = nothing
    # Why it can't be run. Empty: it is.
    not_run: str = ""


GUARDED = "from agent_sentinel import guarded_action"
ENGINE = "from agent_sentinel import PolicyEngine"
OPENAI = """
from types import SimpleNamespace as made
async def create(model, messages):
    return made(choices=[made(message=made(content=f"{model}: {messages[0]['content']}"))])
openai_client = made(chat=made(completions=made(create=create)))
"""

SETTINGS = [
    Setting("# Basic installation", nothing, not_run="it installs AgentSentinel's own SDK from a package index"),
    Setting(
        "from agent_sentinel import guarded_action",
        then.searched,
        {"call_search_api": "def call_search_api(query): return ['a', 'b']"},
    ),
    Setting(
        '@guarded_action(name="generate_text", cost_usd=0.05, tags=["llm"])',
        then.generated,
        {"guarded_action": GUARDED, "openai_client": OPENAI},
    ),
    Setting("from dataclasses import dataclass", then.stringified, {"guarded_action": GUARDED}),
    Setting("{", then.has_the_shape),
    Setting(
        "from agent_sentinel import PolicyEngine, CostTracker, BudgetExceededError",
        then.is_held_to_budgets,
        {"guarded_action": GUARDED, "generate_text": "def generate_text(prompt): return f'text for {prompt}'"},
    ),
    Setting("budgets:", then.yaml_is_read),
    Setting("from agent_sentinel import PolicyEngine", then.yaml_applies, before=then.write_yaml),
    Setting("PolicyEngine.configure(", then.deletes_nothing, {"PolicyEngine": ENGINE, "guarded_action": GUARDED}),
    Setting("PolicyEngine.configure(…(2)", then.allows_only_what_is_listed, {"PolicyEngine": ENGINE}),
    Setting(
        "from agent_sentinel import enable_remote_sync, flush_and_stop", then.everything_was_uploaded, before=then.start_platform
    ),
    Setting(
        "from agent_sentinel import BackgroundSync, SyncConfig", then.was_uploaded_under_its_run, before=then.start_platform
    ),
    Setting("# Use function name (default)", then.is_named, {"guarded_action": GUARDED}),
    Setting("@guarded_action(", then.is_tagged, {"guarded_action": GUARDED}),
    Setting(
        '@guarded_action(name="might_fail", cost_usd=0.01)',
        then.was_raised_and_recorded,
        {"guarded_action": GUARDED, "something_bad": "something_bad = True"},
    ),
    Setting("import os", then.logs_go_there, before=then.own_var_log),
    Setting("import json", then.is_added_up, before=then.do_three_things),
    Setting(
        '@guarded_action(name="my_action", cost_usd=0.05, tags=["api", "external"])',
        then.is_wrapped,
        {"guarded_action": GUARDED},
    ),
    Setting(
        "from agent_sentinel import (",
        then.was_caught,
        {
            "expensive_operation": "import agent_sentinel\n"
            "agent_sentinel.PolicyEngine.configure(run_budget=1.0, denied_actions=['denied_operation'])\n"
            "expensive_operation = agent_sentinel.guarded_action(name='expensive_operation', cost_usd=1.5)(print)",
            "denied_operation": "denied_operation = agent_sentinel.guarded_action(name='denied_operation')(print)",
        },
    ),
    Setting("from agent_sentinel import CostTracker", then.is_counted, before=then.spend),
    Setting("from agent_sentinel import PolicyEngine…(2)", then.was_configured_and_reset, before=then.write_yaml),
    Setting("from agent_sentinel import Ledger", then.was_recorded),
    Setting(
        '@guarded_action(name="llm_call", cost_usd=0.03, tags=["openai", "gpt4"])',
        then.called_llm,
        {"guarded_action": GUARDED, "openai_client": OPENAI},
    ),
    Setting(
        '@guarded_action(name="database_query", cost_usd=0.001, tags=["db"])',
        then.tools_were_called,
        {
            "guarded_action": GUARDED,
            "database": "from types import SimpleNamespace as made\n"
            "database = made(execute=lambda sql: made(fetchall=lambda: [(sql,)]))",
            "requests": "requests = made(get=lambda url: made(json=lambda: {'url': url}))",
            "BASE_URL": "BASE_URL = '/base'",
        },
    ),
    Setting("# Agent 1", then.both_agents_acted, {"guarded_action": GUARDED}),
    Setting("import logging", then.folder_is_told, before=lambda _: then.guarded("works")),
    Setting("# Rotate logs (keep last 5)", then.goes_on_after_a_rotation, before=then.do_three_things),
]
