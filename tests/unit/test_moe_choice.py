"""Which kernel configs a rollout brings, and what stops it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _moe
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_choice import (
    Choice,
    Source,
    choose,
    is_triton_folder,
    missed,
    sources,
)
from ansible_collections.dgx_spark.sglang.tests.unit.test_moe import GLM

LIMIT = 101_376
UP = "E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
DOWN = "E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8_down.json"
SMALL = {
    "BLOCK_SIZE_M": 16,
    "BLOCK_SIZE_N": 64,
    "BLOCK_SIZE_K": 128,
    "GROUP_SIZE_M": 1,
    "num_warps": 4,
    "num_stages": 3,
}
# (128 + 256) * 128 bytes * (4 - 1) stages: SGLang's default, which ends the server on a GB10.
LARGE = {**SMALL, "BLOCK_SIZE_M": 128, "BLOCK_SIZE_N": 256, "num_warps": 8, "num_stages": 4}


def asked(**changes: Any) -> dict[str, Any]:
    lookup = {
        "file": UP,
        "down_file": DOWN,
        "up": {"path": None},
        "down": {"path": None},
        "without_file": {
            "small": {"fits": True},
            "large": {"fits": False},
            "verdict": "fails at the first forward of more than 160 tokens",
        },
    }
    return {
        "moe": True,
        "reason": "",
        "env_dir": None,
        "root": "/pkg",
        "directory": "triton_3_5_0",
        "shape": {"kind": "fp8_channel", "block_shape": None},
        "lookups": [{**lookup, **changes.pop("lookup", {})}],
        **changes,
    }


def text(*tiles: dict[str, int]) -> str:
    return json.dumps({str(2**power): tile for power, tile in enumerate(tiles)})


def run(own: dict[str, str], shipped: dict[str, str] | None = None, skip: str = "", **changes: Any) -> Choice:
    """own, shipped: path below its folder -> text; "triton_3_5_0/x.json" lies in a folder of a Triton version."""
    everything = {f"/own/{path}": body for path, body in own.items()}
    everything |= {f"/ship/{path}": body for path, body in (shipped or {}).items()}

    def listed(paths: list[str]) -> list[Source]:
        return [Source(path, path.split("/")[2] if path.count("/") == 3 else "", path.split("/")[-1]) for path in paths]

    def read(path: str) -> str:
        if everything[path] == "unreadable":
            raise PermissionError("no")
        return everything[path]

    mine, ours = ([path for path in everything if path.startswith(root)] for root in ("/own/", "/ship/"))
    return choose(asked(**changes), listed(mine), listed(ours), read, LIMIT, "NVIDIA GB10", skip)


def test_the_shipped_pair_goes_where_the_image_looks() -> None:
    choice = run({}, {f"triton_3_5_0/{UP}": text(SMALL), f"triton_3_5_0/{DOWN}": text(SMALL)})
    assert [file.target for file in choice.files] == [f"/pkg/configs/triton_3_5_0/{name}" for name in (UP, DOWN)]
    assert [file.name for file in choice.files] == [f"moe_configs/{name}" for name in (UP, DOWN)]
    assert choice.files[0].content == text(SMALL)
    # (16 + 64) * 128 * 1 * (3 - 1)
    assert {file.largest for file in choice.files} == {20_480}
    assert choice.findings == []


def test_own_files_win_as_a_pair() -> None:
    shipped = {f"triton_3_5_0/{UP}": text(SMALL), f"triton_3_5_0/{DOWN}": text(SMALL)}
    choice = run({UP: text(SMALL, SMALL)}, shipped)
    assert [(file.source, file.entries) for file in choice.files] == [(f"/own/{UP}", 2)]


@pytest.mark.parametrize(
    ("folders", "taken"),
    [
        (["triton_3_4_0", "triton_3_5_0", "triton_3_6_0"], "triton_3_5_0"),
        (["triton_3_4_0", "triton_3_6_0"], "triton_3_4_0"),
        (["triton_3_6_0", "triton_3_10_0"], "triton_3_6_0"),
    ],
)
def test_the_nearest_older_triton(folders: list[str], taken: str) -> None:
    choice = run({}, {f"{folder}/{UP}": text(SMALL) for folder in folders})
    assert [file.source for file in choice.files] == [f"/ship/{taken}/{UP}"]
    assert choice.files[0].target == f"/pkg/configs/triton_3_5_0/{UP}"


@pytest.mark.parametrize("path", [UP, f"triton_3_5_0/{UP}"])
def test_an_entry_over_the_limit(path: str) -> None:
    (finding,) = run({path: text(SMALL, LARGE)}).findings
    assert finding.where == f"/own/{path}"
    assert finding.problem == "M 2: 147,456 bytes of shared memory, over the 101,376 of NVIDIA GB10"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("{", "Is not JSON"),
        ("unreadable", "Can't be read: no."),
        ("[]", "holds no entries"),
        (json.dumps({"x": SMALL}), "M x: is not a whole number"),
        (json.dumps({"1": {**SMALL, "BLOCK_SIZE_K": 48}}), "BLOCK_SIZE_K is 48"),
    ],
)
def test_malformed(body: str, told: str) -> None:
    choice = run({UP: body})
    assert choice.files == []
    assert [told in finding.problem for finding in choice.findings] == [True]


def test_a_pair_that_disagrees() -> None:
    choice = run({UP: text(SMALL), DOWN: text({**SMALL, "BLOCK_SIZE_M": 32})})
    assert ["BLOCK_SIZE_M is 16 for up and 32 for down" in finding.problem for finding in choice.findings] == [True]


def test_a_name_that_is_not_looked_for() -> None:
    wrong = UP.replace("E=160", "E=161")
    (finding,) = run({wrong: text(SMALL)}, {f"triton_3_5_0/{UP}": text(SMALL)}).findings
    assert "look for other names" in finding.problem
    assert UP in finding.mend


def test_the_folder_of_another_triton() -> None:
    (finding,) = run({f"triton_3_4_0/{UP}": text(SMALL)}).findings
    assert finding.problem == "Is for triton_3_4_0, and this image reads triton_3_5_0."


def test_a_stray_file_beside_one_that_is_taken() -> None:
    choice = run({UP: text(SMALL), "notes.json": "{"})
    assert len(choice.files) == 1
    assert choice.notes == ["/own/notes.json is not looked for by this image and model."]


def test_no_file_at_all_is_fatal_where_the_default_does_not_fit() -> None:
    (finding,) = run({}).findings
    assert "fails at the first forward of more than 160 tokens" in finding.problem


def test_no_file_at_all_is_fine_where_the_default_fits() -> None:
    fits = {"small": {"fits": True}, "large": {"fits": True}, "verdict": "runs, untuned"}
    choice = run({}, lookup={"without_file": fits})
    assert choice == Choice([], [], [f"There is no {UP}; SGLang's default tiles fit NVIDIA GB10."])


def test_the_image_has_its_own() -> None:
    choice = run({}, lookup={"up": {"path": "triton_3_5_0/x"}})
    assert (choice.findings, choice.notes) == ([], ["The image brings triton_3_5_0/x itself."])


def test_an_image_that_looks_elsewhere() -> None:
    (finding,) = run({UP: text(SMALL)}, env_dir="/mine").findings
    assert finding.variable == "SGLANG_MOE_CONFIG_DIR"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"moe": False, "reason": "the model is dense"}, "the model is dense"),
        ({"reason": "experts quantized as awq"}, "experts quantized as awq"),
        ({"skip": "moe-runner-backend cutlass"}, "moe-runner-backend cutlass"),
    ],
)
def test_models_and_flags_that_read_no_file(changes: dict[str, Any], told: str) -> None:
    choice = run({UP: text(LARGE)}, **changes)
    assert choice == Choice([], [], [f"No kernel configs: {told}."])


def test_missed() -> None:
    both = [f"/c/{UP}", f"/c/{UP.replace('160', '161')}", f"/c/{DOWN}"]
    assert missed(both, [both[1], both[2]]) == []
    assert missed(both, [both[2]]) == [both[0]]
    assert missed(both, []) == [both[0], both[2]]


def test_sources() -> None:
    assert sources("/a", "", ["b.json", "a.json", "README"]) == [
        Source("/a/a.json", "", "a.json"),
        Source("/a/b.json", "", "b.json"),
    ]
    assert is_triton_folder("triton_3_5_0")
    assert not is_triton_folder("triton_3_5_0+git")


SHIPPED = Path(__file__).parents[2] / "files/moe_configs"


@pytest.mark.parametrize(
    ("sglang", "triton", "up", "source"),
    [
        ("0.5.4.post2", "3.5.0", "E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8", "triton_3_5_0"),
        (
            "0.5.10",
            "3.5.1",
            "E=161,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8,per_channel_quant=True",
            "triton_3_5_1",
        ),
        (
            "0.5.23",
            "3.7.1",
            "E=161,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8,per_channel_quant=True",
            "triton_3_7_1",
        ),
        (
            "0.5.23",
            "3.10.2",
            "E=161,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8,per_channel_quant=True",
            "triton_3_9_0",
        ),
    ],
)
def test_the_reference_gets_what_is_shipped(sglang: str, triton: str, up: str, source: str) -> None:
    """GLM-4.7-FP8 over four Sparks, from its config.json to the files and where they are mounted."""
    shape = _moe.moe_shape(GLM)
    assert shape is not None
    found = _moe.lookups(shape, 4, 1, sglang, "NVIDIA GB10")
    question = {
        **asked(directory=_moe.directory_name(sglang, triton, [])),
        "lookups": [{**asdict(lookup), "up": {"path": None}} for lookup in found],
    }
    shipped = [
        item
        for folder in sorted(SHIPPED.glob("triton_*"))
        for item in sources(str(folder), folder.name, [path.name for path in folder.glob("*.json")])
    ]
    choice = choose(question, [], shipped, lambda path: Path(path).read_text(), LIMIT, "NVIDIA GB10")
    assert choice.findings == []
    folder = f"/pkg/configs/triton_{triton.replace('.', '_')}"
    assert [file.target for file in choice.files] == [f"{folder}/{up}.json", f"{folder}/{up}_down.json"]
    assert [file.source for file in choice.files] == [
        str(SHIPPED / source / f"{up}{gemm}.json") for gemm in ("", "_down")
    ]
    assert [file.entries for file in choice.files] == [18, 18]
    assert all(0 < file.largest <= LIMIT for file in choice.files)
