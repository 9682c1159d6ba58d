"""The firewall around a group that serves: who gets in, what it survives, and that it locks nobody out.

The tests run on this machine, a neighbour on the nodes' LAN that is no member of the group.
"""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from lab import group, layout
from tests.tools.operating import changes, command, environment, on, on_all, play, run, serves, until
from tests.tools.scan_ports import open_ports

LAN = [f"198.18.0.{11 + number}" for number in range(4)]
SECONDS = 15
HEAD = layout.nodes(1)
SSH, API, DIST_INIT = 22, 30000, 50000
AS_PLANNED = [[SSH, API], [SSH], [SSH], [SSH]]
CONNECT = "timeout 5 python3 -c 'import socket; socket.create_connection((\"{}\", {}), 4)' 2>&1 && echo in"
RULES = "nft list table inet dgx_spark >/dev/null && nft list ruleset | grep -c 'chain DOCKER'"


def power_cut(node: str) -> None:
    """Take a node's power away and give it back; returns when it has booted."""
    for step in ("kill", "start"):
        subprocess.run(["podman", step, node], check=True, capture_output=True)
    until("the node is up", lambda: on(node, "systemctl is-active docker") == "active", 90)


def scanned() -> list[list[int]]:
    """The open ports of all nodes, of all 65,535."""
    return [open_ports(address) for address in LAN]


def serves_anew(since: list[str]) -> bool:
    """Whether the group serves, by a later start of rank 0 than that one."""
    return group.epochs(HEAD) not in ([], since) and serves()


def test_without_it_the_lan_reaches_the_ranks() -> None:
    off = ("site.yml", "--tags", "firewall", "-e", "firewall_enabled=false")
    play(*off)
    assert DIST_INIT in open_ports(LAN[0])
    assert changes(play(*off)) == [0] * 4
    assert changes(play("site.yml", "--tags", "firewall")) == [1] * 4


def test_the_lan_finds_ssh_and_the_api_and_nothing_else() -> None:
    assert scanned() == AS_PLANNED
    assert serves()


def test_members_reach_everything_over_the_fabric_alone() -> None:
    assert on("spark-1", CONNECT.format("198.18.100.11", DIST_INIT)) == "in"
    assert on("spark-2", CONNECT.format("198.18.101.11", API)) == "in"
    assert "refused" in on("spark-1", CONNECT.format(LAN[0], DIST_INIT))


def test_rules_outlive_a_reload_of_nftables_and_so_do_dockers() -> None:
    before = on("spark-0", RULES)
    assert int(before) > 0
    on_all("systemctl reload dgx-spark-firewall")
    assert on("spark-0", RULES) == before
    # Debian's own service flushes everything, ours included, unless it is told to load it again.
    on("spark-1", "systemctl restart nftables")
    assert scanned() == AS_PLANNED
    assert serves()


def test_docker_restarts() -> None:
    before, old = on("spark-2", RULES), group.epochs(HEAD)
    on("spark-2", "systemctl restart docker")
    until("the group serves again", lambda: serves_anew(old), 300)
    assert on("spark-2", RULES) == before
    assert scanned() == AS_PLANNED


def test_a_node_boots() -> None:
    old = group.epochs(HEAD)
    power_cut("spark-3")
    until("the group serves again", lambda: serves_anew(old), 300)
    assert scanned() == AS_PLANNED
    assert on("spark-3", "ip -br address show enP2p1s0f1np1").split()[1:] == ["UP", "198.18.101.14/24"]


@pytest.mark.parametrize("closing", ["tcp dport 22 ct state new drop", "tcp dport 22 drop"])
def test_a_node_takes_rules_back_that_lock_the_controller_out(closing: str) -> None:
    """With and without the connections that are there: the guard must not be misled by an old one."""
    table = "table inet locked { chain input { type filter hook input priority -20; " + closing + "; }; }"
    lock = ["sh", "-c", f"nft delete table inet locked 2>/dev/null; test ! -e /root/locked || nft '{table}'"]
    change = {"name": "lock", "files": [{"path": "/root/locked", "content": "x"}], "apply": [lock], "seconds": SECONDS}
    words = ["ansible", "spark-1", "-m", "dgx_spark.sglang.guarded_change", "-a", json.dumps(change)]
    began = time.monotonic()
    output = run(*words, code=2, seconds=300)
    assert "the node is as it was before: the controller did not confirm it in time" in output
    assert time.monotonic() - began > SECONDS
    assert on("spark-1", "test ! -e /root/locked && nft list tables") != ""
    assert "locked" not in on("spark-1", "nft list tables")


GUARD = "/var/lib/dgx-spark-guard/firewall/pending.json"
HOLD = (
    f"systemd-run --quiet --collect --unit=hold sh -c 'until test -e {GUARD}; do sleep 0.02; done; "
    'nft "table inet held { chain input { type filter hook input priority -30; tcp dport 22 ct state new drop; }; }"\''
)
OFF = ("site.yml", "--tags", "firewall", "-e", '{"firewall_enabled": false, "firewall_confirm_seconds": 20}')


def inside(node: str, script: str) -> str:
    """Run a line of shell on a node whose ssh is closed."""
    words = ["podman", "exec", node, "sh", "-c", script]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


def is_held(tables: str) -> bool:
    """Whether our firewall is gone and nobody new gets in."""
    return "table inet held" in tables and "table inet dgx_spark" not in tables


def turn_off_and_lose_the_controller(node: str) -> None:
    """The run is killed when the node has written and applied the change, and nobody has confirmed it."""
    on(node, HOLD)
    try:
        # In a process namespace of its own: a worker would outlive its killed parent, and confirm.
        words = ["unshare", "--pid", "--fork", "--kill-child", *command(*OFF)]
        with subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
        ) as process:
            try:
                until("the change is applied", lambda: is_held(inside(node, "nft list tables")), 60)
            finally:
                process.kill()
        pending = inside(node, f"test -e {GUARD} && echo pending")
    finally:
        inside(node, "systemctl stop hold; nft delete table inet held")
    assert pending == "pending"


def test_a_run_killed_before_its_confirmation_is_made_up_for_by_the_next() -> None:
    """At once, while the timer of the killed run is still there, and without it striking later."""
    turn_off_and_lose_the_controller("spark-1")
    play(*OFF)
    assert changes(play(*OFF)) == [0] * 4
    assert on("spark-1", "systemctl list-timers --all --no-legend 'dgx-spark-guard*'") == ""
    assert "dgx_spark" not in on("spark-1", "nft list tables")
    assert changes(play("site.yml", "--tags", "firewall")) == [1] * 4


def test_power_lost_before_the_confirmation_leaves_the_firewall_that_was_there() -> None:
    old = group.epochs(HEAD)
    turn_off_and_lose_the_controller("spark-1")
    power_cut("spark-1")
    assert "table inet dgx_spark" in on("spark-1", "nft list tables")
    assert changes(play("site.yml", "--tags", "firewall"))[1] == 0
    until("the group serves again", lambda: serves_anew(old), 300)
    assert scanned() == AS_PLANNED


def test_rules_that_would_lock_out_are_refused_before() -> None:
    output = play("site.yml", "--tags", "firewall", "-e", '{"firewall_ssh_sources": ["10.9.8.7"]}', code=2)
    assert "Add 198.18.0.1 or its network to firewall_ssh_sources" in output
    output = play("site.yml", "--tags", "firewall", "-e", '{"firewall_custom_rules": ["tcp port 5 nonsense"]}', code=2)
    assert "refuses the new files; nothing was changed" in output
    assert scanned() == AS_PLANNED


def test_no_change_run() -> None:
    assert changes(play("site.yml", "--tags", "fabric,firewall")) == [0] * 4
