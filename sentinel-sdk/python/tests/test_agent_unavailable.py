"""What a program is told where the host agent can't be asked: nothing runs, and the text says why and what to do. Never a panic's."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import struct
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

from _guard_case import PATIENCE, GuardCase

from agent_sentinel import AgentSentinelError, CostTracker, PolicyEngine, PolicyViolationError, guarded_action
from agent_sentinel._runtime import SOCKET

# What a request is answered with; none: the connection is closed.
Answers = Callable[[dict[str, Any]], Optional[dict[str, Any]]]

NOBODY = 65534


def _frame(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return struct.pack("<I", len(body)) + body


def _serve(connection: socket.socket, answers: Answers) -> None:
    with connection, contextlib.suppress(OSError, ConnectionError):
        file = connection.makefile("rb")
        while head := file.read(4):
            answer = answers(json.loads(file.read(struct.unpack("<I", head)[0])))
            if answer is None:
                return
            connection.sendall(_frame(answer))


@contextlib.contextmanager
def agent(path: Path, answers: Answers) -> Iterator[None]:
    """An agent of another version, or a broken one: the real ones are asked in `tests/tests/python.rs`."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threading.Thread(target=_serve, args=(connection, answers), daemon=True).start()

        acceptor = threading.Thread(target=accept, daemon=True)
        acceptor.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(PATIENCE)


class Unavailable(GuardCase):
    def setUp(self) -> None:
        super().setUp()
        self.socket = self.folder / "agent.sock"
        os.environ[SOCKET] = str(self.socket)

    def refusal(self) -> PolicyViolationError:
        """How each kind of function is kept from running, which is in the same words."""

        @guarded_action(name="act")
        async def later() -> None:
            self.fail("it ran")

        with self.assertRaises(PolicyViolationError) as raised:
            guarded_action(name="act")(lambda: self.fail("it ran"))()
        with self.assertRaises(PolicyViolationError) as raised_later:
            asyncio.run(later())
        self.assertEqual(str(raised.exception), str(raised_later.exception))
        return raised.exception

    def assert_says(self, error: AgentSentinelError, *words: str) -> None:
        for word in words:
            self.assertIn(word, str(error))
        for word in ("panicked", "unwrap", "RUST_BACKTRACE", "src/", "Error {"):
            self.assertNotIn(word, str(error))
        self.assertFalse(error.recoverable)

    def test_no_agent_at_the_socket(self) -> None:
        error = self.refusal()
        self.assertEqual(error.reason_code, "AGENT_UNAVAILABLE")
        self.assert_says(error, "`act`", str(self.socket), "No such file", "`sentinel run`", "`sentinel status`")

    def test_an_agent_that_is_gone(self) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.socket))
        self.assert_says(self.refusal(), str(self.socket), "Connection refused", "`sentinel status`")

    def test_a_socket_whose_path_is_too_long(self) -> None:
        os.environ[SOCKET] = "/" + "x" * 200
        self.assert_says(self.refusal(), "xxx", "`sentinel run`")

    def test_a_socket_that_this_user_may_not_use(self) -> None:
        self.folder.chmod(0o755)
        self.home.mkdir(mode=0o777)
        self.home.chmod(0o777)
        with agent(self.socket, lambda _: None):
            self.socket.chmod(0)
            read, write = os.pipe()
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    if os.getuid() == 0:
                        os.setgroups([])
                        os.setgid(NOBODY)
                        os.setuid(NOBODY)
                    self.assert_says(self.refusal(), str(self.socket), "Permission denied", "`sentinel run`")
                    status = 0
                except BaseException as error:
                    os.write(write, repr(error).encode())
                finally:
                    os._exit(status)
            os.close(write)
            with open(read) as told:
                self.assertEqual(told.read(), "")
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)

    def test_an_agent_that_speaks_another_version(self) -> None:
        welcome = {"version": 99, "session": 3, "session_name": "s3", "tier": "kill"}
        with agent(self.socket, lambda _: {"welcome": welcome}):
            self.assert_says(self.refusal(), "version 99", "install the same release of both")

    def test_an_agent_that_refuses_this_version(self) -> None:
        message = "version 1 of the protocol isn't spoken here; say 2"
        with agent(self.socket, lambda _: {"refused": {"code": "version", "message": message}}):
            self.assert_says(self.refusal(), message)

    def test_an_agent_that_knows_this_process_from_no_session(self) -> None:
        message = "process 42 is in no session"
        with agent(self.socket, lambda _: {"refused": {"code": "identity", "message": message}}):
            self.assert_says(self.refusal(), message, "`sentinel run`")

    def test_an_agent_that_hangs_up_or_makes_no_sense(self) -> None:
        def nonsense(_: dict[str, Any]) -> dict[str, Any]:
            return {"welcome": {"version": 1, "session": 3, "session_name": "s3", "tier": "kill"}}

        for answers in (lambda _: None, lambda _: {"no": "sense"}, nonsense):
            with self.subTest(), agent(self.socket, answers):
                self.forget()
                self.assert_says(self.refusal(), "`act`")
            self.socket.unlink()

    def test_what_was_spent_can_not_be_asked_for_either(self) -> None:
        for ask in (CostTracker.get_run_total, CostTracker.get_session_total, CostTracker.get_snapshot, CostTracker.reset_run):
            with self.assertRaises(PolicyViolationError) as raised:
                ask()
            self.assert_says(raised.exception, str(self.socket), "`sentinel run`")

    def test_the_policy_of_the_program_itself_is_still_told_first(self) -> None:
        PolicyEngine.configure(denied_actions=["act"])
        self.assertEqual(self.refusal().reason_code, "DENIED_ACTION")

    def test_what_was_not_let_start_is_no_start_in_the_programs_own_ledger(self) -> None:
        self.refusal()
        self.assertEqual(set(self.outcomes("act")), {"aborted"})
        self.assertEqual(sum(line["cost_usd"] for line in self.ledger()), 0.0)


if __name__ == "__main__":
    unittest.main()
