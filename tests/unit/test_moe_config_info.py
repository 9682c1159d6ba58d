# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""moe_config_info as a task would run it; a script in Docker's place runs the programs on this machine."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc
from ansible_collections.dgx_spark.sglang.tests.unit.test_moe import DENSE, GLM, GOOD, LARGE

MODULE = "moe_config_info"
UP = "E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
DOWN = "E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8_down.json"
FOLDER = "srt/layers/moe/fused_moe_triton"
VERSIONS = {"sglang_version": "0.5.4.post2", "triton_version": "3.5.0"}
# Takes the mounts for symbolic links, and notes how it was called.
DOCKER = """#!{python}
import csv, json, os, subprocess, sys, time
with open({calls!r}, "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
if sys.argv[1] == "rm":
    sys.exit(0)
options = [word for word in sys.argv[2:] if word.startswith("--")]
image, c, source, question = [word for word in sys.argv[2:] if not word.startswith("--")]
if image == "absent":
    print("docker: Error response from daemon: No such image: absent", file=sys.stderr)
    sys.exit(125)
if image == "slow":
    time.sleep(30)
for option in options:
    if option.startswith("--mount="):
        fields = dict(field.partition("=")[::2] for field in next(csv.reader([option[8:]])))
        os.symlink(fields["source"], fields["target"])
    if option.startswith("--env="):
        key, _, value = option[6:].partition("=")
        os.environ[key] = value
os.environ["PYTHONPATH"] = {site!r}
sys.exit(subprocess.run([sys.executable, "-c", source, question]).returncode)
"""
RESOLVER = """
import json, os, triton
def get_moe_configs(E, N, dtype, block_n, block_k, per_channel_quant, down_moe=False):
    name = f"E={E},N={N},device_name=NVIDIA_GB10,dtype={dtype}" + "_down" * down_moe + ".json"
    path = os.path.join(os.path.dirname(__file__), "configs", "triton_3_5_0", name)
    if os.path.exists(path):
        with open(path) as file:
            return json.load(file)
    return None
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(GLM))
    return folder


@pytest.fixture
def docker(tmp_path: Path) -> dict[str, str]:
    """The environment in which `docker` is the script; site/sglang is its image."""
    site = tmp_path / "site"
    (site / "sglang" / FOLDER / "configs/triton_3_5_0").mkdir(parents=True)
    (site / "sglang" / FOLDER / "fused_moe_triton_config.py").write_text(RESOLVER)
    (site / "sglang/version.py").write_text('__version__ = "0.5.4.post2"')
    (site / "triton.py").write_text('__version__ = "3.5.0"')
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin/docker"
    script.write_text(DOCKER.format(python=sys.executable, calls=str(tmp_path / "calls"), site=str(site)))
    script.chmod(0o755)
    return {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}


def calls(tmp_path: Path) -> list[list[str]]:
    return [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]


def test_told_versions(tmp_path: Path, model: Path) -> None:
    arguments = {"model_dir": str(model), "tp": 4, **VERSIONS, "directories": {"triton_3_4_0": [UP]}}
    result = adhoc.run(tmp_path, MODULE, arguments, check=True).result
    assert not result["failed"]
    assert result["changed"] is False
    assert (result["moe"], result["reason"], result["shape"]["kind"]) == (True, "", "fp8_channel")
    assert (result["root"], result["directory"], result["env_dir"]) == (FOLDER, "triton_3_5_0", None)
    (lookup,) = result["lookups"]
    assert (lookup["file"], lookup["down_file"], lookup["experts"], lookup["n"]) == (UP, DOWN, 160, 384)
    unknown: dict[str, Any] = {"raises": None, "entries": None, "problems": [], "fits": None}
    path = f"{FOLDER}/configs/triton_3_4_0/{UP}"
    assert lookup["up"] == {"path": path, "how": "fallback", **unknown}
    assert lookup["down"] == {"path": path, "how": "up file", **unknown}
    assert lookup["without_file"]["verdict"] == "fails at the first forward of more than 160 tokens"
    large = lookup["without_file"]["large"]
    assert (large["tile"]["block_n"], large["bytes"], large["fits"]) == (256, 147_456, False)
    assert (lookup["resolved"], lookup["raised"], lookup["pair_problems"]) == (None, [], [])


def test_mounts_without_an_image(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "up.json"
    source.write_text(json.dumps({"1": GOOD, "512": LARGE}))
    mounts = [{"source": str(source), "target": f"/x/configs/triton_3_5_0/{UP}"}]
    arguments = {"model_dir": str(model), "tp": 4, **VERSIONS, "mounts": mounts}
    (lookup,) = adhoc.run(tmp_path, MODULE, arguments).result["lookups"]
    assert (lookup["up"]["how"], lookup["up"]["fits"]) == ("exact", False)
    assert [(entry["m"], entry["bytes"], entry["fits"]) for entry in lookup["up"]["entries"]] == [
        (1, 55_296, True),
        (512, 147_456, False),
    ]
    assert lookup["up"]["problems"] == ["M 512: 147,456 bytes of shared memory, over the 101,376 of NVIDIA GB10"]


def test_the_image_is_asked(tmp_path: Path, model: Path, docker: dict[str, str]) -> None:
    root = tmp_path / "site/sglang" / FOLDER
    (tmp_path / "up.json").write_text(json.dumps({"1": GOOD}))
    target = f"{root}/configs/triton_3_5_0/{UP}"
    mounts = [{"source": str(tmp_path / "up.json"), "target": target}]
    arguments = {"model_dir": str(model), "tp": 4, "image": "img"}
    before = adhoc.run(tmp_path, MODULE, arguments, env=docker).result
    assert (before["sglang_version"], before["triton_version"], before["root"]) == ("0.5.4.post2", "3.5.0", str(root))
    assert before["lookups"][0]["up"]["how"] == "default"
    assert before["lookups"][0]["resolved"] is None

    (lookup,) = adhoc.run(tmp_path, MODULE, {**arguments, "mounts": mounts}, env=docker).result["lookups"]
    assert (lookup["up"]["path"], lookup["up"]["fits"], lookup["down"]["how"]) == (target, True, "up file")
    assert all(call[0] == "run" and "--pull=never" in call for call in calls(tmp_path))


def test_the_resolver_answers(tmp_path: Path, model: Path, docker: dict[str, str]) -> None:
    root = tmp_path / "site/sglang" / FOLDER / "configs/triton_3_5_0"
    (root / UP).write_text(json.dumps({"1": GOOD}))
    (root / DOWN).write_text(json.dumps({"1": {**GOOD, "BLOCK_SIZE_M": 32}}))
    arguments = {"model_dir": str(model), "tp": 4, "image": "img", "resolve": True}
    (lookup,) = adhoc.run(tmp_path, MODULE, arguments, env=docker).result["lookups"]
    assert lookup["resolved"] == {"up": str(root / UP), "down": str(root / DOWN)}
    assert lookup["raised"] == []
    assert lookup["pair_problems"][0].startswith("M 1 and more: BLOCK_SIZE_M is 16 for up and 32 for down")
    (root / UP).write_text("{broken")
    (lookup,) = adhoc.run(tmp_path, MODULE, arguments, env=docker).result["lookups"]
    assert lookup["resolved"] == {"up": None, "down": str(root / DOWN)}
    assert lookup["raised"][0].startswith("JSONDecodeError: ")
    assert lookup["up"]["problems"][0].startswith("cannot be read as JSON: ")
    assert (lookup["up"]["entries"], lookup["up"]["fits"], lookup["pair_problems"]) == ([], None, [])
    (root / UP).unlink()
    (lookup,) = adhoc.run(tmp_path, MODULE, arguments, env=docker).result["lookups"]
    assert lookup["pair_problems"][0].startswith("There is a file for down but none for up")


def test_environment_and_given_versions(tmp_path: Path, model: Path, docker: dict[str, str]) -> None:
    arguments = {
        "model_dir": str(model),
        "tp": 4,
        "image": "img",
        "environment": {"SGLANG_MOE_CONFIG_DIR": str(tmp_path)},
        "sglang_version": "0.5.12",
        "triton_version": "3.6.0",
    }
    result = adhoc.run(tmp_path, MODULE, arguments, env=docker).result
    assert (result["env_dir"], result["root"]) == (str(tmp_path), str(tmp_path))
    assert (result["sglang_version"], result["triton_version"]) == ("0.5.12", "3.6.0")
    assert result["lookups"][0]["up"]["raises"] == "FileNotFoundError: there is no folder configs/"


def test_a_container_that_does_not_answer_is_removed(tmp_path: Path, model: Path, docker: dict[str, str]) -> None:
    arguments = {"model_dir": str(model), "tp": 4, "image": "slow", "timeout": 3}
    result = adhoc.run(tmp_path, MODULE, arguments, env=docker).result
    assert result["failed"]
    assert "slow did not answer in 3 s; its container was removed." in result["msg"]
    started, removed = calls(tmp_path)
    name = next(word for word in started if word.startswith("--name="))
    assert removed == ["rm", "--force", name.partition("=")[2]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"image": "absent"}, "does not have the image absent"),
        ({"image": None}, "Give an image, or sglang_version"),
        ({"image": None, **VERSIONS, "resolve": True}, "resolve works with an image only"),
        ({"image": None, **VERSIONS, "tp": 5}, "can't be split into 5"),
        ({"image": None, **VERSIONS, "sglang_version": "main"}, "'main' is not a version of SGLang"),
        ({"timeout": 0}, "timeout must be 1 or more"),
        ({"model_dir": "/nowhere"}, "There is no config.json in /nowhere"),
    ],
)
def test_failures(tmp_path: Path, model: Path, docker: dict[str, str], change: dict[str, Any], said: str) -> None:
    arguments = {"model_dir": str(model), "tp": 4, "image": "img", **change}
    result = adhoc.run(tmp_path, MODULE, arguments, env=docker).result
    assert result["failed"]
    assert said in result["msg"]
    assert "Traceback" not in result["msg"]


def test_no_docker(tmp_path: Path, model: Path) -> None:
    arguments = {"model_dir": str(model), "tp": 4, "image": "img"}
    result = adhoc.run(tmp_path, MODULE, arguments, env={"PATH": str(tmp_path)}).result
    assert "The docker command is not installed. Mend: " in result["msg"]


@pytest.mark.parametrize(
    ("config", "quant", "moe", "reason"),
    [
        (DENSE, None, False, "the model is dense"),
        ({**GLM, "quantization_config": {"quant_method": "mxfp4"}}, None, True, "mxfp4"),
        (
            {key: value for key, value in GLM.items() if key != "quantization_config"},
            {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "NVFP4"}},
            True,
            "modelopt NVFP4",
        ),
    ],
)
def test_models_that_look_for_nothing(
    tmp_path: Path, model: Path, config: dict[str, Any], quant: dict[str, Any] | None, moe: bool, reason: str
) -> None:
    (model / "config.json").write_text(json.dumps(config))
    if quant:
        (model / "hf_quant_config.json").write_text(json.dumps(quant))
    result = adhoc.run(tmp_path, MODULE, {"model_dir": str(model), "tp": 4, "image": "img"}).result
    assert not result["failed"]
    assert (result["moe"], result["lookups"]) == (moe, [])
    assert reason in result["reason"]


@pytest.mark.parametrize("name", ["config.json", "hf_quant_config.json"])
def test_broken_files_of_the_model(tmp_path: Path, model: Path, name: str) -> None:
    (model / "config.json").write_text("{}")
    (model / name).write_text("{broken")
    result = adhoc.run(tmp_path, MODULE, {"model_dir": str(model), "tp": 4, **VERSIONS}).result
    assert result["failed"]
    assert name in result["msg"]
    assert "can't be read" in result["msg"]


def test_everything_that_is_returned_is_documented(tmp_path: Path, model: Path) -> None:
    module = importlib.import_module(f"ansible_collections.dgx_spark.sglang.plugins.modules.{MODULE}")
    documented = yaml.safe_load(module.RETURN)
    result = adhoc.run(tmp_path, MODULE, {"model_dir": str(model), "tp": 4, **VERSIONS}).result
    assert set(documented) == set(result) - {"failed", "changed"}
    assert documented["shape"]["contains"].keys() == result["shape"].keys()
    (lookup,) = result["lookups"]
    contains = documented["lookups"]["contains"]
    assert contains.keys() == lookup.keys()
    assert contains["up"]["contains"].keys() == contains["down"]["contains"].keys() == lookup["up"].keys()
    assert contains["without_file"]["contains"].keys() == lookup["without_file"].keys()
