"""Uploads what was done to a platform, in the background, from the ledger.

The ledger is read and never written: what was uploaded is kept as a durable offset beside it. An agent never notices: nothing here
raises into it once it is configured, and while the platform is away the entries simply stay where they are.

After a `kill -9` between the platform's answer and the offset's write, one batch is sent again, with the same ids. Nothing else is ever
sent twice, and nothing is left out that can still be found.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
import uuid
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ._home import PathLike, home_folder
from ._http import Platform, checked_url
from ._ingest import Ingest, Pause
from ._ledger import Ledger
from ._offset import Offset
from ._runtime import runtime
from .errors import ConfigurationError

__all__ = ["BackgroundSync", "SyncConfig", "enable_remote_sync", "flush", "flush_and_stop", "get_sync", "manual_flush"]

logger = logging.getLogger("agent_sentinel.sync")

STOP_SECONDS = 5.0

# How long a flush that was asked for waits for another process that is uploading.
_TURN_SECONDS = 10.0


@dataclass
class SyncConfig:
    """Where to upload to, and how. Raises `ConfigurationError` where a value is none."""

    platform_url: str
    api_token: str = field(repr=False)
    # The run that entries are filed under on the platform. None: a new one.
    run_id: Optional[str] = None
    agent_id: Optional[str] = None
    flush_interval: float = 10.0
    batch_size: int = 100
    # Attempts in all, not additional ones.
    max_retries: int = 3
    enabled: bool = True
    # For tests in closed networks: lets the token go over plain http to another host.
    allow_http: bool = False

    def __post_init__(self) -> None:
        self.platform_url = checked_url(self.platform_url, self.allow_http)
        if self.run_id is None:
            self.run_id = str(uuid.uuid4())
        if not _is_number(self.flush_interval) or not 0 < self.flush_interval <= threading.TIMEOUT_MAX:
            raise ConfigurationError(f"`flush_interval` is `{self.flush_interval}`; give seconds above 0")
        for name in ("batch_size", "max_retries"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"`{name}` is `{value}`; give a whole number from 1")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


class BackgroundSync:
    """Uploads one ledger. Its thread is a daemon: it never keeps a program from ending; a last flush is done at the exit."""

    def __init__(self, config: SyncConfig, home: Optional[PathLike] = None) -> None:
        self.config = config
        # Under `sentinel run` this program's own ledger may be elsewhere than where the program is.
        self.home: Path = runtime.home() if home is None else home_folder(home)
        self._platform = Platform(config.platform_url, config.api_token, config.allow_http)
        self._ledger = Ledger(self.home)
        self._offset = Offset(self.home, config.platform_url)
        self._ingest = Ingest(
            self._platform, self._offset, self.home, str(config.run_id), config.agent_id, config.batch_size, config.max_retries
        )
        self._thread: Optional[threading.Thread] = None
        self._stopping = threading.Event()
        # One flush at a time: the thread's, or one that was asked for.
        self._turn = threading.Lock()
        # A forked child is another agent: its parent uploads.
        self._pid = os.getpid()
        self._complaint: Optional[str] = None
        _all.add(self)

    @property
    def accepted(self) -> int:
        """How many entries the platform has accepted from this object."""
        return self._ingest.accepted

    @property
    def rejected(self) -> int:
        """How many entries were set aside by this object."""
        return self._ingest.rejected

    def is_running(self) -> bool:
        """Whether the thread uploads."""
        return self._is_ours() and self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Uploads at once and then at every interval, until it is stopped."""
        if not self.config.enabled or not self._is_ours() or self.is_running():
            return
        self._stopping.clear()
        self._thread = threading.Thread(target=self._run, name="agent-sentinel-sync", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            self._complain(f"entries are uploaded at the exit alone, as there can be no thread: {error}")
            self._thread = None
        atexit.register(self._at_exit)

    def stop(self, timeout: float = STOP_SECONDS) -> bool:
        """Ends the thread and does a last flush, also where there never was a thread. Takes little longer than `timeout`.

        False: something is left, and goes with the next start.
        """
        if not self._is_ours():
            return False
        deadline = time.monotonic() + timeout
        self._stopping.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        atexit.unregister(self._at_exit)
        done = self._flush(_sleep, timeout, deadline)
        if done:
            self._ledger.close()
        return done

    def flush_now(self) -> bool:
        """Uploads now, in this thread. False: something is left, and is tried again at the next interval."""
        return self._flush(_sleep, _TURN_SECONDS, None)

    def _is_ours(self) -> bool:
        return os.getpid() == self._pid

    def _at_exit(self) -> None:
        self.stop()

    def _run(self) -> None:
        while True:
            self._flush(lambda seconds: not self._stopping.wait(seconds), 0.0, None)
            if self._stopping.wait(self.config.flush_interval):
                return

    def _flush(self, pause: Pause, wait_seconds: float, deadline: Optional[float]) -> bool:
        # Asked before any lock: in a forked child, one may be held by a thread that isn't there.
        if not self.config.enabled or not self._is_ours():
            return False
        if deadline is None:
            took_turn = self._turn.acquire()
        else:
            took_turn = self._turn.acquire(timeout=max(0.0, deadline - time.monotonic()))
        if not took_turn:
            return False
        try:
            if not self.home.is_dir():
                return True  # nothing was ever recorded
            with self._offset.locked(wait_seconds) as is_mine:
                return is_mine and self._upload(pause, deadline)
        except OSError as error:
            self._complain(f"nothing is uploaded while `{self.home}` can't be read and written: {error}")
        except Exception:  # the agent must never see it
            logger.exception("the upload failed; the entries stay in the ledger, and it is tried again")
        finally:
            self._turn.release()
        return False

    def _upload(self, pause: Pause, deadline: Optional[float]) -> bool:
        ledger, offset, send_all = self._ledger, self._offset, self._ingest.send_all
        offset.load()
        before = (offset.place, offset.missing)
        if ledger.is_another(offset.place):
            # First what is left of the one that it followed.
            if not send_all(ledger.after(offset.place, offset.ignored, with_current=False), pause, deadline):
                return False
            logger.warning("the ledger in `%s` was begun anew; it is uploaded from its first line", self.home)
            offset.restart(offset.ignored | ledger.other_parts())
        first_seq = ledger.rewritten_from(offset.place)
        if first_seq is not None:
            logger.warning("lines that were uploaded are no longer in the ledger; it is uploaded again from line %d", first_seq)
            offset.go_back(first_seq)
        done = send_all(ledger.found(tuple(offset.missing), offset.ignored), pause, deadline)
        done = done and send_all(ledger.after(offset.place, offset.ignored), pause, deadline)
        if (offset.place, offset.missing) != before:
            # Lines that aren't uploaded were passed behind the last batch, or before the first.
            offset.save()
        self._complaint = None
        return done

    def _complain(self, complaint: str) -> None:
        """Once, not at every interval."""
        if complaint != self._complaint:
            logger.error("%s", complaint)
            self._complaint = complaint

    def _forget_in_child(self) -> None:
        self._thread = None
        self._offset.forget_lock()


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return True


_all: weakref.WeakSet[BackgroundSync] = weakref.WeakSet()
_active: Optional[BackgroundSync] = None
_active_lock = threading.Lock()


def enable_remote_sync(
    platform_url: str,
    api_token: str,
    run_id: Optional[str] = None,
    agent_id: Optional[str] = None,
    flush_interval: float = 10.0,
    sync_mode: str = "background",
    auto_start: bool = True,
    batch_size: int = 100,
    max_retries: int = 3,
    allow_http: bool = False,
) -> BackgroundSync:
    """Uploads this program's ledger from now on. `sync_mode="manual"` uploads when `manual_flush` is called, and at the exit.

    Raises `ConfigurationError` where an argument is wrong; nothing is raised later.
    """
    if sync_mode not in ("background", "manual"):
        raise ConfigurationError(f"`sync_mode` is `{sync_mode}`; it is `background` or `manual`")
    config = SyncConfig(
        platform_url, api_token, run_id, agent_id, flush_interval, batch_size, max_retries, allow_http=allow_http
    )
    sync = BackgroundSync(config)
    global _active
    with _active_lock:
        before, _active = _active, sync
    if before is not None:
        before.stop()
    if sync_mode == "manual":
        atexit.register(sync._at_exit)
    elif auto_start:
        sync.start()
    return sync


def get_sync() -> Optional[BackgroundSync]:
    """The one that was enabled in this process."""
    return _active


def flush() -> bool:
    """Uploads now what `enable_remote_sync` set up. False: something is left, or nothing is set up."""
    sync = _active
    return sync is not None and sync.flush_now()


def manual_flush() -> bool:
    """The seed's name for `flush` where `sync_mode` is `manual`."""
    return flush()


def flush_and_stop(timeout: float = STOP_SECONDS) -> bool:
    """A last flush, and no more uploads. False: something is left, and goes with the next start."""
    global _active
    with _active_lock:
        sync, _active = _active, None
    return sync is not None and sync.stop(timeout)


def _forget_in_child() -> None:
    """A forked child uploads nothing of its own accord: its parent does, and two would send twice."""
    global _active, _active_lock
    _active, _active_lock = None, threading.Lock()
    for sync in list(_all):
        sync._forget_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
