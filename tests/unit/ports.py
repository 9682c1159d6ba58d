# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Ports for the tests' own servers, which the kernel gives to nobody else."""

from __future__ import annotations

import contextlib
import random
import socket

STEP = 16
BELOW_EPHEMERAL = range(10000, 32000, STEP)
"""The kernel takes ports for clients, and for whoever asks for any, from 32768 on (ip_local_port_range)."""


def free_ports(count: int = STEP) -> range:
    """So many ports in a row (at most STEP) that are free on all addresses, for TCP and UDP."""
    while True:
        first = random.choice(BELOW_EPHEMERAL)
        found = range(first, first + count)
        with contextlib.suppress(OSError), contextlib.ExitStack() as probes:
            for port in found:
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    probes.enter_context(socket.socket(type=kind)).bind(("", port))
            return found
