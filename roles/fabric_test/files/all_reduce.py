# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""One rank of an all-reduce, run by the image's Python: checks the sums, takes the time, prints a line of JSON.

Asked by the environment. RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT: as torch.distributed reads them.
ALL_REDUCE_BACKEND: nccl or gloo. ALL_REDUCE_SIZES: bytes of the buffers, with commas between. ALL_REDUCE_WARM_UP,
ALL_REDUCE_ITERATIONS: how often, each size. ALL_REDUCE_SECONDS: after so many the rank ends itself, so that it stays
behind neither a peer that hangs nor a run that was broken off.
"""

from __future__ import annotations

import faulthandler
import json
import os
import sys
import time
from datetime import timedelta
from typing import Any

MARK = "FABRIC_ALL_REDUCE "
"""What the line of JSON begins with: libraries write into the same output."""

ELEMENT_BYTES = 4
"""Of a float32."""


def measure(torch: Any, dist: Any, device: str, size: int, warm_up: int, iterations: int) -> dict[str, Any]:
    """Bytes, seconds of one all-reduce, and whether the sums were right before and after the measurement."""

    def settle() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def sums_are_right() -> bool:
        buffer.fill_(rank + 1)
        dist.all_reduce(buffer)
        # Small whole numbers are exact in float32.
        return bool((buffer == ranks * (ranks + 1) // 2).all().item())

    rank, ranks = dist.get_rank(), dist.get_world_size()
    buffer = torch.empty(max(1, size // ELEMENT_BYTES), dtype=torch.float32, device=device)
    right = sums_are_right()
    # Sums of zeros stay what they are, however often.
    buffer.zero_()
    for _ in range(warm_up):
        dist.all_reduce(buffer)
    dist.barrier()
    settle()
    begin = time.perf_counter()
    for _ in range(iterations):
        dist.all_reduce(buffer)
    settle()
    seconds = (time.perf_counter() - begin) / iterations
    right = sums_are_right() and right
    return {"bytes": buffer.numel() * ELEMENT_BYTES, "seconds": seconds, "right": right}


def main() -> None:
    """Join the others, measure each size, print."""
    seconds = int(os.environ["ALL_REDUCE_SECONDS"])
    # Not by a signal: in its container this is process 1, which the kernel spares from those that nobody handles. This
    # waits in a thread of C, tells in which calls the rank hangs, and ends it whatever those are.
    faulthandler.dump_traceback_later(seconds, exit=True)
    import torch
    import torch.distributed as dist

    backend = os.environ["ALL_REDUCE_BACKEND"]
    device = "cuda" if backend == "nccl" else "cpu"
    if device == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
    sizes = [int(size) for size in os.environ["ALL_REDUCE_SIZES"].split(",")]
    counts = int(os.environ["ALL_REDUCE_WARM_UP"]), int(os.environ["ALL_REDUCE_ITERATIONS"])
    results = [measure(torch, dist, device, size, *counts) for size in sizes]
    version = ".".join(map(str, torch.cuda.nccl.version())) if device == "cuda" else ""
    answer = {"ranks": dist.get_world_size(), "torch": torch.__version__, "nccl": version, "results": results}
    # Nobody leaves while a peer still needs it.
    dist.barrier()
    dist.destroy_process_group()
    sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
