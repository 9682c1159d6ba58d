# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The plan: everything that is derived from the inventory and the model, in one place. Everyone else reads it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _release, _secrets
from ansible_collections.dgx_spark.sglang.plugins.module_utils._flags import FLAGS
from ansible_collections.dgx_spark.sglang.plugins.module_utils._inventory import (
    Host,
    by_rank,
    effective_ports,
    fabric_addresses,
)

LOOPBACK = "127.0.0.1"
ANY_ADDRESS = "0.0.0.0"
MODELS_IN_CONTAINER = "/models"
CACHE_IN_CONTAINER = "/root/.cache"

COMPILE_CACHES = {
    "TRITON_CACHE_DIR": f"{CACHE_IN_CONTAINER}/triton",
    "TORCHINDUCTOR_CACHE_DIR": f"{CACHE_IN_CONTAINER}/torchinductor",
    "CUDA_CACHE_PATH": f"{CACHE_IN_CONTAINER}/cuda",
}
"""Where compiled kernels outlive the container: compiling all anew takes a first start up to 36 minutes on a Spark."""

RELEASE_FLAGS = ("tool-call-parser",)
"""The server's options that go with a release: going back to one without the parser has to go back to its flag too."""

Flags = Mapping[str, Any]


@dataclass(frozen=True)
class Rank:
    """One rank: its host, its place on the fabric, and how its server is started.

    addresses, interfaces, hcas: one entry a rail, in the order of the rails; empty on a single node.
    server_args: the arguments of `python3 -m sglang.launch_server`. env: its environment.
    """

    host: str
    rank: int
    addresses: list[str]
    interfaces: list[str]
    hcas: list[str]
    env: dict[str, str]
    server_args: list[str]
    health_url: str


@dataclass(frozen=True)
class Rail:
    """One rail of the fabric. hca: its RDMA device as the inventory names it, "" if the nodes are asked for it."""

    interface: str
    hca: str
    subnet: str


@dataclass(frozen=True)
class Paths:
    """Directories on a node: `model` is the one of the model served, `spread` holds what is passed on to the peers.

    release_root, trial: see _release.
    """

    model: str
    cache: str
    spread: str
    release_root: str = _release.ROOT
    trial: str = _release.TRIAL


@dataclass(frozen=True)
class Moe:
    """What the server's flags say about its MoE kernels.

    ep: expert parallelism. quantization: of weights that are loaded in 16 bits, None if not set. fused_shared_experts:
    False if a flag forbids it, None if the server decides. skip: why no kernel config is read, "" if they are.
    """

    ep: int
    quantization: str | None
    fused_shared_experts: bool | None
    skip: str


@dataclass(frozen=True)
class Parsers:
    """Who reads the model's answers: the names of its parsers, "" for none. random_weights: they mean nothing then.

    flags: the server's arguments that belong to a release, not to the unit: an image may need its files to take them.
    """

    tool_call: str
    reasoning: str
    random_weights: bool
    flags: list[str]


@dataclass(frozen=True)
class Keys:
    """What may be known of the API's keys. options: those of the server that one is given for. fingerprint: of them."""

    options: list[str]
    fingerprint: str


@dataclass(frozen=True)
class Plan:
    """One group of ranks that serves one model.

    group_id: a digest of what all ranks are started with; ranks of different ids must never form one group.
    rdma: whether the rails are RDMA. ask_hcas: whether the nodes are to say which RDMA devices their rails are.
    """

    group_id: str
    model: dict[str, Any]
    image: str
    device: str
    api_url: str
    api_port: int
    dist_init: str
    rails: list[Rail]
    rdma: bool
    ask_hcas: bool
    paths: Paths
    moe: Moe
    parsers: Parsers
    api_keys: Keys
    ranks: list[Rank]

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data, for Ansible."""
        return asdict(self)


def make_plan(
    hosts: Sequence[Host],
    values: Mapping[str, Any],
    profile: Mapping[str, Any],
    hcas: Mapping[str, Mapping[str, str]] | None = None,
) -> Plan:
    """Derive the plan from a checked inventory.

    hosts: the group in inventory order. values: cluster variables with defaults (_inventory.settings).
    profile: the model with its defaults (_model.complete_profile).
    hcas: host name -> interface -> RDMA device, as the nodes say.
    """
    ranked = by_rank(hosts)
    flags = {**profile["flags"], **values["cluster_flags"]}
    unit_flags = {name: value for name, value in flags.items() if name not in RELEASE_FLAGS}
    found = hcas or {}
    ranks = [
        _rank(host, number, ranked, values, profile, unit_flags, found.get(host.name, {}))
        for number, host in enumerate(ranked)
    ]
    api_port, _ = effective_ports(values, profile)
    rails = [
        Rail(str(rail["interface"]), str(rail.get("hca") or ""), str(rail["subnet"]))
        for rail in values["cluster_rails"]
    ]
    rdma = is_rdma(values)
    keys = Keys(_secrets.given_options(values), _secrets.fingerprint(values))
    data_dir = str(values["cluster_data_dir"]).rstrip("/")
    return Plan(
        group_id=digest([[[rank.env, rank.server_args] for rank in ranks], keys.fingerprint]),
        model=dict(profile),
        image=str(values.get("cluster_image") or profile["image"]),
        device=str(values["sglang_device"]),
        api_url=f"http://{_api_address(ranked[0], values)}:{api_port}",
        api_port=api_port,
        dist_init=_dist_init(ranked, values, profile),
        rails=rails,
        rdma=rdma,
        ask_hcas=rdma and not all(rail.hca for rail in rails),
        paths=Paths(_model_dir(data_dir, profile), f"{data_dir}/cache", f"{data_dir}/spread"),
        moe=moe_of(flags),
        parsers=parsers_of(flags),
        api_keys=keys,
        ranks=ranks,
    )


def is_rdma(values: Mapping[str, Any]) -> bool:
    """Whether the rails are RDMA: those of GPUs are, others where the inventory names an HCA."""
    rails = values["cluster_rails"]
    return bool(rails) and (values["sglang_device"] == "cuda" or any(rail.get("hca") for rail in rails))


def hca_by_name(interface: str) -> str:
    """The RDMA device that goes with an interface by the names that udev and rdma-core give on DGX OS, "" for others.

    Both name by PCI address: enp1s0f1np1 is rocep1s0f1, enP2p1s0f1np1 is roceP2p1s0f1 (rdma-core's rdma_rename).
    """
    match = re.fullmatch(r"en((?:P\d+)?p\d+s\d+(?:f\d+)?)(?:np\d+)?", interface)
    return f"roce{match[1]}" if match else ""


def moe_of(flags: Flags) -> Moe:
    """What launch_server's options mean for MoE kernels; their names and values are those of SGLang 0.5.4 to 0.5.23."""
    ep = next((flags[name] for name in ("ep-size", "expert-parallel-size", "ep") if name in flags), 1)
    runner = str(flags.get("moe-runner-backend", "auto"))
    skip = ""
    if flags.get("enable-deterministic-inference"):
        skip = "enable-deterministic-inference makes SGLang pass over them"
    elif runner not in ("auto", "triton"):
        skip = f"moe-runner-backend {runner} has kernels of its own"
    fused = False if flags.get("disable-shared-experts-fusion") else None
    return Moe(int(ep), flags.get("quantization"), fused, skip)


def parsers_of(flags: Flags) -> Parsers:
    """What launch_server's options say about the parsers; `load-format: dummy` is SGLang's name of random weights."""
    tool_call, reasoning = (str(flags.get(name) or "") for name in ("tool-call-parser", "reasoning-parser"))
    of_release = {name: value for name, value in flags.items() if name in RELEASE_FLAGS and value}
    return Parsers(tool_call, reasoning, flags.get("load-format") == "dummy", flag_args(of_release))


def digest(value: object) -> str:
    """A short name for plain data: the first 12 hex digits of the SHA-256 of its canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def flag_args(flags: Flags) -> list[str]:
    """Options of launch_server as arguments: true is the bare switch, false is left out, lists take several words."""
    args: list[str] = []
    for name, value in flags.items():
        if value is True:
            args.append(f"--{name}")
        elif isinstance(value, Mapping) or (FLAGS.get(name) == "json" and isinstance(value, (list, tuple))):
            args += [f"--{name}", json.dumps(value, sort_keys=True)]
        elif isinstance(value, (list, tuple)):
            args += [f"--{name}", *(str(item) for item in value)]
        elif value is not False:
            args += [f"--{name}", str(value)]
    return args


def _model_dir(data_dir: str, profile: Mapping[str, Any]) -> str:
    """A directory for each model and revision: another one is fetched beside the one that is being served."""
    source, revision = (str(profile[key]).replace("/", "--") for key in ("hf_id", "revision"))
    return f"{data_dir}/models/{source}/{revision}"


def _api_address(first: Host, values: Mapping[str, Any]) -> str:
    host = str(values["cluster_api_host"])
    host = first.address if host == ANY_ADDRESS else host
    return f"[{host}]" if ":" in host else host


def _dist_init(ranked: Sequence[Host], values: Mapping[str, Any], profile: Mapping[str, Any]) -> str:
    _, port = effective_ports(values, profile)
    addresses = fabric_addresses(ranked[0], 0, values)
    return f"{addresses[0] if addresses else LOOPBACK}:{port}"


def _rank(
    host: Host,
    number: int,
    ranked: Sequence[Host],
    values: Mapping[str, Any],
    profile: Mapping[str, Any],
    flags: Flags,
    found: Mapping[str, str],
) -> Rank:
    addresses = fabric_addresses(host, number, values)
    rails = values["cluster_rails"]
    interfaces = [str(rail["interface"]) for rail in rails]
    # Where a node does not answer, its peers' plan must not depend on that.
    hcas = [
        str(rail.get("hca") or found.get(interface) or hca_by_name(interface))
        for rail, interface in zip(rails, interfaces)
        if is_rdma(values)
    ]
    api_port, _ = effective_ports(values, profile)
    # Only rank 0 talks to clients; the others answer health checks and metrics, on the fabric alone.
    bind = str(values["cluster_api_host"]) if number == 0 else addresses[0]
    asked = LOOPBACK if bind == ANY_ADDRESS else bind
    return Rank(
        host=host.name,
        rank=number,
        addresses=addresses,
        interfaces=interfaces,
        hcas=hcas,
        env={
            **_fabric_env(addresses, interfaces, hcas, str(values["sglang_device"]), len(ranked)),
            **(COMPILE_CACHES if values["sglang_device"] == "cuda" else {}),
            **{key: str(value) for key, value in {**profile["env"], **values["cluster_env"]}.items()},
        },
        server_args=[
            # Only rank 0 serves the API.
            *(("--config", _secrets.IN_CONTAINER) if number == 0 and _secrets.given_options(values) else ()),
            *("--model-path", f"{MODELS_IN_CONTAINER}/{profile['name']}"),
            *("--served-model-name", str(profile["served_name"])),
            *("--host", bind),
            *("--port", str(api_port)),
            *("--tp", str(len(ranked))),
            *("--nnodes", str(len(ranked))),
            *("--node-rank", str(number)),
            *("--dist-init-addr", _dist_init(ranked, values, profile)),
            *("--dist-timeout", str(profile["dist_timeout"])),
            *("--device", str(values["sglang_device"])),
            *flag_args(flags),
        ],
        health_url=f"http://{asked}:{api_port}/health",
    )


def _fabric_env(
    addresses: Sequence[str], interfaces: Sequence[str], hcas: Sequence[str], device: str, ranks: int
) -> dict[str, str]:
    """What keeps the ranks' traffic on the fabric.

    Without SGLANG_HOST_IP, SGLang 0.5.4 guesses an address from the host name or the default route. NCCL_NET=IB makes
    NCCL fail where it would fall back to sockets without a word; the HCA list begins with "=" for exact names, and its
    order is the same on all ranks. NCCL_IB_GID_INDEX stays unset: the index drifts, and an empty value means 0.
    """
    if not addresses:
        return {"SGLANG_HOST_IP": LOOPBACK, "GLOO_SOCKET_IFNAME": "lo"}
    env = {"SGLANG_HOST_IP": addresses[0], "GLOO_SOCKET_IFNAME": interfaces[0]}
    if device == "cuda":
        env |= {
            "NCCL_SOCKET_IFNAME": interfaces[0],
            "NCCL_NET": "IB",
            "NCCL_IB_HCA": "=" + ",".join(hcas),
            # A ring of three has no common rail to merge.
            "NCCL_IB_MERGE_NICS": "0" if ranks == 3 else "1",
            "NCCL_IB_SUBNET_AWARE_ROUTING": "1",
            "NCCL_CROSS_NIC": "1",
            "NCCL_IGNORE_CPU_AFFINITY": "1",
        }
    return env
