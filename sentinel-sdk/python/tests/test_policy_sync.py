"""Remote policies: they only ever tighten, and only what this agent's key vouches for is believed."""

from __future__ import annotations

import copy
import json
import shutil
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import _load  # noqa: F401
from _platform import TOKEN, Platform

from agent_sentinel.errors import ConfigurationError, NetworkError, SyncError
from agent_sentinel.policy_sync import PolicySync

LOCAL = {"run_budget": 3.0, "denied_actions": ["drop_table"]}


class PolicyCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="sentinel-policy-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.cache = self.folder / "policy_cache.json"
        self.platform = Platform()
        self.platform.up()
        self.addCleanup(self.platform.down)

    def policies(self, token: str = TOKEN, agent_id: str = "agent-1", **more: Any) -> PolicySync:
        made = PolicySync(self.platform.url, token, agent_id, more.pop("run_id", "run-1"), home=self.folder, **more)
        self.addCleanup(made.stop)
        return made


class Fetch(PolicyCase):
    def test_statement_67_the_platform_is_asked_for_the_agents_policies(self) -> None:
        for said in ([{"run_budget": 1.0}], {"policies": [{"run_budget": 1.0}], "conflicts": []}):
            self.platform.policies = said
            self.assertEqual(self.policies().fetch(), [{"run_budget": 1.0}])
        method, path, _ = self.platform.requests[-1]
        self.assertEqual((method, path), ("GET", "/api/v1/policies/sync?agent_id=agent-1&run_id=run-1"))

    def test_what_is_no_list_of_policies_is_an_error(self) -> None:
        said: Any
        for said in ({}, {"policies": {}}, 3, None, "x", ["x"], b"[", b'[{"run_budget": NaN}]', b"[" * 100_000):
            self.platform.policies = said
            with self.assertRaises(NetworkError, msg=str(said)[:20]):
                self.policies().fetch()
        self.platform.policies = []
        for status in (201, 401, 404, 500):
            self.platform.policy_status = status
            with self.assertRaisesRegex(NetworkError, str(status)):
                self.policies().fetch()

    def test_a_redirect_is_not_followed_with_the_token(self) -> None:
        with Platform() as other:
            self.platform.policy_status = 302
            self.platform.headers = {"Location": other.url + "/api/v1/policies/sync"}
            with self.assertRaises(NetworkError):
                self.policies().fetch()
            self.assertEqual(other.requests, [])


class Merge(PolicyCase):
    def merged(self, local: dict[str, Any], *remote: dict[str, Any]) -> dict[str, Any]:
        before = copy.deepcopy((local, remote))
        merged = self.policies().merge(local, list(remote))
        self.assertEqual((local, remote), before, "the arguments stay as they are")
        return merged

    def test_statement_67_each_key_only_ever_tightens(self) -> None:
        for key, one, other, expected in (
            ("run_budget", 3.0, 9.0, 3.0),
            ("run_budget", 3, 0, 0),
            ("session_budget", 3.0, 1.0, 1.0),
            ("action_budgets", {"a": 1.0, "b": 2.0}, {"b": 1.5, "c": 0}, {"a": 1.0, "b": 1.5, "c": 0}),
            ("denied_actions", ["a", "b"], ["b", "c"], ["a", "b", "c"]),
            ("allowed_actions", ["a", "b"], ["b", "c"], ["b"]),
            ("allowed_actions", ["a"], ["b"], []),
            ("allowed_actions", ["a"], [], []),
            ("strict_mode", False, True, True),
            ("approval_threshold_usd", 5.0, 2.0, 2.0),
            ("approval_timeout_seconds", 60, 3600, 60),
            ("approval_tags", ["x"], ["y"], ["x", "y"]),
        ):
            for first, second in ((one, other), (other, one)):
                merged = self.merged({key: first}, {key: second})[key]
                self.assertEqual(sorted(merged) if isinstance(merged, list) else merged, expected, key)
            self.assertEqual(self.merged({key: one}, {}), {key: one})
            self.assertEqual(self.merged({}, {key: one}), {key: one})
            self.assertEqual(self.merged({key: one}, {key: None}), {key: one})

    def test_statement_67_a_rate_limit_is_the_stricter_by_count_and_by_window(self) -> None:
        one, other = {"max_count": 10, "window_seconds": 60}, {"max_count": 100, "window_seconds": 3600}
        merged = self.merged({"rate_limits": {"a": one, "b": one}}, {"rate_limits": {"a": other, "c": {"max_count": 0}}})
        self.assertEqual(
            merged["rate_limits"],
            {"a": {"max_count": 10, "window_seconds": 3600}, "b": one, "c": {"max_count": 0, "window_seconds": 60.0}},
        )

    def test_statement_67_a_criterion_never_turns_every_action_into_some(self) -> None:
        everything, some = {"require_approval": True}, {"require_approval": True, "approval_actions": ["a"], "approval_threshold_usd": 5.0}
        for first, second in ((everything, some), (some, everything)):
            self.assertEqual(self.merged(first, second), {"require_approval": True})
            self.assertEqual(self.merged(first, second, some), {"require_approval": True})
        self.assertEqual(self.merged({"require_approval": False, "approval_actions": ["b"]}, some)["approval_actions"], ["b", "a"])

    def test_statement_67_a_disabled_policy_counts_for_nothing(self) -> None:
        self.assertEqual(self.merged(LOCAL, {"enabled": False, "run_budget": 1.0}), LOCAL)
        self.assertEqual(self.merged(LOCAL, {"enabled": True, "run_budget": 1.0})["run_budget"], 1.0)
        with self.assertRaises(ConfigurationError):
            self.merged(LOCAL, {"enabled": "no"})

    def test_what_cannot_be_understood_is_an_error_that_names_it(self) -> None:
        for policy, name in (
            ({"run_budgets": 1.0, "deny": []}, "`run_budgets`, `deny`"),
            ({"run_budget": float("nan")}, "`run_budget`"),
            ({"run_budget": float("inf")}, "`run_budget`"),
            ({"run_budget": -1}, "`run_budget`"),
            ({"run_budget": "1.0"}, "`run_budget`"),
            ({"run_budget": True}, "`run_budget`"),
            ({"run_budget": 10**400}, "`run_budget`"),
            ({"action_budgets": {"a": -1}}, "of `a`"),
            ({"denied_actions": "delete_database"}, "`denied_actions`"),
            ({"allowed_actions": [1]}, "`allowed_actions`"),
            ({"rate_limits": {"a": {"max": 3}}}, "`max`"),
            ({"rate_limits": {"a": {"max_count": 1.5}}}, "of `a`"),
            ({"rate_limits": {"a": {"window_seconds": 0}}}, "of `a`"),
            ({"approval_threshold_usd": float("nan")}, "`approval_threshold_usd`"),
            ({"require_approval": 1}, "`require_approval`"),
            ({"grounding_rules": {"a": 1}}, "`grounding_rules`"),
        ):
            for local, remote in ((policy, []), ({}, [policy])):
                with self.assertRaises(ConfigurationError, msg=str(policy)[:60]) as raised:
                    self.policies().merge(local, remote)
                self.assertIn(name, str(raised.exception))
        self.assertEqual(self.merged({}, {"evidence_requirements": {}, "commit_actions": [], "grounding_rules": None}), {})


class Held(PolicyCase):
    def test_statement_67_the_first_sync_blocks_and_says_so_where_nothing_can_be_had(self) -> None:
        self.platform.down()
        with self.assertRaises(SyncError):
            self.policies().start(LOCAL, lambda merged: self.fail("nothing may be applied"))

    def test_statement_67_a_refresh_tightens_the_local_policy_and_never_drops_it(self) -> None:
        got: list[dict[str, Any]] = []
        changed = threading.Event()

        def on_policy(merged: dict[str, Any]) -> None:
            got.append(merged)
            changed.set()

        said: Any
        self.platform.policies = [{"run_budget": 1.0, "denied_actions": ["a"]}]
        policies = self.policies(refresh_interval=0.02)
        self.assertEqual(policies.start(LOCAL, on_policy), {"run_budget": 1.0, "denied_actions": ["drop_table", "a"]})
        for said, expected in (([{"run_budget": 9.0}], LOCAL), ([], LOCAL), ([{"session_budget": 0}], {**LOCAL, "session_budget": 0})):
            self.platform.policies = said
            self.wait_for(got, expected)
        # What fails changes nothing: the last word holds.
        count = len(got)
        for said in ([{"typo": 1}], {"error": 1}, b"<html>"):
            self.platform.policies = said
            asked = len(self.platform.requests)
            deadline = time.monotonic() + 10
            while len(self.platform.requests) < asked + 3 and time.monotonic() < deadline:
                time.sleep(0.005)
        self.platform.down()
        self.assertFalse(policies.refresh())
        self.assertTrue(all(merged == {**LOCAL, "session_budget": 0} for merged in got[count:]))
        self.assertEqual(policies.set_local({"run_budget": 2.0}), {"run_budget": 2.0, "session_budget": 0})
        with self.assertRaises(ConfigurationError):
            policies.set_local({"run_budgets": 2.0})

    def wait_for(self, got: list[dict[str, Any]], expected: dict[str, Any]) -> None:
        deadline = time.monotonic() + 10
        while got[-1] != expected:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)

    def test_statement_67_a_callback_that_fails_does_not_end_the_refresh(self) -> None:
        calls: list[int] = []

        def on_policy(merged: dict[str, Any]) -> None:
            calls.append(1)
            if len(calls) == 2:
                raise ValueError("oops")

        self.policies(refresh_interval=0.01).start(LOCAL, on_policy)
        deadline = time.monotonic() + 10
        while len(calls) < 4:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)

    def test_statement_67_the_platform_beats_the_cache_and_the_cache_holds_where_it_is_away(self) -> None:
        self.platform.policies = [{"run_budget": 1.0}]
        self.assertEqual(self.policies().sync(LOCAL)["run_budget"], 1.0)
        self.assertEqual(self.cache.stat().st_mode & 0o777, 0o600)
        self.platform.policies = [{"run_budget": 0.5}]
        self.assertEqual(self.policies().sync(LOCAL)["run_budget"], 0.5)
        for policies in ({"error": 1}, [{"typo": 1}]):
            self.platform.policies = policies
            with self.assertLogs("agent_sentinel.policy_sync", "ERROR"):
                self.assertEqual(self.policies(run_id="run-2").sync(LOCAL)["run_budget"], 0.5)
        self.platform.down()
        with self.assertLogs("agent_sentinel.policy_sync", "ERROR"):
            self.assertEqual(self.policies().sync(LOCAL), {**LOCAL, "run_budget": 0.5})


class Cache(PolicyCase):
    def setUp(self) -> None:
        super().setUp()
        self.platform.policies = [{"run_budget": 1.0}]
        self.policies().sync(LOCAL)
        self.platform.down()

    def refused(self, reason: str, token: str = TOKEN, agent_id: str = "agent-1", **more: Any) -> None:
        with self.assertLogs("agent_sentinel.policy_sync", "ERROR") as logs, self.assertRaises(SyncError):
            self.policies(token, agent_id, **more).sync(LOCAL)
        self.assertIn(reason, logs.output[0])

    def at(self, seconds: float) -> Any:
        return mock.patch("agent_sentinel.policy_sync.time.time", return_value=time.time() + seconds)

    def test_statement_67_a_forged_cache_is_refused_out_loud(self) -> None:
        cache = json.loads(self.cache.read_text())
        forged: Any
        for forged in (
            {**cache, "content": cache["content"].replace("1.0", "1e9")},
            {**cache, "hmac_sha256": "0" * 64},
            {"content": cache["content"]},
            {**cache, "hmac_sha256": 3},
            {"policies": [{"run_budget": 1e9}], "cached_at": 0, "expires_at": 1e12},
            [],
        ):
            self.cache.write_text(json.dumps(forged))
            self.refused("is not used")
        self.cache.write_bytes(b"\xff")
        self.refused("is not used")

    def test_a_cache_of_another_key_platform_or_agent_is_refused(self) -> None:
        self.refused("forged", token="token-2")
        self.refused("forged", signing_key="key")
        self.refused("another agent's", agent_id="agent-2")
        self.platform.port += 1
        self.refused("another platform's")

    def test_an_expired_cache_and_one_of_the_future_are_refused(self) -> None:
        for seconds, good in ((590.0, True), (610.0, False), (-50.0, True), (-70.0, False)):
            with self.at(seconds):
                if good:
                    self.assertEqual(self.policies().sync(LOCAL)["run_budget"], 1.0)
                else:
                    self.refused("expired")

    def test_a_signing_key_vouches_for_the_cache_over_a_new_token(self) -> None:
        self.platform.up()
        self.policies(signing_key="key").sync(LOCAL)
        self.platform.down()
        self.assertEqual(self.policies(token="token-2", signing_key="key").sync(LOCAL)["run_budget"], 1.0)


if __name__ == "__main__":
    unittest.main()
