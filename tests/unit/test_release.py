"""Releases on a node: written whole or not at all, tried, kept, given up, pruned."""

from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _release
from ansible_collections.dgx_spark.sglang.plugins.module_utils._release import Content, File, ReleaseError, Store

NAME = "E=128,N=768,device_name=NVIDIA_GB10,dtype=fp8_w8a8,block_shape=[128, 128].json"
TARGET = f"/usr/lib/sglang/configs/triton_3_5_0/{NAME}"


def files(content: str = "{}") -> list[File]:
    return [File(f"moe_configs/{NAME}", TARGET, content)]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "opt"), str(tmp_path / "run" / "trial"))


def made(store: Store, content: str = "{}") -> str:
    return store.write(Content(files(content), "image:1", "sha256:1")).id


def test_a_release_is_named_after_its_content() -> None:
    def identity(*given: File, image: str = "image:1", image_id: str = "sha256:1", **more: Any) -> str:
        return Content(given, image, image_id, **more).id

    one = identity(*files())
    assert one == identity(*files())
    others = [
        identity(*files("[]")),
        identity(*files(), image_id="sha256:2"),
        identity(*files(), image="image:2"),
        identity(File("moe_configs/x", TARGET, "{}")),
        identity(File(f"moe_configs/{NAME}", "/elsewhere", "{}")),
        identity(),
        identity(*files(), baked=True),
        identity(*files(), flags=["--tool-call-parser", "glm47"]),
    ]
    assert len({one, *others}) == 9


def environment(store: Store, identity: str) -> dict[str, str]:
    """release.env as systemd reads it."""
    lines = (store.path(identity) / _release.ENV_FILE).read_text().splitlines()
    return {
        name: shlex.split(value)[0]
        for name, _, value in (line.partition("=") for line in lines)
        if value not in ("", '""')
    }


def test_mounted_a_start_takes_the_image_that_it_was_made_for(store: Store) -> None:
    identity = made(store)
    assert environment(store, identity)["SGLANG_IMAGE"] == store.find(identity).runs == "image:1"


def test_baked_in_a_start_takes_an_image_of_its_own_and_mounts_nothing(store: Store) -> None:
    release = store.write(Content(files(), "image:1", "sha256:1", baked=True))
    image = _release.baked_image(files(), "sha256:1")
    assert image.startswith("localhost/dgx-spark/sglang:")
    assert environment(store, release.id) == {"SGLANG_RELEASE": release.id, "SGLANG_IMAGE": image}
    assert (release.runs, release.image, release.mounts) == (image, "image:1", [])
    assert [file["target"] for file in release.files] == [TARGET]
    assert _release.release_rows([_release.as_dict(release)])[0]["image"] == "image:1, baked in"


def test_the_flags_of_a_release_are_words_for_the_server(store: Store) -> None:
    flags = ["--tool-call-parser", "glm47"]
    release = store.write(Content(files(), "image:1", "sha256:1", flags=flags))
    assert shlex.split(environment(store, release.id)["SGLANG_FLAGS"]) == release.flags == flags
    assert _release.release_rows([_release.as_dict(release)])[0]["content"].endswith("\n--tool-call-parser glm47")


def test_the_same_files_with_other_flags_are_baked_once(store: Store) -> None:
    one, other = (store.write(Content(files(), "i:1", "sha256:1", baked=True, flags=flags)) for flags in ([], ["--x"]))
    assert one.id != other.id
    assert one.runs == other.runs


@pytest.mark.parametrize(
    ("name", "target", "told"),
    [
        ("../x", "/a", "no path inside a release"),
        ("/x", "/a", "no path inside a release"),
        ("", "/a", "no path inside a release"),
        ("a//b", "/a", "no path inside a release"),
        ("a", "b", "no absolute path"),
        ("a", "/b/../c", "no absolute path"),
        ("a'b", "/b", "otherwise"),
        ("a", "/b$c", "otherwise"),
        ("a\nb", "/b", "otherwise"),
    ],
)
def test_wrong_paths(name: str, target: str, told: str) -> None:
    with pytest.raises(ReleaseError, match=told):
        _release.files_from([{"name": name, "target": target, "content": ""}])


def test_two_files_in_one_place() -> None:
    with pytest.raises(ReleaseError, match="have the target /t"):
        _release.files_from([{"name": name, "target": "/t", "content": ""} for name in "ab"])


def test_the_mounts_are_quoted_for_the_unit(store: Store) -> None:
    identity = made(store)
    store.attempt(identity)
    text = (store.path(identity) / _release.ENV_FILE).read_text()
    line = next(line for line in text.splitlines() if line.startswith(_release.ENV_MOUNTS))
    # As systemd does: once when it reads the file, once when it splits the variable.
    (value,) = shlex.split(line.partition("=")[2])
    words = shlex.split(value)
    source = str(store.path(identity) / "moe_configs" / NAME)
    assert [word.partition("=")[0] for word in words] == ["--mount"]
    value = words[0].partition("=")[2]
    assert next(csv.reader([value])) == ["type=bind", f"source={source}", f"target={TARGET}", "readonly"]


def test_written_is_not_used(store: Store) -> None:
    identity = made(store)
    assert store.used() is None
    assert Path(store.find(identity).mounts[0]["source"]).read_text() == "{}"


def test_the_first_one_is_used_at_once(store: Store) -> None:
    identity = made(store)
    store.attempt(identity)
    assert (store.current(), store.trial()) == (identity, None)


def test_trial_kept(store: Store) -> None:
    old, new = made(store), made(store, "[]")
    store.keep(old, served=True)
    store.attempt(new)
    assert (store.current(), store.trial(), store.used()) == (old, new, new)
    store.keep(new, served=True)
    assert (store.current(), store.trial()) == (new, None)
    assert store.find(new).served


def test_trial_given_up(store: Store) -> None:
    old, new = made(store), made(store, "[]")
    store.keep(old, served=True)
    store.attempt(new)
    store.give_up()
    store.give_up()
    assert store.used() == old
    assert store.find(new).served is None


def test_a_boot_ends_a_trial(store: Store) -> None:
    old, new = made(store), made(store, "[]")
    store.keep(old, served=True)
    store.attempt(new)
    store.trial_link.unlink()  # what is under /run does not outlive a boot
    assert store.used() == old


def test_trying_the_current_one_ends_another_trial(store: Store) -> None:
    old, new = made(store), made(store, "[]")
    store.keep(old, served=True)
    store.attempt(new)
    store.attempt(old)
    assert (store.current(), store.trial()) == (old, None)


def damage_file(path: Path) -> None:
    (path / "moe_configs" / NAME).write_text("changed")


def damage_env(path: Path) -> None:
    (path / _release.ENV_FILE).write_text("")


def damage_manifest(path: Path) -> None:
    (path / "release.json").write_text('{"files": 3}')


@pytest.mark.parametrize("damage", [damage_file, damage_env, damage_manifest])
def test_a_damaged_release_is_none(store: Store, damage: Callable[[Path], None]) -> None:
    identity = made(store)
    store.attempt(identity)
    assert store.whole(identity)
    damage(store.path(identity))
    assert not store.whole(identity)
    with pytest.raises(ReleaseError, match="There is no release"):
        store.attempt(identity)
    assert made(store) == identity
    store.attempt(identity)
    assert store.whole(identity)


def test_a_write_that_is_cut_off_leaves_no_release(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        made(store)
    assert store.all() == []
    assert list(store.releases.iterdir()) == []


def test_prune_keeps_the_newest_and_the_used(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made_at = []
    for number in range(8):
        stamp = f"2026-11-23T12:00:0{number}Z"
        monkeypatch.setattr(_release, "now", lambda stamp=stamp: stamp)
        made_at.append(made(store, str(number)))
        store.keep(made_at[-1], served=True)
    store.keep(made_at[0], served=False)  # went back to the oldest
    store.attempt(made_at[1])
    (store.releases / ".new-cut-off").mkdir()
    store.prune(5)
    assert {release.id for release in store.all()} == {made_at[0], made_at[1], *made_at[-3:]}
    assert sorted(os.listdir(store.releases)) == sorted({made_at[0], made_at[1], *made_at[-3:]})
    assert store.surplus(5) == []


def test_rows_for_people(store: Store) -> None:
    identity = made(store)
    store.keep(identity, served=True)
    row = _release.release_rows([_release.as_dict(release) for release in store.all()])[0]
    assert (row["release"], row["state"], row["image"]) == (identity, "current", "image:1")
    assert row["content"].startswith(NAME)
    empty = store.write(Content([], "image:1", "sha256:1"))
    row = next(
        row
        for row in _release.release_rows([_release.as_dict(release) for release in store.all()])
        if row["release"] == empty.id
    )
    assert (row["state"], row["served"], row["content"]) == ("kept", "never", "none")


def test_giving_up_goes_back_from_what_was_kept_too(store: Store) -> None:
    old, new = made(store), made(store, "[]")
    store.keep(old, served=True)
    store.keep(new, served=False)
    store.give_up(old)
    assert (store.current(), store.trial()) == (old, None)
    store.give_up("0" * 12)
    assert store.current() == old


def test_prune_prefers_what_served(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stamps = iter(f"2026-11-23T12:00:{number:02}Z" for number in range(60))
    monkeypatch.setattr(_release, "now", lambda: next(stamps))
    served = [made(store, str(number)) for number in range(3)]
    for identity in served:
        store.keep(identity, served=True)
    failed = [made(store, f"failed {number}") for number in range(5)]
    (store.releases / "somebody's").mkdir()
    store.prune(3)
    assert {release.id for release in store.all()} == set(served)
    assert (store.releases / "somebody's").is_dir()
    assert not {release.id for release in store.all()} & set(failed)
