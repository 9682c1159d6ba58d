"""Predicted time of one launch of SGLang's fused-MoE kernel on a GPU: a model to rank tiles with, not a measurement.

Four times that overlap are estimated for each launch: the longest counts in full, of the others a fifth is added.
docs/moe-configs.md explains every term with its formula.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import ELEMENT_BYTES, Tile, shared_bytes

from kernel_configs.gb10 import GB10, Device
from kernel_configs.routing import Spread, spread

GEMMS = ("up", "down")
# What of the shorter times is not hidden behind the longest. Assumption, set with the one file tuned on a GB10 in view.
NOT_HIDDEN = 0.2
# Seconds. Assumption: a kernel in a CUDA graph.
LAUNCH = 2e-6
# Clock cycles a block for its indices, scales and the way back to memory, and for each step along K (barrier, copies to
# issue). Assumptions.
BLOCK_CYCLES = 800.0
STEP_CYCLES = 100.0
# Loads that a block makes one after the other before its first step: number of tokens, token and expert ids.
DEPENDENT_LOADS = 3
# Seconds until a block that has nothing to do is gone. Assumption.
EMPTY_BLOCK = 400e-9
# Bytes a row of a tile costs on top of what it holds, because memory is read in bursts. Assumption.
ROW_OVERHEAD = 8
# A block-wise scale is multiplied with and added to every element of the product: FP32 operations for each.
SCALE_OPERATIONS = 2
OUTPUT_BYTES = 2

_WARP = 32
# Rows and columns of one matrix instruction (mma.sync m16n8).
_MMA = (16, 8)
_COPY_BYTES = 16
_PER_SCHEDULER = 4


@dataclass(frozen=True)
class Layer:
    """One rank's MoE layer as the kernel sees it.

    experts, top_k: routed ones; shared: shared experts fused into the same launch; hidden: model width; n: intermediate
    size on this rank; kind: one of KINDS; block_shape: (n, k) of block-wise scales.
    """

    experts: int
    top_k: int
    shared: int
    hidden: int
    n: int
    kind: str
    block_shape: tuple[int, int] | None = None

    def rows_and_k(self, gemm: str) -> tuple[int, int]:
        """Rows of an expert's weight and the length of the sums: gate and up together, or down."""
        return (2 * self.n, self.hidden) if gemm == "up" else (self.hidden, self.n)


@dataclass(frozen=True)
class Cost:
    """A predicted launch. Seconds, bytes, and the figures that lead to them; terms: the overlapping times by name."""

    seconds: float
    terms: Mapping[str, float]
    spread: Spread
    blocks: float
    resident: int
    registers: float
    dram_bytes: float
    padding: float

    @property
    def limit(self) -> str:
        """The name of the longest term."""
        return max(self.terms, key=lambda name: self.terms[name])


@cache
def warps_of(tile: Tile) -> tuple[int, int]:
    """How Triton lays a block's warps over rows and columns: each doubling halves the longer side of a warp's part.

    Read off the layouts (warpsPerCTA) in the intermediate code of Triton 3.4 to 3.9.
    """
    repeats = [max(1, tile.block_m // _MMA[0]), max(1, tile.block_n // _MMA[1])]
    warps = [1, 1]
    while warps[0] * warps[1] < tile.num_warps:
        side = 0 if repeats[0] >= repeats[1] else 1
        warps[side] *= 2
        repeats[side] = max(1, repeats[side] // 2)
    return warps[0], warps[1]


def accumulators(tile: Tile) -> float:
    """Registers a thread for the sums."""
    return tile.block_m * tile.block_n / (_WARP * tile.num_warps)


@cache
def registers_of(tile: Tile, kind: str) -> float:
    """Registers that a thread would like to have.

    Fitted to what ptxas 12.9 reports for sm_121 and 214 tiles of Triton 3.6.0: 8 to 12 registers of mean error.
    """
    rows, columns = warps_of(tile)
    fragments = max(1, tile.block_m // _MMA[0] // rows) * 4 + max(1, tile.block_n // _MMA[1] // columns) * 2
    copies = sum(
        max(1.0, side * tile.block_k * ELEMENT_BYTES[kind] / _COPY_BYTES / (_WARP * tile.num_warps))
        for side in (tile.block_m, tile.block_n)
    )
    if _scales_each_step(kind):
        return 32 + 3 * accumulators(tile) + 3 * copies
    return 16 + accumulators(tile) + 2.5 * fragments + 3 * copies


@cache
def resident_blocks(tile: Tile, kind: str, block_shape: tuple[int, int] | None, device: Device = GB10) -> int:
    """Blocks that an SM holds at a time, by shared memory, warps and registers; 0 when not even one fits."""
    shared = shared_bytes(tile, kind, block_shape)
    if shared > device.shared_per_block:
        return 0
    registers = min(device.registers_per_thread + 1, -(-registers_of(tile, kind) // 8) * 8)
    return int(
        min(
            device.shared_per_sm // (shared + device.shared_reserved_per_block),
            device.warps_per_sm // tile.num_warps,
            device.registers_per_sm // (registers * _WARP * tile.num_warps),
            device.blocks_per_sm,
        )
    )


def estimate(layer: Layer, gemm: str, m: int, tile: Tile, fp8: bool = False, device: Device = GB10) -> Cost:
    """Predict one launch for m tokens.

    gemm: "up" or "down"; fp8: whether Triton multiplies FP8 as FP8 (gb10.multiplies_fp8). ValueError when the tile
    does not fit.
    """
    resident = resident_blocks(tile, layer.kind, layer.block_shape, device)
    if not resident:
        raise ValueError(f"{tile} needs more than the {device.shared_per_block:,} bytes of {device.name}")
    rows, k = layer.rows_and_k(gemm)
    tokens = spread(m, layer.top_k, layer.experts, layer.shared, tile.block_m)
    columns = -(-rows // tile.block_n)
    blocks = tokens.blocks * columns
    read, l2_read = _bytes_read(layer, gemm, m, tile, tokens, resident, device)
    written = tokens.pairs * rows * OUTPUT_BYTES
    row_bytes = tile.block_k * ELEMENT_BYTES[layer.kind]
    steps = -(-k // tile.block_k)
    terms = {
        "memory": (read * (1 + ROW_OVERHEAD / row_bytes) + written) / device.dram_bandwidth,
        "L2": (l2_read + written) / device.l2_bandwidth,
        "tensor": _tensor_time(layer.kind, tile, blocks, steps, resident, fp8, device),
        "latency": _latency(tile, blocks, steps, resident, read / l2_read, device),
    }
    longest = max(terms.values())
    fixed = LAUNCH + _empty_blocks(layer, m, tile, tokens, columns) * EMPTY_BLOCK / (device.sms * resident)
    return Cost(
        seconds=longest + NOT_HIDDEN * (math.fsum(terms.values()) - longest) + fixed,
        terms=MappingProxyType(terms),
        spread=tokens,
        blocks=blocks,
        resident=resident,
        registers=registers_of(tile, layer.kind),
        dram_bytes=read + written,
        padding=tokens.padding(tile.block_m) * (steps * tile.block_k / k),
    )


def _bytes_read(
    layer: Layer, gemm: str, m: int, tile: Tile, tokens: Spread, resident: int, device: Device
) -> tuple[float, float]:
    """Bytes read from DRAM and from L2.

    The launch walks groups of GROUP_SIZE_M blocks of rows, in a group column by column. What is used again within
    reach of the L2 comes from there.
    """
    rows, k = layer.rows_and_k(gemm)
    size = ELEMENT_BYTES[layer.kind]
    columns = -(-rows // tile.block_n)
    filled = tokens.pairs / tokens.blocks
    group = min(float(tile.group_m), tokens.blocks)
    experts = max(1.0, group * tokens.experts / tokens.blocks)
    weight, activations = rows * k * size, filled * k * size
    # The next block of rows of the same expert reads its weight again: at once in the same group, else a group later.
    again = (tokens.blocks - tokens.experts) / group
    weights = tokens.experts * weight + again * weight * _missed(experts * weight + group * activations, device)
    # Each column reads the rows of its block again: a column of the group later, unless the whole group runs at once.
    apart = max(0.0, 1 - device.sms * resident / (group * columns))
    column = group * activations + experts * tile.block_n * k * size
    again = tokens.pairs * k * size * (columns - 1) * apart * _missed(column, device)
    # The up GEMM gathers: a token's row is read for each of its experts, far apart.
    unique = (m if gemm == "up" else tokens.pairs) * k * size
    between = (tokens.experts * weight + unique) * m / tokens.pairs
    gathered = (tokens.pairs * k * size - unique) * _missed(between, device)
    through_l2 = tokens.blocks * columns * (filled + tile.block_n) * k * size
    dram = weights + unique + gathered + again
    return min(dram, through_l2), through_l2


def _missed(distance: float, device: Device) -> float:
    """The part of what was read `distance` bytes ago that the L2 no longer has."""
    return max(0.0, 1 - device.l2_bytes / distance)


def _tensor_time(kind: str, tile: Tile, blocks: float, steps: int, resident: int, fp8: bool, device: Device) -> float:
    """Seconds that the SMs compute: the tensor cores, and what feeds them.

    Padding is computed like everything else. With few warps on an SM, feeding and multiplying wait for each other.
    """
    warp_rows, warp_columns = warps_of(tile)
    # A side that is too short for its warps is computed more than once.
    m, n = max(tile.block_m, warp_rows * _MMA[0]), max(tile.block_n, warp_columns * _MMA[1])
    converts = kind.startswith("fp8") and not fp8
    eight_bit = ELEMENT_BYTES[kind] == 1 and not converts
    rate = (device.tensor_8bit if eight_bit else device.tensor_16bit) / device.clock
    multiply = 2 * m * n * tile.block_k / rate
    # Each column of warps reads all rows of its own, each row of warps all columns.
    operands = (m * warp_columns + n * warp_rows) * tile.block_k
    bandwidth = device.plain_shared_bandwidth if converts else device.shared_bandwidth
    feed = operands * ELEMENT_BYTES[kind] / bandwidth
    if converts:
        feed += operands / device.conversions
    if _scales_each_step(kind):
        feed += SCALE_OPERATIONS * m * n / device.fp32_operations
    alive = min(float(resident), max(1.0, blocks / device.sms))
    overlap = max(1.0, alive * tile.num_warps / _PER_SCHEDULER)
    step = max(multiply, feed) + min(multiply, feed) / overlap + STEP_CYCLES / alive
    spilled = max(0.0, registers_of(tile, kind) - device.registers_per_thread)
    cycles = (steps * step + BLOCK_CYCLES / alive) * (1 + spilled / 128)
    return _rounds(blocks, device.sms) * cycles / device.clock


def _latency(tile: Tile, blocks: float, steps: int, resident: int, from_dram: float, device: Device) -> float:
    """Seconds of a chain of waits: in each wave a block looks up its indices, then fills its pipeline again and again.

    num_stages - 1 steps are on their way at a time.
    """
    wait = from_dram * device.dram_latency + (1 - from_dram) * device.l2_latency
    fills = max(1.0, steps / max(1, tile.num_stages - 1))
    return _rounds(blocks, device.sms * resident) * (DEPENDENT_LOADS * device.l2_latency + fills * wait)


def _rounds(blocks: float, places: int) -> float:
    """Times that the busiest place works: one more half than the others on average, as blocks end unevenly."""
    if blocks <= places:
        return 1.0
    return blocks / places + 0.5 * min(1.0, blocks / places - 1)


def _empty_blocks(layer: Layer, m: int, tile: Tile, tokens: Spread, columns: int) -> float:
    """Blocks that find nothing to do: SGLang launches as many as the most uneven routing would need."""
    experts = layer.experts + layer.shared
    most = tokens.pairs + min(tokens.pairs, experts + 1) * (tile.block_m - 1)
    return max(0.0, -(-most // tile.block_m) - tokens.blocks) * columns


def _scales_each_step(kind: str) -> bool:
    """Whether the product of each step is held apart and scaled (or converted) before it is added."""
    return kind in ("fp8_block", "int8_channel")
