# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What is wrong, where, and how to mend it: the one form that every check reports in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    where: the file, host or group that holds it ("inventory", "spark-2", "models/x.yml").
    variable: the variable or key, with its path inside nested values ("cluster_rails[1].subnet").
    value: the offending value, ready to be shown.
    problem: what is wrong with it. mend: what to do, as an imperative sentence.
    """

    where: str
    variable: str
    value: str
    problem: str
    mend: str


def shown(value: object) -> str:
    """A value as it is shown in a finding: short, quoted where it is text, never a traceback."""
    if value is None:
        return "(not set)"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


_SECRET = re.compile(r"token(?!s|iz)|api.?key|password|secret|credential", re.IGNORECASE)


def _safe(finding: Finding) -> str:
    """The value, unless the variable, or the one that it seems to be meant for, holds a secret."""
    return "(hidden)" if _SECRET.search(f"{finding.variable} {finding.mend}") else finding.value


def report(findings: Sequence[Finding], title: str) -> str:
    """All findings as one text for the terminal, numbered, each with its mend on a line of its own."""
    lines = [title]
    for number, finding in enumerate(findings, 1):
        head = f"{finding.where}: {finding.variable} = {_safe(finding)}"
        lines.append(f"{number:>3}. {head}")
        lines.append(f"     {finding.problem}")
        lines.append(f"     Mend: {finding.mend}")
    return "\n".join(lines)
