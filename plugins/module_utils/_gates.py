# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""gates.json: what a node is asked before its rank starts. roles/rank/files/dgx_spark_gates.py does the asking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

GATES = ("docker", "image", "cdi", "gpu", "rdma", "addresses", "peers", "port", "memory")
"""The gates in their order."""


@dataclass(frozen=True)
class GateOptions:
    """What the node's role says, beyond the plan.

    image_id: the id of the plan's image, "" if a release says it or it does not matter. gpu_devices: CDI names, and
    gpu_probe: the Python that looks for them in a container, both used on cuda only. mtu: of the rails, in bytes.
    drop_caches: whether the page cache goes before memory is counted. floor_bytes: the least of MemAvailable to start
    with, 0 for any. timeouts: gate -> seconds, where not the default.
    """

    image_id: str = ""
    gpu_devices: Sequence[str] = ()
    mtu: int = 9000
    drop_caches: bool = True
    floor_bytes: int = 0
    timeouts: Mapping[str, float] = field(default_factory=dict)
    gpu_probe: str = ""


def check_timeouts(timeouts: Mapping[str, Any]) -> dict[str, float]:
    """Gate -> seconds, as numbers. ValueError names what is no gate, or no time."""
    checked = {}
    for name, value in timeouts.items():
        if name not in GATES:
            raise ValueError(f"There is no gate {name!r}. Mend: Use one of {', '.join(GATES)}.")
        try:
            checked[name] = float(value)
        except (TypeError, ValueError):
            checked[name] = 0.0
        if not 0 < checked[name] < float("inf"):
            raise ValueError(f"The time-out of the gate {name} is {value!r}. Mend: Give a number of seconds above 0.")
    return checked


def gates_config(plan: Mapping[str, Any], rank: Mapping[str, Any], options: GateOptions) -> dict[str, Any]:
    """The content of gates.json for one rank; what there is nothing to ask about is left out.

    plan, rank: as _plan.Plan.as_dict gives them. ValueError for time-outs that are none.
    """
    others = [other for other in plan["ranks"] if other["rank"] != rank["rank"]]
    # A node alone has nobody at the other end of its cables.
    rails = [
        {
            "interface": interface,
            "address": rank["addresses"][number],
            "mtu": int(options.mtu),
            "peers": {other["addresses"][number]: other["host"] for other in others},
        }
        for number, interface in enumerate(rank["interfaces"])
        if others
    ]
    parts = {
        "image_id": options.image_id,
        "gpu_devices": list(options.gpu_devices) if plan["device"] == "cuda" else [],
        "gpu_probe": options.gpu_probe if plan["device"] == "cuda" else "",
        "hcas": list(rank["hcas"]) if others else [],
        "rails": rails,
        "port": int(plan["dist_init"].rpartition(":")[2]) if rank["rank"] == 0 else None,
        "drop_caches": bool(options.drop_caches),
        "floor_bytes": int(options.floor_bytes),
        "timeouts": check_timeouts(options.timeouts),
    }
    return {"image": plan["image"], **{name: value for name, value in parts.items() if value}}
