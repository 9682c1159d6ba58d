# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Runs one plugin of the collection on this machine, with the real Ansible, as a task would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLLECTIONS = Path(__file__).parents[2] / ".collections"


@dataclass(frozen=True)
class Outcome:
    """The task's result without its diff, and what the terminal showed, the diff included."""

    result: dict[str, Any]
    shown: str


def run(
    scratch: Path,
    module: str,
    arguments: dict[str, Any],
    *,
    check: bool = False,
    env: dict[str, str] | None = None,
) -> Outcome:
    """Run dgx_spark.sglang.<module> with arguments on localhost, in diff mode."""
    tree = scratch / "tree"
    command = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-i", "localhost,"]
    command += ["-c", "local", "-m", f"dgx_spark.sglang.{module}"]
    command += ["-a", json.dumps(arguments)] if arguments else []
    command += ["--diff", "-t", str(tree), *(["--check"] if check else [])]
    environment = {
        **os.environ,
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
        "ANSIBLE_LOCAL_TEMP": str(scratch / "local"),
        "ANSIBLE_REMOTE_TEMP": str(scratch / "remote"),
        **(env or {}),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    file = tree / "localhost"
    assert file.exists(), done.stdout + done.stderr
    result = json.loads(file.read_text(encoding="utf-8"))
    # The file leaves this out; the terminal tells it.
    result["failed"] = "| FAILED!" in done.stdout
    return Outcome(result, done.stdout)
