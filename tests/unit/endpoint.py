# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A small HTTP server on loopback that answers as SGLang does, or as badly as a test wants."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

# Status and body.
Reply = tuple[int, str]
USAGE = {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12}
CHAT = {
    "choices": [{"index": 0, "message": {"content": "hello"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
MODELS = {"object": "list", "data": [{"id": "glm-tiny", "object": "model"}]}
METRICS = '# HELP sglang:x y\n# TYPE sglang:x gauge\nsglang:x{model_name="glm-tiny"} 0.0\n'


def event(data: object) -> str:
    """One server-sent event."""
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def piece(text: str | None, reason: str | None = None, key: str = "content") -> dict[str, Any]:
    """One chunk of a streamed chat, as the server writes it."""
    return {"choices": [{"index": 0, "delta": {key: text}, "finish_reason": reason}], "usage": None}


PIECES = event(piece("", None)) + event(piece("hel")) + event(piece("lo")) + event(piece(None, "stop"))
END = event({"choices": [], "usage": USAGE})
DONE = event("[DONE]")
GOOD: dict[str, Reply] = {
    "/health": (200, ""),
    "/v1/models": (200, json.dumps(MODELS)),
    "chat": (200, json.dumps(CHAT)),
    "stream": (200, PIECES + END + DONE),
    "/metrics": (200, METRICS),
}


class Handler(BaseHTTPRequestHandler):
    """Gives the answers that the test has put into `answers`."""

    answers: ClassVar[dict[str, Reply | Callable[[dict[str, Any]], Reply]]] = {}
    key: str | None = None
    release: threading.Event
    slow: str = ""
    cut: int = 0
    seen: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        """A read-only path."""
        self.reply(self.path)

    def do_POST(self) -> None:
        """A chat, whole or streamed or with tools, or another path."""
        payload = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append(payload)
        chat = "tools" if "tools" in payload else "stream" if payload.get("stream") else "chat"
        self.reply(chat if self.path == "/v1/chat/completions" else self.path, payload)

    def reply(self, name: str, payload: dict[str, Any] | None = None) -> None:
        """Answer, late, short or refused if the test wants it so."""
        if name == self.slow:
            self.release.wait(30)
        answer = self.answers.get(name, (404, '{"detail": "Not Found"}'))
        status, body = answer(payload or {}) if callable(answer) else answer
        if self.key and self.headers["Authorization"] != f"Bearer {self.key}":
            status, body = 401, '{"error": "Unauthorized"}'
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) + self.cut))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@contextmanager
def serving(**changes: Any) -> Iterator[tuple[str, type[Handler]]]:
    """A server on loopback with the good answers, changed as the test says; yields its URL."""
    answers = {**GOOD, **changes.pop("answers", {})}
    release = threading.Event()
    body = {"answers": answers, "release": release, "seen": [], **changes}
    handler = type("ThisHandler", (Handler,), body)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", handler
    finally:
        release.set()
        server.shutdown()
        thread.join()
        server.server_close()
