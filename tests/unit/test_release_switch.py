# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""release_switch as a task would run it, over releases that do not lie in /opt."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _release
from ansible_collections.dgx_spark.sglang.plugins.module_utils._release import Content, File, Store
from ansible_collections.dgx_spark.sglang.plugins.modules import release_switch

Switch = Callable[..., dict[str, Any]]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """No releases yet; each is made a second after the one before."""
    seconds = itertools.count()
    monkeypatch.setattr(_release, "now", lambda: f"2026-11-23T12:00:{next(seconds):02}Z")
    return Store(str(tmp_path / "opt"), str(tmp_path / "run/trial"))


@pytest.fixture
def switch(store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Switch:
    """Runs the module in this process: its places can't be given as options."""
    monkeypatch.setattr(_release, "Store", lambda: store)

    def run(state: str, release: str | None = None, *, check: bool = False, **options: Any) -> dict[str, Any]:
        arguments = {"state": state, "release": release, "_ansible_check_mode": check, **options}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            release_switch.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


def made(store: Store, content: str, baked: bool = True) -> str:
    identity = store.write(Content([File("a", "/a", content)], "img", "sha256:1", baked=baked)).id
    store.keep(identity, served=True)
    return identity


def names(store: Store) -> set[str]:
    return {path.name for path in store.releases.iterdir()}


def test_images_are_those_of_what_was_too_many(store: Store, switch: Switch) -> None:
    old = [made(store, str(number)) for number in range(3)]
    images = sorted(store.find(identity).runs for identity in old)
    # Its files are those of the first one, with a flag: their image stays.
    flagged = store.write(Content([File("a", "/a", "0")], "img", "sha256:1", baked=True, flags=["--x"])).id
    store.keep(flagged, served=True)
    used, new = made(store, "used"), made(store, "new")
    store.keep(used, served=True)
    (store.releases / ".new-cut-off").mkdir()
    (store.releases / "somebody's").mkdir()
    before = names(store)

    checked = switch("kept", new, keep=3, check=True)
    assert (checked["changed"], checked["images"]) == (True, [])
    assert (names(store), store.current()) == (before, used)

    result = switch("kept", new, keep=3)
    assert (result["changed"], result["before"], result["used"]) == (True, used, new)
    assert result["images"] == [image for image in images if image != store.find(flagged).runs]
    assert len(result["images"]) == 2
    # What was cut off is gone, and had no image.
    assert names(store) == {used, new, flagged, "somebody's"}

    again = switch("kept", new, keep=3)
    assert (again["changed"], again["images"]) == (False, [])


def test_a_damaged_release_goes_with_its_image(store: Store, switch: Switch) -> None:
    damaged, used = made(store, "damaged"), made(store, "used")
    image = store.find(damaged).runs
    (store.path(damaged) / "a").write_text("otherwise")
    assert switch("kept", used)["images"] == [image]
    assert names(store) == {used}


def test_only_half_written_ones(store: Store, switch: Switch) -> None:
    used = made(store, "used")
    (store.releases / ".new-cut-off").mkdir()
    result = switch("kept", used)
    assert (result["changed"], result["images"]) == (True, [])
    assert names(store) == {used}


@pytest.mark.parametrize("state", ["tried", "dropped"])
def test_other_states_remove_nothing(store: Store, switch: Switch, state: str) -> None:
    releases = [made(store, str(number)) for number in range(4)]
    result = switch(state, releases[0], keep=2)
    assert (result["changed"], result["images"], result["used"]) == (True, [], releases[0])
    assert names(store) == {*releases}


def test_failures(store: Store, switch: Switch) -> None:
    used = made(store, "used")
    told = switch("kept", "0" * 12)["msg"]
    assert told == f"There is no release {'0' * 12}. Mend: take one that is kept here: {used}."
    assert "keep must be 2 or more" in switch("kept", used, keep=1)["msg"]
    assert "release" in switch("kept")["msg"]
