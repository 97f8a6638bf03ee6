"""What is uploaded, when, and what a platform's answers mean. `test_sync_parts.py` has the ledger's moves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path
from typing import Any

from _platform import TOKEN
from _sync_case import SyncCase

from agent_sentinel import sync as sync_module
from agent_sentinel.errors import ConfigurationError
from agent_sentinel.sync import BackgroundSync, SyncConfig, enable_remote_sync, flush, flush_and_stop, get_sync, manual_flush

TESTS = Path(__file__).resolve().parent


class Documented(SyncCase):
    def tearDown(self) -> None:
        flush_and_stop()

    def test_statement_63_it_uploads_at_every_interval_at_once_when_asked_and_a_last_time_at_the_stop(self) -> None:
        first = self.ledger.action()
        sync = enable_remote_sync(self.platform.url, TOKEN, flush_interval=0.05)
        self.assertIs(get_sync(), sync)
        self.wait_until(lambda: self.platform.seqs() == [first])
        second = self.ledger.action()
        self.wait_until(lambda: self.platform.seqs() == [first, second])
        sync.stop()
        sync.config.flush_interval = 3600.0
        sync.start()
        third = self.ledger.action()
        self.assertTrue(flush())
        self.assertEqual(self.platform.seqs(), [first, second, third])
        fourth = self.ledger.action()
        self.assertTrue(flush_and_stop())
        self.assertEqual(self.platform.seqs(), [first, second, third, fourth])
        self.assertIsNone(get_sync())
        self.assertFalse(sync.is_running())

    def test_statement_63_stop_flushes_also_where_nothing_was_started(self) -> None:
        last = self.ledger.action()
        self.assertTrue(self.sync().stop())
        self.assertEqual(self.platform.seqs(), [last])

    def test_statement_63_the_manual_mode_has_no_thread(self) -> None:
        last = self.ledger.action()
        sync = enable_remote_sync(self.platform.url, TOKEN, flush_interval=0.01, sync_mode="manual")
        time.sleep(0.1)
        self.assertEqual((sync.is_running(), self.platform.seqs()), (False, []))
        self.assertTrue(manual_flush())
        self.assertEqual(self.platform.seqs(), [last])

    def test_statement_63_a_program_that_just_ends_has_flushed(self) -> None:
        for mode in ("manual", "background"):
            program = f"""
import sys; sys.path.insert(0, {str(TESTS)!r}); import _load
from agent_sentinel import sync
# So that the thread's own first flush is none, and the last one is the exit's.
sync.BackgroundSync._run = lambda self: None
sync.enable_remote_sync({self.platform.url!r}, {TOKEN!r}, flush_interval=3600.0, sync_mode={mode!r})
"""
            last = self.ledger.action()
            subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
            self.assertEqual(self.platform.seqs()[-1:], [last], mode)
        self.assertEqual(self.platform.twice(), [])

    def test_statement_64_a_batch_is_posted_as_the_platform_wants_it_and_in_order(self) -> None:
        seqs = self.ledger.actions(7, compliance_metadata={"approval_status": "approved"})
        self.assertTrue(self.sync(agent_id="agent-1", batch_size=3).flush_now())
        self.assertEqual([len(batch["entries"]) for batch in self.platform.batches], [3, 3, 1])
        self.assertEqual(self.platform.seqs(), seqs)
        batch = self.platform.batches[0]
        self.assertEqual((batch["run_id"], batch["agent_id"]), ("run-1", "agent-1"))
        self.assertEqual(
            list(batch["entries"][0]),
            ["id", "timestamp", "action", "cost_usd", "duration_ms", "outcome", "tags", "payload",
             "run", "session", "seq", "hash", "compliance_metadata"],
        )  # fmt: skip
        method, path, headers = self.platform.requests[0]
        self.assertEqual((method, path), ("POST", "/api/v1/ingest"))
        self.assertTrue(headers["User-Agent"].startswith("agent-sentinel-python/"))

    def test_statement_64_only_endings_of_actions_are_uploaded(self) -> None:
        self.ledger.record()
        expected = [self.ledger.action(outcome=outcome) for outcome in ("success", "error", "interrupted", "corrected")]
        expected.append(self.ledger.action(outcome="blocked", started=False))
        self.ledger.action(outcome="warned")
        self.ledger.record("kernel.connect", "kernel")
        sync = self.sync()
        self.assertTrue(sync.flush_now())
        self.assertEqual(self.platform.seqs(), expected)
        self.assertEqual(sync.accepted, 5)

    def test_statement_64_only_202_is_success(self) -> None:
        seqs = self.ledger.actions(2)
        sync = self.sync()
        for status in (200, 201, 204, 302):
            self.platform.judge = lambda entries, status=status: status  # type: ignore[misc]
            self.assertFalse(sync.flush_now())
        self.platform.judge = lambda entries: 202
        self.assertTrue(sync.flush_now())
        self.assertEqual(self.platform.seqs(), seqs)
        self.assertEqual(self.rejected(), [])

    def test_statement_65_the_platform_goes_down_and_comes_back(self) -> None:
        seqs = self.ledger.actions(2)
        sync = self.sync(max_retries=2, flush_interval=0.05)
        self.assertTrue(sync.flush_now())
        self.platform.down()
        seqs += self.ledger.actions(3)
        sync.start()
        self.assertFalse(sync.flush_now())
        self.assertEqual(len(self.platform.seqs()), 2)
        self.platform.up()
        self.wait_until(lambda: len(self.platform.seqs()) == 5)
        self.assertTrue(sync.stop())
        self.assertEqual(self.platform.seqs(), seqs)

    def test_statement_65_attempts_are_counted_and_back_off(self) -> None:
        seq = self.ledger.action()
        for status in (500, 503, 429, 408):
            times: list[float] = []

            def judge(entries: list[dict[str, Any]], status: int = status, times: list[float] = times) -> int:
                times.append(time.monotonic())
                return status

            self.platform.judge = judge
            self.assertFalse(self.sync(max_retries=4).flush_now())
            gaps = [later - earlier for earlier, later in zip(times, times[1:])]
            self.assertEqual(len(gaps), 3, status)
            self.assertTrue(gaps[0] >= 0.02 and gaps[1] >= 0.04 and gaps[2] >= 0.08, gaps)
        self.assertEqual(self.rejected(), [])
        self.platform.judge = lambda entries: 202
        self.assertTrue(self.sync().flush_now())
        self.assertEqual(self.platform.seqs(), [seq])

    def test_statement_65_stop_is_quick_while_the_platform_is_down(self) -> None:
        self.ledger.action()
        self.platform.down()
        sync = self.sync(max_retries=1000, flush_interval=0.01)
        sync.start()
        begun = time.monotonic()
        self.assertFalse(sync.stop(timeout=0.5))
        self.assertLess(time.monotonic() - begun, 3)

    def test_statement_65_nothing_is_raised_where_the_folder_is_not_what_it_should_be(self) -> None:
        self.assertTrue(BackgroundSync(SyncConfig(self.platform.url, TOKEN), self.folder / "none").flush_now())
        file = self.folder / "file"
        file.write_text("")
        self.assertTrue(BackgroundSync(SyncConfig(self.platform.url, TOKEN), file).flush_now())
        self.ledger.action()
        sync = self.sync()
        os.mkdir(sync._offset.path)
        with self.assertLogs("agent_sentinel.sync", "ERROR"):
            self.assertFalse(sync.flush_now())
        self.assertEqual(self.platform.seqs(), [])


class Durable(SyncCase):
    def test_statement_66_a_restart_neither_loses_nor_sends_again(self) -> None:
        seqs = self.ledger.actions(3)
        self.assertTrue(self.sync(run_id=None).stop())
        seqs += self.ledger.actions(2)
        before = (self.home / "ledger.jsonl").read_bytes()
        # Another run, as each start of a program is.
        self.assertTrue(self.sync(run_id=None).stop())
        self.assertTrue(self.sync(run_id=None).stop())
        self.assertEqual(self.platform.seqs(), seqs)
        self.assertEqual((self.home / "ledger.jsonl").read_bytes(), before)
        state = [path for path in self.home.iterdir() if path.suffix == ".json"]
        self.assertEqual([path.stat().st_mode & 0o777 for path in state], [0o600])

    def test_statement_66_a_kill_after_the_answer_sends_at_most_one_batch_again(self) -> None:
        """A `kill -9` between the platform's acceptance and the offset's write: that batch, and no other, comes twice, with its ids."""
        seqs = self.ledger.actions(6)
        program = f"""
import sys; sys.path.insert(0, {str(TESTS)!r}); import _load
from agent_sentinel.sync import BackgroundSync, SyncConfig
BackgroundSync(SyncConfig({self.platform.url!r}, {TOKEN!r}, batch_size=2), {str(self.home)!r}).flush_now()
"""
        accepted = threading.Semaphore(0)
        go_on = threading.Event()

        def before_answer() -> None:
            if len(self.platform.batches) == 2:
                accepted.release()
                go_on.wait(10)

        self.platform.before_answer = before_answer
        child = subprocess.Popen([sys.executable, "-c", program])
        self.assertTrue(accepted.acquire(timeout=20))
        child.send_signal(signal.SIGKILL)
        child.wait()
        go_on.set()
        self.platform.before_answer = lambda: None
        self.assertEqual(self.platform.seqs(), seqs[:4])
        self.assertTrue(self.sync(batch_size=2).flush_now())
        self.assertEqual(self.platform.twice(), seqs[2:4])
        self.assertEqual(sorted(set(self.platform.seqs())), seqs)

    def test_statement_66_poison_in_the_middle_is_set_aside_and_blocks_nothing(self) -> None:
        seqs = self.ledger.actions(20)
        poison = {seqs[7], seqs[13]}
        for status in (400, 413, 422):
            self.platform.batches.clear()
            self.platform.judge = lambda entries, status=status: status if poison & {e["seq"] for e in entries} else 202  # type: ignore[misc]
            for path in self.home.glob("sync-*"):
                path.unlink()
            sync = self.sync(batch_size=10)
            with self.assertLogs("agent_sentinel.sync", "ERROR") as logs:
                self.assertTrue(sync.flush_now())
            self.assertEqual(len(logs.output), 2)
            self.assertEqual(self.platform.seqs(), [seq for seq in seqs if seq not in poison])
            self.assertEqual([(one["entry"]["seq"], one["status"]) for one in self.rejected()], [(seq, status) for seq in sorted(poison)])
            self.assertIn(f"no: {status}", self.rejected()[0]["answer"])
            self.assertEqual((sync.accepted, sync.rejected), (18, 2))
            asked = len(self.platform.requests)
            self.assertTrue(self.sync().flush_now())
            self.assertEqual(len(self.platform.requests), asked, "it is done with")

    def test_statement_66_a_wrong_token_is_no_poison_and_is_told_once(self) -> None:
        seqs = self.ledger.actions(3)
        sync = self.sync(token="wrong")
        with self.assertLogs("agent_sentinel.sync", "ERROR") as logs:
            self.assertFalse(sync.flush_now())
            self.assertFalse(sync.flush_now())
        self.assertEqual(len(logs.output), 1)
        self.assertIn("401", logs.output[0])
        self.assertNotIn("wrong", logs.output[0])
        self.platform.judge = lambda entries: 403
        self.assertFalse(self.sync().flush_now())
        self.platform.judge = lambda entries: 202
        self.assertTrue(self.sync().flush_now())
        self.assertEqual((self.platform.seqs(), self.rejected()), (seqs, []))

    def test_statement_66_a_wrong_address_is_no_poison(self) -> None:
        seqs = self.ledger.actions(3)
        wrong = BackgroundSync(SyncConfig(self.platform.url + "/nowhere", TOKEN), self.home)
        self.assertFalse(wrong.flush_now())
        self.assertTrue(self.sync().flush_now())
        self.assertEqual((self.platform.seqs(), self.rejected()), (seqs, []))

    def test_statement_66_one_process_at_a_time_uploads(self) -> None:
        seqs = self.ledger.actions(40)
        syncs = [self.sync(batch_size=3) for _ in range(4)]
        threads = [threading.Thread(target=sync.flush_now) for sync in syncs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.platform.seqs(), seqs)

    def test_statement_66_a_damaged_offset_is_kept_and_told(self) -> None:
        seqs = self.ledger.actions(2)
        sync = self.sync()
        self.assertTrue(sync.flush_now())
        sync._offset.path.write_text('{"place": 3')
        with self.assertLogs("agent_sentinel.sync", "ERROR"):
            self.assertTrue(self.sync().flush_now())
        self.assertEqual(self.platform.seqs(), seqs + seqs)
        self.assertEqual(sync._offset.path.with_suffix(".corrupt").read_text(), '{"place": 3')

    def test_statement_66_a_forked_child_uploads_nothing(self) -> None:
        seqs = self.ledger.actions(2)
        sync = enable_remote_sync(self.platform.url, TOKEN, flush_interval=3600.0)
        self.wait_until(lambda: self.platform.seqs() == seqs)
        seqs.append(self.ledger.action())
        # As in a flush of the parent's: its lock must not outlive it in the child.
        with sync._turn, sync._offset.locked(0):
            child = os.fork()
            if child == 0:
                done = sync.flush_now() or sync.stop() or get_sync() is not None or sync.is_running() or sync._offset._lock is not None
                os._exit(int(done))
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(len(self.platform.seqs()), 2)
        self.assertTrue(flush_and_stop())
        self.assertEqual(self.platform.seqs(), seqs)


class Configured(unittest.TestCase):
    def test_what_is_wrong_is_told_when_it_is_set(self) -> None:
        for url in ("http://example.com", "ftp://127.0.0.1", "127.0.0.1", "", "https://u:p@h", "https://h?a=b", "http://localhost.example.com"):
            with self.assertRaises(ConfigurationError, msg=url):
                SyncConfig(url, "t")
        wrongs: list[dict[str, Any]] = [{"flush_interval": 0}, {"flush_interval": float("nan")}, {"batch_size": 0}, {"max_retries": True}]
        for more in wrongs:
            with self.assertRaises(ConfigurationError, msg=str(more)):
                SyncConfig("https://h", "t", **more)
        for token in ("", "a\nb", "a b"):
            with self.assertRaises(ConfigurationError):
                BackgroundSync(SyncConfig("https://h", token))
        with self.assertRaises(ConfigurationError):
            enable_remote_sync("https://h", "t", sync_mode="often")

    def test_plain_http_is_for_the_loopback_or_for_who_asks_for_it(self) -> None:
        for url in ("http://127.0.0.1:1", "http://[::1]:1", "http://localhost", "https://example.com/base/"):
            SyncConfig(url, "t")
        SyncConfig("http://example.com", "t", allow_http=True)

    def test_the_token_is_not_shown(self) -> None:
        self.assertNotIn("secret", repr(SyncConfig("https://h", "secret")))

    def test_a_disabled_one_does_nothing(self) -> None:
        sync = BackgroundSync(SyncConfig("https://h", "t", enabled=False))
        sync.start()
        self.assertEqual((sync.is_running(), sync.flush_now(), sync_module.flush()), (False, False, False))


if __name__ == "__main__":
    unittest.main()
