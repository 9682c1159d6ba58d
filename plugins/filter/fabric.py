# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Filters of the role fabric; the work is done in module_utils/_fabric_netplan.py and _fabric_check.py."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._fabric_check import (
    check_rails,
    config_differs,
    settings_differ,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._fabric_netplan import (
    OWN_FILE,
    limits,
    obstacles,
    render,
    sysctls,
)

SYSCTL_FILE = "/etc/sysctl.d/40-dgx-spark-fabric.conf"
LIMITS_FILE = "/etc/security/limits.d/40-dgx-spark-fabric.conf"


def fabric_files(
    plan: Mapping[str, Any], rank: Mapping[str, Any], seen: Mapping[str, Any], options: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """The files of a node as guarded_change takes them.

    seen: the node's answer to fabric_netplan_info. options: the role's variables without their prefix (mtu, memlock;
    renderer, "" for the node's own; migrate_netplan, whether definitions of the rails in other files are taken out).
    """
    pairs = zip(plan["rails"], rank["addresses"])
    addresses = {
        rail["interface"]: f"{address}/{ipaddress.IPv4Network(rail['subnet']).prefixlen}" for rail, address in pairs
    }
    text = render(addresses, int(options["mtu"]), options["renderer"])
    files = [
        {"path": OWN_FILE, "content": text, "mode": "0600"},
        {"path": SYSCTL_FILE, "content": sysctls(list(addresses)), "mode": "0644"},
        {"path": LIMITS_FILE, "content": limits(str(options["memlock"])), "mode": "0644"},
    ]
    for file in seen["migrated"] if options["migrate_netplan"] else []:
        gone = file["content"] is None
        files.append({**file, "content": file["content"] or "", "state": "absent" if gone else "present"})
    return files


def fabric_obstacles(seen: Mapping[str, Any], plan: Mapping[str, Any], migrate: bool) -> list[dict[str, str]]:
    """What must be mended before the rails can be configured, see _fabric_netplan.obstacles."""
    rails = [rail["interface"] for rail in plan["rails"]]
    return obstacles(seen["conflicts"], seen["management"], rails, migrate=migrate)


def fabric_findings(
    seen: Mapping[str, Any], plan: Mapping[str, Any], rank: Mapping[str, Any], mtu: int
) -> list[dict[str, str]]:
    """What is wrong with the rails of a node; seen is its answer to rdma_info."""
    return check_rails(rank, plan["rails"], seen, int(mtu), rdma=bool(plan["rdma"]))


def fabric_rows(plan: Mapping[str, Any], hostvars: Mapping[str, Any], mtu: int) -> list[dict[str, str]]:
    """What is wrong with the rails of all nodes, from what each host registered as `fabric_rails_seen`."""
    seen = [(hostvars[rank["host"]].get("fabric_rails_seen") or {}, rank) for rank in plan["ranks"]]
    return [row for answer, rank in seen if "devices" in answer for row in fabric_findings(answer, plan, rank, mtu)]


def fabric_failures(findings: Sequence[Mapping[str, str]]) -> list[Mapping[str, str]]:
    """The findings with which the group can't serve as planned."""
    return [finding for finding in findings if finding["severity"] == "fail"]


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {
            "fabric_differs": config_differs,
            "fabric_failures": fabric_failures,
            "fabric_files": fabric_files,
            "fabric_findings": fabric_findings,
            "fabric_obstacles": fabric_obstacles,
            "fabric_rows": fabric_rows,
            "fabric_settings_differ": settings_differ,
        }
