# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Into how many ranks a model can be cut, and that the profiles say what their models are."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils._shape import check_shape, told_shape
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import COLLECTION

from lab import model

# GLM-4.7, but for the heads, of which it has 96 and 8.
SHAPE = {"num_attention_heads": 96, "num_key_value_heads": 8, "num_experts": 160, "moe_intermediate_size": 1536}


def uncut(degree: int, flags: dict[str, Any] | None = None, **changes: int) -> list[str]:
    """What can't be cut."""
    profile = {"shape": {**SHAPE, **changes}}
    return [finding.variable for finding in check_shape("model x", profile, flags or {}, degree)]


@pytest.mark.parametrize("degree", [1, 2, 4, 8, 16, 32])
def test_reference_can_be_cut_in_two_as_often_as_it_has_heads(degree: int) -> None:
    """Beyond 8 ranks, each head of the KV cache is on several of them."""
    assert uncut(degree) == []


@pytest.mark.parametrize(
    ("degree", "variables"),
    [
        (3, ["shape.num_key_value_heads"]),
        (5, ["shape.num_attention_heads", "shape.num_key_value_heads", "shape.moe_intermediate_size"]),
        (12, ["shape.num_key_value_heads"]),
        (64, ["shape.num_attention_heads"]),
    ],
)
def test_reference_can_not_be_cut_otherwise(degree: int, variables: list[str]) -> None:
    assert uncut(degree) == variables


def test_experts_apart_are_not_cut() -> None:
    assert uncut(4, {}, moe_intermediate_size=1537) == ["shape.moe_intermediate_size"]
    assert uncut(4, {"ep-size": 4}, moe_intermediate_size=1537) == []
    assert uncut(4, {"ep": 4}, num_experts=161) == ["shape.num_experts"]
    assert uncut(4, {"ep-size": 3}) == ["flags.ep-size"]


def test_attention_is_cut_within_a_data_parallel_group() -> None:
    flags = {"enable-dp-attention": True, "dp-size": 4}
    assert uncut(4, flags, num_attention_heads=7, num_key_value_heads=7) == []
    assert uncut(4, {"dp-size": 4}, num_attention_heads=7) == ["shape.num_attention_heads"]
    assert uncut(4, {**flags, "dp-size": 3}) == ["flags.dp-size"]


def shape_of(name: str) -> dict[str, int]:
    shape: dict[str, int] = yaml.safe_load((COLLECTION / f"models/{name}.yml").read_text())["shape"]
    return shape


def test_profile_of_the_lab_says_what_its_model_is() -> None:
    told = told_shape(model.config())
    assert told.pop("architecture") == "Glm4MoeForCausalLM"
    assert told == shape_of("glm4-moe-tiny")


def test_what_a_config_json_says_of_the_shape() -> None:
    """A multimodal model nests it, and names its experts otherwise; a dense one has none."""
    text = {"num_attention_heads": 32, "num_key_value_heads": 4, "num_local_experts": 8}
    nested = {"architectures": ["A", "B"], "text_config": text}
    assert told_shape(nested) == {
        "architecture": "A",
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "num_experts": 8,
    }
    assert told_shape({"num_attention_heads": 32}) == {"num_attention_heads": 32}
    assert told_shape({"moe_num_experts": [64, 64]}) == {"num_experts": 64}
    wrong: list[Any] = [[], {"num_attention_heads": "many"}]
    for config in wrong:
        with pytest.raises(ValueError, match=r"config\.json|object"):
            told_shape(config)


def test_profile_of_the_reference_says_what_the_kernel_configs_are_made_for() -> None:
    known = yaml.safe_load((COLLECTION / "kernel_configs/models.yml").read_text())["GLM-4.7-FP8"]
    shape = shape_of("glm-4.7-fp8")
    assert (shape["num_experts"], shape["moe_intermediate_size"]) == (known["experts"], known["intermediate"])
