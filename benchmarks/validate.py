"""Measures how long an inventory is held against the schema: `python3 -m benchmarks.validate`.

Runs playbooks/validate.yml as a person would, on inventories that it writes; medians count. No host is contacted.
Writes the table to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.bring_up import machine
from benchmarks.page import put
from benchmarks.runner import ROOT, RunFailedError

LIMIT = 3.0
"""So many seconds at most: a check that people wait for is one that they leave out."""

SPARK4 = ROOT / "inventory/spark4"
NOTHING = [{"name": "Do nothing", "hosts": "localhost:sparks", "gather_facts": False, "tasks": []}]


def inventory_of(folder: Path, nodes: int, wrong: int = 0) -> Path:
    """Write inventory/spark4 with so many nodes into a folder.

    wrong: of each role, one of so many variables gets a value that is wrong; none with 0.
    """
    folder.mkdir(parents=True)
    variables: dict[str, Any] = yaml.safe_load((SPARK4 / "group_vars/sparks.yml").read_text())
    variables["cluster_tensor_parallel"] = nodes
    if wrong:
        for role in sorted(ROOT.glob("roles/*/defaults/main.yml")):
            names = list(yaml.safe_load(role.read_text()) or {})
            # Of no type that a variable has: a mapping with a list.
            variables |= {name: {"wrong": [name]} for name in names[::wrong]}
    hosts = {f"spark-{number}.invalid": None for number in range(nodes)}
    group = {"hosts": hosts, "vars": variables}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"children": {"sparks": group}}}))
    return folder


def seconds_of(playbook: Path, inventory: Path, code: int) -> tuple[float, float]:
    """Seconds of one run, and of the processors for it. RunFailedError where it ends otherwise than it should."""
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), str(playbook)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    spent, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != code:
        raise RunFailedError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return spent, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder: Path, repeats: int) -> dict[str, list[tuple[float, float]]]:
    """Row -> seconds_of each run; the rows take turns, so that a busy moment is everyone's."""
    nothing = folder / "nothing.yml"
    nothing.write_text(yaml.safe_dump(NOTHING))
    validate = ROOT / "playbooks/validate.yml"
    eight = inventory_of(folder / "eight", 8)
    rows = {
        "`inventory/spark4`": (validate, SPARK4, 0),
        "eight nodes": (validate, eight, 0),
        "eight nodes, every fourth variable wrong": (validate, inventory_of(folder / "wrong", 8, wrong=4), 2),
        "a play that does nothing, eight nodes": (nothing, eight, 0),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in rows}
    for _ in range(repeats):
        for name, run in rows.items():
            seconds[name].append(seconds_of(*run))
    return seconds


def table(seconds: dict[str, list[tuple[float, float]]]) -> str:
    """The Markdown table: median, fastest and slowest run of each row, and what the processors did for one."""
    lines = ["| inventory | seconds, median | fastest | slowest | CPU seconds, median |", f"| --- |{' ---: |' * 4}"]
    for name, runs in seconds.items():
        walls, cpus = zip(*runs, strict=True)
        figures = (statistics.median(walls), min(walls), max(walls), statistics.median(cpus))
        lines.append(f"| {name} | {' | '.join(f'{figure:.2f}' for figure in figures)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the table, and say whether the limit holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each row")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        seconds = measure(Path(folder), options.repeats)
    text = table(seconds)
    put("validate", f"Measured {datetime.date.today()} on {machine()}; {options.repeats} runs of each.\n\n{text}")
    print(text)
    slow = [name for name, runs in seconds.items() if statistics.median(wall for wall, _ in runs) >= LIMIT]
    if slow:
        print(f"Not under {LIMIT:g} s: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
