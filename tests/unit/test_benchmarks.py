"""The benchmarks' own arithmetic, and the question that ends the demo, against a small server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.tests.unit.endpoint import serving

from benchmarks import bring_up, chat, preflight, validate
from benchmarks.runner import Run

COMPLETION: dict[str, Any] = {
    "choices": [{"message": {"content": "Hello."}}],
    "usage": {"completion_tokens": 3},
}


class Endpoint(BaseHTTPRequestHandler):
    """Answers as an OpenAI-compatible server does, with the completion its server holds."""

    def do_GET(self) -> None:
        self.reply({"data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["model"] == "tiny"
        self.reply(self.server.completion)  # type: ignore[attr-defined]

    def reply(self, content: dict[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *_: Any) -> None:
        """Stay silent."""


@pytest.fixture
def endpoint() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
        Thread(target=server.serve_forever, args=(0.01,)).start()
        yield server
        server.shutdown()


def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


def test_the_answer_is_shown(endpoint: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    endpoint.completion = COMPLETION  # type: ignore[attr-defined]
    assert chat.main([url(endpoint)]) == 0
    shown = capsys.readouterr().out
    assert "'Hello.'" in shown
    assert "3 tokens" in shown


@pytest.mark.parametrize("completion", [{}, {"choices": []}, COMPLETION | {"usage": {"completion_tokens": 0}}])
def test_no_answer_is_no_success(
    endpoint: ThreadingHTTPServer, completion: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    endpoint.completion = completion  # type: ignore[attr-defined]
    assert chat.main([url(endpoint)]) == 1
    assert "No answer." in capsys.readouterr().err


def test_a_run_counts_its_events() -> None:
    run = Run()
    run.count({"event": "playbook_on_task_start", "event_data": {"task": "t"}})
    for host, seconds, changed in (("a", 1.0, True), ("b", 2.0, False)):
        data = {"host": host, "task": "t", "duration": seconds, "res": {"changed": changed}}
        run.count({"event": "runner_on_ok", "event_data": data})
    row = bring_up.row_of(run)
    assert (row["tasks"], row["results"], row["changed"]) == (1, 2, 1)
    assert row["hosts"] == {"a": 1.0, "b": 2.0}
    assert row["slowest"] == {"t": 2.0}


def test_the_table_gives_the_ratio() -> None:
    rows = {bring_up.AGAIN: {"seconds": 10.0}, bring_up.AGAIN_DEFAULTS: {"seconds": 25.0}}
    text = bring_up.table({"date": "today", "machine": "this", "rows": rows})
    assert "2.50 times as long" in text


def test_preflight_is_held_against_what_was_promised() -> None:
    few, many = {"preflight": 6.0, "stage": 5.5, "none": 3.5}, {"preflight": 7.5, "stage": 7.0, "none": 4.0}
    table = preflight.table({4: few, 8: many})
    assert "| 8 | 7.5 | 7.0 | 4.0 | 3.0 |" in table
    assert (
        "4 nodes: 6.0 s of 10; 8 nodes take 1.25 times as long, of 1.5; a run of `site.yml` on 4 takes 2.0 s more"
        in table
    )


def test_key_of_the_api(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(key="0123456789abcdef") as (url, _):
        assert chat.main([url]) == 1
        assert "Mend: put the API's key into SGLANG_API_KEY" in capsys.readouterr().err
        monkeypatch.setenv("SGLANG_API_KEY", "0123456789abcdef")
        assert chat.main([url]) == 0


def test_validate_row_has_the_median_of_each_figure() -> None:
    last = validate.table({"four": [(1.0, 0.5), (9.0, 0.7), (2.0, 0.6)]}).splitlines()[-1]
    assert last == "| four | 2.00 | 1.00 | 9.00 | 0.60 |"


def test_validate_inventory_has_wrong_values_only_where_they_are_asked_for(tmp_path: Path) -> None:
    for wrong, bad in ((0, False), (4, True)):
        folder = validate.inventory_of(tmp_path / str(wrong), 8, wrong)
        group = yaml.safe_load((folder / "hosts.yml").read_text())["all"]["children"]["sparks"]
        assert len(group["hosts"]) == 8
        assert any("wrong" in value for value in group["vars"].values() if isinstance(value, dict)) is bad
