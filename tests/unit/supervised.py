# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A group of ranks in one process, with a clock, a network and containers that a test makes as bad as it wants."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from ansible_collections.dgx_spark.sglang.roles.rank.files.dgx_spark_rank import (
    BEAT_SECONDS,
    HURRY_SECONDS,
    Config,
    Failure,
    Group,
    Member,
    Own,
    Verdict,
    backoff,
)

KEY = bytes(32)
REMOVAL = 0.5
START = 3.0
RESTART = 1.0
SPREAD = 0.3
"""After so many seconds the death of a container has killed the others of its epoch."""


def config(rank: int, ranks: int, **other: object) -> Config:
    """The configuration of one rank, with times as on nodes but for the back-off."""
    members = tuple(Member(number, f"spark-{number + 1}", f"10.0.0.{number + 1}") for number in range(ranks))
    values: dict[str, object] = {"group": "g", "port": 1, "key_file": "", "container": "c", "health_url": "http://h/"}
    values |= {"generate_url": None, "dist_init": None, "started_marker": "", "backoff_most_seconds": 8}
    return Config(rank=rank, members=members, **(values | other))  # type: ignore[arg-type]


@dataclass
class Container:
    """A container on a node. It outlives the process that started it. dead_at: when its processes ended."""

    epoch: str
    since: float
    dead_at: float | None = None


@dataclass
class Node:
    """A node. group: of its supervisor's present life, None between two. verdicts: of all lives."""

    rank: int
    container: Container | None = None
    group: Group | None = None
    life: int = 0
    clear: bool = False
    started: bool = False
    ending: bool = False
    next_beat: float = 0.0
    frozen: bool = False
    stopped: bool = False
    lone_since: float | None = None
    awake_since: float = 0.0
    failures: int = 0
    waiting: list[tuple[bytes, str]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)


class World:
    """All of it. loss, twice, replay: how likely each is for a datagram; delay: the most seconds it takes."""

    def __init__(self, ranks: int, seed: int = 0, **network: float) -> None:
        self.now = 1000.0
        self.random = random.Random(seed)
        self.loss, self.twice = network.get("loss", 0.0), network.get("twice", 0.0)
        self.replay, self.delay = network.get("replay", 0.0), network.get("delay", 0.001)
        self.cut: set[int] = set()
        self.cut_to: set[int] = set()
        self.recorded: list[tuple[bytes, str, int]] = []
        self.nodes = [Node(rank) for rank in range(ranks)]
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        for node in self.nodes:
            self.at(self.random.random(), lambda node=node: self.start(node))  # type: ignore[misc]
        self.watch()

    # ---- time ----

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something later."""
        heapq.heappush(self._events, (self.now + seconds, next(self._count), act))

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass. Returns whether the condition came true."""
        end = self.now + seconds
        while not until():
            if not self._events or self._events[0][0] > end:
                self.now = end
                return False
            self.now, _, act = heapq.heappop(self._events)
            act()
        return True

    # ---- network ----

    def send(self, source: int, datagrams: list[tuple[str, bytes]]) -> None:
        """Put datagrams on the way."""
        for address, data in datagrams:
            target = int(address.rsplit(".", 1)[1]) - 1
            if self.recorded and self.random.random() < self.replay:
                self._arrive(*self.random.choice(self.recorded))
            if source in self.cut or target in self.cut or target in self.cut_to or self.random.random() < self.loss:
                continue
            # What never came through can't be replayed; it would only be late.
            self.recorded.append((data, f"10.0.0.{source + 1}", target))
            for _ in range(2 if self.random.random() < self.twice else 1):
                self._arrive(data, f"10.0.0.{source + 1}", target)

    def _arrive(self, data: bytes, source: str, target: int) -> None:
        self.at(self.random.random() * self.delay, lambda: self.receive(self.nodes[target], data, source))

    def receive(self, node: Node, data: bytes, source: str) -> None:
        """A datagram has arrived."""
        if node.frozen:
            node.waiting.append((data, source))
        elif node.group:
            self.send(node.rank, node.group.heard(self.now, data, source))
            self.step(node)

    # ---- supervisors ----

    def start(self, node: Node) -> None:
        """A new life of the supervisor; it removes the container first."""
        if node.stopped or node.group:
            return
        wait = backoff(node.failures, 1, 8)
        node.life += 1
        session = f"{node.rank}-{node.life}"
        node.group = Group(config(node.rank, len(self.nodes)), KEY, session, self.now, wait, "it failed")
        node.clear = node.started = node.ending = False
        node.waiting.clear()
        self.at(REMOVAL, self.of_life(node, lambda: self.cleared(node)))
        self.tick(node, node.life)

    def of_life(self, node: Node, act: Callable[[], None]) -> Callable[[], None]:
        """The act, unless that life is over by then; later where the node is frozen."""
        life = node.life

        def later() -> None:
            if node.frozen:
                self.at(0.5, later)
            elif node.life == life and node.group:
                act()

        return later

    def cleared(self, node: Node) -> None:
        """The container is gone."""
        node.container = None
        node.clear = True
        self.step(node)

    def tick(self, node: Node, life: int) -> None:
        """The loop's own beat."""
        if node.group and node.life == life:
            if not node.frozen:
                self.step(node)
            self.at(HURRY_SECONDS if node.group and node.group.hurry else BEAT_SECONDS, lambda: self.tick(node, life))

    def step(self, node: Node) -> None:
        """What the supervisor's loop does."""
        group = node.group
        if node.frozen or group is None:
            return
        failure = None
        if node.started and not node.ending and node.container and node.container.dead_at is not None:
            failure = Failure(node.container.dead_at, "its container ended")
        changed = group.step(self.now, Own(node.clear, self.healthy(node), failure))
        if group.started and not node.started and not group.verdict:
            self.start_container(node, group)
        if group.serving:
            node.failures = 0
        if group.verdict and not node.ending:
            node.ending, node.clear = True, False
            node.verdicts.append(group.verdict)
            node.failures += not group.verdict.by_hand
            self.at(REMOVAL, self.of_life(node, lambda: self.cleared(node)))
        if changed or self.now >= node.next_beat:
            node.next_beat = self.now + (HURRY_SECONDS if group.hurry else BEAT_SECONDS)
            self.send(node.rank, group.say(self.now))
        if node.ending and node.clear and group.told(self.now):
            self.kill_supervisor(node)

    def kill_supervisor(self, node: Node) -> None:
        """The end of a life, be it orderly or not; systemd starts the next one."""
        node.group = None
        self.at(RESTART, lambda: self.start(node))

    # ---- containers ----

    def start_container(self, node: Node, group: Group) -> None:
        """`docker run`. This is where two epochs would meet."""
        epoch = group.state.epoch
        others = {other.container.epoch for other in self.nodes if other.container}
        assert others <= {epoch}, f"rank {node.rank} starts {epoch} while {others} are there"
        assert node.container is None
        node.started = True
        node.container = Container(epoch, self.now)

    def healthy(self, node: Node) -> bool:
        """Whether a server answers: only if all of its epoch are there, and have had time to load."""
        own = node.container
        return own is not None and all(
            other.container
            and other.container.epoch == own.epoch
            and other.container.dead_at is None
            and self.now - other.container.since > START
            for other in self.nodes
        )

    def kill_container(self, node: Node) -> None:
        """A container dies, and a moment later the others of its epoch."""
        container = node.container
        if container is None or container.dead_at is not None:
            return
        container.dead_at = self.now
        self.step(node)
        for other in self.nodes:
            if other.container and other.container.epoch == container.epoch and not other.frozen:
                self.at(SPREAD, lambda other=other: self.kill_container(other))  # type: ignore[misc]

    def watch(self) -> None:
        """No container outlives its group by more than two silences: a rank's, and that of the head that missed it."""
        for node in self.nodes:
            apart = node.frozen or node.rank in self.cut | self.cut_to
            gone = apart or node.container is None or node.container.dead_at is not None
            node.lone_since = (node.lone_since or self.now) if gone and len(self.nodes) > 1 else None
            node.awake_since = self.now if node.frozen else node.awake_since
        long_gone = any(node.lone_since and node.lone_since < self.now - 50 for node in self.nodes)
        for node in self.nodes:
            runs = node.container and node.container.dead_at is None and node.container.since < self.now - 50
            assert not (long_gone and runs and node.awake_since < self.now - 50), f"rank {node.rank} lives on"
        self.at(1, self.watch)

    # ---- nodes ----

    def freeze(self, node: Node, seconds: float) -> None:
        """Nothing on a node moves for some time; what is sent to it waits."""

        def thaw() -> None:
            node.frozen = False
            waiting, node.waiting = node.waiting, []
            for data, source in waiting[-50:]:
                self.receive(node, data, source)

        node.frozen = True
        self.at(seconds, thaw)

    def part(self, ranks: set[int], seconds: float) -> None:
        """Some nodes are cut off for some time."""
        self.cut |= ranks
        self.at(seconds, lambda: self.cut.difference_update(ranks))

    def deafen(self, ranks: set[int], seconds: float) -> None:
        """Some nodes hear nothing for some time, but are heard."""
        self.cut_to |= ranks
        self.at(seconds, lambda: self.cut_to.difference_update(ranks))

    def stop_by_hand(self, node: Node) -> None:
        """A person stops a rank for good."""
        node.stopped = True
        if node.group:
            node.group.step(self.now, Own(node.clear, False, Failure(self.now, "stopped by hand", by_hand=True)))
            self.send(node.rank, node.group.say(self.now))
            self.step(node)

    def serving(self) -> bool:
        """Whether all ranks know that the group serves."""
        groups = [node.group for node in self.nodes]
        return all(group and group.serving and not group.verdict for group in groups) and (
            len({group.state.epoch for group in groups if group}) == 1
        )
