# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The firewall against real packets: a node with a LAN, a rail and a container, each in a network namespace."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._firewall import TABLE, Rail, Settings, render
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

from tests.tools.scan_ports import ScanError, open_ports

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("nft") or not shutil.which("ip"),
    reason="packets need root and the packages nftables and iproute2",
)

PREFIX = f"fw{os.getpid()}"
NODE, LAN, FABRIC, BOX = (f"{PREFIX}-{name}" for name in ("node", "lan", "fabric", "box"))
HOST, HOST6, ON_RAIL, ON_RAIL6 = "198.18.0.11", "2001:2:0:1::11", "198.18.100.11", "2001:2:0:100::11"
GATEWAY = "198.18.200.1"
RAIL = "enp1s0f1np1"
MEMBER, STRANGER = "198.18.100.12", "198.18.100.99"
RAILS = [Rail(RAIL, (MEMBER, "198.18.100.13"))]
LISTENING = [22, 9100, 30000, 50000]

CABLES = f"""
link add enP7s7 netns {NODE} type veth peer name eth0 netns {LAN}
link add {RAIL} netns {NODE} type veth peer name eth0 netns {FABRIC}
link add docker0 netns {NODE} type veth peer name eth0 netns {BOX}
"""
ADDRESSES = {
    NODE: [
        *(("enP7s7", HOST, 24), ("enP7s7", HOST6, 64)),
        *((RAIL, ON_RAIL, 24), (RAIL, ON_RAIL6, 64), ("docker0", GATEWAY, 24)),
    ],
    LAN: [
        *(("eth0", "198.18.0.1", 24), ("eth0", "198.18.0.9", 24), ("eth0", "2001:2:0:1::1", 64)),
        # An address of a member, in the wrong network.
        ("lo", MEMBER, 32),
    ],
    FABRIC: [("eth0", MEMBER, 24), ("eth0", STRANGER, 24), ("eth0", "2001:2:0:100::12", 64)],
    BOX: [("eth0", "198.18.200.2", 24)],
}
ROUTES = {LAN: f"{ON_RAIL}/32 via {HOST}\n198.18.200.0/24 via {HOST}", FABRIC: f"198.18.0.0/24 via {ON_RAIL}"}
ROUTES[BOX] = f"default via {GATEWAY}"

SERVE = """
import json, select, socket, struct, sys
ports = json.loads(sys.argv[1])
servers = [socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) for port in ports]
open_connections = []
for port in (68, 546, 5353, 50000, 51820):
    one = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    one.bind(("::", port))
    if port == 5353 and len(sys.argv) > 2:
        index = socket.if_nametoindex(sys.argv[2])
        group = socket.inet_aton("224.0.0.251") + socket.inet_aton("0.0.0.0") + struct.pack("@i", index)
        one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
    servers.append(one)
print("ready", flush=True)
while True:
    for server in select.select(servers, [], [])[0]:
        if server.type == socket.SOCK_DGRAM:
            print(server.recv(100).decode(), flush=True)
        else:
            connection, _ = server.accept()
            open_connections = open_connections[-50:] + [connection]
"""

PROBE = """
import errno, json, socket, sys
answers = []
for source, target, port in json.loads(sys.argv[1]):
    try:
        socket.create_connection((target, port), 1, (source, 0) if source else None).close()
        answers.append("open")
    except TimeoutError:
        answers.append("silent")
    except OSError as error:
        answers.append(errno.errorcode[error.errno])
print(json.dumps(answers))
"""

SEND = """
import socket, sys
source, own_port, target, port, text = sys.argv[1:]
client = socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_DGRAM)
client.bind((source, int(own_port)))
if target.startswith("224."):
    client.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(source))
client.sendto(text.encode(), (target, int(port)))
"""


def run_in(namespace: str, *command: str, text: str | None = None, code: int | None = 0) -> str:
    """Run a command in a namespace; returns what it printed."""
    done = subprocess.run(
        ["ip", "netns", "exec", namespace, *command],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done.stdout


def connects(namespace: str, *probes: tuple[str, str, int]) -> list[str]:
    """What TCP connections (source or "", target, port) from a namespace come to."""
    answers: list[str] = json.loads(run_in(namespace, sys.executable, "-c", PROBE, json.dumps(probes)))
    return answers


def load(wanted: Settings = Settings(), api_port: int | None = 30000, namespace: str = NODE) -> str:  # noqa: B008
    """Put rules in force on the node; returns their text."""
    text = render(wanted, RAILS, api_port)
    run_in(namespace, "nft", "--file", "-", text=text)
    return text


def unload() -> None:
    run_in(NODE, "nft", f"table inet {TABLE}; delete table inet {TABLE}")


def refusals() -> int:
    """How many packets the firewall of the node has refused."""
    listed = json.loads(run_in(NODE, "nft", "--json", "list", "counter", "inet", TABLE, "refused"))
    return int(listed["nftables"][1]["counter"]["packets"])


@dataclass
class Log:
    """What the node's UDP sockets have received, a line a packet."""

    path: Path

    def has(self, text: str) -> bool:
        return text in self.path.read_text().splitlines()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """The four namespaces with their cables, and servers on the node and in the container."""
    path = tmp_path_factory.mktemp("log") / "node"
    servers: list[subprocess.Popen[str]] = []
    try:
        for namespace in ADDRESSES:
            subprocess.run(["ip", "netns", "add", namespace], check=True)
        subprocess.run(["ip", "-batch", "-"], input=CABLES, text=True, check=True)
        for namespace, addresses in ADDRESSES.items():
            lines = [
                f"address add {address}/{length} dev {name} nodad"
                for name, address, length in addresses
                if ":" in address
            ]
            lines += [
                f"address add {address}/{length} dev {name}"
                for name, address, length in addresses
                if ":" not in address
            ]
            lines += [f"link set {name} up" for name in {"lo", *(name for name, _, _ in addresses)}]
            lines += [f"route add {route}" for route in ROUTES.get(namespace, "").splitlines()]
            subprocess.run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)
        # The firewall is to hold alone: no reverse path filter helps it, and the node forwards as Docker lets it.
        settings = (
            "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done; echo 1 > /proc/sys/net/ipv4/ip_forward"
        )
        run_in(NODE, "sh", "-c", settings)
        for namespace, ports, rest in ((NODE, LISTENING, ["enP7s7"]), (BOX, [80], [])):
            with (path if namespace == NODE else path.with_name("box")).open("w") as out:
                command = ["ip", "netns", "exec", namespace, sys.executable, "-c", SERVE, json.dumps(ports), *rest]
                servers.append(subprocess.Popen(command, stdout=out, text=True))
            wait(lambda out=out: Path(out.name).read_text().startswith("ready"), "the servers")
        yield Log(path)
    finally:
        for server in servers:
            server.kill()
            server.wait()
        for namespace in ADDRESSES:
            subprocess.run(["ip", "netns", "del", namespace], check=False)


@pytest.fixture(autouse=True)
def without_rules(log: Log) -> Iterator[None]:
    """Every test begins and ends without rules."""
    yield
    unload()
    run_in(NODE, "nft", "flush", "ruleset")


def wait(condition: Any, what: str, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"no end of waiting for {what}"
        time.sleep(0.01)


# ---- TCP -----------------------------------------------------------------------------------------

TCP: list[tuple[str, str, str, int, str]] = [
    (LAN, "", HOST, 22, "open"),
    (LAN, "", HOST6, 22, "open"),
    (LAN, "", HOST, 30000, "open"),
    (LAN, "", HOST6, 30000, "open"),
    (LAN, "", HOST, 50000, "ECONNREFUSED"),
    (LAN, "", HOST6, 50000, "ECONNREFUSED"),
    (LAN, "", HOST, 9100, "ECONNREFUSED"),
    # The address of the rail, asked for on the LAN.
    (LAN, "", ON_RAIL, 50000, "ECONNREFUSED"),
    (FABRIC, MEMBER, ON_RAIL, 50000, "open"),
    (FABRIC, MEMBER, ON_RAIL, 30000, "open"),
    (FABRIC, MEMBER, ON_RAIL, 22, "open"),
    (FABRIC, STRANGER, ON_RAIL, 50000, "ECONNREFUSED"),
    (FABRIC, STRANGER, ON_RAIL, 22, "ECONNREFUSED"),
    (FABRIC, STRANGER, HOST, 22, "ECONNREFUSED"),
    (FABRIC, "", ON_RAIL6, 22, "ECONNREFUSED"),
    (BOX, "", GATEWAY, 9100, "open"),
    (NODE, "", HOST, 50000, "open"),
    (NODE, "", "127.0.0.1", 9100, "open"),
]


def answers_to_all() -> list[str]:
    return [answer for where, *probe, _ in TCP for answer in connects(where, tuple(probe))]  # type: ignore[arg-type]


def test_tcp(log: Log) -> None:
    """All is open without the firewall; with it, what the table above says."""
    assert set(answers_to_all()) == {"open"}
    load()
    assert answers_to_all() == [expected for *_, expected in TCP]
    assert refusals() == sum(expected != "open" for *_, expected in TCP)


def test_all_ports(log: Log) -> None:
    load()
    assert open_ports(HOST, namespace=LAN) == [22, 30000]
    assert open_ports(ON_RAIL, namespace=FABRIC) == LISTENING
    load(api_port=None)
    assert open_ports(HOST, namespace=LAN) == [22]
    with pytest.raises(ScanError, match="on no port"):
        open_ports("198.18.0.77", 0.05, LAN)


def test_sources_of_ssh_and_api(log: Log) -> None:
    load(Settings(ssh_sources=("198.18.0.1",), api_sources=("198.18.0.8/31", "2001:2::/32")))
    first, second, six = "198.18.0.1", "198.18.0.9", "2001:2:0:1::1"
    wanted = [(first, HOST, 22), (second, HOST, 22), (six, HOST6, 22)]
    assert connects(LAN, *wanted) == ["open", "ECONNREFUSED", "ECONNREFUSED"]
    assert connects(LAN, (first, HOST, 30000), (second, HOST, 30000), (six, HOST6, 30000)) == [
        "ECONNREFUSED",
        *("open", "open"),
    ]


def test_more_ports_and_custom_rules(log: Log) -> None:
    load(Settings(open_tcp_ports=(50000,), custom_rules=("ip saddr 198.18.0.9 tcp dport 9100 accept",)))
    assert connects(LAN, ("198.18.0.1", HOST, 9100), ("198.18.0.9", HOST, 9100)) == ["ECONNREFUSED", "open"]
    assert connects(LAN, ("", HOST, 50000), ("", HOST6, 50000)) == ["open", "open"]
    assert connects(FABRIC, (STRANGER, ON_RAIL, 50000)) == ["ECONNREFUSED"]


def test_a_pattern_of_trusted_interfaces(log: Log) -> None:
    load(Settings(trusted_interfaces=("enP*",)))
    assert connects(LAN, ("", HOST, 9100)) == ["open"]
    assert connects(BOX, ("", GATEWAY, 9100)) == ["ECONNREFUSED"]


def test_drop_is_silent(log: Log) -> None:
    load(Settings(refuse="drop"))
    assert connects(LAN, ("", HOST, 9100), ("", HOST, 22)) == ["silent", "open"]


def test_a_connection_outlives_a_reload(log: Log) -> None:
    """Of a member, and of the operator's own ssh."""
    load()
    script = """
import socket, subprocess, sys
connections = [socket.create_connection(("198.18.0.11", port), 5) for port in (22, 30000)]
print("connected", flush=True)
sys.stdin.readline()
for connection in connections:
    connection.settimeout(0.3)
    connection.sendall(b"x")
    try:
        connection.recv(1)
    except TimeoutError:
        print("alive", flush=True)
"""
    command = ["ip", "netns", "exec", LAN, sys.executable, "-c", script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout
        assert client.stdout.readline() == "connected\n"
        load(Settings(ssh_sources=("198.18.0.9",)))
        out, _ = client.communicate("\n", timeout=10)
    assert out.splitlines() == ["alive", "alive"]
    assert connects(LAN, ("198.18.0.1", HOST, 22)) == ["ECONNREFUSED"]


# ---- UDP, ICMP -----------------------------------------------------------------------------------

UDP: list[tuple[str, str, int, str, int, bool]] = [
    (LAN, "198.18.0.1", 5000, HOST, 50000, False),
    (LAN, "2001:2:0:1::1", 5000, HOST6, 50000, False),
    # A member's address on the LAN: no answer could come back, but a datagram needs none.
    (LAN, MEMBER, 5000, HOST, 50000, False),
    (LAN, MEMBER, 5000, ON_RAIL, 50000, False),
    (FABRIC, MEMBER, 5000, ON_RAIL, 50000, True),
    (FABRIC, STRANGER, 5000, ON_RAIL, 50000, False),
    (LAN, "198.18.0.1", 5000, HOST, 51820, True),
    (LAN, "198.18.0.1", 67, HOST, 68, True),
    (LAN, "198.18.0.1", 5000, HOST, 68, False),
    (LAN, "198.18.0.1", 5353, "224.0.0.251", 5353, True),
    (LAN, "198.18.0.1", 5353, HOST, 5353, False),
]


@pytest.mark.parametrize(
    ("where", "source", "own_port", "target", "port", "comes_in"),
    UDP,
    ids=lambda value: str(value).removeprefix(f"{PREFIX}-"),
)
def test_udp(log: Log, where: str, source: str, own_port: int, target: str, port: int, comes_in: bool) -> None:
    """Each comes in without the firewall, and is received or counted as refused with it."""

    def send(text: str) -> None:
        run_in(where, sys.executable, "-c", SEND, source, str(own_port), target, str(port), text)

    name = f"{source} {own_port} {target} {port}"
    send(f"free {name}")
    wait(lambda: log.has(f"free {name}"), "a packet without the firewall")
    # Else the kernels ask some seconds later, in IPv6, whether a neighbour of a test before is still there: on a rail
    # that is refused, and counted here.
    for namespace in (NODE, LAN, FABRIC):
        run_in(namespace, "ip", "-6", "neighbour", "flush", "all")
    load(Settings(open_udp_ports=(51820,)))
    before = refusals()
    send(f"guarded {name}")
    wait(lambda: log.has(f"guarded {name}") or refusals() > before, "a packet with the firewall")
    assert log.has(f"guarded {name}") == comes_in
    assert refusals() - before == (not comes_in)


PING = """
import socket, struct, sys
source, target = sys.argv[1:]
six = ":" in target
kind = (socket.AF_INET6, socket.getprotobyname("ipv6-icmp"), 128) if six else (socket.AF_INET, socket.IPPROTO_ICMP, 8)
client = socket.socket(kind[0], socket.SOCK_RAW, kind[1])
client.bind((source, 0))
client.settimeout(5)
request = struct.pack("!BBHHH", kind[2], 0, 0, 7, 7)
if not six:
    request = struct.pack("!BBHHH", 8, 0, 0xFFFF - (0x0800 + 14), 7, 7)
client.sendto(request, (target, 0))
while True:
    got, (sender, *_) = client.recvfrom(200)
    message = got if six else got[20:]
    if sender == target and message[0] in (0, 129, 1, 3):
        print({0: "reply", 129: "reply", 1: "refused", 3: "refused"}[message[0]])
        break
"""


def test_ping_and_neighbours(log: Log) -> None:
    """Neighbour discovery is what IPv6 stands on: it is asked for anew here."""
    load()

    def ping(where: str, source: str, target: str) -> str:
        return run_in(where, sys.executable, "-c", PING, source, target).strip()

    run_in(LAN, "ip", "-6", "neigh", "flush", "dev", "eth0")
    run_in(NODE, "ip", "-6", "neigh", "flush", "dev", "enP7s7")
    assert ping(LAN, "198.18.0.1", HOST) == "reply"
    assert ping(LAN, "2001:2:0:1::1", HOST6) == "reply"
    assert ping(FABRIC, MEMBER, ON_RAIL) == "reply"
    assert ping(FABRIC, STRANGER, ON_RAIL) == "refused"


# ---- Docker, and other networks ------------------------------------------------------------------

OTHERS = """
table ip nat {
    chain PREROUTING {
        type nat hook prerouting priority dstnat; policy accept;
        fib daddr type local tcp dport { 8080, 8081 } dnat to 198.18.200.2:80
    }
}
table ip filter {
    chain FORWARD {
        type filter hook forward priority filter; policy accept;
    }
}
"""


def test_published_ports_of_containers(log: Log) -> None:
    """8080 and 8081 lead into the container, as Docker's rules do it; 8080 alone is let through."""
    run_in(NODE, "nft", "--file", "-", text=OTHERS)
    lan = [("", HOST, 8080), ("", HOST, 8081)]
    rail = [(MEMBER, ON_RAIL, 8080), (STRANGER, ON_RAIL, 8080)]
    assert set(connects(LAN, *lan)) == {"open"}
    theirs = [run_in(NODE, "nft", "list", "table", "ip", name) for name in ("nat", "filter")]
    load(Settings(open_tcp_ports=(8080,)))
    assert connects(LAN, *lan) == ["open", "ECONNREFUSED"]
    assert connects(FABRIC, *rail) == ["open", "ECONNREFUSED"]
    load()
    assert connects(LAN, *lan) == ["ECONNREFUSED", "ECONNREFUSED"]
    unload()
    assert set(connects(LAN, *lan)) == {"open"}
    assert theirs == [run_in(NODE, "nft", "list", "table", "ip", name) for name in ("nat", "filter")]


@contextmanager
def serving(namespace: str, port: int) -> Iterator[None]:
    """A server in a namespace, for as long as the block."""
    server = ["ip", "netns", "exec", namespace, sys.executable, "-c", SERVE, json.dumps([port])]
    with subprocess.Popen(server, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


@pytest.mark.parametrize("trusted", [("docker0", "br-*"), ()])
def test_nobody_is_routed_to_a_container(log: Log, trusted: tuple[str, ...]) -> None:
    """By the container's own address nothing is published: who has a route to it would find all of its ports."""
    run_in(NODE, "nft", "--file", "-", text=OTHERS)
    run_in(FABRIC, "ip", "route", "replace", "198.18.200.0/24", "via", ON_RAIL)
    member, stranger = (MEMBER, "198.18.200.2", 80), (STRANGER, "198.18.200.2", 80)
    assert connects(LAN, ("", "198.18.200.2", 80)) == ["open"]
    assert connects(FABRIC, member, stranger) == ["open", "open"]
    load(Settings(open_tcp_ports=(80, 8080), trusted_interfaces=trusted))
    assert connects(LAN, ("", "198.18.200.2", 80), ("", HOST, 8080)) == ["ECONNREFUSED", "open"]
    assert connects(FABRIC, member, stranger) == ["open", "ECONNREFUSED"]
    with serving(LAN, 7000):
        assert connects(BOX, ("", "198.18.0.1", 7000)) == ["open"]


def test_what_the_node_forwards_elsewhere_is_left_to_others(log: Log) -> None:
    """A router to other networks stays one, but not for who is on a rail and no member."""
    run_in(NODE, "ip", "link", "set", "docker0", "down")
    run_in(NODE, "ip", "link", "set", "docker0", "name", "enP9s9")
    try:
        run_in(NODE, "ip", "link", "set", "enP9s9", "up")
        run_in(FABRIC, "ip", "route", "replace", "198.18.200.0/24", "via", ON_RAIL)
        load()
        assert connects(LAN, ("", "198.18.200.2", 80)) == ["open"]
        assert connects(FABRIC, (STRANGER, "198.18.200.2", 80)) == ["ECONNREFUSED"]
    finally:
        run_in(NODE, "ip", "link", "set", "enP9s9", "down")
        run_in(NODE, "ip", "link", "set", "enP9s9", "name", "docker0")
        run_in(NODE, "ip", "link", "set", "docker0", "up")


def test_nobody_gets_onto_the_rail_through_the_node(log: Log) -> None:
    """Else a host on the LAN could speak to the other members as if it were one."""
    run_in(LAN, "ip", "route", "add", f"{STRANGER}/32", "via", HOST)
    with serving(FABRIC, 7000):
        assert connects(LAN, ("198.18.0.1", STRANGER, 7000)) == ["open"]
        load()
        assert connects(LAN, ("198.18.0.1", STRANGER, 7000)) == ["ECONNREFUSED"]
        assert connects(BOX, ("", MEMBER, 22)) != ["EHOSTUNREACH"]


# ---- the module that looks -----------------------------------------------------------------------


def test_info(log: Log, tmp_path: Path) -> None:
    """The table as it is against the text, and the way by which Ansible came."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec ip netns exec {NODE} {sys.executable} "$@"\n')
    python.chmod(0o755)
    text = render(replace(Settings(), open_tcp_ports=(8080, 80)), RAILS, 30000)

    def look(content: str, connection: str = "") -> dict[str, Any]:
        env = {"ANSIBLE_PYTHON_INTERPRETER": str(python), "SSH_CONNECTION": connection}
        return adhoc.run(tmp_path, "firewall_info", {"content": content}, env=env).result

    bare = look("", "198.18.0.1 40000 198.18.0.11 22")
    assert (bare["as_wanted"], bare["loaded"], bare["nft"]) == (True, False, True)
    assert bare["seen"] == {"client": "198.18.0.1", "port": 22, "interface": "enP7s7", "ways_out": []}
    assert look(text)["problem"] == f"the table inet {TABLE} is not loaded"
    run_in(NODE, "nft", "--file", "-", text=text)
    run_in(NODE, "ip", "route", "add", "default", "via", "198.18.0.1")
    same = look(text)
    # All but the unit, which is none of this namespace's.
    assert same["problem"] == "dgx-spark-firewall.service does not start at boot"
    assert same["loaded"]
    assert same["seen"] == {"client": "", "port": 0, "interface": "", "ways_out": ["enP7s7"]}
    assert "no firewall is wanted" in look("")["problem"]
    run_in(NODE, "nft", "add", "rule", "inet", TABLE, "input", "accept")
    assert look(text)["problem"] == f"the table inet {TABLE} holds other rules than the file"
