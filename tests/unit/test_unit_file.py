"""Quoting for ExecStart=, and the label that tells which plan a container belongs to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._unit import (
    RunOptions,
    group_label,
    run_command,
    systemd_exec,
    systemd_word,
)

PLAN: dict[str, Any] = {
    "group_id": "abc",
    "device": "cpu",
    "image": "x:1",
    "model": {"name": "m"},
    "paths": {"model": "/d/m", "cache": "/d/c"},
}
RANK: dict[str, Any] = {"server_args": ["--port", "1"]}
OPTIONS = RunOptions({}, ["nvidia.com/gpu=all"], rdma=False, env_file="/e", model_digest="d", docker_options=[])


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("--a=b", "--a=b"),
        ("a b", '"a b"'),
        ('{"k": "v"}', '"{\\"k\\": \\"v\\"}"'),
        ("100%", '"100%%"'),
        ("$HOME", '"$$HOME"'),
        ("a\\b", '"a\\\\b"'),
        ("it's", '"it\'s"'),
        ("", '""'),
        (";", '";"'),
    ],
)
def test_words(word: str, quoted: str) -> None:
    assert systemd_word(word) == quoted


def test_line_breaks_are_refused() -> None:
    with pytest.raises(ValueError, match="line break"):
        systemd_word("a\nExecStartPre=b")


def test_one_option_a_line() -> None:
    command = ["docker", "run", "--rm", "--name=a", "image", "python3", "-m", "b", "--port", "1", "--json", '{"a": 1}']
    assert systemd_exec(command).split(" \\\n    ") == [
        "docker run",
        "--rm",
        "--name=a",
        "image python3",
        "-m b",
        "--port 1",
        '--json "{\\"a\\": 1}"',
    ]


def test_no_gpu_and_no_rdma_where_there_is_none() -> None:
    command = run_command(PLAN, RANK, OPTIONS)
    assert not [word for word in command if word.startswith(("--device", "--cap-add"))]


@pytest.mark.parametrize(
    ("plan", "options"),
    [
        ({**PLAN, "group_id": "abd"}, OPTIONS),
        ({**PLAN, "model": {"name": "other"}}, OPTIONS),
        (PLAN, replace(OPTIONS, ulimits={"stack": 1})),
        (PLAN, replace(OPTIONS, model_digest="e")),
    ],
)
def test_label_changes_with_the_command(plan: dict[str, Any], options: RunOptions) -> None:
    label = group_label(run_command(PLAN, RANK, OPTIONS))
    assert label == group_label(run_command(PLAN, RANK, OPTIONS))
    assert label != group_label(run_command(plan, RANK, options))
