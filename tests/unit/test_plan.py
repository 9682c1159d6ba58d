"""The plan: what follows from an inventory and a model."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._inventory import Host, settings
from ansible_collections.dgx_spark.sglang.plugins.module_utils._model import complete_profile
from ansible_collections.dgx_spark.sglang.plugins.module_utils._plan import (
    Moe,
    Parsers,
    Plan,
    flag_args,
    make_plan,
    moe_of,
    parsers_of,
)
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import role_specs
from hypothesis import given
from hypothesis import strategies as st

RAILS = [
    {"interface": "enp1s0f1np1", "hca": "rocep1s0f1", "subnet": "10.1.0.0/24"},
    {"interface": "enP2p1s0f1np1", "hca": "roceP2p1s0f1", "subnet": "10.2.0.0/24"},
]
PROFILE = complete_profile(
    "small",
    {"hf_id": "a/b", "served_name": "small", "image": "x:1", "tensor_parallel": 2, "flags": {"dtype": "bfloat16"}},
)


def plan_of(count: int, per_host: dict[str, dict[str, Any]] | None = None, **group: Any) -> Plan:
    group = {"cluster_model": "small", "cluster_rails": RAILS if count > 1 else [], **group}
    names = [f"n{number}" for number in range(count)]
    hosts = [Host(name, f"{name}.lan", {**group, **(per_host or {}).get(name, {})}, {}) for name in names]
    return make_plan(hosts, settings(hosts, role_specs()), PROFILE)


def option(args: list[str], name: str) -> str:
    return args[args.index(name) + 1]


def test_ranks_follow_the_inventory_and_meet_at_rank_0() -> None:
    plan = plan_of(2)
    assert [(rank.host, rank.rank, rank.addresses) for rank in plan.ranks] == [
        ("n0", 0, ["10.1.0.11", "10.2.0.11"]),
        ("n1", 1, ["10.1.0.12", "10.2.0.12"]),
    ]
    assert plan.dist_init == "10.1.0.11:50000"
    assert plan.api_url == "http://n0.lan:30000"
    assert {option(rank.server_args, "--dist-init-addr") for rank in plan.ranks} == {plan.dist_init}


def test_given_ranks_win_over_the_order() -> None:
    plan = plan_of(2, {"n0": {"cluster_rank": 1}, "n1": {"cluster_rank": 0}})
    assert [rank.host for rank in plan.ranks] == ["n1", "n0"]
    assert plan.api_url == "http://n1.lan:30000"


def test_only_rank_0_listens_beyond_the_fabric() -> None:
    first, second = plan_of(2).ranks
    assert option(first.server_args, "--host") == "0.0.0.0"
    assert first.health_url == "http://127.0.0.1:30000/health"
    assert option(second.server_args, "--host") == "10.1.0.12"
    assert second.health_url == "http://10.1.0.12:30000/health"


def test_one_node_needs_no_fabric() -> None:
    (rank,) = plan_of(1).ranks
    assert rank.env["SGLANG_HOST_IP"] == "127.0.0.1"
    assert "NCCL_IB_HCA" not in rank.env
    assert option(rank.server_args, "--dist-init-addr") == "127.0.0.1:50000"


def test_no_nccl_on_cpu() -> None:
    plan = plan_of(2, sglang_device="cpu")
    assert not [name for rank in plan.ranks for name in rank.env if name.startswith("NCCL_")]


def test_own_flags_environment_and_ports_win() -> None:
    plan = plan_of(2, cluster_flags={"dtype": "float16"}, cluster_env={"NCCL_CROSS_NIC": "0"}, cluster_api_port="31000")
    args = plan.ranks[0].server_args
    assert option(args, "--dtype") == "float16"
    assert args.count("--dtype") == 1
    assert option(args, "--port") == "31000"
    assert plan.ranks[0].env["NCCL_CROSS_NIC"] == "0"


def test_group_id_names_what_the_ranks_are_started_with() -> None:
    assert plan_of(2).group_id == plan_of(2).group_id
    # Nothing has to restart for another ssh address.
    assert plan_of(2).group_id == plan_of(2, cluster_data_dir="/srv").group_id
    # Every rank is concerned when one of them changes.
    assert plan_of(2).group_id != plan_of(2, {"n1": {"cluster_fabric_addresses": ["10.1.0.9", "10.2.0.9"]}}).group_id


def test_each_revision_of_a_model_has_its_own_directory() -> None:
    assert plan_of(2).paths.model == "/var/lib/dgx-spark/models/a--b/main"


@pytest.mark.parametrize(
    ("flags", "args"),
    [
        ({"a": True, "b": False}, ["--a"]),
        ({"n": 0}, ["--n", "0"]),
        ({"l": [1, 2]}, ["--l", "1", "2"]),
        ({"j": {"k": [1]}}, ["--j", '{"k": [1]}']),
        ({"piecewise-cuda-graph-tokens": [1, 2]}, ["--piecewise-cuda-graph-tokens", "[1, 2]"]),
    ],
)
def test_flags(flags: dict[str, Any], args: list[str]) -> None:
    assert flag_args(flags) == args


@given(st.integers(1, 8), st.integers(1, 200))
def test_no_two_ranks_share_anything(count: int, first: int) -> None:
    plan = plan_of(count, cluster_first_host_number=first)
    addresses = [address for rank in plan.ranks for address in rank.addresses]
    assert len(set(addresses)) == len(addresses)
    assert [option(rank.server_args, "--node-rank") for rank in plan.ranks] == [str(n) for n in range(count)]


@pytest.mark.parametrize(
    ("flags", "moe"),
    [
        ({}, Moe(1, None, None, "")),
        ({"ep-size": 4}, Moe(4, None, None, "")),
        ({"expert-parallel-size": 2, "quantization": "fp8"}, Moe(2, "fp8", None, "")),
        ({"disable-shared-experts-fusion": True}, Moe(1, None, False, "")),
        ({"disable-shared-experts-fusion": False}, Moe(1, None, None, "")),
        ({"moe-runner-backend": "triton"}, Moe(1, None, None, "")),
        ({"moe-runner-backend": "cutlass"}, Moe(1, None, None, "moe-runner-backend cutlass has kernels of its own")),
        (
            {"enable-deterministic-inference": True},
            Moe(1, None, None, "enable-deterministic-inference makes SGLang pass over them"),
        ),
    ],
)
def test_moe(flags: dict[str, Any], moe: Moe) -> None:
    assert moe_of(flags) == moe


@pytest.mark.parametrize(
    ("flags", "parsers"),
    [
        ({}, Parsers("", "", False, [])),
        ({"tool-call-parser": "glm47"}, Parsers("glm47", "", False, ["--tool-call-parser", "glm47"])),
        (
            {"tool-call-parser": "glm47", "reasoning-parser": "glm45"},
            Parsers("glm47", "glm45", False, ["--tool-call-parser", "glm47"]),
        ),
        ({"reasoning-parser": "glm45", "load-format": "dummy"}, Parsers("", "glm45", True, [])),
        (
            {"tool-call-parser": "glm47", "load-format": "safetensors"},
            Parsers("glm47", "", False, ["--tool-call-parser", "glm47"]),
        ),
        # How a group takes back what the model's profile says.
        ({"tool-call-parser": False, "reasoning-parser": None}, Parsers("", "", False, [])),
        ({"tool-call-parser": ""}, Parsers("", "", False, [])),
    ],
)
def test_parsers(flags: dict[str, Any], parsers: Parsers) -> None:
    assert parsers_of(flags) == parsers


def test_the_groups_own_parser_wins() -> None:
    flags = {"tool-call-parser": "glm47", "reasoning-parser": False}
    assert plan_of(2, cluster_flags=flags).parsers == Parsers("glm47", "", False, ["--tool-call-parser", "glm47"])
    assert plan_of(2, cluster_flags=flags).as_dict()["parsers"]["tool_call"] == "glm47"
    assert plan_of(2).parsers == Parsers("", "", False, [])


def test_the_parser_goes_with_the_release() -> None:
    flags = {"tool-call-parser": "glm47", "reasoning-parser": "glm45"}
    plan = plan_of(2, cluster_flags=flags)
    # Another one is another release; what the unit starts stays as it is.
    other = plan_of(2, cluster_flags={**flags, "tool-call-parser": "glm45"})
    assert (other.ranks, other.group_id) == (plan.ranks, plan.group_id)
    assert plan.parsers.flags != other.parsers.flags
    assert "--tool-call-parser" not in plan.ranks[0].server_args
    assert option(plan.ranks[0].server_args, "--reasoning-parser") == "glm45"
