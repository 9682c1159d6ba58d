# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Filters that write a rank's unit; the work is done in module_utils/_unit.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._status import failures, status_row
from ansible_collections.dgx_spark.sglang.plugins.module_utils._unit import (
    RunOptions,
    group_label,
    run_command,
    systemd_exec,
)


def rank_command(plan: Mapping[str, Any], rank: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """The `docker run` of a rank; options are the fields of RunOptions."""
    return run_command(plan, rank, RunOptions(**options))


def status_rows(plan: Mapping[str, Any], hostvars: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row a rank, from what each host registered as `rank_seen`."""
    return [status_row(plan, rank, hostvars[rank["host"]].get("rank_seen")) for rank in plan["ranks"]]


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {
            "rank_command": rank_command,
            "rank_label": group_label,
            "status_failures": failures,
            "status_rows": status_rows,
            "systemd_exec": systemd_exec,
        }
