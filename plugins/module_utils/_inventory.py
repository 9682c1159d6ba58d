# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What an inventory says of a cluster, and everything that is wrong with it.

Pure functions over plain values: reading hostvars and files is the action plugins' business (_controller.py).
"""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._container_runtime import check_container_runtime
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._firewall import check_firewall
from ansible_collections.dgx_spark.sglang.plugins.module_utils._host import check_host
from ansible_collections.dgx_spark.sglang.plugins.module_utils._memory_guard import check_memory_guard
from ansible_collections.dgx_spark.sglang.plugins.module_utils._model import (
    check_at_least_one,
    check_env,
    check_flags,
    check_image,
    check_port,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._nearest import nearest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_checks import check_preflight
from ansible_collections.dgx_spark.sglang.plugins.module_utils._rank_variables import check_rank
from ansible_collections.dgx_spark.sglang.plugins.module_utils._secrets import check_keys, check_served, given_options
from ansible_collections.dgx_spark.sglang.plugins.module_utils._specs import Spec, check_value, example

GROUP = "sparks"
"""The inventory group whose hosts are the ranks."""

PER_HOST = ("cluster_rank", "cluster_fabric_addresses", "firewall_ssh_ports")
"""Variables that belong to one host; all others describe the cluster and must be the same on all hosts."""

MAX_RAILS = 2
"""A Spark's QSFP cage shows as two network interfaces, the twins."""

CONFIRM_SECONDS = (15, 3600)
"""How long, at least and at most, a node may wait for a guarded change to be confirmed."""


@dataclass(frozen=True)
class Host:
    """One host of the group: its inventory name, where ssh reaches it, and its variables, templated.

    unreadable: variable -> why its template fails.
    """

    name: str
    address: str
    variables: Mapping[str, Any]
    unreadable: Mapping[str, str]


def check_inventory(hosts: Sequence[Host], specs: Mapping[str, Spec], profile_names: Sequence[str]) -> list[Finding]:
    """All findings in an inventory.

    hosts: the group in inventory order. specs: variable -> its argument spec, over all roles.
    profile_names: the models that can be chosen. Later checks run only on values whose types are right.
    """
    if not hosts:
        mend = "List the Sparks under it; inventory/spark4/hosts.yml is an example."
        return [Finding("inventory", f"group {GROUP}", "(no hosts)", "There is nothing to serve on.", mend)]
    unknown = _near_misses(hosts, specs)
    findings = _check_variables(hosts, specs)
    if findings:
        return [*unknown, *findings]
    values = settings(hosts, specs)
    return [
        *unknown,
        *_check_model_name(values["cluster_model"], profile_names),
        *_check_ranges(values),
        *check_image(f"group {GROUP}", "cluster_image", values.get("cluster_image")),
        *check_flags(f"group {GROUP}", "cluster_flags", values["cluster_flags"]),
        *check_env(f"group {GROUP}", "cluster_env", values["cluster_env"]),
        *check_keys(f"group {GROUP}", values),
        *_check_api_host(values["cluster_api_host"]),
        *_check_ranks(hosts),
        *_check_unique(hosts, "ansible_host", lambda host: [host.address]),
        *_check_rails(hosts, values),
        # One host alone has no rails: what is said of them is not used.
        *check_firewall(values, [rail["interface"] for rail in values["cluster_rails"]] if len(hosts) > 1 else []),
        *check_host(values),
        *check_container_runtime(values),
        *check_memory_guard(values),
        *check_rank(values),
        *check_preflight(values),
    ]


def check_fit(hosts: Sequence[Host], values: Mapping[str, Any], profile: Mapping[str, Any]) -> list[Finding]:
    """Findings that need inventory and model together: ranks against tensor parallelism, ports against each other."""
    findings = []
    degree = int(values.get("cluster_tensor_parallel") or profile["tensor_parallel"])
    if degree != len(hosts):
        where, variable = _source(values, profile, "cluster_tensor_parallel", "tensor_parallel")
        names = ", ".join(host.name for host in hosts)
        problem = f"Does not equal the number of ranks: the group {GROUP} has {len(hosts)} ({names})."
        mend = f"List {degree} hosts, or set cluster_tensor_parallel: {len(hosts)} if the model can be cut so."
        findings.append(Finding(where, variable, shown(degree), problem, mend))
    api, meet = effective_ports(values, profile)
    # With DP attention, SGLang's ZeroMQ sockets take the ports that follow dist-init (PortArgs.init_new, 0.5.4).
    if meet <= api <= meet + 10:
        where, variable = _source(values, profile, "cluster_api_port", "api_port")
        problem = f"Lies in {meet}-{meet + 10}, the ports that the ranks use among themselves."
        findings.append(Finding(where, variable, shown(api), problem, "Choose another port, such as 30000."))
    flags = {**profile["flags"], **values["cluster_flags"]}
    return findings + check_served("flags of the server", flags, given_options(values))


def settings(hosts: Sequence[Host], specs: Mapping[str, Spec]) -> dict[str, Any]:
    """The cluster-wide variables with their defaults. Ports and counts given as text (`-e`) become numbers."""
    values: dict[str, Any] = {}
    for name, spec in specs.items():
        value = hosts[0].variables.get(name)
        value = spec.get("default") if value is None else value
        values[name] = int(value) if spec.get("type") == "int" and value is not None else value
    return values


def effective_ports(values: Mapping[str, Any], profile: Mapping[str, Any]) -> tuple[int, int]:
    """The API port and the dist-init port: the inventory's, else the model's."""
    api = values.get("cluster_api_port") or profile["api_port"]
    meet = values.get("cluster_dist_init_port") or profile["dist_init_port"]
    return int(api), int(meet)


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


def _source(values: Mapping[str, Any], profile: Mapping[str, Any], variable: str, key: str) -> tuple[str, str]:
    """Where an effective value comes from, as (where, variable)."""
    if values.get(variable):
        return f"group {GROUP}", variable
    return f"model {profile['name']}", key


def _check_variables(hosts: Sequence[Host], specs: Mapping[str, Spec]) -> list[Finding]:
    findings = _unreadable(hosts, specs)
    for name, spec in specs.items():
        held: dict[str, tuple[Any, list[str]]] = {}
        for host in hosts:
            if name in host.unreadable:
                continue
            value = host.variables.get(name)
            held.setdefault(repr(value), (value, []))[1].append(host.name)
        if name not in PER_HOST and len(held) > 1:
            findings += _differing(name, held)
        for value, names in held.values():
            where = f"group {GROUP}" if len(names) == len(hosts) else ", ".join(names)
            if value is not None:
                findings += check_value(where, name, spec, value)
            elif spec.get("required"):
                mend = f"Add it to the group's variables.{example(spec)}"
                findings.append(Finding(where, name, shown(None), "Is required.", mend))
    return findings


def _unreadable(hosts: Sequence[Host], specs: Mapping[str, Spec]) -> list[Finding]:
    mend = "Define what the template uses, or write the value itself."
    return [
        Finding(host.name, name, "(template)", problem, mend)
        for host in hosts
        for name, problem in host.unreadable.items()
        if name in specs or name == "ansible_host"
    ]


def _differing(name: str, held: Mapping[str, tuple[Any, list[str]]]) -> list[Finding]:
    value = "; ".join(f"{shown(value)} on {', '.join(names)}" for value, names in held.values())
    mend = f"Set it once, in the variables of the group {GROUP}."
    return [Finding(f"group {GROUP}", name, value, "Differs between hosts that form one group.", mend)]


def _near_misses(hosts: Sequence[Host], specs: Mapping[str, Spec]) -> list[Finding]:
    """Variables that look like one of ours but are not: a typing error would be ignored silently."""
    findings = []
    places: dict[str, list[str]] = defaultdict(list)
    for host in hosts:
        for variable in host.variables:
            if variable not in specs:
                places[variable].append(host.name)
    for variable, names in places.items():
        near = _nearest_variable(variable, specs)
        where = f"group {GROUP}" if len(names) == len(hosts) else ", ".join(names)
        value = next(host.variables[variable] for host in hosts if host.name == names[0])
        if near:
            findings.append(Finding(where, variable, shown(value), "Is not a variable.", f"Did you mean `{near}`?"))
        elif variable.startswith("cluster_"):
            known = ", ".join(sorted(name for name in specs if name.startswith("cluster_")))
            findings.append(Finding(where, variable, shown(value), "Is not a variable.", f"Use one of: {known}."))
    return findings


def _common_words(names: Sequence[str]) -> str:
    """The words that all names begin with: moe_config of moe_config_dirs and moe_config_seconds."""
    words = [name.split("_") for name in names]
    shared = takewhile(lambda column: len(set(column)) == 1, zip(*words))
    return "_".join(column[0] for column in shared)


def _nearest_variable(variable: str, known: Iterable[str]) -> str | None:
    """The nearest variable of the same role: the role's name itself would make any two look alike."""
    first = f"{variable.partition('_')[0]}_"
    alike = [name for name in known if name.startswith(first)]
    # "moe_config_" where all variables with "moe_" are that role's.
    role = f"{_common_words(alike)}_"
    prefix = role if len(alike) > 1 and variable.startswith(role) else first
    near = nearest(variable[len(prefix) :], [name[len(prefix) :] for name in alike])
    return f"{prefix}{near}" if near else None


def _check_ranges(values: Mapping[str, Any]) -> list[Finding]:
    """Ports, times and counts, known by the end of their names; paths, which the nodes take from their root."""
    findings = []
    for name, value in values.items():
        if name.endswith("_port"):
            findings += check_port(f"group {GROUP}", name, value)
        elif name.endswith("_confirm_seconds"):
            findings += _check_confirm_seconds(name, int(value))
        elif name.endswith(("_seconds", "_attempts", "_parallel")):
            findings += check_at_least_one(f"group {GROUP}", name, value)
        elif name.endswith("_dir") and not str(value).startswith("/"):
            problem = "Is not an absolute path."
            findings.append(Finding(f"group {GROUP}", name, shown(value), problem, "Begin it with `/`."))
    return findings


def _check_confirm_seconds(name: str, value: int) -> list[Finding]:
    if CONFIRM_SECONDS[0] <= value <= CONFIRM_SECONDS[1]:
        return []
    bounds = f"from {CONFIRM_SECONDS[0]} to {CONFIRM_SECONDS[1]}"
    problem = (
        "Is less than it takes to apply a change and to connect anew: none could ever be confirmed."
        if value < CONFIRM_SECONDS[0]
        else "Is longer than anyone should be locked out by a change that is wrong."
    )
    return [Finding(f"group {GROUP}", name, shown(value), problem, f"Give seconds {bounds}, such as 60.")]


def _check_model_name(name: str, profile_names: Sequence[str]) -> list[Finding]:
    if name in profile_names:
        return []
    near = nearest(name, profile_names)
    mend = f"Did you mean `{near}`?" if near else f"Use one of: {', '.join(profile_names)}; or add models/{name}.yml."
    return [Finding(f"group {GROUP}", "cluster_model", shown(name), "There is no such model profile.", mend)]


def _check_api_host(value: str) -> list[Finding]:
    try:
        ipaddress.IPv4Address(value)
    except ValueError:
        mend = "Give the address of rank 0 to listen on, or 0.0.0.0 for all of them."
        return [Finding(f"group {GROUP}", "cluster_api_host", shown(value), "Is not an IPv4 address.", mend)]
    return []


def _check_ranks(hosts: Sequence[Host]) -> list[Finding]:
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
    return findings + _check_unique(ranked, "cluster_rank", lambda host: [str(given[host.name])])


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


def _check_rails(hosts: Sequence[Host], values: Mapping[str, Any]) -> list[Finding]:
    where, rails = f"group {GROUP}", values["cluster_rails"]
    if not rails:
        if len(hosts) == 1:
            return []
        mend = "Describe the rails: interface and subnet of each; inventory/spark4 has both of a Spark's."
        return [Finding(where, "cluster_rails", "[]", f"{len(hosts)} ranks need a fabric.", mend)]
    if len(rails) > MAX_RAILS:
        mend = "Keep the two interfaces of the cabled cage."
        return [Finding(where, "cluster_rails", f"{len(rails)} rails", "A cage has two interfaces.", mend)]
    findings = [finding for index, rail in enumerate(rails) for finding in _check_rail(index, rail, values)]
    for key in ("interface", "hca"):
        names = [rail[key] for rail in rails if rail.get(key)]
        if len(set(names)) < len(names):
            mend = "Name the twins of one cage, such as enp1s0f1np1 and enP2p1s0f1np1."
            findings.append(Finding(where, f"cluster_rails[1].{key}", shown(names[1]), "Is used by both rails.", mend))
    if findings:
        return findings
    networks = [ipaddress.IPv4Network(rail["subnet"]) for rail in rails]
    if len(networks) == MAX_RAILS and networks[0].overlaps(networks[1]):
        problem = f"Overlaps {networks[0]}: two rails in one subnet send all traffic over one of them."
        mend = "Give each rail a subnet of its own, such as 192.168.100.0/24 and 192.168.101.0/24."
        return [Finding(where, "cluster_rails[1].subnet", shown(str(networks[1])), problem, mend)]
    return _check_addresses(hosts, values, networks)


def _check_rail(index: int, rail: Mapping[str, Any], values: Mapping[str, Any]) -> list[Finding]:
    where, path = f"group {GROUP}", f"cluster_rails[{index}]"
    findings = []
    try:
        ipaddress.IPv4Network(rail["subnet"])
    except ValueError as error:
        mend = "Write the network with its prefix length, host part zero, such as 192.168.100.0/24."
        findings.append(Finding(where, f"{path}.subnet", shown(rail["subnet"]), f"{str(error).capitalize()}.", mend))
    return findings


def _check_addresses(
    hosts: Sequence[Host], values: Mapping[str, Any], networks: Sequence[ipaddress.IPv4Network]
) -> list[Finding]:
    where = f"group {GROUP}"
    first, last = int(values["cluster_first_host_number"]), int(values["cluster_first_host_number"]) + len(hosts) - 1
    own = [host for host in hosts if host.variables.get("cluster_fabric_addresses")]
    if len(own) < len(hosts):
        for index, network in enumerate(networks):
            if not (first >= 1 and last <= network.num_addresses - 2):
                problem = f"Host numbers {first} to {last} do not fit into cluster_rails[{index}].subnet {network}."
                mend = f"Start between 1 and {max(1, network.num_addresses - 1 - len(hosts))}, or widen the subnet."
                return [Finding(where, "cluster_first_host_number", shown(first), problem, mend)]
    findings = []
    for host in own:
        findings += _check_own_addresses(host, networks)
    if findings:
        return findings
    ranked = by_rank(hosts) if not _check_ranks(hosts) else list(hosts)
    addresses = {host.name: fabric_addresses(host, rank, values) for rank, host in enumerate(ranked)}
    return _check_unique(ranked, "cluster_fabric_addresses", lambda host: addresses[host.name])


def _check_own_addresses(host: Host, networks: Sequence[ipaddress.IPv4Network]) -> list[Finding]:
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
