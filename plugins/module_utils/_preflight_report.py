# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Judges all nodes by all checks; the report as plain data, and what the terminal shows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_check import (
    BEFORE,
    ERROR,
    INFO,
    SEVERITIES,
    WARNING,
    Check,
    Cluster,
    Problem,
    Unjudged,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_checks import AREAS, CHECKS, area_of
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_node import Node, NotApplicableError

OK, NOT_APPLICABLE, SKIPPED = "ok", "n/a", "skipped"
"""States of a check on a node, beside the severities."""

ALWAYS = "HOST.REACHABLE"
"""The one check that a node which has not answered does not pass over."""

Report = dict[str, Any]


def report(cluster: Cluster, nodes: Sequence[Node], about: Mapping[str, Any]) -> Report:
    """Everything that was judged.

    about: `made` (when, as text), `stage` (before: only what has to hold on a bare node), `skip` (id -> reason) and
    `strict` (whether warnings fail the run, too).
    """
    skip: Mapping[str, str] = about["skip"]
    asked = [check for check in CHECKS if about["stage"] != BEFORE or check.stage == BEFORE]
    findings: list[dict[str, Any]] = []
    reasons: dict[str, dict[str, list[str]]] = {}
    rows = []
    for check in asked:
        states = dict.fromkeys((node.host for node in nodes), OK)
        if check.id in skip:
            states = dict.fromkeys(states, SKIPPED)
        else:
            for host, outcome in _outcomes(check, nodes, cluster):
                if isinstance(outcome, str):
                    states[host] = NOT_APPLICABLE
                    reasons.setdefault(outcome, {}).setdefault(check.id, []).append(host)
                else:
                    states[host] = check.severity
                    _add(findings, check, host, outcome)
        rows.append({"id": check.id, "severity": check.severity, "title": check.title, "states": states})
    findings.sort(key=lambda finding: SEVERITIES.index(finding["severity"]))
    counts = {severity: sum(1 for one in findings if one["severity"] == severity) for severity in SEVERITIES}
    failed = bool(counts[ERROR] or (about["strict"] and counts[WARNING]))
    return {
        "verdict": ERROR if failed else WARNING if counts[WARNING] else OK,
        "failed": failed,
        "made": str(about["made"]),
        "stage": str(about["stage"]),
        "strict": bool(about["strict"]),
        "nodes": [node.host for node in nodes],
        "model": str(cluster.plan["model"]["name"]),
        "image": str(cluster.plan["image"]),
        "counts": counts,
        "findings": findings,
        "not_applicable": [{"why": why, "checks": checks} for why, checks in reasons.items()],
        "skipped": [{"id": check.id, "reason": skip[check.id]} for check in asked if check.id in skip],
        "checks": rows,
    }


def _outcomes(check: Check, nodes: Sequence[Node], cluster: Cluster) -> list[tuple[str, Problem | str]]:
    """(host, problem) for all that is found, and (host, reason) for each node on which the check does not apply."""
    told = [node for node in nodes if node.answered]
    out: list[tuple[str, Problem | str]] = []
    if check.id != ALWAYS:
        out = [(node.host, "the node has not answered") for node in nodes if not node.answered]
    scope = cluster.out_of(check.scope)
    if scope:
        return [(node.host, scope) for node in nodes]
    if check.look:
        for node in nodes if check.id == ALWAYS else told:
            try:
                out += [(node.host, problem) for problem in check.look(node, cluster)]
            except NotApplicableError as reason:
                out.append((node.host, str(reason)))
            except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as trouble:
                out.append((node.host, _not_understood(trouble)))
    elif check.compare:
        try:
            if len(told) < 2:
                raise NotApplicableError("there are no two nodes to compare")
            for outcome in check.compare(told, cluster):
                if isinstance(outcome, Unjudged):
                    out.append((outcome.host, outcome.why))
                else:
                    out += [(host, outcome) for host in outcome.hosts]
        except NotApplicableError as reason:
            out += [(node.host, str(reason)) for node in told]
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as trouble:
            out += [(node.host, _not_understood(trouble)) for node in told]
    return out


def _not_understood(trouble: Exception) -> str:
    """A node whose tools speak another language than those that are known must not pass, nor end the run."""
    return f"what the node tells can't be understood: {trouble!r}"


def _add(findings: list[dict[str, Any]], check: Check, host: str, problem: Problem) -> None:
    """The same thing on several nodes is one finding."""
    mend = problem.mend or check.mend
    for known in findings:
        if (known["id"], known["found"], known["expected"], known["mend"]) == (
            check.id,
            problem.found,
            problem.expected,
            mend,
        ):
            if host not in known["hosts"]:
                known["hosts"].append(host)
            return
    findings.append(
        {
            "id": check.id,
            "severity": check.severity,
            "hosts": [host],
            "title": check.title,
            "found": problem.found,
            "expected": problem.expected,
            "why": check.why,
            "mend": mend,
        }
    )


def finding_rows(made: Report) -> list[dict[str, str]]:
    """The findings for a table."""
    keys = ("severity", "id", "found", "expected", "mend")
    return [
        {**{key: finding[key] for key in keys}, "where": where(finding["hosts"], made["nodes"])}
        for finding in made["findings"]
    ]


def where(hosts: Sequence[str], nodes: Sequence[str]) -> str:
    """Nodes for people."""
    return "all nodes" if len(hosts) == len(nodes) > 1 else ", ".join(hosts)


def unjudged_rows(made: Report) -> list[dict[str, str]]:
    """What was not judged, by reason: checks that were skipped, and those that do not apply."""
    rows = [{"state": SKIPPED, "why": one["reason"], "checks": one["id"]} for one in made["skipped"]]
    for one in made["not_applicable"]:
        names = [
            name if len(hosts) == len(made["nodes"]) else f"{name} ({', '.join(hosts)})"
            for name, hosts in one["checks"].items()
        ]
        rows.append({"state": NOT_APPLICABLE, "why": one["why"], "checks": ", ".join(names)})
    return rows


def areas(made: Report) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """(title, rows of checks) for each area."""
    known = {check.id: area_of(check) for check in CHECKS}
    grouped = [(title, [row for row in made["checks"] if known[row["id"]] == area]) for area, title in AREAS.items()]
    return [(title, rows) for title, rows in grouped if rows]


def summary(made: Report) -> str:
    """The verdict in a sentence."""
    words = {ERROR: "error", WARNING: "warning", INFO: "note"}
    counts = [
        f"{count} {words[severity]}{'' if count == 1 else 's'}" for severity, count in made["counts"].items() if count
    ]
    judged = sum(
        1 for row in made["checks"] if any(state not in (NOT_APPLICABLE, SKIPPED) for state in row["states"].values())
    )
    nodes = f"{len(made['nodes'])} node{'' if len(made['nodes']) == 1 else 's'}"
    scope = " that have to hold on a bare node" if made["stage"] == BEFORE else ""
    strict = " Warnings count as errors (preflight_strict)." if made["strict"] and made["counts"][WARNING] else ""
    return (
        f"Preflight of {nodes}: {', '.join(counts) or 'nothing to mend'} "
        f"({judged} of {len(made['checks'])} checks{scope} applied).{strict}"
    )
