# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The table of launch_server options holds against the release's own wheel."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._flags import FLAGS, NUMBERS, SGLANG_VERSION
from ansible_collections.dgx_spark.sglang.tests.tools import list_flags

TABLE = Path(__file__).parents[2] / "plugins" / "module_utils" / "_flags.py"


@pytest.fixture(scope="session")
def wheel() -> Path:
    """The release's wheel, downloaded once into a cache beside other temporary files."""
    cache = Path(tempfile.gettempdir()) / "dgx-spark-wheels"
    name = f"sglang-{SGLANG_VERSION}-py3-none-any.whl"
    if not (cache / name).exists():
        with tempfile.TemporaryDirectory() as fresh:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--dest", fresh, f"sglang=={SGLANG_VERSION}"]
            subprocess.run(command, check=True)
            cache.mkdir(exist_ok=True)
            (Path(fresh) / name).rename(cache / name)
    return cache / name


def test_table_equals_the_wheel(wheel: Path) -> None:
    """Every option with its kind, none more, none less."""
    version, flags, numbers = list_flags.read_wheel(wheel)
    assert version == SGLANG_VERSION
    assert dict(FLAGS) == flags
    assert dict(NUMBERS) == numbers


def test_table_is_what_the_tool_writes(wheel: Path) -> None:
    """The file was generated and never edited by hand."""
    assert TABLE.read_text(encoding="utf-8") == list_flags.rendered(*list_flags.read_wheel(wheel))


def test_options_named_by_hand_exist(wheel: Path) -> None:
    """The tool's own list of JSON options names only options of this release."""
    assert list_flags.read_wheel(wheel)[1].keys() >= list_flags.JSON_TEXT


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tp-size", "value"),
        ("tensor-parallel-size", "value"),
        ("disable-cuda-graph", "flag"),
        ("cuda-graph-bs", "list"),
        ("json-model-override-args", "json"),
        ("hybrid-kvcache-ratio", "optional"),
    ],
)
def test_known_options(name: str, kind: str) -> None:
    """One option of each kind, as a person reads it from the server's --help."""
    assert FLAGS[name] == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [("context-length", "int"), ("mem-fraction-static", "float"), ("dtype", None), ("cuda-graph-bs", None)],
)
def test_known_numbers(name: str, kind: str | None) -> None:
    """Numbers, as a person reads them from the server's --help; text and lists are none."""
    assert NUMBERS.get(name) == kind
