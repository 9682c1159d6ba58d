# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The verdict on a fabric, from what all nodes saw of each other: every test that was due, judged, with its mend."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

OK, WARN, FAIL = "ok", "warn", "fail"

BUS_WARN, BUS_FAIL = 21.9, 8.0
"""GB/s of bus bandwidth on GPUs: NVIDIA's pass mark is 21.875; 3 is one misconfiguration, 2 is sockets."""

PLACES_SHOWN = 4
"""How many of those with the same problem are named one by one."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Limits:
    """Below which figures a test warns or fails. write: Gb/s of a rail; bus: GB/s of the all-reduce, None: no limit."""

    write_warn: float
    write_fail: float
    bus_warn: float | None
    bus_fail: float | None


def limits(device: str, write: tuple[float, float], bus_warn: object, bus_fail: object) -> Limits:
    """With what holds for the bus bandwidth where it isn't set (None or an empty string): it is judged on GPUs only."""
    gpu = device == "cuda"
    values = [
        (standard if gpu else None) if given in (None, "") else float(str(given))
        for given, standard in ((bus_warn, BUS_WARN), (bus_fail, BUS_FAIL))
    ]
    return Limits(*write, *values)


def due(hosts: Sequence[str], rails: int, rdma: bool) -> Iterator[tuple[int, str, str, str]]:
    """Rail, test, sender and receiver of every test; of a pair the one of lower rank is called by rping."""
    for rail in range(rails):
        for first, second in combinations(hosts, 2):
            yield from ((rail, "ping", first, second), (rail, "ping", second, first))
            if rdma:
                yield (rail, "rping", second, first)
                yield from ((rail, "write", second, first), (rail, "write", first, second))


def absence(answers: Sequence[Mapping[str, Any]] | None) -> str:
    """Why a host has no rows, "" if nothing is known. answers: what it registered, a round an entry; None: nothing."""
    if answers is None:
        return "took no part: it was out of reach, or its own checks failed"
    for answer in answers:
        if answer.get("unreachable"):
            return "went out of reach"
        if answer.get("failed"):
            return f"could not test: {answer.get('msg', 'it gave no reason')}"
    return ""


def judge_pairs(
    hosts: Sequence[str],
    rails: int,
    rdma: bool,
    answers: Mapping[str, Sequence[Mapping[str, Any]] | None],
    at: Limits,
) -> list[Row]:
    """Every test that was due, in order, with its verdict.

    answers: for each host what fabric_pair returned, a round an entry. Both hosts tell of a test that they ran
    together: it passed if both say so; the sender's words and figure count first.
    """
    views: dict[tuple[Any, ...], list[Row]] = {}
    for answer in (answer for told in answers.values() for answer in told or () if isinstance(answer, Mapping)):
        for row in answer.get("rows") or ():
            key = (row["rail"], row["test"], row["from"], row["to"])
            views.setdefault(key, []).append(dict(row))
    gone = {host: absence(answers.get(host)) for host in hosts}
    rows = []
    for key in due(hosts, rails, rdma):
        rail, test, sender, receiver = key
        seen = sorted(views.get(key, []), key=lambda row: (row["ok"], row["seen_by"] != row["from"]))
        about = {"rail": rail, "test": test, "from": sender, "to": receiver}
        absent = next((host for host in (sender, receiver) if gone[host]), "")
        if not seen or (absent and not seen[0]["ok"]):
            rows.append({**about, **_untested(absent, gone.get(absent, ""), seen)})
            continue
        # What failed for one side has no figure, whatever the other one measured.
        values = [row["value"] for row in seen if row["value"] is not None and seen[0]["ok"]]
        rows.append({**about, **_judged({**seen[0], "value": values[0] if values else None}, at)})
    return rows


def _untested(absent: str, reason: str, seen: Sequence[Row]) -> Row:
    found = f"{absent} {reason}" if absent else "neither node told of it"
    mend = f"Bring {absent} back, and see what is said about it above." if absent else "Run the test again with -v."
    value: Row = {"round": seen[0]["round"] if seen else None, "value": None, "unit": "", "expected": ""}
    return {**value, "verdict": FAIL, "tested": False, "absent": absent, "found": found, "mend": mend}


def _judged(row: Row, at: Limits) -> Row:
    kept = {name: row[name] for name in ("round", "value", "unit", "found", "expected", "mend")}
    judged = {**kept, "verdict": OK if row["ok"] else FAIL, "tested": True, "absent": ""}
    if not row["ok"] or row["test"] != "write":
        return judged
    value = row["value"]
    judged["expected"] = f"at least {at.write_warn:g} Gb/s between the right GIDs"
    if value is None:
        mend = "See the row of the sender; if there is none, run the test again."
        return {**judged, "verdict": FAIL, "found": "no figure", "mend": mend}
    if value >= at.write_warn:
        return judged
    mend = (
        "See that the PCIe link of the RDMA device has 4 lanes (`lspci -vv`: LnkSta) and the port 200 Gb/s (`ethtool`) "
        "on both nodes, then look for a bad cable."
    )
    return {**judged, "verdict": FAIL if value < at.write_fail else WARN, "mend": mend}


def judge_all_reduce(
    hosts: Sequence[str], device: str, answers: Mapping[str, Mapping[str, Any] | None], skipped: str, at: Limits
) -> dict[str, Any]:
    """The all-reduce: a result a size, with the slowest rank's time, and what is wrong, a line a node.

    answers: for each host what fabric_all_reduce returned. skipped: why it did not run, "" if it did.
    """
    report: dict[str, Any] = {
        "backend": "nccl" if device == "cuda" else "gloo",
        "skipped": skipped,
        "verdict": OK,
        "results": [],
        "nodes": [],
        "problems": [],
    }
    if skipped:
        return report
    told = {host: answers.get(host) or {"unreachable": True} for host in hosts}
    for host, answer in told.items():
        problem, mend = str(answer.get("problem") or ""), str(answer.get("mend") or "")
        if absence([answer]):
            problem, mend = absence([answer]), f"Bring {host} back, and see what is said about it above."
        nccl = answer.get("nccl") or {}
        report["nodes"].append({"host": host, "problem": problem, **nccl, "log": answer.get("log") or []})
        if problem:
            report["problems"].append(_all_reduce_problem(FAIL, host, problem, "", mend))
    if not any(node["problem"] for node in report["nodes"]) or all(answer.get("results") for answer in told.values()):
        report["results"] = [slowest(column) for column in zip(*(answer["results"] for answer in told.values()))]
    if report["results"]:
        report["problems"] += _judge_bus(max(result["bus"] for result in report["results"]), at)
    report["verdict"] = worst(problem["severity"] for problem in report["problems"])
    return report


def slowest(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One size over all ranks: GB/s of algorithm and bus bandwidth, of the slowest rank.

    An all-reduce of S bytes moves 2 (n - 1) / n S over each node's link, which is what makes figures of different
    numbers of nodes comparable (as nccl-tests count it).
    """
    seconds, ranks = max(float(result["seconds"]) for result in results), len(results)
    size = int(results[0]["bytes"])
    algorithm = size / seconds / 1e9
    return {"bytes": size, "seconds": seconds, "algorithm": algorithm, "bus": algorithm * 2 * (ranks - 1) / ranks}


def _judge_bus(bus: float, at: Limits) -> list[Row]:
    for severity, limit in ((FAIL, at.bus_fail), (WARN, at.bus_warn)):
        if limit is not None and bus < limit:
            mend = (
                "Compare the pairs' figures to find a slow node or rail; without one, see that NCCL merges the twins "
                "(NCCL_IB_MERGE_NICS)."
            )
            found, expected = f"{bus:.2f} GB/s of bus bandwidth", f"at least {at.bus_warn or limit:g} GB/s"
            return [_all_reduce_problem(severity, "all nodes", found, expected, mend)]
    return []


def _all_reduce_problem(severity: str, where: str, found: str, expected: str, mend: str) -> Row:
    return {
        "severity": severity,
        "test": "all-reduce",
        "where": where,
        "found": found,
        "expected": expected,
        "mend": mend,
    }


def worst(verdicts: Iterator[str]) -> str:
    """The worst of verdicts, `ok` of none."""
    return max(verdicts, key=(OK, WARN, FAIL).index, default=OK)


def pair_problems(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What is wrong between pairs, failures first: the same problem of several tests and pairs is one entry."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["verdict"] != OK:
            slow = row["verdict"] == WARN or (row["value"] is not None and row["test"] == "write")
            said = "" if slow else row["found"]
            place = row["absent"] or row["rail"]
            groups.setdefault((row["verdict"], place, row["expected"], said, row["mend"]), []).append(row)
    problems = [_problem(severity, group) for (severity, *_), group in groups.items()]
    return sorted(problems, key=lambda problem: (FAIL, WARN).index(problem["severity"]))


def _problem(severity: str, group: Sequence[Mapping[str, Any]]) -> Row:
    first = group[0]
    where = first["absent"]
    if not where:
        where = f"rail {first['rail']}: {_pairs([(row['from'], row['to']) for row in group])}"
    figures = [row["value"] for row in group if row["test"] == "write" and row["value"] is not None]
    found = first["found"]
    if figures:
        spread = f"{min(figures):g}" + (f" to {max(figures):g}" if len(set(figures)) > 1 else "")
        found = f"{spread} Gb/s"
    return {
        "severity": severity,
        "test": ", ".join(dict.fromkeys(row["test"] for row in group)),
        "where": where,
        "found": found,
        "expected": first["expected"],
        "mend": first["mend"],
    }


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    """Pairs in few words; where they have a node in common, it is named first, as the problem is likely there."""
    common = set(pairs[0]).intersection(*pairs)
    several = len({frozenset(pair) for pair in pairs}) > 1
    if several and common:
        (node,) = common
        named, others = f"{node} with ", [one for pair in pairs for one in pair if one != node]
    else:
        named, others = "", [" > ".join(pair) for pair in pairs]
    others = list(dict.fromkeys(others))
    more = len(others) - PLACES_SHOWN
    return named + ", ".join(others[:PLACES_SHOWN]) + (f" and {more} more" if more > 0 else "")
