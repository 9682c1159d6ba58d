# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Whether a model can be cut into so many ranks: the `shape` of its profile, named as in config.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_model import EXPERTS, number, text_config

SHAPE_OPTIONS: dict[str, dict[str, Any]] = {
    "num_attention_heads": {
        "type": "int",
        "required": True,
        "description": "How many attention heads it has.",
        "example": 96,
    },
    "num_key_value_heads": {
        "type": "int",
        "required": True,
        "description": "How many heads its KV cache has.",
        "example": 8,
    },
    "num_experts": {
        "type": "int",
        "description": "How many routed experts a MoE layer has (also n_routed_experts); not set for a dense model.",
        "example": 160,
    },
    "moe_intermediate_size": {
        "type": "int",
        "description": "The inner size of one expert; not set for a dense model.",
        "example": 1536,
    },
}


def told_shape(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config.json says by the names of a profile: architecture, and of shape's keys those that it has.

    ValueError where it is none.
    """
    if not isinstance(config, Mapping):
        raise ValueError("it holds no object")
    text = text_config(config)
    names = {name: EXPERTS if name == "num_experts" else (name,) for name in SHAPE_OPTIONS}
    found = {name: number(text, keys) for name, keys in names.items()}
    told = {"architecture": next(iter(config.get("architectures") or ()), None), **found}
    return {name: value for name, value in told.items() if value}


def check_shape(where: str, profile: Mapping[str, Any], flags: Mapping[str, Any], degree: int) -> list[Finding]:
    """Findings where the model can't be cut into `degree` ranks.

    As SGLang's models cut them (glm4_moe.py of 0.5.4: asserts on heads, FusedMoE on experts): attention over the ranks
    of one data-parallel group, experts over ep groups, each of them over the rest.
    """
    shape = profile["shape"]
    experts_apart, groups = _number(flags, "ep-size", "expert-parallel-size", "ep"), 1
    if flags.get("enable-dp-attention"):
        groups = _number(flags, "dp-size", "data-parallel-size")
    findings = []
    for name, parts in (("dp-size", groups), ("ep-size", experts_apart)):
        if degree % parts:
            problem = f"Does not divide the {degree} ranks."
            findings.append(Finding(where, f"flags.{name}", str(parts), problem, f"Use {_divisors(degree)}."))
    if findings:
        return findings
    attention, moe = degree // groups, degree // experts_apart
    heads, kv_heads = int(shape["num_attention_heads"]), int(shape["num_key_value_heads"])
    uncut = [
        ("num_attention_heads", heads, attention, heads % attention),
        # Fewer heads than ranks are copied, so many ranks to each.
        ("num_key_value_heads", kv_heads, attention, kv_heads % attention and attention % kv_heads),
        ("num_experts", shape.get("num_experts"), experts_apart, int(shape.get("num_experts") or 0) % experts_apart),
        (
            "moe_intermediate_size",
            shape.get("moe_intermediate_size"),
            moe,
            int(shape.get("moe_intermediate_size") or 0) % moe,
        ),
    ]
    return [
        Finding(
            where,
            f"shape.{name}",
            shown(value),
            f"Can't be cut into {parts}: with {degree} ranks the server would end as it loads.",
            f"Use a number of hosts, and of tensor parallelism, that divides it: {_divisors(int(value))}.",
        )
        for name, value, parts, rest in uncut
        if rest
    ]


def _number(flags: Mapping[str, Any], *names: str) -> int:
    return max(1, int(next((flags[name] for name in names if flags.get(name) is not None), 1)))


def _divisors(number: int) -> str:
    """The first of them, which are the sizes of clusters that anyone has."""
    return ", ".join(str(part) for part in range(1, 17) if number % part == 0)
