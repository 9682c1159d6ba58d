"""The choice of tiles: shared BLOCK_SIZE_M, few tiles, nothing that the compiler refuses, the same every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import Tile, shared_bytes

from kernel_configs import choose as module
from kernel_configs.choose import BATCHES, ChoiceError, candidates, choose, plan, predictions, ungrouped
from kernel_configs.compiler import Compiled
from kernel_configs.cost import GEMMS, Layer
from kernel_configs.gb10 import GB10
from kernel_configs.kernel import Job

ROOT = Path(__file__).resolve().parents[2]
GLM = Layer(experts=160, top_k=8, shared=0, hidden=5120, n=384, kind="fp8_channel")
QWEN = Layer(experts=128, top_k=8, shared=0, hidden=4096, n=384, kind="fp8_block", block_shape=(128, 128))

Refuses = dict[Tile, Compiled]


def compiler(monkeypatch: pytest.MonkeyPatch, refused: Refuses) -> list[Job]:
    """Stands for the compiler: the formula, but for what it refuses; returns the list of what it is asked."""
    asked: list[Job] = []

    def answer(jobs: Iterable[Job], triton: str) -> dict[Job, Compiled]:
        wanted = list(jobs)
        asked.extend(wanted)
        return {
            one: refused.get(one.tile, Compiled(shared_bytes(one.tile, one.kind, one.block_shape), None))
            for one in wanted
        }

    monkeypatch.setattr(module, "ask_compiler", answer)
    return asked


@pytest.mark.parametrize("layer", [GLM, QWEN])
def test_both_gemms_share_the_rows_of_a_block(layer: Layer) -> None:
    tiles = plan(layer, fp8=False)
    assert [tile.block_m for tile in tiles["up"].values()] == [tile.block_m for tile in tiles["down"].values()]
    assert list(tiles["up"]) == list(tiles["down"]) == list(BATCHES)


@pytest.mark.parametrize("layer", [GLM, QWEN])
def test_nearly_the_best_with_few_tiles(layer: Layer) -> None:
    """No M gives up more than a few percent, and a file has a handful of kernels to compile."""
    tiles = plan(layer, fp8=False)
    for m in BATCHES:
        best = min(
            sum(
                min(value for tile, value in predictions(layer, False)[gemm][m].items() if tile.block_m == side)
                for gemm in GEMMS
            )
            for side in (16, 32, 64, 128)
        )
        mine = sum(predictions(layer, False)[gemm][m][tiles[gemm][m]] for gemm in GEMMS)
        assert mine / best < 1.04, m
    assert all(len({ungrouped(tile) for tile in tiles[gemm].values()}) <= 6 for gemm in GEMMS)


def test_down_has_tiles_of_its_own() -> None:
    """K is 5,120 in one GEMM and 384 in the other: one copy for both would be no choice."""
    tiles = plan(GLM, fp8=False)
    assert tiles["up"] != tiles["down"]


@pytest.mark.parametrize("kind", ["fp8_channel", "bf16", "int8_channel", "fp8_tensor"])
def test_candidates_fit(kind: str) -> None:
    found = candidates(kind, None)
    assert len(set(found)) == len(found) > 100
    assert all(shared_bytes(tile, kind) <= GB10.shared_per_block for tile in found)


def test_candidates_match_block_wise_scales() -> None:
    """One scale a step: a step of 256 would take the first half's for both."""
    assert {tile.block_k for tile in candidates("fp8_block", (128, 128))} == {64, 128}
    assert {tile.block_n for tile in candidates("fp8_block", (64, 128))} == {32, 64, 128, 256}
    assert {tile.block_n for tile in candidates("fp8_block", (96, 128))} == {32, 128, 256}


def test_what_is_refused_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is as if the refused tiles had never been there."""
    first = plan(GLM, fp8=False)
    gone = {ungrouped(first["up"][1]): Compiled(None, "refused"), ungrouped(first["up"][512]): Compiled(200_000, None)}
    asked = compiler(monkeypatch, gone)
    chosen = choose([GLM], "3.5.0")[GLM]
    refused = {(gemm, tile) for gemm in GEMMS for tile in gone}
    assert chosen.tiles == plan(GLM, False, refused)
    assert not {ungrouped(tile) for gemm in GEMMS for tile in chosen.tiles[gemm].values()} & set(gone)
    assert len(asked) < 40
    assert len(asked) == len(set(asked))


def test_refusals_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tile that takes the place of a refused one may be refused as well, and neither comes back."""
    gone: set[Tile] = set()
    for _ in range(3):
        chosen = plan(GLM, False, {(gemm, tile) for gemm in GEMMS for tile in gone})
        gone.add(ungrouped(chosen["up"][1]))
    compiler(monkeypatch, dict.fromkeys(gone, Compiled(None, "refused")))
    tiles = choose([GLM], "3.5.0")[GLM].tiles
    assert len(gone) == 3
    assert not {ungrouped(tile) for gemm in GEMMS for tile in tiles[gemm].values()} & gone


def test_bytes_are_the_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    tile = ungrouped(plan(GLM, fp8=False)["up"][4096])
    compiler(monkeypatch, {tile: Compiled(77_777, None)})
    chosen = choose([GLM], "3.5.0")[GLM]
    assert chosen.needed["up"][4096] == 77_777


def test_all_refused() -> None:
    everything = {(gemm, ungrouped(tile)) for gemm in GEMMS for tile in candidates("fp8_channel", None)}
    with pytest.raises(ChoiceError, match="refuses every tile"):
        plan(GLM, False, everything)


def test_a_triton_that_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "compile_all", lambda jobs, triton, release: dict.fromkeys(jobs, Compiled(None, "no such target"))
    )
    with pytest.raises(ChoiceError, match="no such target"):
        module.usable_kernels("3.3.0")


def test_the_kernel_that_needs_most_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile has to fit every kernel; one that the Triton can't compile at all is left out."""
    one = module.job(GLM, "up", Tile(16, 64, 128, 1, 4, 3))
    other = module.job(GLM, "down", Tile(16, 64, 128, 1, 4, 3))
    answers = {
        "0.5.4.post2": Compiled(100, None),
        "0.5.14": Compiled(300, None),
        "0.5.23": Compiled(None, "not with this Triton"),
    }
    monkeypatch.setattr(module, "compile_all", lambda jobs, triton, release: dict.fromkeys(jobs, answers[release]))
    assert module.usable_kernels("3.4.0") == ("0.5.4.post2", "0.5.14")
    assert module.ask_compiler([one, other], "3.4.0") == dict.fromkeys([one, other], Compiled(300, None))


def test_a_refusal_by_one_kernel_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    tile = Tile(16, 64, 128, 1, 4, 3)

    def answer(jobs: Iterable[Job], triton: str, release: str) -> dict[Job, Compiled]:
        return {
            one: Compiled(None, "bug") if one.tile == tile and release == "0.5.14" else Compiled(1, None)
            for one in jobs
        }

    monkeypatch.setattr(module, "compile_all", answer)
    asked = module.job(GLM, "up", tile)
    assert module.ask_compiler([asked], "3.5.0")[asked] == Compiled(None, "bug")


def test_path_stays_unless_it_gains() -> None:
    """A change costs a percent; a tie goes to what the step names first."""
    assert module._path([{"a": 0.0, "b": 0.0}, {"a": 0.009, "b": 0.0}, {"a": 0.0, "b": 0.05}]) == ["a", "a", "a"]
    assert module._path([{"a": 0.0, "b": 0.5}, {"a": 0.011, "b": 0.0}]) == ["a", "b"]
    assert module._path([{"a": 0.0, "b": 0.5}, {"a": 0.02, "b": 0.0}, {"a": 0.5, "b": 0.0}]) == ["a", "b", "b"]
    assert module._path([{"b": 0.0, "a": 0.0}, {"a": 0.0, "b": 0.0}]) == ["a", "a"]
    assert module._path([{"a": 0.0, "b": 0.0}, {"b": 0.0, "a": 0.0}]) == ["b", "b"]


def test_the_same_in_every_process() -> None:
    """Nothing depends on the order of sets or of what was asked before."""
    script = (
        "import json, sys; from kernel_configs.choose import plan; from kernel_configs.cost import Layer;"
        "layer = Layer(160, 8, 0, 5120, 384, 'fp8_channel');"
        "print(json.dumps({g: [repr(t) for t in by.values()] for g, by in plan(layer, False).items()}))"
    )
    outputs = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, check=True
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    here = {gemm: [repr(tile) for tile in by_m.values()] for gemm, by_m in plan(GLM, fp8=False).items()}
    assert json.loads(outputs.pop()) == here


def test_the_shared_expert_is_one_of_a_tokens_experts() -> None:
    """The kernel divides rows by the experts of a token, the fused one included; the down GEMM has one row a pair."""
    fused = replace(GLM, shared=1)
    tile = Tile(16, 64, 128, 32, 4, 3)
    assert [module.job(fused, gemm, tile).top_k for gemm in GEMMS] == [9, 1]
    assert [(one.n, one.k) for one in (module.job(fused, gemm, tile) for gemm in GEMMS)] == [(768, 5120), (5120, 384)]
    assert module.job(fused, "up", tile).tile.group_m == 1
