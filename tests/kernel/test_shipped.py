"""Every entry of every shipped file fits a GB10, says the compiler; and what does not is found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks import fit_check
from benchmarks.fit_check import SHIPPED, check

FEW = "triton_3_5_0"
Change = Callable[[dict[str, Any]], None]


def test_every_shipped_entry_fits(triton: str, capsys: pytest.CaptureFixture[str]) -> None:
    row = check(SHIPPED, triton)
    with capsys.disabled():
        print(f"\n{row.entries} entries, {row.compiled} compiles under Triton {triton}: {row.seconds:.0f} s")
    files = list((SHIPPED / f"triton_{triton.replace('.', '_')}").iterdir())
    assert (row.files, row.entries) == (len(files), sum(len(json.loads(file.read_text())) for file in files))
    assert row.entries > 500
    assert row.problems == ()
    assert 0 < row.largest <= 101_376


def test_the_usual_tritons_are_shipped_for() -> None:
    assert set(fit_check.USUAL) <= set(fit_check.tritons(SHIPPED))


@pytest.fixture
def one_file(tmp_path: Path) -> Path:
    """A folder with one of the shipped files, of two entries, and its part of the manifest."""
    manifest = json.loads((SHIPPED / "manifest.json").read_text())
    name: str = next(path for path in manifest["files"] if path.startswith(FEW) and "dtype=fp8_w8a8.json" in path)
    (tmp_path / FEW).mkdir()
    entries = json.loads((SHIPPED / name).read_text())
    (tmp_path / name).write_text(json.dumps({m: entries[m] for m in ("1", "512")}))
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "files": {name: manifest["files"][name]}}))
    return tmp_path / name


def problems(path: Path) -> tuple[str, ...]:
    return check(path.parents[1], "3.5.0").problems


def change(path: Path, how: Change) -> None:
    data = json.loads(path.read_text())
    how(data)
    path.write_text(json.dumps(data))


def test_one_sound_file_has_no_problem(one_file: Path) -> None:
    row = check(one_file.parents[1], "3.5.0")
    assert (row.files, row.entries, row.problems) == (1, 2, ())


def test_a_tile_over_the_limit_is_found(one_file: Path) -> None:
    crash = dict(zip(("BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K"), (128, 256, 128), strict=True))
    change(one_file, lambda data: data["512"].update(crash, num_warps=8, num_stages=4))
    assert problems(one_file) == (
        f"{FEW}/{one_file.name}: M 512, SGLang 0.5.4.post2: 147,456 bytes of shared memory, over 101,376",
    )


def test_a_tile_that_the_compiler_refuses_is_found(one_file: Path) -> None:
    change(one_file, lambda data: data["1"].update(BLOCK_SIZE_N=48))
    (problem,) = problems(one_file)
    assert "M 1, SGLang 0.5.4.post2: refused: ValueError: arange's range must be a power of 2" in problem


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (lambda data: data.clear(), "no entries"),
        (lambda data: data.update({"many": data["1"]}), "invalid literal for int"),
        (lambda data: data["1"].pop("BLOCK_SIZE_K"), "BLOCK_SIZE_K is missing"),
        (lambda data: data["1"].update(waves=2), "waves is not a key"),
        (lambda data: data.update({"2": [64, 64, 64]}), "BLOCK_SIZE_M is missing"),
    ],
)
def test_a_malformed_file_is_found(one_file: Path, how: Change, said: str) -> None:
    change(one_file, how)
    (problem,) = problems(one_file)
    assert said in problem
    assert one_file.name in problem


def test_a_file_that_is_no_json_is_found(one_file: Path) -> None:
    one_file.write_text(one_file.read_text()[:-10])
    (problem,) = problems(one_file)
    assert "JSONDecodeError" in problem


def test_a_name_that_tells_another_shape_is_found(one_file: Path) -> None:
    path = one_file.parents[1] / "manifest.json"
    path.write_text(path.read_text().replace('"intermediate": ', '"intermediate": 1'))
    (problem,) = problems(one_file)
    assert "the manifest otherwise" in problem


def test_a_file_that_only_the_manifest_or_only_the_folder_has_is_found(one_file: Path) -> None:
    shutil.move(one_file, one_file.with_name("E=1,N=1,device_name=NVIDIA_GB10.json"))
    lost, found = problems(one_file)
    assert lost == f"{FEW}/{one_file.name} is in the manifest and not in the folder"
    assert "KeyError" in found
