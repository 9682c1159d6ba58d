# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What a check of preflight is, and the list that it is put on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_node import Node, NotApplicableError

ERROR, WARNING, INFO = "error", "warning", "info"
SEVERITIES = (ERROR, WARNING, INFO)
"""In falling order: the group won't serve, or not for long; it serves worse than it could; good to know."""

BEFORE, READY = "before", "ready"
STAGES = (BEFORE, READY)
"""What has to hold on a bare node, and what holds after site.yml."""

ANY, GPU, FABRIC, RDMA = "any", "gpu", "fabric", "rdma"
SCOPES = {
    ANY: "all nodes",
    GPU: "nodes that compute on GPUs",
    FABRIC: "groups of two and more nodes",
    RDMA: "rails that are RDMA",
}
"""What a check is about, as the documentation says it."""


@dataclass(frozen=True)
class Cluster:
    """What the checks hold the nodes against: the plan, and settings of other roles.

    mtu: of the rails, in bytes. floor_bytes: least of MemAvailable before a start, 0 for any. image_bytes: room that
    the image takes. gpu_devices: CDI names. migrate_netplan: whether others' definitions of the rails may be taken out.
    guard, firewall: whether these roles do their work. group_port: UDP port of the supervisors. hub: URL of the hub.
    """

    plan: Mapping[str, Any]
    mtu: int = 9000
    floor_bytes: int = 0
    image_bytes: int = 0
    gpu_devices: Sequence[str] = ()
    migrate_netplan: bool = False
    guard: bool = True
    firewall: bool = True
    group_port: int = 50001
    hub: str = ""

    @property
    def cuda(self) -> bool:
        """Whether the ranks compute on GPUs."""
        return bool(self.plan["device"] == "cuda")

    @property
    def rails(self) -> Sequence[Mapping[str, Any]]:
        """The rails; a node alone has none."""
        return self.plan["rails"] if len(self.plan["ranks"]) > 1 else ()

    @property
    def weights_bytes(self) -> int:
        """Size of the model's weights on disk, 0 where its profile doesn't tell."""
        return int(self.plan["model"].get("weights_gib") or 0) * 2**30

    def out_of(self, scope: str) -> str:
        """Why checks of a scope don't apply, "" where they do."""
        if scope == GPU and not self.cuda:
            return "the ranks compute on CPUs (sglang_device: cpu)"
        if scope in (FABRIC, RDMA) and not self.rails:
            return "there is no fabric: one node alone"
        if scope == RDMA and not self.plan["rdma"]:
            return "the rails are not RDMA"
        return ""


@dataclass(frozen=True)
class Problem:
    """What a check has found. hosts: which nodes, in a check across nodes. mend: "" for the check's own."""

    found: str
    expected: str
    hosts: Sequence[str] = ()
    mend: str = ""


@dataclass(frozen=True)
class Unjudged:
    """A node that a check across nodes had to leave out, and why."""

    host: str
    why: str


NodeCheck = Callable[[Node, Cluster], Iterable[Problem]]
GroupCheck = Callable[[Sequence[Node], Cluster], Iterable[Union[Problem, Unjudged]]]


@dataclass(frozen=True)
class Check:
    """One check. title: what has to hold. why: what happens otherwise. One of look and compare is set.

    look judges one node; compare judges those that have answered, of which there are two and more.
    """

    id: str
    severity: str
    stage: str
    title: str
    why: str
    mend: str
    scope: str = ANY
    look: NodeCheck | None = None
    compare: GroupCheck | None = None


@dataclass
class Checks:
    """A list that functions are put on, as decorators: `@CHECKS.node(...)` and `@CHECKS.group(...)`."""

    found: list[Check] = field(default_factory=list)

    def node(
        self, name: str, severity: str, stage: str, *, title: str, why: str, mend: str, scope: str = ANY
    ) -> Callable[[NodeCheck], NodeCheck]:
        """A check of one node."""

        def put(look: NodeCheck) -> NodeCheck:
            self.found.append(Check(name, severity, stage, title, why, mend, scope, look=look))
            return look

        return put

    def group(
        self, name: str, severity: str, stage: str, *, title: str, why: str, mend: str, scope: str = ANY
    ) -> Callable[[GroupCheck], GroupCheck]:
        """A check across nodes."""

        def put(compare: GroupCheck) -> GroupCheck:
            self.found.append(Check(name, severity, stage, title, why, mend, scope, compare=compare))
            return compare

        return put


def differing(nodes: Sequence[Node], ask: Callable[[Node], str], what: str) -> Iterable[Problem | Unjudged]:
    """A problem where the nodes do not all tell the same; those that tell nothing are left out.

    NotApplicableError where fewer than two tell.
    """
    told: dict[str, list[str]] = {}
    silent = []
    for node in nodes:
        try:
            told.setdefault(ask(node), []).append(node.host)
        except NotApplicableError as reason:
            silent.append(Unjudged(node.host, str(reason)))
    if len(nodes) - len(silent) < 2:
        raise NotApplicableError(silent[0].why if silent else "there is nothing to compare with")
    yield from silent
    if len(told) > 1:
        found = "; ".join(f"{value} on {', '.join(hosts)}" for value, hosts in told.items())
        # What most nodes have is most likely right; where no value is in front, nobody knows.
        most, next_most = sorted(told.values(), key=len, reverse=True)[:2]
        odd = [host for hosts in told.values() for host in hosts if len(most) == len(next_most) or hosts is not most]
        yield Problem(found, f"the same {what} on all nodes", odd)
