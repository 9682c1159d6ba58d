# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""All checks of preflight, in the order in which they are shown, and what is wrong with a choice of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import (
    _preflight_fabric,
    _preflight_gpu,
    _preflight_host,
    _preflight_runtime,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._nearest import nearest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_check import Check

CHECKS: tuple[Check, ...] = tuple(
    check
    for module in (_preflight_host, _preflight_gpu, _preflight_fabric, _preflight_runtime)
    for check in module.CHECKS.found
)
"""The one list: what is judged, what can be skipped, and what docs/checks.md tells."""

AREAS = {
    "HOST": "The machine",
    "MEM": "Memory",
    "GPU": "GPU",
    "FABRIC": "Fabric",
    "DOCKER": "Docker",
    "IMAGE": "Image",
    "MODEL": "Model",
    "NET": "Ports, firewall and names",
}
"""What the first word of an id stands for."""


def area_of(check: Check) -> str:
    """The first word of its id."""
    return check.id.partition(".")[0]


def check_preflight(values: Mapping[str, Any]) -> list[Finding]:
    """What is wrong with preflight_skip: ids that are none, and reasons that say nothing."""
    known = [check.id for check in CHECKS]
    findings = []
    for name, reason in (values.get("preflight_skip") or {}).items():
        where = ("group sparks", f"preflight_skip.{name}", shown(reason))
        if name not in known:
            near = nearest(str(name), known)
            mend = f"Did you mean `{near}`?" if near else "Use an id of docs/checks.md."
            findings.append(Finding(*where, "There is no such check.", mend))
        elif not isinstance(reason, str) or not reason.strip():
            mend = "Say in a few words why; each run prints it."
            findings.append(Finding(*where, "Skips a check without a reason.", mend))
    return findings
