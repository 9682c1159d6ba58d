# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Whether a node has enough: one verdict for each required limit. All sizes in bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._host_memory import UNLIMITED


@dataclass(frozen=True)
class Limit:
    """A limit that can be required.

    where: what it is a limit of. "device": each GPU. "host": the node. "container": the container. "process": the
    container's processes if one is given, else those of the node. fact: its key among the facts. mends: what to do, by
    where it was found too low; {have}, {want} and {pages} (want in pages) stand for values. unlimited: whether -1, no
    limit, is a value of it.
    """

    where: str
    fact: str
    mends: Mapping[str, str]
    unlimited: bool = False


_GPU = {"device": "Use kernel configs that need no more than {have}: no setting gives a GPU more."}
_SHM = {
    "host": "Run `mount -o remount,size={want} /dev/shm`, and give /dev/shm that size in /etc/fstab.",
    "container": "Start the container with --ipc=host, or with --shm-size={want}.",
}
_SHM_FREE = {
    "host": "Remove what ended processes have left in /dev/shm, or make it larger.",
    "container": "Remove what ended processes have left in its /dev/shm, or start it with a larger --shm-size.",
}
_MEMLOCK = {
    "host": "Raise memlock for the user in /etc/security/limits.d (it counts KiB) and log in again; for a systemd unit "
    "set LimitMEMLOCK=.",
    "container": "Start the container with --ulimit=memlock={want}.",
}

LIMITS = {
    "gpu_shared_memory_per_block": Limit("device", "shared_memory_per_block", _GPU),
    "gpu_shared_memory_per_block_optin": Limit("device", "shared_memory_per_block_optin", _GPU),
    "gpu_shared_memory_per_multiprocessor": Limit("device", "shared_memory_per_multiprocessor", _GPU),
    "dev_shm_size": Limit("process", "dev_shm_size", _SHM),
    "dev_shm_free": Limit("process", "dev_shm_free", _SHM_FREE),
    "memlock_soft": Limit("process", "memlock_soft", _MEMLOCK, unlimited=True),
    "memlock_hard": Limit("process", "memlock_hard", _MEMLOCK, unlimited=True),
    "shmmax": Limit(
        "host", "shmmax", {"host": "Run `sysctl -w kernel.shmmax={want}`, and put it into /etc/sysctl.d for good."}
    ),
    "shmall_bytes": Limit(
        "host",
        "shmall_bytes",
        {"host": "Run `sysctl -w kernel.shmall={pages}` (it counts pages), and put it into /etc/sysctl.d for good."},
    ),
    "mem_available": Limit(
        "host", "mem_available", {"host": "Stop what uses the memory; `ps -e -o rss,args --sort=-rss` shows it."}
    ),
    "container_memory": Limit(
        "container", "memory", {"container": "Start the container without --memory, or with more."}, unlimited=True
    ),
}


@dataclass(frozen=True)
class Verdict:
    """Whether one limit is high enough.

    where: "device", "host" or "container". name: which device or container, "" for the host. have: None when it is
    not known, and problem says why. mend: "" where ok.
    """

    limit: str
    where: str
    name: str
    have: int | None
    want: int
    ok: bool
    problem: str | None
    mend: str

    def line(self) -> str:
        """The verdict in one line for people."""
        place = f"{self.where} {self.name}" if self.name else f"the {self.where}"
        have = "unknown" if self.have is None else _shown(self.have)
        cause = f" ({self.problem})" if self.problem else ""
        mend = "" if self.ok else f" Mend: {self.mend}"
        return f"{self.limit} of {place}: have {have}{cause}, want {_shown(self.want)}.{mend}"


def _shown(number: int) -> str:
    return "unlimited" if number == UNLIMITED else f"{number:,} bytes"


def mistakes(required: Mapping[str, int], container: str | None) -> list[str]:
    """What is wrong with the requirements themselves, one line each."""
    found = []
    for name, want in required.items():
        limit = LIMITS[name]
        if want < 0 and not (limit.unlimited and want == UNLIMITED):
            allowed = "bytes, or -1 for no limit" if limit.unlimited else "bytes, 0 or more"
            found.append(f"required.{name} is {want}. Mend: give it in {allowed}.")
        if limit.where == "container" and not container:
            found.append(f"required.{name} is asked of no container. Mend: name one with container.")
    return found


def judge(
    required: Mapping[str, int], gpu: Mapping[str, Any], host: Mapping[str, Any], container: Mapping[str, Any] | None
) -> list[Verdict]:
    """A verdict for each required limit, and for each device where the limit is a device's.

    gpu, host, container: the facts as _cuda.read, _host_memory.host and _host_memory.container give them.
    """
    verdicts: list[Verdict] = []
    for name, want in required.items():
        limit = LIMITS[name]
        if limit.where == "device":
            nothing = {"problem": gpu["problem"], "mend": gpu["mend"]}
            found = [("device", device) for device in gpu["devices"] or [nothing]]
        elif limit.where == "host" or container is None:
            found = [("host", host)]
        else:
            found = [("container", container)]
        verdicts += [_verdict(name, want, where, facts, host["page_size"]) for where, facts in found]
    return verdicts


def _verdict(name: str, want: int, where: str, facts: Mapping[str, Any], page_size: int) -> Verdict:
    """Hold one fact against what is wanted; facts with their own problem and mend where they may lack it."""
    limit = LIMITS[name]
    have: int | None = facts.get(limit.fact)
    ok = enough(have, want)
    called = str(facts.get("name", ""))
    if "index" in facts:
        called = f"{facts['index']}, {called}"
    if have is None:
        return Verdict(name, where, called, None, want, ok, facts["problem"], facts["mend"])
    pages = -(-want // page_size)
    mend = "" if ok else limit.mends[where].format(have=_shown(have), want=want, pages=pages)
    return Verdict(name, where, called, have, want, ok, None, mend)


def enough(have: int | None, want: int) -> bool:
    """Whether have is at least want; no limit is more than any number, and what isn't known is not enough."""
    if have is None:
        return False
    if UNLIMITED in (have, want):
        return have == UNLIMITED
    return have >= want


def report(verdicts: Sequence[Verdict]) -> str:
    """The failed limits as text for the terminal, a line each."""
    failed = [verdict.line() for verdict in verdicts if not verdict.ok]
    limits = "limit is" if len(failed) == 1 else "limits are"
    return "\n".join([f"{len(failed)} required {limits} not met:", *(f"  - {line}" for line in failed)])
