"""What this machine allows. Asked, never assumed."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from lab import state
from lab.run import LabError, attempt

# Program -> the Debian package that brings it.
_PROGRAMS = {
    "podman": "podman",
    "runc": "runc",
    "mmdebstrap": "mmdebstrap",
    "apt-ftparchive": "apt-utils",
    "dpkg-deb": "dpkg",
    "ip": "iproute2",
    "ssh-keygen": "openssh-client",
    "unshare": "util-linux",
    "setpriv": "util-linux",
    "strip": "binutils",
    "cc": "gcc libc6-dev",
}
# What guests need of them, and besides.
_GUEST_PROGRAMS = {
    **{
        name: _PROGRAMS[name]
        for name in ("mmdebstrap", "apt-ftparchive", "dpkg-deb", "ip", "ssh-keygen", "unshare", "setpriv")
    },
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "busybox": "busybox-static",
    "cpio": "cpio",
    "mkfs.ext4": "e2fsprogs",
    "ssh": "openssh-client",
}
_GIB = 1 << 30
# Measured: a cold creation peaks below 10 GiB of cache, and four nodes hold 2 GiB of image each
# once Docker has it.
_DISK_GIB = 15
# A rank of the tiny model takes 0.75 GiB; systemd, Docker and page cache of a node the rest.
_MEMORY_GIB_PER_NODE = 1.25
# Measured: the image takes 0.4 GiB, a kept guest 0.2, its run as much again, and the building 1.5 for a while.
_GUEST_DISK_GIB = 4
# Measured: 0.57 GiB of a guest that has been at work, 0.85 when all its memory is in use.
_GUEST_MEMORY_GIB = 0.9
_CAP_SYS_RESOURCE = 24
# Seen: podman gives up what it holds above this number of processes, so that no container can be
# given more.
_PODMAN_NPROC = 32768


@dataclass(frozen=True)
class Host:
    """The facts of the machine that shape how a node is run."""

    pure_cgroup2: bool
    may_raise_limits: bool
    nofile: int
    nproc: int

    def container_flags(self) -> list[str]:
        """Flags of `podman run` that this machine needs.

        Without CAP_SYS_RESOURCE podman's own limits are refused.
        """
        if self.may_raise_limits:
            return []
        return [
            "--ulimit",
            f"nofile={self.nofile}:{self.nofile}",
            "--ulimit",
            f"nproc={self.nproc}:{self.nproc}",
        ]


def _capabilities() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def detect() -> Host:
    """Ask the machine. Needs no privilege."""
    return Host(
        pure_cgroup2=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
        may_raise_limits=bool(_capabilities() >> _CAP_SYS_RESOURCE & 1),
        nofile=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        nproc=min(resource.getrlimit(resource.RLIMIT_NPROC)[1], _PODMAN_NPROC),
    )


def _free_disk_gib(folder: Path) -> float:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / _GIB


def _memory_gib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024 / _GIB
    return 0.0


_NETWORK_TRIALS = {
    "network namespaces with veth pairs": "ip link add lab-a type veth peer name lab-b",
    "bridges": "ip link add lab-c type bridge",
}
_TRIALS = {
    **_NETWORK_TRIALS,
    "overlay mounts": (
        "mount -t tmpfs tmpfs /mnt && mkdir /mnt/l /mnt/u /mnt/w /mnt/m && "
        "mount -t overlay overlay -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w /mnt/m"
    ),
    "control groups version 2": "mount -t cgroup2 cgroup2 /mnt",
}
_GUEST_TRIALS = {**_NETWORK_TRIALS, "tap devices": "ip tuntap add dev lab-d mode tap"}


def _kernel_gaps(trials: dict[str, str]) -> list[str]:
    """What the kernel refuses, tried in namespaces that vanish with the trial."""
    gaps = []
    for what, script in trials.items():
        if attempt(["unshare", "--mount", "--net", "sh", "-c", script]).returncode:
            gaps.append(f"the kernel refuses {what}; use a machine or container that allows them")
    return gaps


def require_root() -> None:
    """Raise LabError unless this is root."""
    if os.geteuid() != 0:
        raise LabError("the lab is made of network namespaces and containers: run it as root")


def _missing(programs: dict[str, str]) -> list[str]:
    """The mend for programs that are not there: at most one sentence."""
    packages = sorted({package for program, package in programs.items() if not shutil.which(program)})
    return [f"programs are missing: apt-get install {' '.join(packages)}"] if packages else []


def _shortages(what: str, disk_needed: float, memory_needed: float) -> list[str]:
    """What this machine has too little of; both needs in GiB."""
    problems = []
    if (disk := _free_disk_gib(state.cache())) < disk_needed:
        problems.append(f"{disk:.0f} GiB of disk are free, {disk_needed:.0f} are needed")
    if (memory := _memory_gib()) < memory_needed:
        problems.append(f"{what} need {memory_needed:.0f} GiB of memory, there are {memory:.0f}")
    return problems


def _give_up_on(problems: list[str], what: str) -> None:
    if problems:
        raise LabError(f"this machine can't hold {what}:\n" + "\n".join(f"  - {problem}" for problem in problems))


def require(node_count: int) -> None:
    """Raise LabError naming all that is missing for `node_count` nodes, each with its mend."""
    require_root()
    problems = _missing(_PROGRAMS) or _kernel_gaps(_TRIALS)
    if importlib.util.find_spec("pip") is None:
        problems.append(f"{sys.executable} has no pip: apt-get install python3-pip")
    problems += _shortages(f"{node_count} nodes", _DISK_GIB, _MEMORY_GIB_PER_NODE * node_count)
    _give_up_on(problems, "the lab")


def require_guests(count: int) -> None:
    """Raise LabError naming all that is missing for `count` guests, each with its mend."""
    require_root()
    problems = _missing(_GUEST_PROGRAMS) or _kernel_gaps(_GUEST_TRIALS)
    problems += _shortages(f"{count} guests", _GUEST_DISK_GIB, _GUEST_MEMORY_GIB * count)
    _give_up_on(problems, "the guests")
