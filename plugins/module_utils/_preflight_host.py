# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Checks of the machine and its operating system."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_parse as parse
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_check import (
    BEFORE,
    ERROR,
    GPU,
    RDMA,
    WARNING,
    Checks,
    Cluster,
    Problem,
    Unjudged,
    differing,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_node import Node, NotApplicableError

CHECKS = Checks()

ARCH = "aarch64"
"""A GB10's processor, as the kernel calls it."""

SYSTEMS = {"ubuntu": ("24.04",), "debian": ("12", "13")}
"""DGX OS 7 is Ubuntu 24.04 to os-release; the simulated Sparks are Debian 12."""

BAD_KERNEL = re.compile(r"7\.0\.0-10\d\d-nvidia")
"""Kernels whose RDMA memory registration fails with `Cannot allocate memory`."""

PYTHON_LEAST = (3, 9)
"""What the modules are written for, and ansible-core 2.19 needs 3.8."""

SYSTEMD_LEAST = 249
"""Ubuntu 22.04's; the units were never tried with an older one."""

CLOCK_SECONDS = 2.0
"""How far two clocks may be apart: logs of several nodes are read side by side."""

HELD = re.compile(r"(linux-image-.*nvidia|linux-nvidia|nvidia-driver-)")
"""Packages whose upgrade changes the kernel or the driver."""


@CHECKS.node(
    "HOST.REACHABLE",
    ERROR,
    BEFORE,
    title="The node answers: its name resolves, ssh logs in, sudo works, Python is there",
    why="A group works only whole: one node that is out of reach is no group.",
    mend="Try `ssh HOST sudo true` from this machine with the inventory's user; run with --ask-become-pass where "
    "sudo asks.",
)
def reachable(node: Node, _: Cluster) -> Iterable[Problem]:
    """Also judges nodes that have not answered."""
    if not node.answered:
        yield Problem(node.problem or "no answer", "an answer")


@CHECKS.node(
    "HOST.ROOT",
    ERROR,
    BEFORE,
    title="The run is root on the node",
    why="Network, Docker and units are root's; without it half of what is looked at here can't be seen.",
    mend="Set `become: true`, and let the user sudo (DGX OS: member of the group sudo).",
)
def root(node: Node, _: Cluster) -> Iterable[Problem]:
    """By the effective user."""
    if not node.system()["root"]:
        yield Problem("an ordinary user", "root")


@CHECKS.node(
    "HOST.ARCH",
    ERROR,
    BEFORE,
    scope=GPU,
    title=f"The processor is {ARCH}",
    why="The images for Spark are built for it and start nowhere else.",
    mend="Take the host out of the group, or give an image of its own architecture and skip this check.",
)
def arch(node: Node, _: Cluster) -> Iterable[Problem]:
    """As uname says."""
    if node.system()["arch"] != ARCH:
        yield Problem(str(node.system()["arch"]), ARCH)


@CHECKS.node(
    "HOST.OS",
    WARNING,
    BEFORE,
    title="The operating system is one that this collection is made for",
    why="Package names, netplan and units are those of DGX OS 7 (Ubuntu 24.04) and of Debian.",
    mend="Install DGX OS 7; OEM systems on Ubuntu 24.04 are fine.",
)
def operating_system(node: Node, _: Cluster) -> Iterable[Problem]:
    """By os-release and not by dgx-release: OEM boxes differ."""
    told = parse.os_release(node.need("/etc/os-release"))
    if told.get("VERSION_ID") not in SYSTEMS.get(told.get("ID", ""), ()):
        known = ", ".join(f"{name} {' or '.join(versions)}" for name, versions in SYSTEMS.items())
        yield Problem(f"{told.get('ID', '?')} {told.get('VERSION_ID', '?')}", known)


@CHECKS.node(
    "HOST.KERNEL_RDMA",
    WARNING,
    BEFORE,
    scope=RDMA,
    title="The kernel is none of those that break RDMA",
    why="With 7.0.0-10xx-nvidia, which routine upgrades brought, registering memory fails (`ibv_reg_mr: Cannot "
    "allocate memory`).",
    mend="Boot an older kernel (`apt list --installed 'linux-image*nvidia*'`) and hold it (host_hold_packages), or "
    "boot with kho=off (host_kho_off).",
)
def kernel_rdma(node: Node, _: Cluster) -> Iterable[Problem]:
    """By its name; HOST.CMA sees what it does."""
    node.own_machine("the kernel")
    if BAD_KERNEL.match(str(node.system()["kernel"])):
        yield Problem(str(node.system()["kernel"]), "another kernel")


@CHECKS.node(
    "HOST.CMA",
    ERROR,
    BEFORE,
    scope=RDMA,
    title="The kernel's contiguous memory is in order",
    why="CmaTotal 0 with CmaFree above 0 is the mark of a kernel on which RDMA can't register memory: NCCL fails at "
    "its start.",
    mend="Set host_kho_off, run site.yml --tags host and boot the node; or boot an older kernel and hold it.",
)
def cma(node: Node, _: Cluster) -> Iterable[Problem]:
    """A kernel without CMA has neither line."""
    node.own_machine("the kernel")
    memory = node.memory()
    if "CmaTotal" not in memory:
        raise NotApplicableError("the kernel has no contiguous memory allocator")
    if memory["CmaTotal"] == 0 and memory.get("CmaFree", 0) > 0:
        yield Problem(f"CmaTotal 0 kB, CmaFree {memory['CmaFree'] // 1024} kB", "CmaFree not above CmaTotal")


@CHECKS.group(
    "HOST.KERNEL_EQUAL",
    WARNING,
    BEFORE,
    title="All nodes run the same kernel",
    why="One node that was upgraded alone is the first place to look when only it fails or lags.",
    mend="Upgrade all nodes together, then restart them.",
)
def kernel_equal(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """As uname says."""
    return differing(nodes, lambda node: str(node.system()["kernel"]), "kernel")


@CHECKS.group(
    "HOST.FIRMWARE_EQUAL",
    WARNING,
    BEFORE,
    title="Nodes of one make have the same system firmware",
    why="Older firmware gives the second function of a cage two PCIe lanes instead of four, and has other limits of "
    "power.",
    mend="Update the firmware of the nodes that are behind (`fwupdmgr update`), then power them off and on.",
)
def firmware_equal(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """Different products have different firmware, so only those of the same name are compared."""
    by_product: dict[str, list[Node]] = {}
    for node in nodes:
        by_product.setdefault((node.file("/sys/class/dmi/id/product_name") or "").strip(), []).append(node)
    for product, group in by_product.items():
        if not product or len(group) < 2:
            why = "no other node is of the same product" if product else "the node does not tell its product"
            yield from (Unjudged(node.host, f"{why} (/sys/class/dmi/id)") for node in group)
        else:
            yield from differing(group, lambda node: node.need("/sys/class/dmi/id/bios_version").strip(), "firmware")


@CHECKS.node(
    "HOST.PYTHON",
    ERROR,
    BEFORE,
    title=f"Python is {PYTHON_LEAST[0]}.{PYTHON_LEAST[1]} or newer",
    why="Modules, gates and the supervisor of a rank run on the node's own Python.",
    mend="Install the distribution's python3, and point ansible_python_interpreter at it.",
)
def python(node: Node, _: Cluster) -> Iterable[Problem]:
    """That which ran the module."""
    have = str(node.system()["python"])
    if parse.version(have) < PYTHON_LEAST:
        yield Problem(have, ".".join(str(part) for part in PYTHON_LEAST))


@CHECKS.node(
    "HOST.SYSTEMD",
    ERROR,
    BEFORE,
    title=f"systemd runs the node, in version {SYSTEMD_LEAST} or newer",
    why="A rank is a unit with gates and a watchdog.",
    mend="Use a distribution with it (Ubuntu 24.04 has 255, Debian 12 has 252).",
)
def systemd(node: Node, _: Cluster) -> Iterable[Problem]:
    """The manager that runs, not the package."""
    expected = f"systemd {SYSTEMD_LEAST} or newer"
    try:
        have = node.manager().get("Version", "")
    except NotApplicableError as reason:
        yield Problem(str(reason), expected)
        return
    if parse.version(have) < (SYSTEMD_LEAST,):
        yield Problem(have or "no version", expected)


@CHECKS.node(
    "HOST.CGROUP",
    ERROR,
    BEFORE,
    title="Control groups are version 2 alone",
    why="systemd and Docker agree on them only so, and what a rank has started is ended by its group.",
    mend="Take systemd.unified_cgroup_hierarchy=0 out of the kernel's command line and restart the node.",
)
def cgroup(node: Node, _: Cluster) -> Iterable[Problem]:
    """Version 2 has that file at its root."""
    if node.file("/sys/fs/cgroup/cgroup.controllers") is None:
        yield Problem("version 1, or both", "version 2")


@CHECKS.node(
    "HOST.TIME_SYNC",
    WARNING,
    BEFORE,
    title="The clock is kept right",
    why="Certificates fail when it is far off, and the logs of a group can't be read side by side.",
    mend="Run site.yml --tags host, and see `timedatectl timesync-status` or `chronyc tracking`.",
)
def time_sync(node: Node, _: Cluster) -> Iterable[Problem]:
    """As the kernel tells it, whoever keeps it (adjtimex(2))."""
    node.own_machine("the clock")
    known = node.value("clock")["synchronised"]
    if known is None:
        raise NotApplicableError("the kernel does not tell whether its clock is kept right")
    if not known:
        yield Problem("not synchronised", "synchronised")


@CHECKS.group(
    "HOST.CLOCK_EQUAL",
    WARNING,
    BEFORE,
    title=f"All clocks are within {CLOCK_SECONDS:g} seconds of each other",
    why="What happened first in a group that failed is read from its logs.",
    mend="Let all nodes follow the same time servers (host_time_servers), and set the clock that is wrong.",
)
def clock_equal(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """Each answer was made between two times of the controller's clock, so only a difference that is certain counts."""
    least, most = {}, {}
    for node in nodes:
        sent, received = node.window
        now = float(node.value("clock")["now"])
        least[node.host], most[node.host] = now - received, now - sent
    ahead = max(least, key=lambda host: least[host])
    behind = min(most, key=lambda host: most[host])
    apart = least[ahead] - most[behind]
    if apart > CLOCK_SECONDS:
        found = f"{ahead} is at least {apart:.1f} s ahead of {behind}"
        yield Problem(found, f"at most {CLOCK_SECONDS:g} s", [ahead, behind])


@CHECKS.group(
    "HOST.NAMES_UNIQUE",
    ERROR,
    BEFORE,
    title="Every node has a host name of its own",
    why="Two nodes of one name are mostly one node that the inventory lists twice; logs and metrics mix them up.",
    mend="Run `hostnamectl set-hostname NAME` on one of them, or correct the inventory.",
)
def names_unique(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """As uname says."""
    return shared(nodes, lambda node: str(node.system()["hostname"]), "a name of its own")


@CHECKS.group(
    "HOST.MACHINE_ID",
    WARNING,
    BEFORE,
    title="Every node has a machine id of its own",
    why="DHCP gives the same address to two machines of one id: copied disks fight for it.",
    mend="Run `rm /etc/machine-id && systemd-machine-id-setup` on the copy and restart it.",
)
def machine_id(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """/etc/machine-id."""
    return shared(nodes, lambda node: (node.file("/etc/machine-id") or "").strip(), "an id of its own")


@CHECKS.node(
    "HOST.NAME_RESOLVES",
    WARNING,
    BEFORE,
    title="The node finds its own name",
    why="sudo waits for the resolver otherwise, and libraries that ask for their own address fail.",
    mend="Add a line `127.0.1.1 NAME` to /etc/hosts.",
)
def name_resolves(node: Node, _: Cluster) -> Iterable[Problem]:
    """As any program asks it."""
    name = str(node.system()["hostname"])
    if not node.value("names").get(name):
        yield Problem(f"{name} does not resolve", "an address")


@CHECKS.node(
    "HOST.HEADLESS",
    WARNING,
    BEFORE,
    title="No desktop runs",
    why="It takes memory that CPU and GPU share, and the GPU itself.",
    mend="Run site.yml --tags host and boot the node, or set host_headless_now while no one works at it.",
)
def headless(node: Node, _: Cluster) -> Iterable[Problem]:
    """graphical.target may be active without one; the display manager is the desktop."""
    if node.active("display-manager.service"):
        yield Problem("the display manager is active", "none")


@CHECKS.node(
    "HOST.UPDATES",
    WARNING,
    BEFORE,
    scope=GPU,
    title="Kernel and driver do not upgrade themselves",
    why="A routine upgrade on one node brings a kernel that breaks RDMA, or takes the driver from under a running "
    "engine.",
    mend="Set host_hold_packages and run site.yml --tags host.",
)
def updates(node: Node, _: Cluster) -> Iterable[Problem]:
    """Unattended upgrades, or holds."""
    packages = node.packages()
    if "unattended-upgrades" not in packages or not parse.updates(node.value("updates")):
        return
    free = sorted(name for name, package in packages.items() if HELD.match(name) and not package.held)
    if free:
        more = f" and {len(free) - 3} more" if len(free) > 3 else ""
        yield Problem(
            f"unattended upgrades, without a hold on {', '.join(free[:3])}{more}", "holds, or no such upgrades"
        )


@CHECKS.node(
    "HOST.REBOOT",
    WARNING,
    BEFORE,
    title="No restart is due",
    why="The kernel that runs and the driver that is installed may not fit each other; the next boot is another "
    "machine.",
    mend="Stop the group, restart the node, and run this again.",
)
def reboot(node: Node, _: Cluster) -> Iterable[Problem]:
    """Ubuntu and Debian leave a file."""
    if node.file("/run/reboot-required") is not None:
        packages = sorted(set((node.file("/run/reboot-required.pkgs") or "").split()))
        yield Problem(f"due for {', '.join(packages[:3]) or 'packages'}", "none due")


def shared(nodes: Sequence[Node], ask: Callable[[Node], str], expected: str) -> Iterable[Problem]:
    """A problem for each value that more than one node has; an empty one is none."""
    owners: dict[str, list[str]] = {}
    for node in nodes:
        owners.setdefault(ask(node), []).append(node.host)
    for value, hosts in owners.items():
        if value and len(hosts) > 1:
            yield Problem(f"{value} on {', '.join(hosts)}", expected, hosts)
