"""Makes config files: their text in memory, and a folder of them brought up to date."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import Tile, tile_to_entry

from kernel_configs import ROOT
from kernel_configs.catalog import Target
from kernel_configs.choose import Report, choose, usable_kernels
from kernel_configs.gb10 import GB10
from kernel_configs.kernel import kernel
from kernel_configs.manifest import NAME, Facts, Manifest, ManifestError, facts, merged, read, render

SHIPPED = ROOT / "files" / "moe_configs"


def config_text(tiles: Mapping[int, Tile]) -> str:
    """A config file: one line an entry, M ascending."""
    rows = [f'  "{m}": {json.dumps(tile_to_entry(tiles[m]))}' for m in sorted(tiles)]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def make(
    targets: Sequence[Target], tritons: Iterable[str], report: Report = lambda line: None
) -> tuple[dict[str, str], Manifest]:
    """The files for all targets and Tritons, by path, and the manifest of them."""
    texts: dict[str, str] = {}
    known: dict[str, Facts] = {}
    checked: dict[str, tuple[str, ...]] = {}
    for triton in tritons:
        plans = choose([target.layer for target in targets], triton, report)
        checked[triton] = usable_kernels(triton)
        for target in targets:
            plan = plans[target.layer]
            one = facts(target, triton, plan)
            texts[one.path] = config_text(plan.tiles[target.gemm])
            known[one.path] = one
    releases = dict.fromkeys(release for used in checked.values() for release in used)
    return texts, Manifest(known, {release: kernel(release).digest for release in releases}, checked)


def bring_up_to_date(folder: Path, texts: Mapping[str, str], manifest: Manifest, everything: bool) -> list[str]:
    """Write what differs and return its paths.

    everything: whether texts are all files of the folder; then others that its manifest names are removed.
    """
    try:
        old = read(folder)
    except ManifestError:
        old = None
    changed = []
    keep = []
    for path in old.files if old else ():
        if path in texts:
            continue
        if everything:
            (folder / path).unlink(missing_ok=True)
            changed.append(path)
        elif (folder / path).is_file():
            keep.append(path)
    whole = merged(None if everything else old, manifest, keep)
    for path, text in {**texts, NAME: render(whole, GB10.shared_per_block, GB10.name)}.items():
        target = folder / path
        if not target.is_file() or target.read_text() != text:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            changed.append(path)
    return sorted(changed)
