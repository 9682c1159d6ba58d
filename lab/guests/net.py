"""The guests' cables: a namespace with three bridges, a tap a card, and a link to the controller.

A cable can be pulled and plugged in elsewhere. The bridges live in a namespace of their own, where no firewall of the
host's filters what passes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab.guests.layout import (
    CONTROLLER_ADDRESS,
    CONTROLLER_LINK,
    MGMT,
    NAMESPACE,
    NETWORKS,
    UNPLUGGED,
    Guest,
)
from lab.layout import PREFIX_LENGTH, Network, mac
from lab.run import attempt, run

# The bridge's end of the cable to the controller.
_CONTROLLER_PORT = "controller"
# A new namespace starts with the host's values of these: forwarding between networks would join what must be apart.
_SYSCTLS = ("ipv4/ip_forward=0", "ipv6/conf/all/forwarding=0", "ipv6/conf/all/disable_ipv6=1")


def _batch(namespace: str | None, commands: list[str]) -> None:
    """Run a batch of `ip` commands, in a namespace or on the host."""
    where = [] if namespace is None else ["-n", namespace]
    run(["ip", *where, "-batch", "-"], text="\n".join(commands) + "\n")


def _links(namespace: str | None) -> dict[str, dict[str, Any]]:
    """Links of a namespace by name, as `ip -json link` shows them. Empty when there is no such namespace."""
    where = [] if namespace is None else ["-n", namespace]
    result = attempt(["ip", *where, "-json", "link", "show"])
    return {} if result.returncode else {link["ifname"]: link for link in json.loads(result.stdout or "[]")}


def _is_whole() -> bool:
    inside = _links(NAMESPACE)
    joined = inside.get(_CONTROLLER_PORT, {}).get("master") == MGMT.bridge
    return joined and CONTROLLER_LINK in _links(None) and all(network.bridge in inside for network in NETWORKS)


def ensure() -> bool:
    """Make the namespace, its bridges and the controller's link. Returns whether it had to: all cables are new then."""
    if _is_whole():
        return False
    remove()
    run(["ip", "netns", "add", NAMESPACE])
    settings = (line.split("=") for line in _SYSCTLS)
    script = "; ".join(f"echo {value} > /proc/sys/net/{key}" for key, value in settings)
    run(["ip", "netns", "exec", NAMESPACE, "sh", "-c", script])
    commands = ["link set lo up"]
    for network in NETWORKS:
        commands += [
            f"link add {network.bridge} address {network.bridge_mac} type bridge forward_delay 0 mcast_snooping 0",
            f"link set {network.bridge} mtu {network.mtu} up",
        ]
    _batch(NAMESPACE, commands)
    controller = [
        f"link add {CONTROLLER_LINK} address {mac(CONTROLLER_ADDRESS)} type veth"
        f" peer name {_CONTROLLER_PORT} netns {NAMESPACE}",
        f"addr add {CONTROLLER_ADDRESS}/{PREFIX_LENGTH} dev {CONTROLLER_LINK}",
        f"link set {CONTROLLER_LINK} up",
    ]
    _batch(None, controller)
    _batch(NAMESPACE, [f"link set {_CONTROLLER_PORT} master {MGMT.bridge} up"])
    return True


def remove() -> None:
    """Remove the namespace and the controller's link, in whatever state they are. The guests must have ended."""
    attempt(["ip", "link", "del", CONTROLLER_LINK])
    if Path("/run/netns", NAMESPACE).exists():
        run(["ip", "netns", "del", NAMESPACE])


def plug_in(guest: Guest) -> None:
    """Give a guest its taps, each in the bridge where it belongs."""
    present = _links(NAMESPACE)
    commands = []
    for network in NETWORKS:
        if guest.tap(network) not in present:
            commands.append(f"tuntap add dev {guest.tap(network)} mode tap")
        commands.append(f"link set {guest.tap(network)} mtu {network.mtu} master {network.bridge} up")
    _batch(NAMESPACE, commands)


def unplug(guest: Guest) -> None:
    """Remove a guest's taps. The guest must have ended."""
    present = _links(NAMESPACE)
    taps = [guest.tap(network) for network in NETWORKS if guest.tap(network) in present]
    if taps:
        _batch(NAMESPACE, [f"link del {tap}" for tap in taps])


def move(guest: Guest, rail: Network, target: str) -> None:
    """Plug the cable of a guest's card on `rail` into the bridge `target`, or into UNPLUGGED."""
    where = "nomaster" if target == UNPLUGGED else f"master {target}"
    _batch(NAMESPACE, [f"link set {guest.tap(rail)} {where}"])


def cables(guest: Guest) -> dict[str, str]:
    """Where each of a guest's cables is plugged in: interface name of the card -> bridge or UNPLUGGED."""
    present = _links(NAMESPACE)
    return {network.interface: present.get(guest.tap(network), {}).get("master", UNPLUGGED) for network in NETWORKS}
