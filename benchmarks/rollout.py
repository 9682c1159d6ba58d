"""Measures a config rollout without its restart against a shell loop: `python3 -m benchmarks.rollout` (as root).

Both bring the four files that guides publish (up and down, for two versions of Triton) to four and to eight simulated
Sparks, in turn, in one run; the medians count. The loop does what guides show: node by node, ssh mkdir, scp of each
file, docker cp of each file into a container that runs, a connection each. The rollout takes the two files of the four
that the image reads; it asks, checks, proves, writes and switches. A second loop copies just those two.
Makes a lab of eight nodes (the nodes of one that is up stay) and leaves it up. Writes the table to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.bring_up import machine
from benchmarks.page import put
from benchmarks.runner import ROOT, RunFailedError

SIZES = (4, 8)
COLUMNS = ("loop of four files", "loop of two files", "rollout")
IMAGE = "198.18.0.2:5000/sglang-cpu:0.5.4.post2"
CONTAINER = "rollout-benchmark"
CONFIGS = "/usr/local/lib/python3.11/dist-packages/sglang/srt/layers/moe/fused_moe_triton/configs"
# What guides publish: up and down, for the Triton of the image and for an older one.
TRITONS = ("triton_3_3_0", "triton_3_5_0")
TILE = {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 64, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 1, "num_warps": 4, "num_stages": 3}
# The tiny model's experts are 256 wide and split over the ranks.
WIDTH = 256
# As someone types it: a connection each.
SSH = f"-q -F {ROOT}/.lab/ssh_config -o ControlMaster=no -o ControlPath=none"


def run(command: list[str]) -> None:
    """Run a command quietly; RunFailedError with the end of its output when it fails."""
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise RunFailedError(f"{shlex.join(command)[:200]}: {done.returncode}\n{done.stdout[-2000:]}")


def timed(command: list[str]) -> float:
    """Seconds that a command takes."""
    began = time.monotonic()
    run(command)
    return time.monotonic() - began


def inventory(folder: Path, count: int) -> Path:
    """An inventory of the first nodes of the lab."""
    place = folder / f"inventory-{count}"
    place.mkdir()
    lines = subprocess.run(
        [sys.executable, "-m", "lab", "inventory", "--nodes", str(count)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    (place / "hosts.yml").write_text(lines.stdout)
    variables = (ROOT / "inventory/sim4/group_vars/sparks.yml").read_text()
    (place / "group_vars").mkdir()
    # The lab's keys are found from the committed inventory.
    (place / "group_vars/sparks.yml").write_text(variables.replace("{{ inventory_dir }}/../..", str(ROOT)))
    return place / "hosts.yml"


def write_files(folder: Path, count: int, run_number: int) -> Path:
    """The four files, different in every run, as a guide's repository holds them."""
    place = folder / f"configs-{count}"
    for triton in TRITONS:
        (place / triton).mkdir(parents=True, exist_ok=True)
        for gemm in ("", "_down"):
            entries = {"1": TILE, str(64 + run_number): {**TILE, "BLOCK_SIZE_N": 32}}
            name = f"E=16,N={WIDTH // count},device_name=NVIDIA_GB10{gemm}.json"
            (place / triton / name).write_text(json.dumps(entries))
    return place


def loop(files: Path, count: int, tritons: tuple[str, ...]) -> str:
    """The loop of a guide as a shell script, with the files for some versions of Triton."""
    lines = ["set -e", f"for node in {' '.join(f'spark-{number}' for number in range(count))}; do"]
    folders = " ".join(f"/root/configs/{triton}" for triton in tritons)
    lines.append(f"  ssh {SSH} $node 'mkdir -p {folders}'")
    paths = [path for triton in tritons for path in sorted((files / triton).glob("*.json"))]
    lines += [f"  scp {SSH} '{path}' $node:/root/configs/{path.parent.name}/" for path in paths]
    inside = " ".join(f"{CONFIGS}/{triton}" for triton in tritons)
    lines.append(f"  ssh {SSH} $node 'docker exec {CONTAINER} mkdir -p {inside}'")
    for path in paths:
        name = f"{path.parent.name}/{path.name}"
        lines.append(f'  ssh {SSH} $node \'docker cp "/root/configs/{name}" "{CONTAINER}:{CONFIGS}/{name}"\'')
    return "\n".join([*lines, "done"])


def rollout(hosts: Path, files: Path) -> list[str]:
    """The command of a rollout that restarts nothing."""
    variables = json.dumps({"moe_config_dirs": [str(files)], "release_restart": False})
    return ["ansible-playbook", "-i", str(hosts), "site.yml", "--tags", "config", "-e", variables]


def on_nodes(hosts: Path, command: str) -> None:
    """Run a line of shell on all nodes."""
    run(["ansible", "-i", str(hosts), "sparks", "-m", "ansible.builtin.shell", "-a", command])


def measure(folder: Path, count: int, repeats: int) -> dict[str, float]:
    """Median seconds of the loops and of the rollout, in turn, after one of each that does not count."""
    hosts = inventory(folder, count)
    on_nodes(
        hosts, f"docker rm -f {CONTAINER}; docker run -d --rm --network none --name {CONTAINER} {IMAGE} sleep 1800"
    )
    seconds: dict[str, list[float]] = {name: [] for name in COLUMNS}
    try:
        for number in range(repeats + 1):
            files = write_files(folder, count, number)
            commands = (
                ["sh", "-c", loop(files, count, TRITONS)],
                ["sh", "-c", loop(files, count, TRITONS[-1:])],
                rollout(hosts, files),
            )
            once = {name: timed(command) for name, command in zip(COLUMNS, commands, strict=True)}
            print(f"{count} nodes:", ", ".join(f"{name} {value:.1f} s" for name, value in once.items()), flush=True)
            for name, value in once.items():
                seconds[name] += [value] if number else []
    finally:
        on_nodes(hosts, f"docker rm -f {CONTAINER}; rm -rf /root/configs")
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(results: dict[int, dict[str, float]]) -> str:
    """The Markdown table."""
    lines = [
        f"| nodes | {', s | '.join(COLUMNS)}, s | rollout / loop of four files | of two |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for count, row in results.items():
        four, two, ours = (row[name] for name in COLUMNS)
        lines.append(f"| {count} | {four:.1f} | {two:.1f} | {ours:.1f} | {ours / four:.2f} | {ours / two:.2f} |")
    few, many = (results[count][COLUMNS[-1]] for count in SIZES)
    return "\n".join(
        [*lines, "", f"At {SIZES[1]} nodes the rollout takes {many / few:.2f} times as long as at {SIZES[0]}."]
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.rollout", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="how often each is measured (3)")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="rollout-") as name:
            folder = Path(name)
            run([sys.executable, "-m", "lab", "create", "--nodes", str(max(SIZES))])
            print("preparing the nodes: Docker, the image, the model ...", flush=True)
            (folder / "all").mkdir()
            stages = ["--tags", "container_runtime,image,model"]
            run(["ansible-playbook", "-i", str(inventory(folder / "all", max(SIZES))), "site.yml", *stages])
            results = {count: measure(folder, count, options.repeats) for count in SIZES}
    except (RunFailedError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    text = f"Measured {datetime.date.today()} on {machine()}; medians of {options.repeats}.\n\n{table(results)}"
    put("rollout", text)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
