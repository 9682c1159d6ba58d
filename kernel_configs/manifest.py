"""The manifest of a folder of configs: what each file is for, what it needs, how it was made.

`read` is for everyone who wants to know; only the generator writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_configs.catalog import Target
from kernel_configs.choose import Plan
from kernel_configs.cost import GEMMS, Layer

NAME = "manifest.json"
# Goes up when the cost model or the choice changes, so that files made by another one are told apart.
COST_MODEL = 1
COMMAND = "python -m kernel_configs generate"


class ManifestError(ValueError):
    """A manifest can't be read; the text says which, why, and the mend."""


@dataclass(frozen=True)
class Facts:
    """One config file: its path below the folder, who looks for it, its layer, and the bytes that each M needs.

    models: names of the catalog; releases: of SGLang; tp: ranks; layer: what one rank computes.
    """

    path: str
    gemm: str
    models: tuple[str, ...]
    releases: tuple[str, ...]
    triton: str
    tp: int
    layer: Layer
    needed: Mapping[int, int]


@dataclass(frozen=True)
class Manifest:
    """All files of a folder by path.

    kernels: digest of each SGLang release's kernel; checked_with: by Triton, the releases whose kernel all tiles
    passed.
    """

    files: Mapping[str, Facts]
    kernels: Mapping[str, str]
    checked_with: Mapping[str, tuple[str, ...]]


def folder_of(triton: str) -> str:
    """SGLang's folder for a Triton."""
    return f"triton_{triton.replace('.', '_')}"


def facts(target: Target, triton: str, plan: Plan) -> Facts:
    """What the manifest says about a file that was made for a target."""
    return Facts(
        path=f"{folder_of(triton)}/{target.name}",
        gemm=target.gemm,
        models=target.models,
        releases=target.releases,
        triton=triton,
        tp=target.tp,
        layer=target.layer,
        needed=plan.needed[target.gemm],
    )


def render(manifest: Manifest, limit: int, device: str) -> str:
    """The text of manifest.json, one line a file."""
    head = {
        "about": "Made by the command below; do not edit. Predicted to be fast by a cost model of the GPU, never "
        "measured on one; every entry compiled, and its shared memory in bytes taken from the compiler.",
        "command": COMMAND,
        "cost_model": COST_MODEL,
        "device": device,
        "limit": limit,
    }
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    for key, table in (("kernels", manifest.kernels), ("checked_with", manifest.checked_with)):
        rows = [f"  {json.dumps(name)}: {json.dumps(table[name])}" for name in sorted(table)]
        lines.append(f" {json.dumps(key)}: {{\n" + ",\n".join(rows) + "\n },")
    rows = [f"  {json.dumps(path)}: {json.dumps(_entry(manifest.files[path]))}" for path in sorted(manifest.files)]
    return "{\n" + "\n".join(lines) + '\n "files": {\n' + ",\n".join(rows) + "\n }\n}\n"


def _entry(one: Facts) -> dict[str, Any]:
    layer = one.layer
    return {
        "gemm": one.gemm,
        "models": one.models,
        "sglang": one.releases,
        "triton": one.triton,
        "tp": one.tp,
        "experts": layer.experts,
        "fused_shared_experts": layer.shared,
        "top_k": layer.top_k,
        "hidden": layer.hidden,
        "intermediate": layer.n,
        "n_k": {gemm: layer.rows_and_k(gemm) for gemm in GEMMS},
        "kind": layer.kind,
        "block_shape": layer.block_shape,
        "bytes": {str(m): needed for m, needed in one.needed.items()},
    }


def read(folder: Path) -> Manifest:
    """The manifest of a folder. ManifestError when there is none or it is damaged."""
    path = folder / NAME
    try:
        data = json.loads(path.read_text())
        files = {name: _facts(name, entry) for name, entry in data["files"].items()}
        checked = {name: tuple(releases) for name, releases in data["checked_with"].items()}
        return Manifest(files, data["kernels"], checked)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{path}: {type(error).__name__}: {error}. Mend: make it again with `{COMMAND}`."
        ) from error


def _facts(path: str, entry: Mapping[str, Any]) -> Facts:
    block = entry["block_shape"]
    layer = Layer(
        experts=entry["experts"],
        top_k=entry["top_k"],
        shared=entry["fused_shared_experts"],
        hidden=entry["hidden"],
        n=entry["intermediate"],
        kind=entry["kind"],
        block_shape=(block[0], block[1]) if block else None,
    )
    return Facts(
        path=path,
        gemm=entry["gemm"],
        models=tuple(entry["models"]),
        releases=tuple(entry["sglang"]),
        triton=entry["triton"],
        tp=entry["tp"],
        layer=layer,
        needed={int(m): needed for m, needed in entry["bytes"].items()},
    )


def merged(old: Manifest | None, new: Manifest, keep: Iterable[str]) -> Manifest:
    """The new manifest with the old one's files named in keep, for a run that made only some of the files."""
    if old is None:
        return new
    files = {path: old.files[path] for path in keep if path in old.files}
    kernels, checked = {**old.kernels, **new.kernels}, {**old.checked_with, **new.checked_with}
    return Manifest({**files, **new.files}, kernels, checked)
