# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Model profiles: what a file under models/ may say, and what is wrong with one that says something else."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._flags import FLAGS
from ansible_collections.dgx_spark.sglang.plugins.module_utils._nearest import nearest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._secrets import KEYS, looks_secret
from ansible_collections.dgx_spark.sglang.plugins.module_utils._server_flags import check_numbers
from ansible_collections.dgx_spark.sglang.plugins.module_utils._shape import SHAPE_OPTIONS
from ansible_collections.dgx_spark.sglang.plugins.module_utils._specs import check_mapping

PROFILE_OPTIONS: dict[str, dict[str, Any]] = {
    "description": {"type": "str", "required": True, "description": "One line on the model."},
    "hf_id": {"type": "str", "required": True, "description": "Its id on the hub.", "example": "zai-org/GLM-4.7-FP8"},
    "revision": {"type": "str", "default": "main", "description": "Branch, tag or commit on the hub."},
    "served_name": {
        "type": "str",
        "required": True,
        "description": "The name that API clients ask for.",
        "example": "glm-4.7",
    },
    "architecture": {
        "type": "str",
        "required": True,
        "description": "The class that SGLang must load natively; each rank's log has to say so.",
        "example": "Glm4MoeForCausalLM",
    },
    "image": {
        "type": "str",
        "required": True,
        "description": "The container image, best pinned by digest.",
        "example": "lmsysorg/sglang:spark",
    },
    "tensor_parallel": {"type": "int", "required": True, "description": "Number of ranks, one a node.", "example": 4},
    "shape": {
        "type": "dict",
        "required": True,
        "options": SHAPE_OPTIONS,
        "description": "What its config.json says of the sizes that are cut into ranks, by the same names.",
        "example": {"num_attention_heads": 96, "num_key_value_heads": 8},
    },
    "weights_gib": {
        "type": "int",
        "default": 0,
        "description": "Size of its weights on disk in GiB, for preflight (disk and memory); 0 if not known.",
        "example": 337,
    },
    "api_port": {"type": "int", "default": 30000, "description": "TCP port of the API."},
    "dist_init_port": {"type": "int", "default": 50000, "description": "TCP port where the ranks meet."},
    "dist_timeout": {"type": "int", "default": 600, "description": "Seconds that the ranks wait for each other."},
    "flags": {
        "type": "dict",
        "default": {},
        "description": "Options of launch_server, without the leading dashes.",
        "example": {"context-length": 32768},
    },
    "env": {
        "type": "dict",
        "default": {},
        "description": "Environment variables of the server.",
        "example": {"SGLANG_LOG_LEVEL": "info"},
    },
}
"""The schema of a profile. dist_timeout: without it SGLang 0.5.4 waits over nine minutes for an absent peer."""

PLANNED_FLAGS = {
    "model-path": "hf_id (the path is the plan's)",
    "model": "hf_id (the path is the plan's)",
    "served-model-name": "served_name",
    "host": "cluster_api_host",
    "port": "api_port or cluster_api_port",
    "tp": "tensor_parallel",
    "tp-size": "tensor_parallel",
    "tensor-parallel-size": "tensor_parallel",
    "nnodes": "the inventory",
    "node-rank": "cluster_rank",
    "dist-init-addr": "dist_init_port or cluster_dist_init_port",
    "nccl-init-addr": "dist_init_port or cluster_dist_init_port",
    "dist-timeout": "dist_timeout",
    "device": "sglang_device",
    # SGLang takes one file of options alone, and the plan has the keys in it.
    "config": "the options themselves",
}
"""Flags that the plan writes itself -> what to set instead."""

REFUSED_FLAGS = {option: variable for variable, option in KEYS.items()}
"""Secrets, which as an argument would stand in the unit and in the process list for all to read -> what to set instead.
"""

PLANNED_ENV = ("SGLANG_HOST_IP", "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "NCCL_IB_HCA")
"""Environment variables that follow from the fabric addresses of each rank."""

_ENV_MENDS = dict.fromkeys(
    ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"), "model_hub_token is for the download, and the server needs none"
)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
# Registry host with optional port, path components, then a tag and/or a digest (the grammar of image references).
_IMAGE = re.compile(
    r"(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::\d+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?\Z"
)


def check_profile(where: str, profile: object) -> list[Finding]:
    """All findings in a profile as it was read from YAML; `where` is the file as the user knows it."""
    if not isinstance(profile, Mapping):
        return [Finding(where, "(file)", shown(profile), "Is not a mapping.", "Start from models/glm-4.7-fp8.yml.")]
    findings = check_mapping(where, "", PROFILE_OPTIONS, profile)
    if not any(finding.variable == "image" for finding in findings):
        findings += check_image(where, "image", profile.get("image"))
    findings += check_flags(where, "flags", profile.get("flags"))
    findings += check_env(where, "env", profile.get("env"))
    return findings


def sound_profile(name: str, profile: object, unsound: Collection[str]) -> dict[str, Any]:
    """A profile with its defaults, and without what was found to be wrong; `flags` are a mapping in any case."""
    keys = profile.items() if isinstance(profile, Mapping) else ()
    return complete_profile(name, {str(key): value for key, value in keys if key not in unsound})


def complete_profile(name: str, profile: Mapping[str, Any]) -> dict[str, Any]:
    """A checked profile with its defaults filled in and its name added."""
    defaults = {key: spec["default"] for key, spec in PROFILE_OPTIONS.items() if "default" in spec}
    return {"name": name, **defaults, **{key: value for key, value in profile.items() if value is not None}}


def check_image(where: str, variable: str, value: object) -> list[Finding]:
    """An image reference: [registry[:port]/]name[:tag][@sha256:digest]. Not set is fine."""
    if value is None or _IMAGE.match(str(value)):
        return []
    mend = "Write [registry/]name:tag or name@sha256:<64 hex digits>, such as lmsysorg/sglang:spark."
    return [Finding(where, variable, shown(value), "Is not an image reference.", mend)]


def check_flags(where: str, variable: str, flags: object) -> list[Finding]:
    """Options of launch_server: known to the reference release, not the plan's own, and with plain values."""
    if not isinstance(flags, Mapping):
        return []
    findings = []
    for key, value in flags.items():
        name, path = str(key), f"{variable}.{key}"
        if name in PLANNED_FLAGS:
            problem, mend = "Is written by the plan.", f"Remove it and set {PLANNED_FLAGS[name]} instead."
        elif name in REFUSED_FLAGS:
            problem = "Would stand in the unit and in the process list for all to read."
            mend = f"Remove it and set {REFUSED_FLAGS[name]} instead: the server takes that from a file."
        elif name not in FLAGS:
            near = nearest(name.strip("-").replace("_", "-"), FLAGS)
            problem = "Is not an option of launch_server."
            mend = f"Did you mean `{near}`?" if near else "See launch_server --help for the options."
        elif FLAGS[name] == "flag" and not isinstance(value, bool):
            problem, mend = "Is a switch without a value.", "Set it to true or false."
        elif FLAGS[name] not in ("flag", "optional") and (value is None or isinstance(value, bool)):
            problem, mend = "Needs a value.", "Give the value that launch_server expects."
        elif isinstance(value, (list, tuple, Mapping)) and FLAGS[name] not in ("list", "json"):
            problem, mend = "Takes a single value.", "Give one value, as text or as a number."
        else:
            continue
        findings.append(Finding(where, path, shown(value), problem, mend))
    return findings + check_numbers(where, variable, flags)


def check_env(where: str, variable: str, env: object) -> list[Finding]:
    """Environment variables: names a shell would take, single-line values, no secrets, and none of the plan's own."""
    if not isinstance(env, Mapping):
        return []
    findings = []
    for key, value in env.items():
        name = str(key)
        if not _ENV_NAME.match(name):
            problem, mend = "Is not a name for an environment variable.", "Use letters, digits and underscores."
        elif name in PLANNED_ENV:
            problem, mend = "Follows from the rank's fabric addresses.", "Remove it; set cluster_rails instead."
        elif looks_secret(name):
            problem = "Would stand in `docker inspect` for all to read who may use Docker."
            mend = f"Remove it: {_ENV_MENDS.get(name, 'put what it is for into a file that only root may read')}."
        elif isinstance(value, (Mapping, list, tuple)) or value is None or "\n" in str(value):
            problem, mend = "Is not a single line of text.", "Quote it and keep it on one line."
        else:
            continue
        findings.append(Finding(where, f"{variable}.{name}", shown(value), problem, mend))
    return findings
