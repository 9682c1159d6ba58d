# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The values of launch_server's options: numbers where numbers are wanted, ranges, and what goes together.

The rules are those of SGLang 0.5.4.post2's server_args.py, which keeps them by asserts in each rank, minutes after the
start.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._flags import NUMBERS
from ansible_collections.dgx_spark.sglang.plugins.module_utils._nearest import nearest

ALGORITHMS = ("EAGLE", "EAGLE3", "NEXTN", "STANDALONE", "NGRAM")
"""The choices of --speculative-algorithm."""

_TREE = ("speculative-num-steps", "speculative-eagle-topk", "speculative-num-draft-tokens")
_DRAFT = (*_TREE, "speculative-draft-model-path", "speculative-draft-model")

_COUNT = "Is no number that the server could work with."

# Option -> least, most.
_BOUNDS: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "context-length": (1, math.inf),
        "max-running-requests": (1, math.inf),
        "max-queued-requests": (1, math.inf),
        "max-total-tokens": (1, math.inf),
        "max-prefill-tokens": (1, math.inf),
        "chunked-prefill-size": (-1, math.inf),  # -1 turns it off
        "page-size": (1, math.inf),
        "mem-fraction-static": (0.01, 0.99),
        "tokenizer-worker-num": (1, math.inf),
        "stream-interval": (1, math.inf),
        "ep-size": (1, math.inf),
        "dp-size": (1, math.inf),
        "cuda-graph-max-bs": (1, math.inf),
        "watchdog-timeout": (1, math.inf),
        **dict.fromkeys(_TREE, (1, math.inf)),
    }
)


def check_numbers(where: str, variable: str, flags: Mapping[str, Any]) -> list[Finding]:
    """Options that take a number have one, in its range."""
    findings = []
    for name, value in flags.items():
        kind = NUMBERS.get(name)
        if kind is None or isinstance(value, (bool, list, tuple, Mapping)) or value is None:
            continue
        path = f"{variable}.{name}"
        try:
            number = float(str(value)) if kind == "float" else int(str(value))
        except ValueError:
            wanted = "number" if kind == "float" else "whole number"
            mend = f"Give a {wanted}, without a unit."
            findings.append(Finding(where, path, shown(value), f"Is not a {wanted}.", mend))
            continue
        least, most = _BOUNDS.get(name, (-math.inf, math.inf))
        if not least <= number <= most:
            mend = f"Use a number from {least} up." if most == math.inf else f"Use a number from {least} to {most}."
            findings.append(Finding(where, path, shown(value), _COUNT, mend))
    return findings


def check_speculative(where: str, flags: Mapping[str, Any]) -> list[Finding]:
    """The settings of speculative decoding, whole or not at all. where: whose flags; they are those of one server."""
    algorithm = flags.get("speculative-algorithm")
    given = [name for name in _DRAFT if flags.get(name) is not None]
    if algorithm is None:
        mend = "Add speculative-algorithm (EAGLE for models with layers of their own for it), or remove it."
        problem = "Does nothing without speculative-algorithm."
        return [Finding(where, f"flags.{name}", shown(flags[name]), problem, mend) for name in given]
    path = "flags.speculative-algorithm"
    if algorithm not in ALGORITHMS:
        near = nearest(str(algorithm), ALGORITHMS)
        mend = f"{f'Did you mean `{near}`? ' if near else ''}Use one of: {', '.join(ALGORITHMS)}."
        return [Finding(where, path, shown(algorithm), "Is no way of speculative decoding.", mend)]
    if algorithm == "NGRAM":
        return []
    findings = []
    missing = [name for name in _TREE if name not in given]
    if missing and len(missing) < len(_TREE):
        have = ", ".join(f"{name}: {flags[name]}" for name in _TREE if name in given)
        problem = f"Is half set: there is no {' and no '.join(missing)}, and SGLang takes all three or none."
        findings.append(
            Finding(where, path, f"{shown(algorithm)} with {have}", problem, f"Add {' and '.join(missing)}.")
        )
    if algorithm in ("EAGLE3", "STANDALONE") and not set(_DRAFT[-2:]) & set(given):
        problem = "Has no draft model."
        findings.append(Finding(where, path, shown(algorithm), problem, "Add speculative-draft-model-path."))
    if not missing and _whole(flags, 1) == 1 and _whole(flags, 2) != _whole(flags, 0) + 1:
        problem = "Is another number with speculative-eagle-topk 1: one token a step, and one to check."
        mend = f"Set it to {_whole(flags, 0) + 1}."
        findings.append(Finding(where, f"flags.{_TREE[2]}", shown(flags[_TREE[2]]), problem, mend))
    return findings


def _whole(flags: Mapping[str, Any], index: int) -> int:
    return int(flags[_TREE[index]])
