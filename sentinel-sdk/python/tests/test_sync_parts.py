"""The upload while the ledger moves: rotated, moved away, packed, torn, begun anew, written by many."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path

from _platform import TOKEN
from _sync_case import SyncCase

from agent_sentinel.sync import BackgroundSync, SyncConfig

TESTS = Path(__file__).resolve().parent


class Parts(SyncCase):
    def test_statement_66_rotated_parts_are_uploaded_in_order_also_from_the_beginning(self) -> None:
        seqs = []
        for _ in range(4):
            seqs += self.ledger.actions(3)
            self.ledger.rotate()
        seqs += self.ledger.actions(2)
        self.assertTrue(self.sync().flush_now())
        self.assertEqual(self.platform.seqs(), seqs)
        self.assertTrue(self.sync().flush_now())
        self.assertEqual(self.platform.seqs(), seqs)

    def test_statement_66_the_ledger_rotates_between_two_batches(self) -> None:
        seqs = self.ledger.actions(6)
        later: list[int] = []

        def rotate_once() -> None:
            if len(self.platform.batches) == 1:
                self.ledger.rotate()
                later.extend(self.ledger.actions(2))

        self.platform.before_answer = rotate_once
        sync = self.sync(batch_size=2)
        self.assertTrue(sync.flush_now())
        self.assertTrue(sync.flush_now())
        self.assertEqual(self.platform.seqs(), seqs + later)

    def test_statement_66_a_crash_in_a_rotation_leaves_two_names_and_nothing_comes_twice(self) -> None:
        seqs = self.ledger.actions(3)
        os.link(self.ledger.path, self.home / f"ledger-{1:020}.jsonl")
        (self.home / "ledger.jsonl.new").write_bytes(self.ledger.path.read_bytes().replace(b'"seq":1,', b'"seq":900,'))
        sync = self.sync()
        self.assertTrue(sync.flush_now())
        seqs += self.ledger.actions(1)
        self.assertTrue(sync.flush_now())
        self.assertEqual(self.platform.seqs(), seqs)

    def test_statement_66_a_file_that_the_user_moves_is_found_under_any_name(self) -> None:
        seqs = self.ledger.actions(2)
        sync = self.sync()
        self.assertTrue(sync.flush_now())
        for name in ("ledger-20250115.jsonl", "x"):
            seqs += self.ledger.actions(2)
            self.ledger.path.rename(self.home / name)
            seqs += self.ledger.actions(2)
        self.assertTrue(self.sync().flush_now())
        self.assertTrue(sync.flush_now())
        self.assertEqual(self.platform.seqs(), seqs)

    def test_statement_66_a_file_that_the_user_packs_is_unpacked(self) -> None:
        seqs = self.ledger.actions(2)
        self.assertTrue(self.sync().flush_now())
        seqs += self.ledger.actions(2)
        packed = self.home / "ledger-20250115.jsonl.gz"
        packed.write_bytes(gzip.compress(self.ledger.path.read_bytes()))
        self.ledger.path.unlink()
        seqs += self.ledger.actions(1)
        self.assertTrue(self.sync().flush_now())
        self.assertEqual(self.platform.seqs(), seqs)

    def test_statement_66_a_file_that_leaves_the_folder_while_the_platform_is_down_is_read_to_its_end(self) -> None:
        seqs = self.ledger.actions(2)
        sync = self.sync(max_retries=1)
        self.assertTrue(sync.flush_now())
        self.platform.down()
        for number in range(3):
            seqs += self.ledger.actions(2)
            self.assertFalse(sync.flush_now())
            seqs += self.ledger.actions(1)
            self.ledger.path.rename(self.folder / f"elsewhere-{number}")
            seqs += self.ledger.actions(1)
            self.assertFalse(sync.flush_now())
        self.platform.up()
        self.assertTrue(sync.flush_now())
        self.assertEqual(self.platform.seqs(), seqs)
        self.assertTrue(sync.flush_now())
        self.assertEqual(len(sync._ledger._held), 1)

    def test_statement_66_what_was_missing_is_uploaded_when_it_is_moved_back(self) -> None:
        first = self.ledger.actions(2)
        self.assertTrue(self.sync().flush_now())
        lost = self.ledger.actions(3)
        self.ledger.path.rename(self.folder / "elsewhere")
        later = self.ledger.actions(2)
        sync = self.sync()
        with self.assertLogs("agent_sentinel.sync", "WARNING") as logs:
            self.assertTrue(sync.flush_now())
        self.assertEqual(len(logs.output), 1)
        self.assertEqual(self.platform.seqs(), first + later)
        (self.folder / "elsewhere").rename(self.home / "back")
        self.assertTrue(sync.flush_now())
        self.assertEqual(self.platform.seqs(), first + later + lost)
        self.assertTrue(sync.flush_now())
        self.assertTrue(self.sync().flush_now())
        self.assertEqual(self.platform.twice(), [])
        self.assertEqual(sync._offset.missing, [])

    def test_statement_66_a_torn_line_is_left_for_later(self) -> None:
        seqs = self.ledger.actions(2)
        whole = self.ledger.path.read_bytes()
        last = self.ledger.action()
        line = self.ledger.path.read_bytes()[len(whole) :]
        sync = self.sync()
        for cut in (1, len(line) // 2, len(line) - 1):
            self.ledger.path.write_bytes(whole + line[:cut])
            self.assertTrue(sync.flush_now())
            self.assertEqual(self.platform.seqs(), seqs)
        self.ledger.path.write_bytes(whole + line)
        self.assertTrue(sync.flush_now())
        self.assertEqual(self.platform.seqs(), [*seqs, last])

    def test_statement_66_a_damaged_line_neither_shifts_nor_blocks_the_others(self) -> None:
        seqs = self.ledger.actions(4)
        lines = self.ledger.path.read_bytes().splitlines(keepends=True)
        for damage in (b"{}\n", b"\xff\n", b'{"seq": NaN}\n', b"[" * 100_000 + b"\n", b"x" * 5_000_000 + b"\n"):
            damaged = [*lines]
            damaged[3] = damage
            self.ledger.path.write_bytes(b"".join(damaged))
            self.platform.batches.clear()
            for path in self.home.glob("sync-*"):
                path.unlink()
            sync = self.sync(batch_size=1)
            with self.assertLogs("agent_sentinel.sync", "WARNING"):
                self.assertTrue(sync.flush_now())
            self.assertEqual(self.platform.seqs(), [seqs[0], *seqs[2:]])
            sync.flush_now()
            self.assertEqual(len(self.platform.seqs()), 3)

    def test_statement_66_a_damaged_or_endless_first_line_does_not_hide_its_part(self) -> None:
        seqs = self.ledger.actions(3)
        lines = self.ledger.path.read_bytes().splitlines(keepends=True)
        for number, first in enumerate((b"{}\n", b"x" * 9_000_000 + b"\n")):
            self.ledger.path.write_bytes(b"".join([first, *lines[1:]]))
            with self.assertLogs("agent_sentinel.sync", "WARNING"):
                self.assertTrue(self.sync().flush_now())
            self.assertEqual(self.platform.seqs(), seqs * (number + 1))
            (self.home / self.sync()._offset.path.name).unlink()

    def test_statement_66_lines_that_are_not_uploaded_are_passed_for_good(self) -> None:
        for _ in range(3):
            self.ledger.record()
        sync = self.sync()
        self.assertTrue(sync.flush_now())
        self.assertEqual(json.loads(sync._offset.path.read_text())["place"]["seq"], 3)

    def test_statement_66_a_ledger_that_was_begun_anew_is_uploaded_from_its_first_line(self) -> None:
        old = self.ledger.actions(3)
        sync = self.sync()
        self.assertTrue(sync.flush_now())
        old += self.ledger.actions(2)
        self.ledger.path.rename(self.home / "ledger-old.jsonl")
        self.ledger.begin_anew()
        new = self.ledger.actions(2)
        with self.assertLogs("agent_sentinel.sync", "WARNING"):
            self.assertTrue(sync.flush_now())
        self.assertEqual(self.platform.seqs(), old + new)
        new += self.ledger.actions(20)
        self.ledger.rotate()
        new += self.ledger.actions(2)
        self.assertTrue(self.sync().flush_now())
        self.assertEqual(self.platform.seqs(), old + new)

    def test_statement_66_lines_that_a_power_cut_took_do_not_hide_those_that_follow(self) -> None:
        kept = self.ledger.actions(2)
        head, length = self.ledger._head_path.read_text(), self.ledger.path.stat().st_size
        self.ledger.actions(2)
        self.assertTrue(self.sync().flush_now())
        os.truncate(self.ledger.path, length)
        self.ledger._head_path.write_text(head)
        self.ledger.actions(1, name="other")
        with self.assertLogs("agent_sentinel.sync", "WARNING"):
            self.assertTrue(self.sync().flush_now())
        self.assertEqual([entry["action"] for entry in self.platform.entries()].count("other"), 1)
        # This part alone comes again.
        self.assertEqual(self.platform.seqs()[4:6], kept)
        self.assertTrue(self.sync().flush_now())
        self.assertEqual(len(self.platform.seqs()), 7)

    def test_statement_66_other_files_of_the_folder_are_no_ledger(self) -> None:
        seqs = self.ledger.actions(1)
        (self.home / "notes.txt").write_text("hello\n")
        (self.home / "binary").write_bytes(bytes(range(256)))
        (self.home / "empty").write_text("")
        (self.home / "broken.gz").write_bytes(b"\x1f\x8b\x08\x00garbage")
        (self.home / "interventions.jsonl").write_text(json.dumps({"seq": 7, "hash": "x"}) + "\n")
        os.mkfifo(self.home / "pipe")
        os.symlink("/dev/zero", self.home / "zero")
        self.assertTrue(self.sync().flush_now())
        self.assertEqual(self.platform.seqs(), seqs)


class Writers(SyncCase):
    def test_statement_66_four_writers_rotations_and_moves_lose_nothing_and_send_nothing_twice(self) -> None:
        writers = [
            subprocess.Popen([sys.executable, str(TESTS / "_ledger_writer.py"), str(self.home), "150", *rotations])
            for rotations in ([], [], ["25"], ["40"])
        ]
        sync = BackgroundSync(SyncConfig(self.platform.url, TOKEN, flush_interval=0.01, batch_size=7), self.home)
        sync.start()
        moves = 0
        while any(writer.poll() is None for writer in writers):
            if len(self.platform.batches) > 10 * (moves + 1) and moves < 5 and self._move(moves):
                moves += 1
            if moves == 2:
                # Another process takes over in between.
                sync.stop()
                sync = BackgroundSync(SyncConfig(self.platform.url, TOKEN, flush_interval=0.01, batch_size=7), self.home)
                sync.start()
        self.assertEqual([writer.wait() for writer in writers], [0] * 4)
        self.assertGreater(moves, 0)
        self.assertTrue(sync.stop(timeout=30))
        self.assertTrue(self.sync().flush_now())
        self.assertEqual(len(self.platform.seqs()), 600)
        self.assertEqual(self.platform.twice(), [])

    def _move(self, number: int) -> bool:
        """As a user does: `mv`, while it is written. The writers' lock keeps the test's own writer from losing lines."""
        with self.ledger._head():
            if not self.ledger.path.exists():
                return False
            shutil.move(self.ledger.path, self.home / f"ledger-2025011{number}.jsonl")
        return True


if __name__ == "__main__":
    unittest.main()
