# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The gates before a rank starts: each passes, fails with its words, and ends its waiting when what it waits for comes.

Docker, ip and ping are stand-ins on PATH that do what a script of the test says; /proc, /sys and /etc are folders.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._rank import CONTAINER, GATE_CONTAINER

from roles.rank.files import dgx_spark_gates as gates
from roles.rank.files.dgx_spark_gates import GATES, GIB, Config, Node, Rail, in_cdi, read_config, run

PROGRAM = Path(__file__).parents[2] / "roles/rank/files/dgx_spark_gates.py"
UNIT = PROGRAM.parents[1] / "templates/sglang-rank.service.j2"
PROBE = PROGRAM.with_name("gpu_probe.py")
IMAGE_ID = "sha256:" + 64 * "a"
MIB_PAGES = 2**20 // os.sysconf("SC_PAGE_SIZE")

RAILS = [
    {"interface": "r0", "address": "10.0.0.1", "mtu": 9000, "peers": {"10.0.0.2": "spark-1", "10.0.0.3": "spark-2"}},
    {"interface": "r1", "address": "10.1.0.1", "mtu": 9000, "peers": {"10.1.0.2": "spark-1", "10.1.0.3": "spark-2"}},
]
DOCUMENT: dict[str, Any] = {
    "image": "sglang:1",
    "image_id": IMAGE_ID,
    "gpu_devices": ["nvidia.com/gpu=all"],
    "gpu_probe": "look",
    "hcas": ["roce0", "roce1"],
    "rails": RAILS,
    "drop_caches": True,
    "floor_bytes": 10 * GIB,
}
CDI = "cdiVersion: 0.5.0\ndevices:\n- containerEdits:\n    env:\n    - A=b\n  name: all\nkind: nvidia.com/gpu\n"


def link(name: str, address: str, mtu: int = 9000, flags: tuple[str, ...] = ("UP", "LOWER_UP")) -> dict[str, Any]:
    """An interface as `ip -json address` shows it."""
    return {"ifname": name, "flags": flags, "mtu": mtu, "addr_info": [{"family": "inet", "local": address}]}


LINKS = [link("r0", "10.0.0.1"), link("r1", "10.1.0.1")]


class World:
    """A node on which every gate is open."""

    def __init__(self, folder: Path) -> None:
        self.root, self.bin, self.scripts = folder / "root", folder / "bin", folder / "scripts"
        for path in (self.root, self.bin, self.scripts):
            path.mkdir()
        for program in ("docker", "ip", "ping"):
            # Docker's verbs have a script each.
            name = '$0-"$1"' if program == "docker" else "$0"
            (self.bin / program).write_text(f'#!/bin/sh\nscript={name}\n. {self.scripts}/"${{script##*/}}"\n')
            (self.bin / program).chmod(0o755)
        self.mend()

    def mend(self) -> None:
        """Open every gate."""
        self.script("docker-version", "echo 28.1.1")
        self.script("docker-image", f"echo {IMAGE_ID}")
        self.script("docker-rm", "exit 1")
        self.script("docker-run", "echo 'GPU 0: NVIDIA GB10 (UUID: GPU-1)'")
        self.script("ip", f"echo '{json.dumps(LINKS)}'")
        self.script("ping", "exit 0")
        self.file("etc/cdi/nvidia.yaml", CDI)
        for name in ("roce0", "roce1"):
            self.file(f"sys/class/infiniband/{name}/ports/1/state", "4: ACTIVE\n")
        self.meminfo(available=100, free=20)
        self.process(7, "sglang::schedul", mib=3072)
        self.process(8, "sshd", mib=4)

    def script(self, name: str, text: str) -> None:
        """Let a stand-in do something."""
        (self.scripts / name).write_text(text + "\n")

    def file(self, name: str, text: str) -> None:
        """Write a file of the node."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def meminfo(self, available: float, free: float) -> None:
        """MemAvailable and MemFree, in GiB."""
        kib = {"MemTotal": 122, "MemFree": free, "MemAvailable": available}
        self.file("proc/meminfo", "".join(f"{name}: {int(gib * 2**20):9} kB\n" for name, gib in kib.items()))
        self.file("proc/sys/vm/drop_caches", "0\n")

    def process(self, number: int, name: str, mib: int) -> None:
        """A process with some MiB resident."""
        self.file(f"proc/{number}/comm", name + "\n")
        self.file(f"proc/{number}/statm", f"99999999 {mib * MIB_PAGES} 0 0 0 0 0\n")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A node on which every gate is open, and its programs before all others."""
    made = World(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:/usr/bin:/bin")
    for name in ("SGLANG_IMAGE", "SGLANG_IMAGE_ID", "NOTIFY_SOCKET", "JOURNAL_STREAM"):
        monkeypatch.delenv(name, raising=False)
    return made


@dataclass
class Told:
    """What systemd was told."""

    states: list[str]
    then: Callable[[], object] | None = None
    """What happens while a gate waits for the first time."""


class Clock:
    """A clock that only a gate's own waiting moves, so that a busy machine is none that is late."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        """Seconds since the test began to wait."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Wait, in no time."""
        self.now += seconds


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Writes down what systemd is told, by a clock of its own."""
    notes = Told([])
    monkeypatch.setattr(gates, "time", Clock())

    def tell(status: str) -> None:
        notes.states.append(status)
        if notes.then and status.startswith("waiting"):
            notes.then()

    monkeypatch.setattr(gates, "tell", tell)
    return notes


PAUSE = 10.0  # seconds between two looks


def config_of(gate: str, seconds: float = 2 * PAUSE, **changes: Any) -> Config:
    """The configuration of the tests with time for three looks at one gate."""
    return read_config(json.dumps({**DOCUMENT, **changes, "timeouts": {gate: seconds}}))


def try_gate(world: World, gate: str, config: Config | None = None) -> bool:
    """Try one gate."""
    assert GATES[gate][1](config or config_of(gate))
    return gates.passes(Node(config or config_of(gate), world.root), gate, pause=PAUSE)


@dataclass(frozen=True)
class Trouble:
    """Something that closes a gate: what is said of it, and of the mend. waits: whether the gate waits for its end."""

    gate: str
    close: Callable[[World], object]
    words: str
    mend: str
    waits: bool = True


def script(name: str, text: str) -> Callable[[World], object]:
    return lambda world: world.script(name, text)


def file(name: str, text: str) -> Callable[[World], object]:
    return lambda world: world.file(name, text)


def links(*shown: dict[str, Any]) -> Callable[[World], object]:
    return script("ip", f"echo '{json.dumps(shown)}'")


PULLED = "echo 'Error response from daemon: No such image: sglang:1' >&2; exit 1"
NO_GPU = "echo 'docker: Error: unresolvable CDI devices' >&2; echo \"Run 'docker run --help'\" >&2; exit 125"
FEW = 'case "$*" in *"-s 8972 10.0.0.2"|*"10.1.0.3") exit 1; esac'
NOBODY = "exit 1"

TROUBLES = [
    Trouble(
        "docker", script("docker-version", "echo Cannot connect >&2; exit 1"), "answer: Cannot connect", "systemctl"
    ),
    Trouble("image", script("docker-image", PULLED), "sglang:1: Error response from daemon: No", "stage image", False),
    Trouble("image", script("docker-image", "echo Restarting >&2; exit 1"), "sglang:1: Restarting", "stage image"),
    Trouble("image", script("docker-image", "echo sha256:beef"), "is sha256:beef here, not sha256:aa", "same", False),
    Trouble(
        "cdi", file("etc/cdi/nvidia.yaml", CDI.replace("all", "0")), "nvidia.com/gpu=all: no file in", "nvidia-ctk"
    ),
    Trouble(
        "cdi", lambda world: (world.root / "etc/cdi/nvidia.yaml").unlink(), "=all: no file in /etc/cdi", "nvidia-ctk"
    ),
    Trouble("gpu", script("docker-run", NO_GPU), "container of sglang:1: docker: Error: unresolvable", "nvidia-smi"),
    Trouble("gpu", script("docker-run", "exit 1"), "container of sglang:1: docker: exit code 1", "nvidia-smi"),
    Trouble("rdma", file("sys/class/infiniband/roce1/ports/1/state", "1: DOWN\n"), "roce1: port 1 is DOWN", "cable"),
    Trouble("rdma", file("sys/class/infiniband/roce0/ports/1/state", ""), "roce0: there is no such RDMA", "cable"),
    Trouble("addresses", links(LINKS[0]), "r1: there is no such interface", "cable"),
    Trouble("addresses", links(LINKS[0], link("r1", "10.1.0.1", flags=("UP",))), "r1: no link", "fabric"),
    Trouble("addresses", links(link("r0", "10.9.0.1"), LINKS[1]), "r0: no address 10.0.0.1", "fabric"),
    Trouble("addresses", links(link("r0", "10.0.0.1", 1500), LINKS[1]), "r0: MTU 1500, not 9000", "fabric"),
    Trouble("addresses", script("ip", "exit 1"), "ip: exit code 1", "iproute2"),
    Trouble("peers", script("ping", FEW), "10.0.0.2 (spark-1): answers small packets but none at MTU 9000", "are up"),
    Trouble("peers", script("ping", FEW), "10.1.0.3 (spark-2): no answer at MTU 9000", "fabric_test"),
    Trouble("memory", lambda world: world.meminfo(9.5, 1), "9.5 GiB, MemFree 1.0 GiB; without", "End what"),
    Trouble("memory", lambda world: world.meminfo(9.5, 1), "but 10.0 GiB are needed; largest: sglang", "restart"),
    Trouble("memory", lambda world: world.meminfo(9.5, 1), "sglang::schedul (7) 3.0 GiB, sshd (8) 0.0", "restart"),
]


@pytest.mark.parametrize("gate", [gate for gate in GATES if gate != "port"])
def test_an_open_gate_is_passed_with_one_line(
    gate: str, world: World, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    assert try_gate(world, gate)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"gate {gate}: passed after 0 s: ")
    assert told.states == [f"looking at {gate}"]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.gate)
def test_a_closed_gate_fails_with_its_words(
    trouble: Trouble, world: World, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    trouble.close(world)
    assert not try_gate(world, trouble.gate)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"gate {trouble.gate}: failed after {20 if trouble.waits else 0} s: ")
    found, _, mend = line.partition(". Mend: ")
    assert trouble.words in found
    assert trouble.mend in mend
    assert any(state.startswith("waiting for ") for state in told.states) == trouble.waits


@pytest.mark.parametrize("trouble", [one for one in TROUBLES if one.waits], ids=lambda trouble: trouble.gate)
def test_a_gate_that_waits_is_passed_when_it_opens(
    trouble: Trouble, world: World, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    trouble.close(world)
    told.then = world.mend
    assert try_gate(world, trouble.gate)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"gate {trouble.gate}: passed")
    looking, waiting = told.states
    assert looking == f"looking at {trouble.gate}"
    assert waiting.startswith("waiting for ")
    assert trouble.words in waiting


def test_a_state_names_a_few_and_the_line_all(world: World, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    world.script("ping", NOBODY)
    assert not try_gate(world, "peers")
    assert capsys.readouterr().out.count("no answer at MTU 9000") == 4
    assert told.states[1] == (
        "waiting for 10.0.0.2 (spark-1): no answer at MTU 9000; 10.0.0.3 (spark-2): no answer at MTU 9000; "
        "10.1.0.2 (spark-1): no answer at MTU 9000; and 1 more"
    )


def test_all_peers_are_asked_at_once_and_by_their_rail(world: World, tmp_path: Path, told: Told) -> None:
    # Each ping waits for all four: one after the other they would wait in vain.
    count = f"ls {tmp_path}/asked | wc -l"
    world.script("ping", f'echo ping "$@" > {tmp_path}/asked/$$; until [ "$({count})" -eq 4 ]; do sleep 0.01; done')
    (tmp_path / "asked").mkdir()
    assert try_gate(world, "peers")
    asked = sorted(path.read_text().strip() for path in (tmp_path / "asked").iterdir())
    assert asked[0] == "ping -n -M do -c 1 -W 1 -I r0 -s 8972 10.0.0.2"
    assert asked[3] == "ping -n -M do -c 1 -W 1 -I r1 -s 8972 10.1.0.3"


def test_no_ping_is_said(world: World, told: Told, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert not try_gate(world, "peers")
    assert "10.0.0.2 (spark-1): ping: No such file or directory" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("environment", "passed"),
    [
        ({"SGLANG_IMAGE": "baked:1"}, True),  # the plan does not know its id
        ({"SGLANG_IMAGE": "baked:1", "SGLANG_IMAGE_ID": "sha256:b"}, True),
        ({"SGLANG_IMAGE": "baked:1", "SGLANG_IMAGE_ID": "sha256:c"}, False),
        ({"SGLANG_IMAGE": "sglang:1"}, False),
        ({"SGLANG_IMAGE": "sglang:1", "SGLANG_IMAGE_ID": "sha256:b"}, True),
    ],
)
def test_the_release_says_which_image(
    environment: dict[str, str], passed: bool, world: World, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.script("docker-image", f'[ "$5" = {environment["SGLANG_IMAGE"]} ] && echo sha256:b')
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert try_gate(world, "image") is passed


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (CDI, True),
        (CDI.replace("nvidia.com/gpu", '"nvidia.com/gpu"').replace("all", "'all'"), True),
        ('{"cdiVersion":"0.5.0","kind":"nvidia.com/gpu","devices":[{"name":"0"},{"name":"all"}]}', True),
        (json.dumps({"kind": "nvidia.com/gpu", "devices": [{"name": "all"}]}, indent=2), True),
        ('{"kind":"nvidia.com/gpu","devices":[{"name":"0"}]}', False),
        (CDI.replace("nvidia.com/gpu", "nvidia.com/gpus"), False),
        (CDI.replace("nvidia.com/gpu", "nvidia-com/gpu"), False),
        (CDI.replace("name: all", "name: small"), False),
        (CDI.replace("name: all", "name: allx"), False),
        (CDI.replace("name: all", "hookname: all"), False),
    ],
)
def test_devices_in_cdi(text: str, found: bool) -> None:
    assert in_cdi(text, "nvidia.com/gpu=all") is found


def test_cdi_is_read_where_it_is_made_at_boot(world: World, told: Told) -> None:
    (world.root / "etc/cdi/nvidia.yaml").rename(world.root / "etc/cdi/nvidia.yaml.old")
    world.file("var/run/cdi/other.yaml", "kind: other/thing\ndevices: []\n")
    assert not try_gate(world, "cdi")
    world.file("var/run/cdi/nvidia.yaml", CDI)
    assert try_gate(world, "cdi")


def test_the_gpu_is_looked_at_in_the_image_that_runs(
    world: World, tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SGLANG_IMAGE", "baked:1")
    world.script("docker-run", f'[ "$1" = run ] && echo "$*" > {tmp_path}/words && echo GPU 0')
    assert try_gate(world, "gpu")
    words = (tmp_path / "words").read_text().split()
    assert words[:6] == [
        *("run", "--rm", "--pull=never", "--network=none"),
        *("--name=dgx-spark-gate-gpu", "--entrypoint=python3"),
    ]
    assert words[6:9] == ["--device=nvidia.com/gpu=all", "baked:1", "-c"]
    assert words[9:] == ["look"]


def alive(process: str) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_gpu_that_hangs_is_given_up(
    world: World, tmp_path: Path, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    child = tmp_path / "child"
    world.script("docker-run", f"sleep 60 & echo $! > {child}; wait")
    began = time.monotonic()
    assert not try_gate(world, "gpu", config_of("gpu", 1))
    assert time.monotonic() - began < 20
    assert "docker: no answer within 1 s" in capsys.readouterr().out
    while alive(child.read_text().strip()):
        assert time.monotonic() - began < 20
        time.sleep(0.01)


def probe(path: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the look at the GPU here."""
    command = [sys.executable, "-c", PROBE.read_text()]
    return subprocess.run(command, env={"PATH": path, **environment}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("echo 'GPU 0: NVIDIA GB10'", 0),
        ("echo 'No devices found.'", 1),
        ("echo Failed to initialize NVML; exit 255", 255),
    ],
)
def test_the_look_at_the_gpu_asks_nvidia_smi(text: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text(f'#!/bin/sh\n[ "$1" = -L ] && {text}\n')
    (tmp_path / "nvidia-smi").chmod(0o755)
    done = probe(f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == code
    assert done.stdout.split()[0] == text.split()[1].strip("'")


def test_the_look_at_the_gpu_asks_the_driver_where_there_is_no_nvidia_smi(standin_cuda: Path) -> None:
    library = {"LD_LIBRARY_PATH": str(standin_cuda.parent)}
    done = probe("/nowhere", **library)
    assert (done.returncode, done.stdout) == (0, "CUDA: code 0, number of GPUs 1\n")
    done = probe("/nowhere", **library, STANDIN_CUDA_FAIL="cuInit=100")
    assert done.returncode != 0
    assert "CUDA: code 100" in done.stdout
    done = probe("/nowhere")
    assert done.returncode != 0
    assert "libcuda.so.1" in done.stderr.splitlines()[-1]


# ---- the port: real sockets ----------------------------------------------------------------------


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A socket that listens on a port of its own."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def port_config(server: socket.socket) -> Config:
    return config_of("port", port=server.getsockname()[1])


def test_a_port_that_is_taken_is_told_with_its_process(
    listening: socket.socket, told: Told, capsys: pytest.CaptureFixture[str]
) -> None:
    config = port_config(listening)
    assert not gates.passes(Node(config), "port", pause=PAUSE)
    line = capsys.readouterr().out
    assert f"port {config.port}: Address already in use, by " in line
    assert f"({os.getpid()})" in line
    assert "cluster_dist_init_port" in line


def test_a_port_is_waited_for(listening: socket.socket, told: Told) -> None:
    told.then = listening.close
    assert gates.passes(Node(port_config(listening)), "port", pause=PAUSE)
    assert len(told.states) == 2


def test_a_process_that_is_not_seen_is_not_named(
    world: World, listening: socket.socket, told: Told, capsys: Any
) -> None:
    assert not gates.passes(Node(port_config(listening), world.root), "port", pause=PAUSE)
    assert "by a process that /proc does not name" in capsys.readouterr().out


def test_a_process_that_ends_while_it_is_looked_at_is_passed_over(
    listening: socket.socket, told: Told, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    look = os.scandir

    def ended(path: Any = ".") -> Any:
        if str(path) == "/proc/1/fd":
            raise FileNotFoundError(path)
        return look(path)

    monkeypatch.setattr(os, "scandir", ended)
    assert not gates.passes(Node(port_config(listening)), "port", pause=PAUSE)
    assert f"({os.getpid()})" in capsys.readouterr().out


def test_a_connection_that_waits_for_its_end_is_no_bar(listening: socket.socket, told: Told) -> None:
    config = port_config(listening)
    client = socket.create_connection(listening.getsockname())
    accepted, _ = listening.accept()
    # Who closes first waits.
    accepted.close()
    client.close()
    listening.close()
    with socket.socket() as plain, pytest.raises(OSError, match="in use"):
        plain.bind(("", config.port))
    assert gates.passes(Node(config), "port", pause=PAUSE)


def test_only_a_node_with_a_port_looks_at_it() -> None:
    assert not GATES["port"][1](config_of("port"))
    assert GATES["port"][1](config_of("port", port=50000))


# ---- memory --------------------------------------------------------------------------------------


def test_the_page_cache_goes_first(
    world: World, told: Told, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = iter([(9 * GIB, GIB), (11 * GIB, 10 * GIB)])
    monkeypatch.setattr(Node, "_meminfo", lambda node: next(figures))
    assert try_gate(world, "memory")
    assert (world.root / "proc/sys/vm/drop_caches").read_text() == "1\n"
    line = capsys.readouterr().out
    assert "MemAvailable 9.0 GiB, MemFree 1.0 GiB; without the page cache 11.0 and 10.0 GiB" in line


def test_the_page_cache_may_stay(world: World, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    assert try_gate(world, "memory", config_of("memory", drop_caches=False))
    assert (world.root / "proc/sys/vm/drop_caches").read_text() == "0\n"
    assert "page cache" not in capsys.readouterr().out


def test_a_page_cache_that_can_not_go_is_said(world: World, told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    (world.root / "proc/sys/vm/drop_caches").unlink()
    (world.root / "proc/sys/vm/drop_caches").mkdir()
    assert try_gate(world, "memory")
    assert "the page cache stays: Is a directory" in capsys.readouterr().out


def test_memory_that_can_not_be_read_is_too_little(world: World, told: Told) -> None:
    (world.root / "proc/meminfo").unlink()
    assert not try_gate(world, "memory", config_of("memory", drop_caches=False))


# ---- the whole -----------------------------------------------------------------------------------


def write_config(tmp_path: Path, document: object) -> str:
    path = tmp_path / "gates.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_gates_come_in_their_order(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    assert gates.main(write_config(tmp_path, {**DOCUMENT, "port": number}), world.root, pause=0.01) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == [f"{gate}:" for gate in GATES]


def test_the_first_gate_that_fails_is_the_last_line(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.script("ping", NOBODY)
    world.meminfo(1, 1)
    path = write_config(tmp_path, {**DOCUMENT, "timeouts": {"peers": 0.01}})
    assert gates.main(path, world.root, pause=0.01) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["docker:", "image:", "cdi:", "gpu:", "rdma:", "addresses:", "peers:"]
    assert "failed" in lines[-1]


@pytest.mark.parametrize(
    ("document", "asked"),
    [
        ({"image": "sglang:1"}, ["docker:", "image:"]),
        ({"image": "sglang:1", "rails": [{**RAILS[0], "peers": {}}]}, ["docker:", "image:", "addresses:"]),
        ({"image": "sglang:1", "floor_bytes": 1}, ["docker:", "image:", "memory:"]),
        ({"image": "sglang:1", "hcas": ["roce0"]}, ["docker:", "image:", "rdma:"]),
    ],
)
def test_what_is_left_out_is_not_looked_at(
    document: dict[str, Any], asked: list[str], world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gates.main(write_config(tmp_path, document), world.root, pause=0.01) == 0
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == asked


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"image": "a", "colour": 1}, "colour"),
        ({}, "image"),
        ({"image": "a", "timeouts": {"dinner": 1}}, "timeouts names no gate: dinner"),
        ({"image": "a", "rails": [{"interface": "r0"}]}, "address"),
    ],
)
def test_a_configuration_that_is_none_is_said(
    document: object, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gates.main(write_config(tmp_path, document)) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert "gates.json can't be used: " in line
    assert words in line


def test_as_systemd_runs_it(world: World, tmp_path: Path) -> None:
    """As a program, isolated, with a socket for its state and a journal that takes levels."""
    world.script("docker-image", "exit 1")
    path = write_config(tmp_path, {"image": "sglang:1", "timeouts": {"image": 2}})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        done = subprocess.run(
            [sys.executable, "-I", str(PROGRAM), path],
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify"), "JOURNAL_STREAM": "8:1"},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        heard.settimeout(5)
        messages = [heard.recv(4096).decode() for _ in range(3)]
    assert done.returncode == 1
    assert [line[:11] for line in done.stdout.splitlines()] == ["gate docker", "<3>gate ima"]
    assert messages[0] == "STATUS=looking at docker"
    assert messages[2].startswith("STATUS=waiting for sglang:1: docker: exit code 1")


@pytest.mark.parametrize("under", ["systemd", "ansible"])
@pytest.mark.parametrize(("trouble", "rests"), [("echo 'no such image' >&2; exit 1", True), ("exit 1", False)])
def test_what_only_a_person_mends_is_not_tried_every_second(
    under: str, trouble: str, rests: bool, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if under == "systemd":
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    world.script("docker-image", trouble)
    document = {"image": "sglang:1", "timeouts": {"image": 0.001}}
    assert gates.main(write_config(tmp_path, document), world.root) == 1
    assert (gates.REST_SECONDS in slept) == (rests and under == "systemd")


def test_state_by_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind("")  # the kernel gives it an abstract name
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + heard.getsockname()[1:].decode())
        gates.tell("waiting")
        assert heard.recv(4096) == b"STATUS=waiting"
    gates.tell("nobody is there any more")


def test_commands(tmp_path: Path) -> None:
    assert run(["sh", "-c", "echo a; echo b; echo c >&2"]) == (0, "a\nb")
    assert run(["sh", "-c", "echo a; echo b; exit 3"]) == (3, "b")
    assert run(["sh", "-c", "echo a; echo b >&2; exit 3"]) == (3, "b")
    assert run([str(tmp_path)])[0] == 127


def test_rails_are_typed() -> None:
    assert config_of("peers").rails[0] == Rail("r0", "10.0.0.1", 9000, {"10.0.0.2": "spark-1", "10.0.0.3": "spark-2"})


def test_a_start_that_is_stopped_has_not_failed(tmp_path: Path) -> None:
    """systemd ends the gates with SIGTERM where the unit is stopped while they wait."""
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\nexit 1\n")
    docker.chmod(0o755)
    path = write_config(tmp_path, {"image": "sglang:1"})
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with subprocess.Popen([sys.executable, "-I", gates.__file__, str(path)], env=environment) as process:
        deadline = time.monotonic() + 20
        while not (tmp_path / "asked").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.terminate()
        assert process.wait(20) == 0


def test_the_container_of_the_look_at_the_gpu_is_known_as_ours() -> None:
    """The program stands alone on its node, so it has the name itself, as has the unit that removes what is left."""
    assert gates.PROBE_CONTAINER == GATE_CONTAINER
    assert f"docker rm --force {CONTAINER} {GATE_CONTAINER} " in UNIT.read_text()
