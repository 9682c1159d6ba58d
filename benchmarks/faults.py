"""Measures how fast a failure is noticed and mended: `python3 -m benchmarks.faults [--random N]` (as root).

Simulated Sparks with the real server. First the plain start of the group, which a recovery is held against. Then every
fault of lab/faults.py on rank 0 and on the last rank; or random ones in a row, as many as asked for or as time allows.
Idle and under a stream of chats in turn. Noticed is when a node's journal names the rank that failed first;
serving again is when all units are active and a chat is answered, counted from the notice, or from the end of a fault
that lasts. Makes a lab, and removes it. Writes the table to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bring_up import machine
from benchmarks.page import put
from benchmarks.rollout import run
from benchmarks.runner import ROOT, RunFailedError, play
from lab import faults, group, layout
from lab.faults import CONTAINER, Fault, inside
from lab.layout import Node
from lab.run import LabError, each

INVENTORY = ROOT / ".lab/faults-inventory"
SPARE_SECONDS = 10.0
"""So much longer than a plain start a recovery may take."""
LASTING_SECONDS = 5.0
"""How long a fault lasts that does not end by itself, after it was noticed."""
RANDOM = [fault for fault in faults.FAULTS if fault.notice_seconds]


@dataclass(frozen=True)
class Row:
    """One fault. noticed, serving: seconds; serving from the notice on, or from the end of a fault that lasts."""

    fault: str
    node: str
    load: str
    noticed: float
    serving: float
    named: bool


def plain_start(nodes: Sequence[Node]) -> float:
    """Seconds from the start of all units, after a stop of all, until the group serves."""
    each(lambda node: inside(node, f"systemctl stop {CONTAINER}.service", 120), nodes)
    began = time.monotonic()
    each(lambda node: inside(node, f"systemctl start --no-block {CONTAINER}.service"), nodes)
    group.serving(nodes)
    return time.monotonic() - began


def measure(fault: Fault, node: Node, nodes: Sequence[Node], load: str) -> Row:
    """Inject one fault and wait until the group serves again. Raises LabError where it does not by itself."""
    with group.load(load):
        began = time.time()
        fault.begin(node)
        # Seen from a node that is cut off, the others are.
        at, words = group.noticed(began, [other for other in nodes if other is not node] if fault.end else nodes)
        if fault.end:
            time.sleep(max(0.0, at + LASTING_SECONDS - time.time()))
            fault.end(node)
            at_work = time.time()
        else:
            at_work = at
        group.serving(nodes)
        again = time.time()
    named = f"({node.name})" in words
    return Row(fault.name, node.name, load, at - began, again - at_work, named)


def each_fault(nodes: Sequence[Node], show: Callable[[Row], None]) -> list[Row]:
    """Every fault on the first and on the last rank."""
    rows = []
    for fault in RANDOM:
        for node, load in ((nodes[0], "idle"), (nodes[-1], "chats")):
            rows.append(measure(fault, node, nodes, load))
            show(rows[-1])
    return rows


def soak(nodes: Sequence[Node], count: int, seconds: float, show: Callable[[Row], None]) -> tuple[list[Row], str]:
    """Random faults in a row, one after the other, as many as asked for or as time allows.

    Returns them, and what the first one that needed a hand was, which ends it; "" where none did.
    """
    chosen, rows = random.Random(count), list[Row]()
    deadline = time.monotonic() + seconds
    while len(rows) < count and time.monotonic() < deadline:
        load = "chats" if len(rows) % 2 else "idle"
        fault, node = chosen.choice(RANDOM), chosen.choice(nodes)
        try:
            rows.append(measure(fault, node, nodes, load))
        except LabError as error:
            return rows, f"{fault.name} on {node.name} ({load}): {error}"
        show(rows[-1])
    return rows, ""


def supervisor_cost(node: Node, seconds: float = 60) -> tuple[float, float]:
    """Resident memory in MiB, and processor time in percent of one core, while the group serves."""
    pid = inside(node, f"systemctl show --value --property=MainPID {CONTAINER}.service")
    ticks = f"awk '{{ print $14 + $15 }}' /proc/{pid}/stat"
    before = int(inside(node, ticks))
    time.sleep(seconds)  # what is measured
    used = (int(inside(node, ticks)) - before) / os.sysconf("SC_CLK_TCK")
    resident = int(inside(node, f"awk '/^VmRSS/ {{ print $2 }}' /proc/{pid}/status")) / 1024
    return resident, 100 * used / seconds


def heading(plain: float, nodes: int) -> str:
    """What, where, and what it is held against."""
    return f"Measured {datetime.date.today()} on {machine()}. Plain start of the group of {nodes}: {plain:.1f} s."


def table(plain: float, rows: Sequence[Row], cost: tuple[float, float]) -> str:
    """The Markdown table of every fault."""
    lines = [
        f"A supervisor: {cost[0]:.1f} MiB resident, {cost[1]:.2f} % of one core while it serves.",
        "",
        "| fault | on | load | noticed, s | serving again, s | beyond the plain start, s | first one named |",
        "| --- | --- | --- | ---: | ---: | ---: | --- |",
    ]
    for row in rows:
        lines.append(
            f"| {row.fault} | {row.node} | {row.load} | {row.noticed:.1f} | {row.serving:.1f} |"
            f" {row.serving - plain:+.1f} | {'yes' if row.named else 'no'} |"
        )
    return "\n".join(lines)


def summary(plain: float, rows: Sequence[Row], trouble: str) -> str:
    """The Markdown text about random faults. trouble: what needed a hand, "" where nothing did."""
    named = sum(row.named for row in rows)
    lines = [
        f"{len(rows)} random faults in a row that needed no hand; the first one to fail was named in {named} of them.",
        "",
        "| fault | times | noticed, s: median, most | asked | beyond the plain start, s: median, most |"
        f" over {SPARE_SECONDS:.0f} s |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for fault in RANDOM:
        found = [row for row in rows if row.fault == fault.name]
        if found:
            noticed = sorted(row.noticed for row in found)
            again = sorted(row.serving - plain for row in found)
            lines.append(
                f"| {fault.name} | {len(found)} | {statistics.median(noticed):.1f}, {noticed[-1]:.1f} |"
                f" {fault.notice_seconds:.0f} | {statistics.median(again):+.1f}, {again[-1]:+.1f} |"
                f" {sum(seconds > SPARE_SECONDS for seconds in again)} |"
            )
    if trouble:
        lines += ["", f"Then one that did: {trouble}"]
    return "\n".join(lines)


def bring_up(count: int) -> None:
    """Make a lab and let it serve."""
    run([sys.executable, "-m", "lab", "create", "--nodes", str(count)])
    INVENTORY.mkdir(parents=True, exist_ok=True)
    hosts = subprocess.run(
        [sys.executable, "-m", "lab", "inventory", "--nodes", str(count)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    (INVENTORY / "hosts.yml").write_text(hosts)
    variables = INVENTORY / "group_vars"
    variables.unlink(missing_ok=True)
    variables.symlink_to(Path("../../inventory/sim4/group_vars"))
    play(ROOT / "site.yml", INVENTORY)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description=__doc__)
    parser.add_argument("--nodes", type=int, default=4, help="how many simulated Sparks (4)")
    parser.add_argument("--random", type=int, default=0, help="instead: how many random faults in a row")
    parser.add_argument("--seconds", type=float, default=5400, help="the longest that they may take (5400)")
    parser.add_argument("--keep", action="store_true", help="leave the lab as it is")
    options = parser.parse_args(arguments)
    nodes, trouble = layout.nodes(options.nodes), ""

    def show(row: Row) -> None:
        said = f"noticed {row.noticed:5.1f} s, serving {row.serving:5.1f} s" + ("" if row.named else ", not named")
        print(f"{row.fault:28} {row.node} {row.load:6} {said}", flush=True)

    try:
        bring_up(options.nodes)
        plain = statistics.median(plain_start(nodes) for _ in range(3))
        print(f"plain start: {plain:.1f} s", flush=True)
        if options.random:
            rows, trouble = soak(nodes, options.random, options.seconds, show)
            text = summary(plain, rows, trouble)
        else:
            cost = supervisor_cost(nodes[0])
            text = table(plain, each_fault(nodes, show), cost)
        if not options.keep and not trouble:
            run([sys.executable, "-m", "lab", "destroy"])
    except (RunFailedError, LabError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    put("random-faults" if options.random else "faults", f"{heading(plain, options.nodes)}\n\n{text}")
    print(text)
    return bool(trouble)


if __name__ == "__main__":
    sys.exit(main())
