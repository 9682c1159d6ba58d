# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Every number that an inventory or a model may give has a range, and the defaults lie in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._bounds import ELSEWHERE, bounds_of, outside
from ansible_collections.dgx_spark.sglang.plugins.module_utils._inventory import CONNECTION
from ansible_collections.dgx_spark.sglang.plugins.module_utils._model import PROFILE_OPTIONS
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import role_specs


def numbers(specs: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str, list[Any]]]:
    """(name, type, values that are right) of each number, those in lists and mappings too."""
    for name, spec in specs.items():
        kind = spec["elements"] if spec["type"] == "list" else spec["type"]
        if kind in ("int", "float"):
            values = [spec[key] for key in ("default", "example") if key in spec]
            yield (
                prefix + name,
                kind,
                [item for value in values for item in (value if spec["type"] == "list" else [value])],
            )
        yield from numbers(spec.get("options", {}), f"{prefix}{name}.")


NUMBERS = [*numbers(role_specs()), *numbers(PROFILE_OPTIONS), *numbers(CONNECTION)]


@pytest.mark.parametrize(("name", "kind", "values"), NUMBERS, ids=[name for name, _, _ in NUMBERS])
def test_every_number_has_bounds(name: str, kind: str, values: list[Any]) -> None:
    assert bounds_of(name) or name in ELSEWHERE, f"give {name} bounds in _bounds.py"
    for value in values:
        assert outside(name, kind, value) is None


def test_an_element_has_the_bounds_of_its_list() -> None:
    assert bounds_of("fabric_test_all_reduce_sizes[2]") == bounds_of("fabric_test_all_reduce_sizes")


def test_the_longest_ending_counts() -> None:
    told = outside("any_confirm_seconds", "int", 5)
    assert told
    assert told[1] == "Use a number from 15 to 3600."


def test_text_has_no_bounds() -> None:
    assert outside("any_port", "str", "x") is None
