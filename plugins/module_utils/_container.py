# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What every container that computes on a node gets of it, whether it serves or tests the fabric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def host_options(device: str, ulimits: Mapping[str, int], gpu_devices: Sequence[str], *, rdma: bool) -> list[str]:
    """Options of `docker run`: the node's network and memory, its limits and its devices.

    device: cuda or cpu. ulimits: name -> limit (memlock and stack in bytes, -1 for none). gpu_devices: CDI names, used
    on cuda only. rdma: whether the node has /dev/infiniband.
    Host network and IPC, since ranks meet on the fabric's own addresses and share memory with nobody else on the node;
    no --privileged. The output is read from the foreground process, so Docker's own log is off.
    """
    return [
        *("--log-driver=none", "--network=host", "--ipc=host"),
        *(f"--ulimit={name}={limit}" for name, limit in ulimits.items()),
        # RDMA pins memory: that needs its devices, and IPC_LOCK beside the memlock limit.
        *(("--device=/dev/infiniband", "--cap-add=IPC_LOCK") if rdma else ()),
        *(f"--device={name}" for name in gpu_devices if device == "cuda"),
    ]
