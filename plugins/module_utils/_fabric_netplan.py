# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Netplan's side of the fabric: our own file, what else defines the rails, and how those definitions are taken out.

Netplan merges all files of a node, key by key and list by list, so a stale definition elsewhere adds its addresses to
ours. Two definitions that match one interface are worse: the one whose name sorts first wins.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

OWN_FILE = "/etc/netplan/40-cx7.yaml"
"""Where NVIDIA's playbooks for DGX Spark put the definition of the ConnectX-7's interfaces."""

DIRECTORIES = ("/lib/netplan", "/run/netplan", "/etc/netplan")
"""Where netplan reads, in the order of growing weight (netplan-generate(8))."""

_LINKED_BY = {"bonds": "interfaces", "bridges": "interfaces", "vlans": "link", "macvlans": "link", "vrfs": "interfaces"}
_TOP = ("version", "renderer")


@dataclass(frozen=True)
class Link:
    """One network interface as the node has it. driver: its kernel module, "" where it has none."""

    name: str
    mac: str
    driver: str = ""


@dataclass(frozen=True)
class Conflict:
    """A definition in another file that takes part in a rail.

    definition: its path in the file ("ethernets.all-en"). movable: whether it can be taken out, since it is about
    nothing but rails.
    """

    path: str
    definition: str
    interface: str
    problem: str
    mend: str
    movable: bool


def render(addresses: Mapping[str, str], mtu: int, renderer: str = "") -> str:
    """Our own file: static IPv4 addresses, an MTU, and nothing else on the rails.

    addresses: interface -> address with prefix length. renderer: "" for the node's own.
    Not `optional`: systemd-networkd-wait-online would wait two minutes where the only links that it knows are optional;
    so it waits for the rails, and for a pulled cable as long.
    """
    ethernets = {
        interface: {
            "addresses": [address],
            "mtu": mtu,
            "dhcp4": False,
            "dhcp6": False,
            "accept-ra": False,
            "link-local": [],
            **({"renderer": renderer} if renderer else {}),
        }
        for interface, address in addresses.items()
    }
    # By way of JSON: Ansible's own kinds of text are none that YAML knows.
    plain = json.loads(json.dumps({"network": {"version": 2, "ethernets": ethernets}}))
    text: str = yaml.safe_dump(plain, sort_keys=False)
    return f"# The rails of the fabric, by the Ansible collection dgx_spark.sglang.\n{text}"


def parse(files: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], list[Conflict]]:
    """The `network` mapping of each file, and a finding for each that is not valid: netplan refuses them all then."""
    networks: dict[str, dict[str, Any]] = {}
    broken = []
    for path, text in files.items():
        try:
            document = yaml.safe_load(text) or {}
            network = document.get("network") or {}
            if not isinstance(network, dict):
                raise AttributeError
        except (yaml.YAMLError, AttributeError) as error:
            problem = f"Is no valid netplan file: {' '.join(str(error).split())}"
            broken.append(Conflict(path, "", "", problem, "Mend or remove the file.", movable=False))
            continue
        networks[path] = network
    return networks, broken


def renderer_of(networks: Mapping[str, Mapping[str, Any]]) -> str:
    """The renderer of the node: the last file's that names one, else netplan's default."""
    named = [str(network["renderer"]) for network in networks.values() if network.get("renderer")]
    return named[-1] if named else "networkd"


def conflicts(networks: Mapping[str, Mapping[str, Any]], rails: Sequence[str], links: Sequence[Link]) -> list[Conflict]:
    """All definitions in other files that take part in a rail.

    networks: file -> its `network` mapping, without our own file. rails: interface names. links: all of the node's.
    """
    found = []
    for path, network in networks.items():
        for name, definition in (network.get("ethernets") or {}).items():
            # One id is one definition, whatever it matches.
            taken = matched(str(name), definition or {}, links) | ({str(name)} & set(rails))
            for rail in sorted(taken & set(rails)):
                found.append(_of_ethernet(path, str(name), rail, sorted(taken - set(rails))))
        for kind, key in _LINKED_BY.items():
            for name, definition in (network.get(kind) or {}).items():
                members = (definition or {}).get(key) or []
                for rail in sorted({members} if isinstance(members, str) else set(members)):
                    if rail in rails:
                        problem = f"{kind[:-1].capitalize()} {name} is made of the rail {rail}."
                        mend = f"Take {rail} out of it; the ranks use each rail by itself."
                        found.append(Conflict(path, f"{kind}.{name}", rail, problem, mend, movable=False))
    return found


def _of_ethernet(path: str, name: str, rail: str, others: Sequence[str]) -> Conflict:
    problem = f"Defines the rail {rail} too; netplan merges both definitions."
    if others:
        problem = f"Matches the rail {rail} and also {', '.join(others)}."
        mend = f"Narrow its match to {', '.join(others)}."
        return Conflict(path, f"ethernets.{name}", rail, problem, mend, movable=False)
    mend = "Remove the definition, or let the role do it (a backup is kept): fabric_migrate_netplan: true."
    return Conflict(path, f"ethernets.{name}", rail, problem, mend, movable=True)


def matched(name: str, definition: Mapping[str, Any], links: Sequence[Link]) -> set[str]:
    """Names of the interfaces that a definition of `ethernets` is about (netplan-yaml(5), "match")."""
    match = definition.get("match")
    if match is None:
        return {link.name for link in links if link.name == name}
    drivers = match.get("driver") or []
    patterns = [drivers] if isinstance(drivers, str) else list(drivers)
    return {
        link.name
        for link in links
        if fnmatch.fnmatchcase(link.name, str(match.get("name", "*")))
        and (not match.get("macaddress") or str(match["macaddress"]).lower() == link.mac.lower())
        and (not patterns or any(fnmatch.fnmatchcase(link.driver, pattern) for pattern in patterns))
    }


def without(text: str, definitions: Sequence[str]) -> str | None:
    """A file without some definitions ("ethernets.NAME"); None where nothing is left that says anything.

    The file is written anew, so comments are lost: the backup has them.
    """
    document = yaml.safe_load(text)
    network = document["network"]
    for path in definitions:
        kind, _, name = path.partition(".")
        del network[kind][name]
        if not network[kind]:
            del network[kind]
    if not [key for key in network if key not in _TOP]:
        return None if "renderer" not in network else _dump(document)
    return _dump(document)


def _dump(document: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(document), sort_keys=False)
    return f"# Written anew by the Ansible collection dgx_spark.sglang, without the fabric's rails.\n{text}"


def sysctls(interfaces: Sequence[str]) -> str:
    """Kernel settings of the rails, as a file of sysctl.d.

    arp_ignore and arp_announce: both rails hang on one switch, and by default Linux answers for an address on every
    interface, so that the peer's packets come in by the wrong rail (Documentation/networking/ip-sysctl.rst).
    """
    settings = {"ipv4": {"arp_ignore": 1, "arp_announce": 2}, "ipv6": {"disable_ipv6": 1}}
    lines = ["# The rails of the fabric, by the Ansible collection dgx_spark.sglang."]
    for family, values in settings.items():
        for interface in interfaces:
            lines += [f"net/{family}/conf/{interface}/{key} = {value}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def limits(memlock: str) -> str:
    """Limits of locked memory for logins, as a file of limits.d (limits.conf(5)).

    RDMA locks the memory that it registers. A rank's container has a limit of its own; this is for tools in a shell.
    """
    return (
        "# Memory that is registered for RDMA is locked; by the Ansible collection dgx_spark.sglang.\n"
        f"*    - memlock {memlock}\nroot - memlock {memlock}\n"
    )
