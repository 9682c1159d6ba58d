# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Asking the CUDA driver, held against the lab's stand-in for it, and that against the driver's documentation."""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _cuda

from lab import rootfs, state

CHECKOUT = Path(__file__).parents[2]
GB10 = {
    "index": 0,
    "name": "NVIDIA GB10",
    "compute_capability": "12.1",
    "multiprocessors": 48,
    "shared_memory_per_block": 49152,
    "shared_memory_per_block_optin": 101376,
    "shared_memory_per_multiprocessor": 102400,
}
H100 = {
    "STANDIN_CUDA_NAME": "NVIDIA H100 80GB HBM3",
    "STANDIN_CUDA_ATTRIBUTES": "75=9 76=0 16=132 97=232448 81=233472",
}


def read(library: str, env: dict[str, str]) -> Any:
    """_cuda.read in a process of its own: a library that is initialized stays so."""
    script = (
        "import json, sys; from ansible_collections.dgx_spark.sglang.plugins.module_utils import _cuda; "
        "print(json.dumps(_cuda.read(sys.argv[1])))"
    )
    command = [sys.executable, "-c", script, library]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(CHECKOUT / ".collections"), **env}, stdout=subprocess.PIPE, check=True
    )
    return json.loads(done.stdout)


def test_a_gb10(standin_cuda: Path) -> None:
    facts = read(str(standin_cuda), {})
    assert facts == {"available": True, "problem": None, "mend": None, "cuda_version": "13.0", "devices": [GB10]}


def test_two_others(standin_cuda: Path) -> None:
    """Every device, with its own number; each attribute under its own name."""
    facts = read(str(standin_cuda), {**H100, "STANDIN_CUDA_DEVICES": "2"})
    expected = {
        "name": "NVIDIA H100 80GB HBM3",
        "compute_capability": "9.0",
        "multiprocessors": 132,
        "shared_memory_per_block": 49152,
        "shared_memory_per_block_optin": 232448,
        "shared_memory_per_multiprocessor": 233472,
    }
    assert facts["devices"] == [{"index": 0, **expected}, {"index": 1, **expected}]


TROUBLES: list[tuple[dict[str, str], str, str]] = [
    ({"STANDIN_CUDA_FAIL": "cuInit=100"}, "cuInit answers CUDA_ERROR_NO_DEVICE (100): no CUDA-", "nvidia-smi"),
    ({"STANDIN_CUDA_FAIL": "cuInit=803"}, "cuInit answers CUDA_ERROR_SYSTEM_DRIVER_MISMATCH (803)", "nvidia-smi"),
    ({"STANDIN_CUDA_FAIL": "cuInit=4711"}, "cuInit answers error 4711, which the driver has no name", "nvidia-smi"),
    ({"STANDIN_CUDA_FAIL": "cuDeviceGetCount=999"}, "cuDeviceGetCount answers CUDA_ERROR_UNKNOWN (999)", "dmesg"),
    ({"STANDIN_CUDA_FAIL": "cuDeviceGet=101"}, "cuDeviceGet answers CUDA_ERROR_INVALID_DEVICE (101)", "dmesg"),
    ({"STANDIN_CUDA_FAIL": "cuDeviceGetName=999"}, "cuDeviceGetName answers CUDA_ERROR_UNKNOWN", "dmesg"),
    ({"STANDIN_CUDA_FAIL": "cuDeviceGetAttribute=1"}, "cuDeviceGetAttribute answers CUDA_ERROR_INVALID", "dmesg"),
    ({"STANDIN_CUDA_DEVICES": "0"}, "the CUDA driver knows no device", "CUDA_VISIBLE_DEVICES"),
]


@pytest.mark.parametrize(("env", "problem", "mend"), TROUBLES)
def test_an_error_is_told(standin_cuda: Path, env: dict[str, str], problem: str, mend: str) -> None:
    facts = read(str(standin_cuda), env)
    assert not facts["available"]
    assert facts["devices"] == []
    assert problem in facts["problem"]
    assert mend in facts["mend"]
    assert facts["cuda_version"] == "13.0"


def test_an_unknown_version_is_no_trouble(standin_cuda: Path) -> None:
    facts = read(str(standin_cuda), {"STANDIN_CUDA_FAIL": "cuDriverGetVersion=999"})
    assert facts["available"]
    assert facts["cuda_version"] is None


def test_version_text() -> None:
    """The first is the documentation's own example."""
    assert [_cuda.version_text(number) for number in (9020, 12080, 13000)] == ["9.2", "12.8", "13.0"]


def test_no_library(tmp_path: Path) -> None:
    """Missing, not a library, or one that has none of the functions."""
    absent = _cuda.read(str(tmp_path / "libcuda.so.1"))
    assert "can't be loaded" in absent["problem"]
    assert "Install" in absent["mend"]
    (tmp_path / "libcuda.so.1").write_text("not a library")
    assert "can't be loaded" in _cuda.read(str(tmp_path / "libcuda.so.1"))["problem"]
    old = _cuda.read("libc.so.6")
    assert old["problem"] == "libc.so.6 has no function cuGetErrorName"
    assert "Update" in old["mend"]
    assert not old["available"]


def test_the_standin_is_as_strict_as_the_driver(standin_cuda: Path, tmp_path: Path) -> None:
    """Nothing before cuInit; no device, pointer or attribute that isn't there."""
    # A copy, so that nothing in this process has initialized it.
    cuda = ctypes.CDLL(str(shutil.copy(standin_cuda, tmp_path)))
    number, name, text = ctypes.c_int(-1), ctypes.create_string_buffer(b"?" * 15), ctypes.c_char_p()
    out = ctypes.byref(number)
    assert cuda.cuDriverGetVersion(out) == 0
    assert number.value == 13000
    before = (
        cuda.cuDeviceGetCount(out),
        cuda.cuDeviceGet(out, 0),
        cuda.cuDeviceGetName(name, 16, 0),
        cuda.cuDeviceGetAttribute(out, 97, 0),
    )
    assert before == (3, 3, 3, 3)
    assert cuda.cuInit(1) == 1
    assert cuda.cuDeviceGetCount(out) == 3
    assert cuda.cuInit(0) == 0
    assert (cuda.cuDeviceGetCount(None), cuda.cuDeviceGet(None, 0), cuda.cuDriverGetVersion(None)) == (1, 1, 1)
    assert (cuda.cuDeviceGetName(None, 16, 0), cuda.cuDeviceGetName(name, 0, 0)) == (1, 1)
    assert cuda.cuDeviceGetAttribute(None, 97, 0) == 1
    assert (cuda.cuDeviceGet(out, 1), cuda.cuDeviceGet(out, -1)) == (101, 101)
    assert (cuda.cuDeviceGetName(name, 16, 1), cuda.cuDeviceGetAttribute(out, 97, 1)) == (101, 101)
    assert cuda.cuDeviceGetAttribute(out, 9999, 0) == 1
    assert cuda.cuDeviceGetName(name, 7, 0) == 0
    assert name.raw == b"NVIDIA\0" + b"?" * 8 + b"\0"
    assert cuda.cuGetErrorName(4711, ctypes.byref(text)) == 1
    assert text.value is None
    assert cuda.cuGetErrorName(100, ctypes.byref(text)) == 0
    assert text.value == b"CUDA_ERROR_NO_DEVICE"


def test_the_nodes_of_the_lab_have_it() -> None:
    """Another stand-in makes another image."""
    assert state.SOURCE / "cuda" in rootfs.node().sources
