# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What the texts of a node say: one pure function for each format. Sizes in bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

GIB = 2**30

GPU_FIELDS = (
    "name",
    "driver_version",
    "compute_cap",
    "clocks.current.sm",
    "clocks.max.sm",
    "utilization.gpu",
)
"""What `nvidia-smi --query-gpu=` is asked for; the names are those of `nvidia-smi --help-query-gpu`."""

DOCKER_KEYS = ("ServerVersion", "Driver", "DriverStatus", "SecurityOptions", "LiveRestoreEnabled", "CDISpecDirs")
"""What is judged of `docker info`."""

NCCL_VARIABLES = ("NCCL_VERSION", "NV_LIBNCCL_PACKAGE_VERSION")
"""Where NVIDIA's images for CUDA and PyTorch tell the libnccl that they hold."""

TCP_LISTEN, UDP_OPEN = "0A", "07"
"""States of a socket in /proc/net/tcp and udp that others meet (include/net/tcp_states.h; UDP has no other)."""


class Package(NamedTuple):
    """A package as dpkg knows it. held: whether it is kept from being upgraded (`apt-mark hold`)."""

    version: str
    held: bool


class Gpu(NamedTuple):
    """One GPU. Clocks in MHz, busy in percent; None where nvidia-smi says [N/A]."""

    name: str
    driver: str
    capability: str
    clock: int | None
    clock_most: int | None
    busy: int | None


class App(NamedTuple):
    """A process that computes on a GPU."""

    pid: int
    name: str


def meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo; it counts in kB of 1024 bytes."""
    return {name: int(kib) * 1024 for name, kib in re.findall(r"^(\w+):\s*(\d+) kB$", text, re.MULTILINE)}


def os_release(text: str) -> dict[str, str]:
    """/etc/os-release (os-release(5))."""
    return {key: value.strip("\"'") for key, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)}


def units(text: str) -> dict[str, dict[str, str]]:
    """Unit -> its properties, from `systemctl show -p Id,Names,... UNIT...`: blocks that an empty line parts.

    By each of its names: display-manager.service is an alias, whose Id is that of the desktop's own.
    """
    blocks = [properties(block) for block in text.split("\n\n")]
    return {name: block for block in blocks for name in (block.get("Id", ""), *block.get("Names", "").split()) if name}


def properties(text: str) -> dict[str, str]:
    """Lines KEY=VALUE."""
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def packages(text: str) -> dict[str, Package]:
    """The installed packages, from lines "ABBREV PACKAGE VERSION" of dpkg-query (db:Status-Abbrev: "ii ", "hi ")."""
    found = {}
    for line in text.splitlines():
        words = line.split()
        # The second letter is the state: i for installed. A name may carry its architecture.
        if len(words) == 3 and words[0][1:2] == "i":
            found[words[1].partition(":")[0]] = Package(words[2], words[0].startswith("h"))
    return found


def updates(text: str) -> bool:
    """Whether upgrades install themselves, from `apt-config dump`; apt runs them every so many days, 0 for never."""
    days = re.search(r'^APT::Periodic::Unattended-Upgrade "(\w+)";$', text, re.MULTILINE)
    return days is not None and days[1] not in ("0", "false")


def gpus(text: str) -> list[Gpu]:
    """`nvidia-smi --query-gpu=GPU_FIELDS --format=csv,noheader,nounits`, a GPU a line."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if line.count(",") >= 5]
    return [Gpu(row[0], row[1], row[2], *(_number(cell) for cell in row[3:6])) for row in rows]


def apps(text: str) -> list[App]:
    """`nvidia-smi --query-compute-apps=pid,process_name --format=csv,noheader`, a process a line."""
    return [App(int(pid), name) for pid, name in re.findall(r"^(\d+), (.*)$", text, re.MULTILINE)]


def _number(cell: str) -> int | None:
    """A cell of nvidia-smi; "[N/A]", "[Not Supported]" and such are None."""
    return int(float(cell)) if re.fullmatch(r"\d+(\.\d+)?", cell) else None


def cdi_names(text: str) -> list[str]:
    """The devices of a CDI specification, YAML or JSON, as kind=name; there may be no reader of YAML on a node."""
    try:
        document = json.loads(text)
        kind, names = document.get("kind"), [device.get("name") for device in document.get("devices") or []]
    except (ValueError, AttributeError):
        found = re.search(r"^kind:\s*[\"']?([^\s\"']+)", text, re.MULTILINE)
        kind = found[1] if found else None
        names = re.findall(r"^\s*(?:- )?name:\s*[\"']?([^\s\"']+)", text, re.MULTILINE)
    return [f"{kind}={name}" for name in names if kind and name]


def sockets(text: str, state: str, ports: Iterable[int]) -> dict[str, int]:
    """inode -> local port, of the sockets in a state and on one of the ports; from /proc/net/{tcp,tcp6,udp,udp6}."""
    wanted = set(ports)
    found = {}
    for line in text.splitlines()[1:]:
        words = line.split()
        if len(words) > 9 and words[3] == state:
            port = int(words[1].rpartition(":")[2], 16)
            if port in wanted:
                found[words[9]] = port
    return found


def version(text: str) -> tuple[int, ...]:
    """The leading numbers of a version, without Debian's epoch: "5:28.5.1-1~ubuntu" is (28, 5, 1); () for none."""
    found = re.match(r"(?:\d+:)?v?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def docker_info(text: str) -> dict[str, Any]:
    """What is judged of `docker info --format '{{json .}}'` (SystemInfo of the Engine API); empty without a daemon.

    The rest stays where it is: it may hold a proxy's password.
    """
    document = mapping(text or "{}")
    return {key: document.get(key) for key in DOCKER_KEYS} if document.get("ServerVersion") else {}


def inspected(text: str) -> dict[str, Any]:
    """What is judged of `docker image inspect` or `docker container inspect` of one: {id, running, nccl}."""
    documents = json.loads(text)
    if not isinstance(documents, list) or not documents or not isinstance(documents[0], dict):
        raise ValueError("docker inspect gave no list")
    one = documents[0]
    environment = dict(line.split("=", 1) for line in (one.get("Config") or {}).get("Env") or [] if "=" in line)
    nccl = next((environment[name] for name in NCCL_VARIABLES if environment.get(name)), "")
    return {"id": one.get("Id"), "running": bool((one.get("State") or {}).get("Running")), "nccl": nccl}


def container_of(cgroup: str) -> str:
    """The id of the Docker container that a process is in, from /proc/PID/cgroup; "" for none."""
    found = re.search(r"docker[-/]([0-9a-f]{64})", cgroup)
    return found[1] if found else ""


def size(count: float) -> str:
    """Bytes for people."""
    return f"{count / GIB:.1f} GiB"


def host_of(reference: str) -> str:
    """The name of the machine in an URL or in an image's name; that of Docker Hub where the image names none."""
    if "://" in reference:
        return urlsplit(reference).hostname or ""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return first.partition(":")[0]
    return "registry-1.docker.io"


def mapping(text: str) -> Mapping[str, Any]:
    """A JSON object; ValueError for anything else."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("no JSON object")
    return document
