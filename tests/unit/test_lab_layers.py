"""Layers have the same bytes for the same content, and the digests that they claim."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

from lab import layers


def _tree(folder: Path) -> Path:
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "program").write_text("#!/bin/sh\n")
    (folder / "b" / "program").chmod(0o755)
    (folder / "a").symlink_to("b/program")
    os.mkfifo(folder / "pipe")
    return folder


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    made = []
    for number in range(2):
        tree = _tree(tmp_path / f"tree{number}")
        os.utime(tree / "b" / "program", (number, number))
        archive = tmp_path / f"{number}.tar.gz"
        made.append((layers.pack({"opt/it": tree}, archive, owned_by_root=True), archive.read_bytes()))
    assert made[0] == made[1]


def test_digests_and_size_are_those_of_the_file(tmp_path: Path) -> None:
    archive = tmp_path / "layer.tar.gz"
    layer = layers.pack({"opt": _tree(tmp_path / "tree")}, archive)
    packed = archive.read_bytes()
    assert layer.size == len(packed)
    assert layer.digest == f"sha256:{hashlib.sha256(packed).hexdigest()}"
    assert layer.diff_id == f"sha256:{hashlib.sha256(gzip.decompress(packed)).hexdigest()}"


def test_files_keep_mode_and_links_and_lose_owner_and_pipes(tmp_path: Path) -> None:
    archive = tmp_path / "layer.tar.gz"
    layers.pack({"opt": _tree(tmp_path / "tree")}, archive, owned_by_root=True)
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as opened:
        members = {member.name: member for member in opened}
    assert sorted(members) == ["opt", "opt/a", "opt/b", "opt/b/program"]
    assert members["opt/b/program"].mode == 0o755
    assert members["opt/a"].linkname == "b/program"
    assert {(member.uid, member.gid, member.mtime) for member in members.values()} == {(0, 0, layers.MTIME)}
