# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What the ranks say to each other: whatever comes, it is a message of this group's key or it is nothing."""

from __future__ import annotations

import hmac
import json
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.roles.rank.files import dgx_spark_rank as rank
from ansible_collections.dgx_spark.sglang.roles.rank.files.dgx_spark_rank import Group, Message, Own, State, WireError
from ansible_collections.dgx_spark.sglang.tests.unit.supervised import KEY, config
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.text("0123456789abcdef", min_size=1, max_size=32)
NUMBERS = st.integers(0, 2**53 - 1)
STATES = st.builds(
    State,
    phase=st.sampled_from(rank.PHASES),
    epoch=NAMES,
    seconds=st.floats(0, 1e9),
    first=st.integers(-1, 7),
    why=st.text(max_size=2000),
    by_hand=st.booleans(),
)
MESSAGES = st.builds(
    Message, group=NAMES, rank=st.integers(0, 7), session=NAMES, to=NAMES, seq=NUMBERS, ack=NUMBERS, state=STATES
)
GOOD: dict[str, Any] = {
    "group": "g",
    "rank": 1,
    "session": "b",
    "to": "a",
    "seq": 5,
    "ack": 1_000_000,
    "phase": "ready",
    "epoch": "a",
    "seconds": 0.0,
    "first": -1,
    "why": "",
    "by_hand": False,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(list(GOOD)), inner, max_size=3),
    max_leaves=8,
)


def signed(body: bytes) -> bytes:
    """A datagram that somebody with the key made."""
    return rank.MAGIC + hmac.digest(KEY, rank.MAGIC + body, "sha256") + body


def head() -> Group:
    """A head that has a peer at 10.0.0.2 and has said something at 1000 s."""
    group = Group(config(0, 2), KEY, "a", 1000)
    group.step(1000, Own(clear=True))
    group.say(1000)
    return group


@given(MESSAGES)
def test_a_message_comes_back_and_fits(message: Message) -> None:
    data = rank.encode(message, KEY)
    assert len(data) <= rank.LIMIT
    back = rank.decode(data, KEY)
    assert back.state.why == rank.plain(message.state.why, rank.WHY_BYTES)
    assert vars(back) == {**vars(message), "state": back.state}
    assert {**vars(back.state), "why": 0} == {**vars(message.state), "why": 0}


@pytest.mark.parametrize("letter", ["x", '"', "\\", "\N{GRINNING FACE}", "\x07", "\ud800"])
def test_the_longest_message_fits(letter: str) -> None:
    most = 2**53 - 1
    state = State("failing", "f" * 32, most - 0.123, 7, letter * 2000, by_hand=False)
    assert len(rank.encode(Message("f" * 64, 7, "f" * 32, "f" * 32, most, most, state), KEY)) <= rank.LIMIT


@given(st.binary(max_size=1300), st.booleans())
def test_random_bytes_are_no_message(data: bytes, magic: bool) -> None:
    with pytest.raises(WireError):
        rank.decode(rank.MAGIC + data if magic else data, KEY)


@given(st.integers(0, 10_000))
def test_a_flipped_bit_makes_it_no_message(bit: int) -> None:
    data = bytearray(signed(json.dumps(GOOD).encode()))
    data[bit // 8 % len(data)] ^= 1 << bit % 8
    with pytest.raises(WireError):
        rank.decode(bytes(data), KEY)


def test_the_good_message_is_one() -> None:
    """Otherwise the tests around it would prove nothing."""
    group = head()
    assert group.heard(1000, signed(json.dumps(GOOD).encode()), "10.0.0.2")
    assert group.peers[1].state.phase == "ready"
    assert not group.dropped


@given(JSON)
def test_nonsense_with_the_right_key_does_nothing(value: Any) -> None:
    group = head()
    body = json.dumps(value).encode()
    assert group.heard(1000, signed(body)[: rank.LIMIT + 1], "10.0.0.2") == []
    assert group.peers[1].session == ""
    assert group.dropped.total() == 1


@given(st.sampled_from(list(GOOD)), JSON)
def test_a_good_message_with_one_odd_value_is_good_or_nothing(key: str, value: Any) -> None:
    group = head()
    group.heard(1000, signed(json.dumps(GOOD | {key: value}).encode()), "10.0.0.2")
    state = group.peers[1].state
    assert [type(field) for field in vars(state).values()] == [str, str, float, int, str, bool]
    assert state.why.isprintable()
    group.step(1000, Own(clear=True))
    group.doing(1000)
    assert group.say(1000)


@pytest.mark.parametrize(
    "body", [b"[" * 1100, b'{"a":' * 180, b"1" * 1100, b"\xff", b"", b"NaN", b'"' + b"\\ud800" * 9]
)
def test_hostile_json_is_no_message(body: bytes) -> None:
    with pytest.raises(WireError):
        rank.decode(signed(body), KEY)


@pytest.mark.parametrize(
    ("change", "source"),
    [
        ({"rank": 0}, "10.0.0.1"),
        ({"rank": 7}, "10.0.0.8"),
        ({}, "10.0.0.3"),
        ({"group": "other"}, "10.0.0.2"),
        ({"seconds": -1.0}, "10.0.0.2"),
        ({"phase": "sleeping"}, "10.0.0.2"),
        ({"extra": 1}, "10.0.0.2"),
    ],
)
def test_what_is_not_of_a_member_is_dropped_and_counted(change: dict[str, Any], source: str) -> None:
    group = head()
    assert group.heard(1000, signed(json.dumps(GOOD | change).encode()), source) == []
    assert group.peers[1].session == ""
    assert group.dropped.total() == 1


def test_made_up_addresses_do_not_fill_the_memory() -> None:
    group = head()
    for number in range(1000):
        group.heard(1000, b"x", f"10.0.{number // 256}.{number % 256}")
    assert group.dropped.total() == 1000
    assert len(group.dropped) < 30


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x1b[0m\tc\n", "ab c"),
        ("api_key='secret', x", "api_key='***', x"),
        ("--api-key secret", "--api-key ***"),
        ("\ud800x", "x"),
        ("ä" * 200, "ä" * 98 + " ..."),
    ],
)
def test_texts_are_plain(text: str, shown: str) -> None:
    assert rank.plain(text) == shown
