# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""From what to what each number may go: of the roles' variables, and of the keys of a model profile.

Argument specs have no word for it. A name has bounds of its own, or those that go with its ending; a test finds
numbers that have neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

DAY = 86400  # seconds

CONFIRM_SECONDS = (15, 3600)
"""How long, at least and at most, a node may wait for a guarded change to be confirmed."""


@dataclass(frozen=True)
class Bounds:
    """The least and the most that a number may be, and what is wrong with one below and above."""

    least: float
    most: float
    below: str
    above: str

    def __str__(self) -> str:
        return f"{self.least} to {self.most}"


def _bounds(least: float, most: float, below: str, above: str = "") -> Bounds:
    return Bounds(least, most, below, above or below)


_PORT = "Is not a usable port."
_NO_TIME = "Is no time that anything could be done in."
_BANDWIDTH = "Is no bandwidth that a rail could have."
_START = "Is no time in which a group starts."

# Variable or key of a model -> bounds.
_OWN: Mapping[str, Bounds] = MappingProxyType(
    {
        "ansible_port": _bounds(1, 65535, "Is not a port."),
        "cluster_tensor_parallel": _bounds(1, 1024, "Is no number of ranks."),
        # RoCE packs 4096 bytes into packets of the largest MTU below; 9978 is what mlx5 tells as maxmtu.
        "fabric_mtu": _bounds(
            1500, 9978, "Is less than Ethernet has without being told.", "Is more than a ConnectX-7 takes."
        ),
        # 200 Gb/s is what both twins of a cage have together; the guests of the tests write some hundredths.
        "fabric_test_write_bandwidth_warn": _bounds(0, 200, _BANDWIDTH),
        "fabric_test_write_bandwidth_fail": _bounds(0, 200, _BANDWIDTH),
        "fabric_test_bus_bandwidth_warn": _bounds(0, 100, _BANDWIDTH),
        "fabric_test_bus_bandwidth_fail": _bounds(0, 100, _BANDWIDTH),
        "fabric_test_ping_count": _bounds(1, 1000, "Is no count of packets."),
        # perftest's own limits, 5 to 100,000,000 writes of up to 8 MiB (perftest_parameters.h).
        "fabric_test_write_size": _bounds(1, 8388608, "Is more than ib_write_bw takes, or nothing."),
        "fabric_test_write_iterations": _bounds(5, 100000000, "Is no number of writes that ib_write_bw takes."),
        "fabric_test_all_reduce_sizes": _bounds(
            4, 1073741824, "Is no sum.", "May take more memory than a node has left."
        ),
        "fabric_test_all_reduce_warm_up": _bounds(0, 1000, "Is no number of sums."),
        "fabric_test_all_reduce_iterations": _bounds(1, 10000, "Is no number of sums."),
        "rank_group_port": _bounds(1, 65535, "Is not a port."),
        "rank_health_seconds": _bounds(
            2, 3600, "Would take a healthy server for a frozen one.", "Would take a frozen server for a healthy one."
        ),
        # Everybody says how it is once a second: a few of these may be lost.
        "rank_silence_seconds": _bounds(5, 3600, "Would take a few lost packets for a lost node.", "Would find none."),
        "rank_start_seconds": _bounds(10, DAY, _START),
        "rank_later_start_seconds": _bounds(10, DAY, _START),
        "rank_stop_seconds": _bounds(1, 3600, "Is no time in which a rank ends."),
        "rank_restart_seconds": _bounds(0, 60, "Would keep the group waiting for this node."),
        "rank_backoff_first_seconds": _bounds(0, 3600, "Is no pause after a failed start."),
        "rank_backoff_most_seconds": _bounds(1, DAY, "Is no pause after a failed start."),
        "rank_failing_after": _bounds(1, 1000, "Is no count of failed starts."),
        "release_keep": _bounds(2, 1000, "Leaves none to go back to.", "Is no number of releases that fit on a node."),
        # Keys of a model profile.
        "tensor_parallel": _bounds(1, 1024, "Is no number of ranks."),
        "dist_timeout": _bounds(1, DAY, _NO_TIME),
        "shape.num_attention_heads": _bounds(1, 4096, "Is no number of heads."),
        "shape.num_key_value_heads": _bounds(1, 4096, "Is no number of heads."),
        "shape.num_experts": _bounds(1, 65536, "Is no number of experts."),
        "shape.moe_intermediate_size": _bounds(1, 1048576, "Is no size of an expert."),
    }
)

_BY_ENDING: Mapping[str, Bounds] = MappingProxyType(
    {
        # Below 1024 are those of the system.
        "_port": _bounds(1024, 65535, _PORT),
        "_confirm_seconds": _bounds(
            *CONFIRM_SECONDS,
            "Is less than it takes to apply a change and to connect anew: none could ever be confirmed.",
            "Is longer than anyone should be locked out by a change that is wrong.",
        ),
        "_seconds": _bounds(1, DAY, _NO_TIME),
        "_attempts": _bounds(1, 1000, "Is no number of attempts."),
        "_gib": _bounds(0, 4096, "Is no amount of memory or disk."),
    }
)

ELSEWHERE = frozenset(
    {
        "cluster_rank",  # by the number of hosts
        "cluster_first_host_number",  # by the subnets of the rails
        "memory_guard_terminate_mib",  # by each other
        "memory_guard_kill_mib",
        "container_runtime_log_max_files",  # by check_container_runtime
        "firewall_ssh_ports",  # below 1024 too
        "firewall_open_tcp_ports",
        "firewall_open_udp_ports",
    }
)
"""Numbers whose range another check knows."""


def bounds_of(variable: str) -> Bounds | None:
    """The bounds of a number by its name; an element of a list has those of the list. None for one without."""
    name = re.sub(r"\[\d+\]", "", variable)
    if name in _OWN or name in ELSEWHERE:
        return _OWN.get(name)
    # The longest ending first: that of a guarded change is a time, too.
    return next((_BY_ENDING[end] for end in sorted(_BY_ENDING, key=len, reverse=True) if name.endswith(end)), None)


def outside(variable: str, kind: str, value: object) -> tuple[str, str] | None:
    """The problem and the mend of a number that lies outside of its bounds, else None."""
    bounds = bounds_of(variable) if kind in ("int", "float") else None
    number = float(str(value)) if bounds else 0.0
    if bounds is None or bounds.least <= number <= bounds.most:
        return None
    problem = bounds.below if number < bounds.least else bounds.above
    return problem, f"Use a number from {bounds}."
