"""A rank fails, the group recovers, and every node says who was first. The real server, idle and under chats."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator

import pytest

from lab import faults, group, layout
from lab.faults import Fault, inside
from lab.layout import Node
from lab.run import each, wait_for
from tests.tools import operating
from tests.tools.operating import ROOT, until

NODES = layout.nodes(int(os.environ.get("LAB_FAULT_NODES", "2")))
INVENTORY = ROOT / ".lab/faults-inventory"
HEAD, LAST = NODES[0], NODES[-1]
LONGER_THAN_ANY_SILENCE = 30  # seconds: of health_seconds and silence_seconds, and what is added to them


def play(playbook: str, *arguments: str, code: int = 0) -> str:
    """Run a playbook on the nodes."""
    return operating.play(playbook, *arguments, code=code, inventory=INVENTORY)


@pytest.fixture(autouse=True)
def begins_and_ends_whole() -> Iterator[None]:
    """No hand is laid on it but the test's own."""
    group.serving(NODES)
    yield
    group.serving(NODES)


@contextlib.contextmanager
def lasting(fault: Fault, node: Node) -> Iterator[None]:
    """A fault that lasts as long as the context."""
    assert fault.end
    fault.begin(node)
    try:
        yield
    finally:
        fault.end(node)


LASTING = [faults.FABRIC, faults.POWER]
ONCE = [fault for fault in faults.FAULTS if fault.end is None]


def places(chosen: list[Fault]) -> list[tuple[Fault, Node, str]]:
    """Each fault once, on rank 0 or another one, idle or under chats; LAB_FAULTS=all: all of these for each."""
    if os.environ.get("LAB_FAULTS") == "all":
        return [(fault, node, kind) for fault in chosen for node in NODES for kind in ("idle", "chats")]
    pair = ((HEAD, "idle"), (LAST, "chats"))
    return [(fault, *pair[index % 2]) for index, fault in enumerate(chosen)]


def name(value: Fault | Node | str) -> str:
    """What pytest calls a case."""
    return value if isinstance(value, str) else value.name


@pytest.mark.parametrize(("fault", "node", "kind"), places(ONCE), ids=name)
def test_it_recovers_by_itself(fault: Fault, node: Node, kind: str) -> None:
    before = set(group.epochs(NODES))
    with group.load(kind):
        began = time.time()
        fault.begin(node)
        at, words = group.noticed(began, NODES)
        group.serving(NODES)
    assert at - began < fault.notice_seconds + 5  # what a busy machine adds; the benchmark holds the figure itself
    assert f"rank {node.number} ({node.name})" in words
    assert set(group.epochs(NODES)) != before
    # Every node names the same rank, once for this end.
    for one in NODES:
        told = [line for _, line in group.journal(one, began, group.ENDED)]
        assert told
        assert f"({node.name})" in told[0]


@pytest.mark.parametrize(("fault", "node", "kind"), places(LASTING), ids=name)
def test_it_says_why_not_and_comes_back_when_the_fault_ends(fault: Fault, node: Node, kind: str) -> None:
    others = [other for other in NODES if other is not node]
    with group.load(kind):
        began = time.time()
        with lasting(fault, node):
            # Seen from the node that is cut off, the others are.
            at, words = group.noticed(began, others)
            assert f"rank {node.number} ({node.name})" in words
            for other in others:
                until(f"{other.name} waits for it", lambda other=other: group.waits(other, node), 60)  # type: ignore[misc]
            assert not any(group.active(other) for other in others)
        group.serving(NODES)
    assert at - began < fault.notice_seconds + 5


@pytest.mark.parametrize(("node", "kind"), [(HEAD, "idle"), (LAST, "chats")], ids=name)
def test_a_cable_out_for_five_seconds_ends_nothing(node: Node, kind: str) -> None:
    before = group.epochs(NODES)
    with group.load(kind):
        with lasting(faults.FABRIC, node):
            time.sleep(5)  # which is the fault itself
        until("it is heard of again", lambda: group.chat(), 60)
    assert group.epochs(NODES) == before


def test_the_lan_does_not_matter() -> None:
    before = group.epochs(NODES)
    with lasting(faults.LAN_CABLE, LAST):
        assert group.chat()
        time.sleep(LONGER_THAN_ANY_SILENCE)
    assert group.epochs(NODES) == before


CLOCK = "/run/clock"
# What starts with these takes its time of day from a file: see lab/node/clock.c.
_CLOCK = {"LD_PRELOAD": f"{CLOCK}/clock.so", "LAB_CLOCK": f"{CLOCK}/ahead"}
_MOVABLE = f"""
set -e
mkdir -p {CLOCK} /run/systemd/system/sglang-rank.service.d
cp /usr/lib/dgx-spark-lab/clock.so {CLOCK}
echo 0 > {CLOCK}/ahead
printf '%s\\n' '[Service]' {" ".join(f"Environment={name}={value}" for name, value in _CLOCK.items())} \\
    > /run/systemd/system/sglang-rank.service.d/clock.conf
systemctl daemon-reload
"""
_FIXED = "rm -r /run/systemd/system/sglang-rank.service.d; systemctl daemon-reload"


@contextlib.contextmanager
def movable_clocks() -> Iterator[None]:
    """Supervisors and servers whose time of day a test may set: the kernel's own is that of the whole machine."""
    options = [f"--volume={CLOCK}:{CLOCK}:ro", *(f"--env={name}={value}" for name, value in _CLOCK.items())]
    each(lambda node: inside(node, _MOVABLE), NODES)
    try:
        play("site.yml", "--tags", "rank", "-e", json.dumps({"rank_docker_options": options}))
        yield
    finally:
        each(lambda node: inside(node, _FIXED), NODES)
        play("site.yml", "--tags", "rank")


def hours_ahead(node: Node) -> int:
    """How far the clock of the server on a node is from the machine's own."""
    said = inside(node, f"docker exec {faults.CONTAINER} python3 -c 'import time; print(time.time())'")
    return round((float(said) - time.time()) / 3600)


def test_a_clock_that_jumps_ends_nothing() -> None:
    with movable_clocks():
        group.serving(NODES)
        before = group.epochs(NODES)
        for node in NODES:
            supervisor = f"$(systemctl show --value --property=MainPID {faults.CONTAINER}.service)"
            assert "clock.so" in inside(node, f"cat /proc/{supervisor}/maps")
        with group.load("chats"):
            for jumps in ((LAST, 24), (HEAD, 1)), ((LAST, -24), (HEAD, 0)):
                for node, hours in jumps:
                    inside(node, f"echo {hours * 3600} > {CLOCK}/ahead")
                    assert hours_ahead(node) == hours
                time.sleep(LONGER_THAN_ANY_SILENCE)
        assert group.epochs(NODES) == before


def test_all_ranks_at_once() -> None:
    began = time.time()
    pids = each(faults.pid_of_rank, NODES)
    # A rank may have felt the end of another one by then.
    each(lambda pair: inside(pair[0], f"kill -KILL {pair[1]} || ! kill -0 {pair[1]}"), zip(NODES, pids, strict=True))
    assert "failed first: " in group.noticed(began, NODES)[1]


def test_all_nodes_lose_power_and_come_back_in_another_order() -> None:
    each(faults.power_off, NODES)
    for node in reversed(NODES):
        faults.power_on(node)
    group.serving(NODES)


def test_a_reload_of_systemd_ends_nothing() -> None:
    """While it serves, and while it starts."""
    before = group.epochs(NODES)
    inside(HEAD, "systemctl daemon-reload")
    assert group.epochs(NODES) == before
    faults.kill_rank(HEAD)
    starting = wait_for("it starts anew", lambda: group.begun(NODES, other_than=before), seconds=60)
    inside(HEAD, "systemctl daemon-reload")
    group.serving(NODES)
    assert group.epochs(NODES) == starting


def test_an_upgrade_of_docker() -> None:
    """The package's own scripts; whether they restart the daemon is the distribution's choice, and Debian's do not."""
    said = inside(LAST, "DEBIAN_FRONTEND=noninteractive apt-get install --reinstall --yes docker.io containerd", 180)
    assert "Setting up docker.io" in said
    group.serving(NODES)


def test_another_image_under_the_same_name() -> None:
    name = inside(LAST, "docker inspect --format '{{.Config.Image}}' sglang-rank")
    right = inside(LAST, "docker inspect --format '{{.Image}}' sglang-rank")
    inside(LAST, f"tar --create --file - /etc/hostname | docker import - {name}")
    try:
        began = time.time()
        faults.kill_rank(HEAD)
        until("the gate refuses it", lambda: bool(group.journal(LAST, began, "gate image: failed")), 60)
        ((_, words), *_) = group.journal(LAST, began, "gate image: failed")
        assert right[:19] in words
        assert "Mend: Run site.yml" in words
        until("rank 0 waits for it", lambda: LAST.name in group.status_text(HEAD), 60)
    finally:
        wrong = inside(LAST, f"docker image inspect --format '{{{{.Id}}}}' {name}")
        inside(LAST, f"docker tag {right} {name}; docker image rm {wrong}")
    group.serving(NODES)


def test_memory_that_runs_out_costs_the_engine_and_not_the_node() -> None:
    """With the node's own guard and thresholds; only what the kernel says of the memory is made up for a moment."""
    began = time.time()
    faults.run_out_of_memory(LAST)
    _, words = group.noticed(began, NODES)
    assert f"rank {LAST.number} ({LAST.name})" in words
    assert "sglang::" in inside(LAST, "journalctl --unit=earlyoom --grep='sending SIGTERM' --output=cat")
    assert inside(LAST, "systemctl is-active ssh docker earlyoom").split() == ["active"] * 3


OTHER_PARSER = ("--tags", "config", "-e", '{"cluster_flags": {"tool-call-parser": "glm45"}}')


@contextlib.contextmanager
def full_disk(node: Node) -> Iterator[None]:
    """The releases lie on a file system that has no room for another one."""
    inside(
        node,
        "cd /opt/sglang/releases && mkdir /full && mount -t tmpfs -o size=1m none /full && cp -a . /full"
        " && (cat /dev/zero > /full/.filler || true) 2>/dev/null && mount --bind /full /opt/sglang/releases",
    )
    try:
        yield
    finally:
        inside(node, "umount /opt/sglang/releases && umount /full && rmdir /full")


def test_a_disk_that_is_full_during_a_rollout() -> None:
    before = group.epochs(NODES)
    with full_disk(LAST):
        output = play("site.yml", *OTHER_PARSER, code=2)
        assert "No space left on device" in output
        assert group.epochs(NODES) == before
        assert not group.problem(NODES)
    play("site.yml", *OTHER_PARSER)
    assert not group.problem(NODES)
    assert group.epochs(NODES) != before


def killed_at(task: int) -> None:
    """Run site.yml, with everything that it has started, up to a task."""
    words = operating.command("site.yml", inventory=INVENTORY)
    # In a process namespace of its own: workers would outlive their killed parent.
    with subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=operating.environment(),
    ) as process:
        assert process.stdout
        seen = 0
        for line in process.stdout:
            seen += line.startswith("TASK [")
            if seen == task:
                process.kill()
                break
        process.stdout.read()


def test_a_controller_killed_at_ten_random_tasks() -> None:
    """The first of the runs has something to roll out: the test before has left another parser."""
    for task in random.Random(6).sample(range(5, 70), 10):
        killed_at(task)
    play("site.yml")
    assert not group.problem(NODES)
    assert operating.changes(play("site.yml")) == [0] * len(NODES)
