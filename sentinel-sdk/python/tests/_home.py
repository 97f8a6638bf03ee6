"""A folder of a test file's own for the ledger, and what stands in it. Imported before the package is used."""

from __future__ import annotations

import _load  # noqa: F401

import atexit
import json
import logging
import os
import shutil
import tempfile
from typing import Any

HOME = tempfile.mkdtemp(prefix="agent-sentinel-test-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
for name in [name for name in os.environ if name.startswith("AGENT_SENTINEL_")]:
    del os.environ[name]
os.environ["AGENT_SENTINEL_HOME"] = HOME
logging.getLogger("agent_sentinel").addHandler(logging.NullHandler())


def lines(action: str) -> list[dict[str, Any]]:
    """The ledger's lines about an action, in their order."""
    with open(os.path.join(HOME, "ledger.jsonl"), encoding="utf-8") as ledger:
        return [line for line in map(json.loads, ledger) if line["action"] == action]


def last(action: str) -> dict[str, Any]:
    """Its last line."""
    return lines(action)[-1]
