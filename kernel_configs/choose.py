"""Chooses a tile for each M and both GEMMs of a layer: the cost model ranks, Triton's compiler has the last word.

The choice is the same bytes on every machine: nothing is measured, ties go by a fixed order, and the compiler only
refuses tiles.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TypeVar

from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import Tile, shared_bytes

from kernel_configs import wheels
from kernel_configs.compiler import Compiled, Job, compile_all
from kernel_configs.cost import GEMMS, Layer, accumulators, estimate, resident_blocks
from kernel_configs.gb10 import GB10, multiplies_fp8

# The batch sizes that SGLang's own tuner writes entries for.
BATCHES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 256, 512, 1024, 1536, 2048, 3072, 4096)

_SIDES_M = (16, 32, 64, 128)
_SIDES_N = (32, 64, 128, 256)
_STEPS_K = (64, 128, 256)
_GROUPS = (1, 16, 32, 64)
_WARPS = (4, 8)
_STAGES = (2, 3, 4, 5)
# From here on the sums alone fill the registers of a thread; ptxas then gives up (thousands of bytes spilled).
_TOO_MANY_ACCUMULATORS = 256

# What another tile than the neighbour's has to gain: each distinct tile is one more kernel to compile at start-up.
WORTH_A_CHANGE = 0.01
# Predictions are compared to this many digits: what is finer says nothing.
_DIGITS = 4

# The kernels that a tile must fit: its text changed in between. A Triton that can't compile one of them at all is not
# used with its release.
KERNELS = ("0.5.4.post2", "0.5.14", "0.5.23")

State = TypeVar("State")
Report = Callable[[str], None]


class ChoiceError(RuntimeError):
    """No tile can be chosen; the text says for what, and what to do."""


@dataclass(frozen=True)
class Plan:
    """The tiles of a layer, by GEMM and M, and the bytes of shared memory that the compiler says they need."""

    tiles: Mapping[str, Mapping[int, Tile]]
    needed: Mapping[str, Mapping[int, int]]


@cache
def candidates(kind: str, block_shape: tuple[int, int] | None) -> tuple[Tile, ...]:
    """The tiles worth a try, in the order in which ties are broken: simple launches and small blocks first.

    The kernel reads one block-wise scale a step, so a step must divide the block's K, and one for a tile's columns
    unless the tile is wider than the block.
    """
    tiles = [
        Tile(m, n, k, group, warps, stages)
        for m, n, k, group, warps, stages in itertools.product(_SIDES_M, _SIDES_N, _STEPS_K, _GROUPS, _WARPS, _STAGES)
    ]
    if block_shape:
        block_n, block_k = block_shape
        tiles = [t for t in tiles if block_k % t.block_k == 0 and (block_n % t.block_n == 0 or t.block_n > block_n)]
    fitting = [t for t in tiles if accumulators(t) < _TOO_MANY_ACCUMULATORS and resident_blocks(t, kind, block_shape)]
    return tuple(
        sorted(
            fitting, key=lambda t: (t.group_m, shared_bytes(t, kind, block_shape), t.num_warps, t.num_stages, t.block_n)
        )
    )


@lru_cache(maxsize=4)
def predictions(layer: Layer, fp8: bool) -> Mapping[str, Mapping[int, Mapping[Tile, float]]]:
    """Predicted seconds by GEMM, M and tile."""
    tiles = candidates(layer.kind, layer.block_shape)
    return {
        gemm: {m: {tile: estimate(layer, gemm, m, tile, fp8).seconds for tile in tiles} for m in BATCHES}
        for gemm in GEMMS
    }


def plan(layer: Layer, fp8: bool, refused: Collection[tuple[str, Tile]] = ()) -> dict[str, dict[int, Tile]]:
    """The tiles of a layer by GEMM and M, without what the compiler refused.

    First BLOCK_SIZE_M, which both GEMMs must share, by the sum of their times; then each GEMM's tile with it.
    ChoiceError when nothing is left.
    """
    seconds = {
        gemm: {
            m: {tile: value for tile, value in by_tile.items() if (gemm, ungrouped(tile)) not in refused}
            for m, by_tile in by_m.items()
        }
        for gemm, by_m in predictions(layer, fp8).items()
    }
    sides = _path([_relative(_by_side(seconds, m)) for m in BATCHES])
    chosen = {}
    for gemm in GEMMS:
        wanted = [
            _relative({tile: value for tile, value in seconds[gemm][m].items() if tile.block_m == side})
            for m, side in zip(BATCHES, sides, strict=True)
        ]
        chosen[gemm] = dict(zip(BATCHES, _path(wanted), strict=True))
    return chosen


def _by_side(seconds: Mapping[str, Mapping[int, Mapping[Tile, float]]], m: int) -> dict[int, float]:
    """The time of both GEMMs by BLOCK_SIZE_M, each with its best tile."""
    totals = {}
    for side in _SIDES_M:
        best = [
            min((value for tile, value in seconds[gemm][m].items() if tile.block_m == side), default=None)
            for gemm in GEMMS
        ]
        if all(value is not None for value in best):
            totals[side] = sum(value for value in best if value is not None)
    if not totals:
        raise ChoiceError(f"The compiler refuses every tile for M {m}. Mend: try another Triton.")
    return totals


def _relative(costs: Mapping[State, float]) -> dict[State, float]:
    """Each cost as what it is more than the least."""
    least = min(costs.values())
    return {state: round(cost / least - 1, _DIGITS) for state, cost in costs.items()}


def _path(choices: Sequence[Mapping[State, float]]) -> list[State]:
    """One state of each step, with the least sum of costs and changes; at a tie the one that its step names first."""
    sums: dict[State, float] = dict(choices[0])
    origins: list[dict[State, State]] = []
    for costs in choices[1:]:
        cheapest = min(sums, key=lambda state: sums[state])
        origin = {}
        following = {}
        for state, cost in costs.items():
            stays = sums.get(state)
            changes = sums[cheapest] + WORTH_A_CHANGE
            origin[state] = state if stays is not None and stays <= changes else cheapest
            following[state] = cost + (stays if stays is not None and stays <= changes else changes)
        origins.append(origin)
        sums = following
    path = [min(sums, key=lambda state: sums[state])]
    for origin in reversed(origins):
        path.append(origin[path[-1]])
    return path[::-1]


def ungrouped(tile: Tile) -> Tile:
    """The tile with GROUP_SIZE_M 1: the compiler's answer does not depend on it."""
    return Tile(tile.block_m, tile.block_n, tile.block_k, 1, tile.num_warps, tile.num_stages)


def job(layer: Layer, gemm: str, tile: Tile) -> Job:
    """What the compiler is asked about a tile."""
    rows, k = layer.rows_and_k(gemm)
    return Job(
        gemm="up" if gemm == "up" else "down",
        kind=layer.kind,
        block_shape=layer.block_shape,
        n=rows,
        k=k,
        top_k=layer.top_k + layer.shared if gemm == "up" else 1,
        tile=ungrouped(tile),
    )


def usable_kernels(triton: str) -> tuple[str, ...]:
    """The releases of KERNELS whose kernel that Triton can compile. ChoiceError when there is none."""
    smallest = Job("up", "bf16", None, 256, 256, 1, Tile(16, 32, 64, 1, 4, 2))
    answers = {release: compile_all([smallest], triton, release)[smallest] for release in KERNELS}
    usable = tuple(release for release, answer in answers.items() if answer.error is None)
    if not usable:
        raise ChoiceError(
            f"Triton {triton} compiles no kernel of SGLang: {answers[KERNELS[-1]].error}. Mend: take another."
        )
    return usable


def ask_compiler(jobs: Iterable[Job], triton: str) -> dict[Job, Compiled]:
    """The compiler's answer for all kernels of that Triton together: the most bytes, or the first refusal."""
    wanted = list(dict.fromkeys(jobs))
    merged: dict[Job, Compiled] = {}
    for release in usable_kernels(triton):
        for one, answer in compile_all(wanted, triton, release).items():
            before = merged.get(one)
            if before is None or (before.error is None and _worse(answer, before)):
                merged[one] = answer
    return merged


def _worse(answer: Compiled, than: Compiled) -> bool:
    return answer.error is not None or (answer.shared or 0) > (than.shared or 0)


def fits(answer: Compiled) -> bool:
    """Whether the compiler accepts a tile and it needs no more than a GB10 has."""
    return answer.error is None and answer.shared is not None and answer.shared <= GB10.shared_per_block


def choose(layers: Iterable[Layer], triton: str, report: Report = lambda line: None) -> dict[Layer, Plan]:
    """Plans for all layers under one Triton.

    The best tiles by the cost model are compiled; what is refused is left out and the choice made again, until the
    compiler accepts all of it: the same result as compiling every tile first, for a fraction of the time.
    """
    fp8 = multiplies_fp8(triton)
    open_layers = list(dict.fromkeys(layers))
    tiles = {}
    for number, layer in enumerate(open_layers, 1):
        tiles[layer] = _plan_once(layer, fp8 and layer.kind.startswith("fp8"))
        report(f"Triton {triton}: predicted {number} of {len(open_layers)} layers")
    refused: dict[Layer, set[tuple[str, Tile]]] = {layer: set() for layer in open_layers}
    answers: dict[Job, Compiled] = {}
    while open_layers:
        new = {
            job(layer, gemm, tile) for layer in open_layers for gemm in GEMMS for tile in tiles[layer][gemm].values()
        }
        new -= set(answers)
        report(f"Triton {triton}: compiling {len(new)} kernels")
        answers |= ask_compiler(sorted(new, key=repr), triton)
        still_open = []
        for layer in open_layers:
            bad = {
                (gemm, ungrouped(tile))
                for gemm in GEMMS
                for tile in tiles[layer][gemm].values()
                if not fits(answers[job(layer, gemm, tile)])
            }
            if bad:
                refused[layer] |= bad
                tiles[layer] = plan(layer, fp8 and layer.kind.startswith("fp8"), refused[layer])
                still_open.append(layer)
        open_layers = still_open
    return {layer: Plan(chosen, _needed(layer, chosen, answers)) for layer, chosen in tiles.items()}


@cache
def _plan_once(layer: Layer, fp8: bool) -> dict[str, dict[int, Tile]]:
    """plan() without refusals: the same for all Tritons that multiply alike."""
    return plan(layer, fp8)


def _needed(
    layer: Layer, chosen: Mapping[str, Mapping[int, Tile]], answers: Mapping[Job, Compiled]
) -> dict[str, dict[int, int]]:
    return {
        gemm: {m: answers[job(layer, gemm, tile)].shared or 0 for m, tile in by_m.items()}
        for gemm, by_m in chosen.items()
    }


def releases() -> tuple[str, ...]:
    """The releases of SGLang that names are made for."""
    return wheels.SGLANG
