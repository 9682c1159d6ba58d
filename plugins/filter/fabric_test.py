# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Filters of the role fabric_test; the work is done in module_utils/_fabric_report.py, _verdict.py and _html.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_html, _fabric_report, _fabric_verdict

PAIRS = "fabric_test_pair_answers"
"""What each host registers in the role of fabric_pair, a round an entry."""

SUM = "fabric_test_sum_seen"
"""And of fabric_all_reduce."""

BUSY = ("active", "activating", "deactivating", "reloading", "refreshing")
"""systemd's states of a unit that runs or is about to."""


def fabric_test_busy(plan: Mapping[str, Any], hostvars: Mapping[str, Any]) -> list[str]:
    """The hosts on which a rank serves, starts or stops, from what they registered as `rank_seen`."""
    found = []
    for rank in plan["ranks"]:
        seen = hostvars[rank["host"]].get("rank_seen") or {}
        if seen.get("active_state") in BUSY or (seen.get("container") or {}).get("running"):
            found.append(str(rank["host"]))
    return found


def fabric_test_broken(plan: Mapping[str, Any], hostvars: Mapping[str, Any]) -> bool:
    """Whether a node is missing, or a pair did not pass."""
    return _fabric_report.broken(_of(plan, hostvars, PAIRS))


def fabric_test_out(hostvars: Mapping[str, Any]) -> list[str]:
    """The hosts that went out of reach, or failed, in a round before."""
    return [host for host in hostvars if _fabric_verdict.absence(hostvars[host].get(PAIRS) or [])]


def fabric_test_report(
    plan: Mapping[str, Any], hostvars: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The report, see _fabric_report.report.

    options: made, mtu, skipped, write_warn and write_fail (Gb/s), bus_warn and bus_fail (GB/s, "" if not set).
    """
    at = _fabric_verdict.limits(
        str(plan["device"]),
        (float(options["write_warn"]), float(options["write_fail"])),
        options["bus_warn"],
        options["bus_fail"],
    )
    return _fabric_report.report(plan, _of(plan, hostvars, PAIRS), _of(plan, hostvars, SUM), at, options)


def _of(plan: Mapping[str, Any], hostvars: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {rank["host"]: hostvars[rank["host"]].get(name) for rank in plan["ranks"]}


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {
            "fabric_test_broken": fabric_test_broken,
            "fabric_test_busy": fabric_test_busy,
            "fabric_test_halves": _fabric_report.halves,
            "fabric_test_html": _fabric_html.page,
            "fabric_test_out": fabric_test_out,
            "fabric_test_report": fabric_test_report,
            "fabric_test_sums": _fabric_report.all_reduce_rows,
            "fabric_test_summary": _fabric_report.summary,
            "fabric_test_tables": _fabric_report.tables,
        }
