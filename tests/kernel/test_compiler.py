"""SGLang's kernel under Triton's compiler: the known sizes, what they depend on, and a compiler that misbehaves."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import Tile, default_tile

from kernel_configs import compiler, wheels
from kernel_configs import kernel as kernels
from kernel_configs.compiler import Compiled, CompilerError, Job, compile_all, compile_launches
from kernel_configs.kernel import LaunchError, kernel, launch
from tests.kernel.conftest import NOT_PIPELINED, Paper

OLD, NEW = "0.5.4.post2", wheels.SGLANG[-1]
GB10 = 101_376
LARGE, SMALL = Tile(128, 256, 128, 32, 8, 4), Tile(64, 128, 128, 1, 4, 4)
# One that SGLang would swap A and B for, on compute capability 9.0.
SHORT = Tile(32, 128, 128, 1, 4, 4)
UP = Job("up", "fp8_channel", None, 768, 5120, 8, LARGE)
DOWN = Job("down", "fp8_channel", None, 5120, 384, 8, LARGE)
KINDS = [("bf16", None), ("fp8_channel", None), ("fp8_tensor", None), ("fp8_block", (128, 128)), ("int8_channel", None)]


def shared(job: Job, triton: str, sglang: str = OLD) -> int | None:
    answer = compile_all([job], triton, sglang, cache=False)[job]
    assert answer.error is None
    return answer.shared


def arguments(job: Job, version: str, **options: Any) -> dict[str, tuple[str, Any]]:
    return {name: (kind, detail) for name, kind, detail in launch(job, version, **options)["arguments"]}


def test_default_tiles_need_what_crashed_and_what_fits(triton: str) -> None:
    few, many = (default_tile(m, 160, "fp8_channel", None, OLD, GB10) for m in (160, 161))
    assert shared(replace(UP, tile=many), triton) == 147_456
    assert shared(replace(DOWN, tile=many), triton) == 147_456
    assert shared(replace(UP, tile=few), triton) == 73_728


def test_without_the_divisor_the_answer_would_be_another(triton: str) -> None:
    told = launch(UP, OLD)
    bare = [[name, kind, detail if kind == "constexpr" else 0] for name, kind, detail in told["arguments"]]
    text = json.dumps({**told, "arguments": bare})
    assert compile_launches([text], triton, kernel(OLD), 121, cache=False)[text].shared == NOT_PIPELINED[triton]


def test_the_short_way_says_what_the_launcher_would_compare(triton: str) -> None:
    tiles = [SMALL, Tile(16, 32, 64, 1, 4, 3), Tile(128, 64, 64, 1, 8, 1)]
    jobs = [Job("up", kind, block, 768, 5120, 8, tile) for kind, block in KINDS[:4:3] for tile in tiles]
    texts = [json.dumps({**launch(job, OLD), "whole": True}) for job in jobs]
    whole = compile_launches(texts, triton, kernel(OLD), 121, cache=False)
    assert compile_all(jobs, triton, OLD, cache=False) == dict(zip(jobs, (whole[text] for text in texts), strict=True))
    assert all(answer.shared for answer in whole.values())


@pytest.mark.parametrize("version", [OLD, NEW])
def test_tokens_experts_and_shapes_move_nothing(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = [UP, replace(UP, gemm="down"), DOWN, replace(UP, n=2 * 1408, k=4096, top_k=6), replace(UP, k=5120 + 16)]
    texts = []
    # With 127 experts the padded tokens can be a multiple of 16, with 128 never.
    for experts in (127, 128):
        monkeypatch.setattr(kernels, "EXPERTS", experts)
        texts += [json.dumps(launch(job, version, tokens=tokens)) for job in moved for tokens in (1, 2, 3, 64, 4096)]
    assert {detail for text in texts for name, _, detail in json.loads(text)["arguments"] if name == "EM"} == {0, 16}
    found = compile_launches(texts, "3.5.0", kernel(version), 121, cache=False)
    assert len(found) > 2 * len(moved)
    assert set(found.values()) == {Compiled(147_456, None)}


@pytest.mark.parametrize("version", wheels.SGLANG)
def test_every_release_is_launched(version: str) -> None:
    for (kind, block), gemm in itertools.product(KINDS, ("up", "down")):
        given = arguments(Job(gemm, kind, block, 768, 5120, 8, SHORT), version)  # type: ignore[arg-type]
        assert list(given) == [each.name for each in kernel(version).parameters]
        assert given["MUL_ROUTED_WEIGHT"] == ("constexpr", gemm == "down")
        assert given["top_k"] == ("constexpr", 8 if gemm == "up" else 1)
        assert given["b_ptr"] == (f"*{'bf16' if kind == 'bf16' else 'i8' if 'int8' in kind else 'fp8e4nv'}", 16)
        assert given["a_desc"] == given["b_desc"] == ("constexpr", None)
        assert given["stride_am"] == ("i32", 16)
        assert given.get("swap_ab", ("constexpr", False)) == ("constexpr", False)
        assert (given["group_n"][1], given["group_k"][1]) == (block or (0, 0))
        assert (given["b_scale_ptr"][0] == "*fp32") == (kind != "bf16")


def test_every_other_release_compiles_too() -> None:
    versions = [version for version in wheels.SGLANG if version not in (OLD, NEW)]
    assert {version: shared(replace(UP, tile=SMALL), "3.5.0", version) for version in versions} == dict.fromkeys(
        versions, 73_728
    )


def test_what_a_release_does_on_other_gpus_is_its_own() -> None:
    short = replace(UP, tile=SHORT)
    assert arguments(short, NEW, arch=90)["swap_ab"] == ("constexpr", True)
    assert arguments(short, NEW, arch=121)["USE_GDC"] == ("constexpr", True)
    assert arguments(short, NEW, arch=86)["USE_GDC"] == ("constexpr", False)
    assert launch(short, NEW)["options"]["launch_pdl"] is True


def test_a_launcher_that_wants_more_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    known = kernels._surroundings(121)
    del known["padding_size"]
    monkeypatch.setattr(kernels, "_surroundings", lambda arch: known)
    with pytest.raises(LaunchError, match=r"SGLang 0\.5\.4\.post2 wants something new: .*padding_size.* Mend: "):
        launch(UP, OLD)


def test_a_refused_tile_has_its_reason(triton: str) -> None:
    odd = replace(UP, tile=Tile(64, 48, 64))
    answer = compile_all([odd, UP], triton, OLD, cache=False)
    assert answer[odd] == Compiled(None, "ValueError: arange's range must be a power of 2")
    assert answer[UP].shared == 147_456


def test_a_pass_that_fails_has_its_reason() -> None:
    # Triton 3.5's compiler breaks on this one: fitting is not all that a tile has to do.
    broken = Job("up", "bf16", None, 768, 5120, 8, Tile(64, 64, 64, 1, 1, 5))
    answer = compile_all([broken], "3.5.0", "0.5.23", cache=False)[broken]
    assert answer == Compiled(None, "the compiler says: operand #0 does not dominate this use")


def test_alike_is_compiled_once(paper: Paper) -> None:
    log = paper("log.write('asked\\n')\nsay(shared=tile['BLOCK_SIZE_M'])")
    alike = [UP, replace(UP, n=1536), replace(UP, tile=replace(LARGE, group_m=1)), UP]
    other = replace(UP, tile=replace(LARGE, block_m=64))
    assert compile_all([*alike, other], "3.5.0", OLD) == {
        **dict.fromkeys(alike, Compiled(128, None)),
        other: Compiled(64, None),
    }
    assert log.read_text().count("asked") == 2


def test_results_are_kept_until_asked_anew(paper: Paper) -> None:
    log = paper("log.write('asked\\n')\nsay(shared=len(log.name))")
    first = compile_all([UP], "3.5.0", OLD)
    assert compile_all([UP], "3.5.0", OLD) == first
    assert log.read_text().count("asked") == 1
    assert compile_all([UP], "3.5.0", OLD, cache=False) == first
    assert log.read_text().count("asked") == 2


def test_results_belong_to_one_kernel_and_one_way_to_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stores = {compiler._store(triton, kernel(version), 121) for triton in ("3.5.0", "3.6.0") for version in (OLD, NEW)}
    stores.add(compiler._store("3.5.0", kernel(OLD), 90))
    other = tmp_path / "worker.py"
    other.write_text("another way")
    monkeypatch.setattr(compiler, "WORKER", other)
    assert len(stores | {compiler._store("3.5.0", kernel(OLD), 121)}) == 6


def test_a_damaged_store_is_made_anew(paper: Paper, tmp_path: Path) -> None:
    paper("say(shared=1)")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/store.json").write_text('{"half')
    assert compile_all([UP], "3.5.0", OLD)[UP] == Compiled(1, None)
    assert len(json.loads((tmp_path / "results/store.json").read_text())) == 1


def test_a_crash_is_one_jobs_answer_and_tried_again(paper: Paper) -> None:
    log = paper(
        "log.write('asked\\n')\n"
        "if tile['BLOCK_SIZE_M'] == 64:\n"
        "    print('LLVM ERROR: no such target', file=sys.stderr, flush=True)\n"
        "    os.abort()\n"
        "say(shared=1)"
    )
    bad, *good = (replace(UP, tile=replace(LARGE, block_m=m)) for m in (64, 16, 32, 128, 256))
    for asked in (5, 6):
        answers = compile_all([bad, *good], "3.5.0", OLD, workers=2)
        assert answers.pop(bad) == Compiled(None, "the compiler ended with SIGABRT: LLVM ERROR: no such target")
        assert set(answers.values()) == {Compiled(1, None)}
        assert log.read_text().count("asked") == asked


def test_a_compiler_that_hangs_is_ended(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    paper("time.sleep(60 if tile['BLOCK_SIZE_M'] == 64 else 0)\nsay(shared=1)")
    monkeypatch.setattr(compiler, "COMPILE_LIMIT", 1.0)
    slow = replace(UP, tile=SMALL)
    answers = compile_all([slow, UP], "3.5.0", OLD, workers=1)
    assert answers == {slow: Compiled(None, "no answer in 1 s"), UP: Compiled(1, None)}


def test_a_triton_that_does_not_start_is_said(paper: Paper, tmp_path: Path) -> None:
    paper("pass")
    (tmp_path / "paper.py").write_text("raise ImportError('no libtriton.so')")
    with pytest.raises(CompilerError, match=r"Triton 3\.5\.0 does not start: .*no libtriton\.so\. Mend: "):
        compile_all([UP], "3.5.0", OLD)


def test_settings_of_this_machine_do_not_count(paper: Paper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "0")
    monkeypatch.setenv("PYTHONSTARTUP", "x")
    log = paper("print(json.dumps(sorted(os.environ)), file=log)\nsay(shared=1)")
    compile_all([UP], "3.5.0", OLD)
    assert not [name for name in json.loads(log.read_text()) if name.startswith(("TRITON", "PYTHONSTART"))]
