"""What the tests of guarded actions share: a ledger of each test's own, and its lines; in embedded mode."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional
from unittest import mock

import _load  # noqa: F401

from agent_sentinel import ApprovalResponse, ApprovalStatus, HumanApprovalHandler, PolicyEngine
from agent_sentinel._runtime import SOCKET, runtime

# Whatever takes longer hangs. Nothing is ever judged by how long it took.
PATIENCE = 30.0


class GuardCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sentinel-guard-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.home = self.folder / "home"
        self.path = self.home / "ledger.jsonl"
        environment = mock.patch.dict(os.environ, {"AGENT_SENTINEL_HOME": str(self.home)})
        environment.start()
        self.addCleanup(environment.stop)
        os.environ.pop(SOCKET, None)
        logging.getLogger("agent_sentinel").setLevel(logging.CRITICAL)
        self.forget()
        self.addCleanup(self.forget)

    def forget(self) -> None:
        """As a new process would begin."""
        runtime.__init__()  # type: ignore[misc]
        PolicyEngine._config = None
        HumanApprovalHandler.set_approval_handler(None)

    def ledger(self) -> list[dict[str, Any]]:
        """All its lines, over all its parts."""
        parts = [*sorted(self.home.glob("ledger-*.jsonl")), self.path]
        texts = [part.read_text(encoding="utf-8") for part in parts if part.exists()]
        return [json.loads(line) for text in texts for line in text.splitlines()]

    def lines(self, action: str, outcome: str) -> list[dict[str, Any]]:
        return [line for line in self.ledger() if line["action"] == action and line["outcome"] == outcome]

    def outcomes(self, action: str) -> list[str]:
        """How the action's calls came to their ends, and those that go on."""
        kinds = [line for line in self.ledger() if line["action"] == action and line["kind"] == "action"]
        over = {line["id"] for line in kinds if line["outcome"] != "started"}
        return [line["outcome"] for line in kinds if line["outcome"] != "started" or line["id"] not in over]

    def inputs(self, action: str) -> Any:
        """What the last call was called with: it stands in the line of its start."""
        return self.lines(action, "started")[-1]["payload"]["inputs"]

    def outputs(self, action: str, outcome: str = "success") -> Any:
        return self.lines(action, outcome)[-1]["payload"]["outputs"]

    def wait_until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not holds():
            self.assertLess(time.monotonic(), deadline, "it did not come about in time")
            time.sleep(0.01)

    def start(self, function: Callable[..., object], *args: Any) -> threading.Thread:
        thread = threading.Thread(target=function, args=args, daemon=True)
        thread.start()
        self.addCleanup(thread.join, PATIENCE)
        return thread

    def python(self, source: str, *arguments: str) -> subprocess.Popen[str]:
        """A program in a process of its own, with this test's ledger."""
        process = subprocess.Popen(
            [sys.executable, "-c", source, *arguments],
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "AGENT_SENTINEL_HOME": str(self.home)},
            preexec_fn=_hear_interrupts,
        )
        self.addCleanup(_end, process)
        return process

    def said(self, process: subprocess.Popen[str], status: int = 0) -> str:
        """What it printed, once it has ended with this status."""
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual(process.returncode, status, f"{out}{err}")
        return out


def _hear_interrupts() -> None:
    # A shell has what it runs in the background ignore SIGINT, and whoever that starts as well.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(PATIENCE)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def answering(status: ApprovalStatus, notes: Optional[str] = None, asked: Optional[list[Any]] = None) -> None:
    """From now on, a human says this."""

    def answer(request: Any) -> ApprovalResponse:
        if asked is not None:
            asked.append(request)
        return ApprovalResponse(request.request_id, status, "u1", "a@b.c", notes)

    HumanApprovalHandler.set_approval_handler(answer)
