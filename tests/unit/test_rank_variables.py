# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The variables of the role rank: what validate takes, and what it says of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils._rank_variables import check_rank

DEFAULTS = yaml.safe_load((Path(__file__).parents[2] / "roles/rank/defaults/main.yml").read_text())


def test_the_defaults_are_right() -> None:
    assert check_rank(DEFAULTS) == []


def test_what_is_not_there_is_not_checked() -> None:
    assert check_rank({}) == []


@pytest.mark.parametrize(
    ("changes", "variable", "mend"),
    [
        ({"rank_gate_seconds": {"pears": 1}}, "rank_gate_seconds", "Use one of docker, image"),
        ({"rank_gate_seconds": {"peers": "soon"}}, "rank_gate_seconds", "Give a number of seconds above 0."),
    ],
)
def test_each_finding_names_variable_value_and_mend(changes: dict[str, Any], variable: str, mend: str) -> None:
    (finding,) = check_rank({**DEFAULTS, **changes})
    assert finding.variable == variable
    assert mend in finding.mend
