# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Who is tested with whom and when: a round-robin tournament, so that pairs that share no node run side by side."""

from __future__ import annotations

Pair = tuple[int, int]


def rounds(count: int) -> list[list[Pair]]:
    """Rounds of pairs of 0 .. count - 1: each pair once, nobody twice in a round.

    The circle method: number 0 keeps its seat, the others move on by one each round, and who sits opposite is the
    partner. That makes count - 1 rounds; where count is odd, one more seat is empty, who sits opposite pauses, and it
    makes count rounds. In a pair the lower number comes first. ValueError if count is negative.
    """
    if count < 0:
        raise ValueError(f"{count} nodes")
    seats = list(range(count + count % 2))
    half = len(seats) // 2
    found = []
    for _ in range(len(seats) - 1):
        opposite = zip(seats[:half], reversed(seats[half:]))
        found.append(sorted((min(pair), max(pair)) for pair in opposite if max(pair) < count))
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return found


def partners(pairs: list[Pair]) -> dict[int, int]:
    """Each one's partner in a round; who pauses is left out."""
    return {**dict(pairs), **{second: first for first, second in pairs}}
