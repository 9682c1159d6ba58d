# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The verdict on a fabric, and how it is shown: on the terminal, as JSON and as a page."""

from __future__ import annotations

import json
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.filter import fabric_test as filters
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_html, _fabric_report, _fabric_verdict
from ansible_collections.dgx_spark.sglang.plugins.module_utils._table import render

SUMS = [{"bytes": 1 << 20, "seconds": 0.001, "right": True}, {"bytes": 1 << 26, "seconds": 0.004, "right": True}]
OPTIONS = {
    "made": "2026-11-23 12:00 UTC", "mtu": 9000, "skipped": "", "write_warn": 90, "write_fail": 40,
    "bus_warn": "", "bus_fail": "",
}  # fmt: skip

Row = dict[str, Any]


def plan(count: int, rdma: bool = True, device: str = "cuda") -> dict[str, Any]:
    rails = [{"interface": f"rail{n}", "hca": "", "subnet": f"192.168.10{n}.0/24"} for n in range(2)]
    ranks = [
        {
            "host": f"spark-{n}",
            "rank": n,
            "interfaces": ["rail0", "rail1"],
            "addresses": [f"192.168.10{rail}.{11 + n}" for rail in range(2)],
            "hcas": ["hca0", "hca1"] if rdma else [],
        }
        for n in range(count)
    ]
    return {"ranks": ranks, "rails": rails, "rdma": rdma, "device": device, "image": "i:1"}


def good(rail: int, test: str, sender: str, receiver: str, seen_by: str) -> Row:
    value = {"ping": 0.2, "write": 100.0 if seen_by == sender else None}.get(test)
    return {
        "round": 0, "rail": rail, "test": test, "from": sender, "to": receiver, "ok": True, "value": value, "unit": "",
        "found": "fine", "expected": "as planned", "mend": "", "seen_by": seen_by,
    }  # fmt: skip


def hosts(
    planned: dict[str, Any], change: Callable[[Row], None] = lambda row: None, **lost: list[dict[str, Any]] | None
) -> dict[str, dict[str, Any]]:
    """hostvars after a test; `change` may spoil a row; lost: what hosts (spark_2) registered instead of rows."""
    names = [rank["host"] for rank in planned["ranks"]]
    rows: dict[str, list[Row]] = {name: [] for name in names}
    for rail, test, sender, receiver in _fabric_verdict.due(names, 2, planned["rdma"]):
        for seen_by in (sender,) if test == "ping" else (sender, receiver):
            row = good(rail, test, sender, receiver, seen_by)
            change(row)
            rows[seen_by].append(row)
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        told = lost.get(name.replace("-", "_"), [{"skipped": True}, {"rows": rows[name]}])
        summed = {"ok": True, "problem": "", "mend": "", "results": SUMS, "nccl": {"taken": ["IB"], "hcas": ["hca0"]}}
        found[name] = {filters.SUM: summed, **({} if told is None else {filters.PAIRS: told})}
    return found


def report(
    count: int = 3,
    change: Callable[[Row], None] = lambda row: None,
    rdma: bool = True,
    device: str = "cuda",
    options: dict[str, Any] | None = None,
    **lost: list[dict[str, Any]] | None,
) -> dict[str, Any]:
    planned = plan(count, rdma, device)
    return filters.fabric_test_report(planned, hosts(planned, change, **lost), {**OPTIONS, **(options or {})})


def test_halves_meet() -> None:
    """In every round both halves of a pair name each other, and one of them is called; four nodes play three rounds."""
    planned = plan(4)
    tournament = {rank["host"]: _fabric_report.halves(planned, rank["host"]) for rank in planned["ranks"]}
    assert {len(halves) for halves in tournament.values()} == {3}
    for host, halves in tournament.items():
        assert len({half["peer"] for half in halves}) == 3
        for number, half in enumerate(halves):
            other = tournament[half["peer"]][number]
            assert other["peer"] == host
            assert other["called"] is not half["called"]
            assert [rail["peer_address"] for rail in half["rails"]] == [rail["address"] for rail in other["rails"]]
    first = tournament["spark-0"][0]
    assert first["peer"] == "spark-3"
    assert first["called"]
    assert first["rails"][1] == {
        "interface": "rail1", "address": "192.168.101.11", "peer_address": "192.168.101.14", "hca": "hca1",
    }  # fmt: skip
    assert [half.get("peer") for half in _fabric_report.halves(plan(3), "spark-0")] == [None, "spark-2", "spark-1"]
    assert _fabric_report.halves(plan(2, rdma=False), "spark-0")[0]["rails"][0]["hca"] == ""
    assert _fabric_report.halves(plan(1), "spark-0") == []
    assert _fabric_report.halves({**plan(2), "rails": []}, "spark-0") == []


def test_a_good_fabric() -> None:
    made = report()
    assert made["verdict"] == "ok"
    assert made["problems"] == []
    # Two rails, three pairs: pings and writes both ways, rping once.
    assert len(made["tests"]) == 2 * 3 * 5
    assert (made["nodes"], made["rounds"]) == (["spark-0", "spark-1", "spark-2"], 3)
    told = _fabric_report.summary(made)
    assert told == ("The fabric of 3 nodes: no failure, no warning (30 of 30 tests of pairs in 3 rounds; all-reduce).")
    assert json.loads(json.dumps(made)) == made


@pytest.mark.parametrize(
    ("value", "verdict"), [(90.0, "ok"), (89.9, "warn"), (40.0, "warn"), (39.9, "fail"), (None, "fail")]
)
def test_bandwidth(value: float | None, verdict: str) -> None:
    def change(row: Row) -> None:
        if (row["test"], row["rail"], row["from"], row["to"]) == ("write", 1, "spark-2", "spark-0"):
            row["value"] = value if row["seen_by"] == "spark-2" else None

    made = report(change=change)
    assert made["verdict"] == verdict
    if verdict != "ok":
        (problem,) = made["problems"]
        assert (problem["severity"], problem["test"], problem["where"]) == (
            verdict,
            "write",
            "rail 1: spark-2 > spark-0",
        )
        assert problem["found"] == ("no figure" if value is None else f"{value:g} Gb/s")
        assert problem["mend"]


def test_either_side_can_say_no() -> None:
    """A test passed if both say so; the sender's words count first."""

    def receiver_only(row: Row) -> None:
        if row["test"] == "write" and row["seen_by"] != row["from"] and row["from"] == "spark-1":
            row.update(ok=False, found="GIDs of others", mend="Mend it.")

    made = report(2, receiver_only, device="cpu")
    assert {problem["found"] for problem in made["problems"]} == {"GIDs of others"}

    def both(row: Row) -> None:
        if row["test"] == "rping":
            row.update(ok=False, found=f"as {row['seen_by']} sees it", mend="Mend it.")

    assert {problem["found"] for problem in report(2, both, device="cpu")["problems"]} == {"as spark-1 sees it"}


def test_equal_problems_are_told_once() -> None:
    """With the node that they have in common; a failure comes before a warning."""

    def change(row: Row) -> None:
        if row["test"] == "ping" and "spark-3" in (row["from"], row["to"]) and row["rail"] == 1:
            row.update(ok=False, value=None, found="0 of 5 answers", mend="Plug it in.")
        if row["test"] == "write" and row["rail"] == 0 and row["value"]:
            row["value"] = 80.0 if row["from"] == "spark-0" else 85.0

    problems = report(7, change)["problems"]
    assert [(problem["severity"], problem["where"], problem["found"]) for problem in problems] == [
        ("fail", "rail 1: spark-3 with spark-0, spark-1, spark-2, spark-4 and 2 more", "0 of 5 answers"),
        (
            "warn",
            "rail 0: spark-1 > spark-0, spark-0 > spark-1, spark-2 > spark-0, spark-0 > spark-2 and 38 more",
            "80 to 85 Gb/s",
        ),
    ]


@pytest.mark.parametrize(
    ("lost", "why"),
    [
        (None, "spark-1 took no part: it was out of reach, or its own checks failed"),
        ([{"unreachable": True, "msg": "ssh"}], "spark-1 went out of reach"),
        ([{"failed": True, "msg": "No module"}], "spark-1 could not test: No module"),
    ],
)
def test_a_node_is_missing(lost: list[dict[str, Any]] | None, why: str) -> None:
    """Every test with it has failed, as is told once, whatever the other side saw; the rest counts."""

    def change(row: Row) -> None:
        if "spark-1" in (row["from"], row["to"]):
            row.update(ok=False, found="it hung up", mend="Look at it.")

    made = report(3, change, spark_1=lost)
    (problem,) = made["problems"]
    assert (problem["where"], problem["found"], problem["test"]) == ("spark-1", why, "ping, rping, write")
    assert {row["verdict"] for row in made["tests"] if "spark-1" not in (row["from"], row["to"])} == {"ok"}
    assert filters.fabric_test_broken(plan(3), hosts(plan(3), change, spark_1=lost))
    assert "10 of 30 tests" in _fabric_report.summary(made)


def test_who_goes_out_of_reach_is_left_alone() -> None:
    seen = {"spark-0": {filters.PAIRS: [{"rows": []}]}, "spark-1": {filters.PAIRS: [{"unreachable": True}]}, "x": {}}
    assert filters.fabric_test_out(seen) == ["spark-1"]


@pytest.mark.parametrize(
    ("device", "options", "verdict", "expected"),
    [
        # 67 MB in 4 ms are 16.8 GB/s, times 4/3 on three nodes.
        ("cuda", {}, "ok", ""),
        ("cuda", {"bus_warn": "23.7"}, "warn", "at least 23.7 GB/s"),
        ("cuda", {"bus_warn": 30, "bus_fail": 25}, "fail", "at least 30 GB/s"),
        ("cpu", {}, "ok", ""),
        ("cpu", {"bus_fail": 25}, "fail", "at least 25 GB/s"),
    ],
)
def test_bus_bandwidth(device: str, options: dict[str, Any], verdict: str, expected: str) -> None:
    made = report(device=device, options=options)
    assert made["all_reduce"]["results"][1]["bus"] == pytest.approx(22.37, abs=0.01)
    assert made["verdict"] == verdict
    if expected:
        assert [(problem["found"], problem["expected"]) for problem in made["problems"]] == [
            ("22.37 GB/s of bus bandwidth", expected)
        ]


def test_unset_limits() -> None:
    assert _fabric_verdict.limits("cuda", (90, 40), None, "") == _fabric_verdict.Limits(90, 40, 21.9, 8)
    assert _fabric_verdict.limits("cpu", (90, 40), None, "") == _fabric_verdict.Limits(90, 40, None, None)


def test_slowest_rank_counts() -> None:
    result = _fabric_verdict.slowest([{"bytes": 4_000_000, "seconds": 0.001}, {"bytes": 4_000_000, "seconds": 0.002}])
    assert result == {"bytes": 4_000_000, "seconds": 0.002, "algorithm": 2.0, "bus": 2.0}


def test_all_reduce_fails() -> None:
    """A line a node; figures count only if all nodes have them."""
    planned = plan(3)
    seen = hosts(planned)
    seen["spark-1"][filters.SUM] = {"problem": "NCCL took sockets", "mend": "M.", "results": SUMS, "log": ["last"]}
    made = filters.fabric_test_report(planned, seen, OPTIONS)
    (problem,) = made["problems"]
    assert (problem["severity"], problem["where"], problem["found"]) == ("fail", "spark-1", "NCCL took sockets")
    assert made["all_reduce"]["results"]
    assert "<pre>last</pre>" in _fabric_html.page(made)
    seen["spark-2"][filters.SUM] = {"unreachable": True}
    made = filters.fabric_test_report(planned, seen, OPTIONS)
    assert [problem["found"] for problem in made["problems"]] == ["NCCL took sockets", "went out of reach"]
    assert made["all_reduce"]["results"] == []


def test_all_reduce_is_left_out() -> None:
    made = report(options={"skipped": "there is one <node> only"})
    assert made["verdict"] == "ok"
    assert _fabric_report.all_reduce_rows(made) == []
    assert "Left out: there is one &lt;node&gt; only." in _fabric_html.page(made)
    assert "all-reduce left out: there is one <node> only" in _fabric_report.summary(made)


def test_busy() -> None:
    planned = plan(4)
    seen: dict[str, dict[str, Any]] = {
        "spark-0": {"rank_seen": {"active_state": "activating", "container": {"running": False}}},
        "spark-1": {"rank_seen": {"active_state": "inactive", "container": {"running": False}}},
        "spark-2": {"rank_seen": {"active_state": "failed", "container": {"running": True}}},
        "spark-3": {},
    }
    assert filters.fabric_test_busy(planned, seen) == ["spark-0", "spark-2"]


def test_tables() -> None:
    """A matrix a test and rail; words tell the verdict where there is no colour."""

    def change(row: Row) -> None:
        if row["test"] == "write" and row["rail"] == 0 and row["value"]:
            row["value"] = {"spark-0": 99.95, "spark-1": 85.0, "spark-2": 0.1234}[row["from"]]
        if row["test"] == "ping" and (row["from"], row["to"]) == ("spark-0", "spark-2"):
            row.update(ok=False, value=None)

    made = report(change=change)
    shown = {table["name"]: table for table in _fabric_report.tables(made)}
    assert list(shown) == [
        "ping, rail 0",
        "ping, rail 1",
        "rping, rail 0",
        "rping, rail 1",
        "write, rail 0",
        "write, rail 1",
    ]
    write = shown["write, rail 0"]
    assert render(write["rows"], write["columns"]).splitlines() == [
        "from / to  spark-0     spark-1     spark-2",
        "---------  ----------  ----------  ---------",
        "spark-0    -           100.0       100.0",
        "spark-1    85.0 warn   -           85.0 warn",
        "spark-2    0.123 FAIL  0.123 FAIL  -",
    ]
    assert write["colors"]["spark-0"] == {"85.0 warn": "yellow", "0.123 FAIL": "red"}
    assert shown["ping, rail 1"]["rows"][0] == {
        "from / to": "spark-0",
        "spark-0": "-",
        "spark-1": "ok",
        "spark-2": "FAIL",
    }
    # rping is run once a pair, and moves data both ways.
    assert shown["rping, rail 0"]["rows"][1]["spark-0"] == shown["rping, rail 0"]["rows"][0]["spark-1"] == "ok"
    assert write["title"] == "ib_write_bw, Gb/s, rail 0 (rail0, 192.168.100.0/24)"
    many = _fabric_report.tables(report(9))[0]
    assert many["columns"][3] == {"key": "spark-2", "title": "2"}
    assert many["rows"][2]["from / to"] == "2 spark-2"


def test_without_rdma() -> None:
    """Only pings are due, and the page says why."""
    made = report(rdma=False, device="cpu")
    assert {row["test"] for row in made["tests"]} == {"ping"}
    assert _fabric_report.NO_RDMA in _fabric_html.page(made)


class Page(HTMLParser):
    """Open tags, and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta",):
            self.open.append(tag)
        self.fetched += [name for name, _ in attrs if name in ("src", "href")]
        if tag == "td":
            self.cells.append(str(dict(attrs).get("class")))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page() -> None:
    """Well-formed, fetches nothing, tells every cell in words too, and keeps what nodes said as text."""

    def change(row: Row) -> None:
        if row["test"] == "ping" and row["from"] == "spark-1":
            row.update(ok=False, found="<script>alert(1)</script>", mend="Mend it.")

    made = report(change=change)
    text = _fabric_html.page(made)
    page = Page()
    page.feed(text)
    assert page.open == ["html"] or not page.open
    assert page.fetched == []
    assert "url(" not in text
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert page.cells.count("fail") == 2 * 2 + len(made["problems"])
    assert "color-mix(in hsl, hsl(var(--ok-fast)) 100%" in text


def test_heat() -> None:
    row = {"test": "write", "value": 95.0}
    assert _fabric_html.heat(row, 90, 100) == 50
    assert _fabric_html.heat({**row, "value": 120.0}, 90, 100) == 100
    assert _fabric_html.heat({**row, "value": 80.0}, 90, 80) == 100
    assert _fabric_html.heat({"test": "ping", "value": 0.2}, 90, 100) is None
