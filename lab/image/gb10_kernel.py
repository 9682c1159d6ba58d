"""What a GB10 would make of SGLang's MoE kernel configs, asked before the CPU computes the experts.

The files are looked up by SGLang's own code, with its own log lines; the GPU is played: its name, and how Triton
refuses a tile that needs more shared memory than the GPU has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_DEVICE_NAME = "NVIDIA GB10"
# CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN of a GB10.
_LIMIT = 101_376
_ELEMENT_BYTES = 2  # bfloat16, which the tiny model is in
# Triton's own, for entries that leave it out.
_STAGES = 3
# Stands for whatever only a GPU shows: a rollout has to find its way back from what no check before it can see.
_FAULTY_WARPS = 32


class OutOfResources(RuntimeError):  # noqa: N818  # its name in Triton
    """In Triton's words."""

    def __init__(self, needed: int, limit: int, name: str) -> None:
        super().__init__(
            f"out of resource: {name}, Required: {needed}, Hardware limit: {limit}. "
            "Reducing block sizes or `num_stages` may help."
        )


def _launch(tile: dict[str, int]) -> None:
    rows, columns, depth = (tile[f"BLOCK_SIZE_{side}"] for side in "MNK")
    needed = (rows + columns) * depth * _ELEMENT_BYTES * (tile.get("num_stages", _STAGES) - 1)
    if needed > _LIMIT:
        raise OutOfResources(needed, _LIMIT, "shared memory")
    if tile.get("num_warps") == _FAULTY_WARPS:
        raise RuntimeError("PTXAS error: Internal Triton PTX codegen error")


def before(forward: Callable[..., Any]) -> Callable[..., Any]:
    """The forward of the experts on CPU, with the launches of both GEMMs of a GB10 played before it."""
    from sglang.srt.layers.moe.fused_moe_triton import fused_moe_triton_config as configs

    configs.get_device_name = lambda *_: _DEVICE_NAME

    def played(layer: Any, tokens: Any, topk_output: Any, *rest: Any, **named: Any) -> Any:
        shapes = (layer.w13_weight.shape, layer.w2_weight.shape)
        top_k = topk_output.topk_ids.shape[1]
        up, (down, _) = configs.try_get_optimal_moe_config(
            *shapes, top_k, None, tokens.shape[0], return_down_config=True
        )
        _launch(up)
        _launch(down or up)
        return forward(layer, tokens, topk_output, *rest, **named)

    return played
