"""Measures a config rollout without its restart against a shell loop: `python3 -m benchmarks.rollout` (as root).

Both bring what guides for GLM-4.7 publish to four and to eight simulated Sparks, in turn, in one run; medians count:
four kernel configs (up and down, for two versions of Triton) and three patched sources of the tool-call parser. The
loop does what guides show: node by node, ssh mkdir, scp of each file, docker cp of each file into a container that
runs, a connection each. The rollout takes the two configs of the four that the image reads, and patches the sources
itself; it asks, checks, proves, writes and switches. A second loop copies just those five files.
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

from kernel_configs import wheels  # before what follows: it makes our collection importable

# isort: split
from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_patch import patch
from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_syntax import FOLDER, READ

from benchmarks.bring_up import machine
from benchmarks.page import put
from benchmarks.runner import ROOT, RunFailedError

SIZES = (4, 8)
COLUMNS = ("loop of seven files", "loop of five files", "rollout")
IMAGE = "198.18.0.2:5000/sglang-cpu:0.5.4.post2"
CONTAINER = "rollout-benchmark"
PACKAGE = "/usr/local/lib/python3.11/dist-packages/sglang"
CONFIGS = f"{PACKAGE}/srt/layers/moe/fused_moe_triton/configs"
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


def prepare(folder: Path, count: int, stages: str) -> None:
    """Make a lab of so many nodes, and bring it through some stages of site.yml."""
    run([sys.executable, "-m", "lab", "create", "--nodes", str(count)])
    print(f"preparing the nodes: {stages} ...", flush=True)
    (folder / "all").mkdir()
    run(["ansible-playbook", "-i", str(inventory(folder / "all", count)), "site.yml", "--tags", stages])


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


def write_parsers(folder: Path) -> Path:
    """The patched sources of the image's release."""
    place = folder / "parsers"
    place.mkdir(exist_ok=True)
    own = wheels.sglang("0.5.4.post2") / "sglang" / FOLDER
    pieces = ROOT / "roles/parser_patch/files"
    texts = [(pieces / name).read_text() for name in ("glm47_moe_detector.py", "json_schema_types.py")]
    sources = {name: (own / name).read_text() for name in READ if (own / name).is_file()}
    for name, text in patch(sources, *texts).files.items():
        (place / name).write_text(text)
    return place


def loop(files: Path, parsers: Path, count: int, tritons: tuple[str, ...]) -> str:
    """The loop of a guide as a shell script, with the configs for some versions of Triton."""
    pairs = [
        (path, f"{CONFIGS}/{triton}/{path.name}") for triton in tritons for path in sorted((files / triton).iterdir())
    ]
    pairs += [(path, f"{PACKAGE}/{FOLDER}/{path.name}") for path in sorted(parsers.iterdir())]
    here = {target: f"/root/configs/{path.parent.name}/{path.name}" for path, target in pairs}
    lines = ["set -e", f"for node in {' '.join(f'spark-{number}' for number in range(count))}; do"]
    lines.append(f"  ssh {SSH} $node 'mkdir -p {' '.join(sorted({str(Path(path).parent) for path in here.values()}))}'")
    lines += [f"  scp {SSH} '{path}' $node:'{here[target]}'" for path, target in pairs]
    inside = " ".join(f"{CONFIGS}/{triton}" for triton in tritons)
    lines.append(f"  ssh {SSH} $node 'docker exec {CONTAINER} mkdir -p {inside}'")
    for _, target in pairs:
        lines.append(f'  ssh {SSH} $node \'docker cp "{here[target]}" "{CONTAINER}:{target}"\'')
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
            files, parsers = write_files(folder, count, number), write_parsers(folder)
            commands = (
                ["sh", "-c", loop(files, parsers, count, TRITONS)],
                ["sh", "-c", loop(files, parsers, count, TRITONS[-1:])],
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
        f"| nodes | {', s | '.join(COLUMNS)}, s | rollout / loop of seven files | of five |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for count, row in results.items():
        seven, five, ours = (row[name] for name in COLUMNS)
        lines.append(f"| {count} | {seven:.1f} | {five:.1f} | {ours:.1f} | {ours / seven:.2f} | {ours / five:.2f} |")
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
            prepare(folder, max(SIZES), "fabric,container_runtime,image,model")
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
