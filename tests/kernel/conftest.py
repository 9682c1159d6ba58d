"""What the tests of the compile layer share: the two Tritons that they run by default, and a compiler made of paper."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel_configs import compiler, wheels

USUAL = ("3.5.0", "3.6.0")
EVERY = bool(os.environ.get("DGX_SPARK_ALL_TRITON"))

# The default tile for many tokens when its loads are not pipelined: from Triton 3.8 on, which multiplies FP8 as it is,
# both operands lie in shared memory together.
NOT_PIPELINED = dict.fromkeys(wheels.TRITON, 32_768) | {"3.8.0": 49_152, "3.9.0": 49_152}

Paper = Callable[[str], Path]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `triton` runs for the usual ones, or for all with DGX_SPARK_ALL_TRITON=1."""
    if "triton" in metafunc.fixturenames:
        metafunc.parametrize("triton", wheels.TRITON if EVERY else USUAL)


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paper:
    """Replaces the worker by a script: the text is what it does with each `line`; returns where it may write a log.

    Earlier results are not seen, later ones not kept.
    """
    monkeypatch.setattr(wheels, "triton", lambda version: tmp_path)
    monkeypatch.setattr(compiler, "_store", lambda *what: tmp_path / "results" / "store.json")

    def write(text: str) -> Path:
        log = tmp_path / "log"
        indented = "".join(f"    {line}\n" for line in text.splitlines())
        script = (
            "import json, os, sys, time\n"
            f"log = open({str(log)!r}, 'a', buffering=1)\n"
            "def say(**what): print(json.dumps(what), flush=True)\n"
            "say(triton='3.5.0')\n"
            "for line in sys.stdin:\n"
            "    launch = json.loads(line)\n"
            "    tile = {name: detail for name, kind, detail in launch['arguments'] if name.startswith('BLOCK')}\n"
        )
        path = tmp_path / "paper.py"
        path.write_text(script + indented)
        monkeypatch.setattr(compiler, "WORKER", path)
        return log

    return write
