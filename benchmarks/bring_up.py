"""Measures how long a cluster takes to come up: `python3 -m benchmarks.bring_up [--cold]`.

Runs the demo and site.yml again on a cluster that is up, site.yml with Ansible's own defaults, and
a restart of the group. Writes the rows to results/bring_up.json and the table to
docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.page import put
from benchmarks.runner import ROOT, Run, RunFailedError, play

RESULTS = ROOT / "benchmarks/results/bring_up.json"
# What ansible-core does without an ansible.cfg: five hosts at a time, modules copied before they
# run, and facts of every host where a play does not say otherwise.
ANSIBLE_DEFAULTS = {
    "ANSIBLE_FORKS": "5",
    "ANSIBLE_PIPELINING": "false",
    "ANSIBLE_GATHERING": "implicit",
    "ANSIBLE_SSH_ARGS": "-C -o ControlMaster=auto -o ControlPersist=60s",
}

AGAIN = "second `site.yml`"
AGAIN_DEFAULTS = "second `site.yml`, Ansible's default settings"

Row = dict[str, Any]


def machine() -> str:
    """Say what the numbers were measured on: processor, cores, memory in GiB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{platform.machine()}, {os.cpu_count()} cores, {memory:.0f} GiB"


def timed(*command: str) -> Row:
    """Run one of the checkout's commands with its output shown; returns its seconds.

    Raises RunFailedError when it fails.
    """
    start = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code != 0:
        raise RunFailedError(f"{' '.join(command)} ended with {code}")
    return {"seconds": round(time.monotonic() - start, 1)}


def row_of(run: Run) -> Row:
    """Return the row of a playbook run; `slowest` are the five slowest tasks with their seconds."""
    slowest = sorted(run.task_seconds.items(), key=lambda item: -item[1])[:5]
    return {
        "seconds": round(run.seconds, 1),
        "tasks": run.tasks,
        "results": run.results,
        "changed": run.changed,
        "hosts": {host: round(spent, 1) for host, spent in sorted(run.host_seconds.items())},
        "slowest": {task: round(spent, 1) for task, spent in slowest},
    }


def start_row(inventory: Path, limit: float) -> Row:
    """Restart the group; returns the seconds from the first unit's start to the last rank's health.

    The nodes' clocks are compared: simulated nodes share one, real ones keep it by NTP.
    """
    run = play(
        ROOT / "benchmarks/playbooks/start_time.yml",
        inventory,
        variables={"start_time_limit_seconds": int(limit)},
    )
    shown = run.outputs.get("Read what the watch saw", {})
    seen = {host: json.loads(output) for host, output in shown.items()}
    if not seen:
        raise RunFailedError("start_time.yml: no node saw its rank start")
    first = min(times["started"] for times in seen.values())
    return {
        "seconds": round(max(times["healthy"] for times in seen.values()) - first, 1),
        "hosts": {host: round(times["healthy"] - first, 1) for host, times in sorted(seen.items())},
    }


def table(results: dict[str, Any]) -> str:
    """Return the Markdown table of all rows."""
    lines = [
        f"Measured {results['date']} on {results['machine']}.",
        "",
        "| what | seconds | tasks | changed |",
        "| --- | ---: | ---: | ---: |",
    ]
    rows = results["rows"]
    for name, row in rows.items():
        cells = [f"{row['seconds']:.1f}", str(row.get("tasks", "")), str(row.get("changed", ""))]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    ours, theirs = rows.get(AGAIN), rows.get(AGAIN_DEFAULTS)
    if ours and theirs:
        ratio = theirs["seconds"] / ours["seconds"]
        lines += [
            "",
            f"With Ansible's default settings the second run takes {ratio:.2f} times as long.",
        ]
    return "\n".join(lines)


def write(results: dict[str, Any]) -> None:
    """Write the rows as JSON and the table between its markers on the page."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    put("bring_up", table(results))


def measurements(options: argparse.Namespace) -> dict[str, Callable[[], Row]]:
    """Return what is measured, in order, by the names of the rows."""
    site, inventory = ROOT / "site.yml", options.inventory.resolve()
    wanted: dict[str, Callable[[], Row]] = {}
    if options.cold:
        wanted["first `./dev demo`, nothing installed or cached"] = lambda: timed("./dev", "demo")
    if not options.no_demo:
        wanted["second `./dev demo`"] = lambda: timed("./dev", "demo")
    wanted[AGAIN] = lambda: row_of(play(site, inventory))
    wanted[AGAIN_DEFAULTS] = lambda: row_of(play(site, inventory, ANSIBLE_DEFAULTS))
    wanted["units started until all ranks are healthy"] = lambda: start_row(inventory, options.start_limit)
    return wanted


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.bring_up", description=__doc__)
    parser.add_argument("--inventory", type=Path, default=ROOT / "inventory/sim4")
    parser.add_argument(
        "--cold",
        action="store_true",
        help="first `./dev clean --all`: the lab, .venv and its cache",
    )
    parser.add_argument("--no-demo", action="store_true", help="leave the demo out: a real cluster")
    parser.add_argument("--start-limit", type=float, default=900, help="seconds for a start (900)")
    options = parser.parse_args(arguments)
    rows: dict[str, Row] = {}
    if RESULTS.exists():
        earlier = json.loads(RESULTS.read_text())
        # Rows that are not measured again stay, as long as they are of this machine.
        rows = earlier["rows"] if earlier["machine"] == machine() else {}
    try:
        if options.cold:
            timed("./dev", "clean", "--all")
        for name, measure in measurements(options).items():
            print(f"== {name}", flush=True)
            rows[name] = measure()
            print(f"   {rows[name]['seconds']} s", flush=True)
            write({"date": str(datetime.date.today()), "machine": machine(), "rows": rows})
    except RunFailedError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
