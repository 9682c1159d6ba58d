# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The MoE layers of a model, as its config.json describes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import KINDS


@dataclass(frozen=True)
class MoeShape:
    """The MoE layers of a model. hidden and intermediate are of one expert, unsplit; block_shape is (n, k)."""

    architecture: str
    experts: int
    shared_experts: int
    top_k: int
    hidden: int
    intermediate: int
    kind: str
    block_shape: tuple[int, int] | None
    shared_intermediate: int = 0
    """Of the shared expert where the config names it by its own key, else 0: then it is like the others."""


EXPERTS = ("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts")
"""Keys for the number of routed experts; the first that is set counts."""

_TOP_K = ("num_experts_per_tok", "num_experts_per_token", "moe_topk", "moe_k", "top_k_experts")
_SHARED = ("n_shared_experts", "num_shared_experts", "num_shared_expert", "moe_num_shared_experts")
_SHARED_SIZES = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)


def moe_shape(config: Mapping[str, Any], quantization: str | None = None) -> MoeShape | None:
    """The MoE layers that config.json describes, None for a dense model.

    quantization: the value of --quantization, for a checkpoint that isn't quantized itself.
    ValueError when a key that SGLang needs is missing or odd.
    """
    if not isinstance(config, Mapping):
        raise ValueError("config.json holds no object. Mend: copy it again from the model's repository.")
    text = text_config(config)
    experts = number(text, EXPERTS)
    if experts is None and number(text, _TOP_K):
        raise ValueError(f"config.json names no number of experts. Mend: it needs one of {', '.join(EXPERTS)}.")
    if experts is None or experts < 2:
        return None
    own_size = number(text, _SHARED_SIZES) or 0
    shared = number(text, _SHARED)
    kind, block_shape = _kind(config, text, quantization)
    return MoeShape(
        architecture=_architecture(config),
        experts=experts,
        shared_experts=(1 if own_size else 0) if shared is None else shared,
        top_k=_needed(text, _TOP_K),
        hidden=_needed(text, ("hidden_size",)),
        intermediate=_needed(text, ("moe_intermediate_size", "intermediate_size")),
        kind=kind,
        block_shape=block_shape,
        shared_intermediate=own_size,
    )


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The part that describes the language model: multimodal models nest it."""
    for key in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(key), Mapping):
            part: Mapping[str, Any] = config[key]
            return part
    return config


def _architecture(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    if not isinstance(names, Sequence) or isinstance(names, str) or not names or not isinstance(names[0], str):
        raise ValueError("config.json names no architecture. Mend: it needs a list `architectures`.")
    return names[0]


def number(config: Mapping[str, Any], keys: Iterable[str]) -> int | None:
    """The first of the keys that is set, as a number of 0 or more; a list of equal numbers counts as one."""
    for key in keys:
        value = config.get(key)
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"config.json: {key} is {value!r}. Mend: it has to be a whole number of 0 or more.")
        return value
    return None


def _needed(config: Mapping[str, Any], keys: Sequence[str]) -> int:
    value = number(config, keys)
    if not value:
        raise ValueError(f"config.json gives no {' or '.join(keys)}. Mend: copy it again from the model's repository.")
    return value


def _kind(
    config: Mapping[str, Any], text: Mapping[str, Any], quantization: str | None
) -> tuple[str, tuple[int, int] | None]:
    """The experts' quantization, and the block of block-wise scales."""
    quant = next(
        (
            part[key]
            for part in (config, text)
            for key in ("quantization_config", "compression_config")
            if isinstance(part.get(key), Mapping)
        ),
        None,
    )
    if quant is None:
        return _ONLINE.get(quantization or "", f"other:{quantization}"), None
    method = str(quant.get("quant_method") or quant.get("producer", {}).get("name") or "").replace("_", "-").lower()
    own = _experts_own_method(quant, config)
    if own:
        return f"other:{method} with experts in {own}", None
    left_out = quant.get("ignored_layers") or quant.get("modules_to_not_convert") or quant.get("ignore") or []
    if _experts_left_out(left_out, text):
        return f"other:{method} without the experts", None
    if method == "fp8":
        block = quant.get("weight_block_size")
        return ("fp8_tensor", None) if block is None else ("fp8_block", _block_shape(block))
    if method == "compressed-tensors":
        return _compressed_tensors(quant)
    if method in ("w8a8-fp8", "w8a8-int8"):
        return method[5:] + "_channel", None
    if method.startswith("modelopt"):
        algorithm = quant.get("quant_algo") or quant.get("quantization", {}).get("quant_algo") or "unknown"
        return ("fp8_tensor" if algorithm == "FP8" else f"other:modelopt {algorithm}"), None
    return f"other:{method or 'unknown'}", None


def _experts_own_method(quant: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The quantization of the experts where it is another than the rest's, "" if it isn't."""
    if quant.get("routed_experts_quant_method"):
        return str(quant["routed_experts_quant_method"])
    if "fp4" in str(quant.get("store_dtype")).lower():
        return str(quant["store_dtype"])
    # DeepSeek V4 says FP8, and has experts in FP4 or FP8; SGLang looks into the weights.
    return "fp4 or fp8, as the weights say" if _architecture(config).startswith("DeepseekV4") else ""


# What --quantization makes of weights that are loaded in 16 bits.
_ONLINE = {"": "bf16", "fp8": "fp8_tensor", "w8a8_fp8": "fp8_channel", "w8a8_int8": "int8_channel"}


def _block_shape(block: Any) -> tuple[int, int]:
    if not isinstance(block, Sequence) or len(block) != 2 or not all(isinstance(n, int) and n > 0 for n in block):
        raise ValueError(f"config.json: the block of the scales is {block!r}. Mend: it has to be two sizes.")
    return block[0], block[1]


def _compressed_tensors(quant: Mapping[str, Any]) -> tuple[str, tuple[int, int] | None]:
    """The scheme of the group that covers the experts, which are Linear layers to compressed-tensors."""
    groups = [group for group in (quant.get("config_groups") or {}).values() if isinstance(group, Mapping)]
    fitting = [group for group in groups if "Linear" in (group.get("targets") or [])]
    if len(groups) == 1:
        fitting = groups
    if len(fitting) != 1:
        return "other:compressed-tensors with several groups", None
    weights, inputs = fitting[0].get("weights") or {}, fitting[0].get("input_activations") or {}
    form = f"{weights.get('type')}{weights.get('num_bits')}"
    strategy = weights.get("strategy")
    if form == "int8" and strategy == "channel" and inputs.get("num_bits") == 8:
        # On CUDA this checkpoint is served with --quantization w8a8_int8 or not at all.
        return "int8_channel", None
    if form != "float8" or inputs.get("num_bits") != 8 or strategy not in ("channel", "tensor", "block"):
        return f"other:compressed-tensors {form} {strategy}", None
    return f"fp8_{strategy}", _block_shape(weights.get("block_structure")) if strategy == "block" else None


def _experts_left_out(patterns: Any, text: Mapping[str, Any]) -> bool:
    """Whether a list of unquantized modules names the experts of a layer in the middle of the model.

    The layers at its ends may be dense, or be a draft model that is stored with it.
    """
    layer = (number(text, ("num_hidden_layers",)) or 0) // 2
    names = [
        f"{root}.layers.{layer}.{block}.experts{expert}"
        for root in ("model", "model.language_model", "language_model.model")
        for block in ("mlp", "block_sparse_moe", "feed_forward")
        for expert in ("", ".0.gate_proj", ".0.w1")
    ]
    return any(_matches(str(pattern), name) for pattern in patterns for name in names)


def _matches(pattern: str, name: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.match(pattern[3:], name) is not None
        except re.error:
            return False
    # A bare word such as `lm_head` names a module; a path names it and all below it.
    return name == pattern or name.startswith(pattern + ".") or (pattern == "experts" and ".experts" in name)


def why_no_lookup(shape: MoeShape | None) -> str:
    """Why SGLang looks for no file that is known here, "" if it does."""
    if shape is None:
        return "the model is dense"
    if shape.kind not in KINDS:
        method = shape.kind.partition(":")[2]
        return f"experts quantized as {method} go through kernels, or look for files, that are not covered here"
    return ""
