# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What is wrong with the rails, the ranks and the addresses of a group, taken together."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._hosts import (
    GROUP_WIDE,
    Host,
    by_rank,
    fabric_addresses,
)

MAX_RAILS = 2
"""A Spark's QSFP cage shows as two network interfaces, the twins."""

DOCKER_BRIDGE = "172.17.0.0/16"
"""The network of docker0 where daemon.json gives no `bip`: the first of Docker's default address pools."""

Network = ipaddress.IPv4Network


def check_ranks(hosts: Sequence[Host], values: Mapping[str, Any]) -> list[Finding]:
    """`cluster_rank` on every host or on none, each number from 0 up once."""
    given = {host.name: host.variables.get("cluster_rank") for host in hosts}
    if all(rank is None for rank in given.values()):
        return []
    last = len(hosts) - 1
    findings = []
    for name, rank in given.items():
        if rank is None:
            mend = "Give every host its cluster_rank, or none (then the order of the inventory counts)."
            findings.append(Finding(name, "cluster_rank", shown(None), "Other hosts have a rank, this one not.", mend))
        elif not 0 <= int(rank) <= last:
            mend = f"Use each number from 0 to {last} once."
            findings.append(
                Finding(name, "cluster_rank", shown(rank), f"{len(hosts)} ranks go from 0 to {last}.", mend)
            )
    ranked = [host for host in hosts if given[host.name] is not None]
    return findings + _check_unique(ranked, "cluster_rank", lambda host: [str(int(str(given[host.name])))])


def check_reached(hosts: Sequence[Host], values: Mapping[str, Any]) -> list[Finding]:
    """Every host has an address of its own."""
    return _check_unique(hosts, "ansible_host", lambda host: [host.address.lower()])


def check_rails(hosts: Sequence[Host], values: Mapping[str, Any]) -> list[Finding]:
    """The rails by themselves, then against each other and what else the nodes are in, then the hosts' addresses."""
    rails = values["cluster_rails"]
    if not rails:
        if len(hosts) == 1:
            return []
        mend = "Describe the rails: interface and subnet of each; inventory/spark4 has both of a Spark's."
        return [Finding(GROUP_WIDE, "cluster_rails", "[]", f"{len(hosts)} ranks need a fabric.", mend)]
    if len(rails) > MAX_RAILS:
        mend = "Keep the two interfaces of the cabled cage."
        return [Finding(GROUP_WIDE, "cluster_rails", f"{len(rails)} rails", "A cage has two interfaces.", mend)]
    findings = [finding for index, rail in enumerate(rails) for finding in _check_subnet(index, rail["subnet"])]
    for key in ("interface", "hca"):
        names = [rail[key] for rail in rails if rail.get(key)]
        if len(set(names)) < len(names):
            mend = "Name the twins of one cage, such as enp1s0f1np1 and enP2p1s0f1np1."
            path = f"cluster_rails[1].{key}"
            findings.append(Finding(GROUP_WIDE, path, shown(names[1]), "Is used by both rails.", mend))
    if findings:
        return findings
    networks = [Network(str(rail["subnet"])) for rail in rails]
    return (
        _check_apart(hosts, values, networks)
        or _check_room(hosts, values, networks)
        or _check_addresses(hosts, values, networks)
        or _check_api_host(hosts, values, networks)
    )


def _check_unique(hosts: Sequence[Host], variable: str, keys: Callable[[Host], Iterable[str]]) -> list[Finding]:
    owners: dict[str, list[str]] = defaultdict(list)
    for host in hosts:
        for key in keys(host):
            owners[key].append(host.name)
    return [
        Finding(", ".join(names), variable, shown(key), "Is given to more than one host.", "Give each host its own.")
        for key, names in owners.items()
        if len(names) > 1
    ]


def _check_subnet(index: int, subnet: object) -> list[Finding]:
    text = str(subnet)
    mend = "Write the network with its prefix length, host part zero, such as 192.168.100.0/24."
    try:
        network = Network(text)
    except ValueError as error:
        problem = "Is IPv6: the rails have IPv4." if ":" in text else f"{str(error).capitalize()}."
        return [Finding(GROUP_WIDE, f"cluster_rails[{index}].subnet", shown(text), problem, mend)]
    if "/" not in text:
        problem = "Has no prefix length."
    elif network.is_loopback or network.is_multicast or network.is_reserved or network.prefixlen < 8:
        problem = "Is no network that nodes could have addresses in."
    else:
        return []
    return [Finding(GROUP_WIDE, f"cluster_rails[{index}].subnet", shown(text), problem, mend)]


def _check_apart(hosts: Sequence[Host], values: Mapping[str, Any], networks: Sequence[Network]) -> list[Finding]:
    """A rail shares its network with nobody: not with the other, Docker's bridges or what the nodes are reached by."""
    mend = "Give each rail a subnet of its own, such as 192.168.100.0/24 and 192.168.101.0/24."
    if len(networks) == MAX_RAILS and networks[0].overlaps(networks[1]):
        problem = f"Overlaps {networks[0]}: two rails in one subnet send all traffic over one of them."
        return [Finding(GROUP_WIDE, "cluster_rails[1].subnet", shown(str(networks[1])), problem, mend)]
    findings = []
    for index, network in enumerate(networks):
        path = f"cluster_rails[{index}].subnet"
        for bridge in _docker_networks(values.get("container_runtime_daemon")):
            if network.overlaps(bridge):
                problem = f"Overlaps {bridge}, which Docker takes for its bridges on every node."
                findings.append(Finding(GROUP_WIDE, path, shown(str(network)), problem, mend))
        inside = [host for host in hosts if _is_inside(host.address, network)]
        if inside:
            first = inside[0]
            problem = f"Holds {first.address}, by which {first.name} is reached: a rail carries nothing but the fabric."
            findings.append(Finding(GROUP_WIDE, path, shown(str(network)), problem, mend))
    return findings


def _docker_networks(daemon: object) -> list[Network]:
    """The networks of Docker's bridges, as far as the inventory says; what is no network is Docker's to refuse."""
    settings = daemon if isinstance(daemon, Mapping) else {}
    pools = settings.get("default-address-pools")
    texts = [str(pool.get("base")) for pool in pools if isinstance(pool, Mapping)] if isinstance(pools, list) else []
    texts.append(str(settings.get("bip") or ("" if texts else DOCKER_BRIDGE)))
    networks = []
    for text in texts:
        try:
            networks.append(Network(text, strict=False))
        except ValueError:
            continue
    return networks


def _is_inside(address: str, network: Network) -> bool:
    try:
        return ipaddress.ip_address(address) in network
    except ValueError:  # a name, which only the network knows
        return False


def _check_room(hosts: Sequence[Host], values: Mapping[str, Any], networks: Sequence[Network]) -> list[Finding]:
    """The addresses of hosts that name none follow from the rank: all of them have to fit."""
    if all(host.variables.get("cluster_fabric_addresses") for host in hosts):
        return []
    first = int(values["cluster_first_host_number"])
    last = first + len(hosts) - 1
    for index, network in enumerate(networks):
        room = network.num_addresses - 2
        path = f"cluster_rails[{index}].subnet"
        if room < len(hosts):
            problem = f"Has room for {max(0, room)} hosts, and the group has {len(hosts)}."
            mend = "Widen the subnet, such as 192.168.100.0/24."
            return [Finding(GROUP_WIDE, path, shown(str(network)), problem, mend)]
        if not (first >= 1 and last <= room):
            problem = f"Host numbers {first} to {last} do not fit into {path} {network}."
            mend = f"Start between 1 and {room + 1 - len(hosts)}, or widen the subnet."
            return [Finding(GROUP_WIDE, "cluster_first_host_number", shown(first), problem, mend)]
    return []


def _check_addresses(hosts: Sequence[Host], values: Mapping[str, Any], networks: Sequence[Network]) -> list[Finding]:
    own = [host for host in hosts if host.variables.get("cluster_fabric_addresses")]
    findings = [finding for host in own for finding in _check_own_addresses(host, networks)]
    if findings:
        return findings
    addresses = _addresses(hosts, values)
    return _check_unique(hosts, "cluster_fabric_addresses", lambda host: addresses[host.name])


def _addresses(hosts: Sequence[Host], values: Mapping[str, Any]) -> dict[str, list[str]]:
    ranked = by_rank(hosts) if not check_ranks(hosts, values) else list(hosts)
    return {host.name: fabric_addresses(host, rank, values) for rank, host in enumerate(ranked)}


def _check_own_addresses(host: Host, networks: Sequence[Network]) -> list[Finding]:
    given = [str(address) for address in host.variables["cluster_fabric_addresses"]]
    if len(given) != len(networks):
        mend = f"Give {len(networks)} addresses, in the order of cluster_rails."
        problem = f"There are {len(networks)} rails."
        return [Finding(host.name, "cluster_fabric_addresses", shown(given), problem, mend)]
    findings = []
    for index, (text, network) in enumerate(zip(given, networks)):
        path = f"cluster_fabric_addresses[{index}]"
        mend = f"Use a host address of {network}."
        try:
            address = ipaddress.IPv4Address(text)
        except ValueError:
            findings.append(Finding(host.name, path, shown(text), "Is not an IPv4 address.", mend))
            continue
        if address not in network:
            findings.append(Finding(host.name, path, shown(text), f"Lies outside of the rail's {network}.", mend))
        elif address in (network.network_address, network.broadcast_address):
            problem = "Is the network's own or its broadcast address."
            findings.append(Finding(host.name, path, shown(text), problem, mend))
    return findings


def _check_api_host(hosts: Sequence[Host], values: Mapping[str, Any], networks: Sequence[Network]) -> list[Finding]:
    """An address on a rail has to be rank 0's: only that one listens for clients."""
    text = str(values.get("cluster_api_host"))
    ranked = by_rank(hosts) if not check_ranks(hosts, values) else list(hosts)
    own = fabric_addresses(ranked[0], 0, values)
    if text in own or not any(_is_inside(text, network) for network in networks):
        return []
    problem = f"Is on a rail, and not an address of rank 0 ({', '.join(own)})."
    mend = "Give the address of rank 0 to listen on, or 0.0.0.0 for all of them."
    return [Finding(GROUP_WIDE, "cluster_api_host", shown(text), problem, mend)]
