"""Breaking simulated Sparks on purpose: processes that die or freeze, cables that are pulled, power that is cut.

Everything is done from outside of the network, so that a node whose cables are pulled can still be broken and mended.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.layout import LAN, NAMESPACE, RAILS, Network, Node
from lab.net import batch
from lab.run import LabError, attempt, run, wait_for

CONTAINER = "sglang-rank"
BOOT_SECONDS = 90
_PROCESSES = f"docker top {CONTAINER} -eo pid,args"


def inside(node: Node, script: str, seconds: float = 60) -> str:
    """Run a line of shell on a node, whatever its network is like. Raises LabError where it fails."""
    return run(["podman", "exec", node.name, "sh", "-c", script], timeout=seconds).strip()


def pid_of_rank(node: Node) -> int:
    """The first process of the rank's container. Raises LabError where none runs."""
    pid = int(inside(node, f"docker inspect --format '{{{{.State.Pid}}}}' {CONTAINER}"))
    if not pid:
        raise LabError(f"the rank's container on {node.name} does not run")
    return pid


def kill_rank(node: Node) -> None:
    """SIGKILL to the first process of the rank's container, which takes all others along."""
    inside(node, f"kill -KILL {pid_of_rank(node)}")


def kill_scheduler(node: Node) -> None:
    """SIGKILL to one scheduler, the process that computes."""
    inside(node, f"kill -KILL $({_PROCESSES} | awk '/sglang::scheduler/ {{ print $1; exit }}')")


def freeze_rank(node: Node) -> None:
    """SIGSTOP to all processes of the rank."""
    inside(node, f"kill -STOP $({_PROCESSES} | awk 'NR > 1 {{ print $1 }}')")


def docker_kill(node: Node) -> None:
    """What an operator does who knows of nothing better."""
    inside(node, f"docker kill {CONTAINER}")


def restart_docker(node: Node) -> None:
    """As an upgrade of Docker does: stopped, and started again."""
    # Debian's unit refuses a fourth start within a minute.
    inside(
        node,
        "systemctl stop docker.service docker.socket; systemctl reset-failed docker; systemctl start docker",
    )


def kill_supervisor(node: Node) -> None:
    """SIGKILL to what watches over the rank."""
    inside(node, f"kill -KILL $(systemctl show --value --property=MainPID {CONTAINER}.service)")


_OUT_OF_MEMORY = """
set -e
sed 's/^MemAvailable:.*/MemAvailable: 1500 kB/' /proc/meminfo > /root/meminfo
mount --bind /root/meminfo /proc/meminfo
systemctl restart earlyoom
while pgrep --exact sglang::schedul > /dev/null; do sleep 0.05; done
umount /proc/meminfo
cat /proc/meminfo > /root/meminfo
systemctl restart earlyoom
"""


def run_out_of_memory(node: Node) -> None:
    """Let the node believe that nearly none is left, until its memory guard has ended the engine.

    The memory of a simulated node is this machine's, which nobody wants to run out of. -1000: not whom the guard takes.
    """
    inside(node, f"systemd-run --wait --quiet --property=OOMScoreAdjust=-1000 sh -c {shlex.quote(_OUT_OF_MEMORY)}")


def _set(node: Node, networks: Sequence[Network], state: str) -> None:
    batch(NAMESPACE, *(f"link set {node.port(network)} {state}" for network in networks))


def unplug_fabric(node: Node) -> None:
    """Pull the one cable that carries both rails."""
    _set(node, RAILS, "down")


def plug_fabric(node: Node) -> None:
    """Put it back."""
    _set(node, RAILS, "up")


def unplug_lan(node: Node) -> None:
    """Pull the cable of the network that clients and the controller use."""
    _set(node, [LAN], "down")


def plug_lan(node: Node) -> None:
    """Put it back."""
    _set(node, [LAN], "up")


def power_off(node: Node) -> None:
    """Take its power away."""
    attempt(["podman", "kill", node.name])
    wait_for(f"the end of {node.name}", lambda: None if _runs(node) else True, seconds=30)


def power_on(node: Node) -> None:
    """Give it back; returns when systemd has booted."""
    run(["podman", "start", node.name])

    def booted() -> bool | None:
        words = ["podman", "exec", node.name, "systemctl", "is-system-running"]
        return attempt(words, timeout=10).stdout.strip() in ("running", "degraded", "starting") or None

    wait_for(f"the boot of {node.name}", booted, seconds=BOOT_SECONDS)


def _runs(node: Node) -> bool:
    return attempt(["podman", "inspect", "--format", "{{.State.Running}}", node.name]).stdout.strip() == "true"


@dataclass(frozen=True)
class Fault:
    """One way to break a node, and the way back: None where the group mends it by itself.

    notice_seconds: within which the group has to have told of it; 0 where it must not matter to the group at all.
    """

    name: str
    begin: Callable[[Node], None]
    end: Callable[[Node], None] | None
    notice_seconds: float


DEATH, FREEZE = 3.0, 45.0
# Docker itself gives its containers ten seconds to end when it is stopped.
DOCKER_STOP = 15.0

FABRIC = Fault("fabric unplugged", unplug_fabric, plug_fabric, FREEZE)
LAN_CABLE = Fault("LAN unplugged", unplug_lan, plug_lan, 0)
POWER = Fault("power cut", power_off, power_on, FREEZE)

FAULTS = (
    Fault("SIGKILL of a rank", kill_rank, None, DEATH),
    Fault("SIGKILL of a scheduler", kill_scheduler, None, DEATH),
    Fault("SIGSTOP of a rank", freeze_rank, None, FREEZE),
    Fault("SIGKILL of a supervisor", kill_supervisor, None, FREEZE),
    Fault("docker kill", docker_kill, None, DEATH),
    Fault("Docker stopped and started", restart_docker, None, DOCKER_STOP),
    FABRIC,
    LAN_CABLE,
    POWER,
)
