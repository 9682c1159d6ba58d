# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Every check of preflight: what makes it find something, and what makes it pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_parse as parse
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_report as report_of
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_checks import CHECKS

from tests.unit.preflight_nodes import HOSTS, INTERFACES, TEXTS, Change, Scene

CONF = "/proc/sys/net/ipv4/conf"


def judged(*changes: Change, stage: str = "ready", **about: Any) -> dict[str, Any]:
    scene = Scene()
    for change in changes:
        change(scene)
    return report_of.report(
        scene.cluster(), scene.nodes(), {"made": "now", "stage": stage, "skip": {}, "strict": False, **about}
    )


def nothing(_: Scene) -> None:
    """The good group."""


def value(name: str, *path: Any, to: Any, node: int = 0) -> Change:
    """Another value inside of what a node told under a name."""

    def change(scene: Scene) -> None:
        place = scene.source(name, node)
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to

    return change


def tells(name: str, told: Any, node: int = 0) -> Change:
    return lambda scene: scene.tell(name, told, node)


def silent(name: str, problem: str = "not installed", node: int = 0) -> Change:
    return lambda scene: scene.silence(name, problem, node)


def text(name: str, old: str, new: str, node: int = 0) -> Change:
    """Another word in a text that a node told."""

    def change(scene: Scene) -> None:
        before = scene.source(name, node)
        assert old in before
        scene.tell(name, before.replace(old, new), node)

    return change


def file(path: str, content: str | None, node: int = 0) -> Change:
    return value("files", path, to=content, node=node)


def memory(old: str, new: str, node: int = 0) -> Change:
    def change(scene: Scene) -> None:
        before = scene.source("files", node)["/proc/meminfo"]
        assert old in before
        scene.source("files", node)["/proc/meminfo"] = before.replace(old, new)

    return change


def link(name: str, node: int = 0, /, **values: Any) -> Change:
    """Other values of an interface."""

    def change(scene: Scene) -> None:
        next(one for one in scene.source("rdma", node)["interfaces"] if one["name"] == name).update(values)

    return change


def device(name: str, put: Callable[[dict[str, Any]], None], node: int = 0) -> Change:
    """Something else about an RDMA device."""

    def change(scene: Scene) -> None:
        put(next(one for one in scene.source("rdma", node)["devices"] if one["name"] == name))

    return change


def rail(number: int, node: int = 0, **values: Any) -> Change:
    return lambda scene: scene.source("rdma", node)["rails"][number].update(values)


def smi(line: str, node: int = 0) -> Change:
    return tells("nvidia_smi", {"code": 0, "out": f"{line}\n", "error": ""}, node)


def settings(**values: Any) -> Change:
    return lambda scene: scene.settings.update(values)


TAKEN = {
    "path": "/etc/netplan/50-cloud-init.yaml",
    "definition": "ethernets.all-en",
    "problem": "Matches the rail enp1s0f1np1 and also enP7s7.",
    "mend": "Narrow its match to enP7s7.",
    "movable": False,
}
MIGRATES = settings(migrate_netplan=True)


def stopped(scene: Scene) -> None:
    """No rank runs."""
    for node in range(len(HOSTS)):
        scene.tell("container", None, node)


def window(node: int, sent: float, received: float) -> Change:
    def change(scene: Scene) -> None:
        scene.windows[node] = (sent, received)

    return change


def unreachable(scene: Scene) -> None:
    scene.told[0] = None


def alone(scene: Scene) -> None:
    """Only one node answers."""
    scene.told[1:] = [None] * (len(HOSTS) - 1)


def all_of(*changes: Change) -> Change:
    def change(scene: Scene) -> None:
        for one in changes:
            one(scene)

    return change


def without_rdma(scene: Scene) -> None:
    scene.plan["rdma"] = False


def plan_rail(hca: str) -> Change:
    return lambda scene: scene.plan["rails"][0].update(hca=hca)


OTHER_GID = "port 1 of rocep1s0f1 has 2 RoCE v2 GIDs for 192.168.100.11: 3 and 5"
SOMEBODY = {"protocol": "tcp", "port": 30000, "pid": "99", "name": "python3", "cgroup": TEXTS["cgroup_other"]}
HELD_BY_NONE = {"protocol": "udp", "port": 50001, "pid": "", "name": "", "cgroup": ""}
OTHER_IMAGE = {"id": "sha256:" + "b" * 64, "running": False, "nccl": "2.28.3"}
SAME_NCCL = {"id": "sha256:" + "b" * 64, "running": False, "nccl": "2.27.7"}
NO_DAEMON = {"path": "/usr/bin/docker /usr/bin/docker", "info": {}, "error": "Cannot connect to the Docker daemon"}
ABSENT_MODEL = {
    "exists": False, "complete": False, "bytes": 0, "digest": None, "marker": None, "problems": ["it: does not exist"],
}  # fmt: skip
FULL = {
    "image": {"path": "/var/lib/docker", "free": 3 * parse.GIB},
    "model": {"path": "/var/lib/dgx-spark", "free": 100 * parse.GIB},
}


@dataclass(frozen=True)
class Case:
    """breaks: (what, text that the finding says). passes: what it has to pass with, beside the good group."""

    breaks: list[tuple[Change, str]]
    passes: list[Change] = field(default_factory=lambda: [nothing])


CASES: dict[str, Case] = {
    "HOST.REACHABLE": Case([(unreachable, "Connection timed out")]),
    "HOST.ROOT": Case([(value("system", "root", to=False), "an ordinary user")]),
    "HOST.ARCH": Case([(value("system", "arch", to="x86_64"), "x86_64")]),
    "HOST.OS": Case(
        [
            (file("/etc/os-release", 'ID=ubuntu\nVERSION_ID="22.04"\n'), "ubuntu 22.04"),
            (file("/etc/os-release", "NAME=None\n"), "? ?"),
        ],
        [nothing, file("/etc/os-release", 'ID=debian\nVERSION_ID="12"\n')],
    ),
    "HOST.KERNEL_RDMA": Case([(value("system", "kernel", to="7.0.0-1004-nvidia"), "7.0.0-1004-nvidia")]),
    "HOST.CMA": Case(
        [(memory("CmaTotal:          65536 kB", "CmaTotal:              0 kB"), "CmaTotal 0 kB, CmaFree 61440 kB")],
        [nothing, all_of(memory("65536 kB", "0 kB"), memory("61440 kB", "0 kB"))],
    ),
    "HOST.KERNEL_EQUAL": Case([(value("system", "kernel", to="6.17.0-1003-nvidia"), "6.17.0-1003-nvidia on spark-0")]),
    "HOST.FIRMWARE_EQUAL": Case([(file("/sys/class/dmi/id/bios_version", "5.34\n"), "5.34 on spark-0")]),
    "HOST.PYTHON": Case(
        [(value("system", "python", to="3.8.10"), "3.8.10")], [nothing, value("system", "python", to="3.9.0")]
    ),
    "HOST.SYSTEMD": Case(
        [(text("manager", "255.4-1ubuntu8.10", "245.4"), "245.4"), (silent("manager", "no systemd"), "no systemd")],
        [nothing, text("manager", "255.4-1ubuntu8.10", "249.11-0ubuntu3")],
    ),
    "HOST.CGROUP": Case([(file("/sys/fs/cgroup/cgroup.controllers", None), "version 1")]),
    "HOST.TIME_SYNC": Case([(value("clock", "synchronised", to=False), "not synchronised")]),
    "HOST.CLOCK_EQUAL": Case(
        # Asked between 1000 and 1001: spark-0's clock is 3.6 to 4.6 s ahead, the others' half a second at most.
        [(value("clock", "now", to=1004.6), "spark-0 is at least 3.1 s ahead of spark-1")],
        # It may be 2.4 s ahead, but a slow answer could look the same.
        [
            nothing,
            value("clock", "now", to=1002.9),
            all_of(value("clock", "now", to=1090.0), window(0, 1089.0, 1090.5)),
        ],
    ),
    "HOST.NAMES_UNIQUE": Case([(value("system", "hostname", to="spark-1"), "spark-1 on spark-0, spark-1")]),
    "HOST.MACHINE_ID": Case(
        [(all_of(file("/etc/machine-id", "ab\n"), file("/etc/machine-id", "ab\n", node=1)), "ab on spark-0, spark-1")],
        [nothing, all_of(file("/etc/machine-id", "\n"), file("/etc/machine-id", None, node=1))],
    ),
    "HOST.NAME_RESOLVES": Case([(value("names", "spark-0", to=""), "spark-0 does not resolve")]),
    "HOST.HEADLESS": Case(
        [
            (
                text(
                    "units",
                    "display-manager.service\nActiveState=inactive",
                    "display-manager.service\nActiveState=active",
                ),
                "active",
            )
        ]
    ),
    "HOST.UPDATES": Case(
        [(text("packages", "hi  nvidia-driver", "ii  nvidia-driver"), "nvidia-driver-580-open")],
        [
            nothing,
            all_of(text("packages", "hi  ", "ii  "), text("updates", 'Upgrade "1"', 'Upgrade "0"')),
            all_of(text("packages", "hi  ", "ii  "), text("packages", "ii  unattended", "rc  unattended")),
        ],
    ),
    "HOST.REBOOT": Case(
        [
            (
                all_of(
                    file("/run/reboot-required", "*** System restart required ***\n"),
                    file("/run/reboot-required.pkgs", "linux-image-6.14.0-1015-nvidia\nlibc6\nlibc6\n"),
                ),
                "due for libc6, linux-image-6.14.0-1015-nvidia",
            )
        ]
    ),
    "MEM.HEADROOM": Case(
        [(stopped, "MemAvailable 12.0 GiB")],
        [
            all_of(
                stopped,
                *(memory("MemAvailable:   12582912", "MemAvailable:  115000000", node=n) for n in range(len(HOSTS))),
            )
        ],
    ),
    "MEM.MODEL_FITS": Case([(lambda scene: scene.plan["model"].update(weights_gib=337), "MemTotal 121.6 GiB")]),
    "MEM.TOTAL_EQUAL": Case(
        [(memory("127535104", "66060288"), "63.0 GiB on spark-0")], [nothing, memory("127535104", "125829120")]
    ),
    "MEM.SWAP": Case(
        [(file("/proc/sys/vm/swappiness", "60\n"), "16.0 GiB of swap, vm.swappiness 60")],
        [
            nothing,
            all_of(
                file("/proc/sys/vm/swappiness", "60\n"), memory("SwapTotal:      16777212", "SwapTotal:             0")
            ),
        ],
    ),
    "MEM.GUARD": Case(
        [(text("units", "earlyoom.service\nActiveState=active", "earlyoom.service\nActiveState=failed"), "not active")]
    ),
    "MEM.GUARD_VERSION": Case([(text("packages", "earlyoom 1.7-2", "earlyoom 1.8.2-1"), "1.8.2-1")]),
    "MEM.MEMLOCK": Case([(value("limits", "memlock_hard", to=8388608), "8,388,608 bytes")]),
    "MEM.SHM": Case([(value("limits", "dev_shm_free", to=64 * 2**20), "0.1 GiB free")]),
    "GPU.VISIBLE": Case(
        [
            (silent("nvidia_smi", "nvidia-smi is not installed"), "nvidia-smi is not installed"),
            (
                tells(
                    "nvidia_smi",
                    {"code": 9, "out": "NVIDIA-SMI has failed because it couldn't communicate\n", "error": ""},
                ),
                "couldn't communicate",
            ),
            (
                tells(
                    "cuda", {"available": False, "problem": "cuInit answers 999", "mend": "See dmesg.", "devices": []}
                ),
                "cuInit answers 999",
            ),
        ]
    ),
    "GPU.DRIVER": Case([(smi("NVIDIA GB10, 575.57.08, 12.1, 2405, 3003, 96"), "575.57.08")]),
    "GPU.MODEL": Case([(smi("NVIDIA H100 80GB HBM3, 580.95.05, 9.0, 1980, 1980, 96"), "NVIDIA H100 80GB HBM3, 9.0")]),
    "GPU.SHARED_MEMORY": Case(
        [(value("cuda", "devices", 0, "shared_memory_per_block_optin", to=65536), "65,536 bytes on NVIDIA GB10")]
    ),
    "GPU.CLOCKS": Case([(smi("NVIDIA GB10, 580.95.05, 12.1, 611, 3003, 96"), "611 MHz at 96 % load")]),
    "GPU.CLOCKS_EQUAL": Case(
        [(smi("NVIDIA GB10, 580.95.05, 12.1, 1500, 3003, 96"), "1500 MHz on spark-0")],
        [nothing, smi("NVIDIA GB10, 580.95.05, 12.1, 2200, 3003, 96")],
    ),
    "GPU.IN_USE": Case(
        [
            (tells("gpu_users", [{"pid": 99, "name": "ollama", "cgroup": TEXTS["cgroup_other"]}]), "ollama (99)"),
            # A container, but another one.
            (
                tells(
                    "gpu_users",
                    [{"pid": 99, "name": "vllm", "cgroup": TEXTS["cgroup_container"].replace("c0ffee", "bad000")}],
                ),
                "vllm (99)",
            ),
        ],
        [nothing, tells("gpu_users", [])],
    ),
    "GPU.DRIVER_EQUAL": Case([(smi("NVIDIA GB10, 581.10, 12.1, 2405, 3003, 96"), "581.10 on spark-0")]),
    "GPU.PEERMEM": Case([(file("/sys/module/nvidia_peermem/initstate", "live\n"), "loaded")]),
    "GPU.TOOLKIT": Case(
        [
            (text("packages", "toolkit 1.18.0-1", "toolkit 1.17.7-1"), "1.17.7-1"),
            (text("packages", "ii  nvidia-container-toolkit", "rc  nvidia-container-toolkit"), "not installed"),
        ],
        [nothing, text("packages", "toolkit 1.18.0-1", "toolkit 1.17.8-1")],
    ),
    "GPU.CDI": Case(
        [(tells("cdi", ["nvidia.com/gpu=0"]), "no specification names nvidia.com/gpu=all")],
        [nothing, tells("cdi", parse.cdi_names(TEXTS["cdi_json"]))],
    ),
    "FABRIC.INTERFACE": Case([(link(INTERFACES[0], name="eth7"), f"no {INTERFACES[0]}; there are")]),
    "FABRIC.UP": Case([(link(INTERFACES[0], up=False, carrier=False), f"{INTERFACES[0]} is down")]),
    "FABRIC.CARRIER": Case(
        [(link(INTERFACES[0], carrier=False), f"{INTERFACES[0]} has no carrier")],
        [nothing, link(INTERFACES[0], up=False, carrier=False)],
    ),
    "FABRIC.SPEED": Case(
        [(link(INTERFACES[0], speed_mbps=100000), f"{INTERFACES[0]}: 100 Gb/s")],
        [nothing, link(INTERFACES[0], speed_mbps=None)],
    ),
    "FABRIC.PCIE_WIDTH": Case([(device("roceP2p1s0f1", lambda one: one["pci"].update(width=2)), "roceP2p1s0f1: x2")]),
    "FABRIC.TWINS": Case(
        [(lambda scene: scene.plan["ranks"][0].update(interfaces=INTERFACES[:1]), "its twin roceP2p1s0f1 is not")]
    ),
    "FABRIC.VERBS": Case([(tells("verbs", []), "no uverbs device")]),
    "FABRIC.HCA_ACTIVE": Case(
        [(device("rocep1s0f1", lambda one: one["ports"][0].update(state="DOWN")), "rocep1s0f1 port 1 is DOWN")]
    ),
    "FABRIC.HCA_ADDRESS": Case(
        [
            (rail(0, hca=None), f"no RDMA device on {INTERFACES[0]}"),
            (plan_rail("mlx5_1"), "rocep1s0f1 has 192.168.100.11"),
        ],
        [nothing, plan_rail("rocep1s0f1")],
    ),
    "FABRIC.GID": Case([(rail(0, problem=OTHER_GID, mend="Take it off."), OTHER_GID)]),
    "FABRIC.ADDRESS": Case(
        [
            (link(INTERFACES[0], addresses=[]), f"{INTERFACES[0]}: none"),
            (link(INTERFACES[0], addresses=["192.168.100.11/24", "10.9.9.9/24"]), "10.9.9.9/24"),
            (link(INTERFACES[0], addresses=["192.168.100.11/16"]), "192.168.100.11/16"),
        ],
        # The first is told as a carrier, the second as link-local.
        [
            nothing,
            link(INTERFACES[0], carrier=False, addresses=[]),
            link(INTERFACES[0], addresses=["192.168.100.11/24", "169.254.3.4/16"]),
        ],
    ),
    "FABRIC.SUBNETS": Case(
        [
            (link("enP7s7", addresses=["192.168.100.77/24"]), "enP7s7 has 192.168.100.77/24"),
            (link("enP7s7", addresses=["192.168.101.77/16"]), "enP7s7 has 192.168.101.77/16"),
        ],
        # A rail that is set up otherwise yet is the role's to mend.
        [nothing, link("enP7s7", addresses=["192.168.1.77/16"]), link(INTERFACES[1], addresses=["192.168.100.99/24"])],
    ),
    "FABRIC.LINK_LOCAL": Case([(link(INTERFACES[0], addresses=["169.254.3.4/16"]), "169.254.3.4/16")]),
    "FABRIC.IPV6": Case([(link(INTERFACES[0], addresses=["192.168.100.11/24", "fe80::1/64"]), "fe80::1/64")]),
    "FABRIC.ADDRESS_UNIQUE": Case(
        [(link("enP7s7", addresses=["192.168.100.12/24"]), "which is planned for spark-1")],
        [nothing, link("enP7s7", addresses=["192.168.100.14/24"])],
    ),
    "FABRIC.MTU": Case([(link(INTERFACES[0], mtu=1500), f"{INTERFACES[0]}: 1500")]),
    "FABRIC.MTU_EQUAL": Case([(link(INTERFACES[1], mtu=1500), "9000/1500 on spark-0")]),
    "FABRIC.NETPLAN": Case(
        [
            (value("netplan", "conflicts", to=[TAKEN]), "50-cloud-init.yaml: ethernets.all-en: Matches the rail"),
            (value("netplan", "management", to=["enp1s0f1np1"]), "enp1s0f1np1 is the interface by which"),
            (all_of(MIGRATES, value("netplan", "conflicts", to=[TAKEN])), "50-cloud-init.yaml"),
        ],
        [nothing, all_of(MIGRATES, value("netplan", "conflicts", to=[{**TAKEN, "movable": True}]))],
    ),
    "FABRIC.MTU_KEPT": Case(
        [
            (value("netplan", "mtus", INTERFACES[0], to=""), f"{INTERFACES[0]}: none"),
            (value("netplan", "mtus", INTERFACES[0], to="1500"), f"{INTERFACES[0]}: 1500"),
        ]
    ),
    "FABRIC.PING": Case(
        [
            (value("pings", 0, "whole", to=False), "answers small packets only"),
            (
                all_of(value("pings", 1, "whole", to=False), value("pings", 1, "small", to=False)),
                "(spark-1): no answer",
            ),
        ]
    ),
    "FABRIC.ARP": Case(
        [
            (link(INTERFACES[0], arp_ignore=0), "arp_ignore 0"),
            (link(INTERFACES[1], arp_announce=1), "arp_announce 1"),
            # It answers for nothing.
            (link(INTERFACES[0], arp_ignore=8), "arp_ignore 8"),
            (link(INTERFACES[0], arp_ignore=8, arp_ignore_own=8), "arp_ignore 8"),
        ],
        [nothing, link(INTERFACES[0], arp_ignore=2)],
    ),
    "FABRIC.RP_FILTER": Case(
        [
            (
                all_of(*(file(f"{CONF}/{INTERFACES[0]}/rp_filter", "0\n"), file(f"{CONF}/all/rp_filter", "1\n"))),
                "strict (1)",
            )
        ]
    ),
    "FABRIC.FIRMWARE_EQUAL": Case(
        [(device("rocep1s0f1", lambda one: one.update(firmware="28.43.1000")), "28.43.1000/28.45.4028 on spark-0")]
    ),
    "FABRIC.ERRORS": Case(
        [
            (
                device("rocep1s0f1", lambda one: one["ports"][0]["counters"].update(out_of_sequence=7)),
                "out_of_sequence 7",
            )
        ],
        # What is sent is no error.
        [nothing, device("rocep1s0f1", lambda one: one["ports"][0]["counters"].update(np_cnp_sent=7))],
    ),
    "DOCKER.RUNNING": Case(
        [(tells("docker", NO_DAEMON), "Cannot connect"), (tells("docker", {"path": ""}), "not installed")]
    ),
    "DOCKER.VERSION": Case(
        [(value("docker", "info", "ServerVersion", to="24.0.7"), "24.0.7")],
        [nothing, value("docker", "info", "ServerVersion", to="25.0.0")],
    ),
    "DOCKER.SNAP": Case(
        [
            (value("docker", "path", to="/snap/bin/docker /usr/bin/snap"), "a snap"),
            (text("units", "dockerd.service\nActiveState=inactive", "dockerd.service\nActiveState=active"), "a snap"),
        ]
    ),
    "DOCKER.ROOTLESS": Case(
        [(value("docker", "info", "SecurityOptions", to=["name=seccomp", "name=rootless"]), "rootless")]
    ),
    "DOCKER.LIVE_RESTORE": Case([(value("docker", "info", "LiveRestoreEnabled", to=True), "on")]),
    "DOCKER.CDI": Case([(value("docker", "info", "CDISpecDirs", to=None), "no folder")]),
    "DOCKER.STORE_EQUAL": Case(
        [
            (value("docker", "info", "Driver", to="fuse-overlayfs"), "fuse-overlayfs on spark-0"),
            (
                value("docker", "info", "DriverStatus", to=[["driver-type", "io.containerd.snapshotter.v1"]]),
                "overlay2 io.containerd.snapshotter.v1 on spark-0",
            ),
        ]
    ),
    "IMAGE.PRESENT": Case([(tells("image", None), "no lmsysorg/sglang:spark")]),
    "IMAGE.EQUAL": Case([(tells("image", OTHER_IMAGE), "sha256:bbbbbbbbbbbb on spark-0")]),
    "IMAGE.NCCL_EQUAL": Case(
        [(tells("image", OTHER_IMAGE), "2.28.3 on spark-0")], [nothing, tells("image", SAME_NCCL)]
    ),
    "IMAGE.NCCL_CONF": Case([(file("/etc/nccl.conf", "# ours\nNCCL_IB_DISABLE=1\n"), "NCCL_IB_DISABLE=1")]),
    "IMAGE.DISK": Case(
        [
            (all_of(tells("image", None), tells("disks", FULL)), "3.0 GiB free at /var/lib/docker"),
            (all_of(tells("docker", {"path": ""}), tells("disks", FULL)), "3.0 GiB free"),
        ],
        [tells("image", None)],
    ),
    "MODEL.COMPLETE": Case(
        [
            (tells("model", ABSENT_MODEL), "it: does not exist"),
            (value("model", "marker", "revision", to="v2"), "zai-org/GLM-4.7-FP8 at v2"),
            (value("model", "complete", to=False), "its files have changed since it was sealed"),
            (all_of(value("model", "complete", to=False), value("model", "marker", to=None)), "it was never sealed"),
        ]
    ),
    "MODEL.EQUAL": Case([(value("model", "digest", to="0" * 64), "000000000000 on spark-0")]),
    "MODEL.SHAPE": Case(
        [
            (value("config", "num_experts", to=128), "num_experts: 160 in the profile"),
            (
                value("config", "architecture", to="Glm4vMoeForConditionalGeneration"),
                "Glm4MoeForCausalLM in the profile",
            ),
        ],
        # What only one of them has.
        [nothing, tells("config", {"moe_layers": 3})],
    ),
    "MODEL.DISK": Case(
        [(all_of(tells("model", ABSENT_MODEL), tells("disks", FULL)), "100.0 GiB free at /var/lib/dgx-spark")],
        # What is there already need not be fetched again.
        [
            tells("model", ABSENT_MODEL),
            all_of(tells("model", {**ABSENT_MODEL, "bytes": 120 * parse.GIB}), tells("disks", FULL)),
        ],
    ),
    "NET.PORTS": Case(
        [
            (tells("listeners", [SOMEBODY]), "tcp port 30000 is held by python3 (99)"),
            (tells("listeners", [HELD_BY_NONE]), "udp port 50001 is held by a process that /proc does not name"),
        ],
        [nothing, tells("listeners", [])],
    ),
    "NET.FIREWALL": Case(
        [
            (tells("firewall", {"code": 1, "out": "", "error": "No such file or directory"}), "no table"),
            (silent("firewall", "nft is not installed"), "nft is not installed"),
        ]
    ),
    "NET.OTHER_FIREWALL": Case(
        [
            (file("/etc/ufw/ufw.conf", "ENABLED=yes\n"), "ufw is enabled"),
            (
                text("units", "firewalld.service\nActiveState=inactive", "firewalld.service\nActiveState=active"),
                "firewalld is active",
            ),
        ],
        [nothing, file("/etc/ufw/ufw.conf", None)],
    ),
    "NET.DNS": Case([(value("names", "huggingface.co", to=""), "huggingface.co: no address")]),
}

BREAKS = [(name, number) for name, case in CASES.items() for number in range(len(case.breaks))]
PASSES = [(name, number) for name, case in CASES.items() for number in range(len(case.passes))]
SEVERITY = {check.id: check.severity for check in CHECKS}


def states(made: dict[str, Any], name: str) -> dict[str, str]:
    found: dict[str, str] = next(row["states"] for row in made["checks"] if row["id"] == name)
    return found


def test_every_check_is_made_to_fail_and_to_pass() -> None:
    assert list(CASES) == [check.id for check in CHECKS]
    assert all(case.breaks and case.passes for case in CASES.values())


def test_there_are_enough_checks_and_no_two_of_one_id() -> None:
    assert len(CHECKS) >= 40
    assert len({check.id for check in CHECKS}) == len(CHECKS)


def test_every_check_tells_its_mend() -> None:
    for check in CHECKS:
        for sentence in (check.why, check.mend):
            assert sentence.endswith((".", ")")), check.id
        assert not check.title.endswith("."), check.id
        assert (check.look is None) != (check.compare is None), check.id


def test_nothing_is_found_in_a_group_that_is_well() -> None:
    made = judged()
    assert made["findings"] == []
    assert (made["verdict"], made["failed"]) == ("ok", False)


@pytest.mark.parametrize(("name", "number"), BREAKS)
def test_is_found(name: str, number: int) -> None:
    change, said = CASES[name].breaks[number]
    made = judged(change)
    found = [finding for finding in made["findings"] if finding["id"] == name]
    assert any(said in finding["found"] for finding in found), found
    assert "spark-0" in found[0]["hosts"]
    assert all(finding["severity"] == SEVERITY[name] and finding["expected"] and finding["mend"] for finding in found)
    assert states(made, name)["spark-0"] == SEVERITY[name]


@pytest.mark.parametrize(("name", "number"), PASSES)
def test_passes(name: str, number: int) -> None:
    made = judged(CASES[name].passes[number])
    # Judged, and not passed over.
    assert states(made, name)["spark-0"] == "ok", made["not_applicable"]
    assert [finding for finding in made["findings"] if finding["id"] == name] == []


NOT_APPLICABLE: list[tuple[str, Change, str]] = [
    (
        "HOST.KERNEL_RDMA",
        text("manager", "Virtualization=", "Virtualization=podman"),
        "the node is a container (podman)",
    ),
    ("HOST.CMA", memory("CmaTotal:          65536 kB\n", ""), "no contiguous memory allocator"),
    ("HOST.TIME_SYNC", value("clock", "synchronised", to=None), "does not tell"),
    ("HOST.FIRMWARE_EQUAL", file("/sys/class/dmi/id/product_name", None), "does not tell its product"),
    ("HOST.ROOT", unreachable, "the node has not answered"),
    ("HOST.NAMES_UNIQUE", alone, "there are no two nodes to compare"),
    ("MEM.HEADROOM", settings(floor_bytes=0), "no floor is set"),
    ("MEM.HEADROOM", nothing, "the rank runs here"),
    ("MEM.MODEL_FITS", lambda scene: scene.plan["model"].update(weights_gib=0), "weights_gib"),
    ("MEM.GUARD", settings(guard=False), "memory_guard_enabled is false"),
    ("MEM.GUARD_VERSION", text("packages", "ii  earlyoom", "un  earlyoom"), "earlyoom is not installed yet"),
    ("GPU.DRIVER", silent("nvidia_smi", "nvidia-smi is not installed"), "nvidia-smi is not installed"),
    ("GPU.CLOCKS", smi("NVIDIA GB10, 580.95.05, 12.1, 208, 3003, 0"), "idle"),
    ("GPU.CLOCKS", smi("NVIDIA GB10, 580.95.05, 12.1, [N/A], [N/A], [N/A]"), "no clock or load"),
    ("GPU.CLOCKS_EQUAL", smi("NVIDIA GB10, 580.95.05, 12.1, 208, 3003, 0"), "the GPU is idle"),
    ("GPU.VISIBLE", lambda scene: scene.plan.update(device="cpu"), "the ranks compute on CPUs"),
    ("FABRIC.VERBS", without_rdma, "the rails are not RDMA"),
    ("FABRIC.MTU", lambda scene: scene.plan.update(ranks=scene.plan["ranks"][:1]), "one node alone"),
    ("FABRIC.CARRIER", all_of(*(link(name, up=False, carrier=False) for name in INTERFACES)), "the rails are down"),
    ("FABRIC.GID", all_of(rail(0, interface=None), rail(1, interface=None)), "none of its fabric addresses"),
    ("FABRIC.MTU_KEPT", value("netplan", "files", to=[]), "does not use netplan"),
    ("FABRIC.PING", silent("pings", "ping is not installed"), "ping is not installed"),
    ("DOCKER.VERSION", tells("docker", {"path": ""}), "Docker is not installed yet"),
    ("DOCKER.VERSION", tells("docker", NO_DAEMON), "daemon does not answer"),
    ("IMAGE.EQUAL", tells("image", None), "the image is missing"),
    ("IMAGE.NCCL_EQUAL", tells("image", {**OTHER_IMAGE, "nccl": ""}), "do not tell their libnccl"),
    ("IMAGE.DISK", nothing, "the image is here already"),
    ("MODEL.DISK", nothing, "the model is here already"),
    ("NET.FIREWALL", settings(firewall=False), "firewall_enabled is false"),
    (
        "NET.DNS",
        all_of(lambda scene: scene.plan.update(image="198.18.0.2:5000/x:1"), settings(hub="http://198.18.0.2:8080")),
        "by address",
    ),
    # What nobody has thought of is no pass, and no traceback.
    ("HOST.OS", tells("files", None), "can't be understood"),
    ("MEM.TOTAL_EQUAL", file("/proc/meminfo", "MemTotal: lots\n"), "can't be understood"),
]


@pytest.mark.parametrize(
    ("name", "change", "why"), NOT_APPLICABLE, ids=lambda item: item if isinstance(item, str) else ""
)
def test_does_not_apply_and_says_why(name: str, change: Change, why: str) -> None:
    made = judged(change)
    assert states(made, name)["spark-0"] == "n/a"
    assert any(why in one["why"] and name in one["checks"] for one in made["not_applicable"]), made["not_applicable"]


def test_a_bare_node_is_not_held_to_what_site_yml_sets_up() -> None:
    """As it comes from the shop: no addresses, no Docker of ours, no firewall, no image and no model."""

    def bare(scene: Scene) -> None:
        stopped(scene)
        for node in range(len(HOSTS)):
            for name in INTERFACES:
                link(name, node, addresses=["169.254.3.4/16", "fe80::1/64"], mtu=1500)(scene)
            for number in range(2):
                rail(number, node, interface=None, hca=None, problem="no interface has it")(scene)
            scene.tell("docker", {"path": ""}, node)
            scene.tell("image", None, node)
            scene.tell("model", ABSENT_MODEL, node)
            scene.tell("firewall", {"code": 1, "out": "", "error": ""}, node)
            scene.tell("listeners", [], node)
            scene.tell("cdi", [], node)
            scene.tell("packages", "", node)

    assert judged(bare, stage="before")["findings"] == []
    assert {"FABRIC.MTU", "DOCKER.RUNNING", "NET.FIREWALL"} <= {one["id"] for one in judged(bare)["findings"]}


def test_a_skipped_check_is_told_with_its_reason_and_not_judged() -> None:
    made = judged(value("system", "arch", to="x86_64"), skip={"HOST.ARCH": "an x86 lab"})
    assert made["skipped"] == [{"id": "HOST.ARCH", "reason": "an x86 lab"}]
    assert (made["failed"], set(states(made, "HOST.ARCH").values())) == (False, {"skipped"})
    assert {"state": "skipped", "why": "an x86 lab", "checks": "HOST.ARCH"} in report_of.unjudged_rows(made)


def test_errors_fail_warnings_only_where_strict_and_notes_never() -> None:
    warning = text("packages", "toolkit 1.18.0-1", "toolkit 1.17.7-1")
    note = value("docker", "info", "LiveRestoreEnabled", to=True)
    assert [judged(change)["failed"] for change in (tells("verbs", []), warning, note)] == [True, False, False]
    assert [judged(change, strict=True)["failed"] for change in (warning, note)] == [True, False]
    assert [judged(change)["verdict"] for change in (tells("verbs", []), warning, note)] == ["error", "warning", "ok"]


def test_one_thing_on_all_nodes_is_one_finding() -> None:
    made = judged(*(tells("verbs", [], node) for node in range(len(HOSTS))))
    assert [row["where"] for row in report_of.finding_rows(made)] == ["all nodes"]
    assert "1 error (" in report_of.summary(made)


def test_the_node_that_differs_is_named_not_the_others() -> None:
    made = judged(value("system", "kernel", to="6.17.0", node=1))
    assert states(made, "HOST.KERNEL_EQUAL") == {"spark-0": "ok", "spark-1": "warning", "spark-2": "ok"}


def test_findings_come_with_the_worst_first() -> None:
    made = judged(
        value("docker", "info", "LiveRestoreEnabled", to=True),
        file("/etc/ufw/ufw.conf", "ENABLED=yes"),
        tells("verbs", []),
    )
    assert [finding["severity"] for finding in made["findings"]] == ["error", "warning", "info"]
