"""Names and addresses of the guests, as plain data. Nothing here touches the system."""

from __future__ import annotations

from dataclasses import dataclass

from lab.layout import FIRST_HOST_NUMBER, LAN_MTU, PREFIX_LENGTH, RAILS, Network, mac

# Of their own, so that guests and the lab of containers can be there at the same time.
NAMESPACE = "sparkguest"
CONTROLLER_LINK = "sparkguest0"
MGMT = Network("mgmt", "enP7s7", "198.18.9", LAN_MTU)
NETWORKS = (MGMT, *RAILS)
CONTROLLER_ADDRESS = f"{MGMT.subnet}.1"
UNPLUGGED = "none"
MAX_GUESTS = 4

# PCI slots of the cards, in the order of NETWORKS: files/root/etc/systemd/network names the interfaces after them.
_FIRST_SLOT = 5


@dataclass(frozen=True)
class Guest:
    """An emulated Spark, known by its number (0 to MAX_GUESTS - 1)."""

    number: int

    @property
    def name(self) -> str:
        """Host name, and stem of its files' names."""
        return f"spark-{self.number}"

    def address(self, network: Network) -> str:
        """IPv4 address on a network, without prefix length. On the rails, the role `fabric` gives it."""
        return f"{network.subnet}.{FIRST_HOST_NUMBER + self.number}"

    def mac(self, network: Network) -> str:
        """Hardware address of the card on a network."""
        return mac(self.address(network))

    def tap(self, network: Network) -> str:
        """Name of the cable from the card that belongs on a network (at most 15 characters)."""
        return f"{network.bridge}-{self.number}"

    @property
    def kernel_arguments(self) -> str:
        """What files/init is told about this guest."""
        return f"lab.name={self.name} lab.address={self.address(MGMT)}/{PREFIX_LENGTH}"


def slot(network: Network) -> int:
    """PCI slot of the card on a network."""
    return _FIRST_SLOT + NETWORKS.index(network)


def guests(count: int) -> list[Guest]:
    """The first `count` guests. Raises ValueError when count is out of range."""
    if not 1 <= count <= MAX_GUESTS:
        raise ValueError(f"there are 1 to {MAX_GUESTS} guests, not {count}")
    return [Guest(number) for number in range(count)]


def by_name(name: str) -> Guest:
    """The guest of a name. Raises ValueError when no guest is called so."""
    for guest in guests(MAX_GUESTS):
        if guest.name == name:
            return guest
    raise ValueError(f"no guest is called {name!r}; use spark-0 to spark-{MAX_GUESTS - 1}")


def rail(name: str) -> Network:
    """The rail of a name. Raises ValueError when no rail is called so."""
    for network in RAILS:
        if network.bridge == name:
            return network
    raise ValueError(f"no rail is called {name!r}; use {' or '.join(network.bridge for network in RAILS)}")
