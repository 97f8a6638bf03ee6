"""How far a ledger has been uploaded, kept over restarts, and the lock that lets one process upload at a time.

Invariant: a line is passed only after the platform has accepted it or it was set aside, and what was passed is on the disk before the
next batch is sent. So a process that dies in between sends at most one batch again.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

from ._home import write_durably
from ._ledger import Line, Place

logger = logging.getLogger("agent_sentinel.sync")

# More holes than this are not kept: the oldest are forgotten, and told.
MOST_MISSING = 1000

_LOCK_PAUSE = 0.02

Range = tuple[int, int]


class Offset:
    """The state file of one platform.

    It is named for the platform alone and not for the run: a run's id is a new one at each start unless the user chose it, and an
    offset for each run would upload the whole ledger again each time.
    """

    def __init__(self, home: Path, platform_url: str) -> None:
        name = "sync-" + hashlib.sha256(platform_url.encode("utf-8")).hexdigest()[:16]
        self.path = home / f"{name}.json"
        self._lock_path = home / f"{name}.lock"
        self._platform_url = platform_url
        self._lock: Optional[int] = None
        # What could not be written last time. It is newer than the file, and is written before anything else is sent.
        self._is_unsaved = False
        self.place = Place()
        # Lines that were not there when their turn came. They are uploaded if they turn up.
        self.missing: list[Range] = []
        # Parts of a ledger that this one followed, and whose numbers begin again.
        self.ignored: frozenset[str] = frozenset()

    @contextmanager
    def locked(self, wait_seconds: float) -> Iterator[bool]:
        """Keeps other processes out. False: one has it, and no longer was waited. Raises `OSError` where the folder can't be written."""
        deadline = time.monotonic() + wait_seconds
        self._lock_path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not (is_mine := _try_lock(self._lock)) and time.monotonic() < deadline:
                time.sleep(_LOCK_PAUSE)
            try:
                yield is_mine
            finally:
                if is_mine and self._lock is not None:
                    # Explicitly: a child that was forked meanwhile may have the file open still.
                    fcntl.flock(self._lock, fcntl.LOCK_UN)
        finally:
            self.forget_lock()

    def forget_lock(self) -> None:
        """Closes the lock's file; in a forked child too, which must not hold it for its parent."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def load(self) -> None:
        """Reads what this or another process has written last. Raises `OSError`."""
        if self._is_unsaved:
            self.save()
            return
        try:
            state = json.loads(self.path.read_bytes())
            self._take(state)
        except FileNotFoundError:
            self.place, self.missing, self.ignored = Place(), [], frozenset()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            aside = self.path.with_suffix(".corrupt")
            logger.error(
                "`%s` can't be read (%s); it is kept as `%s`, and the ledger is uploaded from its beginning: "
                "the platform knows an entry by its id",
                self.path, error, aside,
            )
            os.replace(self.path, aside)
            self.place, self.missing, self.ignored = Place(), [], frozenset()

    def _take(self, state: dict[str, Any]) -> None:
        place = state["place"]
        self.place = Place(int(place["seq"]), str(place["hash"]), str(place["part"]), int(place["offset"]))
        self.missing = [(int(first), int(last)) for first, last in state["missing"]]
        self.ignored = frozenset(str(part) for part in state["ignored"])

    def save(self) -> None:
        """Makes it durable. Raises `OSError`."""
        self._is_unsaved = True
        state = {
            "platform_url": self._platform_url,
            "place": self.place.__dict__,
            "missing": self.missing,
            "ignored": sorted(self.ignored),
        }
        write_durably(self.path, json.dumps(state).encode("ascii") + b"\n")
        self._is_unsaved = False

    def passed(self, line: Line) -> None:
        """A line is dealt with. Those between it and the one before are missing."""
        if line.seq <= self.place.seq:
            self.missing = _without(self.missing, line.seq)
            return
        if line.seq > self.place.seq + 1:
            first, last = self.place.seq + 1, line.seq - 1
            logger.warning(
                "the lines %d to %d are not in `%s`; they are uploaded when their file is moved back there",
                first, last, self.path.parent,
            )
            self.missing = [*self.missing, (first, last)]
            if len(self.missing) > MOST_MISSING:
                logger.error("the missing lines %d to %d are no longer waited for", *self.missing[0])
                self.missing = self.missing[1:]
        self.place = line.place

    def restart(self, ignored: frozenset[str]) -> None:
        """The ledger was begun anew: its numbers begin again. What came before is done with."""
        self.place, self.missing, self.ignored = Place(), [], ignored

    def go_back(self, first_seq: int) -> None:
        """The part that begins with this line was written anew."""
        self.place = Place(first_seq - 1)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _without(ranges: list[Range], seq: int) -> list[Range]:
    left: list[Range] = []
    for first, last in ranges:
        if first <= seq <= last:
            left += [part for part in ((first, seq - 1), (seq + 1, last)) if part[0] <= part[1]]
        else:
            left.append((first, last))
    return left
