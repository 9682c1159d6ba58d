# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The ssh connection by which this node is being managed."""

from __future__ import annotations

import os
from pathlib import Path


def connection(pid: int | None = None, proc: str = "/proc") -> list[str]:
    """[client address, client port, server address, server port] of the ssh session that a process belongs to.

    sshd tells its sessions by SSH_CONNECTION (ssh(1)); sudo takes it away, so the parents are asked. Empty where there
    is no such session. pid: the process, by default this one.
    """
    current = os.getpid() if pid is None else pid
    while current > 1:
        try:
            variables = Path(proc, str(current), "environ").read_bytes().split(b"\0")
            status = Path(proc, str(current), "status").read_text()
        except OSError:
            return []
        for variable in variables:
            if variable.startswith(b"SSH_CONNECTION="):
                return variable.decode().partition("=")[2].split()
        current = int(status.partition("\nPPid:")[2].split(maxsplit=1)[0])
    return []
