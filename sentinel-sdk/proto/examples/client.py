"""A whole client of Sentinel's application protocol in plain Python: read it beside `PROTOCOL.md` to write one in another language.

Invariant: a body runs only after a plain `allow`. Everything else, and all that isn't understood, raises `Denied`.
"""
import contextlib, functools, hashlib, itertools, json, os, re, socket, threading, time, uuid
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, TypeVar

Keys = Dict[str, Any]
Result = TypeVar("Result")
Begun = NamedTuple("Begun", [("action_id", str), ("acknowledge_end", bool), ("pid", int)])
VERSION, DEADLINE, MOST_FRAME_BYTES, MOST_DOLLARS, MOST_TAGS = 1, 5.0, 1_048_576, 4_000_000, 32
MOST_PAYLOAD_BYTES, MOST_PAYLOAD_DEPTH, KEPT_BYTES = 65_536, 100, 16_384
VISIBLE = "[^\0-\x1f\x7f-\x9f\xad\u061c\u115f-\u1160\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
to_json = functools.partial(json.dumps, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Denied(Exception):
    """The body must not run. `args`: the code, by the agent or this client itself, and the agent's denial or a cause in words."""


class Client(threading.local):
    """May be shared by any number of threads and forked children: each has a connection of its own, if `pid` is its process."""
    def __init__(self, path: Optional[str] = None, name: str = "example/1.0") -> None:  # called anew in each thread
        self.path = path or os.environ.get("AGENT_SENTINEL_SOCKET") or "/run/agent-sentinel/agent.sock"
        self.name, self.numbers, self.pid, self.socket = name, itertools.count(1), 0, socket.socket(socket.AF_UNIX)

    def guarded(self, action: str, body: Callable[[], Result], cost_usd: float = 0.0, tags: Sequence[str] = (),
                inputs: Any = None) -> Result:
        begun = self.begin(action, cost_usd, tags, inputs)
        ending: Tuple[str, Any] = ("cancelled", None)  # by Ctrl-C, for example
        try:
            result = body()
            ending = ("success", result)
            return result
        except Exception as error:
            ending = ("error", f"{type(error).__name__}: {error}")
            raise
        finally:
            self.end(begun, *ending)

    def begin(self, action: str, cost_usd: float = 0.0, tags: Sequence[str] = (), inputs: Any = None,
              risk_level: Optional[str] = None, **more: Any) -> Begun:
        # The agent closes the connection on what it can't read, so that is found out here.
        risk = {} if risk_level is None else {"risk_level": risk_level}
        rules = [(VISIBLE + "{1,128}", [action]), (VISIBLE + "{1,64}", tags), ("[A-Za-z0-9._-]{1,32}", risk.values())]
        are_names = all(re.fullmatch(rule, name) for rule, names in rules for name in names)
        if not are_names or len(tags) > MOST_TAGS or not 0 <= cost_usd <= MOST_DOLLARS:
            raise Denied("INVALID_REQUEST", f"{action!a}, {list(tags)!a}, {risk!a} at {cost_usd} dollars")
        keys = {"action": action, "cost_usd": cost_usd, "tags": list(tags), **risk, "inputs": payload(inputs), **more}
        with self.connected():
            while True:
                answer = self.ask("begin", keys, "decision")
                if answer["decision"] == "deny":
                    raise Denied(answer["denial"]["reason"]["code"], answer["denial"])
                if answer["decision"] == "pending":  # After a human's yes the same is asked again.
                    self.await_approval(answer["approval"]["id"], answer["approval"]["expires_in_ms"] / 1000 + DEADLINE)
                elif answer["decision"] == "allow" and "denial" not in answer:
                    return Begun(str(uuid.UUID(answer["action_id"])), answer["acknowledge_end"] is not False, self.pid)
                else:
                    raise ConnectionError(f"an unknown decision: {answer}")

    def await_approval(self, approval: str, seconds: float) -> None:
        with self.connected():
            answer = self.ask("await_approval", {"approval": approval}, "approval", seconds)
            if answer["approved"] is not True:
                raise Denied(answer["denial"]["reason"]["code"], answer["denial"])

    def cancel_approval(self, approval: str) -> None:
        self.ask("cancel_approval", {"approval": approval}, "approval")

    def end(self, begun: Begun, outcome: str, outputs: Any = None, cost_usd: Optional[float] = None, **more: Any) -> bool:
        """Whether the agent has settled it, as far as that is waited for. Raises nothing: the body has run."""
        cost = {"cost_usd": cost_usd} if cost_usd is not None and 0 <= cost_usd <= MOST_DOLLARS else {}
        keys = {"action_id": begun.action_id, "outcome": outcome, **cost, "outputs": payload(outputs), **more}
        with contextlib.suppress(Denied):  # What can't be said, the end of the connection says.
            if begun.pid == os.getpid():  # Else a forked child has come out of its parent's body.
                return self.ask("end", keys, "ended" if begun.acknowledge_end else None).get("settled") is not False
        return False

    def totals(self) -> Keys:
        return self.ask("totals", {}, "totals")

    def reset_run(self) -> Keys:
        return self.ask("reset_run", {}, "totals")

    def denials(self, within_ms: int) -> List[Keys]:
        return list(self.ask("denials", {"within_ms": within_ms}, "denials")["denials"])

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """What goes wrong in here denies, and ends the connection: an answer that comes late must not stay an `allow`."""
        try:
            if self.pid != os.getpid():
                self.socket.close()  # In a forked child it is the parent's, who goes on with it.
                self.socket, self.pid = socket.socket(socket.AF_UNIX), os.getpid()
                self.socket.settimeout(DEADLINE)
                self.socket.connect(self.path)
                if self.ask("hello", {"version": VERSION, "client": self.name}, "welcome")["version"] != VERSION:
                    raise ConnectionError("the agent speaks another version")
            yield
        except Denied:
            raise
        except BaseException as error:
            self.pid = 0
            with contextlib.suppress(OSError), self.socket:
                self.socket.shutdown(socket.SHUT_RDWR)  # To close alone is not enough: forked children have copies.
            raise Denied("AGENT_UNAVAILABLE", repr(error)) if isinstance(error, Exception) else error

    def ask(self, kind: str, keys: Keys, answer: Optional[str], seconds: float = DEADLINE) -> Keys:
        """Sends a message, and reads the answer if there is to be one."""
        with self.connected():
            keys = {"request": next(self.numbers), **keys} if answer and kind != "hello" else keys
            text = to_json({kind: keys}).encode()
            self.socket.settimeout(DEADLINE)
            self.socket.sendall(len(text).to_bytes(4, "little") + text)
            if answer is None:
                return {}
            until = time.monotonic() + seconds
            length = int.from_bytes(self.read(4, until), "little")
            if not 0 < length <= MOST_FRAME_BYTES:
                raise ConnectionError(f"a frame of {length} bytes")
            [(got, said)] = json.loads(self.read(length, until)).items()
            if got == "refused" and "request" in keys and said.get("request") == keys["request"]:
                raise Denied("AGENT_UNAVAILABLE", f"it refuses: {said['code']}: {said['message']}")
            if got != answer or said.get("request") != keys.get("request"):
                raise ConnectionError(f"`{got}` instead of `{answer}`: {said}")
            return dict(said)

    def read(self, length: int, until: float) -> bytes:
        data = b""
        while len(data) < length:
            self.socket.settimeout(max(until - time.monotonic(), 0.001))
            data += (part := self.socket.recv(length - len(data)))
            if not part:
                raise ConnectionError("the agent has closed the connection")
        return data


def payload(value: Any) -> Any:
    """What is recorded of a value: itself, its beginning and a digest where it is too long or deep, or that it is no JSON."""
    try:
        text = to_json(value)
    except Exception as error:
        text = to_json(f"<no JSON: {type(error).__name__}>")
    data, brackets = text.encode("utf-8", "replace"), re.sub(r'"(\\.|[^"\\])*"', "", text)
    depth = max(itertools.accumulate((mark in "[{") - (mark in "]}") for mark in brackets), default=0)
    if len(data) <= MOST_PAYLOAD_BYTES and depth <= MOST_PAYLOAD_DEPTH:
        return json.loads(data)
    kept = data[:KEPT_BYTES].decode("utf-8", "ignore")
    return {"truncated": kept, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
