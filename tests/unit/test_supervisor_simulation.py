# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The group as a whole: what must never happen whatever fails, and what must happen once nothing does any more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from ansible_collections.dgx_spark.sglang.tests.unit.supervised import Node, World
from hypothesis import given, settings
from hypothesis import strategies as st

KINDS = ("container", "supervisor", "freeze", "part", "deafen")
FAULTS = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.integers(0, 3),
        st.sampled_from([0.1, 1.1, 2.5, 7.0, 12.0, 30.0]),
        st.sampled_from([0.5, 5.0, 19.0, 25.0, 60.0]),
    ),
    min_size=1,
    max_size=8,
)
ACTS: dict[str, Callable[[World, Node, float], None]] = {
    "container": lambda world, node, _: world.kill_container(node),
    "supervisor": lambda world, node, _: world.kill_supervisor(node) if node.group else None,
    "freeze": lambda world, node, seconds: world.freeze(node, seconds),
    "part": lambda world, node, seconds: world.part({node.rank}, seconds),
    "deafen": lambda world, node, seconds: world.deafen({node.rank}, seconds),
}


def strike(world: World, kind: str, rank: int, seconds: float) -> None:
    """One fault."""
    ACTS[kind](world, world.nodes[rank % len(world.nodes)], seconds)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), ranks=st.integers(1, 4), faults=FAULTS)
def test_epochs_never_meet_and_the_group_comes_back(
    seed: int, ranks: int, faults: list[tuple[str, int, float, float]]
) -> None:
    """Every start of a container asserts that there is none of another epoch; no container outlives its group."""
    world = World(ranks, seed, loss=0.15, twice=0.1, replay=0.2, delay=0.4)
    longest = 0.0
    for kind, rank, wait, seconds in faults:
        world.run(wait)
        strike(world, kind, rank, seconds)
        longest = max(longest, world.now + seconds)
    world.run(max(0.0, longest - world.now))
    # Silence of 20 s, two ends with back-off up to 8 s each, and starts.
    world.run(60)
    assert not world.run(20, lambda: not world.serving())


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_all_come_to_serve_in_one_epoch(ranks: int) -> None:
    world = World(ranks)
    assert world.run(8, world.serving)
    assert {node.life for node in world.nodes} == {1}


@pytest.mark.parametrize("rank", range(4))
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("container", "its container ended"),
        ("supervisor", ""),
        ("freeze", "not heard for 2"),
        ("part", "not heard for 2"),
    ],
)
def test_every_node_names_the_one_that_failed_first(kind: str, why: str, rank: int) -> None:
    """The others' containers die of it 0.3 s later, where there was a death; that names nobody else."""
    world = World(4)
    assert world.run(10, world.serving)
    world.run(3.3)
    strike(world, kind, rank, 30)
    if kind == "supervisor":
        # systemd ends what is left of it.
        world.kill_container(world.nodes[rank])
    others = [node for node in world.nodes if node.rank != rank]
    assert world.run(32, lambda: all(node.verdicts for node in others))
    blamed = {node.verdicts[0].member.rank for node in others}
    assert blamed == {rank}
    assert all(node.verdicts[0].why.startswith(why) for node in others)
    assert world.run(60, world.serving)


@pytest.mark.parametrize("rank", range(3))
def test_a_stop_by_hand_ends_the_group_and_is_no_failure(rank: int) -> None:
    world = World(3)
    assert world.run(10, world.serving)
    node = world.nodes[rank]
    world.stop_by_hand(node)
    assert world.run(1, lambda: all(other.verdicts for other in world.nodes))
    assert {str(other.verdicts[0]) for other in world.nodes} == {f"rank {rank} (spark-{rank + 1}) was stopped by hand"}
    assert world.nodes[0].failures == 0
    # The others wait for it, for as long as it takes.
    world.run(120)
    assert not any(other.container for other in world.nodes)
    assert [len(other.verdicts) for other in world.nodes] == [1, 1, 1]
    node.stopped = False
    world.start(node)
    assert world.run(8, world.serving)


def test_a_death_is_told_to_all_at_once_and_judged_soon() -> None:
    world = World(4)
    assert world.run(10, world.serving)
    began = world.now
    world.kill_container(world.nodes[3])
    # The head knows in no time, and tells all that it does.
    assert world.run(0.05, lambda: all(n.group and n.group.state.phase != "serving" for n in world.nodes[:1]))
    assert world.run(2, lambda: all(node.verdicts for node in world.nodes))
    assert world.now - began < 1.2
