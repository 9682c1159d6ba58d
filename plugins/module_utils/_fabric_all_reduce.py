# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""One rank of the fabric's all-reduce: how its container is run, and what its output and NCCL's log mean."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_output as output_of
from ansible_collections.dgx_spark.sglang.plugins.module_utils._container import host_options

CONTAINER = "dgx-spark-all-reduce"

MAX_BYTES = 1 << 30
"""The largest buffer: tests with 16 GB have frozen nodes, whose memory the GPU shares."""

MARK = "FABRIC_ALL_REDUCE "
"""What the rank's line of JSON begins with, as in roles/fabric_test/files/all_reduce.py."""

FABRIC_VARIABLES = ("NCCL_", "GLOO_", "TORCH_NCCL_", "TORCH_GLOO_")
"""Beginnings of the variables of a rank's environment that say how it uses the fabric; others may be secrets."""

LOG_VARIABLES = {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET"}

# "NET/IB : Using [0]rocep1s0f1:1/RoCE [1]roceP2p1s0f1:1/RoCE [RO]; OOB enp1s0f1np1:192.168.100.11<0>"
_NET = re.compile(r"NCCL INFO NET/(\w+) ?: Using (.*)")
_DEVICE = re.compile(r"\[\d+\]([^\s:]+):\d+/\w+")
_OOB = re.compile(r"OOB ([^\s:]+):([0-9.]+)<")
# The first is how older NCCL says what it took, the second since 2.27.
_TAKEN = re.compile(r"NCCL INFO (?:Using network|Assigned NET plugin) (\w+)")
_VIA = re.compile(r"\bvia NET/(\w+)/")
_WARNING = re.compile(r"NCCL WARN (.*)")
_TELLING = re.compile(r"NCCL (?:WARN|INFO (?:NET|NCCL|Using network|Initialized|Assigned|Failed|Bootstrap))")
# What it says where NCCL_NET=IB finds no device: before 2.27, and since.
_NO_NETWORK = ("network IB not found", "Failed to initialize any NET plugin")
_NETWORK_MEND = (
    "See that the container has /dev/infiniband, that NCCL_IB_HCA names the devices as `rdma link` does, and that "
    "nothing (cluster_env, /etc/nccl.conf in the image) unsets NCCL_NET=IB."
)
# The first line that Python's faulthandler writes where the rank ends itself; then come the calls in which it hung.
_ENDED_ITSELF = re.compile(r"^Timeout \([\d:.]+\)!$", re.MULTILINE)
SOCKETS = "Socket"
RDMA = "IB"


@dataclass(frozen=True)
class Nccl:
    """What NCCL says of its network. taken: names of what it uses (IB, Socket). hcas: RDMA devices that it uses."""

    taken: tuple[str, ...]
    hcas: tuple[str, ...]
    bootstrap: str
    warnings: tuple[str, ...]

    @property
    def sockets(self) -> bool:
        """Whether it fell back to TCP."""
        return SOCKETS in self.taken


def nccl(log: str) -> Nccl:
    """Read NCCL's log (NCCL_DEBUG=INFO, NCCL_DEBUG_SUBSYS=INIT,NET), of any release from 2.18 on."""
    # Without a device it says "NET/IB : Using [RO]" all the same.
    found = [(match[1], match[2]) for match in _NET.finditer(log) if re.search(r"\[\d+\]", match[2])]
    hcas = [name for net, text in found if net == RDMA for name in _DEVICE.findall(text)]
    named = {*_TAKEN.findall(log), *_VIA.findall(log)}
    # Where nothing says what was taken, what was found is as good as taken.
    taken = named or {net for net, _ in found}
    bootstrap = next((f"{oob[1]} {oob[2]}" for _, text in found for oob in _OOB.finditer(text)), "")
    warnings = dict.fromkeys(" ".join(text.split()) for text in _WARNING.findall(log))
    return Nccl(tuple(sorted(taken)), tuple(dict.fromkeys(hcas)), bootstrap, tuple(warnings))


def network_problem(seen: Nccl, hcas: Sequence[str]) -> tuple[str, str] | None:
    """What is wrong with the network that NCCL took, and the mend; None if it is RDMA by all of these devices."""
    planned = ", ".join(hcas)
    if seen.sockets or (seen.taken and RDMA not in seen.taken):
        taken = "sockets" if seen.sockets else ", ".join(seen.taken)
        return f"NCCL took {taken}, not RDMA by {planned}", _NETWORK_MEND
    if not seen.taken:
        mend = "See NCCL's log in the report, and unset what silences it in the image (/etc/nccl.conf)."
        return "NCCL's log names no network", mend
    missing = [name for name in hcas if name not in seen.hcas]
    if missing:
        mend = "Bring the missing rail up (run site.yml --tags fabric), and see that NCCL_IB_HCA names it."
        used = ", ".join(seen.hcas) or "no device that it names"
        return f"NCCL uses {used}, but not {', '.join(missing)}", mend
    return None


def telling(output: str, count: int = 40) -> list[str]:
    """What to keep of an output: so many lines of NCCL's about its network, and the last lines."""
    lines = output.splitlines()
    about = [line for line in lines[:-count] if _TELLING.search(line)]
    return [*about[:count], *lines[-count:]]


def answer_of(output: str) -> dict[str, Any] | None:
    """The rank's own line, None if it printed none."""
    for line in reversed(output.splitlines()):
        _, mark, text = line.partition(MARK)
        if mark:
            try:
                answer = json.loads(text)
            except ValueError:
                return None
            return answer if isinstance(answer, dict) else None
    return None


@dataclass(frozen=True)
class Container:
    """What the container gets, as the rank's own does; see _unit.RunOptions. infiniband: the node has the devices."""

    image: str
    device: str
    infiniband: bool
    ulimits: Mapping[str, int]
    gpu_devices: Sequence[str]
    docker_options: Sequence[str]


def docker_argv(container: Container, variables: Sequence[str], script: str) -> list[str]:
    """The command that runs one rank. variables: names of what the container gets of the command's environment."""
    argv = ["docker", "run", "--rm", "--pull=never", f"--name={CONTAINER}", "--entrypoint=python3"]
    argv += host_options(container.device, container.ulimits, container.gpu_devices, rdma=container.infiniband)
    # By name alone: their values would stand in the list of processes.
    argv += [f"--env={name}" for name in variables]
    return [*argv, *container.docker_options, container.image, "-c", script]


def fabric_environment(rank: Mapping[str, str]) -> dict[str, str]:
    """Of a rank's environment, what says how it uses the fabric, and that NCCL is to tell what it does."""
    ours = {name: str(value) for name, value in rank.items() if name.startswith(FABRIC_VARIABLES)}
    return {**ours, **LOG_VARIABLES}


def why(code: int | None, output: str, seconds: float) -> tuple[str, str]:
    """Why a rank has no answer, and the mend. code: its exit status, None if it had to be ended."""
    warned = nccl(output).warnings
    ended_itself = _ENDED_ITSELF.search(output)
    said = warned[-1] if warned else output_of.said(output[: ended_itself.start()] if ended_itself else output, 2)
    if code is None or ended_itself:
        mend = "See whether a firewall keeps the nodes apart, or raise fabric_test_all_reduce_seconds."
        return f"it did not end in {seconds:g} s: {said}", mend
    lower = output.lower()
    if "no such image" in lower or "unable to find image" in lower:
        return "the node does not have the image", "Run site.yml --tags image."
    if "address already in use" in lower:
        return "the port is in use", "Set fabric_test_all_reduce_port to a free one."
    if any(output_of.any_of(text, _NO_NETWORK) for text in warned):
        return f"NCCL has no RDMA: {said}", _NETWORK_MEND
    return f"it ended with {code}: {said}", "See the end of its log in the report."
