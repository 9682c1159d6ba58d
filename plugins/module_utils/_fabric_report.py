# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The report of a fabric test as plain data, and what the terminal shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_verdict as verdict
from ansible_collections.dgx_spark.sglang.plugins.module_utils._fabric_rounds import Pair, partners, rounds

TITLES = {
    "ping": "Pings of the whole MTU that may not be fragmented",
    "rping": "rping",
    "write": "ib_write_bw, Gb/s",
}
"""What the tests are called in tables, in order."""

NAMES_SHOWN = 8
"""With more nodes than that, the columns have ranks for titles."""

NO_RDMA = "RDMA is not planned for these rails: rping and ib_write_bw did not run."

CORNER = "from / to"

Report = dict[str, Any]


def halves(plan: Mapping[str, Any], host: str) -> list[dict[str, Any]]:
    """What a host needs to know for fabric_pair, a round an entry; an empty one where it pauses.

    That is {peer, called, rails: [{interface, address, peer_address, hca}]}.
    """
    ranks = plan["ranks"]
    me = next(number for number, rank in enumerate(ranks) if rank["host"] == host)
    opposite = [partners(pairs).get(me) for pairs in _tournament(plan)]
    return [{} if peer is None else _half(ranks[me], ranks[peer]) for peer in opposite]


def _tournament(plan: Mapping[str, Any]) -> list[list[Pair]]:
    """Without a fabric, or another node on it, there is nothing to test."""
    return rounds(len(plan["ranks"])) if plan["rails"] and len(plan["ranks"]) > 1 else []


def _half(rank: Mapping[str, Any], peer: Mapping[str, Any]) -> dict[str, Any]:
    hcas = rank["hcas"] or [""] * len(rank["addresses"])
    rails = [
        {"interface": interface, "address": address, "peer_address": other, "hca": hca}
        for interface, address, other, hca in zip(rank["interfaces"], rank["addresses"], peer["addresses"], hcas)
    ]
    return {"peer": peer["host"], "called": rank["rank"] < peer["rank"], "rails": rails}


def report(
    plan: Mapping[str, Any],
    pairs: Mapping[str, Sequence[Mapping[str, Any]] | None],
    sums: Mapping[str, Mapping[str, Any] | None],
    at: verdict.Limits,
    about: Mapping[str, Any],
) -> Report:
    """Everything that was seen and what it is worth.

    pairs, sums: for each host what it registered of fabric_pair (a round an entry) and of fabric_all_reduce.
    about: `made` (when, as text), `mtu` (bytes), `skipped` (why the all-reduce did not run, "" if it did).
    """
    hosts = [str(rank["host"]) for rank in plan["ranks"]]
    rows = verdict.judge_pairs(hosts, len(plan["rails"]), bool(plan["rdma"]), pairs, at)
    summed = verdict.judge_all_reduce(hosts, str(plan["device"]), sums, str(about["skipped"]), at)
    problems = verdict.pair_problems(rows) + summed["problems"]
    return {
        "verdict": verdict.worst(problem["severity"] for problem in problems),
        "made": str(about["made"]),
        "nodes": hosts,
        "rails": [{"interface": rail["interface"], "subnet": rail["subnet"]} for rail in plan["rails"]],
        "rdma": bool(plan["rdma"]),
        "mtu": int(about["mtu"]),
        "image": plan["image"],
        "limits": asdict(at),
        "rounds": len(_tournament(plan)),
        "problems": problems,
        "tests": rows,
        "all_reduce": summed,
    }


def cell(row: Mapping[str, Any] | None) -> tuple[str, str]:
    """A test's text in a matrix, and its verdict; a text tells its verdict without colour, too."""
    if row is None:
        return "", ""
    if not row["tested"]:
        return "?", verdict.FAIL
    word = {verdict.OK: "", verdict.WARN: " warn", verdict.FAIL: " FAIL"}[row["verdict"]]
    if row["test"] == "write" and row["value"] is not None:
        return f"{_figure(row['value'])}{word}", str(row["verdict"])
    return word.strip() or "ok", str(row["verdict"])


def _figure(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.3f}"


def matrices(made: Report) -> list[dict[str, Any]]:
    """{test, rail, title, cells: {sender: {receiver: row}}}: one for each test and rail that has rows."""
    found: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in made["tests"]:
        cells = found.setdefault((row["test"], row["rail"]), {})
        cells.setdefault(row["from"], {})[row["to"]] = row
        if row["test"] == "rping":
            # It sends data there and back, by RDMA both ways.
            cells.setdefault(row["to"], {})[row["from"]] = row
    order = sorted(found, key=lambda key: (list(TITLES).index(key[0]), key[1]))
    return [
        {"test": test, "rail": rail, "title": _title(made, test, rail), "cells": found[test, rail]}
        for test, rail in order
    ]


def _title(made: Report, test: str, rail: int) -> str:
    place = made["rails"][rail]
    return f"{TITLES[test]}, rail {rail} ({place['interface']}, {place['subnet']})"


def tables(made: Report) -> list[dict[str, Any]]:
    """The matrices as the module `table` takes them: {title, columns, rows, colors}, each with a short name."""
    names = made["nodes"]
    wide = len(names) > NAMES_SHOWN
    columns = [CORNER, *({"key": name, "title": str(rank) if wide else name} for rank, name in enumerate(names))]
    painted = {verdict.OK: "green", verdict.WARN: "yellow", verdict.FAIL: "red"}
    found = []
    for matrix in matrices(made):
        rows: list[dict[str, str]] = []
        colors: dict[str, dict[str, str]] = {name: {} for name in names}
        for rank, sender in enumerate(names):
            row = {CORNER: f"{rank} {sender}" if wide else sender, sender: "-"}
            for receiver, test in matrix["cells"].get(sender, {}).items():
                row[receiver], how = cell(test)
                colors[receiver][row[receiver]] = painted[how]
            rows.append(row)
        name = f"{matrix['test']}, rail {matrix['rail']}"
        found.append({"name": name, "title": matrix["title"], "columns": columns, "rows": rows, "colors": colors})
    return found


def all_reduce_rows(made: Report) -> list[dict[str, Any]]:
    """The all-reduce's figures for a table: size, milliseconds, GB/s."""
    return [
        {
            "size": _size(result["bytes"]),
            "milliseconds": round(result["seconds"] * 1000, 3),
            "GB/s": round(result["algorithm"], 3),
            "bus GB/s": round(result["bus"], 3),
        }
        for result in made["all_reduce"]["results"]
    ]


def _size(count: int) -> str:
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):g} {unit}"
    return f"{count} B"


def summary(made: Report) -> str:
    """The verdict in a sentence."""
    failed, warned = (
        sum(1 for problem in made["problems"] if problem["severity"] == severity)
        for severity in (verdict.FAIL, verdict.WARN)
    )
    counts = [
        f"{count} {word}{'' if count == 1 else 's'}" for count, word in ((failed, "failure"), (warned, "warning"))
    ]
    shown = ", ".join(text for text, count in zip(counts, (failed, warned)) if count) or "no failure, no warning"
    tests = f"{sum(1 for row in made['tests'] if row['tested'])} of {len(made['tests'])} tests of pairs"
    summed = f"all-reduce left out: {made['all_reduce']['skipped']}" if made["all_reduce"]["skipped"] else "all-reduce"
    rounds = f"{made['rounds']} round{'' if made['rounds'] == 1 else 's'}"
    return f"The fabric of {len(made['nodes'])} nodes: {shown} ({tests} in {rounds}; {summed})."


def broken(pairs: Mapping[str, Sequence[Mapping[str, Any]] | None]) -> bool:
    """Whether a node is missing or a pair did not pass: then an all-reduce over all nodes would only hang."""
    rows = [row for told in pairs.values() for answer in told or () for row in answer.get("rows") or ()]
    return any(verdict.absence(told) for told in pairs.values()) or not all(row["ok"] for row in rows)
