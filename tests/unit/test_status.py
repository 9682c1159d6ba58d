"""The rows of the status table, for every state that a node can be in."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._status import failures, status_row

PLAN = {"image": "x:1"}
RANK = {"host": "spark-1", "rank": 1}
SERVING: dict[str, Any] = {
    "installed": True,
    "active_state": "active",
    "phase": "serving",
    "phase_detail": "",
    "failure": None,
    "since": "2026-11-23T12:31:58Z",
    "container": {"image": "x:1"},
    "model_class": "Glm4MoeForCausalLM",
    "health": 200,
    "health_error": None,
}


LAST = {"first_rank": 2, "host": "spark-2", "why": "it said: boom", "at": "2026-11-23T12:00:09Z", "by_hand": False}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (None, {"state": "unreachable"}),
        ({"installed": False}, {"state": "not installed"}),
        (SERVING, {"state": "active", "phase": "serving", "model": "Glm4MoeForCausalLM", "health": "ok"}),
        ({**SERVING, "health": 503}, {"health": "503"}),
        ({**SERVING, "health": None, "health_error": "refused"}, {"health": "no answer"}),
        ({**SERVING, "container": {"image": "registry.lan:5000/a/b:1"}}, {"image": "a/b:1"}),
        ({**SERVING, "container": {"image": "lmsysorg/sglang:spark"}}, {"image": "lmsysorg/sglang:spark"}),
        ({"unreachable": True, "msg": "no route"}, {"state": "unreachable"}),
        ({"failed": True, "msg": "no python"}, {"state": "error", "failure": "no python"}),
        (
            {**SERVING, "health": None, "phase": "failed", "failure": "invalid choice"},
            {"phase": "failed", "failure": "invalid choice"},
        ),
        (
            {**SERVING, "health": None, "phase": "starting server", "previous": {"failure": "invalid choice"}},
            {"phase": "starting server", "failure": "invalid choice"},
        ),
        (
            {**SERVING, "health": None, "last_end": LAST, "previous": {"failure": "invalid choice"}},
            {"failure": "rank 2 (spark-2) failed first: it said: boom (2026-11-23T12:00Z)"},
        ),
        (
            {**SERVING, "health": None, "last_end": {**LAST, "why": "stopped by hand", "by_hand": True}},
            {"failure": "rank 2 (spark-2) was stopped by hand (2026-11-23T12:00Z)"},
        ),
        ({**SERVING, "last_end": LAST}, {"failure": ""}),
        ({**SERVING, "previous": {"failure": "invalid choice"}}, {"phase": "serving", "failure": ""}),
        ({**SERVING, "container": {"image": None}, "model_class": None}, {"image": "x:1", "model": "-"}),
    ],
)
def test_row(seen: dict[str, Any] | None, expected: dict[str, str]) -> None:
    row = status_row(PLAN, RANK, seen)
    assert (row["node"], row["rank"]) == ("spark-1", "1")
    assert expected.items() <= row.items()


def test_equal_failures_are_told_once() -> None:
    rows = [
        {"node": "a", "failure": "invalid choice"},
        {"node": "b", "failure": ""},
        {"node": "c", "failure": "invalid choice"},
        {"node": "d", "failure": "port in use"},
        {"node": "e"},
    ]
    assert failures(rows) == "a, c: invalid choice\nd: port in use"
