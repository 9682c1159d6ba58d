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

# Name without `rank_` -> least, most, and why not beyond. In seconds, but for the port, the count and the memory.
_BOUNDS: dict[str, tuple[int, int, str]] = {
    "group_port": (1, 65535, "Is not a port."),
    "health_seconds": (2, 3600, "Would take a healthy server for a frozen one, or a frozen one for healthy."),
    # Everybody says how it is once a second: a few of these may be lost.
    "silence_seconds": (5, 3600, "Would take a few lost packets for a lost node, or never find one."),
    "start_seconds": (10, 86400, "Is no time in which a group starts."),
    "later_start_seconds": (10, 86400, "Is no time in which a group starts."),
    "stop_seconds": (1, 3600, "Is no time in which a rank ends."),
    "restart_seconds": (0, 60, "Would keep the group waiting for this node."),
    "backoff_first_seconds": (0, 3600, "Is no pause after a failed start."),
    "backoff_most_seconds": (1, 86400, "Is no pause after a failed start."),
    "failing_after": (1, 1000, "Is no count of failed starts."),
    "memory_floor_gib": (0, 4096, "Is no amount of memory."),
}


def check_rank(values: Mapping[str, Any]) -> list[Finding]:
    """The findings. values: variable -> value, as _inventory.settings gives them; what is not there is not checked."""
    findings = []
    for name, (least, most, problem) in _BOUNDS.items():
        value = values.get(f"rank_{name}")
        if value is not None and not least <= int(value) <= most:
            mend = f"Use a number from {least} to {most}."
            findings.append(Finding(GROUP_WIDE, f"rank_{name}", shown(value), problem, mend))
    first, longest = (values.get(f"rank_backoff_{name}_seconds") for name in ("first", "most"))
    if not findings and first is not None and longest is not None and int(first) > int(longest):
        problem, mend = "Is more than rank_backoff_most_seconds.", f"Use a number from 0 to {longest}."
        findings.append(Finding(GROUP_WIDE, "rank_backoff_first_seconds", shown(first), problem, mend))
    findings += _check_docker_options(values.get("rank_docker_options") or [])
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
