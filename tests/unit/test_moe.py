# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Which kernel configs a model, split and release look for; tests/kernel holds this against the releases' code."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe import (
    Lookup,
    MoeShape,
    Resolution,
    check_file,
    check_pair,
    config_file,
    config_folder,
    directory_name,
    lookups,
    moe_shape,
    nearest_entry,
    resolve,
    why_no_lookup,
    without_file,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import Tile, tile_to_entry

from lab.model import SHAPE

GB10, LIMIT = "NVIDIA GB10", 101_376
REFERENCE = "0.5.4.post2"


def compressed(weights: dict[str, Any], inputs: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}, **more}


FP8_CHANNEL = compressed(
    {"num_bits": 8, "type": "float", "strategy": "channel", "dynamic": False},
    {"num_bits": 8, "type": "float", "strategy": "token", "dynamic": True},
    ignore=["lm_head", "re:.*mlp\\.gate$", "model.layers.92.mlp.experts.0.gate_proj"],
)
FP8_BLOCK = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
INT8_GROUP = {"num_bits": 8, "type": "int", "strategy": "channel"}

GLM = {
    "architectures": ["Glm4MoeForCausalLM"],
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "n_routed_experts": 160,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 92,
    "quantization_config": FP8_CHANNEL,
}
QWEN_235B = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 94,
    "quantization_config": {**FP8_BLOCK, "modules_to_not_convert": ["lm_head", "model.layers.0.mlp.gate"]},
}
QWEN_30B = {
    **{key: value for key, value in QWEN_235B.items() if key != "quantization_config"},
    "hidden_size": 2048,
    "moe_intermediate_size": 768,
    "num_hidden_layers": 48,
}
MINIMAX_M2 = {
    "architectures": ["MiniMaxM2ForCausalLM"],
    "hidden_size": 3072,
    "intermediate_size": 1536,
    "num_local_experts": 256,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 62,
    "shared_intermediate_size": 0,
    "quantization_config": {**FP8_BLOCK, "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"]},
}
DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "quantization_config": FP8_BLOCK,
}
MIXTRAL = {
    "architectures": ["MixtralForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
}
QWEN_NEXT = {
    **QWEN_30B,
    "architectures": ["Qwen3NextForCausalLM"],
    "num_experts": 512,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
}
# The tiny model of the simulated Sparks, in the order of MoeShape.
LAB: list[int] = [
    SHAPE[key]
    for key in ("n_routed_experts", "n_shared_experts", "num_experts_per_tok", "hidden_size", "moe_intermediate_size")
]
DENSE = {"architectures": ["Qwen3ForCausalLM"], "hidden_size": 4096, "intermediate_size": 12288}


def shape(config: dict[str, Any], quantization: str | None = None) -> MoeShape:
    found = moe_shape(config, quantization)
    assert found is not None
    return found


def quantized(quant: dict[str, Any]) -> MoeShape:
    return shape({**GLM, "quantization_config": quant})


# ---- config.json ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GLM, MoeShape("Glm4MoeForCausalLM", 160, 1, 8, 5120, 1536, "fp8_channel", None)),
        (QWEN_235B, MoeShape("Qwen3MoeForCausalLM", 128, 0, 8, 4096, 1536, "fp8_block", (128, 128))),
        (QWEN_30B, MoeShape("Qwen3MoeForCausalLM", 128, 0, 8, 2048, 768, "bf16", None)),
        (MINIMAX_M2, MoeShape("MiniMaxM2ForCausalLM", 256, 0, 8, 3072, 1536, "fp8_block", (128, 128))),
        (DEEPSEEK_V3, MoeShape("DeepseekV3ForCausalLM", 256, 1, 8, 7168, 2048, "fp8_block", (128, 128))),
        (MIXTRAL, MoeShape("MixtralForCausalLM", 8, 0, 2, 4096, 14336, "bf16", None)),
        (QWEN_NEXT, MoeShape("Qwen3NextForCausalLM", 512, 1, 8, 2048, 512, "bf16", None, 512)),
        (SHAPE, MoeShape("Glm4MoeForCausalLM", LAB[0], LAB[1], LAB[2], LAB[3], LAB[4], "bf16", None)),
    ],
)
def test_models(config: dict[str, Any], expected: MoeShape) -> None:
    assert moe_shape(config) == expected


def test_a_dense_model_has_no_shape() -> None:
    assert moe_shape(DENSE) is None
    assert moe_shape({**DENSE, "num_experts": 0}) is None
    assert why_no_lookup(None) == "the model is dense"
    assert why_no_lookup(shape(GLM)) == ""


def test_nested_text_config() -> None:
    nested = {"architectures": ["Glm4vMoeForConditionalGeneration"], "text_config": GLM, "vision_config": {}}
    assert shape(nested).experts == 160
    assert shape(nested).architecture == "Glm4vMoeForConditionalGeneration"
    assert shape(nested).kind == "fp8_channel"
    outside = {**nested, "text_config": QWEN_30B, "quantization_config": FP8_BLOCK}
    assert shape(outside).kind == "fp8_block"


@pytest.mark.parametrize(
    ("quant", "kind", "block"),
    [
        (FP8_BLOCK, "fp8_block", (128, 128)),
        ({"quant_method": "fp8", "activation_scheme": "dynamic"}, "fp8_tensor", None),
        ({"quant_method": "w8a8_fp8"}, "fp8_channel", None),
        ({"quant_method": "w8a8_int8"}, "int8_channel", None),
        (compressed(INT8_GROUP, {"num_bits": 8, "type": "int", "strategy": "token"}), "int8_channel", None),
        (
            compressed(
                {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 64]},
                {"num_bits": 8, "type": "float", "strategy": "group"},
            ),
            "fp8_block",
            (128, 64),
        ),
        (
            compressed({"num_bits": 8, "type": "float", "strategy": "tensor"}, {"num_bits": 8, "strategy": "tensor"}),
            "fp8_tensor",
            None,
        ),
        # Weights only: another kernel.
        (
            compressed({"num_bits": 8, "type": "float", "strategy": "channel"}, None),
            "other:compressed-tensors float8 channel",
            None,
        ),
        (
            compressed({"num_bits": 4, "type": "int", "strategy": "group"}, None),
            "other:compressed-tensors int4 group",
            None,
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"a": {"targets": ["re:.*"]}, "b": {"targets": ["x"]}},
            },
            "other:compressed-tensors with several groups",
            None,
        ),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "other:modelopt NVFP4", None),
        ({"quant_method": "modelopt", "quantization": {"quant_algo": "NVFP4"}}, "other:modelopt NVFP4", None),
        ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8_tensor", None),
        ({"quant_method": "awq", "bits": 4}, "other:awq", None),
        ({"quant_method": "mxfp4"}, "other:mxfp4", None),
        ({"quant_method": "blockwise_int8", "weight_block_size": [128, 128]}, "other:blockwise-int8", None),
        ({}, "other:unknown", None),
        ({**FP8_BLOCK, "routed_experts_quant_method": "mxfp4"}, "other:fp8 with experts in mxfp4", None),
        ({**FP8_BLOCK, "store_dtype": "MXFP4"}, "other:fp8 with experts in MXFP4", None),
    ],
)
def test_quantizations(quant: dict[str, Any], kind: str, block: tuple[int, int] | None) -> None:
    found = quantized(quant)
    assert (found.kind, found.block_shape) == (kind, block)
    if kind.startswith("other:"):
        assert kind[6:] in why_no_lookup(found)
        assert lookups(found, 4, 1, REFERENCE, GB10) == []


def test_deepseek_v4_does_not_tell_what_its_experts_are() -> None:
    v4 = {**DEEPSEEK_V3, "architectures": ["DeepseekV4ForCausalLM"]}
    assert shape(v4).kind == "other:fp8 with experts in fp4 or fp8, as the weights say"


def test_quantized_when_loaded() -> None:
    assert shape(QWEN_30B, "fp8").kind == "fp8_tensor"
    assert shape(QWEN_30B, "w8a8_int8").kind == "int8_channel"
    assert shape(QWEN_30B, "awq").kind == "other:awq"
    assert shape(GLM, "fp8").kind == "fp8_channel"


@pytest.mark.parametrize(
    ("left_out", "kind"),
    [
        (["re:.*experts.*"], "other:fp8 without the experts"),
        (["model.layers.46.mlp"], "other:fp8 without the experts"),
        (["model.layers.46.mlp.shared_experts", "re:.*mlp.gate$", "lm_head", "re:*broken"], "fp8_block"),
        (["model.layers.92.mlp.experts"], "fp8_block"),
    ],
)
def test_experts_that_are_left_out(left_out: list[str], kind: str) -> None:
    assert quantized({**FP8_BLOCK, "ignored_layers": left_out}).kind == kind


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": []}, "names no architecture"),
        ({"architectures": "Glm4MoeForCausalLM"}, "names no architecture"),
        ({"n_routed_experts": None}, "names no number of experts"),
        ({"n_routed_experts": "160"}, "n_routed_experts is '160'"),
        ({"n_routed_experts": True}, "n_routed_experts is True"),
        ({"num_experts_per_tok": None}, "gives no num_experts_per_tok"),
        ({"hidden_size": 0}, "gives no hidden_size"),
        ({"moe_intermediate_size": [1536, 768]}, r"moe_intermediate_size is \[1536, 768\]"),
        ({"quantization_config": {**FP8_BLOCK, "weight_block_size": [128]}}, "block of the scales is"),
    ],
)
def test_broken_models(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        moe_shape({**GLM, **change})
    assert "Mend: " in str(caught.value)


def test_a_list_for_all_layers_is_one_number() -> None:
    assert shape({**GLM, "moe_intermediate_size": [1536, 1536]}).intermediate == 1536


def test_config_that_is_no_object() -> None:
    with pytest.raises(ValueError, match="holds no object"):
        moe_shape([])  # type: ignore[arg-type]


# ---- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "tp", "ep", "version", "file"),
    [
        (GLM, 4, 1, REFERENCE, "E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8"),
        (GLM, 4, 1, "0.5.6", "E=161,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8,per_channel_quant=True"),
        (GLM, 8, 1, "0.5.23", "E=161,N=192,device_name=NVIDIA_GB10,dtype=fp8_w8a8,per_channel_quant=True"),
        (GLM, 4, 4, "0.5.23", "E=40,N=1536,device_name=NVIDIA_GB10,dtype=fp8_w8a8,per_channel_quant=True"),
        (GLM, 4, 2, REFERENCE, "E=80,N=768,device_name=NVIDIA_GB10,dtype=fp8_w8a8"),
        (QWEN_235B, 4, 1, "0.5.23", "E=128,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8,block_shape=[128, 128]"),
        (QWEN_30B, 2, 1, "0.5.10", "E=128,N=384,device_name=NVIDIA_GB10"),
        (MINIMAX_M2, 4, 1, "0.5.10", "E=256,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8,block_shape=[128, 128]"),
        (DEEPSEEK_V3, 8, 1, REFERENCE, "E=257,N=256,device_name=NVIDIA_GB10,dtype=fp8_w8a8,block_shape=[128, 128]"),
        (DEEPSEEK_V3, 8, 8, REFERENCE, "E=32,N=2048,device_name=NVIDIA_GB10,dtype=fp8_w8a8,block_shape=[128, 128]"),
        (QWEN_NEXT, 4, 1, "0.5.12", "E=512,N=128,device_name=NVIDIA_GB10"),
        (QWEN_NEXT, 4, 2, "0.5.14", "E=257,N=256,device_name=NVIDIA_GB10"),
        (SHAPE, 4, 1, REFERENCE, f"E={LAB[0]},N={LAB[4] // 4},device_name=NVIDIA_GB10"),
        (
            {**GLM, "quantization_config": {"quant_method": "w8a8_int8"}},
            4,
            1,
            "0.5.6",
            "E=161,N=384,device_name=NVIDIA_GB10,dtype=int8_w8a8,per_channel_quant=True",
        ),
    ],
)
def test_names(config: dict[str, Any], tp: int, ep: int, version: str, file: str) -> None:
    (found,) = lookups(shape(config), tp, ep, version, GB10)
    assert (found.file, found.down_file) == (f"{file}.json", f"{file}_down.json")
    assert file.startswith(f"E={found.experts},N={found.n},")


def test_an_unknown_architecture_has_two_candidates() -> None:
    config = {**GLM, "architectures": ["DeepseekV32ForCausalLM"]}
    assert [one.experts for one in lookups(shape(config), 4, 1, "0.5.23", GB10)] == [161, 160]
    assert [one.experts for one in lookups(shape(config), 4, 1, "0.5.23", GB10, fused=False)] == [160]
    assert [one.experts for one in lookups(shape(config), 4, 1, "0.5.23", GB10, fused=True)] == [161]
    plain = {**config, "n_shared_experts": 0}
    assert [one.experts for one in lookups(shape(plain), 4, 1, "0.5.23", GB10)] == [160]


def test_flags_decide() -> None:
    assert [one.experts for one in lookups(shape(GLM), 4, 1, "0.5.23", GB10, fused=False)] == [160]
    # Without shared experts there is nothing to fuse.
    assert [one.experts for one in lookups(shape(QWEN_30B), 4, 1, "0.5.23", GB10, fused=True)] == [128]


@pytest.mark.parametrize(
    ("config", "tp", "ep", "said"),
    [
        (GLM, 5, 1, "width of 1536 can't be split into 5"),
        (GLM, 4, 3, "tp 4 can't be split into ep 3"),
        (GLM, 0, 1, "tp 0 can't be split"),
        ({**GLM, "n_routed_experts": 162}, 4, 4, "162 experts can't be shared out to ep 4"),
        (QWEN_235B, 8, 1, "leaves 192 of an expert's width to a rank, which the scales' blocks of 128 x 128"),
    ],
)
def test_splits_that_sglang_refuses(config: dict[str, Any], tp: int, ep: int, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        lookups(shape(config), tp, ep, REFERENCE, GB10)
    assert "Mend: " in str(caught.value)


def test_an_unsplit_expert_needs_no_whole_blocks_along_k() -> None:
    narrow = shape({**QWEN_235B, "quantization_config": {**FP8_BLOCK, "weight_block_size": [64, 1024]}})
    assert lookups(narrow, 1, 1, REFERENCE, GB10)[0].n == 1536
    with pytest.raises(ValueError, match="64 x 1024"):
        lookups(narrow, 2, 1, REFERENCE, GB10)
    wide = shape({**QWEN_235B, "quantization_config": {**FP8_BLOCK, "weight_block_size": [1024, 64]}})
    with pytest.raises(ValueError, match="1024 x 64"):
        lookups(wide, 1, 1, REFERENCE, GB10)


def test_old_releases_are_not_covered() -> None:
    with pytest.raises(ValueError, match=r"0\.5\.4\.post1 looks for other files"):
        lookups(shape(GLM), 4, 1, "0.5.4.post1", GB10)


def test_where_the_configs_lie() -> None:
    assert config_folder("0.5.10.post1") == "srt/layers/moe/fused_moe_triton"
    assert config_folder("0.5.11") == "srt/layers/moe/moe_runner/triton_utils"


# ---- directories ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "triton", "existing", "directory"),
    [
        (REFERENCE, "3.5.0", [], "triton_3_5_0"),
        (REFERENCE, "3.5.0+git12", ["triton_3_4_0"], "triton_3_5_0+git12"),
        ("0.5.12", "3.5.0", ["triton_3_8_0"], "triton_3_5_0"),
        ("0.5.12", "3.5.0+git12", ["triton_3_4_0"], "triton_3_5_0"),
        ("0.5.12", "3.5.0+git12", ["triton_3_4_0", "triton_3_10_0", "triton_3_8_0", "notes"], "triton_3_10_0"),
    ],
)
def test_directory_name(version: str, triton: str, existing: list[str], directory: str) -> None:
    assert directory_name(version, triton, existing) == directory


def test_a_triton_without_a_number() -> None:
    with pytest.raises(ValueError, match="'main' is not a version of Triton"):
        directory_name("0.5.12", "main", [])


LOOKUP = Lookup("up.json", "down.json", 160, 384, "fp8_w8a8", None, False)


@pytest.mark.parametrize(
    ("version", "triton", "listing", "up", "down"),
    [
        (
            REFERENCE,
            "3.5.0",
            {"triton_3_5_0": ["up.json", "down.json"]},
            Resolution("triton_3_5_0/up.json", "exact"),
            Resolution("triton_3_5_0/down.json", "exact"),
        ),
        (
            REFERENCE,
            "3.5.1",
            {"triton_3_5_0": ["up.json"], "triton_3_1_0": ["down.json"]},
            Resolution(None, "default"),
            Resolution("triton_3_1_0/down.json", "fallback"),
        ),
        (
            "0.5.12",
            "3.5.1",
            {"triton_3_5_0": ["up.json"], "triton_3_10_0": ["up.json"]},
            Resolution("triton_3_10_0/up.json", "fallback"),
            Resolution("triton_3_10_0/up.json", "up file"),
        ),
        (REFERENCE, "3.5.0", None, Resolution(None, "default"), Resolution(None, "default")),
    ],
)
def test_resolve(version: str, triton: str, listing: Any, up: Resolution, down: Resolution) -> None:
    assert resolve(listing, LOOKUP, "up", version, triton) == up
    assert resolve(listing, LOOKUP, "down", version, triton) == down


def test_resolve_tells_of_a_directory_that_stops_the_server() -> None:
    listing = {"triton_3_5_0+git12": ["other.json"], "triton_3_4_0": ["up.json"]}
    found = resolve(listing, LOOKUP, "up", "0.5.12", "3.5.0")
    assert found.path is None
    assert found.raises == "ValueError: invalid literal for int() with base 10: '0+git12'"
    assert resolve(listing, LOOKUP, "up", REFERENCE, "3.5.0") == Resolution("triton_3_4_0/up.json", "fallback")
    missing = resolve(None, LOOKUP, "down", "0.5.12", "3.5.0")
    assert missing.raises == "FileNotFoundError: there is no folder configs/"


# ---- what a file says -------------------------------------------------------------------------

UP = "E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"
GOOD = tile_to_entry(Tile(16, 128, 128, 1, 4, 4))
LARGE = tile_to_entry(Tile(128, 256, 128, 1, 8, 4))


def check(data: Any, name: str = UP, kind: str = "fp8_channel", block: tuple[int, int] | None = None) -> list[str]:
    return check_file(name, data, kind, block, LIMIT, GB10)


def test_a_good_file() -> None:
    assert check({"1": GOOD, "512": GOOD}) == []
    assert check({"1": GOOD}, UP.replace(".json", ",per_channel_quant=True_down.json")) == []
    block = "E=128,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8,block_shape=[128, 128].json"
    assert check({"1": GOOD}, block, "fp8_block", (128, 128)) == []
    half = {**GOOD, "BLOCK_SIZE_K": 64}
    assert check({"1": half}, "E=128,N=384,device_name=NVIDIA_GB10.json", "bf16") == []


def test_an_entry_that_is_over_the_limit() -> None:
    assert check({"1": GOOD, "512": LARGE}) == [
        "M 512: 147,456 bytes of shared memory, over the 101,376 of NVIDIA GB10"
    ]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "It holds no entries"),
        ([GOOD], "It holds no entries"),
        ({"0": GOOD}, "M 0: is not a whole number of 1 or more"),
        ({"many": GOOD}, "M many: is not a whole number"),
        ({"01": GOOD}, "M 01: is not a whole number"),
        ({"8": GOOD, 8: GOOD}, "M 8: stands here twice"),
        ({"8": [GOOD]}, "M 8: The entry is"),
        ({"8": {**GOOD, "USE_TMA": True}}, "M 8: USE_TMA is not covered"),
        ({"8": {**GOOD, "SPLIT_K": 1}}, "M 8: SPLIT_K is not a key"),
        ({"8": {**GOOD, "BLOCK_SIZE_N": 96}}, "M 8: BLOCK_SIZE_N is 96. Mend: give a power of two of 16 or more"),
        ({"8": {**GOOD, "BLOCK_SIZE_M": 8}}, "M 8: BLOCK_SIZE_M is 8."),
        ({"8": {**GOOD, "BLOCK_SIZE_K": 16}}, "M 8: BLOCK_SIZE_K is 16. Mend: give a power of two of 32 or more"),
        ({"8": {**GOOD, "num_warps": 64}}, "M 8: num_warps is 64. Mend: give a power of two from 1 to 32"),
        ({"8": {**GOOD, "num_warps": 3}}, "M 8: num_warps is 3."),
    ],
)
def test_broken_files(data: Any, said: str) -> None:
    (problem,) = check(data)
    assert problem.startswith(said)
    assert "Mend: " in problem


def test_16_bits_allow_a_shorter_k() -> None:
    short = {"8": {**GOOD, "BLOCK_SIZE_K": 16}}
    assert check(short, "E=128,N=384,device_name=NVIDIA_GB10.json", "bf16") == []


def test_a_tile_across_two_blocks_of_scales() -> None:
    block = "E=128,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8,block_shape=[128, 64].json"
    (problem,) = check({"1": GOOD}, block, "fp8_block", (128, 64))
    assert problem.startswith("M 1: BLOCK_SIZE_K is 128, which does not divide the scales' block of 64")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("configs.json", "Its name is not one"),
        (UP.replace("GB10", "H200"), "It is for NVIDIA_H200, not for NVIDIA_GB10"),
        (UP.replace(",dtype=fp8_w8a8", ""), "Its name is not for experts in fp8_channel"),
        (UP.replace(".json", ",block_shape=[128, 128].json"), "Its name is not for experts in fp8_channel"),
    ],
)
def test_names_that_do_not_fit(name: str, said: str) -> None:
    (problem,) = check({"1": GOOD}, name)
    assert problem.startswith(said)
    assert "Mend: " in problem


def test_per_channel_in_the_name_of_a_tensor_wise_file() -> None:
    (problem,) = check({"1": GOOD}, UP.replace(".json", ",per_channel_quant=True.json"), "fp8_tensor")
    assert problem.startswith("per_channel_quant=True is not for fp8_tensor")


def rows(**sizes: int) -> dict[str, dict[str, int]]:
    return {key[1:]: {**GOOD, "BLOCK_SIZE_M": size} for key, size in sizes.items()}


def test_pairs() -> None:
    assert check_pair(rows(m1=16, m64=64), rows(m1=16, m64=64)) == []
    # The nearest key counts: up changes at 33, down at 17.
    assert [problem.split(". ")[0] for problem in check_pair(rows(m1=16, m64=64), rows(m1=16, m32=64))] == [
        "M 17 to 32: BLOCK_SIZE_M is 16 for up and 64 for down"
    ]
    assert [text.split(":")[0] for text in check_pair(rows(m1=16), rows(m1=16, m2=32, m3=16, m9=32))] == [
        "M 2",
        "M 7 and more",
    ]
    # At the tie of 6 the first in the file's order counts.
    assert [text.split(":")[0] for text in check_pair(rows(m1=16), rows(m8=32, m4=16))] == ["M 6 and more"]
    assert [text.split(":")[0] for text in check_pair(rows(m1=16), rows(m4=16, m8=32))] == ["M 7 and more"]


def test_nearest_entry_takes_the_first_of_a_tie() -> None:
    assert nearest_entry([8, 4, 16], 6) == 8
    assert nearest_entry([4, 8, 16], 6) == 4
    assert nearest_entry([4, 8, 16], 13) == 16


@pytest.mark.parametrize(
    ("version", "limit", "kind", "verdict", "fits"),
    [
        (REFERENCE, LIMIT, "fp8_channel", "fails at the first forward of more than 160 tokens", (True, False)),
        (REFERENCE, 65_536, "fp8_channel", "fails at the first forward", (False, False)),
        (REFERENCE, 232_448, "fp8_channel", "runs, untuned", (True, True)),
        ("0.5.14", LIMIT, "fp8_channel", "runs, untuned", (True, True)),
        (REFERENCE, LIMIT, "bf16", "runs, untuned", (True, True)),
    ],
)
def test_without_a_file(version: str, limit: int, kind: str, verdict: str, fits: tuple[bool, bool]) -> None:
    found = without_file(LOOKUP, kind, version, limit)
    assert found["verdict"] == verdict
    assert (found["small"]["fits"], found["large"]["fits"]) == fits
    assert found["large"]["tile"] != found["small"]["tile"]


def test_a_fused_expert_counts_in_the_verdict() -> None:
    (lookup,) = lookups(shape(GLM), 4, 1, "0.5.6", GB10)
    found = without_file(lookup, "fp8_channel", "0.5.6", LIMIT)
    assert found["verdict"] == "fails at the first forward of more than 161 tokens"
    assert (found["small"]["bytes"], found["large"]["bytes"]) == (73_728, 147_456)


def test_block_shape_has_a_space_in_its_name() -> None:
    assert config_file(8, 64, "NVIDIA H100 80GB HBM3", None, (128, 128), False, True) == (
        "E=8,N=64,device_name=NVIDIA_H100_80GB_HBM3,block_shape=[128, 128]_down.json"
    )
