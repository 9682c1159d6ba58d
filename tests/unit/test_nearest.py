# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A mistyped name finds the known one, a strange name finds none."""

from __future__ import annotations

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._flags import FLAGS
from ansible_collections.dgx_spark.sglang.plugins.module_utils._nearest import nearest


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("mem-fraction-statc", "mem-fraction-static"),
        ("Mem_Fraction_Static", "mem-fraction-static"),
        ("tool-call-praser", "tool-call-parser"),
        ("zzz", None),
        ("", None),
    ],
)
def test_nearest(typed: str, meant: str | None) -> None:
    """Among all options of the server."""
    assert nearest(typed, FLAGS) == meant


def test_the_known_spelling_is_returned() -> None:
    """Not the one that was compared."""
    assert nearest("cluster-modle", ["cluster_model", "other"]) == "cluster_model"
    assert nearest("a_b", ["a-b"]) == "a-b"
    assert nearest("x", []) is None
