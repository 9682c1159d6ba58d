# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A node as preflight saw it: what _preflight_facts has gathered, read where a check asks for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_parse as parse
from ansible_collections.dgx_spark.sglang.plugins.module_utils._rank import UNIT

CONTAINERS = ("container-other", "docker", "lxc", "lxc-libvirt", "openvz", "podman", "proot", "rkt", "systemd-nspawn")
"""What systemd calls a container, and not a virtual machine (systemd-detect-virt(1))."""


class NotApplicableError(Exception):
    """A check has nothing to judge; the text says why."""


class Node:
    """One node.

    rank: its entry of the plan. gathered: name -> {value, problem} as _preflight_facts.gather returns it; None where
    the node has not answered, and problem says why. window: the controller's clock before and after, in seconds.
    """

    def __init__(
        self,
        rank: Mapping[str, Any],
        gathered: Mapping[str, Mapping[str, Any]] | None,
        problem: str = "",
        window: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.rank, self.problem, self.window = rank, problem, window
        self.host = str(rank["host"])
        self._gathered = gathered

    @property
    def answered(self) -> bool:
        """Whether there is anything to judge."""
        return self._gathered is not None

    def value(self, name: str) -> Any:
        """What was gathered under a name; NotApplicableError where it could not be had."""
        told = (self._gathered or {}).get(name)
        if told is None:
            raise NotApplicableError(f"{name} was not asked for")
        if told.get("problem"):
            raise NotApplicableError(str(told["problem"]))
        return told.get("value")

    def file(self, path: str) -> str | None:
        """The text of a file, None where there is none."""
        text: str | None = self.value("files").get(path)
        return text

    def need(self, path: str) -> str:
        """The text of a file that every node has; NotApplicableError otherwise."""
        text = self.file(path)
        if text is None:
            raise NotApplicableError(f"{path} can't be read")
        return text

    def memory(self) -> dict[str, int]:
        """/proc/meminfo in bytes."""
        return parse.meminfo(self.need("/proc/meminfo"))

    def system(self) -> Mapping[str, Any]:
        """kernel, arch, python, root and hostname."""
        system: Mapping[str, Any] = self.value("system")
        return system

    def manager(self) -> dict[str, str]:
        """systemd's own properties: Version, Virtualization, SystemState, NFailedUnits."""
        return parse.properties(self.value("manager"))

    def contained(self) -> str:
        """The kind of container that the node itself is, "" for a machine: its kernel and clock are its host's then."""
        kind = self.manager().get("Virtualization", "")
        return kind if kind in CONTAINERS else ""

    def own_machine(self, what: str) -> None:
        """NotApplicableError where the node is a container, so that what is looked at belongs to its host."""
        kind = self.contained()
        if kind:
            raise NotApplicableError(f"the node is a container ({kind}): {what} is its host's")

    def active(self, unit: str) -> bool:
        """Whether a unit is active."""
        return parse.units(self.value("units")).get(unit, {}).get("ActiveState") == "active"

    def packages(self) -> dict[str, parse.Package]:
        """The installed ones among those asked for."""
        return parse.packages(self.value("packages"))

    def docker_installed(self) -> Mapping[str, Any]:
        """{path, info, error} of Docker; NotApplicableError where there is none."""
        docker: Mapping[str, Any] = self.value("docker")
        if not docker["path"]:
            raise NotApplicableError("Docker is not installed yet")
        return docker

    def docker(self) -> Mapping[str, Any]:
        """What is judged of `docker info`; NotApplicableError where the daemon does not answer."""
        info: Mapping[str, Any] = self.docker_installed()["info"]
        if not info:
            raise NotApplicableError("Docker's daemon does not answer")
        return info

    def image(self) -> Mapping[str, Any] | None:
        """The planned image with id and nccl, None where the node has not got it."""
        self.docker()
        image: Mapping[str, Any] | None = self.value("image")
        return image

    def container(self) -> Mapping[str, Any]:
        """The rank's container with id and running; empty where there is none."""
        return self.value("container") or {}

    def serves(self) -> bool:
        """Whether a rank's container runs here."""
        return bool(self.container().get("running"))

    def is_ours(self, cgroup: str) -> bool:
        """Whether a process belongs to the rank's unit or container, from its /proc/PID/cgroup."""
        own = str(self.container().get("id") or "")
        return f"/{UNIT}" in cgroup or bool(own and parse.container_of(cgroup) == own)

    def gpus(self) -> list[parse.Gpu]:
        """The GPUs as nvidia-smi lists them; NotApplicableError where it lists none."""
        told = self.value("nvidia_smi")
        found = parse.gpus(told["out"]) if told["code"] == 0 else []
        if not found:
            raise NotApplicableError("nvidia-smi lists no GPU")
        return found

    def rdma(self) -> Mapping[str, Any]:
        """Devices, interfaces and rails as _rdma_sysfs.read gives them."""
        rdma: Mapping[str, Any] = self.value("rdma")
        return rdma

    def links(self) -> dict[str, Mapping[str, Any]]:
        """Interface -> its facts."""
        return {link["name"]: link for link in self.rdma()["interfaces"]}

    def rail_links(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The interfaces of the plan's rails that are there; NotApplicableError where none is."""
        links = self.links()
        found = [(str(name), links[name]) for name in self.rank["interfaces"] if name in links]
        if not found:
            raise NotApplicableError("the node has none of the rails' interfaces")
        return found

    def rail_devices(self) -> list[tuple[str, Mapping[str, Any]]]:
        """The RDMA devices on the rails' interfaces, each with the interface's name; NotApplicableError without any."""
        devices = {device["name"]: device for device in self.rdma()["devices"]}
        found = [(name, devices[link["hca"]]) for name, link in self.rail_links() if link.get("hca") in devices]
        if not found:
            raise NotApplicableError("there is no RDMA device on the rails' interfaces")
        return found

    def places(self) -> Sequence[Mapping[str, Any]]:
        """Where each fabric address is (_rdma_rails.rails_of); NotApplicableError where the node has none of them."""
        places: Sequence[Mapping[str, Any]] = self.rdma()["rails"]
        if all(place["interface"] is None for place in places):
            raise NotApplicableError("the node has none of its fabric addresses")
        return [place for place in places if place["interface"]]
