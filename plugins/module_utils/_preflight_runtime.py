# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Checks of Docker, the image and the model, and of ports, firewall and names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_parse as parse
from ansible_collections.dgx_spark.sglang.plugins.module_utils._container_runtime import ENGINE_WITH_CDI
from ansible_collections.dgx_spark.sglang.plugins.module_utils._container_runtime import version as version_of
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_check import (
    BEFORE,
    ERROR,
    GPU,
    INFO,
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

DOCKER_LEAST = {"cuda": version_of(ENGINE_WITH_CDI), "cpu": (20, 10)}
"""Device -> the least version: that of the role container_runtime; without GPUs Debian 12's, 20.10."""

MODEL_SLACK = 1.02
"""A directory's share of the file system is more than its files."""


@CHECKS.node(
    "DOCKER.RUNNING",
    ERROR,
    READY,
    title="Docker's daemon answers",
    why="A rank is a container.",
    mend="Run site.yml --tags container_runtime, and see `systemctl status docker`.",
)
def running(node: Node, _: Cluster) -> Iterable[Problem]:
    """`docker info` succeeds also without a daemon; a server's version is the sign of one."""
    told = node.value("docker")
    if not told.get("path"):
        yield Problem("Docker is not installed", "a daemon that answers")
        return
    try:
        node.docker()
    except NotApplicableError:
        yield Problem(told["error"] or "no answer", "a daemon that answers")


@CHECKS.node(
    "DOCKER.VERSION",
    ERROR,
    BEFORE,
    title="Docker is new enough for CDI devices (25), without GPUs 20.10",
    why="An engine that is there is kept, and an older one does not know `--device nvidia.com/gpu=all`.",
    mend="Upgrade the engine to the one of Ubuntu 24.04 or of Docker's own repository.",
)
def version(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """Of the daemon."""
    least = DOCKER_LEAST[cluster.plan["device"]]
    have = str(node.docker()["ServerVersion"])
    if parse.version(have) < least:
        yield Problem(have, f"{'.'.join(str(part) for part in least)} or newer")


@CHECKS.node(
    "DOCKER.SNAP",
    ERROR,
    BEFORE,
    title="Docker is no snap",
    why="A snap sees neither /etc/cdi nor the directories that a rank mounts.",
    mend="Run `snap remove docker`, then site.yml --tags container_runtime.",
)
def snap(node: Node, _: Cluster) -> Iterable[Problem]:
    """By what the command really is, and by the snap's unit."""
    if "/snap" in node.docker_installed()["path"] or node.active("snap.docker.dockerd.service"):
        yield Problem("a snap", "a package")


@CHECKS.node(
    "DOCKER.ROOTLESS",
    ERROR,
    BEFORE,
    title="Docker is not rootless",
    why="Host network, locked memory and RDMA devices are root's to give.",
    mend="Use the system's daemon: unset DOCKER_HOST and the docker context of root.",
)
def rootless(node: Node, _: Cluster) -> Iterable[Problem]:
    """By the daemon's security options."""
    if any("rootless" in option for option in node.docker().get("SecurityOptions") or []):
        yield Problem("rootless", "root's")


@CHECKS.node(
    "DOCKER.LIVE_RESTORE",
    INFO,
    BEFORE,
    title="Containers end with Docker's daemon (live-restore is off)",
    why="With it a rank's container outlives the daemon, but its `docker run` does not, and so its supervisor ends it: "
    "nothing is won.",
    mend='Take "live-restore" out of /etc/docker/daemon.json, if nothing else on the node needs it.',
)
def live_restore(node: Node, _: Cluster) -> Iterable[Problem]:
    """As the daemon says."""
    if node.docker().get("LiveRestoreEnabled"):
        yield Problem("on", "off")


@CHECKS.node(
    "DOCKER.CDI",
    ERROR,
    READY,
    scope=GPU,
    title="Docker reads CDI specifications",
    why="Otherwise `--device nvidia.com/gpu=all` is no device to it.",
    mend="Run site.yml --tags container_runtime; it sets features.cdi in /etc/docker/daemon.json.",
)
def docker_cdi(node: Node, _: Cluster) -> Iterable[Problem]:
    """The daemon lists the folders that it reads, none where it reads none."""
    if not node.docker().get("CDISpecDirs"):
        yield Problem("it lists no folder of specifications", "/etc/cdi, /var/run/cdi")


@CHECKS.group(
    "DOCKER.STORE_EQUAL",
    WARNING,
    READY,
    title="All engines keep images in the same kind of store",
    why="One image has different ids in different stores, so that the ranks' images can't be compared.",
    mend="Make `docker info` name the same storage driver on all nodes (/etc/docker/daemon.json).",
)
def store_equal(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """Storage driver and its kind."""

    def store(node: Node) -> str:
        info = node.docker()
        kinds = [value for key, value in info.get("DriverStatus") or [] if key == "driver-type"]
        return " ".join([str(info.get("Driver")), *kinds])

    return differing(nodes, store, "store")


@CHECKS.node(
    "IMAGE.PRESENT",
    ERROR,
    READY,
    title="The image is on the node",
    why="A rank starts no image that it would have to pull: what a registry gives now need not be what was proved.",
    mend="Run site.yml --tags image.",
)
def present(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """By its name."""
    if node.image() is None:
        yield Problem(f"no {cluster.plan['image']}", "the image")


@CHECKS.group(
    "IMAGE.EQUAL",
    ERROR,
    READY,
    title="All nodes hold the same image",
    why="A tag moves: ranks of different releases, or with different libnccl, hang at their start without a word.",
    mend="Run `docker image rm` for it on the nodes that differ, then site.yml --tags image.",
)
def image_equal(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """By id."""
    return differing(nodes, image_id, "image")


@CHECKS.group(
    "IMAGE.NCCL_EQUAL",
    ERROR,
    READY,
    scope=GPU,
    title="All nodes' images hold the same libnccl",
    why="Different versions hang at ncclCommInitRank.",
    mend="Give all nodes the same image (IMAGE.EQUAL).",
)
def nccl_equal(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """One image is one libnccl; of different images, what their environment says."""
    ids = set()
    for node in nodes:
        with contextlib.suppress(NotApplicableError):
            ids.add(image_id(node))

    def nccl(node: Node) -> str:
        held = image_id(node)
        told = (node.image() or {}).get("nccl")
        if len(ids) > 1 and not told:
            raise NotApplicableError("the images differ, and do not tell their libnccl")
        return str(told if len(ids) > 1 else held)

    return differing(nodes, nccl, "libnccl")


@CHECKS.node(
    "IMAGE.NCCL_CONF",
    WARNING,
    BEFORE,
    scope=GPU,
    title="No nccl.conf lies on the node",
    why="A stale one overrides what a run sets: tests outside of the container find another network than the ranks.",
    mend="Remove /etc/nccl.conf and /root/.nccl.conf, or make sure that they say the same on all nodes.",
)
def nccl_conf(node: Node, _: Cluster) -> Iterable[Problem]:
    """With anything but comments in it."""
    for path in ("/etc/nccl.conf", "/root/.nccl.conf"):
        lines = [line.strip() for line in (node.file(path) or "").splitlines()]
        settings = [line for line in lines if line and not line.startswith("#")]
        if settings:
            yield Problem(f"{path}: {', '.join(settings[:3])}", "no such file")


@CHECKS.node(
    "IMAGE.DISK",
    ERROR,
    BEFORE,
    title="There is room for the image (preflight_image_gib)",
    why="A pull that fills the disk takes the node's other services down.",
    mend="Run `docker system prune`, or give Docker another data-root (/etc/docker/daemon.json).",
)
def image_disk(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """Where Docker keeps its images."""
    try:
        here = node.image() is not None
    except NotApplicableError:
        here = False
    if here:
        raise NotApplicableError("the image is here already")
    place = node.value("disks")["image"]
    if place["free"] < cluster.image_bytes:
        yield Problem(f"{parse.size(place['free'])} free at {place['path']}", parse.size(cluster.image_bytes))


@CHECKS.node(
    "MODEL.COMPLETE",
    ERROR,
    READY,
    title="The model is complete",
    why="A shard that is cut short shows after minutes of loading, or not at all.",
    mend="Run site.yml --tags model.",
)
def complete(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """By the seal that the role model wrote over it, and by the model that it names."""
    told, wanted = node.value("model"), cluster.plan["model"]
    seal = told.get("marker") or {}
    if not told["complete"]:
        problems = told["problems"] or ["its files have changed since it was sealed" if seal else "it was never sealed"]
        yield Problem("; ".join(problems[:2]), "the whole model")
    elif (seal.get("source"), seal.get("revision")) != (wanted["hf_id"], wanted["revision"]):
        yield Problem(f"{seal.get('source')} at {seal.get('revision')}", f"{wanted['hf_id']} at {wanted['revision']}")


@CHECKS.group(
    "MODEL.EQUAL",
    ERROR,
    READY,
    title="All nodes hold the same model",
    why="Ranks of different revisions compute nonsense together, without an error.",
    mend="Remove the directory on the nodes that differ, then run site.yml --tags model.",
)
def model_equal(nodes: Sequence[Node], _: Cluster) -> Iterable[Problem | Unjudged]:
    """By the digest over names, sizes and small files."""

    def digest(node: Node) -> str:
        told = node.value("model")
        if not told["complete"]:
            raise NotApplicableError("the model is not complete")
        return str(told["digest"])[:12]

    return differing(nodes, digest, "model")


@CHECKS.node(
    "MODEL.SHAPE",
    WARNING,
    READY,
    title="The profile says of the model what its config.json says",
    why="Whether the model can be cut into the ranks is judged by the profile, before anything is there to look at.",
    mend="Correct architecture and shape in the model's profile.",
)
def model_shape(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """Keys that either of them does not have are not judged."""
    told, model = node.value("config"), cluster.plan["model"]
    said = {"architecture": model["architecture"], **model["shape"]}
    for name, value in told.items():
        if said.get(name) not in (None, value):
            yield Problem(f"{name}: {said[name]} in the profile", f"{value}")


@CHECKS.node(
    "MODEL.DISK",
    ERROR,
    BEFORE,
    title="There is room for the model",
    why="Every node keeps all of it; a download that fills the disk takes hours to fail.",
    mend="Make room, or set cluster_data_dir to a larger file system.",
)
def model_disk(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """What is there already counts."""
    told, place = node.value("model"), node.value("disks")["model"]
    if told["complete"]:
        raise NotApplicableError("the model is here already")
    if not cluster.weights_bytes:
        raise NotApplicableError("the model's profile does not tell the size of its weights (weights_gib)")
    needed = cluster.weights_bytes * MODEL_SLACK - told["bytes"]
    if place["free"] < needed:
        yield Problem(f"{parse.size(place['free'])} free at {place['path']}", parse.size(needed))


@CHECKS.node(
    "NET.PORTS",
    ERROR,
    BEFORE,
    title="The group's ports are free, or held by the group itself",
    why="A rank that can't listen ends, and the whole group with it, again and again.",
    mend="End that process, or give cluster_api_port, cluster_dist_init_port or rank_group_port another number.",
)
def ports(node: Node, _: Cluster) -> Iterable[Problem]:
    """API, dist-init and the supervisor's."""
    for holder in node.value("listeners"):
        if not node.is_ours(holder["cgroup"]):
            who = f"{holder['name']} ({holder['pid']})" if holder["pid"] else "a process that /proc does not name"
            yield Problem(f"{holder['protocol']} port {holder['port']} is held by {who}", "free")


@CHECKS.node(
    "NET.FIREWALL",
    ERROR,
    READY,
    title="The firewall's table is in force",
    why="SGLang's distributed sockets unpickle what anyone sends them: whoever reaches them runs code as root.",
    mend="Run site.yml --tags firewall, and see `systemctl status dgx-spark-firewall`.",
)
def firewall(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """The table itself: something else may have flushed it while its unit is active."""
    if not cluster.firewall:
        raise NotApplicableError("firewall_enabled is false")
    try:
        there = node.value("firewall")["code"] == 0
    except NotApplicableError as reason:
        yield Problem(str(reason), "table inet dgx_spark")
        return
    if not there:
        yield Problem("no table inet dgx_spark", "table inet dgx_spark")


@CHECKS.node(
    "NET.OTHER_FIREWALL",
    WARNING,
    BEFORE,
    title="No other firewall is at work",
    why="nftables asks all tables: what ufw or firewalld drop is dropped, whatever ours accepts.",
    mend="Run `ufw disable` or `systemctl disable --now firewalld`; the role firewall does their work.",
)
def other_firewall(node: Node, _: Cluster) -> Iterable[Problem]:
    """ufw's unit is active without doing anything, so its settings count."""
    if any(line.strip().lower() == "enabled=yes" for line in (node.file("/etc/ufw/ufw.conf") or "").splitlines()):
        yield Problem("ufw is enabled", "none")
    if node.active("firewalld.service"):
        yield Problem("firewalld is active", "none")


@CHECKS.node(
    "NET.DNS",
    WARNING,
    BEFORE,
    title="Rank 0 finds the registry and the model hub by name",
    why="It fetches image and model for all; the others get them from it.",
    mend="Mend /etc/resolv.conf or the network's DNS, or give image_archive and the model by hand.",
)
def dns(node: Node, cluster: Cluster) -> Iterable[Problem]:
    """What is an address already needs no resolver."""
    wanted = hosts_of(cluster)
    if node.rank["rank"] != 0:
        raise NotApplicableError("only rank 0 fetches anything")
    if not wanted:
        raise NotApplicableError("registry and hub are given by address")
    told = node.value("names")
    missing = [name for name in wanted if not told.get(name)]
    if missing:
        yield Problem(f"{', '.join(missing)}: no address", "an address")


def hosts_of(cluster: Cluster) -> list[str]:
    """The names of registry and hub; addresses are left out."""
    names = [parse.host_of(str(cluster.plan["image"])), parse.host_of(cluster.hub) if cluster.hub else ""]
    return [name for name in names if name and not name.replace(".", "").isdigit() and ":" not in name]


def image_id(node: Node) -> str:
    """Its id; NotApplicableError where it is missing."""
    image = node.image()
    if image is None:
        raise NotApplicableError("the image is missing")
    return str(image["id"])[:19]
