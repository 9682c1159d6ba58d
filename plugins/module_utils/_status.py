# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The rows of the status table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SHOWN = 100
"""Characters of a failure that a row has room for; `journalctl -u sglang-rank` has all of it."""


def status_row(plan: Mapping[str, Any], rank: Mapping[str, Any], seen: Mapping[str, Any] | None) -> dict[str, str]:
    """One row. plan, rank: as _plan.Plan.as_dict gives them. seen: what rank_info returned, None if unreachable."""
    row = {"node": str(rank["host"]), "rank": str(rank["rank"])}
    if not seen or seen.get("unreachable"):
        return {**row, "state": "unreachable"}
    if seen.get("failed"):
        return {**row, "state": "error", "phase": str(seen.get("msg"))}
    if not seen["installed"]:
        return {**row, "state": "not installed"}
    phase = " ".join(filter(None, (seen["phase"], seen.get("phase_detail"))))
    # While a rank is started again and again, what counts is why it ended the last time.
    failure = seen.get("failure") or (seen.get("previous") or {}).get("failure")
    return {
        **row,
        "state": str(seen["active_state"]),
        "phase": f"{phase}: {failure[:SHOWN]}" if failure and seen["health"] != 200 else phase,
        "since": str(seen["since"]),
        "image": without_registry(str(seen["container"].get("image") or plan["image"])),
        "model": str(seen.get("model_class") or "-"),
        "health": "ok" if seen["health"] == 200 else str(seen["health"] or "no answer"),
    }


def without_registry(image: str) -> str:
    """An image's name without the host of its registry, which is the same on every row."""
    host, slash, name = image.partition("/")
    return name if slash and ("." in host or ":" in host) else image
