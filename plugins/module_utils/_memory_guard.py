# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""earlyoom as the guard of a node's memory: its variables, and its arguments. See docs/memory.md for why."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown

GROUP_WIDE = "group sparks"

LARGEST_MIB = 16384
"""An eighth of a Spark's memory: a guard that acts earlier ends engines that serve well."""

COMM_LENGTH = 15
"""Linux keeps so many characters of a process's name (TASK_COMM_LEN is 16 with the closing NUL)."""

# Nothing that a shell, systemd or a regular expression reads otherwise, but for the dot.
_NAME = re.compile(r"[A-Za-z0-9_.:@-]+\*?\Z")


@dataclass(frozen=True)
class Settings:
    """The role's variables, by their names without `memory_guard_`.

    terminate_mib, kill_mib: MemAvailable, in MiB, at or below which a process gets SIGTERM, SIGKILL. report_seconds:
    time between two reports in the journal. prefer, avoid: names of processes; a * at the end stands for any ending.
    """

    terminate_mib: int
    kill_mib: int
    report_seconds: int
    prefer: Sequence[str]
    avoid: Sequence[str]


def check_memory_guard(values: Mapping[str, Any]) -> list[Finding]:
    """What is wrong with the role's variables, beyond their types.

    values: variable -> value, as _inventory.settings gives them; what is not there is not checked.
    """
    findings = []
    for name in ("prefer", "avoid"):
        for index, value in enumerate(values.get(f"memory_guard_{name}") or ()):
            if not _NAME.match(str(value)):
                problem = "Is not the name of a process, or its beginning and a *."
                mend = "Use a name as `ps -e -o comm` shows it, of letters, digits and _.:@-; a * for the rest."
                findings.append(Finding(GROUP_WIDE, f"memory_guard_{name}[{index}]", shown(value), problem, mend))
    if "memory_guard_terminate_mib" not in values or "memory_guard_kill_mib" not in values:
        return findings
    terminate, kill = int(values["memory_guard_terminate_mib"]), int(values["memory_guard_kill_mib"])
    if not 1 <= terminate <= LARGEST_MIB:
        mend = f"Use 1 to {LARGEST_MIB} MiB, such as 4096."
        problem = "Is no amount of memory that can be kept free for the system."
        findings.append(Finding(GROUP_WIDE, "memory_guard_terminate_mib", shown(terminate), problem, mend))
    elif not 1 <= kill <= terminate:
        mend = f"Use 1 to {terminate} MiB, such as {max(1, terminate // 2)}."
        problem = f"Is not below memory_guard_terminate_mib ({terminate}), which comes first."
        findings.append(Finding(GROUP_WIDE, "memory_guard_kill_mib", shown(kill), problem, mend))
    return findings


def settings(values: Mapping[str, Any]) -> Settings:
    """The variables (without `memory_guard_`) as Settings; numbers may be text. ValueError with all that is wrong."""
    findings = check_memory_guard({f"memory_guard_{name}": value for name, value in values.items()})
    if findings:
        raise ValueError("; ".join(f"{one.variable} = {one.value}: {one.problem} {one.mend}" for one in findings))
    typed: dict[str, Any] = {
        name: value if name in ("prefer", "avoid") else int(value) for name, value in values.items()
    }
    return Settings(**typed)


def arguments(wanted: Settings) -> list[str]:
    """The words after `earlyoom`, for version 1.7; from 1.8 on it measures otherwise, see docs/memory.md.

    Swap is left out of it: earlyoom acts only when memory and swap are both below their limits, so both limits of swap
    are all of it. With `-s 100` alone it would not kill before half of the swap is used.
    """
    words = ["-M", f"{wanted.terminate_mib * 1024},{wanted.kill_mib * 1024}", "-s", "100,100"]
    words += ["-r", str(wanted.report_seconds)]
    for option, names in (("--prefer", wanted.prefer), ("--avoid", wanted.avoid)):
        if names:
            words += [option, expression(names)]
    return words


def expression(names: Sequence[str]) -> str:
    """An extended regular expression for names of processes as the kernel keeps them."""
    return f"^({'|'.join(_expression(name) for name in names)})$"


def _expression(name: str) -> str:
    ending = ".*" if name.endswith("*") else ""
    return name.rstrip("*")[:COMM_LENGTH].replace(".", "[.]") + ending
