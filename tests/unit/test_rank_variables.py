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
        ({"rank_group_port": 0}, "rank_group_port", "from 1 to 65535"),
        ({"rank_health_seconds": 1}, "rank_health_seconds", "from 2 to 3600"),
        ({"rank_silence_seconds": 1}, "rank_silence_seconds", "from 5 to 3600"),
        ({"rank_start_seconds": 0}, "rank_start_seconds", "from 10"),
        ({"rank_backoff_first_seconds": 301}, "rank_backoff_first_seconds", "from 0 to 300"),
        ({"rank_failing_after": 0}, "rank_failing_after", "from 1 to 1000"),
        ({"rank_memory_floor_gib": -1}, "rank_memory_floor_gib", "from 0"),
        ({"rank_gate_seconds": {"pears": 1}}, "rank_gate_seconds", "Use one of docker, image"),
        ({"rank_gate_seconds": {"peers": "soon"}}, "rank_gate_seconds", "Give a number of seconds above 0."),
    ],
)
def test_each_finding_names_variable_value_and_mend(changes: dict[str, Any], variable: str, mend: str) -> None:
    (finding,) = check_rank({**DEFAULTS, **changes})
    assert finding.variable == variable
    assert mend in finding.mend
