# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What the variables say together, across roles: values that are right one by one, and can't all hold."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._hosts import (
    GROUP_WIDE,
    Host,
    effective_ports,
    on_hosts,
    source,
)

Values = Mapping[str, Any]

ULIMITS = (
    *("core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue"),
    *("nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
)
"""The limits that Docker's --ulimit knows (github.com/docker/go-units, ulimit.go)."""

PORTS_OF_A_PAIR = 8
"""So many TCP ports a rail are used by the test of one pair, from fabric_test_port up."""

# Lesser, greater, and why not the other way round. A greater one that is not set is not held against anything.
_IN_ORDER = (
    (
        "fabric_test_write_bandwidth_fail",
        "fabric_test_write_bandwidth_warn",
        "a pair would fail before it is warned of",
    ),
    ("fabric_test_bus_bandwidth_fail", "fabric_test_bus_bandwidth_warn", "the sum would fail before it is warned of"),
    ("rank_backoff_first_seconds", "rank_backoff_most_seconds", "the first pause is the shortest"),
    ("rank_later_start_seconds", "rank_start_seconds", "the first start compiles all kernels, and takes longest"),
    ("rank_health_seconds", "rank_later_start_seconds", "a start would be over before a frozen one is known"),
    ("rank_silence_seconds", "rank_later_start_seconds", "a start would be over before a lost node is known"),
)


def check_order(hosts: Sequence[Host], values: Values) -> list[Finding]:
    """Pairs of which one must not be more than the other."""
    findings = []
    for lesser, greater, why in _IN_ORDER:
        low, high = values.get(lesser), values.get(greater)
        if low is not None and high is not None and low > high:
            problem = f"Is more than {greater} ({high}): {why}."
            findings.append(
                Finding(GROUP_WIDE, lesser, shown(low), problem, f"Use {high} at most, or raise {greater}.")
            )
    return findings


def check_memory(hosts: Sequence[Host], values: Values) -> list[Finding]:
    """A rank that may start has to have more than the guard leaves it."""
    floor, terminate = values["rank_memory_floor_gib"], values["memory_guard_terminate_mib"]
    if not floor or not values["memory_guard_enabled"] or floor * 1024 > int(terminate):
        return []
    problem = f"Is not above memory_guard_terminate_mib ({terminate}): the guard would end the rank as it starts."
    mend = "Give what the model needs, such as 96; or 0 to ask for none."
    return [Finding(GROUP_WIDE, "rank_memory_floor_gib", shown(floor), problem, mend)]


def check_api_host(hosts: Sequence[Host], values: Values) -> list[Finding]:
    """The API listens on an IPv4 address of a host."""
    text = str(values["cluster_api_host"])
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        problem = "Is not an IPv4 address."
    else:
        if not (address.is_multicast or (address.is_reserved and not address.is_unspecified)):
            return []
        problem = "Is not an address of a host."
    mend = "Give the address of rank 0 to listen on, or 0.0.0.0 for all of them."
    return [Finding(GROUP_WIDE, "cluster_api_host", shown(text), problem, mend)]


def check_ulimits(hosts: Sequence[Host], values: Values) -> list[Finding]:
    """Known limits with whole numbers, -1 for none."""
    findings = []
    for name, value in values["rank_ulimits"].items():
        path = f"rank_ulimits.{name}"
        if name not in ULIMITS:
            mend = f"Use one of: {', '.join(sorted(ULIMITS))}."
            findings.append(Finding(GROUP_WIDE, path, shown(value), "Is no limit that Docker knows.", mend))
        elif isinstance(value, bool) or not str(value).removeprefix("-").isdigit() or int(value) < -1:
            mend = "Give a whole number, or -1 for none: memlock: -1."
            findings.append(Finding(GROUP_WIDE, path, shown(value), "Is no limit.", mend))
    return findings


def check_sizes(hosts: Sequence[Host], values: Values) -> list[Finding]:
    """The all-reduce of the fabric test sums over at least one buffer; the ports of a pair are ports."""
    findings = []
    if not values["fabric_test_all_reduce_sizes"]:
        mend = "Give a size in bytes, or set fabric_test_all_reduce to false."
        findings.append(Finding(GROUP_WIDE, "fabric_test_all_reduce_sizes", "[]", "There is nothing to sum.", mend))
    most = 65536 - PORTS_OF_A_PAIR * max(1, len(values["cluster_rails"]))
    if values["fabric_test_port"] > most:
        problem = f"Is the first of {65536 - most} ports, and the last port is 65535."
        mend = f"Use {most} at most."
        findings.append(Finding(GROUP_WIDE, "fabric_test_port", shown(values["fabric_test_port"]), problem, mend))
    return findings


def check_group_ports(hosts: Sequence[Host], values: Values, profile: Mapping[str, Any]) -> list[Finding]:
    """The TCP ports of rank 0, against those of the ranks among themselves."""
    api, meet = effective_ports(values, profile)
    ports, inner = _inner(meet)
    findings = []
    api_at = source(values, profile, "cluster_api_port", "api_port")
    spread = int(values["spread_port"])
    if api in ports:
        mend = "Choose another port, such as 30000."
        findings.append(Finding(*api_at, shown(api), f"Lies in {inner}.", mend))
    elif api == spread:
        problem = "Is spread_port too, by which the peers get the model while the group may serve."
        findings.append(Finding(*api_at, shown(api), problem, "Choose another port, such as 30000."))
    if spread in ports:
        mend = "Choose another port, such as 8730."
        findings.append(Finding(GROUP_WIDE, "spread_port", shown(spread), f"Lies in {inner}.", mend))
    for host in hosts:
        ssh = host.variables.get("ansible_port")
        if str(ssh) in (str(api), str(spread)):
            problem = "Is the port of ssh, and one that the server or the copying of the model needs."
            mend = "Choose another port for the one that is not ssh: cluster_api_port or spread_port."
            findings.append(Finding(host.name, "ansible_port", shown(ssh), problem, mend))
    return findings


def check_open_ports(hosts: Sequence[Host], values: Values, profile: Mapping[str, Any]) -> list[Finding]:
    """What the firewall opens to anyone, on each host by its own variables, against the ports of the ranks."""
    ports, whose = _inner(effective_ports(values, profile)[1])
    spread, group = int(values["spread_port"]), int(values["rank_group_port"])
    inner = {
        "tcp": ({*ports, spread}, f"{whose}, and spread_port ({spread})"),
        "udp": ({group}, "the port at which the supervisors talk to each other (rank_group_port)"),
    }

    def of(host: Host) -> Iterator[Finding]:
        for protocol, (closed, what) in inner.items():
            for index, port in enumerate(host.variables.get(f"firewall_open_{protocol}_ports") or ()):
                if int(port) in closed:
                    path, problem = f"firewall_open_{protocol}_ports[{index}]", f"Opens to anyone {what}."
                    yield Finding(GROUP_WIDE, path, shown(port), problem, "Take it out of the list.")

    return on_hosts(hosts, of)


def _inner(meet: int) -> tuple[range, str]:
    """The TCP ports from dist-init on that ranks use among themselves, and how they are told."""
    # With DP attention, SGLang's ZeroMQ sockets take those that follow it (PortArgs.init_new, 0.5.4).
    ports = range(meet, meet + 11)
    return ports, f"{ports[0]}-{ports[-1]}, the ports that the ranks use among themselves"
