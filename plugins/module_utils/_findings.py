# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What is wrong, where, and how to mend it: the one form that every check reports in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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


HIDDEN = "***"
"""What stands in the place of a secret."""

_SECRET = re.compile(r"token(?!s|iz)|api.?key|password|secret|credential", re.IGNORECASE)
_IN_A_URL = re.compile(r"(?<=//)[^/@\s'\"]+(?=@)")


def _is_secret(name: str) -> bool:
    """Whether what goes by this name is likely a secret: that of a variable, a key, an option."""
    return bool(_SECRET.search(name))


def shown(value: object) -> str:
    """A value as it is shown in a finding: short, quoted where it is text, without secrets, never a traceback."""
    if value is None:
        return "(not set)"
    text = _IN_A_URL.sub(HIDDEN, repr(_masked(value)))
    return text if len(text) <= 80 else text[:77] + "..."


def _masked(value: object) -> object:
    """Data without what its keys, or the words before a `=`, say is a secret."""
    if isinstance(value, Mapping):
        return {key: HIDDEN if _is_secret(str(key)) else _masked(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_masked(item) for item in value]
    if isinstance(value, str) and "=" in value:
        name, _, _ = value.partition("=")
        return f"{name}={HIDDEN}" if _is_secret(name) else value
    return value


def _safe(finding: Finding) -> str:
    """The value, unless the variable, or the one that it seems to be meant for, holds a secret."""
    meant = re.match(r"Did you mean `([^`]*)`", finding.mend)
    return HIDDEN if _is_secret(f"{finding.variable} {meant[1] if meant else ''}") else finding.value


def report(findings: Sequence[Finding], title: str) -> str:
    """All findings as one text for the terminal, numbered, each with its mend on a line of its own."""
    lines = [title]
    for number, finding in enumerate(findings, 1):
        head = f"{finding.where}: {finding.variable} = {_safe(finding)}"
        lines.append(f"{number:>3}. {head}")
        lines.append(f"     {finding.problem}")
        lines.append(f"     Mend: {finding.mend}")
    return "\n".join(lines)
