"""A platform on the loopback that answers as the seed's does, and can be told to misbehave."""

from __future__ import annotations

import json
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Optional

TOKEN = "token-1"


class Platform:
    """Its answers are attributes; what it was asked is kept."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.batches: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        # Status for a batch; 202 accepts it.
        self.judge: Callable[[list[dict[str, Any]]], int] = lambda entries: 202
        self.before_answer: Callable[[], None] = lambda: None
        self.policies: Any = []
        self.policy_status = 200
        self.killed: set[tuple[str, str]] = set()
        self.kill_answer: Optional[tuple[int, Any]] = None
        self.headers: dict[str, str] = {}
        self._server: Optional[ThreadingHTTPServer] = None
        self.port = 0

    def __enter__(self) -> Platform:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def up(self) -> None:
        platform = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                platform._get(self)

            def do_POST(self) -> None:
                platform._post(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def down(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def entries(self) -> list[dict[str, Any]]:
        with self.lock:
            return [entry for batch in self.batches for entry in batch["entries"]]

    def seqs(self) -> list[int]:
        return [entry["seq"] for entry in self.entries()]

    def twice(self) -> list[int]:
        return [seq for seq, count in Counter(self.seqs()).items() if count > 1]

    def _note(self, handler: BaseHTTPRequestHandler) -> bool:
        with self.lock:
            self.requests.append((handler.command, handler.path, dict(handler.headers)))
        return handler.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _post(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        if not self._note(handler):
            self._answer(handler, 401, {"detail": "no such token"})
            return
        if handler.path != "/api/v1/ingest":
            self._answer(handler, 404, {})
            return
        with self.lock:
            status = self.judge(body["entries"])
            if status == 202:
                self.batches.append(body)
        self.before_answer()
        self._answer(handler, status, {"accepted": len(body["entries"])} if status == 202 else {"detail": f"no: {status}"})

    def _get(self, handler: BaseHTTPRequestHandler) -> None:
        if not self._note(handler):
            self._answer(handler, 401, {})
            return
        path, _, query = handler.path.partition("?")
        if path == "/api/v1/policies/sync":
            self._answer(handler, self.policy_status, self.policies)
        elif path == "/api/v1/kill-switch/check":
            asked = dict(urllib.parse.parse_qsl(query))
            said = {"is_killed": (asked["target_type"], asked["target_id"]) in self.killed}
            self._answer(handler, *(self.kill_answer or (200, said)))
        else:
            self._answer(handler, 404, {})

    def _answer(self, handler: BaseHTTPRequestHandler, status: int, content: Any) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            handler.send_response(status)
            for name, value in self.headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)
        except OSError:
            pass  # whoever asked is gone
