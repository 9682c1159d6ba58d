"""The cost model of the kernel configs: what must hold whatever its constants are."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import Tile

from kernel_configs.choose import BATCHES, candidates, plan
from kernel_configs.cost import GEMMS, Layer, estimate, registers_of, resident_blocks, warps_of
from kernel_configs.gb10 import GB10, multiplies_fp8
from kernel_configs.routing import spread, tokens_of_an_expert

GLM = Layer(experts=160, top_k=8, shared=0, hidden=5120, n=384, kind="fp8_channel")
FUSED = replace(GLM, shared=1)
QWEN = Layer(experts=128, top_k=8, shared=0, hidden=4096, n=384, kind="fp8_block", block_shape=(128, 128))
SMALL, LARGE = Tile(16, 64, 128, 1, 4, 3), Tile(128, 128, 64, 1, 8, 3)


@pytest.mark.parametrize("tokens", [1, 2, 16, 160, 4096])
def test_experts_hit(tokens: int) -> None:
    assert spread(tokens, 8, 160, 0, 16).experts == pytest.approx(160 * (1 - (1 - 8 / 160) ** tokens), rel=1e-9)


def test_one_token_hits_its_experts_and_the_shared_one() -> None:
    one = spread(1, 8, 160, 1, 16)
    assert one.pairs == 9
    assert one.experts == pytest.approx(9)
    assert one.blocks == pytest.approx(9)
    assert one.padding(16) == pytest.approx(16)


@pytest.mark.parametrize(("tokens", "top_k", "experts"), [(1, 8, 160), (4096, 8, 160), (4096, 4, 8), (3, 2, 2)])
def test_every_token_lands_somewhere(tokens: int, top_k: int, experts: int) -> None:
    """The distribution has total 1 and the right mean, also where its first terms underflow."""
    chances = tokens_of_an_expert(tokens, top_k, experts)
    assert sum(chances) == pytest.approx(1)
    assert sum(count * chance for count, chance in enumerate(chances)) == pytest.approx(tokens * top_k / experts)


@pytest.mark.parametrize(("tokens", "side"), [(7, 16), (200, 16), (200, 64), (1000, 128)])
def test_blocks_as_by_dice(tokens: int, side: int) -> None:
    """Expected blocks are those of many random routings."""
    dice = random.Random(1)
    total = 0
    rounds = 60
    for _ in range(rounds):
        counts = [0] * 160
        for _ in range(tokens):
            for expert in dice.sample(range(160), 8):
                counts[expert] += 1
        total += sum(-(-count // side) for count in counts)
    assert spread(tokens, 8, 160, 0, side).blocks == pytest.approx(total / rounds, rel=0.02)


@pytest.mark.parametrize("layer", [GLM, FUSED, QWEN])
@pytest.mark.parametrize("gemm", GEMMS)
@pytest.mark.parametrize("tile", [SMALL, LARGE])
def test_more_work_takes_longer(layer: Layer, gemm: str, tile: Tile) -> None:
    times = [estimate(layer, gemm, m, tile).seconds for m in BATCHES]
    assert times == sorted(times)
    base = estimate(layer, gemm, 512, tile).seconds
    assert estimate(replace(layer, hidden=layer.hidden * 2), gemm, 512, tile).seconds > base
    assert estimate(replace(layer, n=layer.n * 2), gemm, 512, tile).seconds > base


@pytest.mark.parametrize("m", BATCHES)
@pytest.mark.parametrize("gemm", GEMMS)
def test_no_launch_beats_the_memory(m: int, gemm: str) -> None:
    for tile in (SMALL, LARGE):
        cost = estimate(GLM, gemm, m, tile)
        assert cost.dram_bytes / cost.seconds < GB10.dram_bandwidth


@pytest.mark.parametrize("m", [1, 4, 16, 64])
def test_decode_is_bound_by_memory(m: int) -> None:
    """The chosen tiles get most of what the memory sustains, and what they read is the weights."""
    tiles = plan(GLM, fp8=False)
    for gemm in GEMMS:
        cost = estimate(GLM, gemm, m, tiles[gemm][m])
        assert cost.limit == "memory"
        assert 0.8 < cost.dram_bytes / cost.seconds / GB10.dram_bandwidth < 1
        rows, k = GLM.rows_and_k(gemm)
        assert cost.spread.experts * rows * k / cost.dram_bytes > 0.9


@pytest.mark.parametrize("layer", [GLM, FUSED, QWEN])
def test_prefill_wants_larger_blocks(layer: Layer) -> None:
    tiles = plan(layer, fp8=False)["up"]
    assert tiles[1].block_m == tiles[16].block_m == 16
    assert tiles[1024].block_m >= 32
    assert tiles[4096].block_m >= 64


def test_dense_prefill_wants_the_largest() -> None:
    """Where every expert gets thousands of rows, nothing speaks for a small block."""
    assert plan(replace(GLM, experts=8, top_k=8), fp8=False)["up"][4096].block_m == 128


def test_padding_costs() -> None:
    assert estimate(GLM, "up", 16, LARGE).seconds > estimate(GLM, "up", 16, SMALL).seconds
    assert estimate(GLM, "up", 16, LARGE).padding > 8 * estimate(GLM, "up", 16, SMALL).padding * 0.99


def test_a_step_that_does_not_divide_k_costs() -> None:
    """K is 384 in the down GEMM: two steps of 256 compute a third for nothing."""
    even, uneven = (estimate(GLM, "down", 4096, Tile(64, 128, k, 1, 8, 2)) for k in (128, 256))
    assert uneven.padding == pytest.approx(even.padding * 512 / 384)
    assert uneven.terms["tensor"] > even.terms["tensor"]


def test_fp8_products_are_faster_than_converted_ones() -> None:
    native, converted = (estimate(GLM, "up", 4096, LARGE, fp8=fp8) for fp8 in (True, False))
    assert native.terms["tensor"] < 0.7 * converted.terms["tensor"]
    assert native.seconds < converted.seconds
    assert estimate(GLM, "up", 1, SMALL, fp8=True).seconds == pytest.approx(
        estimate(GLM, "up", 1, SMALL).seconds, rel=0.05
    )


def test_spilled_registers_cost() -> None:
    """128x128 block-wise with 4 warps wants 400 registers a thread; as many warps more halve that."""
    few, many = Tile(128, 128, 64, 1, 4, 2), Tile(128, 128, 64, 1, 8, 2)
    assert registers_of(few, "fp8_block") > GB10.registers_per_thread > registers_of(many, "fp8_block")
    assert estimate(QWEN, "up", 4096, few).terms["tensor"] > 2 * estimate(QWEN, "up", 4096, many).terms["tensor"]


def test_few_loads_on_their_way_wait_longer() -> None:
    shallow, deep = (estimate(GLM, "up", 1, Tile(16, 128, 64, 1, 4, stages)).terms["latency"] for stages in (2, 5))
    assert shallow > 2 * deep


def test_a_group_beyond_the_l2_reads_its_rows_again() -> None:
    near, far = (estimate(GLM, "up", 4096, Tile(64, 32, 256, group, 8, 2)).dram_bytes for group in (1, 64))
    assert far > 1.3 * near


def test_weights_are_read_again_when_the_l2_forgets_them() -> None:
    forgetful = replace(GB10, l2_bytes=1e5)
    assert (
        estimate(GLM, "up", 4096, SMALL, device=forgetful).dram_bytes > 2 * estimate(GLM, "up", 4096, SMALL).dram_bytes
    )


@pytest.mark.parametrize(
    ("rows", "columns", "warps", "layout"),
    [
        (16, 32, 4, (1, 4)),
        (16, 128, 8, (1, 8)),
        (32, 64, 4, (1, 4)),
        (64, 32, 8, (4, 2)),
        (64, 64, 4, (2, 2)),
        (64, 128, 4, (1, 4)),
        (64, 128, 8, (2, 4)),
        (128, 64, 4, (2, 2)),
        (128, 64, 8, (4, 2)),
        (128, 128, 8, (2, 4)),
        (128, 256, 8, (2, 4)),
    ],
)
def test_layout_of_warps(rows: int, columns: int, warps: int, layout: tuple[int, int]) -> None:
    """As Triton 3.4 to 3.9 lay them out for sm_121."""
    assert warps_of(Tile(rows, columns, 64, 1, warps, 3)) == layout


@pytest.mark.parametrize(
    ("kind", "tile", "registers"),
    [
        ("fp8_channel", Tile(16, 32, 64, 1, 4, 3), 46),
        ("fp8_channel", Tile(16, 128, 256, 1, 8, 3), 72),
        ("fp8_channel", Tile(64, 64, 128, 1, 4, 3), 116),
        ("fp8_channel", Tile(64, 256, 64, 1, 8, 3), 154),
        ("fp8_block", Tile(16, 128, 128, 1, 8, 3), 76),
        ("fp8_block", Tile(64, 128, 128, 1, 8, 3), 172),
        ("fp8_block", Tile(32, 256, 64, 1, 4, 3), 254),
        ("bf16", Tile(16, 64, 128, 1, 4, 3), 64),
        ("bf16", Tile(64, 128, 64, 1, 4, 3), 158),
    ],
)
def test_registers_as_ptxas_counts(kind: str, tile: Tile, registers: int) -> None:
    """The figures are what ptxas 12.9 reports for sm_121, Triton 3.6.0."""
    assert registers_of(tile, kind) == pytest.approx(registers, rel=0.25)


@pytest.mark.parametrize(
    ("tile", "blocks"),
    [
        (Tile(64, 128, 128, 1, 4, 4), 1),
        (Tile(64, 128, 128, 1, 4, 3), 2),
        (Tile(16, 64, 128, 1, 4, 2), 8),
        (Tile(128, 256, 128, 32, 8, 4), 0),
    ],
)
def test_resident_blocks(tile: Tile, blocks: int) -> None:
    """By bytes: 73,728 leave room for one block, 49,152 for two, 10,240 for eight (registers), 147,456 for none."""
    assert resident_blocks(tile, "fp8_channel", None) == blocks


def test_a_block_has_a_limit_of_its_own() -> None:
    narrow = replace(GB10, shared_per_block=49_151)
    assert resident_blocks(Tile(64, 128, 128, 1, 4, 3), "fp8_channel", None, narrow) == 0


def test_what_does_not_fit_has_no_time() -> None:
    with pytest.raises(ValueError, match="101,376"):
        estimate(GLM, "up", 512, Tile(128, 256, 128, 32, 8, 4))


def test_every_candidate_has_a_time() -> None:
    for layer in (GLM, QWEN, replace(GLM, kind="bf16", n=96), replace(GLM, kind="int8_channel")):
        for tile in candidates(layer.kind, layer.block_shape):
            assert 0 < estimate(layer, "down", 33, tile).seconds < 1


@pytest.mark.parametrize(
    ("version", "native"),
    [("3.4.0", False), ("3.7.1", False), ("3.8.0", True), ("3.10.0", True), ("3.5.0+git1", False)],
)
def test_which_triton_multiplies_fp8(version: str, native: bool) -> None:
    assert multiplies_fp8(version) is native


def test_no_version_of_triton() -> None:
    with pytest.raises(ValueError, match=r"such as 3\.5\.0"):
        multiplies_fp8("main")
