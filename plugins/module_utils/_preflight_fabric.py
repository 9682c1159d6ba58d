# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Checks of the fabric: links, addresses, MTU and RDMA of the rails."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._fabric_check import (
    ARP,
    ARP_GOOD,
    CABLE,
    LINK_GBPS,
    PCIE_LANES,
    arp_of_all,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._fabric_netplan import obstacles
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_check import (
    BEFORE,
    ERROR,
    FABRIC,
    INFO,
    RDMA,
    READY,
    WARNING,
    Checks,
    Cluster,
    Problem,
    Unjudged,
    differing,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_node import Node, NotApplicableError

CHECKS = Checks()

LINK_LOCAL = ipaddress.IPv4Network("169.254.0.0/16")
"""What zeroconf gives (RFC 3927); it changes from boot to boot."""

ERROR_COUNTERS = ("out_of_sequence", "packet_seq_err", "rnr_nak_retry_err", "local_ack_timeout_err")
"""Counters of the mlx5 driver that grow when packets are lost."""

AGAIN = "Run site.yml --tags fabric."


@CHECKS.node(
    "FABRIC.INTERFACE",
    ERROR,
    BEFORE,
    scope=FABRIC,
    title="The rails' interfaces are there",
    why="A name that is wrong by a letter is a rail that carries nothing.",
    mend="Correct cluster_rails (`ip -brief link` lists the names), or load the driver of the card (`modprobe "
    "mlx5_core`).",
)
def interface(node: Node, _: Cluster) -> Iterable[Problem]:
    """By name."""
    links = node.links()
    for name in node.rank["interfaces"]:
        if name not in links:
            yield Problem(f"no {name}; there are {', '.join(sorted(set(links) - {'lo'}))}", name)


@CHECKS.node(
    "FABRIC.UP",
    ERROR,
    READY,
    scope=FABRIC,
    title="The rails are up",
    why="Nothing passes otherwise.",
    mend=AGAIN,
)
def up(node: Node, _: Cluster) -> Iterable[Problem]:
    """As `ip link` says."""
    for name, link in node.rail_links():
        if not link["up"]:
            yield Problem(f"{name} is down", "up")


@CHECKS.node(
    "FABRIC.CARRIER",
    ERROR,
    BEFORE,
    scope=FABRIC,
    title="The rails have a link",
    why="A cable that is out, or a switch's port that is down, is found here and not at NCCL's time-out.",
    mend=CABLE.format(interface="INTERFACE"),
)
def carrier(node: Node, _: Cluster) -> Iterable[Problem]:
    """An interface that is down tells nothing of its cable."""
    links = [(name, link) for name, link in node.rail_links() if link["up"]]
    if not links:
        raise NotApplicableError("the rails are down: nothing is known of their cables yet")
    for name, link in links:
        if not link["carrier"]:
            yield Problem(f"{name} has no carrier", "a link")


@CHECKS.node(
    "FABRIC.SPEED",
    WARNING,
    BEFORE,
    scope=RDMA,
    title=f"Each rail's link has {LINK_GBPS} Gb/s",
    why="A switch may negotiate 100: decoding loses up to 3 percent, and prefill more.",
    mend=f"Set the switch's port to {LINK_GBPS} Gb/s without splitting, or take a cable that carries it.",
)
def speed(node: Node, _: Cluster) -> Iterable[Problem]:
    """A link that is down has no speed."""
    known = [(name, link["speed_mbps"]) for name, link in node.rail_links() if link["speed_mbps"]]
    if not known:
        raise NotApplicableError("the drivers tell no speed: no link, or no hardware")
    for name, mbps in known:
        if mbps < LINK_GBPS * 1000:
            yield Problem(f"{name}: {mbps // 1000} Gb/s", f"{LINK_GBPS} Gb/s")


@CHECKS.node(
    "FABRIC.PCIE_WIDTH",
    ERROR,
    BEFORE,
    scope=RDMA,
    title=f"Each rail's device has {PCIE_LANES} PCIe lanes",
    why="Older firmware wired the second function of a cage with two: half the bandwidth on that rail.",
    mend="Update the firmware of the Spark (`fwupdmgr update`), and power it off and on.",
)
def pcie_width(node: Node, _: Cluster) -> Iterable[Problem]:
    """Lanes in use."""
    known = [(device["name"], device["pci"]["width"]) for _, device in node.rail_devices() if device["pci"]]
    if not known:
        raise NotApplicableError("the RDMA devices are no PCIe devices")
    for name, width in known:
        if width and width < PCIE_LANES:
            yield Problem(f"{name}: x{width}", f"x{PCIE_LANES}")


@CHECKS.node(
    "FABRIC.TWINS",
    WARNING,
    BEFORE,
    scope=RDMA,
    title="Both twins of a cage are rails",
    why="One interface of a cage carries half of what its cable can: 98 to 112 Gb/s instead of 161 to 190.",
    mend="Name both interfaces of the cage in cluster_rails, each with a subnet of its own.",
)
def twins(node: Node, _: Cluster) -> Iterable[Problem]:
    """Twins have the same PCI function in two domains."""
    devices = node.rail_devices()
    names = {device["name"] for _, device in devices}
    for _rail, device in devices:
        for twin in device["twins"]:
            if twin not in names:
                yield Problem(f"{device['name']} is used, its twin {twin} is not", "both")


@CHECKS.node(
    "FABRIC.VERBS",
    ERROR,
    BEFORE,
    scope=RDMA,
    title="The kernel offers RDMA to programs (/dev/infiniband)",
    why="Without it NCCL would fall back to sockets, ten times slower; here it is told to fail instead.",
    mend="Run `modprobe ib_uverbs mlx5_ib`; both come with DGX OS.",
)
def verbs(node: Node, _: Cluster) -> Iterable[Problem]:
    """One uverbs device for each RDMA device."""
    if not node.value("verbs"):
        yield Problem("no uverbs device in /dev/infiniband", "one for each RDMA device")


@CHECKS.node(
    "FABRIC.HCA_ACTIVE",
    ERROR,
    READY,
    scope=RDMA,
    title="The rails' RDMA ports are active",
    why="NCCL leaves out what is not, or fails.",
    mend="See the cable and the switch, and `rdma link`; set the interface down and up.",
)
def hca_active(node: Node, _: Cluster) -> Iterable[Problem]:
    """As sysfs says."""
    for name, device in node.rail_devices():
        for port in device["ports"]:
            if port["netdev"] == name and port["state"] != "ACTIVE":
                yield Problem(f"{device['name']} port {port['port']} is {port['state']}", "ACTIVE")


@CHECKS.node(
    "FABRIC.HCA_ADDRESS",
    ERROR,
    READY,
    scope=RDMA,
    title="Each rail's RDMA device is on the interface that carries the rail's address",
    why="A device whose port does not reach the peers makes NCCL hang, or fall back.",
    mend="Correct or remove `hca` in cluster_rails; `rdma link` lists the devices.",
)
def hca_address(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """The plan's device where the inventory names one, any otherwise."""
    node.places()
    for place, rail in zip(node.rdma()["rails"], cluster.rails):
        if place["interface"] and not place["hca"]:
            yield Problem(f"no RDMA device on {place['interface']}", rail["hca"] or "one")
        elif place["interface"] and rail["hca"] and place["hca"] != rail["hca"]:
            yield Problem(f"{place['hca']} has {place['address']}", str(rail["hca"]))


@CHECKS.node(
    "FABRIC.GID",
    ERROR,
    READY,
    scope=RDMA,
    title="Each rail has exactly one RoCE v2 GID for its IPv4 address",
    why="The GID's index drifts and is left unset; NCCL takes the first RoCE v2 GID of an IPv4 address that it finds.",
    mend="Take addresses that are not the rail's off its interface, then set it down and up.",
)
def gid(node: Node, _: Cluster) -> Iterable[Problem]:
    """What _rdma_rails says of a rail, from its device on."""
    known = [place for place in node.places() if place["hca"]]
    if not known:
        raise NotApplicableError("there is no RDMA device on the rails' addresses")
    for place in known:
        if place["problem"] and "GID" in place["problem"]:
            yield Problem(place["problem"], f"one for {place['address']}", mend=place["mend"] or "")


@CHECKS.node(
    "FABRIC.ADDRESS",
    ERROR,
    READY,
    scope=FABRIC,
    title="Each rail has its planned IPv4 address and no other",
    why="Ranks listen on it and NCCL finds its rails by it; a stale second one adds a GID.",
    mend=f"{AGAIN} If the other address comes back, `netplan get` shows who gives it.",
)
def address(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """Link-local ones are told by FABRIC.LINK_LOCAL."""
    links = node.links()
    for name, wanted, rail in zip(node.rank["interfaces"], node.rank["addresses"], cluster.rails):
        if name in links and links[name]["carrier"]:
            full = f"{wanted}/{ipaddress.IPv4Network(rail['subnet']).prefixlen}"
            have = [entry for entry in versions(links[name], 4) if ipaddress.ip_interface(entry).ip not in LINK_LOCAL]
            if have != [full]:
                yield Problem(f"{name}: {', '.join(have) or 'none'}", full)


@CHECKS.node(
    "FABRIC.SUBNETS",
    ERROR,
    BEFORE,
    scope=FABRIC,
    title="No other interface is in a rail's subnet, the LAN's least of all",
    why="With two interfaces in one subnet the kernel sends everything over one of them, and answers on the wrong one.",
    mend="Give that interface another subnet, or the rail (cluster_rails).",
)
def subnets(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """What the rails themselves have is told by FABRIC.ADDRESS."""
    for rail in cluster.rails:
        network = ipaddress.IPv4Network(rail["subnet"])
        for name, link in node.links().items():
            for entry in versions(link, 4) if name not in node.rank["interfaces"] else ():
                if ipaddress.IPv4Interface(entry).ip in network:
                    yield Problem(f"{name} has {entry}", f"{network} on {rail['interface']} alone")


@CHECKS.node(
    "FABRIC.LINK_LOCAL",
    WARNING,
    READY,
    scope=FABRIC,
    title="No rail has a 169.254 address",
    why="It changes from boot to boot, adds a GID, and mDNS gives it out for the node's name.",
    mend=f"{AGAIN} It turns link-local addresses off.",
)
def link_local(node: Node, _: Cluster) -> Iterable[Problem]:
    """IPv4's; IPv6's are told by FABRIC.IPV6."""
    for name, link in node.rail_links():
        found = [entry for entry in versions(link, 4) if ipaddress.ip_interface(entry).ip in LINK_LOCAL]
        if found:
            yield Problem(f"{name} has {', '.join(found)}", "static addresses alone")


@CHECKS.node(
    "FABRIC.IPV6",
    WARNING,
    READY,
    scope=FABRIC,
    title="No rail has an IPv6 address",
    why="It is a GID more, and the index of the right one drifts with it.",
    mend=AGAIN,
)
def ipv6(node: Node, _: Cluster) -> Iterable[Problem]:
    """Any."""
    for name, link in node.rail_links():
        found = versions(link, 6)
        if found:
            yield Problem(f"{name} has {', '.join(found)}", "none")


@CHECKS.group(
    "FABRIC.ADDRESS_UNIQUE",
    ERROR,
    READY,
    scope=FABRIC,
    title="No node has an address that is planned for another",
    why="Two machines of one address take each other's packets, a few at a time.",
    mend=f"{AGAIN} If it is still there, take it off that node in netplan.",
)
def address_unique(nodes: Sequence[Node], cluster: Cluster) -> Iterable[Problem | Unjudged]:
    """On any interface."""
    planned = {address: rank["host"] for rank in cluster.plan["ranks"] for address in rank["addresses"]}
    for node in nodes:
        for name, link in node.links().items():
            for entry in versions(link, 4):
                owner = planned.get(entry.partition("/")[0])
                if owner and owner != node.host:
                    found = f"{name} has {entry}, which is planned for {owner}"
                    yield Problem(found, "its own addresses", [node.host])


@CHECKS.node(
    "FABRIC.MTU",
    ERROR,
    READY,
    scope=FABRIC,
    title="Each rail has the planned MTU (fabric_mtu)",
    why="Below 4200 RDMA takes packets of a quarter of the size; one end that differs ends in IBV_WC_RETRY_EXC_ERR.",
    mend=f"{AGAIN} All nodes and the switch need the same MTU.",
)
def mtu(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """In bytes."""
    for name, link in node.rail_links():
        if link["mtu"] != cluster.mtu:
            yield Problem(f"{name}: {link['mtu']}", str(cluster.mtu))


@CHECKS.group(
    "FABRIC.MTU_EQUAL",
    ERROR,
    READY,
    scope=FABRIC,
    title="All nodes' rails have the same MTU",
    why="Small packets pass and large ones vanish: everything looks well until the first large transfer.",
    mend=AGAIN,
)
def mtu_equal(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """All rails of all nodes."""
    return differing(nodes, lambda node: "/".join(str(link["mtu"]) for _, link in node.rail_links()), "MTU")


@CHECKS.node(
    "FABRIC.NETPLAN",
    ERROR,
    BEFORE,
    scope=FABRIC,
    title="Nobody else defines the rails, and the node is managed by none of them",
    why="netplan merges all definitions of an interface, and one that is configured anew cuts off who comes by it: the "
    "stage fabric would end there.",
    mend="Take the definition out, or let the role do it: fabric_migrate_netplan.",
)
def netplan(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """What the role fabric refuses."""
    told, rails = node.value("netplan"), [name for name, _ in node.rail_links()]
    for one in obstacles(told["conflicts"], told["management"], rails, migrate=cluster.migrate_netplan):
        yield Problem(f"{one['path']}: {one['definition']}: {one['problem']}", "the role's own", mend=one["mend"])


@CHECKS.node(
    "FABRIC.MTU_KEPT",
    WARNING,
    READY,
    scope=FABRIC,
    title="The MTU is written down in netplan",
    why="One that was set by hand is gone with the next boot.",
    mend=AGAIN,
)
def mtu_kept(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """In a definition that carries the interface's name."""
    told = node.value("netplan")
    if not told["files"]:
        raise NotApplicableError("the node does not use netplan")
    for name, kept in told["mtus"].items():
        if kept != str(cluster.mtu):
            yield Problem(f"{name}: {kept or 'none'}", str(cluster.mtu))


@CHECKS.node(
    "FABRIC.PING",
    ERROR,
    READY,
    scope=FABRIC,
    title="Every peer answers on every rail, packets of the whole MTU",
    why="It is the one test that sees cable, switch, addresses, MTU and firewall of both ends.",
    mend="See that the peer is up; where small packets pass, the switch's MTU is smaller. playbooks/fabric_test.yml "
    "looks closer.",
)
def ping(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """One packet that may not be fragmented; from both ends, as both nodes ask."""
    for seen in node.value("pings"):
        if not seen["whole"]:
            what = f"answers small packets only (MTU below {cluster.mtu})" if seen["small"] else "no answer"
            yield Problem(f"{seen['interface']} to {seen['address']} ({seen['host']}): {what}", "an answer")


@CHECKS.node(
    "FABRIC.ARP",
    WARNING,
    READY,
    scope=FABRIC,
    title="Each rail answers only for its own address",
    why="Both rails hang on one switch; by default Linux answers for an address on every interface, and packets "
    "come in by the wrong rail.",
    mend=AGAIN,
)
def arp(node: Node, _: Cluster) -> Iterable[Problem]:
    """As it is in force."""
    for name, link in node.rail_links():
        for key, wanted in ARP.items():
            if link[key] is None:
                raise NotApplicableError(f"{key} of {name} can't be read")
            if link[key] not in ARP_GOOD[key]:
                of_all = arp_of_all(key) if link[f"{key}_own"] == wanted else ""
                yield Problem(f"{name}: {key} {link[key]}", f"{wanted}", mend=of_all)


@CHECKS.node(
    "FABRIC.RP_FILTER",
    INFO,
    READY,
    scope=FABRIC,
    title="The rails' reverse path filter is not strict",
    why="A strict one drops, without a word, what comes in by another rail than the answer would go; with a subnet "
    "for each rail that should never happen.",
    mend="Where peers do not answer, try `sysctl net.ipv4.conf.all.rp_filter=2`.",
)
def rp_filter(node: Node, _: Cluster) -> Iterable[Problem]:
    """1 is strict; the higher of the interface's setting and that of all counts."""
    for name, _link in node.rail_links():
        values = [int(node.need(f"/proc/sys/net/ipv4/conf/{place}/rp_filter")) for place in ("all", name)]
        if max(values) == 1:
            yield Problem(f"{name}: strict (1)", "loose (2) or none (0)")


@CHECKS.group(
    "FABRIC.FIRMWARE_EQUAL",
    WARNING,
    BEFORE,
    scope=RDMA,
    title="All ConnectX-7 have the same firmware",
    why="Lanes, link training and RoCE's retransmission differ with it.",
    mend="Update the nodes that are behind (`fwupdmgr update`), and power them off and on.",
)
def firmware_equal(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """Of the rails' devices."""

    def firmware(node: Node) -> str:
        found = sorted({device["firmware"] for _, device in node.rail_devices() if device["firmware"]})
        if not found:
            raise NotApplicableError("the RDMA devices have no firmware")
        return "/".join(found)

    return differing(nodes, firmware, "firmware")


@CHECKS.node(
    "FABRIC.ERRORS",
    INFO,
    READY,
    scope=RDMA,
    title="No rail has lost packets since the node's start",
    why="RoCE stalls for each; a few are from the start of a link, many are a bad cable or a switch without buffers.",
    mend="Look again after an hour under load (`rdma statistic`): if they grow, swap the cable and see the switch's "
    "counters.",
)
def errors(node: Node, _: Cluster) -> Iterable[Problem]:
    """The driver's counters."""
    for _rail, device in node.rail_devices():
        for port in device["ports"]:
            counters = port["counters"]
            lost = [f"{name} {counters[name]}" for name in ERROR_COUNTERS if counters.get(name)]
            if lost:
                yield Problem(f"{device['name']}: {', '.join(lost)}", "none")


def versions(link: Mapping[str, Any], version: int) -> list[str]:
    """An interface's addresses of IPv4 or IPv6, with prefix lengths."""
    return [entry for entry in link["addresses"] if (":" in entry) == (version == 6)]
