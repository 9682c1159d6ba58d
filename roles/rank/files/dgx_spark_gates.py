# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What has to be there before a rank starts: gates in a row, each with a time-out and one line in the journal.

systemd runs this as ExecStartPre= of the rank's unit. After a power cut nodes come up in any order, and a server that
starts too early hangs, or serves slowly, without a word. The first gate that fails ends the start and says why. Its
argument is gates.json, see Config; what that leaves out is not looked at. SGLANG_IMAGE and SGLANG_IMAGE_ID of the
environment, which a release sets, take the place of the image in it. Needs Python's standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROBE_CONTAINER = "dgx-spark-gate-gpu"
REST_SECONDS = 15.0  # where only a person can help: systemd tries again at once, and the journal would be filled
COMMAND_SECONDS = 10.0  # for one command, but for the look at the GPU: a daemon may take a question and never answer
ERROR = "<3>" if "JOURNAL_STREAM" in os.environ else ""  # the level of a line for the journal, see sd-daemon(3)
GIB, PAGE = 2**30, os.sysconf("SC_PAGE_SIZE")  # in bytes
IP_AND_ICMP_BYTES = 28  # of the headers of a ping
MAKE_CDI = "run `nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"


@dataclass(frozen=True)
class Rail:
    """One rail as this node has to have it. mtu: in bytes. peers: address -> host of the other members."""

    interface: str
    address: str
    mtu: int
    peers: Mapping[str, str]


@dataclass(frozen=True)
class Config:
    """gates.json.

    image, image_id: what the rank runs, the id "" where it does not matter. gpu_devices: CDI names. gpu_probe: Python
    that exits with 0 where it sees a GPU. hcas: RDMA devices. port: the TCP port where the ranks meet, on the node that
    listens there. drop_caches: whether the page cache goes before memory is counted. floor_bytes: the least of
    MemAvailable to start with. timeouts: gate -> seconds.
    """

    image: str
    image_id: str = ""
    gpu_devices: Sequence[str] = ()
    gpu_probe: str = ""
    hcas: Sequence[str] = ()
    rails: Sequence[Rail] = ()
    port: int | None = None
    drop_caches: bool = False
    floor_bytes: int = 0
    timeouts: Mapping[str, float] = field(default_factory=dict)


def read_config(text: str) -> Config:
    """The configuration in gates.json; ValueError or TypeError where it is none."""
    document: dict[str, Any] = json.loads(text)
    timeouts = {gate: seconds for gate, (seconds, _) in GATES.items()} | document.pop("timeouts", {})
    if unknown := timeouts.keys() - GATES.keys():
        raise ValueError(f"timeouts names no gate: {', '.join(sorted(unknown))}")
    if document.get("gpu_devices") and not document.get("gpu_probe"):
        raise ValueError("gpu_devices without gpu_probe: nothing would look at them")
    return Config(rails=[Rail(**rail) for rail in document.pop("rails", [])], timeouts=timeouts, **document)


class UnmetError(Exception):
    """What is not as it has to be, a phrase "WHERE: WHAT" each, and the mend. waits: whether time may mend it."""

    def __init__(self, problems: Sequence[str], mend: str, *, waits: bool = True) -> None:
        super().__init__("; ".join(problems))
        self.status = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        self.mend, self.waits = mend, waits


def run(argv: Sequence[str], seconds: float = COMMAND_SECONDS) -> tuple[int, str]:
    """A command's exit code, and what it printed; where it failed, its last words. 124: out of time, 127: not there."""
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(argv, stdout=pipe, stderr=pipe, start_new_session=True, errors="replace")
    except OSError as trouble:
        return 127, f"{argv[0]}: {trouble.strerror}"
    with process:
        try:
            printed, complained = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            # The whole session: what the command has started would live on.
            os.killpg(process.pid, signal.SIGKILL)
            return 124, f"{argv[0]}: no answer within {seconds:g} s"
    if process.returncode == 0:
        return 0, printed.strip()
    # Docker ends with where its help is.
    lines = [line for line in (complained.strip() or printed).splitlines() if line.strip() and "--help" not in line]
    return process.returncode, lines[-1] if lines else f"{argv[0]}: exit code {process.returncode}"


def in_cdi(text: str, name: str) -> bool:
    """Whether a CDI specification, YAML or JSON, has the device `vendor/class=name`; there is no YAML reader here."""
    kind, _, device = name.partition("=")
    line = r"""\b{}["']?\s*:\s*["']?{}["']?\s*([,}}\n]|\Z)"""
    return all(re.search(line.format(*pair), text) for pair in (("kind", re.escape(kind)), ("name", re.escape(device))))


def rail_problems(rail: Rail, link: Mapping[str, Any] | None) -> list[str]:
    """What an interface lacks, as `ip -json address` shows it."""
    if link is None:
        return [f"{rail.interface}: there is no such interface"]
    found = (
        ("no link", "LOWER_UP" in link["flags"]),
        (f"no address {rail.address}", rail.address in [entry.get("local") for entry in link["addr_info"]]),
        (f"MTU {link['mtu']}, not {rail.mtu}", link["mtu"] == rail.mtu),
    )
    return [f"{rail.interface}: {what}" for what, right in found if not right]


def peer_problem(rail: Rail, address: str) -> str:
    """Why a peer is not reached by a rail, "" where it is."""
    ping = ["ping", "-n", "-M", "do", "-c", "1", "-W", "1", "-I", rail.interface, "-s"]
    code, said = run([*ping, str(rail.mtu - IP_AND_ICMP_BYTES), address])
    where = f"{address} ({rail.peers[address]})"
    if code in (0, 127):
        return f"{where}: {said}" if code else ""
    if run([*ping, "56", address])[0] == 0:
        return f"{where}: answers small packets but none at MTU {rail.mtu}: an MTU on the way is smaller"
    return f"{where}: no answer at MTU {rail.mtu}"


def opened_by(process: Path) -> Iterator[str]:
    """What a process of /proc has open; it may end, or close a file, while it is looked at."""
    with contextlib.suppress(OSError):
        for link in os.scandir(process / "fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(link.path)


class Node:
    """The node, with the root of its files, and its gates: methods that return what they found, or raise UnmetError."""

    def __init__(self, config: Config, root: Path = Path("/")) -> None:
        self.config = config
        self.root = root
        self.image_name = os.environ.get("SGLANG_IMAGE") or config.image

    def docker(self) -> str:
        """The daemon answers."""
        code, said = run(["docker", "version", "--format", "{{.Server.Version}}"])
        if code:
            raise UnmetError([f"docker: the daemon does not answer: {said}"], "See `systemctl status docker`.")
        return f"engine {said}"

    def image(self) -> str:
        """The image is here, and is the one that the ranks were planned with."""
        name = self.image_name
        code, found = run(["docker", "image", "inspect", "--format", "{{.Id}}", name])
        if code:
            mend = "Run site.yml with the stage image."
            raise UnmetError([f"{name}: {found}"], mend, waits="no such image" not in found.lower())
        # Of an image that a release has baked, the plan does not know the id.
        expected = os.environ.get("SGLANG_IMAGE_ID") or (self.config.image_id if name == self.config.image else "")
        if expected and found != expected:
            what = f"{name}: is {found[:19]} here, not {expected[:19]}"
            raise UnmetError([what], "Run site.yml: all ranks have to run the same image.", waits=False)
        return f"{name} is {found[:19]}"

    def cdi(self) -> str:
        """A CDI specification names each GPU: it is made at boot, after the driver is loaded."""
        paths = [path for folder in ("etc/cdi", "var/run/cdi") for path in sorted((self.root / folder).glob("*"))]
        texts = [self._read(path) for path in paths if path.suffix in (".json", ".yaml")]
        missing = [name for name in self.config.gpu_devices if not any(in_cdi(text, name) for text in texts)]
        problems = [f"{name}: no file in /etc/cdi or /var/run/cdi names it" for name in missing]
        if problems:
            raise UnmetError(problems, f"See `nvidia-smi`; where it works, {MAKE_CDI}.")
        return ", ".join(self.config.gpu_devices)

    def gpu(self) -> str:
        """The GPU is seen inside a container of the image, which is more than being seen on the node."""
        run(["docker", "rm", "--force", PROBE_CONTAINER])  # one that hung in an earlier look
        options = ["--rm", "--pull=never", "--network=none", f"--name={PROBE_CONTAINER}", "--entrypoint=python3"]
        gpus = [f"--device={name}" for name in self.config.gpu_devices]
        probe = ["docker", "run", *options, *gpus, self.image_name, "-c", self.config.gpu_probe]
        code, said = run(probe, self.config.timeouts["gpu"])
        if code:
            what = f"{', '.join(self.config.gpu_devices)}: not seen inside a container of {self.image_name}: {said}"
            raise UnmetError([what], f"See `nvidia-smi`; where it works, {MAKE_CDI}.")
        return "; ".join(said.splitlines())

    def rdma(self) -> str:
        """Port 1 of each RDMA device is active; without it NCCL finds no way, or one over sockets."""
        problems = []
        for name in self.config.hcas:
            state = self._read(self.root / f"sys/class/infiniband/{name}/ports/1/state").strip().rpartition(": ")[2]
            if state != "ACTIVE":
                problems.append(f"{name}: port 1 is {state}" if state else f"{name}: there is no such RDMA device")
        if problems:
            raise UnmetError(problems, "See the cable and the switch, and `rdma link`.")
        return f"{', '.join(self.config.hcas)} active"

    def addresses(self) -> str:
        """Each rail has a link, its address and its MTU."""
        code, said = run(["ip", "-json", "address", "show"])
        if code:
            raise UnmetError([f"ip: {said}"], "Install iproute2.")
        links = {link.get("ifname"): link for link in json.loads(said)}
        problems = [problem for rail in self.config.rails for problem in rail_problems(rail, links.get(rail.interface))]
        if problems:
            raise UnmetError(problems, "See the cable and the switch, and run site.yml with the stage fabric.")
        return ", ".join(f"{rail.interface} has {rail.address} at MTU {rail.mtu}" for rail in self.config.rails)

    def peers(self) -> str:
        """Each peer answers on each rail, with packets that fill the MTU."""
        asked = [(rail, address) for rail in self.config.rails for address in rail.peers]
        with ThreadPoolExecutor(max_workers=len(asked)) as pool:
            problems = [problem for problem in pool.map(lambda pair: peer_problem(*pair), asked) if problem]
        if problems:
            raise UnmetError(problems, "See that these nodes are up; playbooks/fabric_test.yml looks closer.")
        return f"{len(asked)} addresses answer at full MTU"

    def port(self) -> str:
        """The port where the ranks meet is free; as for torch, connections that wait for their end are no bar."""
        number = self.config.port or 0
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", number))
            except OSError as trouble:
                what = f"port {number}: {trouble.strerror}, by {self._holder(number)}"
                raise UnmetError([what], "End it, or give cluster_dist_init_port another number.") from trouble
        return f"port {number} is free"

    def memory(self) -> str:
        """There is enough memory. The page cache goes first, without a sync: a GPU's driver can't take it."""
        available, free = self._meminfo()
        said = f"MemAvailable {available / GIB:.1f} GiB, MemFree {free / GIB:.1f} GiB"
        if self.config.drop_caches:
            try:
                (self.root / "proc/sys/vm/drop_caches").write_text("1\n")
                available, free = self._meminfo()
                said += f"; without the page cache {available / GIB:.1f} and {free / GIB:.1f} GiB"
            except OSError as trouble:
                said += f"; the page cache stays: {trouble.strerror}"
        if available < self.config.floor_bytes:
            floor = f"{self.config.floor_bytes / GIB:.1f} GiB are needed"
            mend = "End what is not needed, or restart the node: a GPU's memory is in nobody's size."
            raise UnmetError([f"memory: {said}, but {floor}; largest: {self._largest()}"], mend)
        return said

    def _read(self, path: Path) -> str:
        """The text of a file, "" where it can't be read."""
        with contextlib.suppress(OSError):
            return path.read_text(errors="replace")
        return ""

    def _comm(self, process: str) -> str:
        return f"{self._read(self.root / 'proc' / process / 'comm').strip()} ({process})"

    def _holder(self, number: int) -> str:
        """The process with a socket on a local TCP port, as far as /proc tells."""
        text = self._read(self.root / "proc/net/tcp") + self._read(self.root / "proc/net/tcp6")
        local = re.findall(r"^ *\d+: \w+:(\w{4}) " + r"\S+ +" * 7 + r"(\d+)", text, re.MULTILINE)
        sockets = {f"socket:[{inode}]" for port, inode in local if int(port, 16) == number}
        for process in self.root.glob("proc/[0-9]*"):
            if sockets.intersection(opened_by(process)):
                return self._comm(process.name)
        return "a process that /proc does not name"

    def _meminfo(self) -> tuple[int, int]:
        """MemAvailable and MemFree, in bytes; 0 where they can't be read."""
        kib = dict(re.findall(r"(\w+):\s*(\d+) kB", self._read(self.root / "proc/meminfo")))
        return int(kib.get("MemAvailable", 0)) * 1024, int(kib.get("MemFree", 0)) * 1024

    def _largest(self, count: int = 5) -> str:
        """The processes that have most memory resident."""
        found = [(self._read(path).split(), path.parent.name) for path in self.root.glob("proc/[0-9]*/statm")]
        sizes = sorted(((int(words[1]), process) for words, process in found if words), reverse=True)[:count]
        return ", ".join(f"{self._comm(process)} {pages * PAGE / GIB:.1f} GiB" for pages, process in sizes)


GATES: Mapping[str, tuple[float, Callable[[Config], bool]]] = {
    "docker": (120, lambda config: True),
    "image": (30, lambda config: True),
    "cdi": (120, lambda config: bool(config.gpu_devices)),
    "gpu": (120, lambda config: bool(config.gpu_devices)),
    "rdma": (120, lambda config: bool(config.hcas)),
    "addresses": (120, lambda config: bool(config.rails)),
    "peers": (600, lambda config: any(rail.peers for rail in config.rails)),
    "port": (15, lambda config: config.port is not None),
    "memory": (15, lambda config: config.drop_caches or config.floor_bytes > 0),
}
"""Method of Node -> its time-out in seconds by default, and whether there is anything to look at."""


def tell(status: str) -> None:
    """Tell systemd the state; see sd_notify(3)."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.connect("\0" + address[1:] if address.startswith("@") else address)
        out.send(f"STATUS={status}".encode())


def rest(status: str) -> None:
    """Let some time pass before the end, where it is systemd that tries again."""
    if "NOTIFY_SOCKET" in os.environ:
        tell(status)
        time.sleep(REST_SECONDS)


def passes(node: Node, gate: str, pause: float) -> bool:
    """Look until the gate is passed, its time is over, or waiting is no use. pause: seconds between two looks."""
    limit = node.config.timeouts[gate]
    began = time.monotonic()
    tell(f"looking at {gate}")
    while True:
        try:
            said = getattr(node, gate)()
        except UnmetError as trouble:
            spent = time.monotonic() - began
            if not trouble.waits or spent >= limit:
                print(f"{ERROR}gate {gate}: failed after {spent:.0f} s: {trouble}. Mend: {trouble.mend}", flush=True)
                if not trouble.waits:
                    rest(trouble.status)
                return False
            tell(f"waiting for {trouble.status}")
            time.sleep(min(pause, limit - spent))
        else:
            print(f"gate {gate}: passed after {time.monotonic() - began:.0f} s: {said}", flush=True)
            return True


def main(path: str, root: Path = Path("/"), pause: float = 1.0) -> int:
    """Pass every gate of the configuration: 0, or 1 with the first that fails."""
    try:
        config = read_config(Path(path).read_text())
    except (OSError, TypeError, ValueError) as trouble:
        print(f"{ERROR}{path} can't be used: {trouble}. Mend: Run site.yml with the stage rank.", flush=True)
        rest(f"{path} can't be used: {trouble}")
        return 1
    return int(not all(passes(Node(config, root), gate, pause) for gate, (_, asked) in GATES.items() if asked(config)))


if __name__ == "__main__":
    # A start that is stopped has not failed.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # All Python programs are called python3; the memory guard knows this one by its name.
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("dgx-spark-gates")
    sys.exit(main(sys.argv[1]))
