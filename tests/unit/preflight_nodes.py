# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Three Sparks that serve, as preflight sees them, to break one thing at a time."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_parse as parse
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_check import Cluster
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_node import Node

from tests.unit import test_rdma_info as rdma

TEXTS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "fixtures/preflight/spark.yml").read_text())
PROFILE: dict[str, Any] = yaml.safe_load((Path(__file__).parents[2] / "models/glm-4.7-fp8.yml").read_text())
HOSTS = ("spark-0", "spark-1", "spark-2")
INTERFACES = ["enp1s0f1np1", "enP2p1s0f1np1"]
HCAS = ["rocep1s0f1", "roceP2p1s0f1"]
SUBNETS = ["192.168.100.0/24", "192.168.101.0/24"]

Gathered = dict[str, dict[str, Any]]
Change = Callable[["Scene"], None]


def addresses(number: int) -> list[str]:
    return [f"192.168.100.{11 + number}", f"192.168.101.{11 + number}"]


def plan() -> dict[str, Any]:
    """What the checks read of a plan (_plan.Plan.as_dict)."""
    return {
        "model": {**PROFILE, "name": "glm-4.7-fp8", "revision": "main", "weights_gib": 170},
        "image": "lmsysorg/sglang:spark",
        "device": "cuda",
        "api_port": 30000,
        "dist_init": "192.168.100.11:50000",
        "rdma": True,
        "rails": [
            {"interface": name, "hca": "", "subnet": subnet} for name, subnet in zip(INTERFACES, SUBNETS, strict=True)
        ],
        "paths": {"model": "/var/lib/dgx-spark/models/zai-org--GLM-4.7-FP8/main"},
        "ranks": [
            {"host": host, "rank": number, "addresses": addresses(number), "interfaces": INTERFACES, "hcas": HCAS}
            for number, host in enumerate(HOSTS)
        ],
    }


@cache
def rdma_text() -> str:
    """What rdma_info tells of rank 0, without lost packets, as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        told = rdma.read(Path(folder), "spark", addresses(0))
    for device in told["devices"]:
        for port in device["ports"]:
            port["counters"] = dict.fromkeys(port["counters"], 0)
    return json.dumps(told)


def gathered(number: int) -> Gathered:
    """All that a node tells which is as it should be, in the shapes of _preflight_facts."""
    pings = [
        {"interface": name, "address": address, "host": host, "whole": True, "small": True}
        for other, host in enumerate(HOSTS)
        if other != number
        for name, address in zip(INTERFACES, addresses(other), strict=True)
    ]
    conf = "/proc/sys/net/ipv4/conf"
    files = {
        "/etc/os-release": TEXTS["os_release"],
        "/proc/meminfo": TEXTS["meminfo"],
        "/proc/sys/vm/swappiness": "1\n",
        "/etc/machine-id": f"{number}c9a4f0e2b7d4f6f8a1b2c3d4e5f6071\n",
        "/etc/ufw/ufw.conf": "# /etc/ufw/ufw.conf\nENABLED=no\nLOGLEVEL=low\n",
        "/etc/nccl.conf": None,
        "/root/.nccl.conf": "# NCCL_DEBUG=INFO\n",
        "/run/reboot-required": None,
        "/run/reboot-required.pkgs": None,
        "/sys/class/dmi/id/bios_version": "5.36_0ACUM018\n",
        "/sys/class/dmi/id/product_name": "NVIDIA_DGX_Spark\n",
        "/sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma misc\n",
        "/sys/module/nvidia_peermem/initstate": None,
        f"{conf}/all/rp_filter": "0\n",
        **{f"{conf}/{name}/rp_filter": "2\n" for name in INTERFACES},
    }
    device = {"index": 0, "name": "NVIDIA GB10", "compute_capability": "12.1", "shared_memory_per_block_optin": 101376}
    model = {"hf_id": "zai-org/GLM-4.7-FP8"}
    values: dict[str, Any] = {
        "system": {
            "kernel": "6.14.0-1013-nvidia",
            "arch": "aarch64",
            "hostname": HOSTS[number],
            "python": "3.12.3",
            "root": True,
        },
        "clock": {"now": 1000.5, "synchronised": True},
        "files": files,
        "limits": {"memlock_hard": -1, "dev_shm_free": 60 * parse.GIB},
        "manager": TEXTS["manager"],
        "units": TEXTS["units"],
        "packages": TEXTS["packages"],
        "updates": TEXTS["updates"],
        "docker": {
            "path": "/usr/bin/docker /usr/bin/docker",
            "info": parse.docker_info(TEXTS["docker_info"]),
            "error": "",
        },
        "image": parse.inspected(TEXTS["inspect_image"]),
        "container": parse.inspected(TEXTS["inspect_container"]),
        "disks": {
            "image": {"path": "/var/lib/docker", "free": 900 * parse.GIB},
            "model": {"path": "/var/lib/dgx-spark", "free": 900 * parse.GIB},
        },
        "model": {
            "exists": True,
            "complete": True,
            "bytes": 170 * parse.GIB,
            "digest": "5e1f" * 16,
            "marker": {"source": model["hf_id"], "revision": "main", "digest": "5e1f" * 16},
            "problems": [],
        },
        "config": {"architecture": PROFILE["architecture"], **PROFILE["shape"]},
        "listeners": [
            {"protocol": "tcp", "port": 30000, "pid": "4711", "name": "python3", "cgroup": TEXTS["cgroup_container"]},
            {"protocol": "udp", "port": 50001, "pid": "4100", "name": "python3", "cgroup": TEXTS["cgroup_unit"]},
        ],
        "firewall": {"code": 0, "out": "table inet dgx_spark {\n}\n", "error": ""},
        "names": {HOSTS[number]: "127.0.1.1", "registry-1.docker.io": "203.0.113.5", "huggingface.co": "203.0.113.6"},
        "rdma": json.loads(rdma_text().replace(".11", f".{11 + number}").replace("640b", f"64{11 + number:02x}")),
        "netplan": {
            "files": ["/etc/netplan/40-cx7.yaml"],
            "mtus": dict.fromkeys(INTERFACES, "9000"),
            "conflicts": [],
            "management": ["enP7s7"],
        },
        "verbs": ["uverbs0", "uverbs1", "uverbs2", "uverbs3"],
        "pings": pings,
        "cuda": {"available": True, "problem": None, "mend": None, "devices": [device]},
        "nvidia_smi": {"code": 0, "out": TEXTS["nvidia_smi"], "error": ""},
        "gpu_users": [{"pid": 4711, "name": "sglang::scheduler", "cgroup": TEXTS["cgroup_container"]}],
        "cdi": parse.cdi_names(TEXTS["cdi_yaml"]),
    }
    return {name: {"value": value, "problem": ""} for name, value in copy.deepcopy(values).items()}


class Scene:
    """A group to break something in: what each node told (None: nothing), the plan, and settings of Cluster."""

    def __init__(self) -> None:
        self.plan = plan()
        self.told: list[Gathered | None] = [gathered(number) for number in range(len(HOSTS))]
        self.windows = [(1000.0, 1001.0) for _ in HOSTS]
        self.settings: dict[str, Any] = {
            "floor_bytes": 96 * parse.GIB,
            "image_bytes": 40 * parse.GIB,
            "gpu_devices": ["nvidia.com/gpu=all"],
            "hub": "https://huggingface.co",
        }

    def source(self, name: str, number: int = 0) -> Any:
        """What a node told under a name, to change."""
        told = self.told[number]
        assert told is not None
        return told[name]["value"]

    def tell(self, name: str, value: Any, number: int = 0) -> None:
        """Let a node tell something else."""
        told = self.told[number]
        assert told is not None
        told[name] = {"value": value, "problem": ""}

    def silence(self, name: str, problem: str, number: int = 0) -> None:
        """Let a source of a node give no answer."""
        told = self.told[number]
        assert told is not None
        told[name] = {"value": None, "problem": problem}

    def cluster(self) -> Cluster:
        return Cluster(self.plan, **self.settings)

    def nodes(self) -> list[Node]:
        return [
            Node(rank, told, problem="" if told else "Connection timed out", window=window)
            for rank, told, window in zip(self.plan["ranks"], self.told, self.windows, strict=False)
        ]
