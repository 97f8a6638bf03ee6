"""The platform's policies on top of the local one.

Invariant: what holds is always the local policy, tightened. A platform that can't be reached, or says what can't be understood, changes
nothing; and nothing from the disk is believed that this agent's own key doesn't vouch for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import math
import os
import threading
import time
from collections.abc import Sequence
from typing import Any, Callable, Optional

from ._home import PathLike, home_folder, write_durably
from ._http import Platform
from ._policy_merge import Policy, checked, merge
from .errors import AgentSentinelError, ConfigurationError, NetworkError, SyncError

__all__ = ["PolicySync"]

logger = logging.getLogger("agent_sentinel.policy_sync")

SYNC_PATH = "/api/v1/policies/sync"
REQUEST_SECONDS = 10.0
CACHE_NAME = "policy_cache.json"

# A cache that is a little ahead was written before the clock was set back; one that is further ahead would never expire.
_CLOCK_SLACK_SECONDS = 60.0

OnPolicy = Callable[[Policy], None]


class PolicySync:
    """Keeps a policy up to date with the platform.

    `signing_key` vouches for the cache in place of the token: for operators who change tokens more often than caches expire.
    """

    def __init__(
        self,
        platform_url: str,
        api_token: str,
        agent_id: Optional[str] = None,
        run_id: Optional[str] = None,
        refresh_interval: float = 300.0,
        cache_ttl: float = 600.0,
        signing_key: Optional[str] = None,
        home: Optional[PathLike] = None,
        allow_http: bool = False,
    ) -> None:
        for name, seconds in (("refresh_interval", refresh_interval), ("cache_ttl", cache_ttl)):
            is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and math.isfinite(seconds)
            if not is_number or not 0 < seconds <= threading.TIMEOUT_MAX:
                raise ConfigurationError(f"`{name}` is `{seconds}`; give seconds above 0")
        self._platform = Platform(platform_url, api_token, allow_http)
        self._agent_id = agent_id
        self._query = {key: value for key, value in (("agent_id", agent_id), ("run_id", run_id)) if value is not None}
        self._refresh_interval = refresh_interval
        self._cache_ttl = cache_ttl
        self._cache_path = home_folder(home) / CACHE_NAME
        secret = api_token if signing_key is None else signing_key
        self._cache_key = hmac.new(secret.encode("utf-8"), b"agent-sentinel policy cache 1", hashlib.sha256).digest()
        self._lock = threading.RLock()
        self._local: Policy = {}
        self._remote: Optional[list[Policy]] = None
        self._on_policy: Optional[OnPolicy] = None
        self._thread: Optional[threading.Thread] = None
        self._stopping = threading.Event()
        self._pid = os.getpid()

    def fetch(self) -> list[Policy]:
        """What the platform says now. Raises `NetworkError` where it says nothing, or nothing that is a list of policies."""
        answer = self._platform.get(SYNC_PATH, self._query, REQUEST_SECONDS)
        if answer.status != 200:
            raise NetworkError(
                f"the platform answered {answer.status} to `{SYNC_PATH}`; are its address and the token right?",
                status_code=answer.status,
            )
        said = answer.json()
        policies = said.get("policies") if isinstance(said, dict) else said
        if not isinstance(policies, list) or not all(isinstance(policy, dict) for policy in policies):
            raise NetworkError(f"the platform's answer to `{SYNC_PATH}` is no list of policies", status_code=200, recoverable=False)
        return policies

    def merge(self, local: Policy, remote: Sequence[Policy]) -> Policy:
        """The local policy, tightened by the remote ones. Raises `ConfigurationError` that names what can't be understood."""
        return merge(local, remote)

    def sync(self, local: Policy) -> Policy:
        """The first, blocking one: the platform's word, else the cache's.

        Raises `SyncError` where there is neither: to go on with the local policy alone would be looser than what the platform may say.
        """
        checked(local, "the local policy")
        try:
            remote = self.fetch()
            merged = merge(local, remote)
        except AgentSentinelError as error:
            cached = self._read_cache()
            if cached is None:
                raise SyncError(
                    f"the platform's policies can't be had: {error.message}; "
                    "nothing may run until they can, or until remote policies are switched off"
                ) from error
            logger.error("the platform's policies can't be had: %s; those of the cache hold meanwhile", error.message)
            remote, merged = cached, merge(local, cached)
        else:
            self._write_cache(remote)
        with self._lock:
            self._local, self._remote = dict(local), remote
        return merged

    def start(self, local: Policy, on_policy: OnPolicy) -> Policy:
        """`sync`, then hands the policy to `on_policy`, now and whenever it was asked for again. Raises as `sync` does."""
        merged = self.sync(local)
        with self._lock:
            self._on_policy = on_policy
        on_policy(merged)
        if self._thread is None or not self._thread.is_alive():
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name="agent-sentinel-policies", daemon=True)
            self._thread.start()
        return merged

    def set_local(self, local: Policy) -> Policy:
        """The local policy is another one: from now on, that is what is tightened. Raises `ConfigurationError`; then nothing changes."""
        with self._lock:
            merged = merge(local, self._remote or [])
            self._local = dict(local)
            if self._on_policy is not None:
                self._on_policy(merged)
        return merged

    def refresh(self) -> bool:
        """Asks again. False: it failed, what holds goes on to hold."""
        try:
            remote = self.fetch()
            with self._lock:
                merged = merge(self._local, remote)
                if self._on_policy is not None:
                    self._on_policy(merged)
                self._remote = remote
        except Exception as error:  # the callback's too: a thread that dies would leave the policy to grow old in silence
            logger.error("the platform's policies can't be refreshed: %s; those that hold go on to hold", error)
            return False
        self._write_cache(remote)
        return True

    def stop(self, timeout: float = 5.0) -> None:
        """Ends the thread. What holds goes on to hold."""
        self._stopping.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread() and os.getpid() == self._pid:
            thread.join(timeout)
        self._thread = None

    def _run(self) -> None:
        while not self._stopping.wait(self._refresh_interval):
            self.refresh()

    def _write_cache(self, remote: list[Policy]) -> None:
        now = time.time()
        content = {
            "policies": remote,
            "cached_at": now,
            "expires_at": now + self._cache_ttl,
            # Another platform's or another agent's policies are none of ours, though the same token vouches for them.
            "platform_url": self._platform.url,
            "agent_id": self._agent_id,
        }
        text = json.dumps(content)
        cache = {"content": text, "hmac_sha256": self._mac(text)}
        try:
            write_durably(self._cache_path, json.dumps(cache).encode("ascii") + b"\n")
        except OSError as error:
            logger.warning("`%s` can't be written: %s; a start without the platform will fail", self._cache_path, error)

    def _read_cache(self) -> Optional[list[Policy]]:
        """The cached policies, if they may be believed. A refused cache is told, as somebody may have made it."""
        try:
            cache = json.loads(self._cache_path.read_bytes())
            text, mac = cache["content"], cache["hmac_sha256"]
            if not hmac.compare_digest(self._mac(text).encode(), mac.encode()):
                raise ValueError("it is forged, or was written with another token")
            content: dict[str, Any] = json.loads(text)
            if (content["platform_url"], content["agent_id"]) != (self._platform.url, self._agent_id):
                raise ValueError("it is another platform's or another agent's")
            now = time.time()
            if not content["cached_at"] - _CLOCK_SLACK_SECONDS <= now < content["expires_at"]:
                raise ValueError("it has expired")
            policies = content["policies"]
            # So that what it says can be merged; the platform may have said it to an older version of this.
            merge({}, policies)
        except FileNotFoundError:
            return None
        except AgentSentinelError as error:
            logger.error("`%s` is not used: %s", self._cache_path, error.message)
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            logger.error("`%s` is not used: %s; remove it, and find out who wrote it", self._cache_path, error)
            return None
        return list(policies)

    def _mac(self, text: str) -> str:
        return hmac.new(self._cache_key, text.encode("utf-8"), hashlib.sha256).hexdigest()
