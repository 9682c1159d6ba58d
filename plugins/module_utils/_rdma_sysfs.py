# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Reads the RDMA devices of a node from sysfs; what can't be read is None or left out, as drivers differ."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _rdma, _rdma_rails

_PCI_ADDRESS = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_SETTINGS = {"lifespan"}
"""In hw_counters, but not a counter: for how many ms the kernel keeps what it read."""


def read(root: str, shown: str, addresses: Sequence[str], settings: str = "/proc/sys") -> _rdma.Result:
    """All facts: `root` is where sysfs is, `shown` the output of `ip -json address show`; ValueError if it isn't that.

    `addresses` are the fabric addresses of this node, `settings` is where the kernel's parameters are.
    """
    found = devices(Path(root))
    ignore_all, announce_all = arp(Path(settings), "all")

    def aside(name: str) -> _rdma.Aside:
        ignore, announce = arp(Path(settings), name)
        return {
            "speed_mbps": speed(Path(root), name),
            "arp_ignore": highest(ignore, ignore_all),
            "arp_announce": highest(announce, announce_all),
            "arp_ignore_own": ignore,
            "arp_announce_own": announce,
        }

    interfaces = _rdma.interfaces_of(shown, found, aside)
    result: _rdma.Result = {"devices": found, "interfaces": interfaces, "rails": []}
    return {**result, "rails": _rdma_rails.rails_of(result, addresses)}


def devices(root: Path) -> list[_rdma.Device]:
    """The RDMA devices by name, none where the kernel has no RDMA."""
    found = [_device(root, folder) for folder in _entries(root / "class/infiniband")]
    twins = _rdma.twins({one["name"]: one["pci"]["address"] if one["pci"] else None for one in found})
    return [{**one, "twins": twins[one["name"]]} for one in found]


def speed(root: Path, interface: str) -> int | None:
    """The speed of an interface's link in Mb/s; None without a link or where the driver doesn't know, which is -1."""
    mbps = _integer(root / "class/net" / interface / "speed")
    return mbps if mbps and mbps > 0 else None


def arp(settings: Path, interface: str) -> tuple[int | None, int | None]:
    """arp_ignore and arp_announce of an interface, or of `all`."""
    folder = settings / "net/ipv4/conf" / interface
    return _integer(folder / "arp_ignore"), _integer(folder / "arp_announce")


def highest(*values: int | None) -> int | None:
    """The setting in force, of an interface's and that of all (ip-sysctl); None where neither is known."""
    return max((value for value in values if value is not None), default=None)


def _device(root: Path, folder: Path) -> _rdma.Device:
    """Without its twins. Soft-RoCE has no `device`."""
    parent = folder / "device"
    return {
        "name": folder.name,
        "firmware": _text(folder / "fw_ver") or None,
        "pci": _pci(parent.resolve()),
        "twins": [],
        "ports": [_port(root, port, parent / "net") for port in _entries(folder / "ports")],
    }


def _pci(folder: Path) -> _rdma.Pci | None:
    if not _PCI_ADDRESS.fullmatch(folder.name):
        return None
    return {
        "address": folder.name,
        "width": _integer(folder / "current_link_width"),
        "max_width": _integer(folder / "max_link_width"),
        "speed_gts": _rdma.number(_text(folder / "current_link_speed")),
    }


def _port(root: Path, folder: Path, netdevs: Path) -> _rdma.Port:
    link_layer = _text(folder / "link_layer") or ""
    gids = _gids(folder, link_layer)
    netdev = _netdev(root, int(folder.name), _entries(netdevs), gids)
    mtu = _integer(root / "class/net" / netdev / "mtu") if netdev else None
    return {
        "port": int(folder.name),
        "netdev": netdev,
        "state": _word(folder / "state"),
        "physical_state": _word(folder / "phys_state"),
        "link_layer": link_layer,
        "rate_gbps": _rdma.number(_text(folder / "rate")),
        "netdev_mtu": mtu,
        "active_mtu": _rdma.active_mtu(mtu) if mtu and link_layer == _rdma.ETHERNET else None,
        "gids": gids,
        "counters": {**_counters(folder / "counters"), **_counters(folder / "hw_counters")},
    }


def _netdev(root: Path, port: int, netdevs: Sequence[Path], gids: Sequence[_rdma.Gid]) -> str | None:
    """The netdev of a port: that of its PCI function, else the one of its first GID; those of VLANs come after it."""
    # dev_port counts from 0. Where one function has one netdev, there is nothing to choose.
    mine = [
        one for one in netdevs if len(netdevs) == 1 or _integer(root / f"class/net/{one.name}/dev_port") == port - 1
    ]
    if len(mine) == 1:
        return mine[0].name
    return next((gid["netdev"] for gid in gids if gid["netdev"]), None)


def _gids(port: Path, link_layer: str) -> list[_rdma.Gid]:
    """The GIDs by index. A free slot is all zero, and its type can't be read."""
    found: list[_rdma.Gid] = []
    for slot in _entries(port / "gids"):
        gid = _text(slot)
        kind = _text(port / "gid_attrs/types" / slot.name) if gid and gid.strip("0:") else None
        if gid and kind:
            netdev = _text(port / "gid_attrs/ndevs" / slot.name)
            address = _rdma.gid_address(gid, link_layer)
            found.append({"index": int(slot.name), "type": kind, "gid": gid, "address": address, "netdev": netdev})
    return found


def _counters(folder: Path) -> dict[str, int]:
    read = {file.name: _integer(file) for file in _entries(folder)}
    return {name: value for name, value in read.items() if value is not None and name not in _SETTINGS}


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, numbers by their value; nothing where there is no such folder."""
    try:
        return sorted(folder.iterdir(), key=lambda entry: (int(entry.name) if entry.name.isdigit() else -1, entry.name))
    except OSError:
        return []


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _integer(file: Path) -> int | None:
    try:
        return int(_text(file) or "")
    except ValueError:
        return None


def _word(file: Path) -> str:
    """The state in a file such as "4: ACTIVE"; "unknown" where it can't be read."""
    return (_text(file) or "").rpartition(": ")[2] or "unknown"
