# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The report of preflight as one HTML page that needs nothing else: what to mend, then every check on every node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_report as report_of
from ansible_collections.dgx_spark.sglang.plugins.module_utils._fabric_html import STYLE

OWN_STYLE = """
.error { background: var(--fail); color: var(--bad-text); font-weight: 600; }
.warning { background: var(--warn); }
.info { background: color-mix(in srgb, var(--line) 60%, transparent); }
.skipped, .na { color: var(--dim); }
.map tbody th { font-weight: 400; white-space: normal; width: 22rem; min-width: 15rem; }
.map td { vertical-align: middle; }
.map tbody th b { display: block; font-size: .8rem; }
.list td { min-width: 6rem; } .list td:first-child { min-width: 0; } .list .mend { min-width: 18rem; }
.grow { width: 100%; }
"""

WORDS = {"ok": "passed", "warning": "passed with warnings", "error": "failed"}
VERDICTS = {"ok": "ok", "warning": "warn", "error": "fail"}
"""Verdict -> its class among those of STYLE."""


def page(made: Mapping[str, Any]) -> str:
    """The whole page, from _preflight_report.report."""
    told = dict(made)
    word = WORDS[made["verdict"]]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Preflight: {word}</title><style>{STYLE}{OWN_STYLE}</style></head><body>",
        f'<h1>Preflight <span class="verdict {VERDICTS[made["verdict"]]}">{word}</span></h1>',
        f"<p>{escape(report_of.summary(told))}</p>",
        f'<p class="dim">{escape(made["made"])}. Model {escape(made["model"])}, image {escape(made["image"])}.</p>',
        _findings(told),
        '<div class="maps">',
        *(_area(title, rows, made["nodes"], _hints(told)) for title, rows in report_of.areas(told)),
        "</div>",
        _unjudged(told),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _findings(made: dict[str, Any]) -> str:
    if not made["findings"]:
        return ""
    rows = "".join(
        f'<tr><td class="{one["severity"]}">{one["severity"]}</td>'
        f'<td title="{escape(one["title"])}">{escape(one["id"])}</td>'
        f"<td>{escape(report_of.where(one['hosts'], made['nodes']))}</td>"
        f"<td>{escape(one['found'])}</td><td>{escape(one['expected'])}</td>"
        f'<td class="mend">{escape(one["mend"])} <span class="dim">{escape(one["why"])}</span></td></tr>'
        for one in made["findings"]
    )
    head = "".join(f"<th>{key}</th>" for key in ("severity", "check", "where", "found", "expected", "mend, and why"))
    return f'<h2>What to mend</h2><div class="scroll"><table class="list"><tr>{head}</tr>{rows}</table></div>'


def _hints(made: dict[str, Any]) -> dict[tuple[str, str], str]:
    """(check, node) -> what was found there, or why nothing was judged."""
    hints = {(one["id"], node): one["reason"] for one in made["skipped"] for node in made["nodes"]}
    for one in made["not_applicable"]:
        hints |= {(name, host): one["why"] for name, hosts in one["checks"].items() for host in hosts}
    for one in made["findings"]:
        hints |= {(one["id"], host): one["found"] for host in one["hosts"]}
    return hints


def _area(
    title: str, rows: Sequence[Mapping[str, Any]], nodes: Sequence[str], hints: Mapping[tuple[str, str], str]
) -> str:
    head = "".join(f'<th scope="col">{escape(node)}</th>' for node in nodes)
    body = "".join(
        f'<tr><th scope="row"><b>{escape(row["id"])}</b>{escape(row["title"])}</th>'
        + "".join(_cell(row, node, hints.get((row["id"], node), "")) for node in nodes)
        + "</tr>"
        for row in rows
    )
    many = " many" if len(nodes) > 8 else ""
    return (
        f'<section><h2>{escape(title)}</h2><div class="scroll"><table class="map{many}">'
        f"<thead><tr><th>check</th>{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )


def _cell(row: Mapping[str, Any], node: str, hint: str) -> str:
    state = row["states"][node]
    hint = escape(f"{row['id']} on {node}: {hint or state}")
    return f'<td class="{state.replace("/", "")}" title="{hint}">{state}</td>'


def _unjudged(made: dict[str, Any]) -> str:
    rows = report_of.unjudged_rows(made)
    if not rows:
        return ""
    body = "".join(
        f'<tr><td>{row["state"]}</td><td>{escape(row["why"])}</td><td class="grow">{escape(row["checks"])}</td></tr>'
        for row in rows
    )
    head = "<tr><th></th><th>why</th><th>checks</th></tr>"
    return f'<h2>What was not judged</h2><div class="scroll"><table class="list">{head}{body}</table></div>'
