# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What a node has that may be in the way of its rails: netplan's files, and the interfaces by which it is managed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_netplan


@dataclass(frozen=True)
class Seen:
    """texts: netplan's files by path, which may hold passwords of Wi-Fi. networks: what they say.

    conflicts: what is in our way. management: interfaces.
    """

    texts: Mapping[str, str]
    networks: Mapping[str, Mapping[str, Any]]
    conflicts: Sequence[_fabric_netplan.Conflict]
    management: Sequence[str]


def look(
    root: Path,
    interfaces: Sequence[str],
    addresses: Sequence[Mapping[str, Any]],
    routes: Sequence[Mapping[str, Any]],
    session: Sequence[str],
) -> Seen:
    """All of it. addresses, routes: what `ip -json` says of all interfaces, and of the default routes.

    session: see _ssh.connection.
    """
    texts = _files(root)
    networks, found = _fabric_netplan.parse(texts)
    links = [
        _fabric_netplan.Link(link["ifname"], link.get("address", ""), _driver(root, link["ifname"]))
        for link in addresses
    ]
    others = {path: network for path, network in networks.items() if not _fabric_netplan.is_ours(path)}
    found += _fabric_netplan.conflicts(others, interfaces, links)
    found += _fabric_netplan.in_our_place(texts, networks, interfaces, links)
    return Seen(texts, networks, found, _management(addresses, routes, session))


def _files(root: Path) -> dict[str, str]:
    """All netplan files by path, in netplan's order: by name, and of one name only the weightiest."""
    by_name: dict[str, Path] = {}
    for directory in _fabric_netplan.DIRECTORIES:
        for path in root.joinpath(directory.lstrip("/")).glob("*.yaml"):
            by_name[path.name] = path
    return {f"/{by_name[name].relative_to(root)}": by_name[name].read_text() for name in sorted(by_name)}


def _driver(root: Path, name: str) -> str:
    """The kernel module of an interface."""
    link = root / "sys/class/net" / name / "device/driver"
    return link.resolve().name if link.exists() else ""


def _management(
    addresses: Sequence[Mapping[str, Any]], routes: Sequence[Mapping[str, Any]], session: Sequence[str]
) -> list[str]:
    """The interfaces that carry the ssh session's own address or a default route."""
    own = session[2] if session else ""
    names = {link["ifname"] for link in addresses for entry in link["addr_info"] if own and entry.get("local") == own}
    return sorted(names | {route["dev"] for route in routes if "dev" in route})
