# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Checks of memory and of the GPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_parse as parse
from ansible_collections.dgx_spark.sglang.plugins.module_utils._host_memory import UNLIMITED
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_check import (
    BEFORE,
    ERROR,
    GPU,
    RDMA,
    READY,
    WARNING,
    Checks,
    Cluster,
    Problem,
    Unjudged,
    differing,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_node import Node, NotApplicableError

CHECKS = Checks()

RESERVE_BYTES = 12 * parse.GIB
"""What a rank needs beside its weights: context and graphs, the smallest useful KV cache, and the system itself."""

SWAPPINESS_MOST = 10
"""Above it the kernel swaps an engine out for page cache; 60 is the kernel's default."""

SHM_LEAST = parse.GIB
"""What PyTorch and NCCL share between the processes of a rank; the container has the node's /dev/shm."""

GUARD_BELOW = (1, 8)
"""From this version on earlyoom counts only what processes have, which leaves out the GPU's memory (docs/memory.md)."""

DRIVER_LEAST = 580
"""The driver of CUDA 13.0, with which DGX OS 7 comes."""

GPU_NAME, CAPABILITY = "GB10", "12.1"

SHARED_MEMORY = 101376
"""What a block of a GB10 may opt in to (CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN), in bytes."""

SLOW_CLOCK = 850
"""A Spark whose power supply has fallen back stays at 500 to 850 MHz under load."""

BUSY_PERCENT = 50
"""From so much on a clock tells something: an idle GPU is slow by design."""

IDLE = "the GPU is idle: its clock tells nothing (run this while the group is under load)"

CLOCK_SHARE = 0.8
"""A GPU under load that is slower than that share of the fastest drags all ranks."""

TOOLKIT_LEAST = (1, 17, 8)
"""Older ones let a container out (CVE-2025-23266, NVIDIA's bulletin of July 2025)."""


@CHECKS.node(
    "MEM.HEADROOM",
    ERROR,
    READY,
    title="Enough memory is available for a start (rank_memory_floor_gib)",
    why="When a Spark's memory runs out it hangs or resets: nothing is killed, as the GPU's memory is in no "
    "process's size.",
    mend="End what is not needed (`ps -e -o rss,args --sort=-rss`), or restart the node.",
)
def headroom(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """MemAvailable, as nvidia-smi knows no memory of a GB10."""
    if not cluster.floor_bytes:
        raise NotApplicableError("no floor is set (rank_memory_floor_gib: 0)")
    if node.serves():
        raise NotApplicableError("the rank runs here, and has the memory")
    available = node.memory()["MemAvailable"]
    if available < cluster.floor_bytes:
        yield Problem(f"MemAvailable {parse.size(available)}", f"{parse.size(cluster.floor_bytes)} or more")


@CHECKS.node(
    "MEM.MODEL_FITS",
    ERROR,
    BEFORE,
    title="A rank's share of the weights fits into the node's memory",
    why="Otherwise the load ends in a node that hangs, a quarter of an hour after the start.",
    mend="Use more nodes (cluster_tensor_parallel), or a smaller or more quantised model.",
)
def model_fits(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """By the profile's weights_gib, with what a rank needs besides."""
    if not cluster.weights_bytes:
        raise NotApplicableError("the model's profile does not tell the size of its weights (weights_gib)")
    share = cluster.weights_bytes / len(cluster.plan["ranks"])
    total = node.memory()["MemTotal"]
    if share + RESERVE_BYTES > total:
        needed = f"{parse.size(share)} of weights and {parse.size(RESERVE_BYTES)} besides"
        yield Problem(f"MemTotal {parse.size(total)}", needed)


@CHECKS.group(
    "MEM.TOTAL_EQUAL",
    WARNING,
    BEFORE,
    scope=GPU,
    title="All nodes have about the same memory",
    why="The ranks are alike: the node with the least decides on the KV cache of all.",
    mend="See `dmesg | grep -i memory` on the one that has less: a reserved region, or another machine.",
)
def total_equal(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """Within 5 percent: firmware keeps some for itself."""
    totals = {node.host: node.memory()["MemTotal"] for node in nodes}
    most = max(totals.values())
    less = [host for host, total in totals.items() if total < 0.95 * most]
    if less:
        found = ", ".join(f"{parse.size(totals[host])} on {host}" for host in less)
        yield Problem(found, f"{parse.size(most)} as on others", less)


@CHECKS.node(
    "MEM.SWAP",
    WARNING,
    READY,
    title="The kernel does not swap an engine out",
    why="A GPU's memory can't be swapped; what of the engine is, makes one rank slow and thus all of them.",
    mend="Run site.yml --tags host (host_swap_off, or vm.swappiness in host_sysctl).",
)
def swap(node: Node, _: Cluster) -> Iterable[Problem]:
    """No swap, or hardly used."""
    node.own_machine("swap")
    memory = node.memory()
    swappiness = int(node.need("/proc/sys/vm/swappiness"))
    if memory.get("SwapTotal", 0) and swappiness > SWAPPINESS_MOST:
        found = f"{parse.size(memory['SwapTotal'])} of swap, vm.swappiness {swappiness}"
        yield Problem(found, f"none, or vm.swappiness up to {SWAPPINESS_MOST}")


@CHECKS.node(
    "MEM.GUARD",
    WARNING,
    READY,
    title="A guard ends the engine before memory does (earlyoom)",
    why="Without it a node that runs out of memory is gone until somebody presses its button.",
    mend="Run site.yml --tags memory_guard, and see `systemctl status earlyoom`.",
)
def guard(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """Whether it runs."""
    if not cluster.guard:
        raise NotApplicableError("memory_guard_enabled is false")
    if not node.active("earlyoom.service"):
        yield Problem("earlyoom is not active", "active")


@CHECKS.node(
    "MEM.GUARD_VERSION",
    ERROR,
    BEFORE,
    title="earlyoom is one that counts the GPU's memory",
    why="From 1.8 on it holds what is available against what processes have, and acts too late beside a GPU.",
    mend="Install version 1.7 and hold it, or set memory_guard_enabled: false.",
)
def guard_version(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """Of the package that is there already."""
    if not cluster.guard:
        raise NotApplicableError("memory_guard_enabled is false")
    package = node.packages().get("earlyoom")
    if package is None:
        raise NotApplicableError("earlyoom is not installed yet")
    if parse.version(package.version)[:2] >= GUARD_BELOW:
        yield Problem(package.version, "older than 1.8")


@CHECKS.node(
    "MEM.MEMLOCK",
    WARNING,
    READY,
    scope=RDMA,
    title="Logins may lock memory without limit",
    why="RDMA locks what it registers: `ib_write_bw` and such fail in a shell otherwise. (A rank's container has its "
    "own limit.)",
    mend="Run site.yml --tags fabric and log in anew; it writes /etc/security/limits.d (fabric_memlock).",
)
def memlock(node: Node, _: Cluster) -> Iterable[Problem]:
    """Of the login that this module ran in."""
    limit = node.value("limits")["memlock_hard"]
    if limit != UNLIMITED:
        yield Problem(f"{limit:,} bytes", "unlimited")


@CHECKS.node(
    "MEM.SHM",
    WARNING,
    BEFORE,
    scope=GPU,
    title=f"/dev/shm has {parse.size(SHM_LEAST)} free",
    why="The processes of a rank share buffers there; without room they end with a bus error.",
    mend="Remove what ended processes have left in /dev/shm, or make it larger.",
)
def shm(node: Node, _: Cluster) -> Iterable[Problem]:
    """The node's own, which the container shares (--ipc=host)."""
    free = node.value("limits")["dev_shm_free"]
    if free is None:
        raise NotApplicableError("/dev/shm can't be read")
    if free < SHM_LEAST:
        yield Problem(f"{parse.size(free)} free", parse.size(SHM_LEAST))


@CHECKS.node(
    "GPU.VISIBLE",
    ERROR,
    BEFORE,
    scope=GPU,
    title="NVIDIA's driver answers and lists a GPU",
    why="Nothing computes without.",
    mend="See `nvidia-smi` and `dmesg | grep NVRM`; after an upgrade of kernel or driver, restart the node.",
)
def visible(node: Node, _: Cluster) -> Iterable[Problem]:
    """By nvidia-smi, and by the driver's own library."""
    try:
        told = node.value("nvidia_smi")
    except NotApplicableError as reason:
        yield Problem(str(reason), "a GPU")
        return
    if told["code"] or not parse.gpus(told["out"]):
        words = told["error"] or " ".join(str(told["out"]).split()) or f"exit code {told['code']}"
        yield Problem(f"nvidia-smi: {words}", "a GPU")
    elif not node.value("cuda")["available"]:
        yield Problem(str(node.value("cuda")["problem"]), "a GPU", mend=str(node.value("cuda")["mend"]))


@CHECKS.node(
    "GPU.DRIVER",
    WARNING,
    BEFORE,
    scope=GPU,
    title=f"The driver is {DRIVER_LEAST} or newer",
    why="Images for Spark are built with CUDA 13, whose driver that is.",
    mend="Upgrade DGX OS (`apt full-upgrade`) on all nodes and restart them.",
)
def driver(node: Node, _: Cluster) -> Iterable[Problem]:
    """All GPUs of a node have one driver."""
    have = node.gpus()[0].driver
    if parse.version(have) < (DRIVER_LEAST,):
        yield Problem(have, f"{DRIVER_LEAST} or newer")


@CHECKS.node(
    "GPU.MODEL",
    WARNING,
    BEFORE,
    scope=GPU,
    title=f"The GPU is a {GPU_NAME} of compute capability {CAPABILITY}",
    why="Kernel configs, limits and defaults are those of a GB10.",
    mend="Take the host out of the group, or skip this check and bring kernel configs of your own (moe_config_dirs).",
)
def model(node: Node, _: Cluster) -> Iterable[Problem]:
    """By name and capability."""
    for gpu in node.gpus():
        if GPU_NAME not in gpu.name or gpu.capability != CAPABILITY:
            yield Problem(f"{gpu.name}, {gpu.capability}", f"NVIDIA {GPU_NAME}, {CAPABILITY}")


@CHECKS.node(
    "GPU.SHARED_MEMORY",
    ERROR,
    BEFORE,
    scope=GPU,
    title=f"A block may have {SHARED_MEMORY:,} bytes of shared memory",
    why="The kernel configs are made for that much; with less the engine dies with OutOfResources at its first long "
    "forward.",
    mend="Update NVIDIA's driver; on another GPU bring configs of your own (moe_config_dirs).",
)
def shared_memory(node: Node, _: Cluster) -> Iterable[Problem]:
    """The driver's own word for it."""
    told = node.value("cuda")
    if not told["available"]:
        raise NotApplicableError("the driver does not answer")
    for device in told["devices"]:
        have = device["shared_memory_per_block_optin"]
        if have < SHARED_MEMORY:
            yield Problem(f"{have:,} bytes on {device['name']}", f"{SHARED_MEMORY:,} bytes")


@CHECKS.node(
    "GPU.CLOCKS",
    WARNING,
    BEFORE,
    scope=GPU,
    title="The GPU is not stuck at a low clock",
    why="A power supply that fell back (USB-PD) leaves a Spark at 500 to 850 MHz, and one slow rank drags all.",
    mend="Unplug the Spark's own power supply for a minute, plug it in again, and start the node.",
)
def clocks(node: Node, _: Cluster) -> Iterable[Problem]:
    """Under load only."""
    for gpu in node.gpus():
        if gpu.busy is None or gpu.clock is None:
            raise NotApplicableError("nvidia-smi tells no clock or load")
        if gpu.busy < BUSY_PERCENT:
            raise NotApplicableError(IDLE)
        if gpu.clock <= SLOW_CLOCK:
            yield Problem(f"{gpu.clock} MHz at {gpu.busy} % load", f"more than {SLOW_CLOCK} MHz")


@CHECKS.group(
    "GPU.CLOCKS_EQUAL",
    WARNING,
    BEFORE,
    scope=GPU,
    title="Under load all GPUs are about as fast",
    why="Ranks wait for each other at every layer: the slowest sets the pace.",
    mend="See `nvidia-smi -q -d PERFORMANCE,TEMPERATURE` on the slow one: heat, or its power supply.",
)
def clocks_equal(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """Among those under load."""
    clocks_of: dict[str, int] = {}
    for node in nodes:
        try:
            loaded = [gpu.clock for gpu in node.gpus() if gpu.clock is not None and (gpu.busy or 0) >= BUSY_PERCENT]
        except NotApplicableError as reason:
            yield Unjudged(node.host, str(reason))
            continue
        if loaded:
            clocks_of[node.host] = min(loaded)
        else:
            yield Unjudged(node.host, IDLE)
    if len(clocks_of) < 2:
        yield from (Unjudged(host, "no other GPU is under load") for host in clocks_of)
        return
    most = max(clocks_of.values())
    slow = [host for host, clock in clocks_of.items() if clock < CLOCK_SHARE * most]
    if slow:
        found = ", ".join(f"{clocks_of[host]} MHz on {host}" for host in slow)
        yield Problem(found, f"{CLOCK_SHARE:.0%} of {most} MHz or more", slow)


@CHECKS.node(
    "GPU.IN_USE",
    WARNING,
    READY,
    scope=GPU,
    title="Nobody else computes on the GPU",
    why="The engine takes its memory at its start; what others take later is not there any more, and the node hangs.",
    mend="End these processes, or lower mem-fraction-static (cluster_flags) by what they need.",
)
def in_use(node: Node, _: Cluster) -> Iterable[Problem]:
    """Processes outside the rank's container."""
    others = [user for user in node.value("gpu_users") if not node.is_ours(user["cgroup"])]
    if others:
        names = ", ".join(f"{user['name']} ({user['pid']})" for user in others[:3])
        yield Problem(names + (f" and {len(others) - 3} more" if len(others) > 3 else ""), "the rank alone")


@CHECKS.group(
    "GPU.DRIVER_EQUAL",
    WARNING,
    BEFORE,
    scope=GPU,
    title="All nodes have the same driver",
    why="NCCL and compiled kernels differ with it; a node that was upgraded alone fails alone.",
    mend="Upgrade all nodes together, then restart them.",
)
def driver_equal(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """As nvidia-smi says."""
    return differing(nodes, lambda node: node.gpus()[0].driver, "driver")


@CHECKS.node(
    "GPU.PEERMEM",
    WARNING,
    BEFORE,
    scope=GPU,
    title="nvidia-peermem is not loaded",
    why="A GB10 has no GPUDirect RDMA; what tries it fails or falls back.",
    mend="Run `modprobe -r nvidia_peermem`, and take it out of /etc/modules-load.d.",
)
def peermem(node: Node, _: Cluster) -> Iterable[Problem]:
    """A loaded module has a folder in /sys/module."""
    if node.file("/sys/module/nvidia_peermem/initstate") is not None:
        yield Problem("loaded", "not loaded")


@CHECKS.node(
    "GPU.TOOLKIT",
    WARNING,
    READY,
    scope=GPU,
    title=f"The NVIDIA Container Toolkit is {'.'.join(str(part) for part in TOOLKIT_LEAST)} or newer",
    why="Containers get the GPU by its CDI specification; older versions let a container out (CVE-2025-23266).",
    mend="Run site.yml --tags container_runtime where there is none; an older one is upgraded by "
    "`apt install nvidia-container-toolkit`.",
)
def toolkit(node: Node, _: Cluster) -> Iterable[Problem]:
    """By its package."""
    package = node.packages().get("nvidia-container-toolkit")
    expected = ".".join(str(part) for part in TOOLKIT_LEAST)
    if package is None or parse.version(package.version) < TOOLKIT_LEAST:
        yield Problem(package.version if package else "not installed", f"{expected} or newer")


@CHECKS.node(
    "GPU.CDI",
    ERROR,
    READY,
    scope=GPU,
    title="A CDI specification names the GPU (rank_gpu_devices)",
    why="Docker gives a container no device that no specification names: the rank's start ends at its gate.",
    mend="Run site.yml --tags container_runtime, and see `nvidia-smi`.",
)
def cdi(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """In /etc/cdi or /var/run/cdi."""
    named = set(node.value("cdi"))
    missing = [name for name in cluster.gpu_devices if name not in named]
    if missing:
        yield Problem(f"no specification names {', '.join(missing)}", "one that does")
