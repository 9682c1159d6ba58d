# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The programs that an image is asked with, over a small package in SGLang's shape, and the command that runs them.

tests/kernel runs the same programs over the real releases.
"""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _image, _image_moe
from ansible_collections.dgx_spark.sglang.plugins.module_utils._docker_mount import mount_value

GB10 = "NVIDIA GB10"
NAME = "E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8,block_shape=[128, 128]"
OLD = "srt/layers/moe/fused_moe_triton"
NEW = "srt/layers/moe/moe_runner/triton_utils"
# As little as the resolver of a release: it imports what is not there, and reads one file.
CONFIG_MODULE = """
from __future__ import annotations
import functools, json, logging, os
import torch, triton
from sglang.srt.server_args import get_global_server_args
from sglang.srt.utils import get_device_name, is_hip
logger = logging.getLogger(__name__)
_is_hip = is_hip()

@functools.lru_cache
def get_moe_configs(E, N, dtype, block_n=0, block_k=0, per_channel_quant=False, down_moe=False) -> dict[int, torch.X]:
    if _is_hip or get_global_server_args().enable_deterministic_inference:
        return None
    device = get_device_name().replace(" ", "_")
    name = f"E={E},N={N},device_name={device},dtype={dtype},block_shape=[{block_n}, {block_k}]" + "_down" * down_moe
    folder = os.environ.get("SGLANG_MOE_CONFIG_DIR", os.path.dirname(os.path.realpath(__file__)))
    path = os.path.join(folder, "configs", "triton_" + triton.__version__.replace(".", "_"), name + ".json")
    if os.path.exists(path):
        logger.info(f"Using MoE kernel config from {path}.")
        with open(path) as file:
            return {int(key): value for key, value in json.load(file).items()}
    if E == 7:
        raise ValueError("seven")
    logger.warning("Using default MoE kernel config. at %s", path)
    return None
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site-packages with Triton 3.5.0, SGLang 0.5.4.post2 and configs for two GPUs."""
    package = tmp_path / "site/sglang"
    configs = package / OLD / "configs"
    (configs / "triton_3_5_0").mkdir(parents=True)
    (configs / "triton_3_4_0").mkdir()
    (configs / "notes").mkdir()
    (package / OLD / "fused_moe_triton_config.py").write_text(CONFIG_MODULE)
    (package / "version.py").write_text('__version__ = "0.5.4.post2"\n')
    # Importing the real ones takes long, or needs a GPU.
    (package / "__init__.py").write_text("raise RuntimeError('sglang was imported')")
    (tmp_path / "site/torch.py").write_text("raise RuntimeError('torch was imported')")
    (tmp_path / "site/triton.py").write_text('__version__ = "3.5.0"')
    (configs / "triton_3_5_0" / f"{NAME}.json").write_text('{"8": {"BLOCK_SIZE_M": 16}}')
    (configs / "triton_3_5_0" / f"{NAME.replace('GB10', 'GB100')}.json").write_text("{}")
    (configs / "triton_3_4_0" / f"{NAME}_down.json").write_text("{broken")
    return tmp_path / "site"


def run(site: Path, program: str, question: dict[str, Any], **environment: str) -> dict[str, Any]:
    env = {**os.environ, "PYTHONPATH": str(site), **environment}
    command = [sys.executable, "-c", program, json.dumps(question)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return _image.parse(done.stdout)


def test_probe(site: Path) -> None:
    package = site / "sglang" / OLD
    assert run(site, _image_moe.PROBE, {"device_name": GB10}) == {
        "sglang": "0.5.4.post2",
        "triton": "3.5.0",
        "package": str(package),
        "module": str(package / "fused_moe_triton_config.py"),
        "env_dir": None,
        "directories": {"triton_3_4_0": [f"{NAME}_down.json"], "triton_3_5_0": [f"{NAME}.json"]},
        "files": {
            f"triton_3_4_0/{NAME}_down.json": "cannot be read as JSON: Expecting property name enclosed in "
            "double quotes: line 1 column 2 (char 1)",
            f"triton_3_5_0/{NAME}.json": {"8": {"BLOCK_SIZE_M": 16}},
        },
    }


def test_probe_finds_the_module_where_newer_releases_have_it(site: Path) -> None:
    package = site / "sglang"
    (package / NEW).mkdir(parents=True)
    (package / NEW / "fused_moe_triton_config.py").write_text("")
    assert run(site, _image_moe.PROBE, {"device_name": GB10})["package"] == str(package / NEW)
    for folder in (OLD, NEW):
        (package / folder / "fused_moe_triton_config.py").unlink()
    (package / "srt/layers/new_place").mkdir()
    (package / "srt/layers/new_place/fused_moe_triton_config.py").write_text("")
    found = run(site, _image_moe.PROBE, {"device_name": GB10})
    assert (found["package"], found["directories"]) == (str(package / "srt/layers/new_place"), None)


def test_probe_takes_the_version_of_the_installed_package_first(site: Path) -> None:
    info = site / "sglang-0.5.6.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sglang\nVersion: 0.5.6\n")
    assert run(site, _image_moe.PROBE, {"device_name": GB10})["sglang"] == "0.5.6"


def test_probe_with_a_folder_of_its_own(site: Path, tmp_path: Path) -> None:
    found = run(site, _image_moe.PROBE, {"device_name": GB10}, SGLANG_MOE_CONFIG_DIR=str(tmp_path))
    assert (found["env_dir"], found["directories"], found["files"]) == (str(tmp_path), None, {})


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("sglang", "the image has no SGLang"),
        (f"sglang/{OLD}/fused_moe_triton_config.py", "has no fused_moe_triton_config.py"),
        ("triton.py", "Triton cannot be imported"),
        ("sglang/version.py", "does not tell its version"),
    ],
)
def test_probe_tells_what_is_missing(site: Path, missing: str, said: str) -> None:
    (site / missing).rename(site.parent / "gone")
    with pytest.raises(ValueError, match=said):
        run(site, _image_moe.PROBE, {"device_name": GB10})


def test_resolve(site: Path) -> None:
    asked = [[160, 384, "fp8_w8a8", 128, 128, False], [7, 384, "fp8_w8a8", 128, 128, False]]
    first, second = run(site, _image_moe.RESOLVE, {"device_name": GB10, "lookups": asked})["lookups"]
    path = str(site / "sglang" / OLD / "configs/triton_3_5_0" / f"{NAME}.json")
    assert first["up"] == {
        "path": path,
        "entries": {"8": {"BLOCK_SIZE_M": 16}},
        "log": [f"Using MoE kernel config from {path}."],
        "raises": None,
    }
    assert (first["down"]["path"], first["down"]["entries"], first["down"]["raises"]) == (None, None, None)
    assert first["down"]["log"][0].startswith("Using default MoE kernel config. at ")
    assert second["up"] == {"path": None, "entries": None, "log": [], "raises": "ValueError: seven"}


def test_resolve_names_the_file_that_it_cannot_read(site: Path) -> None:
    path = site / "sglang" / OLD / "configs/triton_3_5_0" / f"{NAME}.json"
    path.write_text("{broken")
    asked = [[160, 384, "fp8_w8a8", 128, 128, False]]
    (found,) = run(site, _image_moe.RESOLVE, {"device_name": GB10, "lookups": asked})["lookups"]
    assert found["up"]["path"] == str(path)
    assert found["up"]["raises"].startswith("JSONDecodeError: ")


def test_resolve_ends_a_build_that_lacks_a_file(site: Path) -> None:
    path = site / "sglang" / OLD / "configs/triton_3_5_0" / f"{NAME}.json"
    asked = {"device_name": GB10, "lookups": [[160, 384, "fp8_w8a8", 128, 128, False]]}

    def end(strict: list[str]) -> tuple[int, str, Any]:
        command = [sys.executable, "-c", _image_moe.RESOLVE, json.dumps({**asked, "strict": strict})]
        env = {**os.environ, "PYTHONPATH": str(site)}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr, _image.parse(done.stdout)["lookups"]

    assert end([]) == end([str(path)]) == (0, "", run(site, _image_moe.RESOLVE, asked)["lookups"])
    down = str(path).replace(".json", "_down.json")
    code, said, _ = end([down, str(path), "/b.json"])
    assert (code, said) == (1, f"SGLang does not find /b.json, {down}\n")
    # A file that is read and is no JSON is not found either.
    path.write_text("{broken")
    assert end([str(path)])[:2] == (1, f"SGLang does not find {path}\n")
    path.rename(path.with_name("gone"))
    assert end([str(path)])[:2] == (1, f"SGLang does not find {path}\n")


# ---- the command ------------------------------------------------------------------------------

PATHS = [
    (f"/srv/rel 1/{NAME}_down.json", f"/pkg/configs/triton_3_5_0+git/{NAME}_down.json"),
    ('/srv/a "quoted" one.json', "/pkg/plain.json"),
]


def go_fields(line: str) -> list[str]:
    """A line as Go's encoding/csv reads it, by which Docker parses --mount: RFC 4180, quotes only around a field."""
    fields, rest = [], line
    while True:
        if rest.startswith('"'):
            end = 1
            while not (rest[end] == '"' and rest[end : end + 2] != '""'):
                end += 2 if rest[end] == '"' else 1
            field, rest = rest[1:end].replace('""', '"'), rest[end + 1 :]
        else:
            field, _, _ = rest.partition(",")
            assert '"' not in field, "a bare quote is an error"
            rest = rest[len(field) :]
        fields.append(field)
        if not rest:
            return fields
        assert rest[0] == ",", "text after a closing quote is an error"
        rest = rest[1:]


@pytest.mark.parametrize(("host", "container"), PATHS)
def test_mount(host: str, container: str) -> None:
    value = mount_value(host, container)
    fields = ["type=bind", f"source={host}", f"target={container}", "readonly"]
    assert go_fields(value) == fields
    assert next(csv.reader([value])) == fields


def test_docker_argv() -> None:
    argv = _image.docker_argv("img:1", "print()", PATHS, ["{}"], "name", {"A": "b c"})
    assert argv[:7] == [
        "docker",
        "run",
        "--rm",
        "--name=name",
        "--pull=never",
        "--network=none",
        "--entrypoint=python3",
    ]
    assert argv[7:10] == ["--env=A=b c", *(f"--mount={mount_value(*paths)}" for paths in PATHS)]
    assert argv[10:] == ["img:1", "-c", "print()", "{}"]


def test_parse() -> None:
    assert _image.parse('a warning\n{"sglang": "0.5.6"}\n\n') == {"sglang": "0.5.6"}
    for output in ("", "no JSON", "[1]"):
        with pytest.raises(ValueError, match="the image gave no answer"):
            _image.parse(output)
    with pytest.raises(ValueError, match="no SGLang here"):
        _image.parse('{"error": "no SGLang here"}')


@pytest.mark.parametrize(
    ("code", "errors", "said"),
    [
        (
            125,
            "docker: Error response from daemon: No such image: x:1\n\nRun 'docker run --help'\n",
            "does not have the image x:1",
        ),
        (125, "Unable to find image 'x:1' locally\ndocker: Error", "does not have the image x:1"),
        (
            125,
            "docker: permission denied\n\nRun 'docker run --help' for more information\n",
            "asked: docker: permission denied. Mend",
        ),
        (127, 'docker: exec: "python3": not found in $PATH', "has no python3"),
        (1, "Traceback\nMemoryError\n", "asked: MemoryError. Mend"),
        (137, "", "asked: it ended with 137. Mend"),
    ],
)
def test_explain(code: int, errors: str, said: str) -> None:
    text = _image.explain(code, errors, "x:1")
    assert said in text
    assert "Mend: " in text
