# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A node's rails held against the plan: each fault is found by its name."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._fabric_check import (
    ARP,
    check_rails,
    config_differs,
    settings_differ,
)

RAILS = [
    {"interface": "enp1s0f1np1", "hca": "", "subnet": "192.168.100.0/24"},
    {"interface": "enP2p1s0f1np1", "hca": "", "subnet": "192.168.101.0/24"},
]
OWN = {f"{key}_own": value for key, value in ARP.items()}
RANK = {
    "host": "spark-0",
    "addresses": ["192.168.100.11", "192.168.101.11"],
    "interfaces": ["enp1s0f1np1", "enP2p1s0f1np1"],
    "hcas": ["rocep1s0f1", "roceP2p1s0f1"],
}


def good() -> dict[str, Any]:
    """What rdma_info tells of a node that is as planned."""
    links, rails, devices = [], [], []
    for interface, hca, address in zip(RANK["interfaces"], RANK["hcas"], RANK["addresses"], strict=True):
        link = {"name": interface, "mtu": 9000, "up": True, "carrier": True, "speed_mbps": 200000, **ARP, **OWN}
        links.append({**link, "addresses": [f"{address}/24"], "hca": hca})
        rails.append({"address": address, "interface": interface, "hca": hca, "problem": None, "mend": None})
        devices.append({"name": hca, "pci": {"width": 4}})
    lan = {"name": "enP7s7", "mtu": 1500, "up": True, "carrier": True, "speed_mbps": 10000}
    links.append(
        {
            **lan,
            **dict.fromkeys(ARP, 0),
            **dict.fromkeys(OWN, 0),
            "addresses": ["10.0.0.7/24", "fe80::1/64"],
            "hca": None,
        }
    )
    return {"interfaces": links, "rails": rails, "devices": devices}


def found(change: Callable[[dict[str, Any]], None], *, rdma: bool = True) -> list[tuple[str, str, str]]:
    """Findings of a node that differs from a good one."""
    seen = copy.deepcopy(good())
    change(seen)
    findings = check_rails(RANK, RAILS, seen, 9000, rdma=rdma)
    assert all(finding["mend"] and "{" not in finding["mend"] for finding in findings)
    return [(finding["id"], finding["severity"], finding["interface"]) for finding in findings]


def link(number: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    """Another value of an interface."""
    return lambda seen: seen["interfaces"][number].update(values)


def place(**values: Any) -> Callable[[dict[str, Any]], None]:
    """Another value of the first rail."""
    return lambda seen: seen["rails"][0].update(values)


def test_nothing_is_found_where_all_is_right() -> None:
    assert found(lambda seen: None) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (link(0, name="other"), [("FABRIC.INTERFACE", "fail")]),
        (link(0, up=False, carrier=False), [("FABRIC.DOWN", "fail")]),
        # A pulled cable is one finding, though the address goes with it.
        (link(0, carrier=False, addresses=[]), [("FABRIC.CARRIER", "fail")]),
        (link(0, mtu=1500), [("FABRIC.MTU", "fail")]),
        (link(0, speed_mbps=100000), [("FABRIC.SPEED", "warn")]),
        (link(0, addresses=[]), [("FABRIC.ADDRESS", "fail")]),
        (link(0, addresses=["192.168.100.11/16"]), [("FABRIC.ADDRESS", "fail")]),
        (link(0, addresses=["192.168.100.11/24", "169.254.3.4/16"]), [("FABRIC.ADDRESS", "fail")]),
        (link(0, addresses=["192.168.100.11/24", "fe80::2/64"]), [("FABRIC.IPV6", "warn")]),
        (link(0, arp_ignore=0, arp_ignore_own=0), [("FABRIC.ARP", "warn")]),
        (link(0, arp_announce=1, arp_announce_own=1), [("FABRIC.ARP", "warn")]),
        # That of all counts, and is not the rails' to set.
        (link(0, arp_ignore=8), [("FABRIC.ARP_ALL", "warn")]),
        (link(0, arp_ignore=2, arp_announce=None), []),
        (link(2, addresses=["192.168.100.99/24"]), [("FABRIC.SUBNET", "fail")]),
        (place(hca="mlx5_1"), [("FABRIC.HCA", "fail")]),
        (place(hca=None, problem="no RDMA device", mend="Load it."), [("FABRIC.HCA", "fail")]),
        (place(problem="no RoCE v2 GID", mend="Wait."), [("FABRIC.GID", "fail")]),
        (lambda seen: seen["devices"][0].update(pci={"width": 2}), [("FABRIC.PCIE_WIDTH", "fail")]),
    ],
)
def test_faults(change: Callable[[dict[str, Any]], None], expected: list[tuple[str, str]]) -> None:
    assert found(change) == [(*entry, "enp1s0f1np1") for entry in expected]


def test_both_rails_in_one_subnet() -> None:
    """The second rail has an address of the first's network."""
    ids = found(link(1, addresses=["192.168.100.111/24"]))
    assert ids == [
        ("FABRIC.SUBNET", "fail", "enp1s0f1np1"),
        ("FABRIC.ADDRESS", "fail", "enP2p1s0f1np1"),
    ]


def test_rdma_is_not_asked_for_where_it_is_not_planned() -> None:
    assert found(place(hca=None, problem="no RDMA device", mend="Load it."), rdma=False) == []


@pytest.mark.parametrize(
    ("name", "differs"),
    [("FABRIC.MTU", True), ("FABRIC.ADDRESS", True), ("FABRIC.ARP", False), ("FABRIC.CARRIER", False)],
)
def test_what_configuring_again_can_mend(name: str, differs: bool) -> None:
    assert config_differs([{"id": name}]) is differs
    # What the kernel is told again leaves links and addresses alone.
    assert settings_differ([{"id": name}]) is (name == "FABRIC.ARP")
