# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The known name that a mistyped one most likely stands for."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# difflib's ratio; below it the guesses for option names stop looking like what was typed.
CUTOFF = 0.7


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The entry of known that is nearest to name, or None when nothing is near.

    Case and the choice between "-" and "_" don't count: Mem_Fraction finds mem-fraction.
    """
    by_plain_name = {_plain(candidate): candidate for candidate in known}
    found = get_close_matches(_plain(name), list(by_plain_name), n=1, cutoff=CUTOFF)
    return by_plain_name[found[0]] if found else None


def _plain(name: str) -> str:
    return name.lower().replace("_", "-")
