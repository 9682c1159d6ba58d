# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""RDMA devices and network interfaces as facts: their shapes, and how they belong together."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

ROCE_V2 = "RoCE v2"
"""The type of a GID whose packets are routable UDP, as the kernel writes it; the other one is "IB/RoCE v1"."""

ETHERNET = "Ethernet"
"""The link layer of a RoCE port, as the kernel writes it."""

ROCE_HEADERS = 40 + 8 + 12 + 4 + 28 + 4
"""Bytes that the kernel takes off a netdev's MTU: GRH, UDP, BTH, XRC, AtomicETH and ICRC (include/rdma/ib_pack.h)."""

RDMA_MTUS = (4096, 2048, 1024, 512, 256)
"""What an RDMA MTU can be, in bytes (enum ib_mtu in include/rdma/ib_verbs.h)."""


class Pci(TypedDict):
    """The PCI function of a device: its address, lanes in use, lanes that it has, and GT/s a lane."""

    address: str
    width: int | None
    max_width: int | None
    speed_gts: float | None


class Gid(TypedDict):
    """One GID of a port; its index drifts with every change of addresses."""

    index: int
    type: str
    gid: str
    address: str | None
    netdev: str | None


class Port(TypedDict):
    """One port of an RDMA device. MTUs are in bytes."""

    port: int
    netdev: str | None
    state: str
    physical_state: str
    link_layer: str
    rate_gbps: float | None
    netdev_mtu: int | None
    active_mtu: int | None
    gids: list[Gid]
    counters: dict[str, int]


class Device(TypedDict):
    """One RDMA device; twins are the names of those of the same cage."""

    name: str
    firmware: str | None
    pci: Pci | None
    twins: list[str]
    ports: list[Port]


class Aside(TypedDict):
    """What the kernel tells of an interface by files, None where it does not.

    The settings of ARP are those in force, the higher of the interface's and that of all, and its own.
    """

    speed_mbps: int | None
    arp_ignore: int | None
    arp_announce: int | None
    arp_ignore_own: int | None
    arp_announce_own: int | None


class Interface(Aside):
    """One network interface; addresses are with their prefix lengths, hca is the RDMA device on it."""

    name: str
    mac: str | None
    mtu: int
    up: bool
    carrier: bool
    addresses: list[str]
    hca: str | None


class Rail(TypedDict):
    """Where one fabric address is; what is wrong with it, if anything, and the mend."""

    address: str
    interface: str | None
    hca: str | None
    port: int | None
    gid_index: int | None
    problem: str | None
    mend: str | None


class Result(TypedDict):
    """What the module rdma_info tells of a node."""

    devices: list[Device]
    interfaces: list[Interface]
    rails: list[Rail]


class Place(NamedTuple):
    """A port and its device."""

    device: Device
    port: Port


def active_mtu(netdev_mtu: int) -> int | None:
    """The RDMA MTU of a RoCE port in bytes, from that of its netdev; None where it is too small for any.

    sysfs doesn't tell it, so it is derived as by the kernel's iboe_get_mtu() in include/rdma/ib_addr.h: 4096 needs a
    netdev MTU of 4192. Soft-RoCE takes only 80 bytes off (drivers/infiniband/sw/rxe/rxe_param.h), which is the
    same for every usual MTU.
    """
    return next((mtu for mtu in RDMA_MTUS if mtu <= netdev_mtu - ROCE_HEADERS), None)


def gid_address(gid: str, link_layer: str) -> str | None:
    """The IP address that a GID of a RoCE port is, an IPv4 one in its own form; None for another link layer."""
    if link_layer != ETHERNET:
        return None
    address = ipaddress.IPv6Address(gid)
    return str(address.ipv4_mapped or address)


def twins(addresses: Mapping[str, str | None]) -> dict[str, list[str]]:
    """The devices of the same QSFP cage for each device, from their PCI addresses.

    A Spark shows a cage as one function in each of two PCI domains, with the same bus, device and function.
    """
    places = {name: tuple((address or "").partition(":")[::2]) for name, address in addresses.items()}
    return {
        name: sorted(other for other, (domain, rest) in places.items() if rest and rest == own and domain != at)
        for name, (at, own) in places.items()
    }


def places_of(devices: Sequence[Device], interface: str) -> list[Place]:
    """The RDMA ports on an interface, those of real hardware first. A VLAN or bond shows only in the GIDs."""
    found = [
        Place(device, port)
        for device in devices
        for port in device["ports"]
        if interface in (port["netdev"], *(gid["netdev"] for gid in port["gids"]))
    ]
    return sorted(found, key=lambda place: place.device["pci"] is None)


def interfaces_of(shown: str, devices: Sequence[Device], aside: Callable[[str], Aside]) -> list[Interface]:
    """The interfaces from the output of `ip -json address show`, in its order; ValueError if it is something else.

    `aside` tells the rest of an interface by its name.
    """
    try:
        links = [link for link in json.loads(shown) if link]
        return [_interface(link, devices, aside(link["ifname"])) for link in links]
    except (KeyError, TypeError, AttributeError) as trouble:
        raise ValueError(f"not a list of links and addresses: {trouble!r}") from trouble


def _interface(link: Mapping[str, Any], devices: Sequence[Device], aside: Aside) -> Interface:
    name = link["ifname"]
    on_it = places_of(devices, name)
    return {
        "name": name,
        "mac": link.get("address"),
        "mtu": link["mtu"],
        "up": "UP" in link["flags"],
        # IFF_LOWER_UP. An interface that is down never has it, whatever is plugged in.
        "carrier": "LOWER_UP" in link["flags"],
        "addresses": [f"{one['local']}/{one['prefixlen']}" for one in link["addr_info"] if "local" in one],
        "hca": on_it[0].device["name"] if on_it else None,
        **aside,
    }


def place_of(result: Result, rail: Rail) -> Place | None:
    """The RDMA device and the port of a rail, with all their facts; None where the rail has none."""
    found = places_of(result["devices"], rail["interface"]) if rail["interface"] else []
    return found[0] if found else None


def number(text: str | None) -> float | None:
    """The number that a sysfs file begins with, as "200 Gb/sec (4X HDR)" or "32.0 GT/s PCIe"; None without one."""
    found = re.match(r"\d+(\.\d+)?", text or "")
    return float(found[0]) if found else None
