# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Netplan's side of the fabric: our own file, what else defines the rails, and how those definitions are taken out.

Netplan merges all files of a node, key by key and list by list, so a stale definition elsewhere adds its addresses to
ours. Two definitions that match one interface are worse: the one whose name sorts first wins.
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils._fabric_check import ARP

OWN_FILE = "/etc/netplan/40-cx7.yaml"
"""Where NVIDIA's playbooks for DGX Spark put the definition of the ConnectX-7's interfaces."""

HEADER = "# The rails of the fabric, by the Ansible collection dgx_spark.sglang."
"""The first line of our own file. One of that name without it is somebody else's."""

OTHER_FILE = "/etc/netplan/41-cx7-other.yaml"
"""Where what somebody else's file says of other interfaces goes."""

DIRECTORIES = ("/lib/netplan", "/run/netplan", "/etc/netplan")
"""Where netplan reads, in the order of growing weight (netplan-generate(8)): of one name, only the last is read."""

_MADE_BY_OTHERS = {"/lib/netplan": "It belongs to a package", "/run/netplan": "It is made anew at each boot"}
_MIGRATE = "or let the role do it (a backup is kept): fabric_migrate_netplan: true."
_LINKED_BY = {"bonds": "interfaces", "bridges": "interfaces", "vlans": "link", "macvlans": "link", "vrfs": "interfaces"}


@dataclass(frozen=True)
class Link:
    """One network interface as the node has it. driver: its kernel module, "" where it has none."""

    name: str
    mac: str
    driver: str = ""


@dataclass(frozen=True)
class Conflict:
    """A definition that is in our way.

    definition: its path in the file ("ethernets.all-en"). interface: the rail that it takes part in, "" for none.
    movable: whether the role can take it out or move it.
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
    return f"{HEADER}\n{text}"


def parse(files: Mapping[str, str]) -> tuple[dict[str, dict[str, Any]], list[Conflict]]:
    """The `network` mapping of each file, and a finding for each that is not valid: netplan refuses them all then.

    All scalars are text, as for netplan: to YAML 1.1 an address of digits alone (10:20:30:40:50:06) is a number.
    """
    networks: dict[str, dict[str, Any]] = {}
    broken = []
    for path, text in files.items():
        try:
            document = yaml.load(text, Loader=yaml.BaseLoader) or {}
            network = document.get("network") or {}
            if not isinstance(network, dict):
                raise AttributeError
        except (yaml.YAMLError, AttributeError) as error:
            # Not the line itself, which may be a password.
            mark = getattr(error, "problem_mark", None)
            what = f"{getattr(error, 'problem', 'no mapping')}{f', line {mark.line + 1}' if mark else ''}"
            problem = f"Is no valid netplan file: {what}"
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
                        mend = _mend(path, f"Take {rail} out of it; the ranks use each rail by itself.")
                        found.append(Conflict(path, f"{kind}.{name}", rail, problem, mend, movable=False))
    return found


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _mend(path: str, mend: str) -> str:
    """How to mend a file that is not the administrator's own: netplan reads one of the same name in its place."""
    if _folder(path) not in _MADE_BY_OTHERS:
        return mend
    copy = path.replace(_folder(path), "/etc/netplan")
    return f"{_MADE_BY_OTHERS[_folder(path)]}: copy it to {copy}, which is read in its place. There: {mend}"


def _of_ethernet(path: str, name: str, rail: str, others: Sequence[str]) -> Conflict:
    problem = f"Defines the rail {rail} too; netplan merges both definitions."
    if others:
        problem = f"Matches the rail {rail} and also {', '.join(others)}."
        mend = _mend(path, f"Narrow its match to {', '.join(others)}.")
        return Conflict(path, f"ethernets.{name}", rail, problem, mend, movable=False)
    mend = _mend(path, f"Remove the definition, {_MIGRATE}")
    return Conflict(path, f"ethernets.{name}", rail, problem, mend, movable=_folder(path) not in _MADE_BY_OTHERS)


def obstacles(
    conflicts: Sequence[Mapping[str, Any]], management: Sequence[str], rails: Sequence[str], *, migrate: bool
) -> list[dict[str, str]]:
    """What must be mended before the rails can be configured: {path, definition, problem, mend}, empty if nothing.

    conflicts: as plain data. management: the interfaces by which the node is managed. rails: interface names. migrate:
    whether the role may take out what is movable.
    """
    found = [
        {key: str(conflict[key]) for key in ("path", "definition", "problem", "mend")}
        for conflict in conflicts
        if not (migrate and conflict["movable"])
    ]
    for rail in rails:
        if rail in management:
            problem = f"{rail} is the interface by which this node is managed."
            mend = (
                "Name the interfaces of the QSFP cage (`rdma link` lists them) in cluster_rails. If it is one of them, "
                "ssh came by a rail, as names of mDNS may lead: set ansible_host to the node's address on the LAN."
            )
            found.append({"path": "inventory", "definition": "cluster_rails", "problem": problem, "mend": mend})
    return found


def in_our_place(
    texts: Mapping[str, str], networks: Mapping[str, Mapping[str, Any]], rails: Sequence[str], links: Sequence[Link]
) -> list[Conflict]:
    """What somebody else's file of our file's name says, besides of rails alone: ours would put an end to it.

    It may lie in any of netplan's folders, as ours is read in its place.
    """
    found = []
    for path in (path for path in networks if is_ours(path) and not texts[path].startswith(HEADER)):
        # What is about rails alone is replaced, wherever the file lies.
        about_rails = conflicts({OWN_FILE: networks[path]}, rails, links)
        found += [replace(one, path=path, mend=_mend(path, one.mend)) for one in about_rails if not one.movable]
        known = {conflict.definition for conflict in about_rails}
        others = {other: network for other, network in networks.items() if other != path}
        names = [
            f"{kind}.{name}"
            for kind, definitions in networks[path].items()
            if isinstance(definitions, Mapping)
            for name in definitions
        ]
        if renderer_of(networks) != renderer_of(others):
            names.append("renderer")
        problem = f"Has nothing to do with the rails, and {OWN_FILE} is to be the role's."
        movable = OTHER_FILE not in texts
        mend = f"Move it to another file of /etc/netplan, {_MIGRATE}"
        if not movable:
            mend = f"Move it to another file of /etc/netplan by hand: {OTHER_FILE} is there already."
        found += [Conflict(path, name, "", problem, mend, movable) for name in names if name not in known]
    return found


def is_ours(path: str) -> bool:
    """Whether our own file is the one that netplan reads of this name."""
    return path.rpartition("/")[2] == OWN_FILE.rpartition("/")[2]


def migrated(texts: Mapping[str, str], found: Sequence[Conflict]) -> dict[str, str | None]:
    """Files without what can be taken out, and the one with what is moved; None for a file of which nothing is left."""
    files: dict[str, str | None] = {}
    for path in dict.fromkeys(conflict.path for conflict in found if conflict.movable):
        definitions = [conflict.definition for conflict in found if conflict.path == path and conflict.movable]
        if is_ours(path):
            files[OTHER_FILE] = only(texts[path], definitions)
        else:
            files[path] = without(texts[path], definitions)
    return files


def matched(name: str, definition: Mapping[str, Any], links: Sequence[Link]) -> set[str]:
    """Names of the interfaces that a definition of `ethernets` is about (netplan-yaml(5), "match")."""
    match = definition.get("match")
    if not isinstance(match, Mapping):
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
    """A file without some definitions ("ethernets.NAME"); None where nothing is left that says anything."""
    return _rewritten(text, lambda path: path not in definitions, "without the fabric's rails")


def only(text: str, definitions: Sequence[str]) -> str | None:
    """The same with nothing but some definitions ("ethernets.NAME", "renderer")."""
    return _rewritten(text, lambda path: path in definitions, f"from what was in {OWN_FILE}")


def _rewritten(text: str, keep: Callable[[str], bool], how: str) -> str | None:
    """A file with the definitions that are kept, each as it is but for its comments: the backup has those."""
    document = yaml.compose(text, Loader=yaml.BaseLoader) or yaml.MappingNode("", [])
    (network,) = [value for key, value in document.value if key.value == "network"]
    left = []
    for key, value in network.value:
        if isinstance(value, yaml.MappingNode):
            value.value = [pair for pair in value.value if keep(f"{key.value}.{pair[0].value}")]
            if value.value:
                left.append((key, value))
        elif key.value == "version" or keep(key.value):
            left.append((key, value))
    network.value = left
    if all(key.value == "version" for key, _ in left):
        return None
    written: str = yaml.serialize(document, Dumper=yaml.BaseDumper)
    return f"# Written anew by the Ansible collection dgx_spark.sglang, {how}.\n{written}"


def sysctls(interfaces: Sequence[str]) -> str:
    """Kernel settings of the rails, as a file of sysctl.d."""
    settings = {"ipv4": ARP, "ipv6": {"disable_ipv6": 1}}
    lines = [HEADER]
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
