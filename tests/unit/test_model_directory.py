# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Model directories: equal ones have equal digests, damage is named, a change breaks the seal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _model_directory
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

SMALL = 100


def make(root: Path) -> Path:
    """A whole model of two shards larger than SMALL."""
    root.mkdir(parents=True)
    (root / "config.json").write_text('{"model_type": "glm4_moe"}')
    shards = ["model-1.safetensors", "model-2.safetensors"]
    (root / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": shards[0], "b": shards[1], "c": shards[0]}})
    )
    for shard in shards:
        (root / shard).write_bytes(b"x" * 200)
    return root


def describe(root: Path) -> dict[str, Any]:
    """The facts with the test's threshold."""
    return _model_directory.describe(str(root), SMALL, manifest=True)


def test_whole_model(tmp_path: Path) -> None:
    """Nothing to complain about; small files are hashed, large ones are not."""
    facts = describe(make(tmp_path / "m"))
    assert facts["exists"]
    assert facts["problems"] == []
    assert facts["files"] == 4
    hashed = {file["path"]: file["sha256"] is not None for file in facts["manifest"]}
    assert hashed["config.json"]
    assert not hashed["model-1.safetensors"]
    assert facts["bytes"] == sum(file["bytes"] for file in facts["manifest"])
    assert not facts["complete"]
    assert facts["marker"] is None


def test_digest_is_the_same_elsewhere(tmp_path: Path) -> None:
    """The place, the hub's own folder and the seal don't count."""
    one, other = make(tmp_path / "one"), make(tmp_path / "deep" / "other")
    (other / ".cache").mkdir()
    (other / ".cache" / "noise").write_text("x")
    (other / _model_directory.MARKER).write_text("{}")
    assert describe(one)["digest"] == describe(other)["digest"]


CHANGES: dict[str, Callable[[Path], object]] = {
    "content of a small file": lambda root: (root / "config.json").write_text('{"model_type": "glm4_mOe"}'),
    "size of a large file": lambda root: (root / "model-1.safetensors").write_bytes(b"x" * 201),
    "name": lambda root: (root / "model-1.safetensors").rename(root / "model-3.safetensors"),
    "new file": lambda root: (root / "new").write_text(""),
    "lost file": lambda root: (root / "config.json").unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_change_the_digest(tmp_path: Path, change: Callable[[Path], object]) -> None:
    """And so break the seal."""
    root = make(tmp_path / "m")
    before = describe(root)["digest"]
    text = _model_directory.marker_text("s", "r", before)
    (root / _model_directory.MARKER).write_text(text)
    assert describe(root)["complete"]
    change(root)
    assert describe(root)["digest"] != before
    assert not describe(root)["complete"]


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "shard": (
        lambda root: (root / "model-2.safetensors").unlink(),
        "names 2 shards, 1 are missing: model-2.safetensors",
    ),
    "no config": (lambda root: (root / "config.json").unlink(), "config.json is missing"),
    "bad config": (lambda root: (root / "config.json").write_text("{"), "not a JSON object"),
    "list config": (lambda root: (root / "config.json").write_text("[]"), "not a JSON object"),
    "bad index": (
        lambda root: (root / "model.safetensors.index.json").write_text("{}"),
        "no weight_map",
    ),
    "empty": (lambda root: (root / "model-1.safetensors").write_bytes(b""), "is empty"),
    "half": (lambda root: (root / "abc.incomplete").write_text("x"), "cut short"),
    "link out": (
        lambda root: (root / "out.json").symlink_to("/etc/hostname"),
        "leads out of the directory",
    ),
    "link to nothing": (lambda root: (root / "gone").symlink_to(root / "nowhere"), "No such file"),
    "folder link": (lambda root: (root / "dir").symlink_to("/etc"), "a link to a folder"),
    "pipe": (lambda root: os.mkfifo(root / "pipe"), "not a regular file"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_named(tmp_path: Path, damage: Callable[[Path], object], words: str) -> None:
    """Each kind of damage is one problem, told so that it can be mended."""
    root = make(tmp_path / "m")
    damage(root)
    problems = describe(root)["problems"]
    assert len(problems) == 1
    assert words in problems[0]


def test_inner_link_is_read(tmp_path: Path) -> None:
    """The hub's cache links its files; such a link counts as the file."""
    root = make(tmp_path / "m")
    (root / "copy.json").symlink_to("config.json")
    facts = describe(root)
    assert facts["problems"] == []
    assert facts["files"] == 5


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_no_directory(tmp_path: Path, kind: str) -> None:
    """A result, not an error."""
    path = tmp_path / "m"
    if kind == "file":
        path.write_text("")
    facts = describe(path)
    assert not facts["exists"]
    assert not facts["complete"]
    assert len(facts["problems"]) == 1


def test_no_weights(tmp_path: Path) -> None:
    """A config alone is no model."""
    (tmp_path / "config.json").write_text("{}")
    assert describe(tmp_path)["problems"] == ["there are no weights (*.safetensors)"]


def test_seal_and_info(tmp_path: Path) -> None:
    """The real modules: check mode writes nothing, then the seal, then nothing more to do."""
    root = make(tmp_path / "m")
    arguments = {"path": str(root), "source": "some/model", "revision": "main"}
    assert adhoc.run(tmp_path, "model_directory_seal", arguments, check=True).result["changed"]
    assert not (root / _model_directory.MARKER).exists()
    outcome = adhoc.run(tmp_path, "model_directory_seal", arguments)
    sealed = outcome.result
    assert sealed["changed"]
    assert '+  "source": "some/model"' in outcome.shown
    assert not adhoc.run(tmp_path, "model_directory_seal", arguments).result["changed"]
    facts = adhoc.run(tmp_path, "model_directory_info", {"path": str(root)}).result
    assert facts["complete"]
    assert facts["digest"] == sealed["digest"]
    assert not facts["changed"]
    assert facts["marker"]["source"] == "some/model"
    assert "manifest" not in facts


def test_seal_refuses_damage(tmp_path: Path) -> None:
    """An unfinished model must never look complete."""
    root = make(tmp_path / "m")
    (root / "model-1.safetensors").unlink()
    arguments = {"path": str(root), "source": "some/model", "revision": "main"}
    result = adhoc.run(tmp_path, "model_directory_seal", arguments).result
    assert result["failed"]
    assert "model-1.safetensors" in result["msg"]
    assert not (root / _model_directory.MARKER).exists()
