"""Why a tile was chosen: the candidates for one layer and M, term by term."""

from __future__ import annotations

from collections.abc import Mapping

from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import Tile, default_tile, shared_bytes

from kernel_configs.choose import BATCHES, WORTH_A_CHANGE, candidates
from kernel_configs.compare import LATER, RELEASE, short
from kernel_configs.cost import GEMMS, Cost, Layer, estimate
from kernel_configs.gb10 import GB10

BEST = 5
COLUMNS = (
    "GEMM",
    "tile",
    "who",
    "µs",
    "limit",
    "memory",
    "L2",
    "tensor",
    "latency",
    "padding",
    "blocks",
    "resident",
    "bytes",
)


def nearest_batch(m: int) -> int:
    """The entry that SGLang takes for m tokens."""
    return min(BATCHES, key=lambda key: abs(key - m))


def table(
    layer: Layer, m: int, fp8: bool, chosen: Mapping[str, Tile], others: Mapping[str, Tile]
) -> list[dict[str, object]]:
    """The rows: for each GEMM the chosen tile, the best by prediction alone, the defaults and the others."""
    rows = []
    for gemm in GEMMS:
        known = named(layer, m, chosen[gemm], others)
        costs = {tile: estimate(layer, gemm, m, tile, fp8) for tile in candidates(layer.kind, layer.block_shape)}
        best = sorted(costs, key=lambda tile: costs[tile].seconds)[:BEST]
        for tile in dict.fromkeys([chosen[gemm], *best, *known.values()]):
            who = ", ".join(name for name, one in known.items() if one == tile)
            rows.append(_row(layer, gemm, m, tile, fp8, who))
    return rows


def named(layer: Layer, m: int, chosen: Tile, others: Mapping[str, Tile]) -> dict[str, Tile]:
    """The tiles that have a name: ours, SGLang's defaults, and the others."""
    defaults = {
        f"default {release}": default_tile(
            m, layer.experts + layer.shared, layer.kind, layer.block_shape, release, GB10.shared_per_block
        )
        for release in (RELEASE, LATER)
    }
    return {"chosen": chosen, **defaults, **others}


def _row(layer: Layer, gemm: str, m: int, tile: Tile, fp8: bool, who: str) -> dict[str, object]:
    needed = shared_bytes(tile, layer.kind, layer.block_shape)
    row: dict[str, object] = {"GEMM": gemm, "tile": short(tile), "who": who, "bytes": needed}
    if needed > GB10.shared_per_block:
        return {**row, "limit": "does not fit"}
    cost = estimate(layer, gemm, m, tile, fp8)
    return {
        **row,
        "µs": round(cost.seconds * 1e6, 1),
        "limit": cost.limit,
        **{name: round(value * 1e6, 1) for name, value in cost.terms.items()},
        "padding": round(cost.padding, 2),
        "blocks": round(cost.blocks),
        "resident": cost.resident,
    }


def sentences(layer: Layer, m: int, fp8: bool, chosen: Mapping[str, Tile], others: Mapping[str, Tile]) -> list[str]:
    """The explanation in words."""
    spread = estimate(layer, "up", m, chosen["up"], fp8).spread
    lines = [
        f"{m} tokens make {spread.pairs:,} pairs that hit {spread.experts:.1f} of {layer.experts + layer.shared} "
        f"experts: {spread.pairs / spread.experts:.1f} rows each, "
        f"{spread.padding(chosen['up'].block_m):.2f} times that with padding."
    ]
    for gemm in GEMMS:
        mine = estimate(layer, gemm, m, chosen[gemm], fp8)
        read = mine.dram_bytes / mine.seconds / 1e9
        lines.append(
            f"{gemm}: {short(chosen[gemm])} is limited by {mine.limit}: {mine.dram_bytes / 1e6:,.1f} MB "
            f"in {mine.seconds * 1e6:,.0f} µs are {read:.0f} GB/s."
        )
        lines += [
            _against(layer, gemm, m, fp8, mine, who, tile) for who, tile in _rivals(layer, gemm, m, fp8, chosen, others)
        ]
    return lines


def _rivals(
    layer: Layer, gemm: str, m: int, fp8: bool, chosen: Mapping[str, Tile], others: Mapping[str, Tile]
) -> list[tuple[str, Tile]]:
    tiles = candidates(layer.kind, layer.block_shape)
    best = min(tiles, key=lambda tile: estimate(layer, gemm, m, tile, fp8).seconds)
    rivals = list(named(layer, m, chosen[gemm], others).items())[1:]
    return [*([("best alone", best)] if best != chosen[gemm] else []), *rivals]


def _against(layer: Layer, gemm: str, m: int, fp8: bool, mine: Cost, who: str, tile: Tile) -> str:
    needed = shared_bytes(tile, layer.kind, layer.block_shape)
    if needed > GB10.shared_per_block:
        return f"  {who} {short(tile)}: does not fit, {needed:,} bytes of {GB10.shared_per_block:,}: OutOfResources."
    cost = estimate(layer, gemm, m, tile, fp8)
    ratio = cost.seconds / mine.seconds
    if ratio < 1:
        return (
            f"  {who} {short(tile)}: {1 - ratio:.1%} faster alone, given up: BLOCK_SIZE_M is shared with the other "
            f"GEMM, and another tile than the neighbouring M's has to gain {WORTH_A_CHANGE:.0%}."
        )
    gaps = {name: cost.terms[name] - mine.terms[name] for name in cost.terms}
    worst = max(gaps, key=lambda name: gaps[name])
    more = f", {gaps[worst] * 1e6:,.0f} µs more of {worst}" if gaps[worst] > 1e-7 else ""
    return f"  {who} {short(tile)}: {ratio:.2f} times as long{more}."
