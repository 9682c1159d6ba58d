# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Filters that write a rank's unit; the work is done in module_utils/_unit.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_spark.sglang.plugins.module_utils._gates import GateOptions, gates_config
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_choice import missed
from ansible_collections.dgx_spark.sglang.plugins.module_utils._release import release_rows
from ansible_collections.dgx_spark.sglang.plugins.module_utils._secrets import server_file
from ansible_collections.dgx_spark.sglang.plugins.module_utils._status import failures, status_row
from ansible_collections.dgx_spark.sglang.plugins.module_utils._supervision import supervision
from ansible_collections.dgx_spark.sglang.plugins.module_utils._unit import (
    RunOptions,
    group_label,
    run_command,
    systemd_exec,
)


def rank_command(plan: Mapping[str, Any], rank: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """The `docker run` of a rank; options are the fields of RunOptions."""
    return run_command(plan, rank, RunOptions(**options))


def rank_gates(plan: Mapping[str, Any], rank: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a node is asked before its rank starts; options are fields of GateOptions."""
    try:
        return gates_config(plan, rank, GateOptions(**options))
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


def status_rows(plan: Mapping[str, Any], hostvars: Mapping[str, Any]) -> list[dict[str, str]]:
    """A row a rank, from what each host registered as `rank_seen`."""
    return [status_row(plan, rank, hostvars[rank["host"]].get("rank_seen")) for rank in plan["ranks"]]


def of_ranks(plan: Mapping[str, Any], hostvars: Mapping[str, Any], name: str) -> list[Any]:
    """What each rank's host knows by a name, in rank order; hosts that know no such thing are left out."""
    known = (hostvars[rank["host"]] for rank in plan["ranks"])
    return [host[name] for host in known if name in host]


def server_keys_file(api_key: object, admin_api_key: object = "") -> str:
    """The file from which the server takes its keys."""
    return server_file(api_key, admin_api_key)


def group_runs(plan: Mapping[str, Any], hostvars: Mapping[str, Any]) -> bool:
    """Whether a rank runs, or is about to, on any node that has been looked at (`rank_seen`)."""
    running = ("active", "activating", "reloading", "deactivating")
    return any(seen.get("active_state") in running for seen in of_ranks(plan, hostvars, "rank_seen"))


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {
            "moe_configs_missed": missed,
            "of_ranks": of_ranks,
            "rank_command": rank_command,
            "rank_gates": rank_gates,
            "rank_group_runs": group_runs,
            "rank_label": group_label,
            "rank_supervision": supervision,
            "release_rows": release_rows,
            "server_keys_file": server_keys_file,
            "status_failures": failures,
            "status_rows": status_rows,
            "systemd_exec": systemd_exec,
        }
