# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What the supervisor of a rank is told: who is in the group, where they meet, and how long it waits for what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._rank import CONTAINER
from ansible_collections.dgx_spark.sglang.plugins.module_utils._secrets import IN_CONTAINER
from ansible_collections.dgx_spark.sglang.plugins.module_utils._unit import plan_digest

_TIMES = (
    "health_seconds",
    "silence_seconds",
    "first_start_seconds",
    "start_seconds",
    "stop_seconds",
    "backoff_first_seconds",
    "backoff_most_seconds",
    "failing_after",
)


def supervision(plan: Mapping[str, Any], rank: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The supervisor's configuration, for its JSON file.

    plan, rank: as _plan.Plan.as_dict gives them. options: the role's variables by the supervisor's own names (times in
    seconds), and port (UDP), key_file, keys_file, state_dir, model_digest, gpu_probe (Python). The keys of the API, by
    their file, are told where the server has them: to ask it for a token, and to keep them out of the journal.
    """
    group = plan_digest(plan, options["model_digest"])
    first = int(rank["rank"]) == 0
    return {
        "group": group,
        "rank": int(rank["rank"]),
        "members": [
            {"rank": one["rank"], "host": one["host"], "address": (one["addresses"] or [""])[0]}
            for one in plan["ranks"]
        ],
        "port": int(options["port"]),
        "key_file": options["key_file"],
        "container": CONTAINER,
        "health_url": rank["health_url"],
        "generate_url": rank["health_url"].removesuffix("/health") + "/generate" if first else None,
        "dist_init": None if first else plan["dist_init"],
        "started_marker": f"{plan['paths']['cache']}/started-{group}",
        "gpu_probe": options["gpu_probe"] if plan["device"] == "cuda" else None,
        "state_dir": options["state_dir"],
        **({"keys_file": options["keys_file"]} if IN_CONTAINER in rank["server_args"] else {}),
        **{name: int(options[name]) for name in _TIMES},
    }
