"""Who was ended stays ended, in every thread; and unknown means no."""

from __future__ import annotations

import os
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import _load  # noqa: F401
from _platform import TOKEN, Platform

from agent_sentinel.errors import AgentKilledError, ConfigurationError, KillSwitchUnavailableError
from agent_sentinel.kill_switch import KillSwitchClient


class KillSwitch(unittest.TestCase):
    def setUp(self) -> None:
        self.platform = Platform()
        self.platform.up()
        self.addCleanup(self.platform.down)
        self.addCleanup(KillSwitchClient.reset)
        KillSwitchClient.reset()

    def configure(self, cache_ttl: float = 0.0, **more: Any) -> None:
        KillSwitchClient.configure(self.platform.url, TOKEN, cache_ttl, **more)

    def test_statement_68_an_ended_agent_run_or_mission_is_refused_before_the_body(self) -> None:
        self.configure()
        KillSwitchClient.check("a", "r", "m")
        self.assertEqual(len(self.platform.requests), 3)
        for kind, id in (("agent", "a"), ("run", "r"), ("mission", "m")):
            self.platform.killed = {(kind, id)}
            with self.assertRaises(AgentKilledError) as raised:
                KillSwitchClient.check("a", "r", "m")
            self.assertNotIsInstance(raised.exception, KillSwitchUnavailableError)
            self.assertEqual(raised.exception.details, {"target_type": kind, "target_id": id})
            self.assertEqual(raised.exception.remediation["reason_code"], "AGENT_KILLED")
            KillSwitchClient.check("other")

    def test_statement_68_it_is_logged(self) -> None:
        self.configure()
        self.platform.killed = {("agent", "a")}
        with self.assertLogs("agent_sentinel.kill_switch", "ERROR") as logs:
            for _ in range(3):
                self.assertRaises(AgentKilledError, KillSwitchClient.check, "a")
        self.assertEqual(len(logs.output), 1)

    def test_statement_68_it_holds_in_every_thread(self) -> None:
        self.configure(agent_id="a")
        self.platform.killed = {("agent", "a")}
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(KillSwitchClient.check) for _ in range(32)]
            self.assertTrue(all(isinstance(one.exception(), AgentKilledError) for one in asked))
        raised: list[BaseException] = []

        def bare() -> None:
            try:
                KillSwitchClient.check()
            except AgentKilledError as error:
                raised.append(error)

        thread = threading.Thread(target=bare)
        thread.start()
        thread.join()
        self.assertEqual(len(raised), 1)

    def test_statement_68_it_holds_in_a_forked_child(self) -> None:
        self.configure(cache_ttl=60.0, agent_id="a")
        self.platform.killed = {("agent", "a")}
        self.assertRaises(AgentKilledError, KillSwitchClient.check)
        with KillSwitchClient._lock, KillSwitchClient._targets["agent", "a"].lock:
            child = os.fork()
            if child == 0:
                try:
                    KillSwitchClient.check()
                except AgentKilledError:
                    os._exit(0)
                os._exit(1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)

    def test_statement_68_who_was_ended_stays_so_until_the_platform_says_otherwise(self) -> None:
        for fail_open in (False, True):
            self.configure(fail_open=fail_open)
            self.platform.killed = {("agent", "a")}
            self.assertRaises(AgentKilledError, KillSwitchClient.check, "a")
            for answer in ((500, {}), (200, {}), (200, {"is_killed": 0}), (404, {}), (200, b"x")):
                self.platform.kill_answer = answer
                with self.assertRaises(AgentKilledError) as raised:
                    KillSwitchClient.check("a")
                self.assertNotIsInstance(raised.exception, KillSwitchUnavailableError)
            self.configure(fail_open=fail_open)
            self.assertRaises(AgentKilledError, KillSwitchClient.check, "a")
            self.platform.kill_answer, self.platform.killed = None, set()
            KillSwitchClient.check("a")

    def test_statement_68_an_unknown_answer_about_another_does_not_hide_it(self) -> None:
        self.configure(cache_ttl=0.0)
        self.platform.killed = {("mission", "m")}
        self.assertRaises(AgentKilledError, KillSwitchClient.check, "a", "r", "m")
        self.platform.down()
        with self.assertRaises(AgentKilledError) as raised:
            KillSwitchClient.check("a", "r", "m")
        self.assertNotIsInstance(raised.exception, KillSwitchUnavailableError)

    def test_unknown_means_no_unless_it_was_said_to_mean_yes(self) -> None:
        self.configure()
        answer: Any
        for answer in ((500, {}), (401, {}), (204, {}), (200, []), (200, {"is_killed": "false"}), (200, {"is_killed": None}), (200, b"{")):
            self.platform.kill_answer = answer
            with self.assertRaises(KillSwitchUnavailableError, msg=str(answer)) as raised:
                KillSwitchClient.check("a")
            self.assertEqual(raised.exception.remediation["reason_code"], "KILL_SWITCH_UNAVAILABLE")
        self.platform.down()
        self.assertRaises(KillSwitchUnavailableError, KillSwitchClient.check, "a")
        self.configure(fail_open=True)
        with self.assertLogs("agent_sentinel.kill_switch", "WARNING"):
            KillSwitchClient.check("a")

    def test_who_nobody_names_is_unknown_too(self) -> None:
        self.configure()
        self.assertRaises(KillSwitchUnavailableError, KillSwitchClient.check)
        KillSwitchClient.reset()
        KillSwitchClient.check()

    def test_an_answer_is_kept_for_its_time(self) -> None:
        now = time.monotonic()
        with mock.patch("agent_sentinel.kill_switch.time.monotonic", side_effect=lambda: now):
            self.configure(cache_ttl=5.0)
            for _ in range(3):
                KillSwitchClient.check("a")
            self.assertEqual(len(self.platform.requests), 1)
            self.platform.killed = {("agent", "a")}
            now += 4.9
            KillSwitchClient.check("a")
            now += 0.2
            self.assertRaises(AgentKilledError, KillSwitchClient.check, "a")
            self.platform.killed = set()
            self.assertRaises(AgentKilledError, KillSwitchClient.check, "a")
            now += 5.1
            KillSwitchClient.check("a")

    def test_threads_that_wait_for_a_dead_platform_do_not_add_up_their_waits(self) -> None:
        self.configure(cache_ttl=5.0)
        self.platform.kill_answer = (500, {})
        with ThreadPoolExecutor(16) as threads:
            asked = [threads.submit(KillSwitchClient.check, "a") for _ in range(16)]
            self.assertTrue(all(isinstance(one.exception(), KillSwitchUnavailableError) for one in asked))
        self.assertLess(len(self.platform.requests), 4)

    def test_wrong_settings_are_told_and_change_nothing(self) -> None:
        self.configure(agent_id="a")
        wrongs: list[dict[str, Any]] = [
            {"cache_ttl": -1}, {"cache_ttl": float("nan")}, {"fail_open": 1}, {"platform_url": "http://example.com"}, {"api_token": ""},
        ]  # fmt: skip
        for wrong in wrongs:
            with self.assertRaises(ConfigurationError, msg=str(wrong)):
                KillSwitchClient.configure(**{"platform_url": self.platform.url, "api_token": TOKEN, **wrong})
        KillSwitchClient.check()


if __name__ == "__main__":
    unittest.main()
