#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The shared memory of this node, and whether it is enough."""

from __future__ import annotations

DOCUMENTATION = r"""
module: shared_memory_info
short_description: Tell what shared memory a node has, and whether it is enough
version_added: 0.1.0
description:
  - Asks the CUDA driver for the shared memory that each GPU gives a block of threads. Neither the CUDA toolkit nor
    PyTorch is needed, and no context is made on the GPU.
  - Reads the limits of the node on memory that processes share or lock, and those of a container.
  - Fails where a limit is lower than O(required), naming for each what there is, what is wanted and how to mend it.
  - A node without a GPU, without the driver or without Docker is a result, not an error, unless something of it is
    required.
  - Changes nothing. All sizes are in bytes.
options:
  container:
    description:
      - Name or id of a Docker container to look at too.
      - Its processes are looked at from outside, which needs root.
    type: str
  required:
    description:
      - The least that each limit must be. Limits that are not named are not checked.
      - Where O(container) is given, C(dev_shm_*) and C(memlock_*) are held against the container, else against the
        node.
    type: dict
    default: {}
    suboptions:
      gpu_shared_memory_per_block:
        description: Shared memory of each GPU for a block that doesn't opt in to more.
        type: int
      gpu_shared_memory_per_block_optin:
        description: Shared memory of each GPU for a block that opts in to more, as Triton's kernels do.
        type: int
      gpu_shared_memory_per_multiprocessor:
        description: Shared memory of each GPU for a multiprocessor.
        type: int
      dev_shm_size:
        description: Size of C(/dev/shm).
        type: int
      dev_shm_free:
        description: What is free of C(/dev/shm).
        type: int
      memlock_soft:
        description: Soft limit on the memory that a process may lock; V(-1) requires that there is no limit.
        type: int
      memlock_hard:
        description: Hard limit on the memory that a process may lock; V(-1) requires that there is no limit.
        type: int
      shmmax:
        description: The kernel's limit on one segment of System V shared memory.
        type: int
      shmall_bytes:
        description: The kernel's limit on all segments of System V shared memory together.
        type: int
      mem_available:
        description: Memory of the node that can be had without swapping.
        type: int
      container_memory:
        description: Memory limit of O(container); V(-1) requires that there is no limit.
        type: int
notes:
  - The limits on locked memory are those of the process that runs the module, unless O(container) is given; a service
    may have others.
  - C(kernel.shmmax) and C(kernel.shmall) are those of the node. A container that doesn't run with C(--ipc=host) has its
    own.
attributes:
  check_mode:
    description: Can run in check mode and return its result; it never changes anything.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Look at the shared memory of every node and of its rank's container
  dgx_spark.sglang.shared_memory_info:
    container: sglang-rank
  register: shared_memory

- name: Show what a block of threads gets on the first GPU
  ansible.builtin.debug:
    msg: "{{ shared_memory.gpu.devices[0].shared_memory_per_block_optin }}"
  when: shared_memory.gpu.available

- name: Make sure that a kernel config fits, and that the rank's container can pin memory
  dgx_spark.sglang.shared_memory_info:
    container: sglang-rank
    required:
      gpu_shared_memory_per_block_optin: 98304
      dev_shm_size: 1073741824
      memlock_soft: -1
"""

RETURN = r"""
gpu:
  description: What the CUDA driver says.
  returned: always
  type: dict
  contains:
    available:
      description: Whether it told everything about at least one device.
      type: bool
      sample: true
    problem:
      description: Why it did not, else none.
      type: str
      sample: "cuInit answers CUDA_ERROR_NO_DEVICE (100): no CUDA-capable device is detected"
    mend:
      description: What to do about RV(gpu.problem), else none.
      type: str
    cuda_version:
      description: The newest CUDA that the driver supports, none when it didn't tell.
      type: str
      sample: "13.0"
    devices:
      description: The devices, empty unless RV(gpu.available).
      type: list
      elements: dict
      contains:
        index:
          description: Its number in CUDA's order.
          type: int
          sample: 0
        name:
          description: Its name.
          type: str
          sample: NVIDIA GB10
        compute_capability:
          description: Major and minor compute capability.
          type: str
          sample: "12.1"
        multiprocessors:
          description: Number of multiprocessors.
          type: int
          sample: 48
        shared_memory_per_block:
          description: Shared memory for a block that doesn't opt in to more.
          type: int
          sample: 49152
        shared_memory_per_block_optin:
          description: Shared memory for a block that opts in to more. A kernel that needs more can't be launched.
          type: int
          sample: 101376
        shared_memory_per_multiprocessor:
          description: Shared memory of a multiprocessor, for all its blocks.
          type: int
          sample: 102400
host:
  description: The limits of the node. What can't be read is none.
  returned: always
  type: dict
  contains:
    dev_shm_size:
      description: Size of C(/dev/shm).
      type: int
      sample: 65283502080
    dev_shm_free:
      description: What is free of it.
      type: int
      sample: 65283502080
    shmmax:
      description: C(kernel.shmmax), the limit on one segment of System V shared memory.
      type: int
      sample: 18446744073692774399
    shmall:
      description: C(kernel.shmall), the limit on all segments together, in pages.
      type: int
      sample: 18446744073692774399
    shmall_bytes:
      description: RV(host.shmall) in bytes.
      type: int
    page_size:
      description: Size of a page.
      type: int
      sample: 4096
    memlock_soft:
      description: Soft limit on the memory that the module's process may lock, V(-1) for none.
      type: int
      sample: 8388608
    memlock_hard:
      description: Hard limit on it, V(-1) for none.
      type: int
      sample: -1
    mem_total:
      description: Memory of the node; on a GB10 the GPU shares it.
      type: int
      sample: 130577924096
    mem_available:
      description: What can be had of it without swapping.
      type: int
      sample: 121332826112
    problem:
      description: What can't be read and why, else none.
      type: str
    mend:
      description: What to do about RV(host.problem), else none.
      type: str
container:
  description: The limits of O(container), none unless it is given. What isn't known is none.
  returned: always
  type: dict
  contains:
    name:
      description: O(container).
      type: str
      sample: sglang-rank
    found:
      description: Whether Docker knows it.
      type: bool
    running:
      description: Whether it runs.
      type: bool
    pid:
      description: Its first process as the node numbers it, none unless it runs.
      type: int
      sample: 4242
    memory:
      description: Its memory limit, V(-1) for none.
      type: int
      sample: -1
    ipc_mode:
      description: Whose IPC namespace it has; with V(host), C(/dev/shm) is the node's.
      type: str
      sample: host
    shm_size:
      description: The C(/dev/shm) that it was made with. It counts only with an IPC namespace of its own.
      type: int
      sample: 67108864
    ulimits:
      description: The limits that it was made with, with C(name), C(soft) and C(hard).
      type: list
      elements: dict
      sample: [{"name": "memlock", "soft": -1, "hard": -1}]
    dev_shm_size:
      description: Size of the C(/dev/shm) that its first process sees.
      type: int
      sample: 67108864
    dev_shm_free:
      description: What is free of it.
      type: int
      sample: 67108864
    memlock_soft:
      description: Soft limit on the memory that its first process may lock, V(-1) for none.
      type: int
      sample: -1
    memlock_hard:
      description: Hard limit on it, V(-1) for none.
      type: int
      sample: -1
    problem:
      description: Why something of it is not known, else none.
      type: str
      sample: there is no container sglang-rank
    mend:
      description: What to do about RV(container.problem), else none.
      type: str
verdicts:
  description: A verdict for each limit in O(required), and for each GPU where it is a limit of GPUs.
  returned: always
  type: list
  elements: dict
  contains:
    limit:
      description: Its name in O(required).
      type: str
      sample: gpu_shared_memory_per_block_optin
    where:
      description: What it is a limit of, V(device), V(host) or V(container).
      type: str
      sample: device
    name:
      description: Which device or container, empty for the host.
      type: str
      sample: 0, NVIDIA GB10
    have:
      description: The limit as it is, V(-1) for none; not set when it isn't known.
      type: int
      sample: 101376
    want:
      description: The limit as required.
      type: int
      sample: 147456
    ok:
      description: Whether it is high enough.
      type: bool
      sample: false
    problem:
      description: Why RV(verdicts[].have) isn't known, else none.
      type: str
    mend:
      description: What to do, empty where there is nothing to do.
      type: str
      sample: "Use kernel configs that need no more than 101,376 bytes: no setting gives a GPU more."
ok:
  description: Whether all of O(required) is met.
  returned: always
  type: bool
msg:
  description: The limits that are not met, a line each with what there is, what is wanted and how to mend it.
  returned: failure
  type: str
"""

import shutil
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _cuda, _host_memory, _shared_memory

# Docker's messages in the one form that is read here.
LOCALE = {"LANG": "C", "LC_ALL": "C", "LANGUAGE": "C"}


def inspect_container(module: AnsibleModule, name: str) -> dict[str, Any]:
    """The container's facts; a container or a Docker that isn't there is a result, not an error."""
    if not shutil.which("docker"):
        mend = "Install Docker on the node, or leave out container."
        return _host_memory.no_container(name, "the docker command is not installed", mend)
    command = ["docker", "inspect", "--type", "container", "--", name]
    code, out, err = module.run_command(command, environ_update=LOCALE)
    if code == 0:
        try:
            return _host_memory.container(name, out)
        except ValueError as trouble:
            mend = f"See what `docker inspect {name}` prints on the node."
            return _host_memory.no_container(name, f"docker inspect can't be understood: {trouble}", mend)
    if "no such" in err.lower():
        mend = "Start the container, or give its name as `docker ps --all` shows it."
        return _host_memory.no_container(name, f"there is no container {name}", mend)
    mend = "Run the task with become: true, and see whether `docker info` works on the node."
    return _host_memory.no_container(name, " ".join(err.split()) or f"docker inspect ended with {code}", mend)


def main() -> None:
    """Read everything, then hold it against what is required."""
    limits = {name: {"type": "int"} for name in _shared_memory.LIMITS}
    module = AnsibleModule(
        argument_spec={
            "container": {"type": "str"},
            "required": {"type": "dict", "default": {}, "options": limits},
        },
        supports_check_mode=True,
    )
    name = module.params["container"]
    required = {limit: want for limit, want in (module.params["required"] or {}).items() if want is not None}
    mistakes = _shared_memory.mistakes(required, name)
    if mistakes:
        module.fail_json(msg="\n".join(mistakes))

    gpu, host = _cuda.read(), _host_memory.host()
    container = inspect_container(module, name) if name else None
    verdicts = _shared_memory.judge(required, gpu, host, container)
    ok = all(verdict.ok for verdict in verdicts)
    facts = {"gpu": gpu, "host": host, "container": container, "ok": ok, "verdicts": [asdict(one) for one in verdicts]}
    if not ok:
        module.fail_json(msg=_shared_memory.report(verdicts), **facts)
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
