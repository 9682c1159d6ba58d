# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Whatever a variable or a key of the model is set to: validate ends in findings or in a plan, not in an exception."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.filter.fabric import fabric_files
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _firewall, _memory_guard
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, report
from ansible_collections.dgx_spark.sglang.plugins.module_utils._gates import GateOptions, gates_config
from ansible_collections.dgx_spark.sglang.plugins.module_utils._inventory import (
    CONNECTION,
    Host,
    check_fit,
    check_inventory,
    settings,
    unsound_of,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._model import (
    PROFILE_OPTIONS,
    check_profile,
    sound_profile,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._plan import make_plan
from ansible_collections.dgx_spark.sglang.plugins.module_utils._unit import RunOptions, run_command
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import role_specs
from ansible_collections.dgx_spark.sglang.tests.unit.inventories import reference

VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**70, 0.5, -0.0, float("inf"), float("nan")),
    *(
        "",
        " ",
        "x",
        "0",
        "-1",
        "1e3",
        "0x10",
        "true",
        "\x00",
        "a\nb",
        "ä",
        "٣",
        "a" * 5000,
        "{}",
        "/",
        "::",
        "1.2.3.4/33",
    ),
    *([], [None], [[]], [{}], [""], [0], ["x"], [-1], [True], ["x", "x"], [1.5], [[["deep"]]]),
    *({}, {"": None}, {"x": None}, {"x": {}}, {"x": []}, {"x": -1}, {"interface": "a"}, {"memlock": "x"}, {"tp": 4}),
    [{"interface": "a", "subnet": "10.0.0.0/8"}],
    [{"interface": None, "subnet": {}}, {"subnet": []}],
    [{"interface": "a", "hca": 5, "subnet": 2**64}],
    {"default-address-pools": [None, {"base": {}}, 5], "bip": []},
    {"speculative-algorithm": "EAGLE", "speculative-num-steps": "x", "speculative-eagle-topk": [], "ep-size": "y"},
    {"speculative-algorithm": ["EAGLE"], "enable-dp-attention": True, "dp-size": {}},
    {"ep-size": 0, "dp-size": -1, "enable-dp-attention": True},
    {"peers": None, "docker": "inf", "gpu": [1]},
]


def judged(variables: Mapping[str, Any], own: Mapping[str, Any], profile: object) -> list[Finding]:
    """What _controller.read_cluster does, without files. own: variables of the first host alone."""
    hosts = [Host(f"spark-{number}", f"spark-{number}", dict(variables), {}) for number in range(4)]
    hosts[0] = Host("spark-0", "spark-0", {**variables, **own}, {})
    findings = check_inventory(hosts, role_specs(), ["mine"])
    unsound = unsound_of(findings)
    values = settings(hosts, role_specs(), unsound)
    wrong = check_profile("models/mine.yml", profile)
    if not isinstance(profile, Mapping):
        return [*findings, *wrong]
    sound = sound_profile("mine", profile, unsound_of(wrong))
    findings = [*findings, *wrong, *check_fit(hosts, values, sound, unsound | unsound_of(wrong, "model."))]
    if not findings:
        use(make_plan(hosts, values, sound).as_dict(), values)
    return findings


def use(plan: dict[str, Any], values: Mapping[str, Any]) -> None:
    """What the roles make of values that were let through."""

    def of(role: str, *names: str) -> dict[str, Any]:
        return {name: values[f"{role}_{name}"] for name in names}

    own = plan["ranks"][0]
    rules = of("firewall", *(field.name for field in fields(_firewall.Settings) if field.name != "ssh_ports"))
    rules["ssh_ports"] = values["firewall_ssh_ports"] or [22]
    _firewall.render(_firewall.settings(rules), _firewall.rails_of(plan, own["host"]), plan["api_port"])
    guard = of("memory_guard", *(field.name for field in fields(_memory_guard.Settings)))
    _memory_guard.arguments(_memory_guard.settings(guard))
    floor = values["rank_memory_floor_gib"] * 2**30
    options = GateOptions(
        "", values["rank_gpu_devices"], values["fabric_mtu"], True, floor, values["rank_gate_seconds"]
    )
    gates_config(plan, own, options)
    given = {"ulimits": values["rank_ulimits"], **of("rank", "gpu_devices", "docker_options")}
    run_command(plan, own, RunOptions(rdma=True, env_file="/env", model_digest="0", supervision=[], **given))
    netplan = {**of("fabric", "mtu", "memlock", "renderer", "migrate_netplan")}
    fabric_files(plan, own, {"migrated": []}, netplan)


def cases() -> Iterator[tuple[str, str]]:
    """(where, name) of everything that can be set."""
    yield from (("group", name) for name in role_specs())
    yield from (("host", name) for name in ("cluster_rank", "cluster_fabric_addresses", *CONNECTION))
    yield from (("rail", name) for name in ("interface", "hca", "subnet"))
    yield from (("model", name) for name in PROFILE_OPTIONS)
    yield from (("shape", name) for name in PROFILE_OPTIONS["shape"]["options"])
    yield ("file", "all of it")


@pytest.mark.parametrize(("where", "name"), [*cases()])
def test_any_value_ends_in_findings_or_in_a_plan(where: str, name: str) -> None:
    for value in VALUES:
        tree = reference()
        own: dict[str, Any] = {}
        profile: Any = tree.profile
        place = {
            "group": tree.variables,
            "host": own,
            "rail": tree.variables["cluster_rails"][1],
            "model": profile,
            "shape": profile["shape"],
            "file": {},
        }[where]
        place[name] = copy.deepcopy(value)
        findings = judged(tree.variables, own, value if where == "file" else profile)
        assert "Traceback" not in report(findings, "")
