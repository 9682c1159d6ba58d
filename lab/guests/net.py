"""The guests' cables: a namespace with three bridges, a tap a card, and a link to the controller.

A cable can be pulled and plugged in elsewhere. The bridges live in a namespace of their own, where no firewall of the
host's filters what passes.
"""

from __future__ import annotations

from lab.guests.layout import (
    CONTROLLER_ADDRESS,
    CONTROLLER_LINK,
    MGMT,
    NAMESPACE,
    NETWORKS,
    UNPLUGGED,
    Guest,
)
from lab.layout import Network
from lab.net import CONTROLLER_PORT, batch, join_controller, links, make_namespace, path, remove_namespace
from lab.run import attempt


def _is_whole() -> bool:
    inside = links(NAMESPACE)
    joined = inside.get(CONTROLLER_PORT, {}).get("master") == MGMT.bridge
    return joined and CONTROLLER_LINK in links(None) and all(network.bridge in inside for network in NETWORKS)


def ensure() -> bool:
    """Make the namespace, its bridges and the controller's link. Returns whether it had to: all cables are new then."""
    if _is_whole():
        return False
    remove()
    make_namespace(NAMESPACE, ipv6=False)
    commands = []
    for network in NETWORKS:
        commands += [
            f"link add {network.bridge} address {network.bridge_mac} type bridge forward_delay 0 mcast_snooping 0",
            f"link set {network.bridge} mtu {network.mtu} up",
        ]
    batch(NAMESPACE, *commands)
    join_controller(CONTROLLER_LINK, CONTROLLER_ADDRESS, NAMESPACE, MGMT.bridge)
    return True


def remove() -> None:
    """Remove the namespace and the controller's link, in whatever state they are. The guests must have ended."""
    attempt(["ip", "link", "del", CONTROLLER_LINK])
    if path(NAMESPACE).exists():
        remove_namespace(NAMESPACE)


def plug_in(guest: Guest) -> None:
    """Give a guest its taps, each in the bridge where it belongs."""
    present = links(NAMESPACE)
    commands = []
    for network in NETWORKS:
        if guest.tap(network) not in present:
            commands.append(f"tuntap add dev {guest.tap(network)} mode tap")
        commands.append(f"link set {guest.tap(network)} mtu {network.mtu} master {network.bridge} up")
    batch(NAMESPACE, *commands)


def unplug(guest: Guest) -> None:
    """Remove a guest's taps. The guest must have ended."""
    present = links(NAMESPACE)
    taps = [guest.tap(network) for network in NETWORKS if guest.tap(network) in present]
    if taps:
        batch(NAMESPACE, *(f"link del {tap}" for tap in taps))


def move(guest: Guest, rail: Network, target: str) -> None:
    """Plug the cable of a guest's card on `rail` into the bridge `target`, or into UNPLUGGED."""
    where = "nomaster" if target == UNPLUGGED else f"master {target}"
    batch(NAMESPACE, f"link set {guest.tap(rail)} {where}")


def cables(guest: Guest) -> dict[str, str]:
    """Where each of a guest's cables is plugged in: interface name of the card -> bridge or UNPLUGGED."""
    present = links(NAMESPACE)
    return {network.interface: present.get(guest.tap(network), {}).get("master", UNPLUGGED) for network in NETWORKS}
