# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The smoke test against a small HTTP server that misbehaves in every way we can think of."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _smoke, _smoke_answers
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc
from ansible_collections.dgx_spark.sglang.tests.unit.endpoint import (
    CHAT,
    DONE,
    END,
    METRICS,
    PIECES,
    event,
    piece,
    serving,
)


def checks(url: str, *, timeout: float = 10, **changes: Any) -> dict[str, dict[str, Any]]:
    """All checks against url, by their id."""
    options: dict[str, Any] = {
        "model": "glm-tiny",
        "api_key": None,
        "max_tokens": 16,
        "stream_usage": True,
        **changes,
    }
    target = _smoke.Target(url=url, timeout=timeout, **options)
    return {str(result["id"]): result for result in _smoke.run_checks(target, _smoke.CHECKS, _smoke.IDS)}


def test_all_good() -> None:
    """Every check passes; what was sent is what the answers need."""
    with serving() as (url, handler):
        results = checks(url)
        assert [result["ok"] for result in results.values()] == [True] * 5
        assert list(results) == ["HEALTH", "MODELS", "CHAT", "STREAM", "METRICS"]
        chat, stream = handler.seen
        assert chat["model"] == "glm-tiny"
        assert chat["max_tokens"] == 16
        assert "stream" not in chat
        assert stream["stream_options"] == {"include_usage": True}


BAD: list[tuple[str, str, tuple[int, str], str]] = [
    ("HEALTH", "/health", (503, ""), "HTTP 503 instead of 200"),
    ("MODELS", "/v1/models", (404, "{}"), "HTTP 404"),
    ("MODELS", "/v1/models", (200, '{"data": [{"id": "other"}]}'), "serves other, not glm-tiny"),
    ("MODELS", "/v1/models", (200, '{"data": []}'), "lists no model"),
    ("MODELS", "/v1/models", (200, "<html>"), "lists no model"),
    ("CHAT", "chat", (500, "boom"), "HTTP 500 instead of 200"),
    ("CHAT", "chat", (400, '{"object": "error", "message": "too long"}'), "HTTP 400 instead of 200: too long"),
    ("CHAT", "chat", (400, '{"error": {"message": "too long"}}'), "HTTP 400 instead of 200: too long"),
    ("CHAT", "chat", (200, '{"choices": ['), "not a JSON object"),
    ("CHAT", "chat", (200, "[]"), "not a JSON object"),
    ("CHAT", "chat", (200, '{"usage": {}}'), "no choices"),
    ("CHAT", "chat", (200, json.dumps({**CHAT, "usage": None})), "no usage"),
    ("CHAT", "chat", (200, json.dumps({**CHAT, "usage": {"completion_tokens": 0}})), "no compl"),
    ("CHAT", "chat", (200, json.dumps({**CHAT, "choices": [{}]})), "no finish_reason"),
    ("STREAM", "stream", (200, ""), "broke off after 0 chunks, without [DONE]"),
    ("STREAM", "stream", (200, PIECES + END), "broke off after 5 chunks, without [DONE]"),
    ("STREAM", "stream", (200, PIECES + DONE), "no usage"),
    ("STREAM", "stream", (200, event("{oops") + DONE), "event 1 is not a JSON object"),
    ("STREAM", "stream", (200, PIECES + END + DONE + END), "after [DONE]"),
    ("STREAM", "stream", (200, event(piece("x")) + END + DONE), "no chunk has a finish_reason"),
    ("STREAM", "stream", (200, event({"error": {"message": "out of memory"}})), "out of memory"),
    ("METRICS", "/metrics", (404, ""), "HTTP 404"),
    ("METRICS", "/metrics", (200, "python_info 1.0\n# sglang:x 1\n"), "no series"),
]


@pytest.mark.parametrize(("check", "path", "answer", "words"), BAD)
def test_one_bad_answer(check: str, path: str, answer: tuple[int, str], words: str) -> None:
    """The check that it concerns fails with words and a mend; all others still run and pass."""
    with serving(answers={path: answer}) as (url, _):
        results = checks(url)
    failed = [name for name, result in results.items() if not result["ok"]]
    assert failed == [check]
    assert words in results[check]["problem"]
    assert results[check]["mend"]


def test_only_an_error_may_hold_no_text() -> None:
    """A model that ends at once is no failure of the server; a whole answer without text is."""
    silent = event(piece(None, "stop"))
    for tokens, ok in ((1, True), (16, False)):
        end = event({"choices": [], "usage": {"completion_tokens": tokens}})
        with serving(answers={"stream": (200, silent + end + DONE)}) as (url, _):
            assert checks(url)["STREAM"]["ok"] is ok


def test_usage_may_be_waived() -> None:
    """expect_stream_usage: false."""
    with serving(answers={"stream": (200, PIECES + DONE)}) as (url, _):
        assert checks(url, stream_usage=False)["STREAM"]["ok"]


def test_nothing_listens() -> None:
    """All checks fail in words, none raises."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        results = checks(f"http://127.0.0.1:{free.getsockname()[1]}")
    assert all("nothing listens there" in result["problem"] for result in results.values())
    assert all("sglang-rank" in result["mend"] for result in results.values())


def test_timeout() -> None:
    """A server that takes the request and says nothing, as with a frozen peer."""
    with serving(slow="chat") as (url, _):
        results = checks(url, timeout=0.5)
    assert results["CHAT"]["problem"] == "no answer within 0.5 s"
    assert results["STREAM"]["ok"]


def test_body_cut_off() -> None:
    """Fewer bytes than announced: the body so far is judged, and the break is told."""
    with serving(cut=50) as (url, _):
        results = checks(url)
    assert not any(result["ok"] for result in results.values())


def test_key() -> None:
    """The key is sent; without it the mend names api_key."""
    with serving(key="secret") as (url, _):
        results = checks(url, api_key="secret")
        assert all(result["ok"] for result in results.values())
        assert results["KEY"]["received"] == '{"error": "Unauthorized"}'
        assert "KEY" not in checks(url)
        refused = checks(url)["MODELS"]
        assert "401" in refused["problem"]
        assert "api_key" in refused["mend"]


def test_an_api_that_is_open_to_all() -> None:
    """The server has no key: whoever gives one is answered, and so is everybody else."""
    with serving() as (url, _):
        failed = [result for result in checks(url, api_key="secret").values() if not result["ok"]]
    assert [result["id"] for result in failed] == ["KEY"]
    assert failed[0]["problem"] == "it answers without a key"
    assert "site.yml" in failed[0]["mend"]


def test_not_http() -> None:
    """Something else listens on the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            for _ in range(5):
                peer, _address = listener.accept()
                with peer:
                    peer.recv(4096)
                    peer.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        results = checks(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert not any(result["ok"] for result in results.values())


STREAMS: list[tuple[str, Callable[[_smoke_answers.Stream], object], object]] = [
    (PIECES + END + DONE, lambda stream: stream.text, "hello"),
    ((PIECES + END + DONE).replace("\n", "\r\n"), lambda stream: stream.text, "hello"),
    (": ping\n\n" + PIECES + DONE, lambda stream: stream.chunks, 4),
    (
        event(piece("think", key="reasoning_content")) + event(piece("say")),
        lambda stream: stream.text,
        "thinksay",
    ),
    ('data: {"choices":\ndata: []}\n\n', lambda stream: stream.chunks, 1),
    ("data:[DONE]\n\n", lambda stream: stream.done, True),
    (event({"choices": [None, 7]}), lambda stream: stream.problem, None),
    (event({"choices": [{"delta": {"content": 3}}]}), lambda stream: stream.text, ""),
    ("", lambda stream: (stream.done, stream.chunks, stream.usage), (False, 0, None)),
]


@pytest.mark.parametrize(("body", "look", "value"), STREAMS)
def test_parse_stream(body: str, look: Callable[[_smoke_answers.Stream], object], value: object) -> None:
    """Server-sent events in their odd but allowed shapes."""
    assert look(_smoke_answers.parse_stream(body)) == value


def test_parse_metrics() -> None:
    """Samples with and without labels; comments and broken lines are passed over."""
    text = METRICS + 'a{b="} 1",c="d"} 2.5 1700000000\na{} +Inf\nplain 3\nbroken\nbad x\n'
    series = _smoke_answers.parse_metrics(text)
    assert series == {"sglang:x": [0.0], "a": [2.5, float("inf")], "plain": [3.0]}


def test_module(tmp_path: Path) -> None:
    """The real module: it fails with every mend, or reports only, as the task wants."""
    with serving(answers={"/metrics": (404, "")}) as (url, _):
        arguments = {"url": url, "model": "wrong", "timeout": 10}
        failed = adhoc.run(tmp_path, "smoke_test", arguments).result
        assert failed["failed"]
        assert "2 of 5" in failed["msg"]
        assert "--enable-metrics" in failed["msg"]
        assert "not wrong" in failed["msg"]
        assert len(failed["checks"]) == 5
        told = adhoc.run(tmp_path, "smoke_test", {**arguments, "fail": False}, check=True).result
        assert not told["failed"]
        assert not told["ok"]
        some = {"url": url, "checks": ["CHAT", "HEALTH"]}
        passed = adhoc.run(tmp_path, "smoke_test", some).result
        assert passed["ok"]
        assert [check["id"] for check in passed["checks"]] == ["HEALTH", "CHAT"]
