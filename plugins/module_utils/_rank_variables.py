# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What is wrong with the variables of the role rank, beyond their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._gates import check_timeouts
from ansible_collections.dgx_spark.sglang.plugins.module_utils._secrets import looks_secret

GROUP_WIDE = "group sparks"


def check_rank(values: Mapping[str, Any]) -> list[Finding]:
    """The findings. values: variable -> value, as _inventory.settings gives them; what is not there is not checked."""
    findings = _check_docker_options(values.get("rank_docker_options") or [])
    try:
        check_timeouts(values.get("rank_gate_seconds") or {})
    except ValueError as error:
        problem, _, mend = str(error).partition(" Mend: ")
        findings.append(Finding(GROUP_WIDE, "rank_gate_seconds", shown(values["rank_gate_seconds"]), problem, mend))
    return findings


def _check_docker_options(options: Sequence[str]) -> list[Finding]:
    """Options of `docker run` that would take away what the container is confined by, or show a secret."""
    findings = []
    for index, option in enumerate(options):
        variable = f"rank_docker_options[{index}]"
        name, _, value = str(option).partition("=")
        # An option may take its value from the next word.
        given = value or (str(options[index + 1]) if index + 1 < len(options) else "")
        if name == "--privileged" and value != "false":
            problem = "Would give the server every device and every capability of the node."
            mend = "Remove it; give the one that is missing, such as --cap-add=SYS_PTRACE or --device=/dev/..."
            findings.append(Finding(GROUP_WIDE, variable, shown(option), problem, mend))
        elif name in ("--env", "-e") and looks_secret(given.partition("=")[0]) and "=" in given:
            problem = "Would stand in the unit, in `ps` and in `docker inspect`."
            mend = "Remove it; mount a file that only root may read."
            findings.append(Finding(GROUP_WIDE, variable, f"{name} {given.partition('=')[0]}=...", problem, mend))
    return findings
