"""Measures the fabric's playbooks against loops over ssh: `python3 -m benchmarks.fabric` (as root).

Four simulated Sparks that are as planned, all in turn, in one run; medians count.
No change: `site.yml --tags fabric,firewall` against the loop of a guide, which copies the netplan file and the rules to
each node and applies them, whether anything differs or not.
Test: `playbooks/fabric_test.yml` without its all-reduce against a loop that pings every node from every other on both
rails, one after the other, with the same whole-MTU packets.
Makes a lab of four nodes, and removes it. Writes the table to docs/benchmarks.md.
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
from benchmarks.rollout import SSH, run, timed
from benchmarks.runner import RunFailedError

NODES = range(4)
RAILS = {"enp1s0f1np1": "198.18.100", "enP2p1s0f1np1": "198.18.101"}
FILES = {"/etc/netplan/40-cx7.yaml": "netplan.yaml", "/etc/dgx-spark/firewall.nft": "firewall.nft"}
APPLY = f"netplan generate && networkctl reload && networkctl reconfigure {' '.join(RAILS)} && nft -f firewall.nft"
STAGES = ["ansible-playbook", "site.yml", "--tags", "fabric,firewall"]


def copy_loop(folder: Path) -> str:
    """What a guide does to every node, as a shell script; folder holds the files of each node."""
    lines = ["set -e", f"for node in {' '.join(f'spark-{number}' for number in NODES)}; do"]
    lines += [f"  scp {SSH} {folder}/$node/{name} $node:{name}" for name in FILES.values()]
    lines.append(f"  ssh {SSH} $node 'install -m 600 netplan.yaml /etc/netplan/40-cx7.yaml && {APPLY}'")
    return "\n".join([*lines, "done"])


def ping_loop() -> str:
    """Every node pings every other on both rails, as fabric_test does (5 packets, 0.2 s apart), as a shell script."""
    lines = ["set -e"]
    for number in NODES:
        for peer in NODES:
            for interface, subnet in RAILS.items() if peer != number else ():
                ping = f"ping -q -n -M do -s 8972 -c 5 -i 0.2 -W 1 -I {interface} {subnet}.{11 + peer}"
                lines.append(f"ssh {SSH} spark-{number} '{ping}'")
    return "\n".join(lines)


def fetch(folder: Path) -> None:
    """Copy the files of each node here, as a guide's repository would hold them."""
    for number in NODES:
        (folder / f"spark-{number}").mkdir()
        for path, name in FILES.items():
            run(["sh", "-c", f"scp {SSH} spark-{number}:{path} {folder}/spark-{number}/{name}"])


def measure(folder: Path, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds by kind: ours and the loop's, after one of each that does not count."""
    ours = ["-e", f"fabric_test_all_reduce=false fabric_test_report_folder={folder}/report"]
    commands = {
        "no change": {"ours": STAGES, "loop": ["sh", "-c", copy_loop(folder)]},
        "test": {
            "ours": ["ansible-playbook", "playbooks/fabric_test.yml", *ours],
            "loop": ["sh", "-c", ping_loop()],
        },
    }
    seconds: dict[str, dict[str, list[float]]] = {kind: {"ours": [], "loop": []} for kind in commands}
    for number in range(repeats + 1):
        for kind, pair in commands.items():
            once = {name: timed(command) for name, command in pair.items()}
            print(f"{kind}:", ", ".join(f"{name} {value:.1f} s" for name, value in once.items()), flush=True)
            for name, value in once.items():
                seconds[kind][name] += [value] if number else []
    return {kind: {name: statistics.median(values) for name, values in pair.items()} for kind, pair in seconds.items()}


def table(results: dict[str, dict[str, float]]) -> str:
    """The Markdown table."""
    titles = {
        "no change": "`site.yml --tags fabric,firewall`, nothing to change | copy and apply",
        "test": "`fabric_test.yml`, 24 pings in 3 rounds | 24 pings, one after the other",
    }
    lines = ["| four nodes | loop over ssh | ours, s | loop, s | ours / loop |", "| --- | --- | ---: | ---: | ---: |"]
    for kind, row in results.items():
        ratio = row["ours"] / row["loop"]
        lines.append(f"| {titles[kind]} | {row['ours']:.1f} | {row['loop']:.1f} | {ratio:.2f} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.fabric", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="how often each is measured (3)")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="fabric-") as name:
            folder = Path(name)
            run([sys.executable, "-m", "lab", "create", "--nodes", str(len(NODES))])
            print("configuring the nodes ...", flush=True)
            run(STAGES)
            fetch(folder)
            results = measure(folder, options.repeats)
        run([sys.executable, "-m", "lab", "destroy"])
    except (RunFailedError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    put("fabric", f"Measured {datetime.date.today()} on {machine()}; medians of {options.repeats}.\n\n{table(results)}")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
