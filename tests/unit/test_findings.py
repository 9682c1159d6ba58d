# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""No finding shows a secret: not that of a variable that is no_log, nor one that its key, or a URL, gives away."""

from __future__ import annotations

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, report, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._inventory import Host, check_inventory
from ansible_collections.dgx_spark.sglang.plugins.module_utils._near_misses import near_misses
from ansible_collections.dgx_spark.sglang.plugins.module_utils._specs import check_value
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import role_specs

# A name that says nothing: only the spec knows.
SPEC = {"type": "int", "no_log": True}
SPECS = {**role_specs(), "rank_depth": SPEC}


@pytest.mark.parametrize("value", ["hunter2", ["hunter2"], {"a": "hunter2"}, -1, None])
def test_value_of_a_secret_is_in_no_finding(value: object) -> None:
    hosts = [Host("a", "a", {"rank_depth": value}, {}), Host("b", "b", {"rank_depth": "hunter2"}, {})]
    findings = check_inventory(hosts, SPECS, [])
    assert {finding.value for finding in findings if finding.variable == "rank_depth"} <= {
        "***",
        "null",
        "*** on a; *** on b",
    }
    assert "hunter2" not in report(findings, "")


def test_value_of_a_wrong_type_is_hidden_by_the_spec_alone() -> None:
    (finding,) = check_value("group", "rank_depth", SPEC, "hunter2")
    assert finding.value == "***"


def test_unreadable_value_of_a_secret_is_hidden() -> None:
    host = Host("a", "a", {}, {"rank_depth": "'x' is undefined."}, {"rank_depth": "hunter2{{ x }}"})
    told = report(check_inventory([host], SPECS, []), "")
    assert "*** (template)" in told
    assert "hunter2" not in told


def test_value_of_what_is_meant_for_a_secret_is_hidden() -> None:
    (finding,) = near_misses([Host("a", "a", {"rank_detph": "hunter2"}, {})], {"rank_depth": SPEC})
    assert finding.mend == "Did you mean `rank_depth`?"
    assert finding.value == "***"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "(not set)"),
        ("plain", "'plain'"),
        ({"api-key": "hunter2", "dtype": "a"}, "{'api-key': '***', 'dtype': 'a'}"),
        ([{"HF_TOKEN": "hunter2"}], "[{'HF_TOKEN': '***'}]"),
        (["--env", "HF_TOKEN=hunter2"], "['--env', 'HF_TOKEN=***']"),
        ("--shm-size=16g", "'--shm-size=16g'"),
        ("https://me:hunter2@hub/a@b", "'https://***@hub/a@b'"),
        ({"max-total-tokens": 4}, "{'max-total-tokens': 4}"),
        ("a" * 100, "'" + "a" * 76 + "..."),
    ],
)
def test_shown(value: object, text: str) -> None:
    assert shown(value) == text


def test_mend_that_lists_names_hides_nothing() -> None:
    """Only the name that is meant counts, not all that could be."""
    finding = Finding("group", "cluster_colour", "'red'", "Is not a variable.", "Use one of: cluster_api_key.")
    assert "'red'" in report([finding], "")
