"""The cables: a namespace with three bridges, and a namespace a node with three links.

The bridges live in a namespace of their own. On the host itself, the firewall rules of a container
engine would filter what passes a bridge, which looks like a dead cable. Nothing of the host's own
settings is changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.layout import (
    CONTROLLER_ADDRESS,
    CONTROLLER_LINK,
    LAN,
    LAN_MTU,
    NAMESPACE,
    NETWORKS,
    PREFIX_LENGTH,
    SERVICES_ADDRESS,
    Network,
    Node,
    mac,
)
from lab.run import attempt, run

_NETNS = Path("/run/netns")
# The bridge's end of the cable to the controller.
CONTROLLER_PORT = "controller"
# A new namespace starts with the host's values of these: forwarding between networks would join
# what must be apart.
_SYSCTLS = ("ipv4/ip_forward=0", "ipv6/conf/all/forwarding=0")


def path(namespace: str) -> Path:
    """The file by which podman joins a namespace."""
    return _NETNS / namespace


def namespaces() -> list[str]:
    """Names of all namespaces of the lab, living or dead."""
    if not _NETNS.is_dir():
        return []
    return sorted(
        entry.name for entry in _NETNS.iterdir() if entry.name == NAMESPACE or entry.name.startswith(f"{NAMESPACE}-")
    )


def batch(namespace: str | None, *commands: str) -> None:
    """Run a batch of `ip` commands, in a namespace or on the host."""
    where = [] if namespace is None else ["-n", namespace]
    run(["ip", *where, "-batch", "-"], text="\n".join(commands) + "\n")


def links(namespace: str | None) -> dict[str, dict[str, Any]]:
    """Links of a namespace by name, as `ip -json addr` shows them.

    Empty when the namespace is dead.
    """
    where = [] if namespace is None else ["-n", namespace]
    result = attempt(["ip", *where, "-json", "addr", "show"])
    if result.returncode != 0:
        return {}
    return {link["ifname"]: link for link in json.loads(result.stdout or "[]")}


def _is_up(link: dict[str, Any] | None, hardware: str, address: str | None, mtu: int) -> bool:
    if link is None or "UP" not in link["flags"]:
        return False
    addresses = {None, *(entry["local"] for entry in link["addr_info"])}
    return link["mtu"] == mtu and link["address"] == hardware and address in addresses


def make_namespace(name: str, *, ipv6: bool = True) -> None:
    """Make a namespace that joins no networks, with its loopback up."""
    run(["ip", "netns", "add", name])
    settings = (*_SYSCTLS, f"ipv6/conf/all/disable_ipv6={0 if ipv6 else 1}")
    assignments = "; ".join(
        f"echo {value} > /proc/sys/net/{key}" for key, value in (line.split("=") for line in settings)
    )
    run(["ip", "netns", "exec", name, "sh", "-c", assignments])
    batch(name, "link set lo up")


def join_controller(link: str, address: str, namespace: str, bridge: str) -> None:
    """Lay a cable from this machine to a bridge in a namespace; its end here is `link`, with an address."""
    batch(
        None,
        f"link add {link} address {mac(address)} type veth peer name {CONTROLLER_PORT} netns {namespace}",
        f"addr add {address}/{PREFIX_LENGTH} dev {link}",
        f"link set {link} up",
    )
    batch(namespace, f"link set {CONTROLLER_PORT} master {bridge} up")


def remove_namespace(name: str) -> None:
    """Remove a namespace of the lab and its links with it, in whatever state it is."""
    run(["ip", "netns", "del", name])


def _lab_is_whole() -> bool:
    inside = links(NAMESPACE)
    bridges = all(
        _is_up(
            inside.get(network.bridge),
            network.bridge_mac,
            SERVICES_ADDRESS if network is LAN else None,
            network.mtu,
        )
        for network in NETWORKS
    )
    own = links(None).get(CONTROLLER_LINK)
    controller = _is_up(own, mac(CONTROLLER_ADDRESS), CONTROLLER_ADDRESS, LAN_MTU)
    joined = inside.get(CONTROLLER_PORT, {})
    return bridges and controller and joined.get("master") == LAN.bridge and "UP" in joined["flags"]


def remove_controller_link() -> None:
    """Remove the controller's link, which takes its other end along."""
    attempt(["ip", "link", "del", CONTROLLER_LINK])


def remove_all() -> None:
    """Remove all namespaces and links of the lab."""
    remove_controller_link()
    for name in namespaces():
        remove_namespace(name)


def ensure_lab() -> None:
    """Make the lab's namespace with its bridges and the controller's link.

    A half-made one is made anew.
    """
    if _lab_is_whole():
        return
    # Without the bridges all nodes' cables hang loose, so those are made anew too.
    remove_all()
    make_namespace(NAMESPACE)
    # arp_ignore: an address of one bridge is not answered for on another.
    run(
        [
            "ip",
            "netns",
            "exec",
            NAMESPACE,
            "sh",
            "-c",
            "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore",
        ]
    )
    commands = []
    for network in NETWORKS:
        commands += [
            f"link add {network.bridge} address {network.bridge_mac} type bridge forward_delay 0",
            f"link set {network.bridge} mtu {network.mtu} up",
        ]
    commands += [
        f"addr add {SERVICES_ADDRESS}/{PREFIX_LENGTH} dev {LAN.bridge}",
    ]
    batch(NAMESPACE, *commands)
    join_controller(CONTROLLER_LINK, CONTROLLER_ADDRESS, NAMESPACE, LAN.bridge)


def is_whole(node: Node) -> bool:
    """Whether the node has all its links, plugged into the right bridges. What its rails carry is the node's own."""
    inside = links(node.namespace)
    outside = links(NAMESPACE)
    plugged = all(
        inside.get(network.interface, {}).get("address") == node.mac(network)
        and outside.get(node.port(network), {}).get("master") == network.bridge
        for network in NETWORKS
    )
    return plugged and _is_up(inside.get(LAN.interface), node.mac(LAN), node.address(LAN), LAN.mtu)


def make(node: Node) -> None:
    """Make the node's namespace and plug it in.

    What was left of an earlier one is removed first.
    """
    if node.namespace in namespaces():
        remove_namespace(node.namespace)
    make_namespace(node.namespace)
    for network in NETWORKS:
        attempt(["ip", "-n", NAMESPACE, "link", "del", node.port(network)])
    batch(NAMESPACE, *(line for network in NETWORKS for line in _plug(node, network)))
    # The rails are left as on a new Spark, for the role `fabric` to configure.
    batch(
        node.namespace,
        f"addr add {node.address(LAN)}/{PREFIX_LENGTH} dev {LAN.interface}",
        f"link set {LAN.interface} up",
    )


def _plug(node: Node, network: Network) -> list[str]:
    return [
        f"link add {node.port(network)} mtu {network.mtu} type veth"
        f" peer name {network.interface} mtu {LAN_MTU}"
        f" address {node.mac(network)} netns {node.namespace}",
        f"link set {node.port(network)} master {network.bridge} up",
    ]
