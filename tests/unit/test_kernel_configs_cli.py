"""The commands of `python -m kernel_configs`, with the formula in the compiler's place."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import shared_bytes

from kernel_configs import check, choose, cli, generate, manifest
from kernel_configs.compiler import Compiled
from kernel_configs.kernel import Job

NAME = "E=64,N=384,device_name=NVIDIA_GB10"
GOOD = {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 64, "BLOCK_SIZE_K": 128, "GROUP_SIZE_M": 1, "num_warps": 4, "num_stages": 3}
LARGE = {**GOOD, "BLOCK_SIZE_M": 128, "BLOCK_SIZE_N": 256, "num_warps": 8, "num_stages": 4}
SIZES = "--experts 64 --top-k 6 --hidden 2048 --intermediate 768 --tp 2"


@pytest.fixture(autouse=True)
def _formula(monkeypatch: pytest.MonkeyPatch) -> None:
    """No compiler here: tests/kernel has the real one."""

    def answer(jobs: Iterable[Job], triton: str) -> dict[Job, Compiled]:
        return {one: Compiled(shared_bytes(one.tile, one.kind, one.block_shape), None) for one in jobs}

    monkeypatch.setattr(choose, "ask_compiler", answer)
    monkeypatch.setattr(check, "ask_compiler", answer)
    monkeypatch.setattr(generate, "usable_kernels", lambda triton: ())


def run(capsys: pytest.CaptureFixture[str], line: str, *paths: Path) -> tuple[int, str, str]:
    code = cli.main([*line.split(), *(str(path) for path in paths)])
    out = capsys.readouterr()
    return code, out.out, out.err


def write(folder: Path, name: str, entries: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(entries if isinstance(entries, str) else json.dumps(entries))


# ---- shape and generate -----------------------------------------------------------------------


def test_shape_by_flags(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Both files, in the folder of the Triton; a second run changes nothing; the checker is content."""
    line = f"shape {SIZES} --kind bf16 --triton 3.6.0 --out"
    code, out, _ = run(capsys, line, tmp_path)
    assert code == 0
    assert "2 config files made, 3 files changed" in out
    assert sorted(path.name for path in (tmp_path / "triton_3_6_0").iterdir()) == [f"{NAME}.json", f"{NAME}_down.json"]
    assert "2 config files made, 0 files changed" in run(capsys, line, tmp_path)[1]
    code, out, _ = run(capsys, "check", tmp_path)
    assert (code, out) == (0, "2 files, 36 entries compiled, 0 problems\n")


def test_shape_keeps_what_is_in_the_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run(capsys, f"shape {SIZES} --kind bf16 --out", tmp_path)
    run(capsys, f"shape {SIZES} --kind int8_channel --out", tmp_path)
    assert len(manifest.read(tmp_path).files) == 4


def test_shape_by_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The release decides about the shared expert and the name."""
    config = {
        "architectures": ["Glm4MoeForCausalLM"],
        "hidden_size": 256,
        "n_routed_experts": 8,
        "n_shared_experts": 1,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 512,
        "num_hidden_layers": 2,
    }
    write(tmp_path, "config.json", config)
    for release, experts in (("0.5.4.post2", 8), ("0.5.23", 9)):
        out = tmp_path / release
        code, _, _ = run(capsys, f"shape --tp 2 --sglang {release} --config {tmp_path}/config.json --out", out)
        assert code == 0
        assert (out / "triton_3_5_0" / f"E={experts},N=256,device_name=NVIDIA_GB10.json").is_file()


def test_shape_for_another_name_of_the_gpu(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code = cli.main([*f"shape {SIZES} --kind bf16 --device-name".split(), "NVIDIA GB10 X", "--out", str(tmp_path)])
    assert code == 0
    assert "chosen for NVIDIA GB10" in capsys.readouterr().err
    assert (tmp_path / "triton_3_5_0" / "E=64,N=384,device_name=NVIDIA_GB10_X.json").is_file()


def test_block_wise_shape(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, _ = run(capsys, f"shape {SIZES} --kind fp8_block --block-shape 128 128 --out", tmp_path)
    assert code == 0
    name = f"{NAME},dtype=fp8_w8a8,block_shape=[128, 128].json"
    entries = json.loads((tmp_path / "triton_3_5_0" / name).read_text())
    assert all(entry["BLOCK_SIZE_K"] <= 128 for entry in entries.values())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("shape --tp 2 --experts 64", "--top-k, --hidden, --intermediate, --kind not given"),
        (f"shape {SIZES} --kind bf16 --top-k 65", "--top-k 65 is more than the 64 experts"),
        (f"shape {SIZES} --kind bf16 --experts 0", "--experts is 0"),
        (f"shape {SIZES} --kind bf16 --tp 0", "--tp is 0"),
        (f"shape {SIZES} --kind bf16 --tp 7", "can't be split into 7"),
        (f"shape {SIZES} --kind fp8_block", "--block-shape belongs to --kind fp8_block"),
        (f"shape {SIZES} --kind bf16 --block-shape 128 128", "--block-shape belongs to --kind fp8_block"),
        (f"shape {SIZES} --kind fp8_block --block-shape 128 128 --tp 4", "192 of an expert's width"),
        ("shape --tp 2 --config /nowhere/config.json", "/nowhere/config.json: No such file"),
        ("generate --model GLM-4.7", "did you mean GLM-4.7-FP8?"),
        ("generate --model Nothing", "take one of GLM-4.7-FP8"),
        ("explain GLM-4.7-FP8 --m 0", "--m is 0"),
        ("explain GLM-4.7-FP8 --m 8 --tp 5", "can't be split into 5"),
        ("explain GLM-4.7-FP8 --m 8 --triton main", "'main' is not a version of Triton"),
        ("check /nowhere", "holds no config files"),
    ],
)
def test_bad_input(capsys: pytest.CaptureFixture[str], line: str, message: str) -> None:
    """One sentence that says what, and how to mend it."""
    code, out, err = run(capsys, line)
    assert (code, out) == (1, "")
    assert err.startswith("error: ")
    assert message in err
    assert "Mend: " in err


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ('{"hidden_size": 64}', "the model is dense")],
)
def test_bad_config(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, "config.json", text)
    code, _, err = run(capsys, f"shape --tp 1 --config {tmp_path}/config.json")
    assert code == 1
    assert message in err


def test_generate_one_model(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The same text as what is shipped, and what is left out is said."""
    code, out, err = run(capsys, "generate --model Qwen3.6-35B-A3B-FP8 --triton 3.5.0 --out", tmp_path)
    assert code == 0
    assert "left out: Qwen3.6-35B-A3B-FP8 with tp 8: " in out
    assert "predicted 3 of 3 layers" in err
    made = sorted((tmp_path / "triton_3_5_0").iterdir())
    assert len(made) == 6
    for path in made:
        assert path.read_text() == (generate.SHIPPED / "triton_3_5_0" / path.name).read_text()


# ---- check ------------------------------------------------------------------------------------


def test_check_finds_what_does_not_fit(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Without a _down file the entries serve both GEMMs."""
    write(tmp_path, f"{NAME},dtype=fp8_w8a8.json", {"1": GOOD, "512": LARGE})
    code, out, _ = run(capsys, "check --triton 3.5.0", tmp_path)
    assert code == 1
    assert out.splitlines() == [
        f"{NAME},dtype=fp8_w8a8.json: M 512 ({gemm}): 147,456 bytes of shared memory, over the 101,376 of NVIDIA GB10"
        for gemm in ("up", "down")
    ] + ["1 files, 4 entries compiled, 2 problems"]


def test_check_reports_a_refusal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "triton_3_6_0", f"{NAME}.json", {"1": GOOD})
    monkeypatch.setattr(
        check, "ask_compiler", lambda jobs, triton: dict.fromkeys(jobs, Compiled(None, f"bug of {triton}"))
    )
    code, out, _ = run(capsys, "check", tmp_path)
    assert code == 1
    assert "M 1 (up): the compiler refuses it: bug of 3.6.0" in out


def test_check_holds_the_manifest_against_the_compiler(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(capsys, f"shape {SIZES} --kind bf16 --out", tmp_path)
    monkeypatch.setattr(check, "ask_compiler", lambda jobs, triton: dict.fromkeys(jobs, Compiled(5, None)))
    (tmp_path / "triton_3_5_0" / f"{NAME}_down.json").unlink()
    code, out, _ = run(capsys, "check", tmp_path)
    assert code == 1
    assert f"manifest.json names triton_3_5_0/{NAME}_down.json, which is not there" in out
    assert "the compiler 5. Mend: generate it again." in out


@pytest.mark.parametrize(
    ("name", "entries", "message"),
    [
        (f"{NAME}.json", {"1": {**GOOD, "num_warps": "4"}}, "num_warps is '4'"),
        (f"{NAME}.json", {"x": GOOD}, "M x: is not a whole number"),
        (f"{NAME}.json", {}, "It holds no entries"),
        (f"{NAME}.json", "{", "is not JSON"),
        ("mine.json", {"1": GOOD}, "is not a name that SGLang looks for"),
        (f"{NAME},dtype=int4_w4a16.json", {"1": GOOD}, "int4_w4a16 goes through kernels that are not covered"),
    ],
)
def test_check_finds_what_is_malformed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, name: str, entries: object, message: str
) -> None:
    write(tmp_path, name, entries)
    code, out, err = run(capsys, "check --triton 3.5.0", tmp_path)
    assert code == 1
    assert message in out + err


def test_check_finds_files_that_disagree(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(tmp_path, f"{NAME}.json", {"1": GOOD})
    write(tmp_path, f"{NAME}_down.json", {"1": {**GOOD, "BLOCK_SIZE_M": 32}})
    code, out, _ = run(capsys, "check --triton 3.5.0", tmp_path)
    assert code == 1
    assert "BLOCK_SIZE_M is 16 for up and 32 for down" in out


def test_check_needs_a_triton(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write(tmp_path, f"{NAME}.json", {"1": GOOD})
    code, _, err = run(capsys, "check", tmp_path)
    assert code == 1
    assert "say which Triton it is for: --triton" in err


# ---- the rest ---------------------------------------------------------------------------------


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    """Why the winner wins, what the published tile and the later default would cost, and that the old one dies."""
    code, out, _ = run(capsys, "explain GLM-4.7-FP8 --tp 4 --m 512")
    assert code == 0
    assert "default 0.5.4.post2 128x256x128 g32 w8 s4: does not fit, 147,456 bytes of 101,376" in out
    assert "published 64x64x256 g1 w8 s2: 1.0" in out
    assert "default 0.5.14 64x128x256 g64 w4 s2: 1.1" in out
    assert "not measured" in out
    table = [line for line in out.splitlines() if line.startswith(("up ", "down "))]
    assert sum("chosen" in line for line in table) == 2


def test_explain_between_entries(capsys: pytest.CaptureFixture[str]) -> None:
    """SGLang takes the nearest entry, at a tie the smaller."""
    assert "M 384 (entry 256)" in run(capsys, "explain GLM-4.7-FP8 --m 384")[1]
    assert "M 385 (entry 512)" in run(capsys, "explain GLM-4.7-FP8 --m 385")[1]


def test_explain_another_model(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is published for it."""
    code, out, _ = run(capsys, "explain MiniMax-M2 --tp 2 --m 4096 --sglang 0.5.23 --triton 3.8.0")
    assert code == 0
    assert "published" not in out


def test_compare(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "compare")
    assert code == 0
    assert "does not fit" in out
    assert sum(line.lstrip()[:1].isdigit() for line in out.splitlines()) == 18


def test_models(capsys: pytest.CaptureFixture[str]) -> None:
    assert "MiniMax-M2: fp8_block, tp 1, 2, 4\n  not tp 8: " in run(capsys, "models")[1]


def test_docs_without_a_place(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    monkeypatch.setattr(cli, "PAGE", page)
    code, _, err = run(capsys, "docs")
    assert code == 1
    assert "has no place for the table" in err
    assert page.read_text() == "nothing\n"


def test_docs_twice_is_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{cli.BEGIN}\n{cli.END}\nafter\n")
    monkeypatch.setattr(cli, "PAGE", page)
    monkeypatch.setattr(cli, "PLOT", tmp_path / "plot.svg")
    assert run(capsys, "docs")[0] == 0
    first = page.read_text()
    assert first.startswith("before\n")
    assert first.endswith("after\n")
    assert "| 4096 |" in first
    run(capsys, "docs")
    assert page.read_text() == first
