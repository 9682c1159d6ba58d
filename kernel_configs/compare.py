"""Our tiles beside the published ones and SGLang's defaults, all by the cost model: predictions, nothing measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import (
    Tile,
    default_tile,
    shared_bytes,
    tile_from_entry,
)

from kernel_configs.catalog import CatalogError, Target, model, models, targets
from kernel_configs.choose import BATCHES
from kernel_configs.cost import GEMMS, Layer, estimate
from kernel_configs.gb10 import GB10, multiplies_fp8
from kernel_configs.generate import SHIPPED
from kernel_configs.manifest import folder_of

PUBLISHED = Path(__file__).with_name("published-tiles.json")
# What the published tiles were tuned for.
MODEL, TP, TRITON, RELEASE = "GLM-4.7-FP8", 4, "3.5.0", "0.5.4.post2"
# From 0.5.14 on SGLang has other defaults for GPUs with little shared memory.
LATER = "0.5.14"


@dataclass(frozen=True)
class Row:
    """One M: our tiles and the published one, and the predicted seconds of all, None where a tile does not fit."""

    m: int
    ours: Mapping[str, Tile]
    published: Tile
    seconds: Mapping[str, Mapping[str, float | None]]

    def layer(self, whose: str) -> float | None:
        """Seconds of both GEMMs, None if one does not fit."""
        parts = [self.seconds[whose][gemm] for gemm in GEMMS]
        return None if None in parts else sum(part for part in parts if part is not None)


def short(tile: Tile) -> str:
    """The tile in a table."""
    return f"{tile.block_m}x{tile.block_n}x{tile.block_k} g{tile.group_m} w{tile.num_warps} s{tile.num_stages}"


def published() -> dict[int, Tile]:
    """The published tiles by M."""
    data = json.loads(PUBLISHED.read_text())
    return {int(m): tile_from_entry(entry) for m, entry in data["by_m"].items()}


def shipped(target: Target, triton: str, folder: Path = SHIPPED) -> dict[int, Tile]:
    """The tiles of a shipped file by M. CatalogError when it is not there."""
    path = folder / folder_of(triton) / target.name
    try:
        return {int(m): tile_from_entry(entry) for m, entry in json.loads(path.read_text()).items()}
    except OSError as error:
        raise CatalogError(
            f"{path} cannot be read: {error.strerror}. Mend: python -m kernel_configs generate"
        ) from error


def seconds(layer: Layer, gemm: str, m: int, tile: Tile, triton: str) -> float | None:
    """Predicted seconds, None when the tile needs more shared memory than there is."""
    if shared_bytes(tile, layer.kind, layer.block_shape) > GB10.shared_per_block:
        return None
    return estimate(layer, gemm, m, tile, multiplies_fp8(triton)).seconds


def rows(folder: Path = SHIPPED) -> list[Row]:
    """The comparison for the layer that the published tiles are for."""
    wanted = {one.gemm: one for one in targets(model(MODEL, models()).shape, TP, [RELEASE])}
    layer = wanted["up"].layer
    ours = {gemm: shipped(wanted[gemm], TRITON, folder) for gemm in GEMMS}
    theirs = published()
    found = []
    for m in BATCHES:
        default, later = (
            default_tile(m, layer.experts + layer.shared, layer.kind, None, release, GB10.shared_per_block)
            for release in (RELEASE, LATER)
        )
        tiles: dict[str, Callable[[str], Tile]] = {
            "ours": lambda gemm, m=m: ours[gemm][m],  # type: ignore[misc]
            "published": lambda gemm, m=m: theirs[m],  # type: ignore[misc]
            "default": lambda gemm, tile=default: tile,  # type: ignore[misc]
            "later": lambda gemm, tile=later: tile,  # type: ignore[misc]
        }
        times = {
            whose: {gemm: seconds(layer, gemm, m, of(gemm), TRITON) for gemm in GEMMS} for whose, of in tiles.items()
        }
        found.append(Row(m, {gemm: ours[gemm][m] for gemm in GEMMS}, theirs[m], times))
    return found


COLUMNS = (
    "M",
    "ours up",
    "ours down",
    "published",
    "ours up µs",
    "ours down µs",
    "published up",
    "published down",
    "published both",
    f"default {RELEASE}",
    f"default {LATER}",
)


def cells(found: Iterable[Row]) -> list[dict[str, object]]:
    """The rows for a table: times in µs, the others' as a multiple of ours."""
    table = []
    for row in found:
        both = row.layer("ours")
        values: list[object] = [row.m, short(row.ours["up"]), short(row.ours["down"]), short(row.published)]
        values += [_micro(row.seconds["ours"][gemm]) for gemm in GEMMS]
        values += [_times(row.seconds["published"][gemm], row.seconds["ours"][gemm]) for gemm in GEMMS]
        values += [_times(row.layer(whose), both) for whose in ("published", "default", "later")]
        table.append(dict(zip(COLUMNS, values, strict=True)))
    return table


def markdown(found: Iterable[Row]) -> str:
    """The table for docs/moe-configs.md."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "| ---: | --- | --- | --- |" + " ---: |" * (len(COLUMNS) - 4)]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in cells(found)]
    return "\n".join(lines)


def _micro(value: float | None) -> str:
    return "does not fit" if value is None else f"{value * 1e6:,.0f}"


def _times(value: float | None, ours: float | None) -> str:
    return "does not fit" if value is None or ours is None else f"{value / ours:.2f}"
