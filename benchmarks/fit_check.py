"""Compiles every entry of the shipped configs and measures how long that takes: `python3 -m benchmarks.fit_check`.

Reads the files and their manifest by itself, so that it shares no mistake with the generator; earlier results of the
compiler are not used. Writes the table to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_configs import wheels  # before what follows: it makes our collection importable

# isort: split
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import tile_from_entry

from benchmarks.bring_up import machine
from benchmarks.page import put
from benchmarks.runner import ROOT
from kernel_configs.compiler import Compiled, Job, compile_all
from kernel_configs.kernel import kernel

SHIPPED = ROOT / "files/moe_configs"
# Bytes of shared memory a block that a GB10 gives (CUDA driver attribute 97).
LIMIT = 101_376
# The Tritons that run by default: those of the images that most Sparks run.
USUAL = ("3.5.0", "3.6.0")

_NAME = re.compile(
    r"E=(?P<experts>\d+),N=(?P<n>\d+),device_name=NVIDIA_GB10(,dtype=(?P<dtype>\w+?))?"
    r"(,block_shape=(?P<block>\[\d+, \d+\]))?(,per_channel_quant=True)?(?P<down>_down)?\.json"
)
_DTYPES = {"bf16": None, "int8_channel": "int8_w8a8"}


@dataclass(frozen=True)
class Entry:
    """One entry of a file: where it is, what it makes SGLang launch, and the releases whose kernel is tried."""

    path: str
    m: str
    job: Job
    releases: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One Triton's share: files and entries read, launches compiled, seconds, largest need in bytes, what is wrong."""

    triton: str
    files: int
    entries: int
    compiled: int
    seconds: float
    largest: int
    problems: tuple[str, ...]


def tritons(folder: Path) -> list[str]:
    """The Tritons that the folder has files for, oldest first."""
    found = [path.name.removeprefix("triton_").replace("_", ".") for path in folder.glob("triton_*")]
    return sorted(found, key=lambda version: [int(number) for number in version.split(".")])


def check(folder: Path, triton: str, limit: int = LIMIT) -> Row:
    """Hold every entry of one Triton's files against the compiler."""
    began = time.monotonic()
    manifest = json.loads((folder / "manifest.json").read_text())
    names = sorted(path.relative_to(folder).as_posix() for path in (folder / _folder(triton)).iterdir())
    missing = [name for name in manifest["files"] if name.startswith(_folder(triton)) and name not in names]
    problems = [f"{name} is in the manifest and not in the folder" for name in missing]
    entries: list[Entry] = []
    for name in names:
        try:
            entries += _entries(folder, name, manifest, triton)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{name}: {type(error).__name__}: {error}")
    answers = _answers(entries, triton)
    largest = max((answer.shared or 0 for answer in answers.values()), default=0)
    for entry in entries:
        for release in entry.releases:
            problems += _verdict(entry, release, answers[entry.job, kernel(release).digest], limit)
    seconds = time.monotonic() - began
    return Row(triton, len(names), len(entries), len(answers), seconds, largest, tuple(problems))


def _folder(triton: str) -> str:
    return f"triton_{triton.replace('.', '_')}"


def _entries(folder: Path, name: str, manifest: dict[str, Any], triton: str) -> Iterator[Entry]:
    """The entries of a file. ValueError or KeyError when it is malformed or its name and the manifest disagree."""
    fact = manifest["files"][name]
    block = tuple(fact["block_shape"]) if fact["block_shape"] else None
    _hold_name(Path(name).name, fact)
    # The oldest and the newest release that look the name up, among those that this Triton can run.
    releases = [release for release in fact["sglang"] if _runs(release, triton)]
    kernels = {kernel(release).digest: release for release in (releases[-1], releases[0])}
    n, k = (
        (2 * fact["intermediate"], fact["hidden"]) if fact["gemm"] == "up" else (fact["hidden"], fact["intermediate"])
    )
    data = json.loads((folder / name).read_text())
    if not data:
        raise ValueError("no entries")
    for m, entry in data.items():
        int(m)
        job = Job(fact["gemm"], fact["kind"], block, n, k, fact["top_k"], tile_from_entry(entry))
        yield Entry(name, m, job, tuple(kernels.values()))


def _hold_name(name: str, fact: dict[str, Any]) -> None:
    parts = _NAME.fullmatch(name)
    if not parts:
        raise ValueError("not a name that SGLang looks for on a GB10")
    gemm = "down" if parts["down"] else "up"
    told = (int(parts["experts"]), int(parts["n"]), parts["dtype"], json.loads(parts["block"] or "null"), gemm)
    experts = fact["experts"] + fact["fused_shared_experts"]
    dtype = _DTYPES.get(fact["kind"], "fp8_w8a8")
    if told != (experts, fact["intermediate"], dtype, fact["block_shape"], fact["gemm"]):
        raise ValueError(f"the name says {told}, the manifest otherwise")


def _runs(release: str, triton: str) -> bool:
    # SGLang 0.5.23 starts its kernels by programmatic dependent launch, which Triton 3.4 compiles for none of them.
    return not (triton.startswith("3.4.") and "USE_GDC" in kernel(release).path.read_text())


def _answers(entries: Iterable[Entry], triton: str) -> dict[tuple[Job, str], Compiled]:
    """What the compiler says of each job with each distinct kernel (by digest)."""
    wanted: dict[str, tuple[str, dict[Job, None]]] = {}
    for entry in entries:
        for release in entry.releases:
            wanted.setdefault(kernel(release).digest, (release, {}))[1][entry.job] = None
    return {
        (job, digest): answer
        for digest, (release, jobs) in wanted.items()
        for job, answer in compile_all(jobs, triton, release, cache=False).items()
    }


def _verdict(entry: Entry, release: str, answer: Compiled, limit: int) -> list[str]:
    where = f"{entry.path}: M {entry.m}, SGLang {release}"
    if answer.shared is None:
        return [f"{where}: refused: {answer.error}"]
    if answer.shared > limit:
        return [f"{where}: {answer.shared:,} bytes of shared memory, over {limit:,}"]
    return []


def table(rows: Iterable[Row]) -> str:
    """The Markdown table of the rows, with their sum."""
    rows = list(rows)
    lines = [
        "| Triton | files | entries | compiles | largest, bytes | entries that don't fit | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        counts = f"{row.files} | {row.entries} | {row.compiled} | {row.largest:,} | {len(row.problems)}"
        lines.append(f"| {row.triton} | {counts} | {row.seconds:.1f} |")
    total = sum(row.seconds for row in rows)
    sums = [sum(getattr(row, name) for row in rows) for name in ("files", "entries", "compiled")]
    lines.append(
        f"| all of these | {' | '.join(map(str, sums))} |  | {sum(len(row.problems) for row in rows)} | {total:.1f} |"
    )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.fit_check", description=__doc__)
    parser.add_argument("--all", action="store_true", help=f"every Triton, not only {' and '.join(USUAL)}")
    options = parser.parse_args(arguments)
    rows = []
    for triton in [each for each in tritons(SHIPPED) if options.all or each in USUAL]:
        wheels.triton(triton)  # a download is not what is measured
        rows.append(check(SHIPPED, triton))
        print(f"Triton {triton}: {rows[-1].seconds:.1f} s", *rows[-1].problems, sep="\n   ", flush=True)
    put("fit_check", f"Measured {datetime.date.today()} on {machine()}.\n\n{table(rows)}")
    return 1 if any(row.problems for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
