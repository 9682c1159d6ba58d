# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Tiles of SGLang's fused-MoE Triton kernel: what one needs of shared memory, and SGLang's own defaults.

A tile is one entry of a kernel config file. The sizes hold for NVIDIA GPUs; tests/kernel proves the
formula against Triton's compiler and the defaults against the releases' own code.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

# Element sizes in bytes of the GEMMs' operands as they lie in shared memory.
ELEMENT_BYTES = {"bf16": 2, "fp8_channel": 1, "fp8_tensor": 1, "fp8_block": 1, "int8_channel": 1}
KINDS = tuple(ELEMENT_BYTES)
"""The quantizations whose config files SGLang looks up by name."""

# Below this many bytes of shared memory a block SGLang takes other FP8 defaults, from the release beside it on
# (_LOW_SMEM_FP8_DEFAULT_CUTOFF_BYTES in its fused_moe_triton_config.py).
SMALL_MEMORY = 128 * 1024
SMALL_MEMORY_SINCE = "0.5.14"

_WARP = 32
_ACCUMULATOR_BYTES = 4
# More than any number of a development version.
_NEVER = 1 << 62
_VERSION = re.compile(
    r"v?(\d+(?:\.\d+)*)(?:[._-]?(a|b|rc)[._-]?(\d*))?(?:[._-]?(post)[._-]?(\d*))?(?:[._-]?(dev)[._-]?(\d*))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Tile:
    """One entry of a config file; the last two default to Triton's own values for a launch without them."""

    block_m: int
    block_n: int
    block_k: int
    group_m: int = 1
    num_warps: int = 4
    num_stages: int = 3


# The keys of an entry in SGLang's files, in the order in which its tuner writes them.
_KEYS = {
    "BLOCK_SIZE_M": "block_m",
    "BLOCK_SIZE_N": "block_n",
    "BLOCK_SIZE_K": "block_k",
    "GROUP_SIZE_M": "group_m",
    "num_warps": "num_warps",
    "num_stages": "num_stages",
}
_NEEDED = ("BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "GROUP_SIZE_M")


def tile_from_entry(entry: Mapping[str, Any]) -> Tile:
    """The tile of one entry of a config file.

    ValueError for a key that is missing, unknown to the kernel's launch or not a positive whole number.
    """
    for key in _NEEDED:
        if key not in entry:
            raise ValueError(f"{key} is missing. Mend: add it; SGLang reads it from every entry.")
    values = {}
    for key, value in entry.items():
        if key not in _KEYS:
            raise ValueError(f"{key} is not a key of a tile. Mend: remove it; the keys are {', '.join(_KEYS)}.")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{key} is {value!r}. Mend: give a whole number of 1 or more.")
        values[_KEYS[key]] = value
    return Tile(**values)


def tile_to_entry(tile: Tile) -> dict[str, int]:
    """The entry of a config file for the tile, its keys in the order of SGLang's own files."""
    return {key: getattr(tile, name) for key, name in _KEYS.items()}


def tile_facts(tile: Tile) -> dict[str, int]:
    """The tile under its Python names, as the modules return it."""
    return {field.name: getattr(tile, field.name) for field in fields(tile)}


def shared_bytes(tile: Tile, kind: str, block_shape: tuple[int, int] | None = None) -> int:
    """Bytes of shared memory a block that the compiled kernel asks for.

    kind: one of KINDS; block_shape: (n, k) of block-wise scales. K and the strides are taken as multiples of 16:
    others are not pipelined and need less, never more.
    """
    if kind not in ELEMENT_BYTES:
        raise ValueError(f"{kind!r} has no tiles. Mend: give one of {', '.join(KINDS)}.")
    one_side = tile.block_k * ELEMENT_BYTES[kind]
    # Without a pipeline the operands may or may not lie there together; more than both is never asked for.
    buffers = max(1, tile.num_stages - 1)
    return (tile.block_m + tile.block_n) * one_side * buffers + _scales(tile, kind, block_shape)


def _scales(tile: Tile, kind: str, block_shape: tuple[int, int] | None) -> int:
    """Bytes through which the block-wise scales are handed to the threads: one 32-bit value a row or column.

    Only a side that is at least as long as the block has threads is handed on; the column side only when its
    scales differ within the tile.
    """
    if kind != "fp8_block":
        return 0
    if not block_shape:
        raise ValueError("Block-wise scales have a block shape. Mend: give (block_n, block_k).")
    threads = _WARP * tile.num_warps
    rows = tile.block_m if tile.block_m >= threads else 0
    columns = tile.block_n if tile.block_n > block_shape[0] and tile.block_n >= threads else 0
    return _ACCUMULATOR_BYTES * max(rows, columns)


def release(version: str) -> tuple[int, ...]:
    """A version of SGLang as numbers that sort: 0.5.4 < 0.5.4.post2 < 0.5.5rc0 < 0.5.5; build marks don't count.

    ValueError when it isn't a version.
    """
    found = _VERSION.fullmatch(version.split("+", 1)[0].strip())
    if not found:
        raise ValueError(f"{version!r} is not a version of SGLang. Mend: give one such as 0.5.4.post2.")
    numbers = [int(part) for part in found.group(1).split(".")]
    numbers += [0] * (4 - len(numbers))
    before, before_number, post, post_number, dev, dev_number = found.groups()[1:]
    # A development version comes before what it leads to.
    stage = {"a": -3, "b": -2, "rc": -1}[before.lower()] if before else -4 if dev and not post else 0
    return (
        *numbers,
        stage,
        int(before_number or 0),
        int(post_number or 0) if post else -1,
        int(dev_number or 0) if dev else _NEVER,
    )


def since(version: str, first: str) -> bool:
    """Whether a version of SGLang has what came with the release named first."""
    return release(version) >= release(first)


def default_tile(
    m: int, experts: int, kind: str, block_shape: tuple[int, int] | None, sglang_version: str, limit: int
) -> Tile:
    """The tile that SGLang takes for M tokens when it finds no file (its get_default_config).

    experts: as looked up, with a fused shared expert; limit: the GPU's opt-in shared memory a block in bytes.
    """
    few = m <= experts
    if kind == "fp8_block":
        if not block_shape:
            raise ValueError("Block-wise scales have a block shape. Mend: give (block_n, block_k).")
        return Tile(64, block_shape[0], block_shape[1], group_m=32, num_warps=4, num_stages=3)
    if kind in ("fp8_channel", "fp8_tensor"):
        if since(sglang_version, SMALL_MEMORY_SINCE) and limit < SMALL_MEMORY:
            small, large = Tile(32, 64, 256, 1, 4, 4), Tile(64, 128, 256, 64, 4, 2)
        else:
            small, large = Tile(64, 128, 128, 1, 4, 4), Tile(128, 256, 128, 32, 8, 4)
    elif kind in KINDS:
        # Warps and stages are left to Triton.
        small, large = Tile(16, 32, 64, group_m=1), Tile(64, 64, 32, group_m=8)
    else:
        raise ValueError(f"{kind!r} has no tiles. Mend: give one of {', '.join(KINDS)}.")
    return small if few else large
