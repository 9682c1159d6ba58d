# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The memory limits of hosts and containers, the verdicts on them, and the module that gives both."""

from __future__ import annotations

import importlib
import json
import os
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _host_memory, _shared_memory
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

MEMINFO = "MemTotal:       127517504 kB\nMemFree:         1000 kB\nMemAvailable:   118489088 kB\nSwapFree:   0 kB\n"
LIMITS = """\
Limit                     Soft Limit           Hard Limit           Units
Max processes             490000               490000               processes
Max locked memory         65536                unlimited            bytes
Max address space         unlimited            unlimited            bytes
"""
NO_LIMIT = 18446744073692774399
"""The kernel's default for shmmax and shmall on 64 bits: ULONG_MAX less 2^24."""
INSPECTED: dict[str, Any] = {
    "Id": "abc",
    "State": {"Running": True, "Pid": 4242},
    "HostConfig": {
        "Memory": 1073741824,
        "ShmSize": 67108864,
        "IpcMode": "private",
        "Ulimits": [{"Name": "memlock", "Hard": -1, "Soft": 65536}],
    },
}


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with what is read of it."""
    folder = tmp_path / "proc"
    (folder / "sys/kernel").mkdir(parents=True)
    (folder / "sys/kernel/shmmax").write_text(f"{NO_LIMIT}\n")
    (folder / "sys/kernel/shmall").write_text("16\n")
    (folder / "meminfo").write_text(MEMINFO)
    (folder / "4242/root/dev/shm").mkdir(parents=True)
    (folder / "4242/limits").write_text(LIMITS)
    return folder


def test_host(proc: Path, tmp_path: Path) -> None:
    """Every limit, in bytes; the kernel counts shmall in pages and memory in KiB."""
    facts = _host_memory.host(str(proc), str(tmp_path))
    stat = os.statvfs(tmp_path)
    assert facts["dev_shm_size"] == stat.f_blocks * stat.f_frsize
    assert 0 < facts["dev_shm_free"] <= facts["dev_shm_size"]
    assert facts["shmmax"] == NO_LIMIT
    assert facts["shmall"] == 16
    assert facts["shmall_bytes"] == 16 * resource.getpagesize()
    assert facts["page_size"] == resource.getpagesize()
    assert facts["mem_total"] == 127517504 * 1024
    assert facts["mem_available"] == 118489088 * 1024
    assert (facts["memlock_soft"], facts["memlock_hard"]) == resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert facts["problem"] is None
    assert facts["mend"] is None


def test_what_the_host_does_not_tell(proc: Path) -> None:
    """The rest is told all the same, and every gap is named."""
    (proc / "sys/kernel/shmall").write_text("oops\n")
    (proc / "meminfo").write_text("MemTotal: 1 kB\n")
    facts = _host_memory.host(str(proc), str(proc / "shm"))
    assert [facts[name] for name in ("dev_shm_size", "dev_shm_free", "shmall", "shmall_bytes")] == [None] * 4
    assert facts["mem_available"] is None
    assert facts["mem_total"] == 1024
    assert facts["shmmax"] == NO_LIMIT
    problems = facts["problem"].split("; ")
    assert problems[0] == f"{proc}/shm can't be read: No such file or directory"
    assert "shmall can't be understood" in problems[1]
    assert "no MemAvailable" in problems[2]
    assert len(problems) == 3
    assert facts["mend"]


def test_container(proc: Path) -> None:
    """What it was given, and what its first process has."""
    facts = _host_memory.container("rank", json.dumps([INSPECTED]), str(proc))
    assert facts["found"]
    assert facts["running"]
    assert (facts["pid"], facts["memory"], facts["shm_size"], facts["ipc_mode"]) == (4242, 1 << 30, 1 << 26, "private")
    assert facts["ulimits"] == [{"name": "memlock", "soft": 65536, "hard": -1}]
    assert (facts["memlock_soft"], facts["memlock_hard"]) == (65536, -1)
    stat = os.statvfs(proc)
    assert facts["dev_shm_size"] == stat.f_blocks * stat.f_frsize
    assert facts["problem"] is None
    assert facts.keys() == _host_memory.no_container("rank", "gone", "start it").keys()


def test_container_without_limits(proc: Path) -> None:
    """Docker's words for none: 0 bytes of memory, null for the list of limits."""
    given = {**INSPECTED["HostConfig"], "Memory": 0, "Ulimits": None, "IpcMode": "host"}
    facts = _host_memory.container("rank", json.dumps([{**INSPECTED, "HostConfig": given}]), str(proc))
    assert facts["memory"] == _host_memory.UNLIMITED
    assert facts["ulimits"] == []


def test_a_container_that_tells_less(proc: Path) -> None:
    """Stopped, gone in the meantime, or no container at all."""
    stopped = {**INSPECTED, "State": {"Running": False, "Pid": 0}}
    facts = _host_memory.container("rank", json.dumps([stopped]), str(proc))
    assert facts["found"]
    assert not facts["running"]
    assert facts["shm_size"] == 1 << 26
    assert facts["memlock_soft"] is None
    assert facts["problem"] == "container rank is not running"
    gone = {**INSPECTED, "State": {"Pid": 7}}
    facts = _host_memory.container("rank", json.dumps([gone]), str(proc))
    assert facts["dev_shm_size"] is None
    assert f"{proc}/7/limits can't be read: No such file" in facts["problem"]
    assert "become" in facts["mend"]
    for bad in ("[]", "{}", "[1]", "oops"):
        with pytest.raises(ValueError):  # noqa: PT011 (json's own or ours, both are caught)
            _host_memory.container("rank", bad, str(proc))


def test_limits_of_a_process() -> None:
    assert _host_memory.locked(LIMITS) == (65536, -1)
    with pytest.raises(ValueError, match="Max locked memory"):
        _host_memory.locked("Max processes 1 1 processes")


GPU = {
    "available": True,
    "problem": None,
    "mend": None,
    "devices": [
        {"index": 0, "name": "NVIDIA GB10", "shared_memory_per_block_optin": 101376, "shared_memory_per_block": 49152},
        {"index": 1, "name": "NVIDIA H100", "shared_memory_per_block_optin": 232448, "shared_memory_per_block": 49152},
    ],
}
NO_GPU = {"available": False, "problem": "libcuda.so.1 can't be loaded", "mend": "Install it.", "devices": []}
HOST: dict[str, Any] = {
    "dev_shm_size": 1000,
    "dev_shm_free": 500,
    "shmmax": 4096,
    "shmall_bytes": 8192,
    "page_size": 4096,
    "memlock_soft": 65536,
    "memlock_hard": -1,
    "mem_available": None,
    "problem": "MemAvailable can't be read",
    "mend": "Mount /proc.",
}
CONTAINER = {
    "name": "rank",
    "dev_shm_size": 64,
    "dev_shm_free": 32,
    "memlock_soft": -1,
    "memlock_hard": -1,
    "memory": 4096,
    "problem": None,
    "mend": None,
}


def verdict(
    required: dict[str, int], gpu: Mapping[str, Any] = GPU, container: Mapping[str, Any] | None = None
) -> list[_shared_memory.Verdict]:
    """The verdicts on the facts above."""
    return _shared_memory.judge(required, gpu, HOST, container)


def test_each_device_is_held_against_what_is_wanted() -> None:
    first, second = verdict({"gpu_shared_memory_per_block_optin": 147456})
    assert (first.ok, first.have, first.want, first.where, first.name) == (
        False,
        101376,
        147456,
        "device",
        "0, NVIDIA GB10",
    )
    assert first.line() == (
        "gpu_shared_memory_per_block_optin of device 0, NVIDIA GB10: have 101,376 bytes, want 147,456 bytes. "
        "Mend: Use kernel configs that need no more than 101,376 bytes: no setting gives a GPU more."
    )
    assert second.ok
    assert second.mend == ""


def test_without_a_gpu_nothing_is_enough() -> None:
    (found,) = verdict({"gpu_shared_memory_per_block": 1}, gpu=NO_GPU)
    assert found.line() == (
        "gpu_shared_memory_per_block of the device: have unknown (libcuda.so.1 can't be loaded), want 1 bytes. "
        "Mend: Install it."
    )


# limit, wanted, whether the container is given, whether it is enough, where, a part of the mend
VERDICTS: list[tuple[str, int, bool, bool, str, str]] = [
    ("dev_shm_size", 1000, False, True, "host", ""),
    ("dev_shm_size", 1001, False, False, "host", "mount -o remount,size=1001 /dev/shm"),
    ("dev_shm_size", 1000, True, False, "container", "--shm-size=1000"),
    ("dev_shm_free", 501, False, False, "host", "left in /dev/shm"),
    ("dev_shm_free", 32, True, True, "container", ""),
    ("memlock_soft", 65536, False, True, "host", ""),
    ("memlock_soft", 65537, False, False, "host", "LimitMEMLOCK="),
    ("memlock_soft", -1, False, False, "host", "limits.d"),
    ("memlock_soft", -1, True, True, "container", ""),
    ("memlock_hard", 1 << 60, False, True, "host", ""),
    ("shmmax", 4097, True, False, "host", "kernel.shmmax=4097"),
    ("shmall_bytes", 8193, False, False, "host", "kernel.shmall=3`"),
    ("mem_available", 1, True, False, "host", "Mount /proc."),
    ("container_memory", 4096, True, True, "container", ""),
    ("container_memory", -1, True, False, "container", "without --memory"),
]


@pytest.mark.parametrize(("name", "want", "inside", "ok", "where", "mend"), VERDICTS)
def test_verdict(name: str, want: int, inside: bool, ok: bool, where: str, mend: str) -> None:
    (found,) = verdict({name: want}, container=CONTAINER if inside else None)
    assert (found.ok, found.where, found.name) == (ok, where, "rank" if where == "container" else "")
    assert mend in found.mend
    assert bool(found.mend) is not ok


def test_every_limit_has_a_mend_wherever_it_is_held() -> None:
    """And is the name of a fact that is read."""
    container = _host_memory.no_container("rank", "gone", "Start it.")
    places = {"device": ["device"], "host": ["host"], "container": ["container"], "process": ["host", "container"]}
    for limit in _shared_memory.LIMITS.values():
        assert sorted(limit.mends) == sorted(places[limit.where])
        for where in limit.mends:
            facts = {"device": GPU["devices"][0], "host": _host_memory.host(), "container": container}[where]  # type: ignore[index]
            assert limit.fact in facts or where == "device"


def test_mistaken_requirements() -> None:
    required = {"memlock_soft": -2, "dev_shm_size": -1, "container_memory": 1, "memlock_hard": -1}
    memlock, shm, container = _shared_memory.mistakes(required, None)
    assert memlock == "required.memlock_soft is -2. Mend: give it in bytes, or -1 for no limit."
    assert shm == "required.dev_shm_size is -1. Mend: give it in bytes, 0 or more."
    assert "name one with container" in container
    assert _shared_memory.mistakes({"container_memory": -1}, "rank") == []


def test_documented_limits() -> None:
    """The option's suboptions are the limits, those that may be unlimited say so."""
    module = importlib.import_module("ansible_collections.dgx_spark.sglang.plugins.modules.shared_memory_info")
    documented = yaml.safe_load(module.DOCUMENTATION)["options"]["required"]["suboptions"]
    assert list(documented) == list(_shared_memory.LIMITS)
    for name, limit in _shared_memory.LIMITS.items():
        assert documented[name]["type"] == "int"
        assert ("V(-1)" in documented[name]["description"]) is limit.unlimited


def documented(returned: Mapping[str, Any], path: str = "") -> set[str]:
    """The keys of RETURN with those inside them, as "gpu.devices.name"."""
    names = set()
    for name, value in returned.items():
        names |= {path + name} | documented(value.get("contains", {}), f"{path}{name}.")
    return names


def present(value: Any, path: str = "") -> set[str]:
    """The keys of a result in the same form."""
    items = value if isinstance(value, list) else [value]
    names = set()
    for item in items:
        for name, inner in item.items() if isinstance(item, dict) else ():
            names |= {path + name} | present(inner, f"{path}{name}.")
    return names


def docker(folder: Path, script: str) -> dict[str, str]:
    """The environment in which `docker` is a script of one line."""
    folder.mkdir(exist_ok=True)
    (folder / "docker").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "docker").chmod(0o755)
    return {"PATH": f"{folder}:/usr/bin:/bin"}


def run(
    scratch: Path, cuda: Path | None, arguments: dict[str, Any], env: dict[str, str] | None = None
) -> dict[str, Any]:
    """The real module in check mode, with the stand-in for the driver or without one."""
    driver = {"LD_LIBRARY_PATH": str(cuda.parent)} if cuda else {}
    return adhoc.run(scratch, "shared_memory_info", arguments, check=True, env={**driver, **(env or {})}).result


def test_module(tmp_path: Path, standin_cuda: Path) -> None:
    """Everything at once: the stand-in's GPU, this host, this process as the container's first."""
    inspected = {**INSPECTED, "State": {"Pid": os.getpid()}}
    (tmp_path / "inspected").write_text(json.dumps([inspected]))
    env = docker(tmp_path / "bin", f'echo "$*" > {tmp_path}/call; cat {tmp_path}/inspected')
    required = {"gpu_shared_memory_per_block_optin": 101376, "dev_shm_size": 1, "container_memory": 1 << 30}
    result = run(tmp_path, standin_cuda, {"container": "rank", "required": required}, env)
    assert not result["failed"]
    assert not result["changed"]
    assert result["ok"]
    assert [(one["limit"], one["where"], one["ok"]) for one in result["verdicts"]] == [
        ("gpu_shared_memory_per_block_optin", "device", True),
        ("dev_shm_size", "container", True),
        ("container_memory", "container", True),
    ]
    assert result["gpu"]["devices"][0]["name"] == "NVIDIA GB10"
    assert result["host"]["mem_total"] > result["host"]["mem_available"] > 1 << 20
    assert result["container"]["dev_shm_size"] == result["host"]["dev_shm_size"]
    assert (tmp_path / "call").read_text().split() == ["inspect", "--type", "container", "--", "rank"]
    module = importlib.import_module("ansible_collections.dgx_spark.sglang.plugins.modules.shared_memory_info")
    told = documented(yaml.safe_load(module.RETURN)) - {"msg"}
    assert present(result) - {"failed", "changed", "container.ulimits.name"} - told == {
        "container.ulimits.soft",
        "container.ulimits.hard",
    }
    assert told <= present(result)


def test_module_fails_where_it_is_not_enough(tmp_path: Path, standin_cuda: Path) -> None:
    """One line a limit that is not met, and all facts beside it."""
    required = {"gpu_shared_memory_per_block_optin": 147456, "gpu_shared_memory_per_block": 1, "mem_available": 1 << 60}
    result = run(tmp_path, standin_cuda, {"required": required})
    assert result["failed"]
    assert not result["ok"]
    title, gpu, memory = result["msg"].splitlines()
    assert title == "2 required limits are not met:"
    assert gpu.startswith(
        "  - gpu_shared_memory_per_block_optin of device 0, NVIDIA GB10: have 101,376 bytes, want 147"
    )
    assert "Mend: Use kernel configs that need no more than 101,376 bytes" in gpu
    assert memory.startswith("  - mem_available of the host: have ")
    assert [one["ok"] for one in result["verdicts"]] == [False, True, False]
    assert result["gpu"]["available"]


def test_module_without_gpu_and_container(tmp_path: Path, standin_cuda: Path) -> None:
    """Neither is an error by itself."""
    env = {**docker(tmp_path / "bin", 'echo "Error: No such container: rank" >&2; exit 1')}
    env["STANDIN_CUDA_FAIL"] = "cuInit=100"
    result = run(tmp_path, standin_cuda, {"container": "rank"}, env)
    assert not result["failed"]
    assert result["ok"]
    assert result["verdicts"] == []
    assert "CUDA_ERROR_NO_DEVICE" in result["gpu"]["problem"]
    assert result["container"]["problem"] == "there is no container rank"
    result = run(tmp_path, standin_cuda, {"container": "rank", "required": {"memlock_soft": -1}}, env)
    assert result["failed"]
    assert "memlock_soft of container rank: have unknown (there is no container rank), want unlimited" in result["msg"]
    env = docker(tmp_path / "bin", 'echo "permission denied" >&2; exit 1')
    result = run(tmp_path, None, {"container": "rank"}, env)
    assert result["container"]["problem"] == "permission denied"
    env = docker(tmp_path / "bin", "echo oops")
    assert "can't be understood" in run(tmp_path, None, {"container": "rank"}, env)["container"]["problem"]


def test_module_without_docker(tmp_path: Path) -> None:
    """A machine that has the programs Ansible needs, and no docker."""
    folder = tmp_path / "bin"
    folder.mkdir()
    # What Ansible's own shell commands call.
    for program in ("sh", "mkdir", "rm", "chmod", "sleep", "echo"):
        (folder / program).symlink_to(f"/bin/{program}")
    result = run(tmp_path, None, {"container": "rank"}, {"PATH": str(folder)})
    assert not result["failed"]
    assert result["container"]["problem"] == "the docker command is not installed"


def test_module_refuses_mistaken_requirements(tmp_path: Path) -> None:
    result = run(tmp_path, None, {"required": {"dev_shm_size": -5, "container_memory": 1}})
    assert result["failed"]
    shm, container = result["msg"].splitlines()
    assert shm.startswith("required.dev_shm_size is -5.")
    assert container.startswith("required.container_memory ")
    assert "verdicts" not in result
    unknown = run(tmp_path, None, {"required": {"dev_shm": 1}})
    assert unknown["failed"]
    assert "dev_shm_size" in unknown["msg"]
