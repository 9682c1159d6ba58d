# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What every container that computes on a node gets of it, whether it serves or tests the fabric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

RDMA_CAPABILITIES = ("IPC_LOCK",)
"""What is kept of root's capabilities, and only with RDMA: pinning memory beyond a memlock limit (ib_umem_get).

None of those that Docker gives by default is needed. All that a rank reads is root's, as its processes are: no
DAC_OVERRIDE, CHOWN, FOWNER, FSETID, KILL, SETUID, SETGID. Its ports are above 1023: no NET_BIND_SERVICE. Nobody sends
raw packets (NET_RAW), makes devices (MKNOD), changes its root or gives capabilities away (SYS_CHROOT, SETPCAP,
SETFCAP, AUDIT_WRITE). The GPU and the HCAs are devices, opened by their modes.
"""


def host_options(device: str, ulimits: Mapping[str, int], gpu_devices: Sequence[str], *, rdma: bool) -> list[str]:
    """Options of `docker run`: the node's network and memory, its limits and its devices.

    device: cuda or cpu. ulimits: name -> limit (memlock and stack in bytes, -1 for none). gpu_devices: CDI names, used
    on cuda only. rdma: whether the node has /dev/infiniband.
    Host network and IPC, since ranks meet on the fabric's own addresses and share memory with nobody else on the node;
    no --privileged, no capability but those of CAPABILITIES, and none to be had by a setuid program. The output is
    read from the foreground process, so Docker's own log is off.
    """
    return [
        *("--log-driver=none", "--network=host", "--ipc=host"),
        *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
        *(f"--ulimit={name}={limit}" for name, limit in ulimits.items()),
        *(("--device=/dev/infiniband", *(f"--cap-add={name}" for name in RDMA_CAPABILITIES)) if rdma else ()),
        *(f"--device={name}" for name in gpu_devices if device == "cuda"),
    ]
