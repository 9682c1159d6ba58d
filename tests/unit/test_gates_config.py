# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""gates.json: what the plan makes of it, and that the program on the node reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_spark.sglang.plugins.filter.rank import FilterModule, rank_gates
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _gates
from ansible_collections.dgx_spark.sglang.plugins.module_utils._inventory import Host, settings
from ansible_collections.dgx_spark.sglang.plugins.module_utils._model import complete_profile
from ansible_collections.dgx_spark.sglang.plugins.module_utils._plan import make_plan
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import role_specs

from roles.rank.files import dgx_spark_gates

RAILS = [{"interface": "r0", "subnet": "10.0.0.0/24"}, {"interface": "r1", "subnet": "10.1.0.0/24"}]
HCAS = {"r0": "roce0", "r1": "roce1"}
OPTIONS: dict[str, Any] = {
    "gpu_devices": ["nvidia.com/gpu=all"],
    "gpu_probe": "look",
    "mtu": 9000,
    "floor_bytes": 5,
    "timeouts": {},
}


def plan_of(count: int, **values: Any) -> dict[str, Any]:
    """The plan of some hosts on two rails."""
    group = {"cluster_model": "small", "cluster_rails": RAILS, "cluster_image": "sglang:1", **values}
    hosts = [Host(f"spark-{number}", f"spark-{number}", group, {}) for number in range(count)]
    profile = complete_profile(
        "small", {"hf_id": "a/b", "served_name": "small", "image": "x", "tensor_parallel": count, "flags": {}}
    )
    hcas = {host.name: HCAS for host in hosts}
    return make_plan(hosts, settings(hosts, role_specs()), profile, hcas).as_dict()


def config_of(plan: dict[str, Any], rank: int, **changes: Any) -> dict[str, Any]:
    return rank_gates(plan, plan["ranks"][rank], {**OPTIONS, **changes})


def test_all_of_it() -> None:
    assert config_of(plan_of(3), 0, image_id="sha256:a", timeouts={"peers": "900"}) == {
        "image": "sglang:1",
        "image_id": "sha256:a",
        "gpu_devices": ["nvidia.com/gpu=all"],
        "gpu_probe": "look",
        "hcas": ["roce0", "roce1"],
        "rails": [
            {
                "interface": "r0",
                "address": "10.0.0.11",
                "mtu": 9000,
                "peers": {"10.0.0.12": "spark-1", "10.0.0.13": "spark-2"},
            },
            {
                "interface": "r1",
                "address": "10.1.0.11",
                "mtu": 9000,
                "peers": {"10.1.0.12": "spark-1", "10.1.0.13": "spark-2"},
            },
        ],
        "port": 50000,
        "drop_caches": True,
        "floor_bytes": 5,
        "timeouts": {"peers": 900.0},
    }


def test_nobody_is_its_own_peer_and_rank_0_alone_has_the_port() -> None:
    config = config_of(plan_of(3), 1)
    assert [list(rail["peers"]) for rail in config["rails"]] == [["10.0.0.11", "10.0.0.13"], ["10.1.0.11", "10.1.0.13"]]
    assert "port" not in config


def test_what_there_is_nothing_to_ask_about_is_left_out() -> None:
    on_cpu = config_of(plan_of(2, sglang_device="cpu"), 1, drop_caches=False, floor_bytes=0)
    assert sorted(on_cpu) == ["image", "rails"]
    alone = config_of(plan_of(1), 0)
    assert sorted(alone) == ["drop_caches", "floor_bytes", "gpu_devices", "gpu_probe", "image", "port"]


def test_text_is_taken_for_numbers() -> None:
    config = config_of(plan_of(2), 0, mtu="1500", floor_bytes="7")
    assert (config["rails"][0]["mtu"], config["floor_bytes"]) == (1500, 7)


@pytest.mark.parametrize(
    ("timeouts", "words"),
    [
        ({"dinner": 1}, "There is no gate 'dinner'"),
        ({"peers": 0}, "The time-out of the gate peers is 0"),
        ({"peers": "soon"}, "is 'soon'"),
        ({"peers": "inf"}, "is 'inf'"),
        ({"peers": None}, "is None"),
    ],
)
def test_time_outs_that_are_none(timeouts: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleFilterError, match=words):
        config_of(plan_of(2), 0, timeouts=timeouts)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_node_reads_it(rank: int) -> None:
    written = config_of(plan_of(2), rank, image_id="sha256:a", timeouts={"gpu": 5})
    read = dgx_spark_gates.read_config(json.dumps(written))
    assert [vars(rail) for rail in read.rails] == written["rails"]
    assert (read.image, read.image_id, read.port) == ("sglang:1", "sha256:a", written.get("port"))
    assert read.timeouts["gpu"] == 5
    assert tuple(read.timeouts) == _gates.GATES


def test_the_filter_has_its_name() -> None:
    assert FilterModule().filters()["rank_gates"] is rank_gates
