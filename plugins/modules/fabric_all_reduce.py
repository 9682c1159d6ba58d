#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""One rank of an all-reduce over the fabric, in a container of the server's image."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fabric_all_reduce
short_description: Run one rank of an all-reduce over the fabric
version_added: 0.1.0
description:
  - Runs a program of C(torch.distributed) in a container of the image, as all other nodes of the group do at the same
    time. With V(cuda) it is NCCL, whose log is read - sockets, or a device that is not used, are a failure.
  - A failure is told, not raised. The container is removed in any case, by its name, C(dgx-spark-all-reduce).
options:
  image:
    description: The image. The node must have it; it is not pulled.
    type: str
    required: true
  device:
    description: V(cuda) sums on the GPU by NCCL, V(cpu) in memory by gloo.
    type: str
    choices: [cuda, cpu]
    required: true
  script:
    description: The program, for the image's Python.
    type: str
    required: true
  rank:
    description: This node's rank.
    type: int
    required: true
  ranks:
    description: Number of ranks.
    type: int
    required: true
  master_address:
    description: Rank 0's address on the fabric, where all meet.
    type: str
    required: true
  port:
    description: TCP port of O(master_address).
    type: int
    default: 29500
  environment:
    description: The environment of the node's rank. Only what is about NCCL and gloo is taken.
    type: dict
    default: {}
  hcas:
    description: The RDMA devices that NCCL must use. Not looked at with V(cpu) in O(device).
    type: list
    elements: str
    default: []
  sizes:
    description: Sizes of the buffers in bytes, at most 1 GiB.
    type: list
    elements: int
    default: [1048576, 8388608, 67108864]
  warm_up:
    description: How often each size is summed before the time is taken.
    type: int
    default: 5
  iterations:
    description: How often each size is summed while the time is taken.
    type: int
    default: 20
  seconds:
    description: Seconds that it may take in all.
    type: int
    default: 300
  ulimits:
    description: Limits of the container, as of the server's.
    type: dict
    default: {}
  gpu_devices:
    description: GPUs of the container by CDI name, used with V(cuda) in O(device).
    type: list
    elements: str
    default: []
  docker_options:
    description: Further options of C(docker run).
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Runs nothing in check mode.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
seealso:
  - module: dgx_spark.sglang.fabric_pair
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Sum over all nodes
  dgx_spark.sglang.fabric_all_reduce:
    image: lmsysorg/sglang:spark
    device: cuda
    script: "{{ lookup('ansible.builtin.file', 'all_reduce.py') }}"
    rank: "{{ cluster_self.rank }}"
    ranks: "{{ cluster_plan.ranks | length }}"
    master_address: "{{ cluster_plan.ranks[0].addresses[0] }}"
    environment: "{{ cluster_self.env }}"
    hcas: "{{ cluster_self.hcas }}"
  register: summed
"""

RETURN = r"""
ok:
  description: Whether all sums were right, over the network that was planned.
  returned: success
  type: bool
problem:
  description: What is wrong, empty if nothing.
  returned: success
  type: str
  sample: NCCL took sockets, not RDMA by rocep1s0f1, roceP2p1s0f1
mend:
  description: What to do about it.
  returned: success
  type: str
results:
  description: A result a size, empty if there is none.
  returned: success
  type: list
  elements: dict
  contains:
    bytes:
      description: Size of the buffer.
      type: int
      sample: 67108864
    seconds:
      description: How long one all-reduce took on this rank.
      type: float
    right:
      description: Whether the sums were right.
      type: bool
versions:
  description: Of torch and NCCL.
  returned: success
  type: dict
nccl:
  description: What NCCL's log says.
  returned: success
  type: dict
  contains:
    taken:
      description: The networks that it uses, V(IB) or V(Socket).
      type: list
      elements: str
    hcas:
      description: The RDMA devices that it uses.
      type: list
      elements: str
    bootstrap:
      description: Interface and address where ranks first meet.
      type: str
    warnings:
      description: Its warnings.
      type: list
      elements: str
log:
  description: What NCCL says of its network, and the last lines of the container's output; empty where all is well.
  returned: success
  type: list
  elements: str
"""

import os
import shutil
import subprocess
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_all_reduce, _fabric_process

SPARE_SECONDS = 15.0
"""The rank ends itself in time; if even that fails, its container is removed so much later."""


def remove() -> None:
    """Remove the container, ours or one that a run left that was broken off."""
    subprocess.run(["docker", "rm", "--force", _fabric_all_reduce.CONTAINER], capture_output=True, check=False)


def answer(params: dict[str, Any], code: int | None, output: str) -> dict[str, Any]:
    """What the container's end means."""
    seen = _fabric_all_reduce.nccl(output)
    told = _fabric_all_reduce.answer_of(output) if code == 0 else None
    wrong: tuple[str, str] | None = None
    if told is None:
        wrong = _fabric_all_reduce.why(code, output, params["seconds"])
    elif not all(result["right"] for result in told["results"]):
        mend = "Take this fabric out of use: look for a faulty card or memory (`dmesg`), then for another firmware."
        wrong = ("sums are wrong", mend)
    elif params["device"] == "cuda":
        wrong = _fabric_all_reduce.network_problem(seen, params["hcas"])
    problem, mend = wrong or ("", "")
    return {
        "ok": wrong is None,
        "problem": problem,
        "mend": mend,
        "results": told["results"] if told else [],
        "versions": {"torch": told["torch"], "nccl": told["nccl"]} if told else {},
        "nccl": asdict(seen),
        "log": _fabric_all_reduce.telling(output) if wrong else [],
    }


def run(params: dict[str, Any]) -> dict[str, Any]:
    """Run the container and understand it."""
    if not shutil.which("docker"):
        return {**answer(params, 127, ""), "problem": "docker is not installed", "mend": "Run site.yml first."}
    container = _fabric_all_reduce.Container(
        image=params["image"],
        device=params["device"],
        infiniband=os.path.isdir("/dev/infiniband"),
        ulimits=params["ulimits"],
        gpu_devices=params["gpu_devices"],
        docker_options=params["docker_options"],
    )
    environment = {
        **_fabric_all_reduce.fabric_environment(params["environment"]),
        "RANK": str(params["rank"]),
        "WORLD_SIZE": str(params["ranks"]),
        "MASTER_ADDR": params["master_address"],
        "MASTER_PORT": str(params["port"]),
        "ALL_REDUCE_BACKEND": "nccl" if params["device"] == "cuda" else "gloo",
        "ALL_REDUCE_SIZES": ",".join(map(str, params["sizes"])),
        "ALL_REDUCE_WARM_UP": str(params["warm_up"]),
        "ALL_REDUCE_ITERATIONS": str(params["iterations"]),
        "ALL_REDUCE_SECONDS": str(params["seconds"]),
    }
    argv = _fabric_all_reduce.docker_argv(container, list(environment), params["script"])
    remove()
    try:
        with _fabric_process.Program(argv, environment) as program:
            code = program.wait(params["seconds"] + SPARE_SECONDS)
            output = program.output()
    finally:
        # Docker's client may be ended, or end by itself, while the container lives on.
        remove()
    return answer(params, code, output)


def mistakes(params: dict[str, Any]) -> list[str]:
    """What can't be run so, a sentence with its mend each."""
    found = []
    most = _fabric_all_reduce.MAX_BYTES
    if not params["sizes"] or not all(4 <= size <= most for size in params["sizes"]):
        found.append(f"sizes is {params['sizes']}; give sizes from 4 to {most} bytes: larger ones have frozen nodes.")
    for name in ("iterations", "seconds"):
        if params[name] < 1:
            found.append(f"{name} is {params[name]}; give 1 or more.")
    if not 0 <= params["rank"] < params["ranks"]:
        found.append(f"rank is {params['rank']}; give a number from 0, below ranks, which is {params['ranks']}.")
    return found


def main() -> None:
    """Run this node's rank."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "device": {"type": "str", "choices": ["cuda", "cpu"], "required": True},
            "script": {"type": "str", "required": True},
            "rank": {"type": "int", "required": True},
            "ranks": {"type": "int", "required": True},
            "master_address": {"type": "str", "required": True},
            "port": {"type": "int", "default": 29500},
            "environment": {"type": "dict", "default": {}},
            "hcas": {"type": "list", "elements": "str", "default": []},
            "sizes": {"type": "list", "elements": "int", "default": [1048576, 8388608, 67108864]},
            "warm_up": {"type": "int", "default": 5},
            "iterations": {"type": "int", "default": 20},
            "seconds": {"type": "int", "default": 300},
            "ulimits": {"type": "dict", "default": {}},
            "gpu_devices": {"type": "list", "elements": "str", "default": []},
            "docker_options": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    wrong = mistakes(module.params)
    if wrong:
        module.fail_json(msg="\n".join(wrong))
    if module.check_mode:
        module.exit_json(changed=False, ok=True, problem="", mend="", results=[], versions={}, nccl={}, log=[])
    _fabric_process.end_on_signals()
    module.exit_json(changed=False, **run(module.params))


if __name__ == "__main__":
    main()
