# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What the programs of a fabric test print: ping (iputils), rping (rdma-core) and ib_write_bw (perftest)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

_PING_COUNTS = re.compile(r"(\d+) packets transmitted, (\d+)(?: packets)? received")
_PING_TIMES = re.compile(r"= [\d.]+/([\d.]+)/[\d.]+")
_PING_MTU = re.compile(r"message too long, mtu[=:] ?(\d+)|frag(?:mentation)? needed.*\(mtu(?: =)? (\d+)\)", re.I)
# perftest writes each byte of a GID as a decimal number, for the local side first.
_GID = re.compile(r"^\s*GID: *(\d{1,3}(?::\d{1,3}){15})\s*$", re.M)
_GID_INDEX = re.compile(r"GID index\s*:\s*(\d+)")
_WRITE_UNIT = "Gb/sec"
_NOISE = re.compile(r"^\W*$|conflicting cpu frequency|waiting for client to connect|can't produce a report", re.I)


@dataclass(frozen=True)
class Ping:
    """sent, received: packets. milliseconds: the mean round trip. mtu: what the kernel says is the most, in bytes."""

    sent: int
    received: int
    milliseconds: float | None
    mtu: int | None


@dataclass(frozen=True)
class Write:
    """gigabits: average in Gb/s, only with --report_gbits. gids: local and remote, as addresses. gid_index: local."""

    gigabits: float | None
    gids: tuple[str, ...]
    gid_index: int | None


def ping(output: str) -> Ping:
    """What iputils' ping says, stdout and stderr together; nothing sent where it did not get that far."""
    counts = _PING_COUNTS.search(output)
    times = _PING_TIMES.search(output)
    mtu = _PING_MTU.search(output)
    return Ping(
        sent=int(counts[1]) if counts else 0,
        received=int(counts[2]) if counts else 0,
        milliseconds=float(times[1]) if times else None,
        mtu=int(mtu[1] or mtu[2]) if mtu else None,
    )


def rping_rounds(output: str) -> int:
    """How many times rping saw the other side's data come back whole; both sides write a line for each with -v."""
    return len(re.findall(r"^(?:server )?ping data: rdma-ping-\d+", output, re.M))


def write(output: str) -> Write:
    """What ib_write_bw says. Its table has bytes, iterations, peak, average and messages."""
    title, _, table = output.partition("BW average[")
    gigabits = None
    if table.startswith(_WRITE_UNIT):
        for line in table.splitlines()[1:]:
            words = line.split()
            if len(words) >= 4 and all(re.fullmatch(r"\d+(\.\d+)?", word) for word in words[:4]):
                gigabits = float(words[3])
    index = _GID_INDEX.search(title)
    return Write(gigabits, tuple(map(_address, _GID.findall(title))), int(index[1]) if index else None)


def _address(gid: str) -> str:
    """A GID as perftest writes it, as an address: IPv4 where it is one. As it is where it can't be one."""
    try:
        address = ipaddress.IPv6Address(bytes(int(part) for part in gid.split(":")))
    except ValueError:
        return gid
    return str(address.ipv4_mapped or address)


def said(output: str, lines: int = 3) -> str:
    """The last lines of an output that tell something, as one line."""
    telling = [" ".join(line.split()) for line in output.splitlines() if not _NOISE.search(line)]
    return "; ".join(telling[-lines:])


def any_of(output: str, phrases: Sequence[str]) -> bool:
    """Whether the output holds one of the phrases, in whatever case."""
    lower = output.lower()
    return any(phrase.lower() in lower for phrase in phrases)
