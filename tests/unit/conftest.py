# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What several unit tests need."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes is the machine's business. The same ones each time, so that chance fails no run;
# HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

BUILD = Path(__file__).parents[2] / "lab/cuda/build.sh"


@pytest.fixture(scope="session")
def standin_cuda(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lab's libcuda.so.1, in a folder of its own."""
    folder = tmp_path_factory.mktemp("cuda")
    subprocess.run(["sh", str(BUILD), str(folder)], check=True)
    return folder / "libcuda.so.1"
