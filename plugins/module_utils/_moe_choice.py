# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Which kernel config files a rollout brings: the user's own, else those that the collection ships, all checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _moe
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import shared_bytes
from ansible_collections.dgx_spark.sglang.plugins.module_utils._nearest import nearest

RELEASE_FOLDER = "moe_configs"
_TRITON_FOLDER = re.compile(r"triton_\d+(_\d+)*\Z")


@dataclass(frozen=True)
class Source:
    """A config file on the controller. path: as people know it; folder: triton_X_Y_Z, or "" for any Triton."""

    path: str
    folder: str
    name: str


@dataclass(frozen=True)
class Chosen:
    """A file to be rolled out. target: its path in the image; largest: bytes of its largest entry."""

    name: str
    target: str
    content: str
    source: str
    entries: int
    largest: int


@dataclass(frozen=True)
class Choice:
    """What is rolled out, what is wrong (then nothing is rolled out), and what people should know."""

    files: list[Chosen]
    findings: list[Finding]
    notes: list[str]


def choose(
    asked: Mapping[str, Any],
    own: Sequence[Source],
    shipped: Sequence[Source],
    read: Callable[[str], str],
    limit: int,
    device_name: str,
    skip: str = "",
) -> Choice:
    """Choose a file for every name that the image looks for.

    asked: what moe_config_info returned. own: all files of the user's directories, the first directory first.
    limit: opt-in shared memory a block in bytes, the least of all nodes. read: path -> text; OSError and
    UnicodeDecodeError are findings. skip: why the server's flags make it read none, "" if it reads them.
    """
    if asked.get("env_dir"):
        mend = "Remove the variable, and name your folder in moe_config_dirs."
        problem = "Replaces the folder of all configs of the image, and the server ends if it holds no `configs`."
        return Choice([], [Finding("the image", "SGLANG_MOE_CONFIG_DIR", repr(asked["env_dir"]), problem, mend)], [])
    reason = skip or asked["reason"] or ("" if asked["moe"] else "the model has no experts")
    if reason:
        return Choice([], [], [f"No kernel configs: {reason}."])
    checker = _Checker(asked, read, limit, device_name)
    names = {name for lookup in asked["lookups"] for name in (lookup["file"], lookup["down_file"])}
    notes, findings = _not_looked_for(own, names, asked["directory"])
    if findings:
        return Choice([], findings, notes)
    files: list[Chosen] = []
    for lookup in asked["lookups"]:
        up, down = (_find(lookup[key], asked, own, shipped) for key in ("file", "down_file"))
        # A pair is from one hand: a `_down` file of ours beside an up file of the user's may have other block sizes.
        if up in own and down not in own:
            down = None
        pair = [source for source in (up, down) if source]
        findings += [finding for source in pair for finding in checker.check(source)]
        files += [checker.chosen(source) for source in pair if not checker.check(source)]
        if not up:
            more_findings, more_notes = _without(lookup, limit, device_name)
            findings += more_findings
            notes += more_notes
        elif down:
            findings += checker.check_pair(up, down)
    return Choice([] if findings else files, findings, notes)


class _Checker:
    def __init__(self, asked: Mapping[str, Any], read: Callable[[str], str], limit: int, device_name: str) -> None:
        self._asked = asked
        self._read = read
        self._limit = limit
        self._device = device_name
        self._kind = asked["shape"]["kind"]
        self._block_shape = tuple(asked["shape"]["block_shape"]) if asked["shape"]["block_shape"] else None
        self._texts: dict[str, str] = {}
        self._problems: dict[str, list[Finding]] = {}

    def check(self, source: Source) -> list[Finding]:
        if source.path not in self._problems:
            self._problems[source.path] = [_finding(source, problem) for problem in self._all_problems(source)]
        return self._problems[source.path]

    def check_pair(self, up: Source, down: Source) -> list[Finding]:
        if self.check(up) or self.check(down):
            return []
        return [_finding(down, problem) for problem in _moe.check_pair(self._data(up), self._data(down))]

    def chosen(self, source: Source) -> Chosen:
        tiles = [_moe.entry_tile(entry) for entry in self._data(source).values()]
        return Chosen(
            name=f"{RELEASE_FOLDER}/{source.name}",
            target=f"{self._asked['root']}/configs/{self._asked['directory']}/{source.name}",
            content=self._texts[source.path],
            source=source.path,
            entries=len(tiles),
            largest=max(shared_bytes(tile, self._kind, self._block_shape) for tile in tiles),
        )

    def _data(self, source: Source) -> Any:
        return json.loads(self._texts[source.path])

    def _all_problems(self, source: Source) -> list[str]:
        try:
            self._texts[source.path] = self._read(source.path)
            data = self._data(source)
        except (OSError, UnicodeDecodeError) as error:
            return [f"Can't be read: {error}."]
        except ValueError as error:
            return [f"Is not JSON: {error}."]
        return _moe.check_file(source.name, data, self._kind, self._block_shape, self._limit, self._device)


def _finding(source: Source, problem: str) -> Finding:
    what, _, mend = problem.partition(" Mend: ")
    usual = "Take a smaller tile or fewer stages, or generate the file: `python -m kernel_configs`."
    return Finding(source.path, "(file)", source.name, what, mend or usual)


def _find(name: str, asked: Mapping[str, Any], own: Sequence[Source], shipped: Sequence[Source]) -> Source | None:
    for source in own:
        if source.name == name and source.folder in ("", asked["directory"]):
            return source
    by_folder = {source.folder: source for source in shipped if source.name == name}
    if not by_folder:
        return None
    # Tiles made for the nearest older Triton; the oldest ones where the image's is older still.
    older = [folder for folder in by_folder if _number(folder) <= _number(asked["directory"])]
    return by_folder[max(older, key=_number) if older else min(by_folder, key=_number)]


def _number(folder: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", folder)]


def _not_looked_for(own: Sequence[Source], names: set[str], directory: str) -> tuple[list[str], list[Finding]]:
    """Files of the user's that would be ignored: notes, and a finding if that is all of them."""
    taken = [source for source in own if source.name in names and source.folder in ("", directory)]
    ignored = [source for source in own if source not in taken]
    notes = [f"{source.path} is not looked for by this image and model." for source in ignored]
    if own and not taken:
        first = ignored[0]
        problem = "This image and model look for other names, so that all of your files would be ignored."
        near = nearest(first.name, sorted(names)) or min(sorted(names), key=len)
        if first.name in names:
            problem, near = f"Is for {first.folder}, and this image reads {directory}.", first.name
        mend = f"Name it {near}, in your folder itself or below it in {directory}."
        return [], [Finding(first.path, "moe_config_dirs", first.name, problem, mend)]
    return notes, []


def _without(lookup: Mapping[str, Any], limit: int, device_name: str) -> tuple[list[Finding], list[str]]:
    """There is no file to bring: is that fatal? The image may have its own, or default tiles that fit."""
    if lookup["up"]["path"]:
        return [], [f"The image brings {lookup['up']['path']} itself."]
    verdict = lookup["without_file"]["verdict"]
    if all(lookup["without_file"][size]["fits"] for size in ("small", "large")):
        return [], [f"There is no {lookup['file']}; SGLang's default tiles fit {device_name}."]
    mend = (
        "Generate it with `python -m kernel_configs` and name its folder in moe_config_dirs; see docs/moe-configs.md."
    )
    problem = f"There is no such file, and without it the server {verdict} (limit {limit:,} bytes)."
    return [Finding("kernel configs", "(file)", lookup["file"], problem, mend)], []


def missed(targets: Sequence[str], used: Sequence[str]) -> list[str]:
    """Files of a release that a server did not take. Names that differ in E alone are one: it looks for one of them."""
    groups: dict[str, list[str]] = {}
    for target in targets:
        groups.setdefault(re.sub(r"E=\d+", "E=", target), []).append(target)
    return [group[0] for group in groups.values() if not set(group) & set(used)]


def sources(path: str, folder: str, names: Sequence[str]) -> list[Source]:
    """The config files of one folder of the user's or of ours. folder: "" or triton_X_Y_Z."""
    return [Source(f"{path}/{name}", folder, name) for name in sorted(names) if name.endswith(".json")]


def is_triton_folder(name: str) -> bool:
    """Whether a folder is named as SGLang names those of a Triton version."""
    return bool(_TRITON_FOLDER.match(name))
