# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Kernel config files: their names, which entry SGLang takes, and what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import (
    Tile,
    shared_bytes,
    tile_from_entry,
)

# The first release that overrides the down file's BLOCK_SIZE_M where it is not the up file's; others stop.
PAIR_OVERRIDDEN = "0.5.13"

# What the names say of a quantization: the dtype, none for 16 bits, and per_channel_quant.
DTYPES = {
    "bf16": None,
    "fp8_channel": "fp8_w8a8",
    "fp8_tensor": "fp8_w8a8",
    "fp8_block": "fp8_w8a8",
    "int8_channel": "int8_w8a8",
}
PER_CHANNEL_KINDS = ("fp8_channel", "int8_channel")


def config_file(
    experts: int,
    n: int,
    device_name: str,
    dtype: str | None,
    block_shape: tuple[int, int] | None,
    per_channel: bool,
    down: bool,
) -> str:
    """The name that SGLang makes of a lookup; the space in `[128, 128]` is its own."""
    parts = [f"E={experts}", f"N={n}", f"device_name={device_name.replace(' ', '_')}"]
    if dtype:
        parts.append(f"dtype={dtype}")
    if block_shape and all(block_shape):
        parts.append(f"block_shape={list(block_shape)}")
    if per_channel:
        parts.append("per_channel_quant=True")
    return ",".join(parts) + ("_down" if down else "") + ".json"


def nearest_entry(keys: Iterable[int], m: int) -> int:
    """The key that SGLang picks for M tokens: the nearest, at a tie the first in the file's order."""
    return min(keys, key=lambda key: abs(key - m))


# tl.dot takes no fewer rows or columns, and no fewer elements along K (32 if they have 8 bits).
_SMALLEST = 16
_SMALLEST_K = {"bf16": 16}
_SMALLEST_K_8_BITS = 32
# Threads of a block: 1,024 on every NVIDIA GPU.
_MOST_WARPS = 32

_NAME = re.compile(
    r"E=\d+,N=\d+,device_name=(?P<device>[^,]+?)(?:,dtype=(?P<dtype>\w+?))?(?:,block_shape=\[(?P<block>\d+, \d+)\])?"
    r"(?P<channel>,per_channel_quant=True)?(?:_down)?\.json"
)


def entry_tile(entry: Any) -> Tile:
    """The tile of a file's entry; ValueError with the mend."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"The entry is {entry!r}. Mend: give an object with the tile's sizes.")
    if "USE_TMA" in entry:
        # Down files of other GPUs have it; what TMA's loads need is not the formula's.
        raise ValueError("USE_TMA is not covered here. Mend: remove it.")
    return tile_from_entry(entry)


def check_file(
    name: str, data: Any, kind: str, block_shape: tuple[int, int] | None, limit: int, device_name: str
) -> list[str]:
    """What is wrong with a config file, [] if nothing.

    data: its parsed JSON; kind and block_shape: the experts' quantization; limit: the opt-in shared memory a block
    of the GPU called device_name, in bytes.
    """
    parts = _NAME.fullmatch(name)
    problems = _name_problems(parts, kind, block_shape, device_name)
    if not isinstance(data, Mapping) or not data:
        return [*problems, "It holds no entries. Mend: give an object of M to tile."]
    seen: dict[int, str] = {}
    for key, entry in data.items():
        m = int(key) if re.fullmatch(r"[1-9]\d*", str(key)) else None
        if m is None:
            problems.append(f"M {key}: is not a whole number of 1 or more. Mend: rename or remove the entry.")
            continue
        if m in seen:
            problems.append(f"M {key}: stands here twice. Mend: remove one of the entries.")
        seen[m] = str(key)
        try:
            tile = entry_tile(entry)
        except ValueError as error:
            problems.append(f"M {key}: {error}")
            continue
        problems += [f"M {key}: {problem}" for problem in _tile_problems(tile, kind, block_shape, limit, device_name)]
    return problems


def _name_problems(
    parts: re.Match[str] | None, kind: str, block_shape: tuple[int, int] | None, device_name: str
) -> list[str]:
    if not parts:
        return ["Its name is not one that SGLang looks for. Mend: name it as moe_config_info says."]
    problems = []
    device = device_name.replace(" ", "_")
    if parts.group("device") != device:
        problems.append(
            f"It is for {parts.group('device')}, not for {device}. Mend: remove it, or make one for {device}."
        )
    block = ", ".join(str(size) for size in block_shape or ())
    if (parts.group("dtype"), parts.group("block") or "") != (DTYPES.get(kind), block):
        problems.append(f"Its name is not for experts in {kind}. Mend: name it as moe_config_info says.")
    if parts.group("channel") and kind not in PER_CHANNEL_KINDS:
        problems.append(f"per_channel_quant=True is not for {kind}. Mend: name it as moe_config_info says.")
    return problems


def _tile_problems(
    tile: Tile, kind: str, block_shape: tuple[int, int] | None, limit: int, device_name: str
) -> list[str]:
    smallest_k = _SMALLEST_K.get(kind, _SMALLEST_K_8_BITS)
    sizes = (
        ("BLOCK_SIZE_M", tile.block_m, _SMALLEST, None),
        ("BLOCK_SIZE_N", tile.block_n, _SMALLEST, None),
        ("BLOCK_SIZE_K", tile.block_k, smallest_k, None),
        ("num_warps", tile.num_warps, 1, _MOST_WARPS),
    )
    problems = []
    for key, value, least, most in sizes:
        if value & (value - 1) or value < least or (most and value > most):
            span = f"from {least} to {most}" if most else f"of {least} or more"
            problems.append(f"{key} is {value}. Mend: give a power of two {span}.")
    if block_shape and block_shape[1] % tile.block_k:
        problems.append(
            f"BLOCK_SIZE_K is {tile.block_k}, which does not divide the scales' block of {block_shape[1]}: "
            "the kernel would take wrong scales. Mend: give a divisor of it."
        )
    if not problems:
        needed = shared_bytes(tile, kind, block_shape)
        if needed > limit:
            problems.append(f"{needed:,} bytes of shared memory, over the {limit:,} of {device_name}")
    return problems


def check_pair(up: Mapping[Any, Any], down: Mapping[Any, Any]) -> list[str]:
    """Where an up and a down file disagree about BLOCK_SIZE_M, for each span of M that SGLang would pick alike."""
    problems = []
    tables = [{int(key): entry["BLOCK_SIZE_M"] for key, entry in data.items()} for data in (up, down)]
    starts = sorted({start for table in tables for start in _starts(table)})
    for start, following in zip(starts, [*starts[1:], None]):
        of_up, of_down = (table[nearest_entry(table, start)] for table in tables)
        if of_up != of_down:
            last = following - 1 if following else None
            span = f"M {start} and more" if last is None else f"M {start}" + (f" to {last}" if last > start else "")
            problems.append(
                f"{span}: BLOCK_SIZE_M is {of_up} for up and {of_down} for down. Mend: make them equal; "
                f"SGLang before {PAIR_OVERRIDDEN} stops there."
            )
    return problems


def _starts(keys: Collection[int]) -> list[int]:
    """Every M from 1 on at which another key becomes the nearest."""
    order = sorted(keys)
    starts = [1]
    for low, high in zip(order, order[1:]):
        middle = (low + high) // 2
        # At a tie in the middle the first in the file's order counts.
        starts.append(middle if nearest_entry(keys, middle) == high else middle + 1)
    return starts
