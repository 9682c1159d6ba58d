# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Waiting for a rank: what to show, and when to give up, decided from successive rank_info results.

Pure: the clock comes in as a number, the polling and the display belong to the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _status

# Seconds between signs of life while the phase stays the same.
HEARTBEAT = 30.0
# A unit that is stopped or failed in this many polls in a row won't come by itself. One such poll
# may be the moment between the stop and the start of a group restart.
POLLS_DOWN = 3


def progress(host: str, rank: int | None, phase: str, detail: str, seconds: float) -> str:
    """One line of progress: "spark-2  rank 2  loading weights, 12 of 48 (31 s)"."""
    who = host if rank is None else f"{host}  rank {rank}"
    what = f"{phase}, {detail}" if detail else phase
    return f"{who}  {what} ({seconds:.0f} s)"


@dataclass
class Wait:
    """The state of one wait.

    timeout: seconds until giving up. max_restarts: give up when the unit was restarted this often
    during the wait. unit: its name, for the mend.
    """

    host: str
    unit: str
    rank: int | None
    timeout: float
    max_restarts: int
    phases: list[dict[str, object]] = field(default_factory=list)
    _restarts: int | None = None
    _said: float = 0.0
    _down: int = 0
    _restarted: bool = False

    def step(self, info: Mapping[str, Any], seconds: float) -> tuple[str | None, str | None]:
        """Take in one rank_info result, seconds after the start of the wait.

        Returns the line to show (None: nothing new) and the reason to give up (None: go on, or
        healthy; see healthy()).
        """
        line = None
        if not self.phases or self.phases[-1]["phase"] != info["phase"]:
            self.phases.append({"phase": info["phase"], "at": round(seconds)})
            line = self._line(info, seconds)
        elif seconds - self._said >= HEARTBEAT:
            line = self._line(info, seconds)
        return line, None if healthy(info) else self._trouble(info, seconds)

    def _line(self, info: Mapping[str, Any], seconds: float) -> str:
        self._said = seconds
        rank = self.rank if self.rank is not None else info["tp_group"]["node_rank"]
        return progress(self.host, rank, info["phase"], info["phase_detail"], seconds)

    def _trouble(self, info: Mapping[str, Any], seconds: float) -> str | None:
        if not info["installed"]:
            return f"there is no unit {self.unit}"
        # systemd counts from zero again after a start by hand.
        if self._restarts is None or info["restarts"] < self._restarts:
            self._restarts = info["restarts"]
        grown = info["restarts"] - self._restarts
        self._restarted = grown > 0
        if grown >= self.max_restarts:
            return f"{self.unit} was restarted {grown} times while it was waited for"
        self._down = self._down + 1 if info["phase"] in ("stopped", "failed") else 0
        if self._down >= POLLS_DOWN:
            return f"{self.unit} is {info['phase']} and nothing starts it"
        if seconds >= self.timeout:
            return f"{self.unit} is not healthy after {seconds:.0f} s; it is {info['phase']}"
        return None

    def message(self, trouble: str, info: Mapping[str, Any]) -> str:
        """The whole error: what, where, why as far as the log says, the last lines, the mend."""
        told = info
        # A start that followed a failed one explains nothing yet: the failed one does.
        if self._restarted and not info["failure"] and info["previous"]:
            told = info["previous"]
        parts = [f"{self.host}: {trouble}."]
        if info["health_error"]:
            parts.append(f"/health: {info['health_error']}.")
        if self._restarted and info["last_end"]:
            parts.append(f"The group ended: {_status.last_end(info['last_end'])}.")
        if told["failure"]:
            parts.append(f"Reason in the log: {told['failure']}")
        if told["last_lines"]:
            parts.append("Last lines:")
            parts.extend(f"  {line}" for line in told["last_lines"])
        parts.append(f"Mend: read `journalctl -u {self.unit}` on {self.host}, mend what it names, start again.")
        return "\n".join(parts)


def healthy(info: Mapping[str, Any]) -> bool:
    """Whether the rank answers /health with 200, and its unit says that the group serves."""
    return bool(info["health"] == 200 and info["active_state"] == "active")
