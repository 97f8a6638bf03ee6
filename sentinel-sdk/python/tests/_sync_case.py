"""What the tests of the upload share: a folder with a ledger, a platform, and short waits."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional
from unittest import mock

import _load  # noqa: F401
from _ledger_writer import LedgerWriter
from _platform import TOKEN, Platform

from agent_sentinel import _ingest
from agent_sentinel.sync import BackgroundSync, SyncConfig


class SyncCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sentinel-sync-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.home = self.folder / "home"
        self.ledger = LedgerWriter(self.home)
        self.platform = Platform()
        self.platform.up()
        self.addCleanup(self.platform.down)
        for patch in (
            mock.patch.object(_ingest, "BACKOFF_SECONDS", 0.02),
            mock.patch.dict(os.environ, {"AGENT_SENTINEL_HOME": str(self.home)}),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def sync(self, token: str = TOKEN, run_id: Optional[str] = "run-1", **more: Any) -> BackgroundSync:
        made = BackgroundSync(SyncConfig(self.platform.url, token, run_id, **more), self.home)
        self.addCleanup(made._ledger.close)
        return made

    def wait_until(self, holds: Callable[[], bool], seconds: float = 10.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            self.assertLess(time.monotonic(), deadline, "it did not come about in time")
            time.sleep(0.01)

    def rejected(self) -> list[dict[str, Any]]:
        path = self.home / "sync-rejected.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
