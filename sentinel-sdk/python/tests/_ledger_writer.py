"""Writes a ledger as the agent does: chained lines, parts that are rotated by a hard link and a rename, a state line first in each.

As a program (`_ledger_writer.py HOME COUNT`) it is one of several writers of one ledger: they take turns by a lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional


class LedgerWriter:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.path = home / "ledger.jsonl"
        self._head_path = home.parent / f"{home.name}.writer"
        home.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _head(self) -> Iterator[dict[str, Any]]:
        with open(self._head_path, "a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            head = json.loads(file.read() or '{"seq": 0, "hash": "%s", "first": 1}' % ("0" * 64))
            yield head
            file.truncate(0)
            file.write(json.dumps(head))
            file.flush()

    def _sealed(self, head: dict[str, Any], body: dict[str, Any], is_first: bool) -> bytes:
        text = json.dumps(body, separators=(",", ":"))[:-1]
        if is_first and head["seq"]:
            text += f',"previous":"{head["hash"]}"'
        head["seq"] += 1
        text += f',"seq":{head["seq"]}'
        head["hash"] = hashlib.sha256((head["hash"] + text).encode()).hexdigest()
        return f'{text},"hash":"{head["hash"]}"}}\n'.encode()

    def line(self, **keys: Any) -> int:
        """Appends a line; answers its number. After a `mv` it begins a new part by itself."""
        with self._head() as head:
            if not self.path.exists() and head["seq"]:
                self._begin(head)
            with open(self.path, "ab") as file:
                file.write(self._sealed(head, keys, file.tell() == 0))
            return int(head["seq"])

    def action(self, name: str = "search", outcome: str = "success", started: bool = True, **more: Any) -> int:
        """A whole action: a line of its start, one of its end, whose number is answered."""
        id = str(uuid.uuid4())
        if started:
            self.line(**_line(id, name, "started", "action", **more))
        return self.line(**_line(id, name, outcome, "action", **more))

    def actions(self, count: int, **more: Any) -> list[int]:
        return [self.action(**more) for _ in range(count)]

    def record(self, name: str = "session.started", kind: str = "session") -> int:
        """One of the agent's own lines."""
        return self.line(**_line(str(uuid.uuid4()), name, "recorded", kind))

    def _begin(self, head: dict[str, Any]) -> None:
        unready = self.path.with_name("ledger.jsonl.new")
        head["first"] = head["seq"] + 1
        unready.write_bytes(self._sealed(head, _line(str(uuid.uuid4()), "state", "recorded", "agent"), True))
        os.rename(unready, self.path)

    def rotate(self) -> None:
        with self._head() as head:
            if self.path.exists():
                with contextlib.suppress(FileExistsError):
                    os.link(self.path, self.home / f"ledger-{head['first']:020}.jsonl")
            self._begin(head)

    def begin_anew(self) -> None:
        """The operator has removed the head file with the ledger: numbers start again."""
        self._head_path.unlink()


def _line(id: str, name: str, outcome: str, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "timestamp": "2026-11-22T12:44:44.366142Z",
        "action": name,
        "cost_usd": 0.01,
        "duration_ms": 1.5,
        "outcome": outcome,
        "tags": ["t"],
        "payload": {"inputs": {"args": [], "kwargs": {}}, "outputs": None},
        "kind": kind,
        "session": "daily",
        "session_id": 3,
        "run": 1,
        "pid": 42,
        **more,
    }


def main(home: str, count: str, rotate_each: Optional[str] = None) -> None:
    writer = LedgerWriter(Path(home))
    for number in range(1, int(count) + 1):
        writer.action()
        if rotate_each and number % int(rotate_each) == 0:
            writer.rotate()
        time.sleep(0.001)


if __name__ == "__main__":
    main(*sys.argv[1:])
