# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Limits on the memory that processes share or lock: of a host, and of one container on it. All in bytes."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

UNLIMITED = -1
"""No limit, as Docker writes it and as RLIM_INFINITY is in Python."""

_HOST = "Run the task on a node with Linux, /proc and /dev/shm mounted."
_ROOT = "Run the task with become: true."
_NOT_RUNNING = "Start the container."

T = TypeVar("T")


def memory(meminfo: str, field: str) -> int:
    """A field of /proc/meminfo, which counts in kB of 1024 bytes; ValueError without the field."""
    for line in meminfo.splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise ValueError(f"no {field} in /proc/meminfo")


def locked(limits: str) -> tuple[int, int]:
    """Soft and hard limit on locked memory from /proc/<pid>/limits; ValueError without that line."""
    title = "Max locked memory"
    for line in limits.splitlines():
        if line.startswith(title):
            soft, hard = line[len(title) :].split()[:2]
            return _limit(soft), _limit(hard)
    raise ValueError(f'no line "{title}" among the limits')


def _limit(word: str) -> int:
    return UNLIMITED if word == "unlimited" else int(word)


def file_system(path: str) -> tuple[int, int]:
    """Size of the file system at path, and what of it is free for everyone."""
    stat = os.statvfs(path)
    return stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize


class _Reader:
    """Collects facts; what can't be read is None, and why is noted."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def read(self, what: str, ask: Callable[[], T], otherwise: T) -> T:
        try:
            return ask()
        except OSError as trouble:
            self.problems.append(f"{what} can't be read: {trouble.strerror}")
        except (ValueError, IndexError) as trouble:
            self.problems.append(f"{what} can't be understood: {trouble}")
        return otherwise

    def problem(self) -> str | None:
        return "; ".join(self.problems) or None


_NEITHER: tuple[int | None, int | None] = (None, None)


def host(proc: str = "/proc", shm: str = "/dev/shm") -> dict[str, Any]:
    """The limits of this machine, and on locked memory those of this process.

    shmmax and shmall are those of this process's IPC namespace; the kernel counts shmall in pages.
    """
    reader = _Reader()

    def number(name: str) -> int | None:
        path = Path(proc, "sys", "kernel", name)
        return reader.read(str(path), lambda: int(path.read_text()), None)

    def field(name: str) -> int | None:
        path = Path(proc, "meminfo")
        return reader.read(f"{name} of {path}", lambda: memory(path.read_text(), name), None)

    size, free = reader.read(shm, lambda: file_system(shm), _NEITHER)
    shmall = number("shmall")
    # 4 KiB or 64 KiB on aarch64, by the kernel's build.
    page = os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    facts: dict[str, Any] = {
        "dev_shm_size": size,
        "dev_shm_free": free,
        "shmmax": number("shmmax"),
        "shmall": shmall,
        "shmall_bytes": None if shmall is None else shmall * page,
        "page_size": page,
        "memlock_soft": soft,
        "memlock_hard": hard,
        "mem_total": field("MemTotal"),
        "mem_available": field("MemAvailable"),
    }
    problem = reader.problem()
    return {**facts, "problem": problem, "mend": _HOST if problem else None}


_CONTAINER: dict[str, Any] = {
    "found": False,
    "running": False,
    "pid": None,
    "memory": None,
    "ipc_mode": None,
    "shm_size": None,
    "ulimits": [],
    "dev_shm_size": None,
    "dev_shm_free": None,
    "memlock_soft": None,
    "memlock_hard": None,
    "problem": None,
    "mend": None,
}


def no_container(name: str, problem: str, mend: str) -> dict[str, Any]:
    """The facts of a container that can't be looked at."""
    return {**_CONTAINER, "name": name, "problem": problem, "mend": mend}


def container(name: str, inspected: str, proc: str = "/proc") -> dict[str, Any]:
    """What `docker inspect` says that the container was given, and what its first process really has.

    inspected: its output. proc: the host's /proc. ValueError when it is no such output.
    """
    documents = json.loads(inspected)
    if not isinstance(documents, list) or not documents or not isinstance(documents[0], dict):
        raise ValueError("docker inspect gave no list of containers")
    state, given = documents[0].get("State") or {}, documents[0].get("HostConfig") or {}
    pid = int(state.get("Pid") or 0)
    facts = {**_CONTAINER, "name": name, "found": True, "running": bool(pid), **_given(given)}
    if not pid:
        return {**facts, "problem": f"container {name} is not running", "mend": _NOT_RUNNING}
    return {**facts, "pid": pid, **_first_process(Path(proc, str(pid)))}


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The limits among the options that the container was made with."""
    ulimits = options.get("Ulimits") or []
    return {
        # Docker writes 0 for a container without a limit.
        "memory": options.get("Memory") or UNLIMITED,
        "ipc_mode": options.get("IpcMode"),
        "shm_size": options.get("ShmSize"),
        "ulimits": [{"name": one.get("Name"), "soft": one.get("Soft"), "hard": one.get("Hard")} for one in ulimits],
    }


def _first_process(folder: Path) -> dict[str, Any]:
    """The limits of the process that /proc shows in folder, in its own view of the file system."""
    reader = _Reader()
    limits, shm = folder / "limits", folder / "root" / "dev" / "shm"
    soft, hard = reader.read(str(limits), lambda: locked(limits.read_text()), _NEITHER)
    size, free = reader.read(str(shm), lambda: file_system(str(shm)), _NEITHER)
    problem = reader.problem()
    return {
        "memlock_soft": soft,
        "memlock_hard": hard,
        "dev_shm_size": size,
        "dev_shm_free": free,
        "problem": problem,
        "mend": _ROOT if problem else None,
    }
