# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Which fused-MoE kernel config files a release of SGLang looks for, and which it would pick.

What changed in which release was read from the wheels on PyPI from 0.5.4 to 0.5.23; tests/kernel
holds the answers against the releases' own code. A newer release is taken to do what the last one does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_files import (
    DTYPES,
    PAIR_OVERRIDDEN,
    PER_CHANNEL_KINDS,
    check_file,
    check_pair,
    config_file,
    entry_tile,
    nearest_entry,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_model import MoeShape, moe_shape, why_no_lookup
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import (
    KINDS,
    default_tile,
    shared_bytes,
    since,
)

__all__ = [
    "PAIR_OVERRIDDEN",
    "Lookup",
    "MoeShape",
    "Resolution",
    "check_file",
    "check_pair",
    "config_file",
    "config_folder",
    "directory_name",
    "entry_tile",
    "lookups",
    "moe_shape",
    "nearest_entry",
    "resolve",
    "why_no_lookup",
    "without_file",
]

OLDEST = "0.5.4.post2"
"""The first release with the lookup described here (a config for each of the two GEMMs)."""

# The release that brought each change of the lookup.
PER_CHANNEL_IN_NAME = "0.5.6"
MOVED = "0.5.11"
SCANS_DIRECTORIES = "0.5.12"
DOWN_REUSES_UP = "0.5.16"

# Where get_moe_configs and its `configs` folder lie below the package, before and from MOVED on.
_FOLDERS = ("srt/layers/moe/fused_moe_triton", "srt/layers/moe/moe_runner/triton_utils")

# The Triton versions that releases before SCANS_DIRECTORIES try, in their order, when the exact one has no file.
_FALLBACKS = ("3.4.0", "3.3.1", "3.2.0", "3.1.0")


@dataclass(frozen=True)
class Lookup:
    """What get_moe_configs is asked for, and the two names that it makes of it. experts and n are one rank's."""

    file: str
    down_file: str
    experts: int
    n: int
    dtype: str | None
    block_shape: tuple[int, int] | None
    per_channel: bool


@dataclass(frozen=True)
class Resolution:
    """What a release does for one GEMM.

    path: below `configs/`, None for the default; how: exact, fallback, up file or default; raises: the error
    that it ends with instead.
    """

    path: str | None
    how: str
    raises: str | None = None


@dataclass(frozen=True)
class _Fusing:
    """Since when an architecture computes its shared expert as one more routed expert on CUDA, and when not.

    experts: the counts of routed experts that it does it for, () for any; under_ep: the releases, from the first
    to before the second, in which it does it under expert parallelism too; same_size: only if the shared expert is
    as wide as the others.
    """

    first: str
    experts: tuple[int, ...] = ()
    under_ep: tuple[str, str] | None = None
    same_size: bool = False


_NO_END = "9999"

_FUSING = {
    "DeepseekV3ForCausalLM": _Fusing(OLDEST, experts=(256,), under_ep=("0.5.6.post1", "0.5.6.post2")),
    "Glm4MoeForCausalLM": _Fusing("0.5.6"),
    # 0.5.6 gives GLM-4.5V the layers of GLM-4.5, and does not ask about expert parallelism yet.
    "Glm4vMoeForConditionalGeneration": _Fusing("0.5.6", under_ep=("0.5.6", "0.5.6.post1")),
    "Glm4MoeLiteForCausalLM": _Fusing("0.5.8"),
    "GlmMoeDsaForCausalLM": _Fusing("0.5.9", experts=(256,)),
    "Qwen3NextForCausalLM": _Fusing("0.5.14", under_ep=("0.5.14", _NO_END), same_size=True),
    "MiniMaxM3SparseForCausalLM": _Fusing("0.5.16"),
    "MiniMaxM3SparseForConditionalGeneration": _Fusing("0.5.16"),
}

# These keep their shared experts apart on CUDA in every release up to 0.5.23.
_NEVER_FUSING = (
    "BailingMoeForCausalLM",
    "BailingMoeV2ForCausalLM",
    "DeepseekV2ForCausalLM",
    "DeepseekV4ForCausalLM",
    "Ernie4_5_MoeForCausalLM",
    "Qwen2MoeForCausalLM",
    "Qwen3_5MoeForCausalLM",
    "Qwen3_5MoeForConditionalGeneration",
    "Step3p5ForCausalLM",
)


# ---- names ------------------------------------------------------------------------------------


def lookups(
    shape: MoeShape, tp: int, ep: int, sglang_version: str, device_name: str, fused: bool | None = None
) -> list[Lookup]:
    """What each rank looks up, [] for a quantization that goes another way.

    tp: ranks; ep: of these, groups that share out the experts. fused: what --disable-shared-experts-fusion and its
    like make of it, None for the release's own choice. Two candidates where that can't be told from here.
    ValueError for a split or release that SGLang refuses or that isn't covered.
    """
    if not since(sglang_version, OLDEST):
        raise ValueError(f"SGLang {sglang_version} looks for other files. Mend: use {OLDEST} or newer.")
    if shape.kind not in KINDS:
        return []
    n = _rank_size(shape, tp, ep)
    routed = shape.experts // ep
    choices = _fused(shape, ep, sglang_version, fused)
    # Without shared experts both choices come to the same.
    shared = {shape.shared_experts if choice else 0 for choice in choices}
    return [_lookup(shape, routed + count, n, sglang_version, device_name) for count in sorted(shared, reverse=True)]


def _lookup(shape: MoeShape, experts: int, n: int, sglang_version: str, device_name: str) -> Lookup:
    dtype = DTYPES[shape.kind]
    per_channel = shape.kind in PER_CHANNEL_KINDS and since(sglang_version, PER_CHANNEL_IN_NAME)
    up, down = (
        config_file(experts, n, device_name, dtype, shape.block_shape, per_channel, down) for down in (False, True)
    )
    return Lookup(up, down, experts, n, dtype, shape.block_shape, per_channel)


def _rank_size(shape: MoeShape, tp: int, ep: int) -> int:
    """The part of an expert's width that one rank holds."""
    if tp < 1 or ep < 1 or tp % ep:
        raise ValueError(f"tp {tp} can't be split into ep {ep}. Mend: choose ep so that it divides tp.")
    if shape.experts % ep:
        raise ValueError(f"{shape.experts} experts can't be shared out to ep {ep}. Mend: choose an ep that divides it.")
    parts = tp // ep
    if shape.intermediate % parts:
        raise ValueError(
            f"An expert's width of {shape.intermediate} can't be split into {parts} (tp {tp} / ep {ep}). "
            "Mend: choose a tp that divides it."
        )
    n = shape.intermediate // parts
    if shape.kind == "fp8_block" and shape.block_shape:
        block_n, block_k = shape.block_shape
        # The second size is checked by SGLang only if there is a split.
        if n % block_n or (parts > 1 and n % block_k):
            raise ValueError(
                f"tp {tp} / ep {ep} leaves {n} of an expert's width to a rank, which the scales' blocks of "
                f"{block_n} x {block_k} don't divide. Mend: choose a smaller tp, or a larger ep."
            )
    return n


def _fused(shape: MoeShape, ep: int, sglang_version: str, fused: bool | None) -> set[bool]:
    """Whether the shared expert counts as one more expert; both where it can't be told."""
    if fused is not None:
        return {fused}
    rule = _FUSING.get(shape.architecture)
    if rule is None:
        return {False} if shape.architecture in _NEVER_FUSING else {False, True}
    with_ep = rule.under_ep or (_NO_END, _NO_END)
    fuses = (
        since(sglang_version, rule.first)
        and shape.shared_experts == 1
        and (not rule.experts or shape.experts in rule.experts)
        and (not rule.same_size or shape.shared_intermediate == shape.intermediate)
        and (ep == 1 or (since(sglang_version, with_ep[0]) and not since(sglang_version, with_ep[1])))
    )
    return {fuses}


# ---- directories ------------------------------------------------------------------------------


def config_folder(sglang_version: str) -> str:
    """The folder below the package that holds `configs/`."""
    return _FOLDERS[since(sglang_version, MOVED)]


def _exact(triton_version: str) -> str:
    return f"triton_{triton_version.replace('.', '_')}"


def _sort_key(directory: str) -> tuple[int, ...]:
    """The key by which SGLang sorts the directories; ValueError for the names that it can't take either."""
    return tuple(int(part) for part in directory[len("triton_") :].replace("_", ".").split("."))


def directory_name(sglang_version: str, triton_version: str, existing: Sequence[str]) -> str:
    """The directory below `configs/` where a file is found before any other of the same name.

    That is the one named after the image's Triton. A release that sorts the directories by number stops at a name
    such as triton_3_5_0+git as soon as any other model's file is missing; it gets the newest numbered one instead.
    existing: the directories that the image has.
    """
    exact = _exact(triton_version)
    if not since(sglang_version, SCANS_DIRECTORIES):
        return exact
    try:
        _sort_key(exact)
    except ValueError:
        pass
    else:
        return exact
    numbers = re.match(r"\d+(?:\.\d+)*", triton_version)
    if not numbers:
        raise ValueError(f"{triton_version!r} is not a version of Triton. Mend: give one such as 3.5.0.")
    numbered = [name for name in existing if re.fullmatch(r"triton_\d+(_\d+)*", name)]
    return max([*numbered, _exact(numbers.group())], key=_sort_key)


def resolve(
    listing: Mapping[str, Collection[str]] | None, lookup: Lookup, gemm: str, sglang_version: str, triton_version: str
) -> Resolution:
    """What the release picks for one GEMM ("up" or "down").

    listing: the file names of each directory below `configs/`, None if there is no such folder. In the releases
    before 0.5.16 get_moe_configs itself has no answer for a missing down file; the caller then takes the up file.
    """
    name = lookup.down_file if gemm == "down" else lookup.file
    found = _search(listing, name, sglang_version, triton_version)
    if gemm == "up" or found.how != "default" or found.raises:
        return found
    up = _search(listing, lookup.file, sglang_version, triton_version)
    return Resolution(up.path, "up file", up.raises) if up.path else up


def _search(
    listing: Mapping[str, Collection[str]] | None, name: str, sglang_version: str, triton_version: str
) -> Resolution:
    exact = _exact(triton_version)
    if listing and name in listing.get(exact, ()):
        return Resolution(f"{exact}/{name}", "exact")
    try:
        directories = _fallbacks(listing, sglang_version, triton_version)
    except (OSError, ValueError) as error:
        return Resolution(None, "default", f"{type(error).__name__}: {error}")
    for directory in directories:
        if listing and name in listing.get(directory, ()):
            return Resolution(f"{directory}/{name}", "fallback")
    return Resolution(None, "default")


def _fallbacks(listing: Mapping[str, Collection[str]] | None, sglang_version: str, triton_version: str) -> list[str]:
    """The other directories in the order in which the release tries them."""
    if not since(sglang_version, SCANS_DIRECTORIES):
        return [_exact(version) for version in _FALLBACKS if version != triton_version]
    if listing is None:
        raise FileNotFoundError("there is no folder configs/")
    # A dot in a name is lost on SGLang's way to a version and back.
    names = [name.replace(".", "_") for name in listing if name.startswith("triton_")]
    return [name for name in sorted(names, key=_sort_key, reverse=True) if name != _exact(triton_version)]


# ---- without a file ---------------------------------------------------------------------------


def without_file(lookup: Lookup, kind: str, sglang_version: str, limit: int) -> dict[str, Any]:
    """The tiles that stand in for a missing file, for up to and for more than E tokens, and what comes of them.

    limit: the GPU's opt-in shared memory a block in bytes.
    """
    tiles = {
        size: default_tile(m, lookup.experts, kind, lookup.block_shape, sglang_version, limit)
        for size, m in (("small", lookup.experts), ("large", lookup.experts + 1))
    }
    needed = {size: shared_bytes(tile, kind, lookup.block_shape) for size, tile in tiles.items()}
    if needed["small"] > limit:
        verdict = "fails at the first forward"
    elif needed["large"] > limit:
        verdict = f"fails at the first forward of more than {lookup.experts} tokens"
    else:
        verdict = "runs, untuned"
    facts: dict[str, Any] = {
        size: {"tile": tile, "bytes": needed[size], "fits": needed[size] <= limit} for size, tile in tiles.items()
    }
    return {**facts, "verdict": verdict}
