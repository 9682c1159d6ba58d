# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What a plugin's documentation says of its options is what the plugin takes."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import yaml

PLUGINS = "ansible_collections.dgx_spark.sglang.plugins"
ON_THE_NODE = [
    "apt_source",
    "container_runtime_info",
    "docker_daemon_config",
    "fabric_all_reduce",
    "fabric_netplan_info",
    "fabric_pair",
    "firewall_info",
    "guarded_change",
    "host_info",
    "image_bake",
    "machine_part",
    "model_directory_info",
    "model_directory_seal",
    "moe_config_info",
    "node_gates",
    "parser_patch_prepare",
    "rank_info",
    "rdma_info",
    "release_info",
    "release_switch",
    "release_write",
    "server_keys_info",
    "shared_memory_info",
    "smoke_test",
]
ON_THE_CONTROLLER = ["moe_config_choose", "rank_wait", "table"]


class SpecSeenError(Exception):
    """Ends a module's main() as soon as it has declared its arguments."""


def spec_of(name: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The argument spec that a plugin really uses."""
    if name in ON_THE_CONTROLLER:
        spec: dict[str, Any] = importlib.import_module(f"{PLUGINS}.action.{name}").ARGUMENTS
        return spec
    module = importlib.import_module(f"{PLUGINS}.modules.{name}")
    seen: dict[str, Any] = {}

    def declare(**declared: Any) -> None:
        seen.update(declared)
        raise SpecSeenError

    monkeypatch.setattr(module, "AnsibleModule", declare)
    with pytest.raises(SpecSeenError):
        module.main()
    assert seen["supports_check_mode"] is True
    return dict(seen["argument_spec"])


@pytest.mark.parametrize("name", ON_THE_NODE + ON_THE_CONTROLLER)
def test_documentation(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Valid YAML, the same options with the same properties, examples that use them."""
    module = importlib.import_module(f"{PLUGINS}.modules.{name}")
    documented = yaml.safe_load(module.DOCUMENTATION)
    assert documented["module"] == name
    assert {"check_mode", "diff_mode"} <= documented["attributes"].keys()
    spec = spec_of(name, monkeypatch)
    assert spec.keys() == documented["options"].keys()
    for option, properties in spec.items():
        for word in ("type", "default", "choices", "elements", "required"):
            assert properties.get(word) == documented["options"][option].get(word), (option, word)
    for task in yaml.safe_load(module.EXAMPLES):
        used = task.get(f"dgx_spark.sglang.{name}") or {}
        assert used.keys() <= spec.keys()
    for value in yaml.safe_load(module.RETURN).values():
        assert {"description", "returned", "type"} <= value.keys()
