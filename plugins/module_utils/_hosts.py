# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The hosts of a group and what their variables say together: plain values, read by every check and by the plan."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding
from ansible_collections.dgx_spark.sglang.plugins.module_utils._specs import Spec

GROUP = "sparks"
"""The inventory group whose hosts are the ranks."""

GROUP_WIDE = f"group {GROUP}"
"""Where a finding stands that is about the whole group."""


@dataclass(frozen=True)
class Host:
    """One host of the group: its inventory name, where ssh reaches it, and its variables, templated.

    unreadable: variable -> why its template fails. raw: the same variables as they stand in the inventory.
    """

    name: str
    address: str
    variables: Mapping[str, Any]
    unreadable: Mapping[str, str]
    raw: Mapping[str, Any] = field(default_factory=dict)


def on_hosts(hosts: Sequence[Host], check: Callable[[Host], Iterable[Finding]]) -> list[Finding]:
    """What a check finds of single hosts, each once: of the group, or of those by name where not all have it."""
    found: dict[Finding, list[str]] = {}
    for host in hosts:
        for finding in check(host):
            found.setdefault(finding, []).append(host.name)
    return [
        finding if len(names) == len(hosts) else replace(finding, where=", ".join(names))
        for finding, names in found.items()
    ]


_MADE: Mapping[str, Callable[[Any], Any]] = {
    "int": int,
    "float": float,
    "bool": lambda value: str(value).lower() in ("true", "yes", "on"),
}


def settings(hosts: Sequence[Host], specs: Mapping[str, Spec], unsound: Collection[str] = ()) -> dict[str, Any]:
    """The cluster-wide variables with their defaults. Numbers and booleans given as text (`-e`) become such.

    unsound: variables whose values can't be used; they count as not set.
    """
    values: dict[str, Any] = {}
    for name, spec in specs.items():
        value = None if name in unsound else hosts[0].variables.get(name)
        value = spec.get("default") if value is None else value
        made = _MADE.get(str(spec.get("type")))
        values[name] = made(value) if made and value is not None else value
    return values


def effective_ports(values: Mapping[str, Any], profile: Mapping[str, Any]) -> tuple[int, int]:
    """The API port and the dist-init port: the inventory's, else the model's."""
    api = values.get("cluster_api_port") or profile["api_port"]
    meet = values.get("cluster_dist_init_port") or profile["dist_init_port"]
    return int(api), int(meet)


def source(values: Mapping[str, Any], profile: Mapping[str, Any], variable: str, key: str) -> tuple[str, str]:
    """Where an effective value comes from, as (where, variable)."""
    return (GROUP_WIDE, variable) if values.get(variable) else (f"model {profile['name']}", key)


def by_rank(hosts: Sequence[Host]) -> list[Host]:
    """The hosts in rank order: `cluster_rank` where it is given, else the order of the inventory."""
    if any(host.variables.get("cluster_rank") is not None for host in hosts):
        return sorted(hosts, key=lambda host: int(host.variables["cluster_rank"]))
    return list(hosts)


def fabric_addresses(host: Host, rank: int, values: Mapping[str, Any]) -> list[str]:
    """The host's address on each rail: its own list, else subnet + cluster_first_host_number + rank."""
    own = host.variables.get("cluster_fabric_addresses")
    if own:
        return [str(address) for address in own]
    number = int(values["cluster_first_host_number"]) + rank
    return [str(ipaddress.IPv4Network(rail["subnet"]).network_address + number) for rail in values["cluster_rails"]]
