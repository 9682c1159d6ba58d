# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Everything that is wrong with an inventory, and with it and a model together.

Pure functions over plain values: reading hostvars and files is the action plugins' business (_controller.py). First
each variable by itself (the roles' argument specs, with _bounds and _formats), then what several say together. A later
check is spared what an earlier one has found to be wrong, so that each error is told once, and all of them at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._container_runtime import check_container_runtime
from ansible_collections.dgx_spark.sglang.plugins.module_utils._cross_checks import (
    check_api_host,
    check_group_ports,
    check_memory,
    check_open_ports,
    check_order,
    check_sizes,
    check_ulimits,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import HIDDEN, Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._firewall import check_firewall
from ansible_collections.dgx_spark.sglang.plugins.module_utils._formats import malformed
from ansible_collections.dgx_spark.sglang.plugins.module_utils._host import check_host
from ansible_collections.dgx_spark.sglang.plugins.module_utils._hosts import (
    GROUP,
    GROUP_WIDE,
    Host,
    by_rank,
    effective_ports,
    fabric_addresses,
    on_hosts,
    settings,
    source,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._memory_guard import check_memory_guard
from ansible_collections.dgx_spark.sglang.plugins.module_utils._model import check_env, check_flags, check_image
from ansible_collections.dgx_spark.sglang.plugins.module_utils._near_misses import near_misses
from ansible_collections.dgx_spark.sglang.plugins.module_utils._nearest import nearest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_checks import check_preflight
from ansible_collections.dgx_spark.sglang.plugins.module_utils._rails import check_rails, check_ranks, check_reached
from ansible_collections.dgx_spark.sglang.plugins.module_utils._rank_variables import check_rank
from ansible_collections.dgx_spark.sglang.plugins.module_utils._secrets import check_keys, check_served, given_options
from ansible_collections.dgx_spark.sglang.plugins.module_utils._server_flags import check_speculative
from ansible_collections.dgx_spark.sglang.plugins.module_utils._shape import check_shape
from ansible_collections.dgx_spark.sglang.plugins.module_utils._specs import Spec, check_value, example, null_finding

__all__ = [
    "GROUP",
    "Host",
    "by_rank",
    "check_fit",
    "check_inventory",
    "effective_ports",
    "fabric_addresses",
    "settings",
    "unsound_of",
]

CONNECTION: Mapping[str, Spec] = {
    "ansible_host": {"type": "str", "example": "spark-0.local"},
    "ansible_port": {"type": "int", "example": 22},
    "ansible_user": {"type": "str", "example": "nvidia"},
    "ansible_become": {"type": "bool"},
}
"""Ansible's own variables by which a node is reached: wrong ones would show as a host that can't be."""

PER_HOST = (
    *("cluster_rank", "cluster_fabric_addresses", *CONNECTION),
    *("firewall_ssh_ports", "firewall_open_tcp_ports", "firewall_open_udp_ports"),
    *("host_headless", "host_headless_now", "host_swap_off", "host_memlock", "host_sysctl", "host_kho_off"),
    *("host_hold_packages", "host_hold_patterns", "host_oom_handover", "host_time_sync", "host_time_servers"),
)
"""Variables that belong to one host, which may be somebody's desk; all others describe the cluster and must be the same
on all hosts."""

Values = Mapping[str, Any]
Check = Callable[[Sequence[Host], Values], list[Finding]]


def _rails_of(hosts: Sequence[Host], values: Values) -> list[str]:
    # One host alone has no rails: what is said of them is not used.
    return [str(rail["interface"]) for rail in values.get("cluster_rails") or []] if len(hosts) > 1 else []


CHECKS: tuple[tuple[tuple[str, ...], Check], ...] = (
    # The variables that have to be sound, and the check. It gets the others only where they are sound, too.
    ((), lambda hosts, values: check_image(GROUP_WIDE, "cluster_image", values.get("cluster_image"))),
    ((), lambda hosts, values: check_flags(GROUP_WIDE, "cluster_flags", values.get("cluster_flags"))),
    ((), lambda hosts, values: check_env(GROUP_WIDE, "cluster_env", values.get("cluster_env"))),
    ((), lambda hosts, values: check_keys(GROUP_WIDE, values)),
    (("cluster_api_host",), check_api_host),
    (("cluster_rank",), check_ranks),
    (("ansible_host",), check_reached),
    (("cluster_rank", "cluster_rails", "cluster_fabric_addresses", "cluster_first_host_number"), check_rails),
    ((), lambda hosts, values: check_container_runtime(values)),
    ((), lambda hosts, values: check_memory_guard(values)),
    ((), lambda hosts, values: check_rank(values)),
    ((), lambda hosts, values: check_preflight(values)),
    (("rank_ulimits",), check_ulimits),
    (("rank_memory_floor_gib", "memory_guard_terminate_mib", "memory_guard_enabled"), check_memory),
    (("fabric_test_all_reduce_sizes", "fabric_test_port", "cluster_rails"), check_sizes),
    ((), check_order),
)
"""What the variables say together."""

CHECKS_OF_EACH: tuple[Callable[[Values, Sequence[str]], list[Finding]], ...] = (check_firewall, check_host)
"""Those of variables of which each host may have its own; they get the interfaces of the rails, too."""


def check_inventory(
    hosts: Sequence[Host], specs: Mapping[str, Spec], profile_names: Sequence[str], groups: Sequence[str] = ()
) -> list[Finding]:
    """All findings in an inventory.

    hosts: the group in inventory order. specs: variable -> its argument spec, over all roles.
    profile_names: the models that can be chosen. groups: the names of all groups of the inventory.
    """
    if not hosts:
        return [_no_hosts(groups)]
    findings = near_misses([_without_connection(host) for host in hosts], specs)
    findings += _check_variables(hosts, {**specs, **CONNECTION})
    findings += _check_names(hosts)
    unsound = unsound_of(findings)
    values = settings(hosts, specs, unsound)
    sound = {name: value for name, value in values.items() if name not in unsound}
    if "cluster_model" in sound:
        findings += _check_model_name(str(sound["cluster_model"]), profile_names)
    for needed, check in CHECKS:
        if not unsound.intersection(needed):
            findings += check(hosts, sound)
    return findings + _check_each(hosts, specs, unsound, _rails_of(hosts, sound))


def _check_each(
    hosts: Sequence[Host], specs: Mapping[str, Spec], unsound: Collection[str], rails: Sequence[str]
) -> list[Finding]:
    def of(host: Host) -> list[Finding]:
        own = {name: value for name, value in settings([host], specs, unsound).items() if name not in unsound}
        return [finding for check in CHECKS_OF_EACH for finding in check(own, rails)]

    return on_hosts(hosts, of)


def check_fit(
    hosts: Sequence[Host], values: Values, profile: Mapping[str, Any], unsound: Collection[str] = ()
) -> list[Finding]:
    """Findings that need inventory and model together: ranks, the model's shape, the server's flags and the ports.

    unsound: variables, and keys of the model as `model.<key>`, in which an error was found before.
    """
    findings = []

    def right(*names: str) -> bool:
        return not set(unsound).intersection(names)

    flags = {**profile["flags"], **values["cluster_flags"]}
    whose = "flags of the server"
    if right("cluster_flags", "model.flags"):
        findings += check_speculative(whose, flags)
        findings += check_served(whose, flags, given_options(values))
    if right("cluster_tensor_parallel", "model.tensor_parallel"):
        degree = int(values.get("cluster_tensor_parallel") or profile["tensor_parallel"])
        findings += _check_degree(hosts, values, profile, degree)
        if right("model.shape", "cluster_flags", "model.flags"):
            findings += check_shape(f"model {profile['name']}", profile, flags, degree)
    if right("cluster_api_port", "cluster_dist_init_port", "model.api_port", "model.dist_init_port"):
        findings += check_group_ports(hosts, values, profile)
        if right("firewall_open_tcp_ports", "firewall_open_udp_ports", "rank_group_port", "spread_port"):
            findings += check_open_ports(hosts, values, profile)
    return findings


def unsound_of(findings: Iterable[Finding], prefix: str = "") -> set[str]:
    """The variables, without the path inside of them, that findings are about; prefix: `model.` for a model's keys."""
    return {prefix + re.split(r"[.\[]", finding.variable)[0] for finding in findings}


def _no_hosts(groups: Sequence[str]) -> Finding:
    near = nearest(GROUP, [name for name in groups if name != GROUP])
    mend = f"Did you mean `{near}`? Name it {GROUP}." if near else "inventory/spark4/hosts.yml is an example."
    mend += " If Ansible warns that it could not parse the inventory, mend that place first."
    return Finding(
        "inventory",
        f"group {GROUP}",
        "(no hosts)",
        "There is nothing to serve on.",
        f"List the Sparks under it. {mend}",
    )


def _without_connection(host: Host) -> Host:
    ours = {name: value for name, value in host.variables.items() if name not in CONNECTION}
    return Host(host.name, host.address, ours, host.unreadable)


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
            findings.append(_differing(name, spec, held))
        for value, names in held.values():
            where = GROUP_WIDE if len(names) == len(hosts) else ", ".join(names)
            if value is not None:
                findings += check_value(where, name, spec, value)
            elif spec.get("required"):
                mend = f"Add it to the group's variables.{example(spec)}"
                findings.append(Finding(where, name, shown(None), "Is required.", mend))
            elif ("default" in spec or name in CONNECTION) and any(
                name in host.variables for host in hosts if host.name in names
            ):
                findings.append(null_finding(where, name, spec))
    return findings


def _unreadable(hosts: Sequence[Host], specs: Mapping[str, Spec]) -> list[Finding]:
    """A finding for each value that Ansible can't make, with the hosts that share it."""
    places: dict[tuple[str, str], list[str]] = {}
    for host in hosts:
        for name, problem in host.unreadable.items():
            if name in specs:
                places.setdefault((name, problem), []).append(host.name)
    findings = []
    for (name, problem), names in places.items():
        where = GROUP_WIDE if len(names) == len(hosts) else ", ".join(names)
        if "vault" in problem.lower():
            value, mend = "(vault)", "Give the vault's password: --ask-vault-pass or --vault-password-file."
        else:
            raw = next(host.raw.get(name) for host in hosts if host.name == names[0])
            told = HIDDEN if specs[name].get("no_log") else "" if raw is None else shown(raw)
            value, mend = f"{told} (template)".strip(), "Define what the template uses, or write the value itself."
        findings.append(Finding(where, name, value, problem, mend))
    return findings


def _differing(name: str, spec: Spec, held: Mapping[str, tuple[Any, list[str]]]) -> Finding:
    value = "; ".join(
        f"{HIDDEN if spec.get('no_log') else shown(value)} on {', '.join(names)}" for value, names in held.values()
    )
    mend = f"Set it once, in the variables of the group {GROUP}."
    return Finding(GROUP_WIDE, name, value, "Differs between hosts that form one group.", mend)


def _check_names(hosts: Sequence[Host]) -> list[Finding]:
    """A host without ansible_host is reached by its name."""
    findings = []
    for host in hosts:
        told = malformed("ansible_host", "str", host.name)
        if told and "ansible_host" not in host.variables and "ansible_host" not in host.unreadable:
            findings.append(Finding(host.name, "ansible_host", f"{shown(host.name)} (the host's name)", *told))
    return findings


def _check_model_name(name: str, profile_names: Sequence[str]) -> list[Finding]:
    if name in profile_names:
        return []
    near = nearest(name, profile_names)
    mend = f"Did you mean `{near}`?" if near else f"Use one of: {', '.join(profile_names)}; or add models/{name}.yml."
    return [Finding(GROUP_WIDE, "cluster_model", shown(name), "There is no such model profile.", mend)]


def _check_degree(hosts: Sequence[Host], values: Values, profile: Mapping[str, Any], degree: int) -> list[Finding]:
    if degree == len(hosts):
        return []
    where, variable = source(values, profile, "cluster_tensor_parallel", "tensor_parallel")
    names = ", ".join(host.name for host in hosts)
    problem = f"Does not equal the number of ranks: the group {GROUP} has {len(hosts)} ({names})."
    mend = f"List {degree} hosts, or set cluster_tensor_parallel: {len(hosts)} if the model can be cut so."
    return [Finding(where, variable, shown(degree), problem, mend)]
