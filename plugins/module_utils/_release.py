# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Releases: files that lie over those of the image, kept side by side on a node, of which one is used.

ROOT/releases/ID/              what one rollout brought, named after its content; release.json says what it is
ROOT/current -> releases/ID    what a rank is started with
TRIAL -> ROOT/releases/ID      takes its place while it is tried; gone after a boot, so that a node which a bad release
                               brings down comes back with the one before

A release's release.env tells the unit its id, the image, the mounts, and the server's flags that need them; see
systemd.exec(5), EnvironmentFile=. The files are mounted over those of the image; or an image has them baked in.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._docker_mount import mount_value

ROOT = "/opt/sglang"
TRIAL = "/run/dgx-spark/trial"
ENV_FILE = "release.env"
ENV_RELEASE = "SGLANG_RELEASE"
ENV_MOUNTS = "SGLANG_MOUNTS"
ENV_IMAGE = "SGLANG_IMAGE"
ENV_FLAGS = "SGLANG_FLAGS"
ENV_IMAGE_ID = "SGLANG_IMAGE_ID"
# Docker takes "localhost" for a registry, so nobody is ever asked for such an image.
_BAKED = "localhost/dgx-spark/sglang"
# Counts the ways in which images are baked, so that a new way makes new ones.
_BAKED_FORMAT = 1
_MANIFEST = "release.json"
_SERVED = "served"
_NEW = ".new-"
_ID = re.compile(r"[0-9a-f]{12}\Z")


FILE_OPTIONS = {name: {"type": "str", "required": True} for name in ("name", "target", "content")}
"""The options of modules that take files."""


class ReleaseError(ValueError):
    """What is wrong and how to mend it, as a sentence."""


@dataclass(frozen=True)
class File:
    """One file of a release. name: its path inside the release; target: the path in the container that it lies over."""

    name: str
    target: str
    content: str

    @property
    def digest(self) -> str:
        """SHA-256 of the content, in hex."""
        return sha256(self.content.encode()).hexdigest()


@dataclass(frozen=True)
class Release:
    """One release as it lies on a node.

    made, served: UTC times; served is when a group proved to serve with it, None if never. image, image_id: what it is
    made for. runs: the image that a start takes, another one if the files are baked in. mounts: {source, target}.
    flags: arguments of the server. state: current, trial or "".
    """

    id: str
    made: str
    served: str | None
    image: str
    image_id: str
    runs: str
    files: list[dict[str, str]]
    mounts: list[dict[str, str]]
    flags: list[str]
    state: str


@dataclass(frozen=True)
class Content:
    """What makes a release: files for an image (by name and id), mounted or baked in, and flags of the server."""

    files: Sequence[File]
    image: str
    image_id: str
    baked: bool = False
    flags: Sequence[str] = ()

    @property
    def id(self) -> str:
        """12 hex digits that name all of it."""
        return _digest_of([self.image, self.image_id, self.runs, _content(self.files), list(self.flags)])

    @property
    def runs(self) -> str:
        """The image that a start takes."""
        return baked_image(self.files, self.image_id) if self.baked else self.image


def files_from(given: Sequence[Mapping[str, str]]) -> list[File]:
    """Checked files, by name. ReleaseError for a path that leaves its place, and for two of one name or target."""
    files = sorted((File(item["name"], item["target"], item["content"]) for item in given), key=lambda file: file.name)
    for file in files:
        parts = file.name.split("/")
        if file.name.startswith("/") or not file.name or {"", ".", ".."} & set(parts):
            raise ReleaseError(f"{file.name!r} is no path inside a release. Mend: give a plain relative path.")
        if not file.target.startswith("/") or os.path.normpath(file.target) != file.target:
            raise ReleaseError(f"{file.target!r} is no absolute path in the image. Mend: ask the image for the path.")
        if re.search(r"[\n\r'\"\\$%]", file.name + file.target):
            raise ReleaseError(
                f"{file.name!r} has a character that systemd or Docker reads otherwise. Mend: rename it."
            )
    for kind, values in (("name", [file.name for file in files]), ("target", [file.target for file in files])):
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise ReleaseError(f"Two files of the release have the {kind} {twice[0]}. Mend: keep one of them.")
    return files


def baked_image(files: Sequence[File], image_id: str) -> str:
    """The name of the image that has the files in it."""
    return f"{_BAKED}:{_digest_of([_BAKED_FORMAT, image_id, _content(files)])}"


def _content(files: Sequence[File]) -> list[list[str]]:
    return sorted([file.name, file.target, file.digest] for file in files)


def _digest_of(content: object) -> str:
    return sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()[:12]


def env_text(identity: str, runs: str, mounts: Sequence[Mapping[str, str]], flags: Sequence[str], image_id: str) -> str:
    """The text of release.env. Words are unquoted twice: read from the file, and split by the unit.

    image_id: what the image has to be at each start, "" where that can't be said (a baked one is each node's own).
    """
    lists = {
        ENV_MOUNTS: [f"--mount={mount_value(mount['source'], mount['target'])}" for mount in mounts],
        ENV_FLAGS: flags,
    }
    lines = [f"{ENV_RELEASE}={identity}", f"{ENV_IMAGE}={runs}", f"{ENV_IMAGE_ID}={image_id}"]
    for name, words in lists.items():
        quoted = " ".join(f"'{word}'" for word in words).replace("\\", "\\\\").replace('"', '\\"')
        lines.append(f'{name}="{quoted}"')
    return "\n".join(lines) + "\n"


def now() -> str:
    """The time as 2026-11-23T12:31:58Z."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """The releases of a node. root, trial: see the module; other places are for tests."""

    def __init__(self, root: str = ROOT, trial: str = TRIAL) -> None:
        self.releases = Path(root) / "releases"
        self.current_link = Path(root) / "current"
        self.trial_link = Path(trial)

    def path(self, identity: str) -> Path:
        """The directory of a release."""
        return self.releases / identity

    def current(self) -> str | None:
        """The id that `current` names, None if it names none that is there."""
        return self._named(self.current_link)

    def trial(self) -> str | None:
        """The id that is being tried, None if there is none."""
        return self._named(self.trial_link)

    def used(self) -> str | None:
        """What a rank that starts now is started with."""
        return self.trial() or self.current()

    def all(self) -> list[Release]:
        """All whole releases, the one made last first."""
        found = [self._read(path) for path in self.releases.iterdir()] if self.releases.is_dir() else []
        return sorted((release for release in found if release), key=lambda item: (item.made, item.id), reverse=True)

    def find(self, identity: str) -> Release:
        """One release. ReleaseError names those that there are."""
        known = {release.id: release for release in self.all()}
        if identity not in known:
            names = ", ".join(known) or "none"
            raise ReleaseError(f"There is no release {identity}. Mend: take one that is kept here: {names}.")
        return known[identity]

    def write(self, content: Content) -> Release:
        """Write a release that is not there; it stands whole or not at all."""
        identity = content.id
        self.releases.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=_NEW, dir=self.releases))
        try:
            for file in content.files:
                _write(fresh / file.name, file.content)
            listed = [{"name": file.name, "target": file.target, "sha256": file.digest} for file in content.files]
            mounts = [] if content.baked else self._mounts(identity, listed)
            env = env_text(identity, content.runs, mounts, content.flags, "" if content.baked else content.image_id)
            manifest: dict[str, object] = {"id": identity, "made": now(), "files": listed, "flags": list(content.flags)}
            manifest |= {"image": content.image, "image_id": content.image_id, "runs": content.runs}
            manifest["env_sha256"] = sha256(env.encode()).hexdigest()
            _write(fresh / ENV_FILE, env)
            _write(fresh / _MANIFEST, json.dumps(manifest, indent=2) + "\n")
            fresh.chmod(0o755)
            # What is left of a damaged one.
            shutil.rmtree(self.path(identity), ignore_errors=True)
            os.rename(fresh, self.path(identity))
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return self.find(identity)

    def whole(self, identity: str) -> bool:
        """Whether a release is there, with every file as it was written."""
        try:
            self.find(identity)
        except ReleaseError:
            return False
        return True

    def attempt(self, identity: str) -> None:
        """Let ranks start with it from now on, until it is kept or given up, or the node boots."""
        self.find(identity)
        if identity == self.current() or not self.current():
            self._link(self.current_link, identity)
            self.give_up()
        else:
            self._link(self.trial_link, identity)

    def keep(self, identity: str, served: bool) -> None:
        """Let ranks start with it for good. served: a group has just proved to serve with it."""
        self.find(identity)
        if served and not (self.current() == identity and self._read_served(identity)):
            _write(self.path(identity) / _SERVED, now() + "\n")
        self._link(self.current_link, identity)
        self.give_up()

    def give_up(self, instead: str | None = None) -> None:
        """End the trial: the next start takes `current`, or another release for good."""
        if instead and self.whole(instead):
            self._link(self.current_link, instead)
        self.trial_link.unlink(missing_ok=True)

    def surplus(self, keep: int) -> list[str]:
        """Names of the directories beyond the `keep` newest releases; never one in use, always what was cut off."""
        if not self.releases.is_dir():
            return []
        used = {self.current(), self.trial()}
        others = [release for release in self.all() if release.id not in used]
        # One that never served is nothing to go back to.
        others.sort(key=lambda release: (release.served is not None, release.served or release.made), reverse=True)
        kept = {*used, *(release.id for release in others[: max(0, keep - len(used - {None}))])}
        ours = (path.name for path in self.releases.iterdir() if _ID.match(path.name) or path.name.startswith(_NEW))
        return sorted(name for name in ours if name not in kept)

    def prune(self, keep: int) -> list[str]:
        """Remove what `surplus` names; returns the baked images that no release is left for."""
        names = self.surplus(keep)
        images = {self._runs(name) for name in names}
        for name in names:
            shutil.rmtree(self.releases / name)
        left = {self._runs(path.name) for path in self.releases.iterdir()}
        return sorted(image for image in images - left if image.startswith(f"{_BAKED}:"))

    def _runs(self, name: str) -> str:
        """What a directory, damaged as it may be, tells of the image that a start would take."""
        try:
            return str(json.loads((self.releases / name / _MANIFEST).read_text(encoding="utf-8"))["runs"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _mounts(self, identity: str, files: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
        path = self.path(identity)
        return [{"source": str(path / file["name"]), "target": file["target"]} for file in files]

    def _link(self, link: Path, identity: str) -> None:
        if self._named(link) == identity:
            return
        link.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fresh = link.with_name(f".{link.name}.{os.getpid()}")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(self.path(identity))
        os.replace(fresh, link)

    def _named(self, link: Path) -> str | None:
        name = os.path.basename(os.readlink(link)) if link.is_symlink() else ""
        return name if _ID.match(name) and self.path(name).is_dir() else None

    def _read(self, path: Path) -> Release | None:
        """The release in a directory; None if it is something else, or is not whole."""
        identity = path.name
        if not _ID.match(identity):
            return None
        try:
            manifest = json.loads((path / _MANIFEST).read_text(encoding="utf-8"))
            files = manifest["files"]
            written = {ENV_FILE: manifest["env_sha256"], **{file["name"]: file["sha256"] for file in files}}
            if any(_digest(path / name) != digest for name, digest in written.items()):
                return None
            made, image, image_id, runs = (str(manifest[key]) for key in ("made", "image", "image_id", "runs"))
            flags = [str(word) for word in manifest["flags"]]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        here = self._mounts(identity, files) if runs == image else []
        state = {self.current(): "current", self.trial(): "trial"}.get(identity, "")
        served = self._read_served(identity)
        return Release(identity, made, served, image, image_id, runs, files, here, flags, state)

    def _read_served(self, identity: str) -> str | None:
        try:
            return (self.path(identity) / _SERVED).read_text(encoding="utf-8").strip()
        except OSError:
            return None


def as_dict(release: Release) -> dict[str, Any]:
    """A release as plain data, for Ansible."""
    return asdict(release)


def release_rows(releases: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """A row a release for people, from `as_dict`; each file with the beginning of its digest, and flags."""
    return [
        {
            "release": release["id"],
            "made": release["made"],
            "served": release["served"] or "never",
            "state": release["state"] or "kept",
            "image": release["image"].rpartition("/")[2]
            + ("" if release["runs"] == release["image"] else ", baked in"),
            "content": "\n".join(
                [f"{os.path.basename(file['name'])} {file['sha256'][:8]}" for file in release["files"]]
                + ([" ".join(release["flags"])] if release["flags"] else [])
            )
            or "none",
        }
        for release in releases
    ]


def _digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o644)
