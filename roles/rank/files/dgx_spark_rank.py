# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""One rank of the server: runs its container, and lets it live only as long as those of all other ranks.

    dgx_spark_rank.py CONFIG.json -- /usr/bin/docker run --rm ... IMAGE python3 -m sglang.launch_server ...

systemd runs this on every node (Type=notify, Restart=always). The ranks of a group find each other over the fabric,
start together, and end together. One life of this process is one try: it removes what an earlier one left, waits for
the others, starts the container, tells systemd that it is ready once the whole group serves, and ends with exit code 1
and a reason as soon as any rank has failed; systemd then starts it anew. 0: this or another rank was stopped by hand.
2: the configuration is wrong.

Rank 0 is the head, the others are members. An epoch is one try of the group, named after the head's process. No
container of an epoch is started before every member has said, to this very process of the head, that it has none left.

From top to bottom: configuration, wire format, what is known of a peer, the group (all of it pure, time is an
argument), and then what touches the world: systemd, files, Docker, health, the loop. Nothing but the standard library.
"""

from __future__ import annotations

import collections
import contextlib
import errno
import hashlib
import hmac
import json
import math
import os
import re
import select
import selectors
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

BEAT_SECONDS = 1.0
"""So often everybody says how it is, and at once when that changes."""
HURRY_SECONDS = 0.2
"""So often while the group ends."""
RECENT_SECONDS = 3.0
"""Who was heard so lately is taken to be there now."""
NEWS_SECONDS = 1.0
"""So long the head collects reports after the first bad one: what failed first isn't always what is heard first."""
LINGER_SECONDS = 2.0
"""So long an answer may take of whoever is alive."""
MEMBER_SECONDS = 4.0
"""So long a member that failed waits for the head's word on who was first."""
REMOVE_SECONDS = 30.0
"""So long Docker may take to remove a container."""
LOOK_SECONDS = 2.0
"""So often the container's processes are looked at."""
STOPPED_SECONDS = 5.0
"""So long a process may be stopped: a debugger's attach takes less."""
GENERATE_SECONDS = 600.0
"""So long the first token may take: kernels may still be compiled."""
NOTIFY_SECONDS = 5.0
"""So often systemd hears that all is well."""
FILES_SECONDS = 2.0
"""So often a rank that waits looks whether it has been told something else."""
REST_SECONDS = 15.0
"""So long a rank rests that only a person can help, so that it doesn't fill its node's journal."""
GPU_SECONDS = 60.0
"""So often it is looked whether the container still has its GPU."""
NO_NETWORK = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL)
"""What a node says that has lost an address of its own, as it does while a cable is out."""

# ---- configuration ---------------------------------------------------------------------------


class ConfigError(Exception):
    """What is wrong with the configuration, by key."""


@dataclass(frozen=True)
class Member:
    """One rank. address: IPv4 on the fabric; empty where there is no other rank."""

    rank: int
    host: str
    address: str = ""

    @property
    def name(self) -> str:
        """For people."""
        return f"rank {self.rank} ({self.host})"


@dataclass(frozen=True)
class Config:
    """The configuration. Everything that ends in _seconds is in seconds.

    group: digest of plan and release; ranks with different ones never form a group. members: by rank, from 0 on.
    key_file: 64 hex digits, for its owner alone. generate_url: on rank 0 only. dist_init: IP:PORT of rank 0's store,
    on the others only. health_seconds: after which SGLang itself calls an idle scheduler dead; five more are waited.
    silence_seconds: whoever isn't heard for so long has failed. started_marker: a file that is there once this plan
    has served, so that start_seconds counts instead of first_start_seconds. failing_after: so many starts in a row
    that never served are said to be what they are. gpu_probe: Python that exits with 0 where a process in the container
    sees a GPU; where it has to. keys_file: JSON, the keys of the server's API by its options, for its owner alone;
    where it has some.
    """

    group: str
    rank: int
    members: tuple[Member, ...]
    port: int
    key_file: str
    container: str
    health_url: str
    generate_url: str | None
    dist_init: str | None
    started_marker: str
    health_seconds: float = 20
    health_interval_seconds: float = 5
    silence_seconds: float = 20
    first_start_seconds: float = 3600
    start_seconds: float = 1200
    stop_seconds: float = 30
    backoff_first_seconds: float = 1
    backoff_most_seconds: float = 300
    failing_after: int = 5
    gpu_probe: str | None = None
    keys_file: str | None = None
    state_dir: str = "/run/sglang-rank"


# What a value may be, by the annotation of its field.
_KINDS: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str | None": (str, type(None)),
    "tuple[Member, ...]": (list,),
}
_URL = re.compile(r"http://([\w.-]+)(?::(\d+))?(/\S*)?\Z", re.ASCII)


def parse_config(text: str) -> Config:
    """The configuration in a JSON text. Raises ConfigError with the key that is wrong."""
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"it is no JSON: {error}") from error
    config = Config(**_checked(Config, values, ""))
    members = tuple(
        Member(**_checked(Member, member, f"members[{number}].")) for number, member in enumerate(values["members"])
    )
    if [member.rank for member in members] != list(range(len(members))):
        raise ConfigError("members: their ranks are not 0, 1, 2 and so on")
    if config.rank >= len(members):
        raise ConfigError(f"rank: there is no member {config.rank}")
    if len(members) > 1:
        for member in members:
            try:
                socket.inet_aton(member.address if member.address.count(".") == 3 else "")
            except OSError as error:
                raise ConfigError(f"members[{member.rank}].address: {member.address!r} is no IPv4 address") from error
        if len({member.address for member in members}) < len(members):
            raise ConfigError("members: an address is given twice")
    if not 0 < config.port < 65536:
        raise ConfigError(f"port: {config.port} is no port")
    if not re.fullmatch(r"[\w.:-]{1,64}", config.group, re.ASCII):
        raise ConfigError("group: it is no name of 1 to 64 plain characters")
    for key in ("health_url", "generate_url"):
        url = getattr(config, key)
        if url is not None and not _URL.match(url):
            raise ConfigError(f"{key}: {url!r} is no http://HOST:PORT/PATH")
    if config.dist_init is not None and not re.fullmatch(r"\d+(\.\d+){3}:\d+", config.dist_init):
        raise ConfigError(f"dist_init: {config.dist_init!r} is no IP:PORT")
    return replace(config, members=members)


def _checked(shape: type, values: object, where: str) -> dict[str, Any]:
    """The values if they are what the dataclass wants. Raises ConfigError."""
    if not isinstance(values, dict):
        raise ConfigError(f"{where.rstrip('.') or 'it'} is no object")
    known = {field.name: field for field in fields(shape)}
    for key in values:
        if key not in known:
            raise ConfigError(f"{where}{key}: there is no such key")
    for key, field in known.items():
        if key not in values:
            if field.default is MISSING:
                raise ConfigError(f"{where}{key}: it is missing")
            continue
        value = values[key]
        if not isinstance(value, _KINDS[str(field.type)]) or isinstance(value, bool) != (field.type == "bool"):
            raise ConfigError(f"{where}{key}: {value!r} is no {field.type}")
        if isinstance(value, (int, float)) and not (math.isfinite(value) and value >= 0):
            raise ConfigError(f"{where}{key}: {value!r} is negative or endless")
    return values


def read_key(path: str) -> bytes:
    """The group's key. Raises ConfigError where it is none, or where others may read it."""
    try:
        if os.stat(path).st_mode & 0o077:
            raise ConfigError(f"key_file: {path} may be read by others")
        key = bytes.fromhex(Path(path).read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"key_file: {path}: {error}") from error
    if len(key) != 32:
        raise ConfigError(f"key_file: {path} has {len(key)} bytes, not 32")
    return key


def read_api_keys(path: str | None) -> dict[str, str]:
    """The API's keys by the server's options. Raises ConfigError where it can't, or where others may read them."""
    if path is None:
        return {}
    try:
        if os.stat(path).st_mode & 0o077:
            raise ConfigError(f"keys_file: {path} may be read by others")
        keys = json.loads(Path(path).read_text(encoding="ascii"))
    except OSError as error:
        raise ConfigError(f"keys_file: {path}: {error.strerror}") from error
    except ValueError:
        # What it says of a text may be a part of that text.
        raise ConfigError(f"keys_file: {path} is no JSON") from None
    if not isinstance(keys, dict) or not all(isinstance(key, str) and key for key in keys.values()) or not keys:
        raise ConfigError(f"keys_file: {path} holds no keys")
    return keys


# ---- texts -----------------------------------------------------------------------------------

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SECRETS = re.compile(r"(api_key='?|--(?:admin-)?api-key[= ])[^'\s,)]+")
_TELLING = re.compile(r"(?:docker|\S+: error|(?:\w+\.)*\w*(?:Error|Exception)): ")
_CONSEQUENCES = ("EOFError", "Initialization failed.")


def plain(text: str, size: int = 200) -> str:
    """The text as one line of at most size bytes, without keys, colours or anything that doesn't print."""
    text = _SECRETS.sub(r"\1***", _ANSI.sub("", text[: 8 * size]))
    data = "".join(letter if letter.isprintable() else " " for letter in text).strip().encode()
    return data.decode() if len(data) <= size else data[: size - 4].decode("utf-8", "ignore") + " ..."


def reason(lines: Sequence[str]) -> str:
    """The line that tells most about an end: the last error, else the last line."""
    telling = [line for line in lines if _TELLING.match(line) and not any(word in line for word in _CONSEQUENCES)]
    last = (telling or list(lines))[-1:]
    return f"it said: {last[0]}" if last else "it said nothing"


# ---- wire format -----------------------------------------------------------------------------

MAGIC = b"dgxrank1"
LIMIT = 1200
"""The most bytes of a datagram: no fabric splits it."""
_MAC = hashlib.sha256().digest_size
WHY_BYTES = 350

CLEARING, IDLE, READY, BACKOFF, GATHER = "clearing", "idle", "ready", "backoff", "gather"
RUNNING, HEALTHY, SERVING, FAILING, FAILED = "running", "healthy", "serving", "failing", "failed"
PHASES = (CLEARING, IDLE, READY, BACKOFF, GATHER, RUNNING, HEALTHY, SERVING, FAILING, FAILED)


class WireError(ValueError):
    """Why a datagram is no message of this group's key."""


@dataclass(frozen=True)
class State:
    """How a rank is.

    epoch: which one it is ready for or part of. seconds: since it failed (FAILED), until the next start (BACKOFF).
    first: the rank that failed first as far as it knows, or -1. by_hand: it was no failure, but a person.
    """

    phase: str
    epoch: str = ""
    seconds: float = 0.0
    first: int = -1
    why: str = ""
    by_hand: bool = False


@dataclass(frozen=True)
class Message:
    """What a rank says to another.

    session: names the sender's process. seq: the sender's own clock in ms, and more than in any message before.
    to, ack: session and seq of the receiver's last message that the sender has heard; empty and 0 if none.
    """

    group: str
    rank: int
    session: str
    to: str
    seq: int
    ack: int
    state: State


_WIRE: dict[str, type] = {
    **dict.fromkeys(("group", "session", "to", "phase", "epoch", "why"), str),
    **dict.fromkeys(("rank", "seq", "ack", "first"), int),
    "seconds": float,
    "by_hand": bool,
}


def encode(message: Message, key: bytes) -> bytes:
    """The datagram."""
    values = {**vars(message), **vars(message.state)}
    values["why"] = plain(values["why"], WHY_BYTES)
    del values["state"]
    body = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    return MAGIC + hmac.digest(key, MAGIC + body, "sha256") + body


def decode(data: bytes, key: bytes) -> Message:
    """The message in a datagram. Raises WireError, and nothing else, whatever the bytes are."""
    if len(data) > LIMIT or not data.startswith(MAGIC):
        raise WireError("no message")
    mac, body = data[len(MAGIC) : len(MAGIC) + _MAC], data[len(MAGIC) + _MAC :]
    if not hmac.compare_digest(mac, hmac.digest(key, MAGIC + body, "sha256")):
        raise WireError("another key")
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError("no message") from error
    if not isinstance(values, dict) or {name: type(value) for name, value in values.items()} != _WIRE:
        raise WireError("no message")
    numbers = [(name, values[name]) for name, kind in _WIRE.items() if kind in (int, float)]
    names = [values[name] for name in ("session", "to", "epoch")]
    if (
        not all(0 <= number + (name == "first") < 2**53 for name, number in numbers)
        or not all(len(name) <= 32 for name in names)
        or values["phase"] not in PHASES
        or not values["session"]
    ):
        raise WireError("no message")
    values["why"] = plain(values["why"], WHY_BYTES)
    state = State(**{field.name: values.pop(field.name) for field in fields(State)})
    return Message(**values, state=state)


# ---- what is known of a peer -----------------------------------------------------------------


class Peer:
    """Another rank: its last state that is known to be no replay.

    A message counts only if it names this process and one of its messages of late (to, ack), and is newer than the one
    before (seq). So nothing from an earlier life of either side counts, and nothing that was held back on its way.
    """

    def __init__(self, member: Member) -> None:
        self.member = member
        self.session = ""
        self.seq = 0
        self.acked = 0
        self.heard = -math.inf  # it lived then for sure: it has an answer to what was said at that time
        self.arrived = -math.inf  # when its last message came
        self.left = -math.inf  # when the session before this one was last heard
        self.stranger = False  # has another plan or release
        self.state = State(IDLE)
        self._floor = 0
        self._answered = -math.inf

    @property
    def absent(self) -> str:
        """Who isn't there, and what is known about it."""
        stopped = self.state.by_hand and self.state.first == self.member.rank
        known = ": it has another plan or release" if self.stranger else ": stopped by hand" if stopped else ""
        return self.member.name + known

    def take(self, now: float, message: Message, session: str, seq: int, oldest: int) -> bool:
        """Take in a message; the session and last seq of this process; older acks than oldest don't count.

        Returns whether to answer at once: its phase is new, or it does not know this process yet.
        """
        if message.to != session or not oldest <= message.ack <= seq:
            # Whether it is new or a replay can't be told. An answer lets it show that it lives; at most five a second.
            due = now - self._answered >= HURRY_SECONDS
            self._answered = now if due else self._answered
            return due
        new = message.session != self.session
        if (message.ack <= self._floor) if new else (message.seq <= self.seq):
            return False
        if new:
            # A session that was left doesn't come back: it has seen nothing that was said after this.
            self.left, self._floor = self.heard, seq
        changed = new or message.state.phase != self.state.phase
        # An answer to a replay acknowledges what is long past.
        self.acked = message.ack if new else max(self.acked, message.ack)
        self.session, self.seq, self.state = message.session, message.seq, message.state
        self.heard, self.arrived = max(self.heard, self.acked / 1000), now
        self.stranger = False
        return changed


# ---- the group -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Failure:
    """An end. at: this process's clock, in seconds."""

    at: float
    why: str
    by_hand: bool = False


@dataclass(frozen=True)
class Verdict:
    """Who ended the group first, and why."""

    member: Member
    why: str
    by_hand: bool

    def __str__(self) -> str:
        return f"{self.member.name} {'was' if self.by_hand else 'failed first:'} {self.why}"


@dataclass(frozen=True)
class Own:
    """What this node knows of its own container. clear: there is none."""

    clear: bool = False
    healthy: bool = False
    failure: Failure | None = None


class Group:
    """This rank's part in the group: no input, no output, no clock of its own.

    `heard` takes what came, `step` decides, `say` gives what to send. Then `started` tells to have a container,
    `serving` that all ranks are healthy, `verdict` to end, and `told` that everybody knows.
    """

    def __init__(self, config: Config, key: bytes, session: str, now: float, wait: float = 0, why: str = "") -> None:
        """wait: how many seconds the head waits before it starts anything, and why. session: never used before."""
        self.config, self.key, self.session = config, key, session
        self.me = config.members[config.rank]
        # The head talks to all, the others to the head.
        self.peers = {
            member.rank: Peer(member)
            for member in config.members
            if member.rank != self.me.rank and 0 in (member.rank, self.me.rank)
        }
        self.state = State(CLEARING)
        self.started = False
        self.serving = False
        self.verdict: Verdict | None = None
        self.dropped: collections.Counter[str] = collections.Counter()
        self._seq = 0
        self._mark = now  # what State.seconds counts from or to
        self._stepped = now
        self._start_at, self._start_why = now + wait, why
        self._mine: Failure | None = None
        self._bad: dict[int, Failure] = {}
        self._joined: dict[int, str] = {}  # the sessions that the epoch began with
        self._promise = ""  # the epoch that this member was ready for; it has had no container since
        self._healthy = False
        self._news = math.inf  # when the first bad news came
        self._ended = math.inf
        self._ended_seq = 0  # whoever has seen so much knows of the end
        self._answered = False

    # ---- messages ----

    def heard(self, now: float, data: bytes, source: str) -> list[tuple[str, bytes]]:
        """Take in a datagram from an address. Returns what is to be sent at once: an answer, or nothing."""
        try:
            message = decode(data, self.key)
        except WireError as error:
            return self._drop(f"{error}, from {source}")
        peer = self.peers.get(message.rank)
        if peer is None or peer.member.address != source:
            return self._drop(f"not its place, from {source}")
        if message.group != self.config.group:
            peer.stranger = True
            return self._drop(f"another plan or release, from {source}")
        oldest = int((now - self.config.silence_seconds) * 1000)
        if not peer.take(now, message, self.session, self._seq, oldest):
            return []
        return [(source, self._datagram(now, message.session, message.seq))]

    def _drop(self, why: str) -> list[tuple[str, bytes]]:
        # Not a count for each address that somebody makes up.
        self.dropped[why if len(self.dropped) < 20 else "and others"] += 1
        return []

    def say(self, now: float) -> list[tuple[str, bytes]]:
        """What is to be sent now: the state, to everybody."""
        return [(peer.member.address, self._datagram(now, peer.session, peer.seq)) for peer in self.peers.values()]

    def _datagram(self, now: float, to: str, ack: int) -> bytes:
        self._seq = max(self._seq + 1, int(now * 1000))
        seconds = abs(now - self._mark) if self.state.phase in (FAILED, BACKOFF) else 0.0
        state = replace(self.state, seconds=round(float(seconds), 3))
        return encode(Message(self.config.group, self.me.rank, self.session, to, self._seq, ack, state), self.key)

    # ---- decisions ----

    def step(self, now: float, own: Own) -> bool:
        """Decide, given what is known. Returns whether what is to be said has changed."""
        before = self.state
        gap, self._stepped = now - self._stepped, now
        self._mine = replace(self._mine, why=own.failure.why) if self._mine and own.failure else self._mine
        self._mine = self._mine or own.failure
        self._healthy = own.healthy
        if gap > self.config.silence_seconds:
            # Nobody else was silent: it was this process that didn't listen.
            for peer in self.peers.values():
                peer.heard = now if peer.session else peer.heard
            self._mine = self._mine or Failure(now - gap, f"this node stood still for {gap:.0f} s")
        if self.verdict is None:
            (self._follow if self.me.rank else self._lead)(now, own)
        return self.state != before

    def _lead(self, now: float, own: Own) -> None:
        """The head."""
        if self.started:
            self._collect(now)
            if self._bad:
                if self._news == math.inf:
                    self._news, self._ended_seq = now, self._seq + 1
                self.state = State(FAILING, self.session)
                self._judge(now)
                return
            late = next((peer.member for peer in self.peers.values() if peer.state.phase != HEALTHY), None)
            late = late if own.healthy else self.me
            self.serving = self.serving or late is None
            if self.serving:
                self.state = State(SERVING, self.session)
            elif late:
                self.state = State(RUNNING, self.session, why=f"waiting for {late.name} to be healthy")
        elif self._mine:
            self._end(now, self.me, self._mine)
        elif not own.clear:
            self.state = State(CLEARING)
        elif now < self._start_at:
            self._mark = self._start_at
            self.state = State(BACKOFF, self.session, why=self._start_why)
        elif missing := self._missing(now):
            self.state = State(GATHER, self.session, why=f"waiting for {missing}")
        else:
            self.started = True
            self._joined = {rank: peer.session for rank, peer in self.peers.items()}
            self.state = State(RUNNING, self.session)

    def _missing(self, now: float) -> str:
        """The first member that isn't ready for this epoch, for people; empty when all are."""
        for peer in self.peers.values():
            state = peer.state
            if now - peer.heard > RECENT_SECONDS:
                return peer.absent
            if state.phase != READY or state.epoch != self.session:
                known = {CLEARING: ": it removes its last container", FAILED: ": it ends"}.get(state.phase, "")
                return peer.member.name + known
        return ""

    def _collect(self, now: float) -> None:
        """Note who has failed by now, as well as is known."""
        if self._mine:
            self._bad[self.me.rank] = self._mine
        for rank, peer in self.peers.items():
            state = peer.state
            if peer.session != self._joined[rank]:
                self._bad.setdefault(rank, Failure(peer.left, "its supervisor was started anew"))
            elif state.phase == FAILED and state.epoch == self.session:
                why = state.why if state.first == rank else f"it says of rank {state.first}: {state.why}"
                self._bad[rank] = Failure(peer.arrived - state.seconds, why, state.by_hand)
            elif now - peer.heard > self.config.silence_seconds:
                self._bad.setdefault(rank, Failure(peer.heard, f"not heard for {now - peer.heard:.0f} s"))

    def _judge(self, now: float) -> None:
        """Say who failed first, once all had time to report."""
        waited = now - self._news
        if not any(failure.by_hand for failure in self._bad.values()):
            # Whoever lives answers in a moment. Whoever doesn't, failed before the others felt it.
            quiet = [
                peer for rank, peer in self.peers.items() if rank not in self._bad and peer.acked < self._ended_seq
            ]
            if waited < (LINGER_SECONDS if quiet else NEWS_SECONDS):
                return
            for peer in quiet:
                self._bad[peer.member.rank] = Failure(peer.heard, "it does not answer")
        (first, failure), *later = sorted(self._bad.items(), key=lambda item: item[1].at)
        if later and not failure.by_hand:
            then = f"; then {self.config.members[later[0][0]].name}: {later[0][1].why}"
            failure = replace(failure, why=plain(failure.why + then, WHY_BYTES))
        self._end(now, self.config.members[first], failure)

    def _follow(self, now: float, own: Own) -> None:
        """A member."""
        head = self.peers[0]
        here = now - head.heard <= self.config.silence_seconds
        same = here and head.session == self.state.epoch
        if not self.started:
            if self._mine:
                self._end(now, self.me, self._mine)
            elif not own.clear:
                self.state = State(CLEARING)
            elif here and head.session == self._promise and head.state.phase == RUNNING:
                self.started = True
                self.state = State(RUNNING, head.session)
            elif here and head.state.phase in (BACKOFF, GATHER):
                self._promise = head.session
                self.state = State(READY, head.session)
            else:
                self.state = State(IDLE)
        elif same and head.state.phase == FAILED:
            first = self.config.members[head.state.first if 0 <= head.state.first < len(self.config.members) else 0]
            self._end(now, first, Failure(head.arrived - head.state.seconds, head.state.why, head.state.by_hand))
        elif self._mine:
            if self.state.phase != FAILED:
                self._news, self._ended_seq, self._mark = now, self._seq + 1, self._mine.at
            self.state = State(FAILED, self.state.epoch, 0, self.me.rank, self._mine.why, self._mine.by_hand)
            self._answered = self._answered or (same and head.acked >= self._ended_seq)
            waited = now - self._news
            if self._mine.by_hand:
                if self._answered or waited > LINGER_SECONDS:
                    self._end(now, self.me, self._mine)
            elif not same or waited > (MEMBER_SECONDS if self._answered else LINGER_SECONDS):
                if self._answered:
                    self._end(now, self.me, self._mine)
                else:
                    # The head answers at once. Where it didn't, it was gone before this rank failed, most likely.
                    last = head.heard if head.session == self.state.epoch else head.left
                    why = plain(f"it does not answer; then {self.me.name}: {self._mine.why}", WHY_BYTES)
                    self._end(now, head.member, Failure(last, why))
        elif not here:
            self._end(now, head.member, Failure(head.heard, f"not heard for {now - head.heard:.0f} s"))
        elif not same:
            self._end(now, head.member, Failure(head.left, "its supervisor was started anew"))
        else:
            self.serving = self.serving or head.state.phase == SERVING
            self.state = State(HEALTHY if own.healthy else RUNNING, head.session)

    def _end(self, now: float, member: Member, failure: Failure) -> None:
        self.verdict = Verdict(member, failure.why, failure.by_hand)
        self._ended, self._ended_seq, self._mark = now, self._seq + 1, failure.at
        epoch = self.state.epoch if self.me.rank else self.session
        self.state = State(FAILED, epoch, 0, member.rank, failure.why, failure.by_hand)

    def told(self, now: float) -> bool:
        """Whether the verdict is known to all who are there, or has had its time."""
        return self.verdict is not None and (
            now - self._ended > LINGER_SECONDS
            or all(
                peer.acked >= self._ended_seq or now - peer.heard > RECENT_SECONDS or not self._concerned(peer)
                for peer in self.peers.values()
            )
        )

    def _concerned(self, peer: Peer) -> bool:
        """Whether a peer is of this epoch; a member's one peer always is."""
        return bool(self.me.rank) or peer.session == self._joined.get(peer.member.rank, peer.session)

    @property
    def hurry(self) -> bool:
        """Whether to say more often how things are."""
        return self.state.phase in (FAILING, FAILED)

    def doing(self, now: float) -> str:
        """What the group waits for, in words for people; empty while only the container can tell."""
        if self.verdict:
            return "stopping by hand" if self._mine and self._mine.by_hand else f"ending: {self.verdict}"
        if self.started and FAILING in (self.state.phase, *(peer.state.phase for peer in self.peers.values())):
            return "ending"
        if self.state.phase == FAILED:
            return "stopping by hand" if self.state.by_hand else f"ending: {self.state.why}"
        if self.state.phase == CLEARING:
            return "removing what an earlier start left"
        if self.serving:
            return "serving"
        state = self.state
        if self.me.rank:
            head = self.peers[0]
            state = head.state
            if now - head.heard > self.config.silence_seconds:
                return f"waiting for {head.absent}"
            if not self.started and state.phase not in (BACKOFF, GATHER):
                return f"waiting for {head.member.name}" + (f": {state.why}" if state.why else "")
        if state.phase == BACKOFF:
            left = max(0.0, self._start_at - now if not self.me.rank else state.seconds - (now - head.arrived))
            # Not a new text every second.
            shown = math.ceil(left / 10) * 10 if left > 10 else math.ceil(left)
            return ("waiting for rank 0: " * bool(self.me.rank)) + f"next start in {shown} s, because {state.why}"
        return state.why if state.phase == GATHER or self._healthy else ""


def backoff(failures: int, first: float, most: float) -> float:
    """How many seconds to wait after so many failures in a row."""
    return float(min(most, first * 2.0 ** min(failures - 1, 60))) if failures > 0 else 0.0


# ---- systemd and files -----------------------------------------------------------------------


class Notifier:
    """Tells systemd; where nobody listens it tells nobody."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._status = ""

    def tell(self, *lines: str) -> bool:
        """Some assignments, in one datagram. Returns whether it was taken; systemd may be too busy, and none waits."""
        try:
            if self._address:
                self._socket.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            return False
        return True

    def status(self, text: str) -> None:
        """What is being done, if that is new."""
        if text != self._status and self.tell(f"STATUS={text}"):
            self._status = text


def log(text: str) -> None:
    """A line of our own for the journal; dropped where the journal doesn't take it, since the loop must not wait."""
    ready = select.poll()
    ready.register(1, select.POLLOUT)
    with contextlib.suppress(OSError):
        if ready.poll(0):
            os.write(1, f"supervisor: {plain(text, 1000)}\n".encode())


def put(path: Path, note: Mapping[str, object]) -> None:
    """Write a note in one step; a node whose disk is full goes on without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f".{path.name}.new")
        new.write_text(json.dumps(note) + "\n", encoding="utf-8")
        new.replace(path)
    except OSError as error:
        log(f"{path} can't be written: {error}")


def read_note(path: Path) -> dict[str, Any]:
    """A note that `put` has written; empty where there is none."""
    with contextlib.suppress(OSError, ValueError):
        note = json.loads(path.read_text(encoding="utf-8"))
        return note if isinstance(note, dict) else {}
    return {}


class Files:
    """Some files as they are now, there or not."""

    def __init__(self, *paths: str | None) -> None:
        self._paths = [path for path in paths if path]
        self._seen = self._look()

    def _look(self) -> list[tuple[int, ...]]:
        return [self._state(path) for path in self._paths]

    @staticmethod
    def _state(path: str) -> tuple[int, ...]:
        try:
            found = os.stat(path)
        except OSError:
            return ()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns

    def changed(self) -> bool:
        """Whether one has been replaced, written or removed since."""
        return self._look() != self._seen


class History:
    """How many starts in a row have failed before they served, and how the last one ended: the head's memory.

    A try is noted as failed before it begins: whoever is killed notes nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.failures = 0
        self.why = ""
        note = read_note(path)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            self.failures, self.why = int(note["failures"]), str(note["why"])

    def write(self, failures: int, why: str = "") -> None:
        """Keep other numbers."""
        self.failures, self.why = failures, why
        put(self._path, {"failures": failures, "why": why})


# ---- the container ---------------------------------------------------------------------------


class Output:
    """What the container says: passed on line by line, the last ones kept. A thread, since the journal may block.

    secrets: what is taken out of it; SGLang logs all of its arguments.
    """

    def __init__(self, wake: Callable[[], None], secrets: Iterable[str] = ()) -> None:
        self.lines: collections.deque[str] = collections.deque(maxlen=30)
        self.doing = "starting"
        self._wake = wake
        # The longest first: one may begin as another does.
        hidden = sorted((secret.encode() for secret in secrets), key=len, reverse=True)
        self._secret = re.compile(b"|".join(map(re.escape, hidden)) or b"(?!)")
        self._longest = len(hidden[0]) if hidden else 1

    def follow(self, source: int, target: int) -> None:
        """Read one file descriptor to its end. A carriage return ends a line too, so that progress is seen."""
        rest = b""
        while chunk := os.read(source, 65536):
            *whole, rest = re.split(rb"[\r\n]+", rest + chunk)
            if len(rest) > 16384:
                # A secret that is not whole yet, or would not be, stays for the rest of the line.
                cut = len(rest) - self._longest + 1
                spanning = (found.start() for found in self._secret.finditer(rest) if found.start() < cut < found.end())
                cut = next(spanning, cut)
                whole, rest = [*whole, rest[:cut]], rest[cut:]
            self._pass(whole, target)
        self._pass([rest], target)

    def _pass(self, lines: Iterable[bytes], target: int) -> None:
        data = b"".join(self._secret.sub(b"***", line) + b"\n" for line in lines if line)
        for line in data.decode("utf-8", "replace").splitlines():
            if text := plain(line):
                self.lines.append(text)
                # Not of the whole line: a client may have written most of it.
                self._read(text)
        while data:
            try:
                data = data[os.write(target, data) :]
            except OSError:
                return

    def _read(self, line: str) -> None:
        """Take progress from a line; a short one, as the pattern's time grows with the cube of its length."""
        found = re.search(r"(?:(oading .*shards)|Capturing batches).*?(\d+)%", line)
        doing = self.doing
        if found:
            doing = f"{'loading' if found.group(1) else 'capturing graphs'} {found.group(2)} %"
        elif "Load weight end" in line:
            doing = "loaded, getting ready"
        if doing != self.doing:
            self.doing = doing
            self._wake()


class Removal:
    """Removes the container, in a thread: stops it first where told to. done, and error if it could not."""

    def __init__(self, docker: str, name: str, wake: Callable[[], None]) -> None:
        self._docker, self._name, self._wake = docker, name, wake
        self.done = False
        self.error = ""

    def begin(self, child: subprocess.Popen[bytes] | None = None, stop_seconds: float | None = None) -> Removal:
        """Start. child: `docker run`, which is ended first, so that it can't create the container afterwards."""
        threading.Thread(target=self._run, args=(child, stop_seconds), daemon=True).start()
        return self

    def _run(self, child: subprocess.Popen[bytes] | None, stop_seconds: float | None) -> None:
        if stop_seconds is not None:
            call([self._docker, "stop", "-t", f"{stop_seconds:.0f}", self._name], stop_seconds + 10)
        if child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                # After a stop it ends by itself, when all has been said.
                child.wait(0 if stop_seconds is None else 2)
            child.kill()
        deadline = time.monotonic() + REMOVE_SECONDS
        while True:
            code, said = call([self._docker, "rm", "--force", self._name], REMOVE_SECONDS)
            if code == 0 or "No such container" in said:
                break
            if time.monotonic() > deadline:
                self.error = f"the last container can't be removed: {said}"
                break
            time.sleep(1)
        self.done = True
        self._wake()


def environment() -> dict[str, str]:
    """Ours without what is between systemd and us."""
    ours = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")
    return {name: value for name, value in os.environ.items() if name not in ours}


def call(command: Sequence[str], seconds: float) -> tuple[int, str]:
    """Run a command. Returns its exit code and what it said; -1 and why where it didn't end in time or begin at all."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=seconds,
            env=environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        return -1, f"{command[0]} {command[1]} took longer than {seconds:.0f} s"
    except OSError as error:
        return -1, f"{command[0]}: {error.strerror}"
    return done.returncode, done.stdout.decode("utf-8", "replace").strip()


class Processes:
    """The container's processes, seen from the node: a stopped one makes the others wait for ever, without an error.

    Where there are no cgroup files as expected, only the first process is watched.
    """

    def __init__(self, pid: int, proc: str = "/proc", cgroups: str = "/sys/fs/cgroup") -> None:
        self.pid = pid
        self._proc = Path(proc)
        self._since: dict[int, float] = {}
        self._folder: Path | None = None
        with contextlib.suppress(OSError, ValueError):
            for line in (self._proc / str(pid) / "cgroup").read_text().splitlines():
                _, controllers, path = line.split(":", 2)
                folder = Path(cgroups + (f"/{controllers}" if controllers else "") + path)
                if controllers in ("", "freezer") and (folder / "cgroup.procs").is_file() and path != "/":
                    self._folder = folder

    def look(self, now: float) -> tuple[dict[int, str], Failure | None]:
        """The processes that must not end (pid -> name), and what is wrong with the container."""
        found = {pid: stat for pid in self._pids() if (stat := self._stat(pid))}
        watched: dict[int, str] = {}
        stopped: dict[int, str] = {}
        for pid, (name, state, parent) in found.items():
            # Not what people run beside the server with `docker exec`.
            if self._descends(pid, found):
                # Nor what a scheduler has forked a moment ago: it has its name until it becomes another program.
                forked = parent in found and found[parent][0] == name
                if pid == self.pid or (name.startswith("sglang::") and not forked):
                    watched[pid] = name
                if state == "T":
                    stopped[pid] = f"process {pid} ({name}) is stopped"
        if self._frozen():
            stopped[0] = "the container is frozen"
        self._since = {pid: self._since.get(pid, now) for pid in stopped}
        for pid, since in self._since.items():
            if now - since > STOPPED_SECONDS:
                return watched, Failure(since, stopped[pid])
        return watched, None

    def _pids(self) -> Iterator[int]:
        yield self.pid
        if self._folder:
            for folder, _, names in os.walk(self._folder):
                if "cgroup.procs" in names:
                    with contextlib.suppress(OSError):
                        yield from map(int, Path(folder, "cgroup.procs").read_text().split())

    def _stat(self, pid: int) -> tuple[str, str, int] | None:
        """Name, state and parent of a process, None if there is none."""
        try:
            before, after = (self._proc / str(pid) / "stat").read_text(errors="replace").rsplit(")", 1)
        except (OSError, ValueError):
            return None
        state, parent = after.split()[:2]
        return before.split("(", 1)[1], state, int(parent)

    def _descends(self, pid: int, found: Mapping[int, tuple[str, str, int]]) -> bool:
        while pid in found and pid != self.pid:
            pid = found[pid][2]
        return pid == self.pid

    def _frozen(self) -> bool:
        for name, sign in (("cgroup.events", "frozen 1"), ("freezer.state", "FROZEN")):
            with contextlib.suppress(OSError):
                if self._folder and sign in (self._folder / name).read_text().splitlines():
                    return True
        return False


# ---- health ----------------------------------------------------------------------------------


def ask(
    url: str, seconds: float, body: bytes = b"", beat: Callable[[], None] = lambda: None, api_key: str | None = None
) -> int:
    """The status of an HTTP answer. Raises OSError (TimeoutError after so many seconds).

    beat: called about every second while it waits. api_key: sent, if there is one.
    """
    found = _URL.match(url)
    if not found:
        raise OSError(f"{url} is no URL")
    host, port, path = found.group(1), int(found.group(2) or 80), found.group(3) or "/"
    deadline = time.monotonic() + seconds
    head = f"{'POST' if body else 'GET'} {path} HTTP/1.0\r\nHost: {host}:{port}\r\nConnection: close\r\n"
    if api_key:
        head += f"Authorization: Bearer {api_key}\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection((host, port), seconds) as link:
        link.sendall(f"{head}\r\n".encode() + body)
        answer = b""
        while len(answer) < 65536:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            link.settimeout(min(left, 1.0))
            try:
                piece = link.recv(4096)
            except TimeoutError:
                beat()
                continue
            if not piece:
                break
            answer += piece
    status = re.match(rb"HTTP/1\.\d (\d{3})", answer)
    if not status:
        raise OSError("no HTTP answer")
    return int(status.group(1))


def connected(address: str, proc: str = "/proc/net") -> bool:
    """Whether this node has an established TCP connection to IP:PORT, be it by a socket of IPv4 or of IPv6."""
    host, port = address.rsplit(":", 1)
    # The kernel writes the address as a number of the machine's own byte order.
    v4 = f"{struct.unpack('=I', socket.inet_aton(host))[0]:08X}"
    mapped = "0" * 16 + f"{struct.unpack('=I', bytes.fromhex('0000ffff'))[0]:08X}" + v4
    for name, wanted in (("tcp", v4), ("tcp6", mapped)):
        with contextlib.suppress(OSError):
            for line in Path(proc, name).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[2] == f"{wanted}:{int(port):04X}" and columns[3] == "01":
                    return True
    return False


class Health:
    """Asks the server how it is, in a thread. bad: why it isn't healthy, empty when it is; asked: when that was asked.

    pid: the container's first process on the node, 0 as long as it isn't known. beat: when the thread last moved.
    gpu: why the container has no GPU any more, empty while it has one.
    """

    def __init__(
        self, config: Config, docker: str, wake: Callable[[], None], api_keys: Mapping[str, str] | None = None
    ) -> None:
        """api_keys: as read_api_keys gives them."""
        self._config, self._docker, self._wake = config, docker, wake
        self._api_key = (api_keys or {}).get("api-key")
        self._generated = config.generate_url is None
        self.bad = "it was not asked yet"
        self.asked = self.beat = self._looked = time.monotonic()
        self.pid = 0
        self.gpu = ""

    def _moved(self) -> None:
        self.beat = time.monotonic()

    def begin(self) -> Health:
        """Start to ask, for as long as this process lives."""
        threading.Thread(target=self._run, daemon=True).start()
        return self

    def _run(self) -> None:
        while True:
            self._moved()
            if not self.pid:
                code, said = call([self._docker, "inspect", "--format={{.State.Pid}}", self._config.container], 10)
                self.pid = int(said) if code == 0 and said.isdigit() else 0
                self._moved()
                self._wake()
            asked = time.monotonic()
            bad = self._ask()
            gpu = self._gpu(asked) if self._config.gpu_probe and not bad else self.gpu
            news = (bad, gpu) != (self.bad, self.gpu)
            self.asked, self.bad, self.gpu = asked, bad, gpu
            if news:
                self._wake()
            # Soon again as long as the container has only just been started.
            interval = self._config.health_interval_seconds
            time.sleep(interval if self.pid else min(1, interval))

    def _ask(self) -> str:
        limit = self._config.health_seconds + 5
        what = "its /health"
        try:
            if (status := ask(self._config.health_url, limit, beat=self._moved)) != 200:
                return f"{what} answers {status}"
            if self._config.dist_init and self.bad and not connected(self._config.dist_init):
                return f"it has no connection to {self._config.dist_init}"
            if not self._generated and self._config.generate_url:
                what, limit = "its /generate", GENERATE_SECONDS
                body = b'{"text": "1", "sampling_params": {"max_new_tokens": 1, "temperature": 0}}'
                if (status := ask(self._config.generate_url, limit, body, self._moved, self._api_key)) != 200:
                    return f"{what} answers {status}"
                self._generated = True
        except TimeoutError:
            return f"{what} gave no answer for {limit:.0f} s"
        except OSError as error:
            if error.errno in NO_NETWORK and not self.bad:
                return ""  # a cable is out; how long that may last is the others' to say, who don't hear this rank
            return f"{what} can't be asked: {error.strerror or error}"
        return ""

    def _gpu(self, now: float) -> str:
        """A container can lose its devices, by a reload of systemd for one; what has them open does not notice."""
        if now - self._looked < GPU_SECONDS:
            return self.gpu
        self._looked = now
        self._moved()
        probe = ["python3", "-c", self._config.gpu_probe or ""]
        code, said = call([self._docker, "exec", self._config.container, *probe], 10)
        self._moved()
        if code == -1:
            self._looked = math.inf  # what hangs stays in the container, so that there is one of it and not more
        return "" if code == 0 else plain(said) or "it said nothing"


# ---- the loop --------------------------------------------------------------------------------


class Supervisor:
    """One life of this process."""

    def __init__(self, config: Config, command: Sequence[str], files: Files | None = None) -> None:
        """command: `docker run ...`, a word an element. files: all that was read and will be.

        Raises ConfigError, or OSError where the address isn't ours.
        """
        self.config = config
        self.files = files or Files()
        self.docker = command[0]
        self.command = command
        self.state_dir = Path(config.state_dir)
        self.notifier = Notifier(os.environ)
        self.history = History(self.state_dir / "history.json")
        self.selector = selectors.DefaultSelector()
        # Threads and signals wake the loop by it.
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.selector.register(self._bell, selectors.EVENT_READ, self._woken)
        self.socket: socket.socket | None = None
        self.api_keys = read_api_keys(config.keys_file)
        key = b""
        if len(config.members) > 1:
            key = read_key(config.key_file)
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            address = (config.members[config.rank].address, config.port)
            try:
                self.socket.bind(address)
            except OSError as error:
                raise OSError(error.errno, f"{address[0]}:{address[1]}: {error.strerror}") from error
            self.selector.register(self.socket, selectors.EVENT_READ, self._receive)
        wait = backoff(self.history.failures, config.backoff_first_seconds, config.backoff_most_seconds)
        session = os.urandom(8).hex()
        self.group = Group(config, key, session, time.monotonic(), wait, self._why_wait())
        self.removal = Removal(self.docker, config.container, self.wake).begin()
        self.output = Output(self.wake, self.api_keys.values())
        self.child: subprocess.Popen[bytes] | None = None
        self.pump: threading.Thread | None = None
        self.health: Health | None = None
        self.processes: Processes | None = None
        self.watched: set[int] = set()
        self.failure: Failure | None = None
        self.died: float | None = None
        self.started = self.served = math.inf
        self.stopped = False
        self._start_seconds = 0.0
        self._ending = self._noted = self._ready = False
        self._vague = False  # whether more may be known about the failure in a moment
        self._doing = ""
        self._next = dict.fromkeys(("beat", "look", "notify", "dropped", "files"), 0.0)

    def _why_wait(self) -> str:
        if self.history.failures < self.config.failing_after:
            return self.history.why
        return f"{self.history.failures} starts in a row never served; the last: {self.history.why}"

    def _tell_of_a_kill(self) -> None:
        """Say for the process before this one what it could not: that it was killed while its container ran."""
        before, last = (read_note(self.state_dir / name) for name in ("now.json", "last.json"))
        if before.get("epoch") and before["epoch"] != last.get("epoch"):
            killed = Verdict(self.group.me, "its supervisor was killed", by_hand=False)
            self._tell_end(killed, str(before["epoch"]), started=True, served=None)

    def _tell_end(self, verdict: Verdict, epoch: str, *, started: bool, served: bool | None) -> None:
        """Say who was first and why, and write it down. served: whether the group had, None if that is not known."""
        log(f"the {'group' if started else 'start of this rank'} ended: {verdict}")
        end = {"epoch": epoch, "first_rank": verdict.member.rank, "host": verdict.member.host, "why": verdict.why}
        end |= {"by_hand": verdict.by_hand, "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "served": served}
        put(self.state_dir / "last.json", end)

    def _note_self(self) -> None:
        """Write down what this process is about to run, so that it can be held against the plan while it waits."""
        names = ("group", "release")
        labels = {name: f"--label=dgx-spark.{name}=" for name in names}
        told = {
            name: next((word[len(label) :] for word in self.command if word.startswith(label)), None)
            for name, label in labels.items()
        }
        epoch = self.group.state.epoch if self.group.started else ""
        put(self.state_dir / "now.json", {"pid": os.getpid(), **told, "epoch": epoch})

    def wake(self) -> None:
        """Let the loop look again, from any thread or signal handler."""
        os.eventfd_write(self._bell, 1)

    def stop(self, *_: object) -> None:
        """A person stops this rank."""
        self.stopped = True
        self.failure = self.failure or Failure(time.monotonic(), "stopped by hand", by_hand=True)
        self.wake()

    def run(self) -> int:
        """Live. Returns the exit code."""
        self._tell_of_a_kill()
        self._note_self()
        if self.group.me.rank == 0 and self.history.failures >= self.config.failing_after:
            log(f"failing: {self._why_wait()}")
        while True:
            now = time.monotonic()
            self._look(now)
            if self._outdated(now):
                log("what this rank was told has changed: it begins anew")
                return 0
            changed = self.group.step(now, self._own())
            self._act(now)
            if changed or now >= self._next["beat"]:
                self._next["beat"] = now + (HURRY_SECONDS if self.group.hurry else BEAT_SECONDS)
                self._send(self.group.say(now))
            self._notify(now)
            if self._ending and self.removal.done and self.group.told(now):
                break
            for key, _ in self.selector.select(max(0.0, self._next["beat"] - time.monotonic())):
                key.data()
        if self.removal.error:
            log(self.removal.error)
        if self.pump:
            self.pump.join(1)
        # What a person did on another node is no failure of this one: it may be about to be stopped too.
        by_hand = self.group.verdict is not None and self.group.verdict.by_hand
        return 0 if self.stopped or by_hand else 1

    # ---- what happens ----

    def _woken(self) -> None:
        os.eventfd_read(self._bell)

    def _receive(self) -> None:
        assert self.socket
        # Not for ever, whatever comes.
        for _ in range(64):
            try:
                data, (address, _port) = self.socket.recvfrom(LIMIT + 1)
            except OSError:
                return
            self._send(self.group.heard(time.monotonic(), data, address))

    def _send(self, datagrams: Iterable[tuple[str, bytes]]) -> None:
        for address, data in datagrams:
            try:
                if self.socket:
                    self.socket.sendto(data, (address, self.config.port))
            except OSError as error:
                self.group.dropped[f"not sent to {address}: {error.strerror}"] += 1

    def _look(self, now: float) -> None:
        """See to the container: whether it ended, stands still, or isn't what it should be."""
        if self.removal.error and not self._ending:
            self.failure = self.failure or Failure(now, self.removal.error)
        if self.child is None or self._ending:
            return
        if self.child.poll() is not None and self.died is None:
            self.died = now
        if self.health and self.health.pid and now >= self._next["look"]:
            self._next["look"] = now + LOOK_SECONDS
            self.processes = self.processes or Processes(self.health.pid)
            watched, failure = self.processes.look(now)
            self.failure = self.failure or failure
            for pid, name in watched.items():
                if pid not in self.watched:
                    self._watch(pid, name)
        if self.died is not None and (self.failure is None or self._vague):
            # Its exit code and last words come a moment later.
            at = min(self.died, self.failure.at) if self.failure else self.died
            self.failure, self._vague = Failure(at, self._death()), True
        elif self.failure is None and self.health:
            bad, asked = self.health.bad, self.health.asked
            if self.group.serving and bad:
                self.failure, self._vague = Failure(asked, bad), True
            elif not self.group.serving and bad and now > self.started + self._start_seconds:
                self.failure = Failure(now, f"not healthy after {self._start_seconds:.0f} s: {bad}; {self._said()}")

    def _watch(self, pid: int, name: str) -> None:
        """Hear at once when a process of the container ends: Docker tells much later, and its children don't say."""
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return

        def ended() -> None:
            now = time.monotonic()
            if self.processes and pid == self.processes.pid:
                self.died = self.died or now
            else:
                self.failure = self.failure or Failure(now, f"process {pid} ({name}) ended; {self._said()}")

        self.watched.add(pid)
        self._on_end(fd, ended)

    def _on_end(self, fd: int, act: Callable[[], None]) -> None:
        """Wake the loop, and act, once the process of a pidfd ends."""

        def ended() -> None:
            self.selector.unregister(fd)
            os.close(fd)
            act()

        self.selector.register(fd, selectors.EVENT_READ, ended)

    def _said(self) -> str:
        return reason(list(self.output.lines))

    def _death(self) -> str:
        code = self.child.returncode if self.child else None
        return f"its container ended{'' if code is None else f' with {code}'}; {self._said()}"

    def _own(self) -> Own:
        healthy = self.health is not None and not self.health.bad
        return Own(self.removal.done and not self.removal.error, healthy, self.failure)

    # ---- what is done ----

    def _act(self, now: float) -> None:
        group = self.group
        if group.started and self.child is None and not group.verdict and not self.failure:
            self._start(now)
        if group.serving and self.served == math.inf and not group.verdict:
            self.served = now
            log(f"the group serves: epoch {group.state.epoch}, {len(self.config.members)} ranks")
            put(Path(self.config.started_marker), {"group": self.config.group})
            if group.me.rank == 0:
                self.history.write(0)
        by_hand = self.failure is not None and self.failure.by_hand
        if (group.verdict or by_hand) and not self._ending:
            self._ending = True
            self.notifier.tell("STOPPING=1")
            self.removal = Removal(self.docker, self.config.container, self.wake).begin(
                self.child, self.config.stop_seconds if by_hand and self.child else None
            )
        if group.verdict and not self._noted:
            self._note(group.verdict)

    def _note(self, verdict: Verdict) -> None:
        """Say and write down why it ended."""
        self._noted = True
        served = self.served != math.inf
        self._tell_end(verdict, self.group.state.epoch, started=self.group.started, served=served)
        if self.group.me.rank == 0:
            if verdict.by_hand:
                self.history.write(0)
            else:
                # A start that began is counted already.
                self.history.write(self.history.failures + (not self.group.started), str(verdict))

    def _outdated(self, now: float) -> bool:
        """Whether a rank that waits, maybe for days, waits with a key or a plan of before."""
        if self.group.started or self.failure or now < self._next["files"]:
            return False
        self._next["files"] = now + FILES_SECONDS
        return self.files.changed()

    def _start(self, now: float) -> None:
        self.started = now
        if self.files.changed():
            self.failure = Failure(now, "what it was told has changed in this moment")
            return
        first = not Path(self.config.started_marker).exists()
        self._start_seconds = self.config.first_start_seconds if first else self.config.start_seconds
        if self.group.me.rank == 0:
            name = self.group.me.name
            self.history.write(self.history.failures + 1, f"{name}: its supervisor died")
        after = self.command.index("run") + 1
        label = f"--label=dgx-spark.epoch={self.group.state.epoch}"
        log(f"all ranks are ready: the container is started, epoch {self.group.state.epoch}")
        self._note_self()
        try:
            self.child = subprocess.Popen(
                [*self.command[:after], label, *self.command[after:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment(),
            )
            fd = os.pidfd_open(self.child.pid)
        except OSError as error:
            self.failure = Failure(now, f"{self.docker} can't be run: {error.strerror}")
            return
        self._on_end(fd, lambda: None)
        assert self.child.stdout
        self.pump = threading.Thread(target=self.output.follow, args=(self.child.stdout.fileno(), 1), daemon=True)
        self.pump.start()
        self.health = Health(self.config, self.docker, self.wake, self.api_keys).begin()

    def _notify(self, now: float) -> None:
        """Tell systemd how it is; nothing while the thread that asks the server stands still."""
        doing = self.group.doing(now)
        if self.health and self.health.gpu and self.group.serving:
            doing += f", but new processes in its container see no GPU, until the next restart: {self.health.gpu}"
        self.notifier.status(doing or self.output.doing)
        limit = self.config.health_seconds + self.config.health_interval_seconds + 15
        moving = self.health is None or now - self.health.beat < limit
        if self.served != math.inf and not self._ready:
            self._ready = self.notifier.tell("READY=1")
        if now >= self._next["notify"] and moving:
            self._next["notify"] = now + NOTIFY_SECONDS
            self.notifier.tell("WATCHDOG=1")
            # What lasts, and each once: not every second of a countdown.
            if (text := re.sub(r"\d+ s,", "a while,", doing)) != self._doing and text.startswith(
                ("waiting", "serving, but")
            ):
                self._doing = text
                log(text)
        if self.group.dropped and now >= self._next["dropped"]:
            self._next["dropped"] = now + 60
            counts = ", ".join(f"{count} ({what})" for what, count in self.group.dropped.most_common(5))
            self.group.dropped.clear()
            log(f"datagrams without effect: {counts}")


def end_with_a_thread(what: threading.ExceptHookArgs) -> None:
    """End this process with a thread that met something unforeseen: the loop would wait for it, for ever."""
    log(f"a part of the supervisor ended: {what.exc_type.__name__}: {what.exc_value}")
    os._exit(1)


def env_files(command: Sequence[str]) -> list[str]:
    """The files of environment that a command names."""
    return [word.removeprefix("--env-file=") for word in command if word.startswith("--env-file=")]


def check_plan(group: str, command: Sequence[str]) -> None:
    """ConfigError where the command, or a file of environment that it names, is of another plan: a run was cut off."""
    mark = f"dgx-spark.plan={group}"
    if f"--label={mark}" not in command:
        raise ConfigError("is of another plan than the unit that systemd knows; run site.yml again")
    for path in env_files(command):
        # The server's own files, which may be named by docker_options, have no mark.
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
        marks = [line for line in lines if line.startswith("# dgx-spark.plan=")]
        if marks and marks != [f"# {mark}"]:
            raise ConfigError(f"is of another plan than {path}; run site.yml again")


def main(arguments: Sequence[str]) -> int:
    """`CONFIG.json -- COMMAND`."""
    threading.excepthook = end_with_a_thread
    try:
        path, dashes, *command = arguments
        if dashes != "--" or "run" not in command[1:]:
            raise ValueError
    except ValueError:
        log("usage: dgx_spark_rank.py CONFIG.json -- /usr/bin/docker run ...")
        return 2
    try:
        config = parse_config(Path(path).read_text(encoding="utf-8"))
        check_plan(config.group, command)
        key = config.key_file if len(config.members) > 1 else None
        files = Files(path, key, config.keys_file, *env_files(command))
        # Ranks of different releases never form a group either.
        config = replace(config, group=":".join(filter(None, (config.group, os.environ.get("SGLANG_RELEASE", "")))))
        supervisor = Supervisor(config, command, files)
    except ConfigError as error:
        log(f"{path}: {error}")
        Notifier(os.environ).status(f"{path}: {error}")
        time.sleep(REST_SECONDS)
        return 2
    except OSError as error:
        log(f"this rank can't begin: {error}")
        return 1
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGINT, supervisor.stop)
    return supervisor.run()


if __name__ == "__main__":
    # All Python programs are called python3; the memory guard knows this one by its name.
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("dgx-spark-rank", encoding="ascii")
    # Not by way of the interpreter's end, which would wait for threads that wait for others.
    os._exit(main(sys.argv[1:]))
