"""Holds `client.py` to the files of `testdata` and to `PROTOCOL.md`, against an agent that says what a test gives it to say."""

import hashlib
import itertools
import json
import os
import pathlib
import re
import socket
import tempfile
import threading
import time
import unittest
from typing import Any, Callable, Dict, List, Optional

from client import Begun, Client, Denied, payload

HERE = pathlib.Path(__file__).resolve().parent
TESTDATA = HERE.parent / "testdata"
ACTION_ID = "550e8400-e29b-41d4-a716-446655440000"
APPROVAL = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
CLOSE = b""
PATIENCE = 10.0  # seconds; a test that waits so long has failed


def file(name: str) -> bytes:
    return (TESTDATA / f"{name}.json").read_bytes().strip()


def files(kind: str) -> List[str]:
    return sorted(path.stem for path in TESTDATA.glob(f"{kind}-*.json"))


def numbered(reply: bytes, number: int) -> bytes:
    """The same reply, to another request."""
    message = json.loads(reply)
    for keys in message.values():
        keys["request"] = number
    return json.dumps(message).encode()


class Agent:
    """Answers each hello with a welcome and each request with the next of its replies; `CLOSE` closes instead, and without any it is silent."""

    def __init__(self, *replies: bytes, welcome: bytes = file("reply-welcome")) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = f"{self.folder.name}/agent.sock"
        self.welcome, self.replies = welcome, list(replies)
        self.heard: List[List[bytes]] = []  # of each connection, its frames without their length
        self.ended: List[int] = []  # the connections that are over
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.heard.append([])
            threading.Thread(target=self.serve, args=(connection, len(self.heard) - 1), daemon=True).start()

    def serve(self, connection: socket.socket, number: int) -> None:
        with connection, connection.makefile("rb") as stream:
            while length := stream.read(4):
                text = stream.read(int.from_bytes(length, "little"))
                self.heard[number].append(text)
                reply: Optional[bytes] = None
                if b'{"hello"' in text:
                    reply = self.welcome
                elif b'"request"' in text and self.replies:
                    reply = self.replies.pop(0)
                if reply == CLOSE:
                    break
                if reply is not None:
                    connection.sendall(len(reply).to_bytes(4, "little") + reply)
        self.ended.append(number)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        until = time.monotonic() + PATIENCE
        while not is_so():
            assert time.monotonic() < until, f"heard {self.heard}, over {self.ended}"
            time.sleep(0.002)

    def said(self) -> List[bytes]:
        """What its only connection has said after its hello."""
        (frames,) = self.heard
        return frames[1:]

    def close(self) -> None:
        self.listener.close()
        self.folder.cleanup()


class Case(unittest.TestCase):
    def agent(self, *replies: bytes, welcome: bytes = file("reply-welcome")) -> Agent:
        agent = Agent(*replies, welcome=welcome)
        self.addCleanup(agent.close)
        return agent

    def client(self, agent: Agent, first_request: int = 1, name: str = "example/1.0") -> Client:
        client = Client(agent.path, name)
        client.numbers = itertools.count(first_request)
        self.addCleanup(lambda: client.socket.close())
        return client

    def denied(self, call: Callable[[], Any]) -> str:
        with self.assertRaises(Denied) as raised:
            call()
        return str(raised.exception.args[0])


class Requests(Case):
    def test_each_file_is_what_it_writes(self) -> None:
        ended, one_way = file("reply-ended"), Begun(ACTION_ID, False, os.getpid())
        begun, approval = one_way._replace(acknowledge_end=True), file("reply-approval-approved")
        inputs = {"args": [], "kwargs": {"query": "ü\n"}}
        failed = "ValueError: no such page"
        annotations = json.loads(file("request-end-annotated"))["end"]["annotations"]
        calls: Dict[str, Any] = {
            "begin": (1, file("reply-allow"), lambda it: it.begin("search_web", 0.01, ["search"], inputs, "high")),
            "begin-annotated": (
                1,
                file("reply-allow"),
                lambda it: it.begin("search_web", 0.0, needs_approval=True, annotations=annotations),
            ),
            "end-annotated": (2, ended, lambda it: it.end(begun, "success", annotations=annotations)),
            "end": (2, ended, lambda it: it.end(begun, "success")),
            "end-one-way": (2, None, lambda it: it.end(one_way, "success", cost_usd=0.02)),
            "end-error": (2, ended, lambda it: it.end(begun, "error", failed)),
            "end-panicked": (2, ended, lambda it: it.end(begun, "panicked", failed)),
            "end-cancelled": (2, ended, lambda it: it.end(begun, "cancelled", failed)),
            "denials": (3, file("reply-denials"), lambda it: it.denials(10_000)),
            "totals": (4, file("reply-totals"), lambda it: it.totals()),
            "reset-run": (5, numbered(file("reply-totals"), 5), lambda it: it.reset_run()),
            "await-approval": (6, approval, lambda it: it.await_approval(APPROVAL, 1.0)),
            "cancel-approval": (6, file("reply-approval-rejected"), lambda it: it.cancel_approval(APPROVAL)),
        }
        self.assertEqual(files("request"), sorted(f"request-{name}" for name in [*calls, "hello"]))
        for name, (request, reply, call) in calls.items():
            with self.subTest(name):
                agent = self.agent(*([] if reply is None else [reply]))
                call(self.client(agent, request, "rust/0.1.0"))
                agent.wait_until(lambda: len(agent.said()) == 1)
                self.assertEqual(agent.heard, [[file("request-hello"), file(f"request-{name}")]])

    def test_the_first_frame_is_the_one_of_the_page(self) -> None:
        page = (HERE.parent / "PROTOCOL.md").read_text(encoding="utf-8")
        lines = page.split("```hex\n")[1].split("```")[0].splitlines()
        frame = bytes.fromhex(" ".join(line.split("  ")[0] for line in lines))
        agent = self.agent(numbered(file("reply-totals"), 1))
        self.client(agent).totals()
        self.assertEqual(len(agent.heard[0][0]).to_bytes(4, "little") + agent.heard[0][0], frame)

    def test_what_the_agent_would_not_take_is_not_sent(self) -> None:
        agent = self.agent()
        client = self.client(agent)
        wrong: List[Dict[str, Any]] = [
            *({"action": name} for name in ["", "x" * 129, "a\nb", "a\u202eb", "a\u200b", "a\u061c", "a\xad", "a\U000e0041", "\ud800"]),
            *({"action": "a", "cost_usd": cost} for cost in [-0.01, float("nan"), float("inf"), 4_000_000.01]),
            *({"action": "a", "tags": tags} for tags in [[""], ["x" * 65], ["x"] * 33]),
            *({"action": "a", "risk_level": level} for level in ["", "x" * 33, "very high"]),
        ]
        for keys in wrong:
            with self.subTest(keys=keys):
                self.assertEqual(self.denied(lambda: client.begin(**keys)), "INVALID_REQUEST")
        self.assertEqual(agent.heard, [])
        agent.replies = [file("reply-allow")]
        client.begin("поиск web" + "x" * 119, 4_000_000, ["x" * 64] * 32, risk_level="A-z_0.9")


class Replies(Case):
    def test_each_file_is_one_that_a_test_here_reads(self) -> None:
        source = pathlib.Path(__file__).read_text(encoding="utf-8")
        read = re.findall(r'file\("(reply-[a-z-]+)"\)', source)
        patterns = ("reply-deny-", "reply-refused-")
        self.assertEqual([name for name in files("reply") if name not in read and not name.startswith(patterns)], [])

    def test_an_allow_says_whether_its_end_is_waited_for(self) -> None:
        begun = self.client(self.agent(file("reply-allow"))).begin("a")
        self.assertEqual(begun, Begun(ACTION_ID, True, os.getpid()))
        begun = self.client(self.agent(file("reply-allow-one-way"))).begin("a")
        self.assertEqual(begun, Begun(ACTION_ID, False, os.getpid()))

    def test_every_denial_keeps_the_body_from_running_and_says_why(self) -> None:
        names = [name for name in files("reply") if name.startswith("reply-deny-")]
        self.assertGreater(len(names), 15)
        for name in names:
            with self.subTest(name):
                client = self.client(self.agent(file(name)))
                code = self.denied(lambda: client.guarded("a", self.fail))
                self.assertTrue(name[len("reply-deny-"):].replace("-", "_").upper().startswith(code), code)

    def test_a_denial_with_an_unknown_code_denies_too(self) -> None:
        reply = file("reply-deny-paused").replace(b"PAUSED", b"FULL_MOON")
        client = self.client(self.agent(reply))
        self.assertEqual(self.denied(lambda: client.guarded("a", self.fail)), "FULL_MOON")

    def test_a_pending_action_is_asked_for_again_after_a_yes(self) -> None:
        yes, allow = numbered(file("reply-approval-approved"), 2), numbered(file("reply-allow"), 3)
        agent = self.agent(file("reply-pending"), yes, allow, numbered(file("reply-ended"), 4))
        self.assertEqual(self.client(agent).guarded("a", lambda: 7), 7)
        first, wait, second, _end = (json.loads(text) for text in agent.said())
        self.assertEqual(wait, {"await_approval": {"request": 2, "approval": APPROVAL}})
        self.assertEqual({**first["begin"], "request": 3}, second["begin"])

    def test_a_pending_action_does_not_run_after_a_no(self) -> None:
        agent = self.agent(file("reply-pending"), numbered(file("reply-approval-rejected"), 2))
        client = self.client(agent)
        self.assertEqual(self.denied(lambda: client.guarded("a", self.fail)), "APPROVAL_REJECTED")

    def test_a_refusal_denies_and_costs_the_connection_only_where_it_has_no_request(self) -> None:
        names = [name for name in files("reply") if name.startswith("reply-refused-")]
        self.assertEqual(len(names), 6)
        for name in names:
            with self.subTest(name):
                request = next(iter(json.loads(file(name)).values())).get("request")
                agent = self.agent(file(name), numbered(file("reply-totals"), (request or 1) + 1))
                client = self.client(agent, request or 1)
                self.assertEqual(self.denied(lambda: client.guarded("a", self.fail)), "AGENT_UNAVAILABLE")
                client.totals()
                self.assertEqual(len(agent.heard), 2 if request is None else 1)

    def test_what_it_asks_for_is_what_the_agent_says(self) -> None:
        totals = self.client(self.agent(file("reply-totals")), 4).totals()
        self.assertEqual((totals["session_usd"], totals["run_usd"], totals["session_limit_usd"]), (0.3, 0.1, 5.0))
        self.assertNotIn("run_limit_usd", totals)
        (denial,) = self.client(self.agent(file("reply-denials")), 3).denials(10_000)
        self.assertEqual((denial["attempt"], denial["fate"]), ("connect to 192.0.2.1:443/tcp", "refused"))
        begun = Begun(ACTION_ID, True, os.getpid())
        self.assertTrue(self.client(self.agent(file("reply-ended")), 2).end(begun, "success"))
        self.assertFalse(self.client(self.agent(file("reply-ended-too-late")), 2).end(begun, "success"))

    def test_anything_unexpected_denies_and_ends_the_connection(self) -> None:
        allow = file("reply-allow")
        replies = {
            "an unknown decision": allow.replace(b'"allow"', b'"perhaps"'),
            "an unknown kind": allow.replace(b'"decision":{', b'"verdict":{'),
            "another kind": numbered(file("reply-totals"), 1),
            "another request": numbered(allow, 2),
            "no request": allow.replace(b'"request":1,', b""),
            "no action": allow.replace(b'"action_id"', b'"other_id"'),
            "no id": allow.replace(ACTION_ID.encode(), b"1"),
            "an allow with a denial": allow.replace(b'"decision":"allow"', b'"decision":"allow","denial":{}'),
            "a denial without a reason": file("reply-deny-paused").replace(b'"reason"', b'"season"'),
            "a wish without an id": file("reply-pending").replace(b'"id"', b'"ID"'),
            "two kinds": allow[:-1] + b',"ended":{}}',
            "a list": b"[1]",
            "no JSON": b"allow",
            "no text": b"\xff\xfe",
            "a closed connection": CLOSE,
        }
        for name, reply in replies.items():
            with self.subTest(name):
                agent = self.agent(reply)
                client = self.client(agent)
                self.assertEqual(self.denied(lambda: client.guarded("a", self.fail)), "AGENT_UNAVAILABLE")
                agent.wait_until(lambda: agent.ended == [0])

    def test_keys_that_it_does_not_know_are_ignored(self) -> None:
        reply = file("reply-allow-one-way").replace(b'"request":1,', b'"request":1,"new":{"a":[1]},')
        self.assertEqual(self.client(self.agent(reply)).guarded("a", lambda: 7), 7)

    def test_another_version_a_refused_hello_and_no_agent_deny(self) -> None:
        welcomes = [file("reply-welcome").replace(b'"version":1', b'"version":2'), file("reply-refused-version")]
        for welcome in [*welcomes, CLOSE]:
            client = self.client(self.agent(welcome=welcome))
            self.assertEqual(self.denied(lambda: client.guarded("a", self.fail)), "AGENT_UNAVAILABLE")
        client = Client("/nonexistent/agent.sock")
        self.addCleanup(lambda: client.socket.close())
        self.assertEqual(self.denied(lambda: client.guarded("a", self.fail)), "AGENT_UNAVAILABLE")

    def test_silence_denies_and_ends_the_connection(self) -> None:
        agent = self.agent()
        client = self.client(agent)
        self.assertEqual(self.denied(lambda: client.await_approval(APPROVAL, 0.05)), "AGENT_UNAVAILABLE")
        agent.wait_until(lambda: agent.ended == [0])


class Bodies(Case):
    def ending(self, body: Callable[[], Any], raised: Any = None) -> Dict[str, Any]:
        agent = self.agent(file("reply-allow-one-way"))
        client = self.client(agent)
        if raised is None:
            client.guarded("a", body)
        else:
            with self.assertRaises(raised):
                client.guarded("a", body)
        agent.wait_until(lambda: len(agent.said()) == 2)
        keys: Dict[str, Any] = json.loads(agent.said()[1])["end"]
        return keys

    def test_the_end_tells_what_came_of_the_body(self) -> None:
        def fails() -> None:
            raise ValueError("no such page")

        def is_interrupted() -> None:
            raise KeyboardInterrupt

        ending = self.ending(lambda: ["a crab"])
        self.assertEqual((ending["outcome"], ending["outputs"]), ("success", ["a crab"]))
        ending = self.ending(fails, ValueError)
        self.assertEqual((ending["outcome"], ending["outputs"]), ("error", "ValueError: no such page"))
        self.assertEqual(self.ending(is_interrupted, KeyboardInterrupt)["outcome"], "cancelled")

    def test_a_body_that_has_run_keeps_its_result_when_its_end_can_not_be_told(self) -> None:
        agent = self.agent(file("reply-allow"), CLOSE)
        self.assertEqual(self.client(agent).guarded("a", lambda: 7), 7)
        agent.wait_until(lambda: agent.ended == [0])

    def test_threads_have_connections_of_their_own(self) -> None:
        agent = self.agent(*[numbered(file("reply-totals"), 1)] * 2)
        client = self.client(agent)
        both_are_connected = threading.Barrier(2, timeout=PATIENCE)

        def ask() -> None:
            client.totals()
            both_are_connected.wait()
            client.socket.close()

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([len(frames) for frames in agent.heard], [2, 2])

    def test_a_forked_child_connects_anew_and_leaves_its_parents_action_alone(self) -> None:
        totals, ended = numbered(file("reply-totals"), 2), numbered(file("reply-ended"), 3)
        agent = self.agent(file("reply-allow"), totals, numbered(totals, 2), ended)
        client = self.client(agent)
        begun = client.begin("a")
        child = os.fork()
        if child == 0:
            said = client.end(begun, "success")
            client.totals()
            os._exit(0 if not said else 1)
        self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), 0)
        agent.wait_until(lambda: agent.ended == [1])
        client.totals()
        self.assertTrue(client.end(begun, "success"))
        kinds = [[next(iter(json.loads(text))) for text in frames] for frames in agent.heard]
        self.assertEqual(kinds, [["hello", "begin", "totals", "end"], ["hello", "totals"]])


class Payloads(unittest.TestCase):
    def test_what_is_within_bounds_is_kept_as_it_is(self) -> None:
        for value in [None, {"args": ["ü"], "kwargs": {"a": 1.5}}, "x" * 65_534, json.loads("[" * 100 + "]" * 100), "[" * 200]:
            self.assertEqual(payload(value), value)

    def test_what_is_longer_or_deeper_leaves_its_beginning_its_length_and_its_digest(self) -> None:
        for value in ["x" * 65_535, "ü" * 40_000, json.loads("[" * 101 + "]" * 101)]:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
            kept = payload(value)
            self.assertEqual((kept["bytes"], kept["sha256"]), (len(text), hashlib.sha256(text).hexdigest()))
            self.assertTrue(text.startswith(kept["truncated"].encode()) and len(kept["truncated"].encode()) <= 16_384)

    def test_what_is_no_json_says_so(self) -> None:
        holds_itself: List[Any] = []
        holds_itself.append(holds_itself)
        for value in [object(), {(1, 2): 3}, float("nan"), holds_itself]:
            self.assertRegex(payload(value), "^<no JSON: [A-Za-z]+>$")
        self.assertEqual(payload("\ud800"), "?")


if __name__ == "__main__":
    unittest.main()
