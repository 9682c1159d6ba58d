# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The tests of one rail between two nodes: the command lines, and what their output means. No input or output here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_output as output_of

PING, RPING, WRITE = "ping", "rping", "write"
"""The names of the tests in rows."""

PING_HEADERS = 28
"""Bytes of a packet that ping's -s does not count: 20 of IPv4, 8 of ICMP."""

SMALL_PING = 56
"""Bytes that pass on any link; ping's own default."""

RPING_ROUNDS = 10
"""How often rping sends its data there and back."""

PORTS_A_RAIL = 8
"""TCP ports of a rail: the two sides' own connection, then one a step."""

LOOK_AT_PEER = "See the row of the other node; if there is none, look at what keeps it busy and run the test again."

PACKAGES = {"ping": "iputils-ping", "rping": "rdmacm-utils", "ib_write_bw": "perftest"}
"""Where the programs come from, on Debian and Ubuntu."""

# What rping and ib_write_bw say where the other side's program does not listen yet.
_NOBODY = ("RDMA_CM_EVENT_REJECTED", "Couldn't connect to")


@dataclass(frozen=True)
class Rail:
    """One rail as this node has it. number counts from 0; hca is empty where there is no RDMA."""

    number: int
    interface: str
    address: str
    peer_address: str
    hca: str = ""


@dataclass(frozen=True)
class Settings:
    """What the tests of a pair share.

    mtu: bytes. port: the first TCP port, see PORTS_A_RAIL. size, iterations: of ib_write_bw, in bytes and messages.
    timeout: seconds that a program may run. wait: seconds to wait for the other side to begin.
    """

    host: str
    peer: str
    round: int
    mtu: int
    rdma: bool
    port: int
    ping_count: int
    size: int
    iterations: int
    timeout: float
    wait: float


@dataclass(frozen=True)
class Outcome:
    """What a test found. value: in `unit`, where it measures something."""

    ok: bool
    value: float | None = None
    unit: str = ""
    found: str = ""
    expected: str = ""
    mend: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Pinged:
    """A ping, and what it said at its end."""

    sent: int
    received: int
    milliseconds: float | None
    mtu: int | None
    said: str


@dataclass(frozen=True)
class Step:
    """A test. server_listens: whether the program of the side that is called is the one that waits to be called.

    judge: from the output, the exit status (None: it had to be ended) and whether it was the program that calls.
    """

    test: str
    server_listens: bool
    judge: Callable[[Settings, Rail, str, int | None, bool], Outcome]


def port(settings: Settings, rail: Rail, step: int) -> int:
    """The TCP port of the sides' own connection (step 0) or of a step (from 1) on a rail."""
    return settings.port + rail.number * PORTS_A_RAIL + step


def nobody_listens(output: str) -> bool:
    """Whether a program failed because the other one was not there yet."""
    return output_of.any_of(output, _NOBODY)


def install(program: str) -> str:
    """The mend for a program that can't be run."""
    package = PACKAGES.get(program, program)
    return f"Install the package {package} on the node: run site.yml --tags fabric."


def ended(output: str, code: int | None) -> str:
    """How a program ended, and what it said last."""
    how = "had to be ended, as it took too long" if code is None else f"ended with {code}"
    said = output_of.said(output)
    return f"{how}: {said}" if said else how


def no_line(settings: Settings, rail: Rail, why: str, answers: bool, met: bool) -> Outcome:
    """The outcome of tests that did not run: the other side was not met on this rail, or left in the middle.

    answers: whether it answers pings there.
    """
    mend = f"Plug in the cable of {rail.interface} on both nodes, or mend the addresses: run site.yml --tags fabric."
    if met:
        mend = LOOK_AT_PEER
    elif answers:
        mend = f"See that {settings.peer} is in reach, and let its firewall pass TCP port {port(settings, rail, 0)}."
    what = "was lost" if met else "was not met"
    return Outcome(False, found=f"{settings.peer} {what} on {rail.peer_address}: {why}", mend=mend)


def ping_argv(settings: Settings, rail: Rail, size: int) -> list[str]:
    """Ping with packets that may not be fragmented, out of this rail's interface.

    Without -w: with it ping would send more until enough were answered, and not tell that one was lost.
    """
    argv = ["ping", "-n", "-M", "do", "-s", str(size), "-c", str(settings.ping_count), "-i", "0.2", "-W", "1"]
    return [*argv, "-I", rail.interface, rail.peer_address]


def pinged(output: str, code: int | None) -> Pinged:
    """Read ping's output. code: its exit status, None if it had to be ended."""
    ping = output_of.ping(output)
    said = "" if code == 0 else output_of.said(output, 1) or f"ping ended with {code}"
    return Pinged(ping.sent, ping.received, ping.milliseconds, ping.mtu, said)


def ping_outcome(settings: Settings, rail: Rail, big: Pinged, small: Pinged | None) -> Outcome:
    """Judge the ping with whole packets. small: one with small packets, run where that failed, to tell why."""
    size = settings.mtu - PING_HEADERS
    expected = f"{settings.ping_count} answers to pings of {size} bytes that may not be fragmented"
    found = f"{big.received} of {big.sent} answers"
    if big.received >= big.sent >= settings.ping_count:
        return Outcome(True, big.milliseconds, "ms", found, expected)
    reset = "run site.yml --tags fabric"
    if big.mtu is not None:
        found = f"a path MTU of {big.mtu} at {rail.interface}"
        mend = f"Set the MTU of {rail.interface} to {settings.mtu}: {reset}."
    elif not big.sent:
        found, mend = big.said, f"Give {rail.interface} its address: {reset}."
    elif small and small.received:
        found += f" (pings of {SMALL_PING} bytes pass)"
        mend = f"Set an MTU of {settings.mtu} on {settings.peer} ({reset}), and no less on each port of the switch."
        if big.received:
            mend = "Look for a bad cable or transceiver: see the errors of `ethtool -S` on both nodes."
    else:
        mend = f"Plug the cables of {rail.interface} into the same rail on both nodes, and see their links come up."
    return Outcome(False, None, "ms", found, expected, mend)


def neighbour_argv(rail: Rail) -> list[str]:
    """What asks the kernel for the hardware address that it has found on a rail for the peer's address."""
    return ["ip", "-json", "neighbour", "show", "to", rail.peer_address, "dev", rail.interface]


def is_neighbour(output: str) -> bool:
    """Whether iproute2's answer holds a hardware address; an entry that failed has none."""
    return '"lladdr"' in output


def crossed_outcome(settings: Settings, rail: Rail, other: Rail, outcome: Outcome) -> Outcome:
    """The outcome of a ping where the peer's address of another rail is found on this one."""
    found = (
        f"{settings.peer} has {other.peer_address} of rail {other.number} here: the rails are swapped on one of both"
    )
    mend = (
        f"Swap the cables or switch ports of {rail.interface} and {other.interface}, on the node whose rows all fail."
    )
    return replace(outcome, found=found, mend=mend)


def step_argv(settings: Settings, rail: Rail, number: int, calls: bool, gid_index: int | None) -> list[str]:
    """The command of one side of a step; number is its place in STEPS."""
    at = str(port(settings, rail, number + 1))
    if STEPS[number].test == RPING:
        ends = ["-c", "-a", rail.peer_address, "-I", rail.address] if calls else ["-s", "-a", rail.address]
        return ["rping", *ends, "-p", at, "-C", str(RPING_ROUNDS), "-v", "-V"]
    argv = ["ib_write_bw", "-d", rail.hca, "-x", str(gid_index), "-F", "--report_gbits", "-p", at]
    argv += ["-s", str(settings.size), "-n", str(settings.iterations)]
    return [*argv, rail.peer_address] if calls else argv


def judge_rping(settings: Settings, rail: Rail, output: str, code: int | None, calls: bool) -> Outcome:
    """All rounds there and back. The side that is called may be ended by us: some releases stay after the last."""
    expected = f"{RPING_ROUNDS} rounds of RDMA read and write"
    count = output_of.rping_rounds(output)
    # Output of a program that had to be ended stays in its buffer: the side that calls has seen all rounds.
    if (count == RPING_ROUNDS and (code == 0 or not calls)) or (code is None and not calls):
        return Outcome(True, found=f"{RPING_ROUNDS} rounds", expected=expected)
    mend = f"See that `rdma link show` has {rail.hca} ACTIVE on both nodes, and that a firewall passes UDP port 4791."
    return Outcome(False, found=f"rping {ended(output, code)} ({count} rounds)", expected=expected, mend=mend)


def judge_write(settings: Settings, rail: Rail, output: str, code: int | None, calls: bool) -> Outcome:
    """It ran to its end between the fabric's own addresses; how fast is judged elsewhere."""
    local, remote = rail.address, rail.peer_address
    expected = f"GIDs of {local} and {remote}"
    seen = output_of.write(output)
    figures: dict[str, Any] = {"value": seen.gigabits if calls else None, "unit": "Gb/s", "expected": expected}
    if seen.gids and seen.gids != (local, remote):
        found = f"GIDs of {' and '.join(seen.gids)}"
        mend = f"Set {rail.interface} down and up where the GID is wrong, so that the kernel makes its GIDs anew."
        return Outcome(False, **{**figures, "value": None}, found=found, mend=mend)
    if code != 0:
        found = f"ib_write_bw {ended(output, code)}"
        return Outcome(False, **figures, found=found, mend=_write_mend(settings, rail, output, code))
    if not seen.gids or (calls and seen.gigabits is None):
        mend = "Run ib_write_bw on both nodes by hand, and install the perftest of the distribution."
        return Outcome(False, **figures, found=f"ib_write_bw says {output_of.said(output)!r}", mend=mend)
    told = f"{seen.gigabits:g} Gb/s between the right GIDs" if calls else "the right GIDs"
    return Outcome(True, **figures, found=told)


def _write_mend(settings: Settings, rail: Rail, output: str, code: int | None) -> str:
    # A transfer that stalls: its packets of the whole MTU are lost on the way.
    if code is None or output_of.any_of(output, ("status 12", "transport retry counter exceeded")):
        return (
            f"Give both ends and each port of the switch on this rail an MTU of at least {settings.mtu}, and see "
            "that a firewall passes UDP port 4791."
        )
    if output_of.any_of(output, ("allocate memory", "failed to create mr", "couldn't allocate mr")):
        return "Let root lock memory without limit, and see that CmaTotal in /proc/meminfo is not 0 (a faulty kernel)."
    if output_of.any_of(output, ("unable to find the infiniband", "no device", "did not detect devices")):
        return f"Load the driver of {rail.hca} (`modprobe mlx5_ib`), and see that `rdma link show` has it ACTIVE."
    return f"Run ib_write_bw on both nodes by hand with `-d {rail.hca}`, and mend what it says."


STEPS = (Step(RPING, True, judge_rping), Step(WRITE, True, judge_write), Step(WRITE, False, judge_write))
"""The tests that need a program on both sides, in order. Writing is tested both ways."""
