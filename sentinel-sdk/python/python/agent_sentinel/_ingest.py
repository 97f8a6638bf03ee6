"""Brings ledger entries to the platform, batch by batch, and tells which answers mean what.

Invariant: entries go in order. An entry is passed only when the platform said 202, or when it refused that very entry and it was set
aside with the answer; anything else ends the flush and leaves the rest for the next one.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Callable, Optional

from ._home import append_durably
from ._http import Answer, Platform
from ._ledger import Line
from ._offset import Offset
from .errors import NetworkError

logger = logging.getLogger("agent_sentinel.sync")

INGEST_PATH = "/api/v1/ingest"
REQUEST_SECONDS = 10.0
BACKOFF_SECONDS = 1.0
MOST_BACKOFF_SECONDS = 10.0

# A batch has at most so many bytes, unless one entry alone has more; and so many lines, uploaded or not.
MOST_BATCH_BYTES = 4 * 1024 * 1024
MOST_BATCH_LINES = 5000

# What an entry has on the platform, where the line has it.
ENTRY_KEYS = (
    "id", "timestamp", "action", "cost_usd", "duration_ms", "outcome", "tags", "payload",
    "run", "session", "seq", "hash", "compliance_metadata",
)  # fmt: skip

# Outcomes that end no action: an ending with the same id follows, and the platform keeps one entry for an id.
_NO_ENDINGS = ("started", "warned", "pending", "approved", "recorded")

ACCEPTED = 202
# Worth another try, as every 5xx is.
_RETRIED = (408, 429)
# Wrong with the request whatever is in it: the token, the address, the account. To set entries aside for it would lose them all.
_NOT_ABOUT_ENTRIES = (401, 402, 403, 404, 405, 407, 410, 421, 426)

# Waits; false: it is time to stop.
Pause = Callable[[float], bool]


def entry_of(line: Line) -> Optional[dict[str, Any]]:
    """What of a line is uploaded; none where it doesn't end an action."""
    keys = line.keys
    if keys.get("kind") != "action" or keys.get("outcome") in _NO_ENDINGS:
        return None
    return {key: keys[key] for key in ENTRY_KEYS if key in keys}


class Ingest:
    """Where entries go. One flush at a time uses it."""

    def __init__(
        self, platform: Platform, offset: Offset, home: Path, run_id: str, agent_id: Optional[str], batch_size: int, max_retries: int
    ) -> None:
        self._platform = platform
        self._offset = offset
        self._rejected_path = home / "sync-rejected.jsonl"
        self._head: dict[str, Any] = {"run_id": run_id}
        if agent_id is not None:
            self._head["agent_id"] = agent_id
        self._batch_size = batch_size
        self._max_retries = max_retries
        # What was complained of last: the same is told once, not at every interval.
        self._complaint: Optional[str] = None
        self.accepted = 0
        self.rejected = 0

    def send_all(self, lines: Iterable[Line], pause: Pause, deadline: Optional[float]) -> bool:
        """Sends what has to be sent of these lines. False: the rest is left for later. Raises `OSError` where the folder fails."""
        batch: list[Line] = []
        entries = size = 0
        for line in lines:
            is_entry = entry_of(line) is not None
            if not batch and not is_entry:
                self._offset.passed(line)
                continue
            if is_entry and batch and size + line.size > MOST_BATCH_BYTES:
                if not self._send(batch, pause, deadline):
                    return False
                batch, entries, size = [], 0, 0
            batch.append(line)
            if is_entry:
                entries, size = entries + 1, size + line.size
            if entries >= self._batch_size or len(batch) >= MOST_BATCH_LINES:
                if not self._send(batch, pause, deadline):
                    return False
                batch, entries, size = [], 0, 0
        return not batch or self._send(batch, pause, deadline)

    def _send(self, batch: list[Line], pause: Pause, deadline: Optional[float]) -> bool:
        """Sends a batch; a refused one in halves, until the refused entry stands alone."""
        entries = [entry for line in batch if (entry := entry_of(line)) is not None]
        if not entries:
            self._pass(batch)
            return True
        answer = self._post(entries, pause, deadline)
        if answer is None:
            return False
        if answer.status == ACCEPTED:
            self.accepted += len(entries)
            self._pass(batch)
            if self._complaint is not None:
                logger.info("the platform accepts entries again")
                self._complaint = None
            return True
        if not _is_about_entries(answer):
            self._complain(answer)
            return False
        if len(entries) == 1:
            self._set_aside(entries[0], answer)
            self._pass(batch)
            return True
        half = len(batch) // 2
        return self._send(batch[:half], pause, deadline) and self._send(batch[half:], pause, deadline)

    def _pass(self, batch: list[Line]) -> None:
        for line in batch:
            self._offset.passed(line)
        self._offset.save()

    def _post(self, entries: list[dict[str, Any]], pause: Pause, deadline: Optional[float]) -> Optional[Answer]:
        """The platform's last word; none where it had none, after as many attempts as are allowed."""
        attempt = 0
        while True:
            timeout = REQUEST_SECONDS if deadline is None else min(REQUEST_SECONDS, deadline - time.monotonic())
            if timeout <= 0:
                return None
            answer, cause = None, ""
            try:
                answer = self._platform.post(INGEST_PATH, {**self._head, "entries": entries}, timeout)
            except NetworkError as error:
                cause = error.message
            if answer is not None:
                if answer.status < 500 and answer.status not in _RETRIED:
                    return answer
                cause = f"the platform answered {answer.status}"
            attempt += 1
            if attempt >= self._max_retries:
                self._complain_of(f"{cause}; the entries stay in the ledger, and are sent when it is there again", logging.WARNING)
                return None
            seconds = min(BACKOFF_SECONDS * 2 ** (attempt - 1), MOST_BACKOFF_SECONDS)
            if not pause(seconds * (1 + random.uniform(0, 0.1))):
                return None

    def _set_aside(self, entry: dict[str, Any], answer: Answer) -> None:
        rejected = {
            "rejected_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "status": answer.status,
            "answer": answer.text(),
            "entry": entry,
        }
        append_durably(self._rejected_path, json.dumps(rejected).encode("ascii") + b"\n")
        self.rejected += 1
        logger.error(
            "the platform refused the entry of line %s with %d: it is set aside in `%s` with the answer, and stays in the ledger",
            entry.get("seq"), answer.status, self._rejected_path,
        )

    def _complain(self, answer: Answer) -> None:
        if answer.status in (401, 403):
            way_out = "make a new token and give it as `api_token`; nothing is uploaded until then"
        elif answer.location is not None:
            way_out = f"it redirects to `{answer.location}`: give that host as `platform_url` if you trust it"
        elif answer.status < 300:
            way_out = f"only {ACCEPTED} means that it has the entries; is `platform_url` right?"
        else:
            way_out = f"is `platform_url` right? it has to serve `{INGEST_PATH}`"
        self._complain_of(f"the platform answered {answer.status}: {way_out}", logging.ERROR)

    def _complain_of(self, complaint: str, level: int) -> None:
        if complaint != self._complaint:
            logger.log(level, "%s", complaint)
            self._complaint = complaint


def _is_about_entries(answer: Answer) -> bool:
    return 400 <= answer.status < 500 and answer.status not in _NOT_ABOUT_ENTRIES
