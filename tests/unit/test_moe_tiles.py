# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Tiles, their shared memory by the formula, and SGLang's defaults; tests/kernel has the compiler's word."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import (
    KINDS,
    Tile,
    default_tile,
    release,
    shared_bytes,
    since,
    tile_facts,
    tile_from_entry,
    tile_to_entry,
)

GB10, H100 = 101_376, 232_448
ENTRY = {
    "BLOCK_SIZE_M": 16,
    "BLOCK_SIZE_N": 128,
    "BLOCK_SIZE_K": 64,
    "GROUP_SIZE_M": 8,
    "num_warps": 2,
    "num_stages": 5,
}


def test_entry_and_tile() -> None:
    tile = tile_from_entry(ENTRY)
    assert tile == Tile(16, 128, 64, 8, 2, 5)
    assert tile_to_entry(tile) == ENTRY
    assert list(tile_to_entry(tile)) == list(ENTRY)
    assert tile_facts(tile)["block_n"] == 128
    bare = {key: value for key, value in ENTRY.items() if not key.startswith("num_")}
    assert tile_from_entry(bare) == Tile(16, 128, 64, 8, 4, 3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"BLOCK_SIZE_N": None}, "BLOCK_SIZE_N is None"),
        ({"BLOCK_SIZE_N": 64.0}, "BLOCK_SIZE_N is 64.0"),
        ({"num_warps": "4"}, "num_warps is '4'"),
        ({"num_stages": True}, "num_stages is True"),
        ({"GROUP_SIZE_M": 0}, "GROUP_SIZE_M is 0"),
        ({"BLOCK_SIZE": 4}, "BLOCK_SIZE is not a key"),
    ],
)
def test_bad_entry(change: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named) as caught:
        tile_from_entry({**ENTRY, **change})
    assert "Mend: " in str(caught.value)


@pytest.mark.parametrize("key", ["BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "GROUP_SIZE_M"])
def test_missing_key(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} is missing"):
        tile_from_entry({name: value for name, value in ENTRY.items() if name != key})


@pytest.mark.parametrize(
    ("tile", "kind", "needed"),
    [
        # The crash on GB10, and the tile that goes before it.
        (Tile(128, 256, 128, 32, 8, 4), "fp8_channel", 147_456),
        (Tile(64, 128, 128, 1, 4, 4), "fp8_tensor", 73_728),
        (Tile(64, 128, 128, 1, 4, 4), "int8_channel", 73_728),
        (Tile(64, 128, 128, 1, 4, 4), "bf16", 147_456),
        (Tile(64, 128, 128, 1, 4, 2), "bf16", 49_152),
        # An upper bound: the compiler has the operands there one after the other (16,384), or together.
        (Tile(64, 128, 128, 1, 4, 1), "fp8_channel", 24_576),
    ],
)
def test_shared_bytes(tile: Tile, kind: str, needed: int) -> None:
    assert shared_bytes(tile, kind) == needed


@pytest.mark.parametrize(
    ("tile", "more"),
    [
        (Tile(64, 128, 128, 1, 4, 3), 0),
        (Tile(128, 128, 128, 1, 4, 3), 4 * 128),
        (Tile(128, 128, 128, 1, 8, 3), 0),
        (Tile(64, 256, 128, 1, 8, 3), 4 * 256),
        (Tile(128, 256, 128, 1, 4, 3), 4 * 256),
        (Tile(64, 256, 128, 1, 16, 3), 0),
    ],
)
def test_block_wise_scales_need_more(tile: Tile, more: int) -> None:
    assert shared_bytes(tile, "fp8_block", (128, 128)) - shared_bytes(tile, "fp8_channel") == more


def test_unknown_kinds() -> None:
    with pytest.raises(ValueError, match=r"'fp4' has no tiles\. Mend"):
        shared_bytes(Tile(16, 16, 16), "fp4")
    with pytest.raises(ValueError, match=r"'fp4' has no tiles\. Mend"):
        default_tile(1, 8, "fp4", None, "0.5.6", GB10)
    for broken in (
        lambda: shared_bytes(Tile(16, 16, 16), "fp8_block"),
        lambda: default_tile(1, 8, "fp8_block", None, "0.5.6", GB10),
    ):
        with pytest.raises(ValueError, match="have a block shape"):
            broken()


def test_default_tiles_of_the_crash() -> None:
    """More tokens than experts take the large tile; from 0.5.14 on a GPU with little shared memory takes another."""
    sizes = {
        (version, limit, m): shared_bytes(default_tile(m, 160, "fp8_channel", None, version, limit), "fp8_channel")
        for version in ("0.5.4.post2", "0.5.14")
        for limit in (GB10, H100)
        for m in (160, 161)
    }
    assert [sizes["0.5.4.post2", limit, m] for limit in (GB10, H100) for m in (160, 161)] == [73_728, 147_456] * 2
    assert [sizes["0.5.14", GB10, m] for m in (160, 161)] == [73_728, 49_152]
    assert [sizes["0.5.14", H100, m] for m in (160, 161)] == [73_728, 147_456]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind in ("bf16", "fp8_block", "int8_channel")])
def test_default_tiles_that_fit(kind: str) -> None:
    block = (128, 128) if kind == "fp8_block" else None
    for m in (1, 4096):
        assert shared_bytes(default_tile(m, 128, kind, block, "0.5.4.post2", GB10), kind, block) <= GB10


def test_release_order() -> None:
    order = (
        "0.5.4.dev1+g12 0.5.4rc1 0.5.4 0.5.4.post2.dev3 0.5.4.post2 v0.5.4.post10 0.5.5a1 0.5.5b1 0.5.5rc0 0.5.5 0.5.10"
    )
    versions = order.split()
    assert all(release(one) < release(next_one) for one, next_one in itertools.pairwise(versions))
    assert release("0.5.5+cu130") == release("0.5.5")
    assert since("0.5.10", "0.5.9")
    assert not since("0.5.4", "0.5.4.post2")
    for text in ("", "main", "0.5.x", "latest"):
        with pytest.raises(ValueError, match="is not a version of SGLang"):
            release(text)
