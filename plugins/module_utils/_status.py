# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The status table: a row a rank, and the failures below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def status_row(plan: Mapping[str, Any], rank: Mapping[str, Any], seen: Mapping[str, Any] | None) -> dict[str, str]:
    """One row. plan, rank: as _plan.Plan.as_dict gives them. seen: what rank_info returned, None if unreachable."""
    row = {"node": str(rank["host"]), "rank": str(rank["rank"])}
    if not seen or seen.get("unreachable"):
        return {**row, "state": "unreachable"}
    if seen.get("failed"):
        return {**row, "state": "error", "failure": str(seen.get("msg"))}
    if not seen["installed"]:
        return {**row, "state": "not installed"}
    # While a rank is started again and again, what counts is why it ended the last time.
    failure = seen.get("failure") or last_end(seen.get("last_end")) or (seen.get("previous") or {}).get("failure")
    return {
        **row,
        "state": str(seen["active_state"]),
        "phase": " ".join(filter(None, (seen["phase"], seen.get("phase_detail")))),
        "since": str(seen["since"]),
        "image": without_registry(str(seen["container"].get("image") or plan["image"])),
        "model": str(seen.get("model_class") or "-"),
        "health": "ok" if seen["health"] == 200 else str(seen["health"] or "no answer"),
        "failure": str(failure) if failure and seen["health"] != 200 else "",
    }


def last_end(last: Mapping[str, Any] | None) -> str:
    """Who failed first when the group ended the last time, as every node has been told."""
    if not last:
        return ""
    was = "was" if last["by_hand"] else "failed first:"
    # To the minute: each node tells by its own clock, and the same end is to be one line.
    return f"rank {last['first_rank']} ({last['host']}) {was} {last['why']} ({last['at'][:16]}Z)"


def failures(rows: Sequence[Mapping[str, str]]) -> str:
    """Why ranks failed, for the lines below the table: equal reasons once, with the nodes that they stand for."""
    nodes: dict[str, list[str]] = {}
    for row in rows:
        if row.get("failure"):
            nodes.setdefault(row["failure"], []).append(row["node"])
    return "\n".join(f"{', '.join(names)}: {failure}" for failure, names in nodes.items())


def without_registry(image: str) -> str:
    """An image's name without the host of its registry, which is the same on every row."""
    host, slash, name = image.partition("/")
    return name if slash and ("." in host or ":" in host or host == "localhost") else image
