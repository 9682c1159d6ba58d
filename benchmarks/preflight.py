"""Measures preflight on four and on eight simulated Sparks: `python3 -m benchmarks.preflight` (as root).

`playbooks/preflight.yml` as it is run by hand, with its report written; and what the stage adds to a run of site.yml:
the run of this stage alone less one of no stage, which reads the inventory and derives the plan too. Both sizes in
turn, in one run; medians count. Makes a lab of eight nodes (the nodes of one that is up stay), brings them up to
where ranks would be started, and leaves them up. Writes the table to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.bring_up import machine
from benchmarks.page import put
from benchmarks.rollout import inventory, prepare, timed
from benchmarks.runner import RunFailedError

SIZES = (4, 8)
LIMIT_SECONDS, LIMIT_RATIO, LIMIT_ADDED = 10.0, 1.5, 3.0
"""What was promised: four nodes within so many seconds, eight within that ratio, and what site.yml may take more."""

READY = "fabric,firewall,container_runtime,memory_guard,image,model"
NO_STAGE = "no_such_stage"  # only what is tagged `always`

Seconds = dict[str, float]


def commands(hosts: Path, folder: Path) -> dict[str, list[str]]:
    """What is timed, by name."""
    play = ["ansible-playbook", "-i", str(hosts)]
    return {
        "preflight": [*play, "playbooks/preflight.yml", "-e", f"preflight_out={folder}/report"],
        "stage": [*play, "site.yml", "--tags", "preflight"],
        "none": [*play, "site.yml", "--tags", NO_STAGE],
    }


def measure(folder: Path, repeats: int) -> dict[int, Seconds]:
    """Median seconds by size, after one run of each that does not count."""
    wanted = {count: commands(inventory(folder, count), folder) for count in SIZES}
    seconds: dict[int, dict[str, list[float]]] = {count: {name: [] for name in wanted[count]} for count in SIZES}
    for number in range(repeats + 1):
        for count, by_name in wanted.items():
            once = {name: timed(command) for name, command in by_name.items()}
            print(f"{count} nodes:", ", ".join(f"{name} {value:.1f} s" for name, value in once.items()), flush=True)
            for name, value in once.items():
                seconds[count][name] += [value] if number else []
    return {
        count: {name: statistics.median(values) for name, values in by_name.items()}
        for count, by_name in seconds.items()
    }


def table(results: dict[int, Seconds]) -> str:
    """The Markdown table, and how it compares with what was promised."""
    lines = [
        "| nodes | `playbooks/preflight.yml`, s | `site.yml`, this stage alone, s | no stage, s | it adds, s |",
        "| ---: | ---: | ---: | ---: | ---: |",
    ]
    for count, row in results.items():
        added = row["stage"] - row["none"]
        lines.append(f"| {count} | {row['preflight']:.1f} | {row['stage']:.1f} | {row['none']:.1f} | {added:.1f} |")
    few, many = (results[count]["preflight"] for count in SIZES)
    added = results[SIZES[0]]["stage"] - results[SIZES[0]]["none"]
    promised = [
        f"{SIZES[0]} nodes: {few:.1f} s of {LIMIT_SECONDS:g}",
        f"{SIZES[1]} nodes take {many / few:.2f} times as long, of {LIMIT_RATIO:g}",
        f"a run of `site.yml` on {SIZES[0]} takes {added:.1f} s more, of {LIMIT_ADDED:g}",
    ]
    return "\n".join([*lines, "", f"{'; '.join(promised)}."])


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.preflight", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="how often each is measured (5)")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="preflight-") as name:
            folder = Path(name)
            prepare(folder, max(SIZES), READY)
            results = measure(folder, options.repeats)
    except (RunFailedError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    text = f"Measured {datetime.date.today()} on {machine()}; medians of {options.repeats}.\n\n{table(results)}"
    put("preflight", text)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
