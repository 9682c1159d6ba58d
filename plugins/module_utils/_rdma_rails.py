# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Where a node's fabric addresses are, and what is wrong with a rail: pure functions over the facts of rdma_info."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TypedDict

from ansible_collections.dgx_spark.sglang.plugins.module_utils._rdma import (
    ROCE_V2,
    Gid,
    Interface,
    Place,
    Rail,
    Result,
    place_of,
)


def rails_of(result: Result, addresses: Sequence[str]) -> list[Rail]:
    """Where each IPv4 address of this node is on the fabric, in their order; result["rails"] isn't looked at."""
    return [_rail(result, address) for address in addresses]


def mistaken_addresses(addresses: Sequence[str]) -> list[str]:
    """A sentence with its mend for each that isn't a plain IPv4 address."""
    return [
        f"addresses: {address!r} is not an IPv4 address. Mend: give it as in 192.168.100.11, without a prefix length."
        for address in addresses
        if not _is_ipv4(address)
    ]


def _is_ipv4(address: str) -> bool:
    try:
        return bool(ipaddress.IPv4Address(address))
    except ValueError:
        return False


def _rail(result: Result, address: str) -> Rail:
    """The first problem that is found counts, as the others follow from it."""
    rail: Rail = {
        "address": address, "interface": None, "hca": None, "port": None, "gid_index": None,
        "problem": None, "mend": None,
    }  # fmt: skip
    having = [one for one in result["interfaces"] if address in (mine.partition("/")[0] for mine in one["addresses"])]
    if len(having) != 1:
        return {**rail, **_misplaced(address, having)}
    (interface,) = having
    rail["interface"] = interface["name"]
    place = place_of(result, rail)
    if not place:
        return {**rail, **_without_rdma(result, address, interface)}
    device, port = place
    rail["hca"], rail["port"] = device["name"], port["port"]
    if port["state"] != "ACTIVE":
        return {**rail, **_inactive(place, interface)}
    return {**rail, **_gid(place, address, interface["name"])}


class _Verdict(TypedDict, total=False):
    """What is added to a rail."""

    gid_index: int | None
    problem: str
    mend: str


def _misplaced(address: str, having: Sequence[Interface]) -> _Verdict:
    if not having:
        mend = "Give it to the rail's interface in netplan, then run `netplan apply`."
        return {"problem": f"no interface has {address}", "mend": mend}
    names = " and ".join(interface["name"] for interface in having)
    mend = "Leave it on the interface of its rail, and take it off the others in netplan."
    return {"problem": f"{names} have {address}, which can be on one interface only", "mend": mend}


def _without_rdma(result: Result, address: str, interface: Interface) -> _Verdict:
    able = ", ".join(one["name"] for one in result["interfaces"] if one["hca"])
    mend = f"Give the address to an interface with an RDMA device: {able}."
    if not able:
        mend = "Load the driver with `modprobe mlx5_ib`, and see that `rdma link` shows the interface."
    return {"problem": f"{interface['name']} has {address}, but no RDMA device is on it", "mend": mend}


def _inactive(place: Place, interface: Interface) -> _Verdict:
    name = interface["name"]
    mend = f"Set the link down and up (`ip link set {name} down`, then `up`), and see what `dmesg` says of it."
    if not interface["carrier"]:
        mend = f"Plug in the cable of {name}, and see that the port at its other end is up."
    if not interface["up"]:
        mend = f"Set the interface up, and in netplan for the next boot: `ip link set {name} up`."
    port = place.port
    state = f"{port['state']} ({port['physical_state']})"
    return {"problem": f"port {port['port']} of {place.device['name']} is {state}, not ACTIVE", "mend": mend}


def _gid(place: Place, address: str, interface: str) -> _Verdict:
    """The index drifts with every change of addresses, so it is looked up by type and address."""
    where = f"port {place.port['port']} of {place.device['name']}"
    anew = f"Set {interface} down and up, so that the kernel makes its GIDs anew"
    ours = [gid for gid in place.port["gids"] if gid["address"] == address]
    right = [gid for gid in ours if gid["type"] == ROCE_V2]
    if not right:
        there = ", ".join(sorted({gid["type"] for gid in ours}))
        only = f", only {there}" if there else ""
        return {"problem": f"{where} has no {ROCE_V2} GID for {address}{only}", "mend": f"{anew}."}
    indexes = " and ".join(str(gid["index"]) for gid in right)
    if len(right) > 1:
        others = {gid["netdev"] for gid in right} - {interface, None}
        mend = f"Take {address} off {', '.join(sorted(map(str, others)))} in netplan." if others else f"{anew}."
        return {"problem": f"{where} has {len(right)} {ROCE_V2} GIDs for {address}: {indexes}", "mend": mend}
    strange = {gid["address"]: gid["netdev"] or interface for gid in place.port["gids"] if _is_other(gid, address)}
    if not strange:
        return {"gid_index": right[0]["index"]}
    # NCCL_IB_GID_INDEX is left unset, so NCCL takes whichever RoCE v2 GID of an IPv4 address comes first.
    also = ", ".join(str(other) for other in strange)
    problem = f"{where} has a {ROCE_V2} GID not only for {address}, but for {also} too, and NCCL may take that"
    off = " and ".join(f"{other} off {netdev}" for other, netdev in strange.items())
    mend = f"Take {off}, in each file of /etc/netplan that gives it, as netplan adds up all files."
    return {"gid_index": right[0]["index"], "problem": problem, "mend": mend}


def _is_other(gid: Gid, address: str) -> bool:
    """Whether it is a RoCE v2 GID of another IPv4 address."""
    return gid["type"] == ROCE_V2 and gid["address"] != address and _is_ipv4(gid["address"] or "")
