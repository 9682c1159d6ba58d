# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What preflight asks of a node: texts as the node's own tools and files give them. Reads, and changes nothing.

Everything is asked at the same time and has a time-out of its own, so that a daemon which never answers costs that one
answer and not the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import (
    _cuda,
    _host_memory,
    _model_directory,
    _preflight_parse,
    _rdma_sysfs,
    _shape,
    _ssh,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._rank import CONTAINER

try:
    # It needs PyYAML, which netplan brings.
    from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_node
except ImportError:
    NETPLAN_IS_READ = False
else:
    NETPLAN_IS_READ = True

COMMAND_SECONDS = 8.0
"""For one command; `docker info` of a busy engine takes a second."""

ALL_SECONDS = 25.0
"""For all of them together; what has no answer then is told as such."""

ENDING_SECONDS = 2.0
"""A process that is being ended takes less until nothing shows its sockets any more."""

PINGS_AT_ONCE = 16

IP_AND_ICMP_BYTES = 28
"""Bytes of a packet that are headers of IPv4 and ICMP."""

SMALL_PING_BYTES = 56
"""What ping sends unless it is told otherwise."""

MOST_BYTES_OF_A_FILE = 65536

FILES = (
    "/etc/os-release",
    "/etc/nccl.conf",
    "/root/.nccl.conf",
    "/etc/machine-id",
    "/etc/ufw/ufw.conf",
    "/proc/meminfo",
    "/proc/sys/vm/swappiness",
    "/run/reboot-required",
    "/run/reboot-required.pkgs",
    "/sys/class/dmi/id/bios_version",
    "/sys/class/dmi/id/product_name",
    "/sys/fs/cgroup/cgroup.controllers",
    "/sys/module/nvidia_peermem/initstate",
)

UNITS = ("display-manager.service", "earlyoom.service", "firewalld.service", "snap.docker.dockerd.service")

PACKAGES = (
    "docker-ce",
    "docker.io",
    "moby-engine",
    "earlyoom",
    "unattended-upgrades",
    "nvidia-container-toolkit",
    "linux-image-*",
    "linux-nvidia*",
    "nvidia-driver-*",
)

TIMEX_UNSYNCHRONISED_MICROSECONDS = 16_000_000
"""From this error bound on the kernel calls its clock unsynchronised (NTP_PHASE_LIMIT, include/linux/timex.h), as does
timedatectl."""

Done = dict[str, Any]


class SourceError(Exception):
    """A source gives no answer; the text says why."""


@dataclass(frozen=True)
class Questions:
    """What a node is asked, beyond what all are.

    image: its name. model, data: directories. interfaces, addresses: the node's, a rail an entry. mtu: in bytes.
    peers: {interface, address, host} of those to ping, packets of the whole MTU. tcp, udp: ports that the ranks take.
    names: of machines that are to be resolved. cuda: whether to ask for GPUs.
    """

    image: str
    model: str
    interfaces: Sequence[str] = ()
    addresses: Sequence[str] = ()
    mtu: int = 9000
    peers: Sequence[Mapping[str, str]] = ()
    tcp: Sequence[int] = ()
    udp: Sequence[int] = ()
    names: Sequence[str] = ()
    cuda: bool = False


def run(*argv: str, seconds: float = COMMAND_SECONDS) -> Done:
    """A command as {code, out, error}; SourceError where it is not there or does not end in time."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    found = shutil.which(argv[0], path=environment["PATH"])
    if not found:
        raise SourceError(f"{argv[0]} is not installed")
    try:
        done = subprocess.run(
            [found, *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise SourceError(f"`{' '.join(argv[:3])}` gave no answer within {seconds:g} s") from None
    except OSError as trouble:
        raise SourceError(f"{argv[0]}: {trouble.strerror}") from None
    out, error = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
    return {"code": done.returncode, "out": out, "error": " ".join(error.split())[:300]}


def printed(*argv: str) -> str:
    """What a command prints; SourceError where it fails."""
    done = run(*argv)
    if done["code"]:
        raise SourceError(f"`{' '.join(argv[:3])}` failed: {done['error'] or done['code']}")
    return str(done["out"])


def gather(sources: Mapping[str, Callable[[], Any]], seconds: float = ALL_SECONDS) -> dict[str, dict[str, Any]]:
    """Ask all sources at once: name -> {value, problem}. What takes longer than `seconds` is left behind."""
    told: dict[str, dict[str, Any]] = {}

    def ask(name: str, source: Callable[[], Any]) -> None:
        try:
            told[name] = {"value": source(), "problem": ""}
        except SourceError as trouble:
            told[name] = {"value": None, "problem": str(trouble)}
        except (OSError, ValueError) as trouble:
            told[name] = {"value": None, "problem": f"{name} can't be read: {trouble}"}

    # Daemons: one that hangs in the kernel does not keep the module from ending.
    threads = [threading.Thread(target=ask, args=pair, daemon=True) for pair in sources.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = {"value": None, "problem": f"no answer within {seconds:g} s"}
    return {name: told.get(name, late) for name in sources}


def answers(asked: Questions) -> dict[str, dict[str, Any]]:
    """What all sources tell: name -> {value, problem}.

    The rank's container comes first: it is what holders of ports and GPUs are held against, and it may end meanwhile.
    """
    sources = sources_of(asked)
    first = {"container": sources.pop("container")}
    return {**gather(first, COMMAND_SECONDS + 1), **gather(sources)}


def sources_of(asked: Questions) -> dict[str, Callable[[], Any]]:
    """Name -> what asks for it. The names are those that _preflight_node reads."""
    sources: dict[str, Callable[[], Any]] = {
        "system": system,
        "clock": lambda: {"now": time.time(), "synchronised": synchronised()},
        "files": lambda: {path: text_of(path) for path in (*FILES, *settings_of(asked.interfaces))},
        "limits": _host_memory.host,
        "manager": lambda: printed("systemctl", "show", "-p", "Version", "-p", "Virtualization"),
        "units": lambda: printed(
            "systemctl", "show", "-p", "Id", "-p", "Names", "-p", "ActiveState", "-p", "LoadState", *UNITS
        ),
        "packages": packages,
        "docker": docker,
        "image": lambda: inspected("image", asked.image),
        "container": lambda: inspected("container", CONTAINER),
        "disks": lambda: {"image": disk(docker_root()), "model": disk(asked.model)},
        "model": lambda: _model_directory.describe(asked.model, digest_bytes=1048576),
        "config": lambda: _shape.told_shape(json.loads(Path(asked.model, "config.json").read_text(encoding="utf-8"))),
        "listeners": lambda: settled(lambda: holders(asked.tcp, asked.udp)),
        "firewall": lambda: run("nft", "--terse", "list", "table", "inet", "dgx_spark"),
        "names": lambda: {name: resolved(name) for name in (socket.gethostname(), *asked.names)},
    }
    if asked.addresses:
        sources["rdma"] = lambda: _rdma_sysfs.read("/sys", printed("ip", "-json", "address", "show"), asked.addresses)
        sources["netplan"] = lambda: netplan(asked.interfaces)
        sources["verbs"] = lambda: sorted(path.name for path in Path("/dev/infiniband").glob("uverbs*"))
    if asked.peers:
        sources["pings"] = lambda: pings(asked.peers, asked.mtu)
    if asked.cuda:
        sources["cuda"] = _cuda.read
        sources["nvidia_smi"] = lambda: run(
            "nvidia-smi", f"--query-gpu={','.join(_preflight_parse.GPU_FIELDS)}", "--format=csv,noheader,nounits"
        )
        sources["gpu_users"] = lambda: settled(gpu_users)
        # Of interest for the driver's sake.
        sources["updates"] = lambda: printed("apt-config", "dump", "APT::Periodic")
        sources["cdi"] = cdi
    return sources


def system() -> dict[str, Any]:
    """The kernel, the machine, this Python, and who we are."""
    uname = os.uname()
    return {
        "kernel": uname.release,
        "arch": uname.machine,
        "hostname": uname.nodename,
        "python": platform.python_version(),
        "root": os.geteuid() == 0,
    }


class _Timex(ctypes.Structure):
    """The first fields of struct timex (adjtimex(2)), and room for the others."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_byte * 256),
    ]


def synchronised() -> bool | None:
    """Whether something keeps the kernel's clock right, None where it doesn't tell. Sets nothing: modes is 0."""
    state = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state)) < 0:
        return None
    return bool(state.maxerror < TIMEX_UNSYNCHRONISED_MICROSECONDS)


def text_of(path: str) -> str | None:
    """A file's text, None where it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MOST_BYTES_OF_A_FILE)
    except OSError:
        return None


def settings_of(interfaces: Sequence[str]) -> list[str]:
    """The kernel's settings of interfaces, and those of all."""
    return [f"/proc/sys/net/ipv4/conf/{name}/rp_filter" for name in ("all", *interfaces)]


def packages() -> str:
    """Lines "ABBREV PACKAGE VERSION" of the packages that are known; dpkg-query fails where one pattern finds none."""
    return str(run("dpkg-query", "-W", "-f", "${db:Status-Abbrev} ${Package} ${Version}\n", *PACKAGES)["out"])


def docker() -> dict[str, Any]:
    """{path, info, error}: what the command really is, "" where there is none; what of `docker info` is judged."""
    path = shutil.which("docker")
    if not path:
        return {"path": ""}
    done = run("docker", "info", "--format", "{{json .}}")
    # Without a daemon it prints what the client knows, and may still end well.
    info = _preflight_parse.docker_info(done["out"])
    return {"path": f"{path} {os.path.realpath(path)}", "info": info, "error": done["error"]}


def inspected(kind: str, name: str) -> dict[str, Any] | None:
    """What is judged of an image or container, None where there is no such thing, or no Docker."""
    if not shutil.which("docker"):
        return None
    done = run("docker", kind, "inspect", name)
    return _preflight_parse.inspected(done["out"]) if done["code"] == 0 else None


def docker_root(settings: str = "/etc/docker/daemon.json") -> str:
    """Where Docker keeps its images; asked of its settings, as there may be no daemon yet."""
    try:
        root = _preflight_parse.mapping(text_of(settings) or "{}").get("data-root")
    except ValueError:
        root = None
    return str(root or "/var/lib/docker")


def disk(path: str) -> dict[str, Any]:
    """The file system that a path is on or will be: {path, free}; free for everyone, in bytes."""
    place = Path(path)
    while not place.exists() and place != place.parent:
        place = place.parent
    stat = os.statvfs(place)
    return {"path": str(place), "free": stat.f_bavail * stat.f_frsize}


def resolved(name: str) -> str:
    """The first address of a name, "" where there is none. The resolver has a time-out of its own."""
    try:
        return str(socket.getaddrinfo(name, None, proto=socket.IPPROTO_TCP)[0][4][0])
    except (OSError, UnicodeError):
        return ""


def cgroup_of(process: str) -> str:
    """The control groups of a process as one line."""
    return " ".join((text_of(f"/proc/{process}/cgroup") or "").split())


def name_of(process: str) -> str:
    """The name of a process."""
    return (text_of(f"/proc/{process}/comm") or "").strip()


def settled(look: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Who holds something, each with the {pid, name, cgroup} of a process, "" where /proc does not tell.

    Who ends while it is looked at holds nothing a moment later, so it is looked again before one goes without a name.
    """
    deadline = time.monotonic() + ENDING_SECONDS
    while True:
        found = look()
        if all(holder["cgroup"] for holder in found) or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def holders(tcp: Sequence[int], udp: Sequence[int]) -> list[dict[str, Any]]:
    """Who holds the ports: {protocol, port, pid, name, cgroup}."""
    found: dict[str, tuple[str, int]] = {}
    for protocol, ports, state in (
        ("tcp", tcp, _preflight_parse.TCP_LISTEN),
        ("udp", udp, _preflight_parse.UDP_OPEN),
    ):
        for family in ("", "6"):
            text = text_of_all(f"/proc/net/{protocol}{family}")
            for inode, port in _preflight_parse.sockets(text, state, ports).items():
                found[inode] = (protocol, port)
    owners = owners_of(set(found)) if found else {}
    return [
        {
            "protocol": protocol,
            "port": port,
            "pid": (process := owners.get(inode, "")),
            "name": name_of(process) if process else "",
            "cgroup": cgroup_of(process) if process else "",
        }
        for inode, (protocol, port) in sorted(found.items(), key=lambda pair: pair[1])
    ]


def text_of_all(path: str) -> str:
    """The whole text of a file, "" where it can't be read."""
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read()
    return ""


def owners_of(inodes: set[str]) -> dict[str, str]:
    """Inode of a socket -> process."""
    owners: dict[str, str] = {}
    for folder in Path("/proc").glob("[0-9]*/fd"):
        # Processes end, and close files, while we look.
        with contextlib.suppress(OSError):
            for entry in os.scandir(folder):
                with contextlib.suppress(OSError):
                    target = os.readlink(entry.path)
                    if target.startswith("socket:[") and target[8:-1] in inodes:
                        owners[target[8:-1]] = folder.parent.name
    return owners


def netplan(interfaces: Sequence[str]) -> dict[str, Any]:
    """{files, mtus, conflicts, management}: netplan's files, and what of them is in the rails' way (_fabric_node).

    mtus: interface -> the MTU that its definitions of that name give, "" for none. Texts stay on the node: they may
    hold passwords of Wi-Fi.
    """
    if not NETPLAN_IS_READ:
        raise SourceError("netplan's files can't be read without PyYAML (python3-yaml)")
    addresses = json.loads(printed("ip", "-json", "address", "show"))
    routes = json.loads(printed("ip", "-json", "route", "show", "default") or "[]")
    seen = _fabric_node.look(Path("/"), interfaces, addresses, routes, _ssh.connection())
    mtus = dict.fromkeys(interfaces, "")
    for network in seen.networks.values():
        for name, definition in (network.get("ethernets") or {}).items():
            if name in mtus and isinstance(definition, dict) and definition.get("mtu"):
                mtus[name] = str(definition["mtu"])
    conflicts = [asdict(conflict) for conflict in seen.conflicts]
    return {"files": list(seen.texts), "mtus": mtus, "conflicts": conflicts, "management": list(seen.management)}


def pings(peers: Sequence[Mapping[str, str]], mtu: int) -> list[dict[str, Any]]:
    """A packet of the whole MTU that may not be fragmented to each peer: {interface, address, host, whole, small}.

    small: whether a small one is answered, asked only where the whole one is not.
    """
    if not shutil.which("ping"):
        raise SourceError("ping is not installed")

    def answered(peer: Mapping[str, str], size: int) -> bool:
        # One of three: beside a load, a packet may be lost for no fault of the path.
        argv = ["ping", "-n", "-q", "-M", "do", "-c", "3", "-i", "0.2", "-W", "1"]
        argv += ["-I", peer["interface"], "-s", str(size)]
        with contextlib.suppress(SourceError):
            return bool(run(*argv, peer["address"], seconds=3)["code"] == 0)
        return False

    def ask(peer: Mapping[str, str]) -> dict[str, Any]:
        whole = answered(peer, mtu - IP_AND_ICMP_BYTES)
        return {**peer, "whole": whole, "small": whole or answered(peer, SMALL_PING_BYTES)}

    with ThreadPoolExecutor(max_workers=PINGS_AT_ONCE) as pool:
        return list(pool.map(ask, peers))


def gpu_users() -> list[dict[str, Any]]:
    """Who computes on the GPU: {pid, name, cgroup}."""
    text = printed("nvidia-smi", "--query-compute-apps=pid,process_name", "--format=csv,noheader")
    return [
        {"pid": app.pid, "name": app.name, "cgroup": cgroup_of(str(app.pid))} for app in _preflight_parse.apps(text)
    ]


def cdi() -> list[str]:
    """The devices that CDI specifications name, as kind=name; the folders are those of the CDI specification."""
    paths = [path for folder in ("/etc/cdi", "/var/run/cdi") for path in sorted(Path(folder).glob("*"))]
    texts = [text_of_all(str(path)) for path in paths if re.search(r"\.(json|yaml)$", path.name)]
    return sorted({name for text in texts for name in _preflight_parse.cdi_names(text)})
