# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""One rank's view: what it believes, what it decides, and what it says about it."""

from __future__ import annotations

import random

import pytest
from ansible_collections.dgx_spark.sglang.roles.rank.files.dgx_spark_rank import (
    Failure,
    Group,
    Message,
    Own,
    State,
    backoff,
    decode,
    encode,
)
from ansible_collections.dgx_spark.sglang.tests.unit.supervised import KEY, World, config

CLEAR = Own(clear=True)
HEALTHY = Own(clear=True, healthy=True)


class Other:
    """The other ranks of a group under test, as a test wants them. now: the clock."""

    def __init__(self, group: Group, *ranks: int) -> None:
        self.group = group
        self.now = 1000.0
        self.seq = 0
        self.sessions = {rank: f"s{rank}" for rank in ranks}

    def message(self, rank: int, phase: str, **values: object) -> bytes:
        """What a rank says, having heard the latest."""
        self.seq += 1
        latest = decode(self.group.say(self.now)[-1][1], KEY).seq
        ack = int(values.pop("ack", latest))  # type: ignore[call-overload]
        session = str(values.pop("session", self.sessions[rank]))
        state = State(phase, **({"epoch": self.group.session if self.group.me.rank == 0 else ""} | values))  # type: ignore[arg-type]
        return encode(Message("g", rank, session, self.group.session, self.seq, ack, state), KEY)

    def say(self, rank: int, phase: str, **values: object) -> int:
        """Let the group hear it. Returns the number of its answers."""
        return len(self.group.heard(self.now, self.message(rank, phase, **values), f"10.0.0.{rank + 1}"))

    def step(self, own: Own, seconds: float = 0) -> str:
        """Let time pass, and the group decide. Returns its phase."""
        self.now += seconds
        self.group.step(self.now, own)
        return self.group.state.phase


def head(ranks: int = 3, **other: object) -> tuple[Group, Other]:
    """A head at 1000 s, and its members."""
    group = Group(config(0, ranks), KEY, "s0", 1000, **other)  # type: ignore[arg-type]
    return group, Other(group, *range(1, ranks))


def serving() -> tuple[Group, Other]:
    """A head that serves with ranks 1 and 2."""
    group, others = head()
    others.step(CLEAR)
    others.say(1, "ready")
    others.say(2, "ready")
    assert others.step(CLEAR) == "running"
    others.say(1, "healthy")
    others.say(2, "healthy")
    assert others.step(HEALTHY) == "serving"
    return group, others


def member() -> tuple[Group, Other]:
    """A member at 1000 s, and its head."""
    group = Group(config(1, 3), KEY, "s1", 1000)
    return group, Other(group, 0)


# ---- what it believes ----


def test_datagrams_of_before_are_refused_by_a_new_process() -> None:
    """All that three ranks ever said, to one of them that starts anew."""
    world = World(3)
    assert world.run(10, world.serving)
    for old in range(3):
        group = Group(config(old, 3), KEY, "new", world.now)
        group.step(world.now, CLEAR)
        group.say(world.now)
        before = group.state
        answers = 0
        for data, source, target in world.recorded:
            if target == old:
                answers += len(group.heard(world.now, data, source))
                group.step(world.now, CLEAR)
        assert answers == len(group.peers)  # one each at one moment
        assert all(peer.session == "" for peer in group.peers.values())
        assert (group.state, group.started, group.verdict) == (before, False, None)


def test_a_replay_into_the_same_process_changes_nothing() -> None:
    group, others = serving()
    said = others.message(1, "failed", session="s1", ack=0)
    old = others.message(1, "ready")
    others.say(1, "healthy")
    for data in (said, old):
        group.heard(others.now, data, "10.0.0.2")
        assert others.step(HEALTHY) == "serving"


def test_messages_that_were_held_back_are_too_old() -> None:
    group, others = head()
    others.step(CLEAR)
    held = others.message(1, "ready")
    others.step(CLEAR, 15)
    group.say(others.now)
    others.step(CLEAR, 5.1)
    assert len(group.heard(others.now, held, "10.0.0.2")) == 1
    assert group.peers[1].session == ""


def test_a_session_that_was_left_does_not_come_back() -> None:
    group, others = head()
    others.step(CLEAR)
    late = others.message(1, "ready", session="old")
    others.say(1, "idle", session="old")
    others.say(1, "idle", session="new")
    others.seq += 1
    group.heard(others.now, late, "10.0.0.2")
    assert group.peers[1].session == "new"


def test_hellos_are_answered_five_times_a_second_at_most() -> None:
    group, others = head()
    hello = others.message(1, "idle", ack=0)
    answers = sum(len(group.heard(1000 + number / 1000, hello, "10.0.0.2")) for number in range(1000))
    assert answers == 5
    answer = decode(group.heard(1002, hello, "10.0.0.2")[0][1], KEY)
    assert (answer.to, answer.ack) == ("s1", others.seq)
    assert group.peers[1].session == ""


def test_news_are_answered_at_once_and_nothing_else() -> None:
    """So two who meet know each other in no time, and whoever tells something knows that it was heard."""
    _, others = head()
    assert [others.say(1, phase) for phase in ("idle", "idle", "ready", "ready")] == [1, 0, 1, 0]
    assert others.say(1, "ready", session="new") == 1


# ---- what the head decides ----


def test_the_head_starts_once_all_are_ready_for_its_epoch() -> None:
    group, others = head()
    assert others.step(Own()) == "clearing"
    assert others.step(CLEAR) == "gather"
    assert group.doing(others.now) == "waiting for rank 1 (spark-2)"
    others.say(1, "ready")
    others.say(2, "ready", epoch="another")
    assert others.step(CLEAR) == "gather"
    assert group.doing(others.now) == "waiting for rank 2 (spark-3)"
    others.say(2, "clearing")
    others.step(CLEAR)
    assert group.doing(others.now) == "waiting for rank 2 (spark-3): it removes its last container"
    others.say(2, "ready")
    # Rank 1 has not been heard for too long meanwhile.
    assert others.step(CLEAR, 3.1) == "gather"
    others.say(1, "ready")
    others.say(2, "ready")
    assert others.step(CLEAR) == "running"
    assert group.started


def test_the_head_waits_after_a_failure_and_says_how_long_and_why() -> None:
    group, others = head(wait=40, why="rank 2 (spark-3) failed first: x")
    for rank in (1, 2):
        others.say(rank, "ready")
    assert others.step(CLEAR) == "backoff"
    assert group.doing(others.now) == "next start in 40 s, because rank 2 (spark-3) failed first: x"
    (_, data), _ = group.say(others.now + 10)
    assert decode(data, KEY).state.seconds == 30
    for _ in range(38):
        others.step(CLEAR, 1)
    assert group.doing(others.now).startswith("next start in 2 s")
    others.say(1, "ready")
    others.say(2, "ready")
    assert others.step(CLEAR, 2) == "running"


def test_the_group_serves_once_all_are_healthy() -> None:
    group, others = head()
    others.step(CLEAR)
    others.say(1, "ready")
    others.say(2, "ready")
    others.step(CLEAR)
    others.say(1, "healthy")
    assert others.step(CLEAR) == "running"
    assert group.doing(others.now) == ""
    assert others.step(HEALTHY) == "running"
    assert group.doing(others.now) == "waiting for rank 2 (spark-3) to be healthy"
    others.say(2, "healthy")
    assert others.step(HEALTHY) == "serving"
    assert group.doing(others.now) == "serving"


def judged(group: Group, others: Other, own: Own = HEALTHY) -> str:
    """The verdict once there is one."""
    for _ in range(30):
        others.step(own, 0.1)
        if group.verdict:
            break
    return str(group.verdict)


def test_the_earliest_failure_is_the_first_even_if_it_is_heard_last() -> None:
    group, others = serving()
    others.say(1, "failed", seconds=0.1, first=1, why="one")
    assert others.step(HEALTHY, 0.5) == "failing"
    others.say(2, "failed", seconds=2.6, first=2, why="two")
    assert judged(group, others) == "rank 2 (spark-3) failed first: two; then rank 1 (spark-2): one"


def test_what_a_rank_says_later_of_the_same_failure_counts() -> None:
    group, others = serving()
    others.say(1, "failed", seconds=0.0, first=1, why="it ended")
    others.say(2, "healthy")
    others.step(HEALTHY, 0.1)
    others.say(2, "healthy")
    others.say(1, "failed", seconds=0.1, first=1, why="it ended with 3")
    assert judged(group, others) == "rank 1 (spark-2) failed first: it ended with 3"


def test_who_does_not_answer_failed_before_the_others_felt_it() -> None:
    group, others = serving()
    others.step(HEALTHY, 0.9)
    others.say(1, "failed", seconds=0.0, first=1, why="lost its peer")
    verdict = judged(group, others)
    assert verdict == "rank 2 (spark-3) failed first: it does not answer; then rank 1 (spark-2): lost its peer"


@pytest.mark.parametrize("rank", [1, 2])
def test_a_new_process_of_a_member_ends_the_epoch(rank: int) -> None:
    group, others = serving()
    others.say(rank, "idle", session="new")
    others.step(HEALTHY)
    others.say(3 - rank, "healthy")
    assert judged(group, others) == f"rank {rank} (spark-{rank + 1}) failed first: its supervisor was started anew"


def test_a_member_that_is_silent_ends_the_epoch() -> None:
    group, others = serving()
    for _ in range(20):
        others.step(HEALTHY, 1)
        others.say(1, "healthy")
        assert group.state.phase == "serving"
    others.step(HEALTHY, 1)
    others.say(1, "healthy")
    assert judged(group, others) == "rank 2 (spark-3) failed first: not heard for 21 s"


def test_a_stop_by_hand_needs_no_judge() -> None:
    group, others = serving()
    others.say(2, "failed", seconds=0.0, first=2, why="stopped by hand", by_hand=True)
    assert others.step(HEALTHY) == "failed"
    assert str(group.verdict) == "rank 2 (spark-3) was stopped by hand"


def test_the_verdict_is_repeated_until_it_is_known() -> None:
    group, others = serving()
    own = Own(clear=True, failure=Failure(others.now, "stopped by hand", by_hand=True))
    assert others.step(own) == "failed"
    assert group.hurry
    assert not group.told(others.now)
    others.now += 0.5
    others.say(1, "healthy", ack=int(others.now * 1000) - 501)
    others.say(2, "failed", epoch="s0")
    assert not group.told(others.now)
    others.say(1, "failed", epoch="s0")
    assert group.told(others.now)


def test_the_verdict_has_its_time_where_nobody_answers() -> None:
    group, others = serving()
    others.step(Own(clear=True, failure=Failure(others.now, "stopped by hand", by_hand=True)))
    assert not group.told(others.now + 1.9)
    assert group.told(others.now + 2.1)


def test_a_node_that_stood_still_blames_itself() -> None:
    group, others = serving()
    others.step(HEALTHY, 60)
    others.say(1, "healthy")
    others.say(2, "healthy")
    assert judged(group, others) == "rank 0 (spark-1) failed first: this node stood still for 60 s"


# ---- what a member decides ----


def test_a_member_starts_only_for_the_epoch_that_it_was_ready_for() -> None:
    group, others = member()
    others.say(0, "running")
    assert others.step(CLEAR) == "idle"
    assert group.doing(others.now) == "waiting for rank 0 (spark-1)"
    others.sessions[0] = "next"
    others.say(0, "gather", why="waiting for rank 2 (spark-3)")
    assert others.step(Own()) == "clearing"
    assert others.step(CLEAR) == "ready"
    assert group.state.epoch == "next"
    assert group.doing(others.now) == "waiting for rank 2 (spark-3)"
    others.sessions[0] = "third"
    others.say(0, "running")
    assert others.step(CLEAR) == "idle"
    others.say(0, "gather")
    others.step(CLEAR)
    # Not heard for too long, and then again.
    assert others.step(CLEAR, 19) == "ready"
    assert others.step(CLEAR, 2) == "idle"
    others.say(0, "running")
    assert others.step(CLEAR) == "running"
    assert group.state.epoch == "third"


def started() -> tuple[Group, Other]:
    """A member of an epoch that serves."""
    group, others = member()
    others.say(0, "gather")
    others.step(CLEAR)
    others.say(0, "running")
    others.step(CLEAR)
    others.say(0, "serving")
    assert others.step(HEALTHY) == "healthy"
    assert group.serving
    return group, others


def test_a_member_takes_the_word_of_the_head() -> None:
    group, others = started()
    others.say(0, "failed", seconds=1.0, first=2, why="two")
    others.step(HEALTHY)
    assert str(group.verdict) == "rank 2 (spark-3) failed first: two"
    assert not group.told(others.now)
    others.say(0, "failed", seconds=1.0, first=2, why="two")
    assert group.told(others.now)


def test_a_member_that_failed_says_so_and_waits_for_the_word_of_the_head() -> None:
    group, others = started()
    own = Own(clear=True, failure=Failure(others.now - 0.5, "mine"))
    assert others.step(own) == "failed"
    assert decode(group.say(others.now)[0][1], KEY).state.seconds == 0.5
    others.say(0, "failing")
    own = Own(clear=True, failure=Failure(others.now, "mine, with 3"))
    assert others.step(own, 1) == "failed"
    assert decode(group.say(others.now)[0][1], KEY).state.why == "mine, with 3"
    assert group.verdict is None
    others.say(0, "failed", first=2, why="two")
    others.step(own)
    assert str(group.verdict) == "rank 2 (spark-3) failed first: two"


def test_a_member_whose_head_answers_no_more_blames_it() -> None:
    group, others = started()
    own = Own(clear=True, failure=Failure(others.now + 0.5, "mine"))
    others.step(own, 0.5)
    others.step(own, 2.1)
    assert str(group.verdict) == "rank 0 (spark-1) failed first: it does not answer; then rank 1 (spark-2): mine"


def test_a_member_that_got_an_answer_but_no_word_blames_itself() -> None:
    group, others = started()
    own = Own(clear=True, failure=Failure(others.now, "mine"))
    others.step(own)
    others.say(0, "failing")
    others.step(own, 3.9)
    assert group.verdict is None
    others.step(own, 0.2)
    assert str(group.verdict) == "rank 1 (spark-2) failed first: mine"


@pytest.mark.parametrize(
    ("session", "wait", "why"),
    [("other", 0.0, "its supervisor was started anew"), ("", 21.0, "not heard for 21 s")],
)
def test_a_member_ends_without_its_head(session: str, wait: float, why: str) -> None:
    group, others = started()
    while wait > 0:
        step = min(wait, 10.5)
        others.step(HEALTHY, step)
        wait -= step
    if session:
        others.say(0, "gather", session=session)
    others.step(HEALTHY)
    assert str(group.verdict) == f"rank 0 (spark-1) failed first: {why}"


# ---- the rest ----


@pytest.mark.parametrize(("failures", "seconds"), [(0, 0), (1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (10**6, 300)])
def test_the_back_off_doubles_up_to_its_most(failures: int, seconds: float) -> None:
    assert backoff(failures, 1, 300) == seconds


def test_one_rank_alone_needs_nobody() -> None:
    group = Group(config(0, 1), b"", "s", 0)
    group.step(0, CLEAR)
    assert group.started
    group.step(1, HEALTHY)
    assert group.serving
    assert group.say(1) == []
    group.step(2, Own(clear=True, failure=Failure(2, "x")))
    group.step(3, Own(clear=True, failure=Failure(2, "x")))
    assert str(group.verdict) == "rank 0 (spark-1) failed first: x"
    assert group.told(3)


def test_order_and_repeats_do_not_matter_to_what_is_believed() -> None:
    """The newest message counts, however the network mixes them."""
    shuffled = random.Random(1)
    for _ in range(50):
        group, others = head()
        others.step(CLEAR)
        said = [others.message(1, phase) for phase in ("clearing", "idle", "ready")]
        for data in shuffled.sample(said * 2, 6):
            group.heard(others.now, data, "10.0.0.2")
        assert group.peers[1].state.phase == "ready"
