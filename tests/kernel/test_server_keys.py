# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The file of keys in real releases of SGLang: it becomes the options, and the image's answer about them is true."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _secrets

from kernel_configs import wheels

KEY, ADMIN = "0123456789abcdef.~+/-_==", "2026"
WITHOUT_ADMIN = ("0.5.4", "0.5.4.post2", "0.5.5", "0.5.6")
WITH_ADMIN = ("0.5.8", "0.5.14", "0.5.23")


def merged(version: str, file: Path) -> list[str]:
    """What a release makes of `--config FILE --port 1`, by its own class."""
    srt = wheels.sglang(version) / "sglang/srt"
    name = "server_args_config_parser.py"
    path = next(path for path in (srt / name, srt / "utils" / name) if path.exists())
    spec = importlib.util.spec_from_file_location("config_parser", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parser = argparse.ArgumentParser()
    for option in _secrets.KEYS.values():
        parser.add_argument(f"--{option}")
    known: dict[str, Any] = {"parser": parser, "boolean_actions": []}
    taken = inspect.signature(module.ConfigArgumentMerger).parameters
    merger = module.ConfigArgumentMerger(**{key: value for key, value in known.items() if key in taken})
    return list(merger.merge_config_with_args(["--config", str(file), "--port", "1"]))


@pytest.mark.parametrize("version", WITHOUT_ADMIN + WITH_ADMIN)
def test_the_server_reads_the_file(version: str, tmp_path: Path) -> None:
    file = tmp_path / Path(_secrets.IN_CONTAINER).name
    file.write_text(_secrets.server_file(KEY, ADMIN))
    assert merged(version, file) == ["--api-key", KEY, "--admin-api-key", ADMIN, "--port", "1"]


@pytest.mark.parametrize("version", WITHOUT_ADMIN + WITH_ADMIN)
def test_the_image_tells_which_keys_its_server_takes(version: str) -> None:
    asked = list(_secrets.KEYS.values())
    command = [sys.executable, "-c", _secrets.PROBE, json.dumps(asked)]
    environment = {**os.environ, "PYTHONPATH": str(wheels.sglang(version)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    answer = {**json.loads(done.stdout), "sglang": version}  # of a wheel only the sources are unpacked
    assert answer["file"] is True
    assert answer["options"] == (asked if version in WITH_ADMIN else ["api-key"])
    assert _secrets.unknown_options(answer, ["api-key"]) is None
    refused = _secrets.unknown_options(answer, asked)
    assert (refused is None) == (version in WITH_ADMIN)
    if refused:
        assert f"SGLang {version} has no --admin-api-key" in refused
        assert "leave cluster_admin_api_key out" in refused
