"""Holds every entry of a folder of config files against the compiler."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe import check_file, check_pair, entry_tile
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import Tile

from kernel_configs.choose import Report, ask_compiler, fits, job
from kernel_configs.compiler import Compiled, Job
from kernel_configs.cost import GEMMS, Layer
from kernel_configs.gb10 import GB10
from kernel_configs.manifest import NAME, Facts, ManifestError, read

_FILE = re.compile(
    r"E=(?P<experts>\d+),N=(?P<n>\d+),device_name=(?P<device>[^,]+?)(?:,dtype=(?P<dtype>\w+?))?"
    r"(?:,block_shape=\[(?P<block_n>\d+), (?P<block_k>\d+)\])?(?P<channel>,per_channel_quant=True)?"
    r"(?P<down>_down)?\.json"
)
_FOLDER = re.compile(r"triton_(\d+)_(\d+)_(\d+)")


class CheckError(ValueError):
    """A folder can't be checked; the text says why, and the mend."""


@dataclass(frozen=True)
class _File:
    """A file to check: its entries by M, its layer, the GEMMs that it serves."""

    path: str
    device: str
    triton: str
    layer: Layer
    gemms: tuple[str, ...]
    data: Any


@dataclass(frozen=True)
class Result:
    """entries: how many were compiled, each for the GEMMs that it serves; problems: a sentence each."""

    files: int
    entries: int
    problems: tuple[str, ...]


def check(folder: Path, triton: str | None, hidden: int, top_k: int, report: Report = lambda line: None) -> Result:
    """Check a folder of <name>.json or triton_X_Y_Z/<name>.json.

    triton: for files that lie in no such folder; hidden and top_k: for files that no manifest tells of.
    CheckError when the folder holds no config files or one can't be understood.
    """
    paths = sorted(path for path in folder.glob("**/*.json") if path.name != NAME)
    if not paths:
        raise CheckError(f"{folder} holds no config files. Mend: name the folder with them or with triton_X_Y_Z/.")
    try:
        known: Mapping[str, Facts] = read(folder).files
    except ManifestError:
        known = {}
    files = [_file(folder, path, known, triton, hidden, top_k) for path in paths]
    problems = [f"{NAME} names {path}, which is not there" for path in known if not (folder / path).is_file()]
    sound = []
    for one in files:
        found = check_file(
            Path(one.path).name, one.data, one.layer.kind, one.layer.block_shape, GB10.shared_per_block, one.device
        )
        # What does not fit is left to the compiler.
        malformed = [problem for problem in found if "bytes of shared memory" not in problem]
        problems += [f"{one.path}: {problem}" for problem in malformed]
        if not malformed:
            sound.append(one)
    problems += _pairs(sound)
    entries = 0
    for version in sorted({one.triton for one in sound}):
        of_version = [one for one in sound if one.triton == version]
        report(f"Triton {version}: {len(of_version)} files")
        count, found = _compile(of_version, version, known)
        entries += count
        problems += found
    return Result(len(files), entries, tuple(problems))


def _file(folder: Path, path: Path, known: Mapping[str, Facts], triton: str | None, hidden: int, top_k: int) -> _File:
    name = path.relative_to(folder).as_posix()
    parts = _FILE.fullmatch(path.name)
    if not parts:
        raise CheckError(f"{name} is not a name that SGLang looks for. Mend: move it out of the folder, or rename it.")
    kind = _kind(parts, name)
    in_folder = _FOLDER.fullmatch(path.parent.name)
    version = ".".join(in_folder.groups()) if in_folder else triton
    if not version:
        raise CheckError(f"{name} lies in no triton_X_Y_Z folder. Mend: say which Triton it is for: --triton.")
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise CheckError(f"{name} is not JSON: {error}. Mend: correct it.") from error
    gemms: tuple[str, ...] = ("down",) if parts["down"] else ("up",)
    if gemms == ("up",) and not path.with_name(path.stem + "_down.json").is_file():
        gemms = GEMMS
    layer = Layer(
        experts=int(parts["experts"]),
        top_k=top_k,
        shared=0,
        hidden=hidden,
        n=int(parts["n"]),
        kind=kind,
        block_shape=(int(parts["block_n"]), int(parts["block_k"])) if parts["block_n"] else None,
    )
    if name in known:
        layer, version = known[name].layer, known[name].triton
    return _File(name, parts["device"], version, layer, gemms, data)


def _kind(parts: re.Match[str], name: str) -> str:
    kinds = {None: "bf16", "fp8_w8a8": "fp8_channel", "int8_w8a8": "int8_channel"}
    if parts["dtype"] not in kinds:
        raise CheckError(f"{name}: {parts['dtype']} goes through kernels that are not covered. Mend: leave it out.")
    return "fp8_block" if parts["block_n"] else kinds[parts["dtype"]]


def _tiles(one: _File) -> dict[int, Tile]:
    return {int(m): entry_tile(entry) for m, entry in one.data.items()}


def _pairs(files: list[_File]) -> list[str]:
    by_path = {one.path: one for one in files}
    problems = []
    for one in files:
        down = by_path.get(one.path.removesuffix(".json") + "_down.json")
        if down:
            problems += [f"{one.path} and its _down file: {problem}" for problem in check_pair(one.data, down.data)]
    return problems


def _compile(files: list[_File], triton: str, known: Mapping[str, Facts]) -> tuple[int, list[str]]:
    wanted: list[tuple[_File, int, Job]] = [
        (one, m, job(one.layer, gemm, tile)) for one in files for m, tile in _tiles(one).items() for gemm in one.gemms
    ]
    answers = ask_compiler([item[2] for item in wanted], triton)
    problems = []
    for one, m, asked in wanted:
        answer = answers[asked]
        where = f"{one.path}: M {m} ({asked.gemm})"
        if not fits(answer):
            problems.append(f"{where}: {_why(answer)}")
        elif one.path in known and known[one.path].needed.get(m) != answer.shared:
            said = known[one.path].needed.get(m)
            problems.append(
                f"{where}: {NAME} says {said} bytes, the compiler {answer.shared}. Mend: generate it again."
            )
    return len(wanted), problems


def _why(answer: Compiled) -> str:
    if answer.error is not None:
        return f"the compiler refuses it: {answer.error}"
    return f"{answer.shared:,} bytes of shared memory, over the {GB10.shared_per_block:,} of {GB10.name}"
