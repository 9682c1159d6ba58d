# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The report of a fabric test as one HTML page that needs nothing else: matrices as heat maps, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_report as report_of

STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --dim: #59636e; --line: #d1d9e0;
  --ok: 138 45% 82%; --ok-fast: 138 50% 66%; --warn: #ffe08a; --fail: #ffb3ab; --bad-text: #7d0f0f; }
@media (prefers-color-scheme: dark) { :root { --ground: #0f1318; --text: #e6eaee; --dim: #9aa5b1; --line: #343c46;
  --ok: 140 35% 19%; --ok-fast: 140 45% 29%; --warn: #5e4a08; --fail: #6e1f1c; --bad-text: #ffc9c4; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 92rem; padding: 1.5rem 1rem 4rem; background: var(--ground); color: var(--text);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; }
.dim { color: var(--dim); }
.scroll { overflow-x: auto; }
table { border-collapse: separate; border-spacing: 2px; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; padding: .3rem .6rem; white-space: nowrap; }
td { padding: .3rem .6rem; vertical-align: top; }
.list td, .list th { border-bottom: 1px solid var(--line); }
.maps { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
.maps > section { max-width: 100%; }
.map td { text-align: center; min-width: 4.2rem; border-radius: 3px; }
.map.many td { min-width: 2.6rem; padding: .2rem; font-size: .75rem; }
.map tbody th { position: sticky; left: 0; background: var(--ground); }
.ok { background: hsl(var(--ok)); }
.warn { background: var(--warn); }
.fail { background: var(--fail); color: var(--bad-text); font-weight: 600; }
.none { color: var(--dim); }
.verdict { display: inline-block; padding: .1rem .7rem; border-radius: 1rem; }
pre { overflow-x: auto; border: 1px solid var(--line); padding: .6rem; font-size: .8rem; }
"""

WORDS = {"ok": "passed", "warn": "passed with warnings", "fail": "failed"}


def page(made: Mapping[str, Any]) -> str:
    """The whole page, from _fabric_report.report."""
    facts = [
        f"{len(made['nodes'])} nodes",
        *(f"rail {number}: {rail['interface']}, {rail['subnet']}" for number, rail in enumerate(made["rails"])),
        f"MTU {made['mtu']}",
        "RDMA" if made["rdma"] else report_of.NO_RDMA,
    ]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>Fabric test: {WORDS[made['verdict']]}</title><style>{STYLE}</style></head><body>",
        f'<h1>Fabric test <span class="verdict {made["verdict"]}">{WORDS[made["verdict"]]}</span></h1>',
        f"<p>{escape(report_of.summary(dict(made)))}</p>",
        f'<p class="dim">{escape(made["made"])}. {escape("; ".join(facts))}</p>',
        _problems(made["problems"]),
        '<div class="maps">',
        *(_matrix(made, matrix) for matrix in report_of.matrices(dict(made))),
        "</div>",
        _all_reduce(made),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


def _problems(problems: Sequence[Mapping[str, str]]) -> str:
    if not problems:
        return ""
    keys = ("severity", "test", "where", "found", "expected", "mend")
    head = "".join(f"<th>{key}</th>" for key in keys)
    body = "".join(
        f'<tr><td class="{problem["severity"]}">{problem["severity"]}</td>'
        + "".join(f"<td>{escape(problem[key])}</td>" for key in keys[1:])
        + "</tr>"
        for problem in problems
    )
    return f'<h2>What to mend</h2><div class="scroll"><table class="list"><tr>{head}</tr>{body}</table></div>'


def _matrix(made: Mapping[str, Any], matrix: Mapping[str, Any]) -> str:
    names = made["nodes"]
    # What passes is told apart by how fast it is, from the warning's limit up to the fastest.
    speeds = [one["value"] for one in made["tests"] if one["test"] == "write" and one["value"] is not None]
    scale = float(made["limits"]["write_warn"]), max(speeds, default=0.0)
    many = len(names) > report_of.NAMES_SHOWN
    titles = [str(rank) if many else name for rank, name in enumerate(names)]
    head = "".join(f'<th scope="col" title="{escape(name)}">{escape(title)}</th>' for name, title in zip(names, titles))
    rows = []
    for rank, sender in enumerate(names):
        cells = matrix["cells"].get(sender, {})
        label = f"{rank} {sender}" if many else sender
        row = "".join(_cell(cells.get(receiver), sender, receiver, scale) for receiver in names)
        rows.append(f'<tr><th scope="row">{escape(label)}</th>{row}</tr>')
    return (
        f'<section><h2>{escape(matrix["title"])}</h2><div class="scroll"><table class="map{" many" if many else ""}">'
        f"<thead><tr><th>{escape(report_of.CORNER)}</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
        "</section>"
    )


def _cell(row: Mapping[str, Any] | None, sender: str, receiver: str, scale: tuple[float, float]) -> str:
    if row is None:
        return '<td class="none">-</td>' if sender == receiver else '<td class="none"></td>'
    text, how = report_of.cell(row)
    shade = heat(row, *scale) if how == "ok" else None
    mix = f"color-mix(in hsl, hsl(var(--ok-fast)) {shade}%, hsl(var(--ok)))"
    style = "" if shade is None else f' style="background: {mix}"'
    return f'<td class="{how}"{style} title="{escape(_hint(row, sender, receiver))}">{escape(text)}</td>'


def heat(row: Mapping[str, Any], low: float, high: float) -> int | None:
    """How fast a test is, in percent of the way from low to high (Gb/s); None if it has no speed."""
    if row["test"] != "write" or row["value"] is None:
        return None
    return 100 if high <= low else min(100, max(0, round(100 * (row["value"] - low) / (high - low))))


def _hint(row: Mapping[str, Any], sender: str, receiver: str) -> str:
    value = f", {row['value']:g} {row['unit']}" if row["value"] is not None and row["test"] == "ping" else ""
    return f"{sender} > {receiver}: {row['found']}{value}" + (f". {row['mend']}" if row["mend"] else "")


def _all_reduce(made: Mapping[str, Any]) -> str:
    summed = made["all_reduce"]
    title = f"All-reduce over all nodes ({summed['backend']})"
    if summed["skipped"]:
        return f"<h2>{escape(title)}</h2><p>Left out: {escape(summed['skipped'])}.</p>"
    parts = [f"<h2>{escape(title)}</h2>"]
    rows = report_of.all_reduce_rows(dict(made))
    if rows:
        head = "".join(f"<th>{escape(key)}</th>" for key in rows[0])
        body = "".join("<tr>" + "".join(f"<td>{escape(str(v))}</td>" for v in row.values()) + "</tr>" for row in rows)
        parts.append(f'<div class="scroll"><table class="list"><tr>{head}</tr>{body}</table></div>')
    networks = [
        f"{node['host']}: {', '.join(node.get('taken') or [])} by {', '.join(node['hcas'])}"
        for node in summed["nodes"]
        if node.get("hcas")
    ]
    parts += [f'<p class="dim">{escape(network)}</p>' for network in networks]
    for node in summed["nodes"]:
        if node["log"]:
            log = escape("\n".join(node["log"]))
            parts.append(f"<details><summary>The log of {escape(node['host'])}</summary><pre>{log}</pre></details>")
    return "".join(parts)
