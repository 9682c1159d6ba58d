# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Filters of the role preflight; the work is done in module_utils/_preflight_*.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_html, _preflight_report
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_check import READY, Cluster
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_node import Node
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_parse import GIB
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_runtime import hosts_of

SEEN = "preflight_seen"
"""What each host registers of preflight_facts."""


def preflight_questions(
    plan: Mapping[str, Any], rank: Mapping[str, Any], settings: Mapping[str, Any], stage: str
) -> dict[str, Any]:
    """The arguments of preflight_facts for one node.

    settings: see _cluster. stage: on bare nodes nobody is pinged: addresses and MTU are not set up yet.
    """
    cluster = _cluster(plan, settings)
    api, meet = int(plan["api_port"]), int(str(plan["dist_init"]).rpartition(":")[2])
    return {
        "image": plan["image"],
        "model": plan["paths"]["model"],
        "interfaces": list(rank["interfaces"]) if cluster.rails else [],
        "addresses": list(rank["addresses"]) if cluster.rails else [],
        "mtu": cluster.mtu,
        "peers": _peers(plan, rank) if cluster.rails and stage == READY else [],
        "tcp": [api, meet] if rank["rank"] == 0 else [api],
        "udp": [cluster.group_port],
        "names": hosts_of(cluster) if rank["rank"] == 0 else [],
        "cuda": cluster.cuda,
    }


def _peers(plan: Mapping[str, Any], rank: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"interface": interface, "address": address, "host": other["host"]}
        for other in plan["ranks"]
        if other["rank"] != rank["rank"]
        for interface, address in zip(rank["interfaces"], other["addresses"])
    ]


def preflight_report(
    plan: Mapping[str, Any], hostvars: Mapping[str, Any], settings: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, Any]:
    """The report, see _preflight_report.report; `hosts` of about are those of the play."""
    ranks = [rank for rank in plan["ranks"] if rank["host"] in about["hosts"]]
    nodes = [_node(rank, hostvars[rank["host"]].get(SEEN)) for rank in ranks]
    return _preflight_report.report(_cluster(plan, settings), nodes, about)


def _node(rank: Mapping[str, Any], seen: Mapping[str, Any] | None) -> Node:
    """A node from what it registered, whether it was out of reach, failed or answered."""
    told = seen or {}
    if "gathered" in told:
        return Node(rank, told["gathered"], window=(float(told["window"][0]), float(told["window"][1])))
    words = str(told.get("msg") or told.get("module_stderr") or "it was not asked, or out of reach before")
    return Node(rank, None, problem=" ".join(words.split())[:300])


def _cluster(plan: Mapping[str, Any], settings: Mapping[str, Any]) -> Cluster:
    """settings: mtu, floor_gib, image_gib, gpu_devices, migrate_netplan, guard, firewall, group_port, hub (Cluster)."""
    return Cluster(
        plan,
        mtu=int(settings["mtu"]),
        floor_bytes=int(settings["floor_gib"]) * GIB,
        image_bytes=int(settings["image_gib"]) * GIB,
        gpu_devices=list(settings["gpu_devices"]),
        migrate_netplan=bool(settings["migrate_netplan"]),
        guard=bool(settings["guard"]),
        firewall=bool(settings["firewall"]),
        group_port=int(settings["group_port"]),
        hub=str(settings["hub"]),
    )


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {
            "preflight_html": _preflight_html.page,
            "preflight_questions": preflight_questions,
            "preflight_report": preflight_report,
            "preflight_rows": _preflight_report.finding_rows,
            "preflight_summary": _preflight_report.summary,
            "preflight_unjudged": _preflight_report.unjudged_rows,
        }
