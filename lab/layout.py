"""Names and addresses of the lab, as plain data. Nothing here touches the system."""

from __future__ import annotations

from dataclasses import dataclass

# 198.18.0.0/15 is reserved for benchmarks (RFC 2544), so it collides with no real network.
LAN_SUBNET = "198.18.0"
CONTROLLER_ADDRESS = f"{LAN_SUBNET}.1"
SERVICES_HOST_NUMBER = 2
SERVICES_ADDRESS = f"{LAN_SUBNET}.{SERVICES_HOST_NUMBER}"
FIRST_HOST_NUMBER = 11
PREFIX_LENGTH = 24
LAN_MTU = 1500
RAIL_MTU = 9000

NAMESPACE = "sparklab"
CONTROLLER_LINK = "sparklab0"
MAX_NODES = 8

REGISTRY = f"{SERVICES_ADDRESS}:5000"
IMAGE_NAME = "sglang-cpu"
IMAGE_TAG = "0.5.4.post2"
IMAGE = f"{REGISTRY}/{IMAGE_NAME}:{IMAGE_TAG}"
HUB = f"http://{SERVICES_ADDRESS}:8080"
MODEL_ID = "dgx-spark/glm4-moe-tiny"

# Every container and volume of the lab carries this label, so that destroy finds them by it.
LABEL = "dgx-spark.lab"
SPEC_LABEL = "dgx-spark.lab.spec"


def mac(address: str) -> str:
    """The hardware address that goes with an IPv4 address: fixed for life, as that of a real card.

    A new one would leave the peers talking to the old one until their ARP entries expire. The 02
    marks it as locally administered.
    """
    return "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))


@dataclass(frozen=True)
class Network:
    """One network: its bridge in the lab's namespace and how a node is joined to it."""

    bridge: str
    interface: str
    subnet: str
    mtu: int

    @property
    def bridge_mac(self) -> str:
        """Hardware address of the bridge. Left alone, it would change with every port."""
        return mac(f"{self.subnet}.{SERVICES_HOST_NUMBER}")


LAN = Network("lan", "enP7s7", LAN_SUBNET, LAN_MTU)
RAILS = (
    Network("rail0", "enp1s0f1np1", "198.18.100", RAIL_MTU),
    Network("rail1", "enP2p1s0f1np1", "198.18.101", RAIL_MTU),
)
NETWORKS = (LAN, *RAILS)


@dataclass(frozen=True)
class Node:
    """A simulated Spark, known by its number (0 to MAX_NODES - 1)."""

    number: int

    @property
    def name(self) -> str:
        """Container name and host name."""
        return f"spark-{self.number}"

    @property
    def namespace(self) -> str:
        """Name of the node's network namespace, which outlives its container."""
        return f"{NAMESPACE}-{self.number}"

    def address(self, network: Network) -> str:
        """IPv4 address of the node on a network, without prefix length."""
        return f"{network.subnet}.{FIRST_HOST_NUMBER + self.number}"

    def mac(self, network: Network) -> str:
        """Hardware address of the node on a network."""
        return mac(self.address(network))

    def port(self, network: Network) -> str:
        """Name of the bridge's end of the node's cable (at most 15 characters)."""
        return f"{network.bridge}-{self.number}"

    def volume(self, purpose: str) -> str:
        """Name of a podman volume of this node."""
        return f"{NAMESPACE}-{self.number}-{purpose}"


def nodes(count: int) -> list[Node]:
    """The first `count` nodes. Raises ValueError when count is out of range."""
    if not 1 <= count <= MAX_NODES:
        raise ValueError(f"a lab has 1 to {MAX_NODES} nodes, not {count}")
    return [Node(number) for number in range(count)]
