# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A node's rails as they are, held against the plan: what is wrong, where, and how to mend it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

LINK_GBPS = 200
"""What `ethtool` must say of a Spark's port; a switch may negotiate 100."""

PCIE_LANES = 4
"""Lanes of each of the twins; older firmware wired the second with two."""

ARP = {"arp_ignore": 1, "arp_announce": 2}
"""What rails have: both hang on one switch, and by default Linux answers for an address on every interface, so that the
peer's packets come in by the wrong rail (Documentation/networking/ip-sysctl.rst)."""

ARP_GOOD: Mapping[str, frozenset[int]] = {"arp_ignore": frozenset({1, 2}), "arp_announce": frozenset({2})}
"""What does as well. arp_ignore of 3 and more goes by other things than the interface, and 8 answers for nothing."""

APPLIED = frozenset({"FABRIC.ADDRESS", "FABRIC.MTU", "FABRIC.IPV6", "FABRIC.DOWN"})
"""Findings that applying the configuration anew can mend."""

CABLE = "Look at the cable and the switch's port; `ip link show {interface}` says NO-CARRIER until it has light."


@dataclass(frozen=True)
class RailFinding:
    """One thing that is wrong with a rail of a node. severity: `fail`, or `warn` where the group would still serve."""

    id: str
    severity: str
    host: str
    interface: str
    found: str
    expected: str
    mend: str


def check_rails(
    rank: Mapping[str, Any], rails: Sequence[Mapping[str, Any]], seen: Mapping[str, Any], mtu: int, *, rdma: bool
) -> list[dict[str, str]]:
    """All findings of one node, as plain data.

    rank: its entry of the plan. rails: the plan's. seen: the result of rdma_info, asked for the rank's addresses.
    mtu: in bytes. rdma: whether the rails are RDMA.
    """
    links = {link["name"]: link for link in seen["interfaces"]}
    findings: list[RailFinding] = []
    for number, rail in enumerate(rails):
        report = _Reporter(str(rank["host"]), str(rail["interface"]), findings)
        link = links.get(rail["interface"])
        if link is None:
            names = ", ".join(sorted(name for name in links if name != "lo"))
            mend = "Correct cluster_rails, or load the driver of the card."
            report("FABRIC.INTERFACE", f"not there; there are {names}", "the interface", mend)
            continue
        _check_link(report, link, mtu)
        if link["carrier"]:  # networkd takes an address away with the carrier
            _check_addresses(report, rank["addresses"][number], rail, links)
        if rdma and link["up"] and link["carrier"]:
            _check_speed(report, link["speed_mbps"] or 0)
            _check_rdma(report, rank["hcas"][number], seen["rails"][number], seen["devices"])
    return [asdict(finding) for finding in findings]


def arp_of_all(key: str) -> str:
    """The mend where a rail's own setting is right, and that of all interfaces is higher and counts."""
    return f"Set net.ipv4.conf.all.{key} to 0: the higher of both counts."


def config_differs(findings: Sequence[Mapping[str, str]]) -> bool:
    """Whether a finding is one that applying the network configuration anew can mend."""
    return any(finding["id"] in APPLIED for finding in findings)


def settings_differ(findings: Sequence[Mapping[str, str]]) -> bool:
    """Whether a finding is one that the rails' kernel settings can mend, without a touch to links and addresses."""
    return any(finding["id"] == "FABRIC.ARP" for finding in findings)


class _Reporter:
    """Takes findings of one rail of one node."""

    def __init__(self, host: str, interface: str, findings: list[RailFinding]) -> None:
        self._where, self._findings = (host, interface), findings

    def __call__(self, name: str, found: str, expected: str, mend: str, *, severity: str = "fail") -> None:
        host, interface = self._where
        mend = mend.format(interface=interface)
        self._findings.append(RailFinding(name, severity, host, interface, found, expected, mend))


def _check_link(report: _Reporter, link: Mapping[str, Any], mtu: int) -> None:
    if not link["up"]:
        report("FABRIC.DOWN", "down", "up", "Run site.yml --tags fabric; it brings the interface up.")
    elif not link["carrier"]:
        report("FABRIC.CARRIER", "no carrier", "a link", CABLE)
    for key, wanted in ARP.items():
        # One that can't be read is no finding.
        if link[key] is None or link[key] in ARP_GOOD[key]:
            continue
        if link[f"{key}_own"] == wanted:
            report("FABRIC.ARP_ALL", f"{key} {link[key]}", str(wanted), arp_of_all(key), severity="warn")
        else:
            mend = "Run site.yml --tags fabric; a file of sysctl.d that is read later may set it back."
            report("FABRIC.ARP", f"{key} {link[key]}", str(wanted), mend, severity="warn")
    if link["mtu"] != mtu:
        mend = f"Run site.yml --tags fabric; all nodes and the switch need an MTU of {mtu}."
        report("FABRIC.MTU", str(link["mtu"]), str(mtu), mend)


def _check_speed(report: _Reporter, mbps: int) -> None:
    """A virtual interface tells no speed."""
    if 0 < mbps < LINK_GBPS * 1000:
        mend = f"Set the switch's port to {LINK_GBPS} Gb/s without splitting, or take a cable that carries it."
        report("FABRIC.SPEED", f"{mbps // 1000} Gb/s", f"{LINK_GBPS} Gb/s", mend, severity="warn")


def _check_addresses(
    report: _Reporter, address: str, rail: Mapping[str, Any], links: Mapping[str, Mapping[str, Any]]
) -> None:
    network = ipaddress.IPv4Network(rail["subnet"])
    wanted = f"{address}/{network.prefixlen}"
    own = [str(entry) for entry in links[rail["interface"]]["addresses"]]
    version4 = [entry for entry in own if ":" not in entry]
    if version4 != [wanted]:
        mend = "Run site.yml --tags fabric; if the address comes back, `netplan get` shows who gives it."
        report("FABRIC.ADDRESS", ", ".join(version4) or "none", wanted, mend)
    version6 = [entry for entry in own if ":" in entry]
    if version6:
        mend = "Run site.yml --tags fabric; NCCL may choose an IPv6 GID while there is one."
        report("FABRIC.IPV6", ", ".join(version6), "no IPv6 address", mend, severity="warn")
    for name, link in links.items():
        for entry in link["addresses"]:
            if name != rail["interface"] and ":" not in entry and ipaddress.ip_interface(entry).ip in network:
                mend = f"Give {name} another subnet: two interfaces in one send all traffic over one of them."
                report("FABRIC.SUBNET", f"{name} has {entry}", f"{network} on {rail['interface']} alone", mend)


def _check_rdma(report: _Reporter, hca: str, place: Mapping[str, Any], devices: Sequence[Mapping[str, Any]]) -> None:
    if place["interface"] is None:
        return  # told as an address
    if place["hca"] != hca and (place["hca"] or not place["problem"]):
        mend = "Correct or remove `hca` in cluster_rails; `rdma link` lists the devices."
        report("FABRIC.HCA", str(place["hca"] or "none"), hca, mend)
    elif place["problem"]:
        report(
            "FABRIC.GID" if place["hca"] else "FABRIC.HCA", place["problem"], f"RoCE v2 on {hca}", place["mend"] or ""
        )
    for device in devices:
        pci = device["pci"]
        if device["name"] == place["hca"] and pci and pci["width"] and pci["width"] < PCIE_LANES:
            mend = "Update the firmware of the Spark and power it off and on: half the lanes are half the speed."
            report("FABRIC.PCIE_WIDTH", f"x{pci['width']}", f"x{PCIE_LANES}", mend)
