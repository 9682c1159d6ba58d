# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Whether a model directory is complete, and a digest that is equal on all nodes that hold it.

The seal is a small file that the role writes when all is there. It names the source and the
digest, so a directory that was changed or cut short afterwards shows it.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

MARKER = ".dgx-spark-complete"
# The hub client's bookkeeping: it holds times and differs from node to node.
EXCLUDED_DIRECTORIES = (".cache",)
CONFIG = "config.json"
INDEX_SUFFIX = ".index.json"
# What a hub client leaves behind when a download is cut short.
UNFINISHED = (".incomplete", ".part", ".tmp")


@dataclass(frozen=True)
class File:
    """One file: its path below the directory with "/", its size in bytes, its sha256 if small."""

    path: str
    bytes: int
    sha256: str | None


@dataclass(frozen=True)
class Contents:
    """All files of a directory in order of their paths, and what was wrong with reading them."""

    files: tuple[File, ...]
    problems: tuple[str, ...]


def scan(root: str, digest_bytes: int) -> Contents:
    """Read a directory tree. Files of up to digest_bytes are hashed by their content.

    Links are followed only to files inside the directory; folders behind links are passed over.
    """
    files: list[File] = []
    problems: list[str] = []
    real_root = os.path.realpath(root)

    def trouble(error: OSError) -> None:
        problems.append(f"{error.filename}: {error.strerror}")

    for folder, folders, names in os.walk(root, onerror=trouble):
        below = os.path.relpath(folder, root)
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]
        folders[:] = [name for name in folders if name not in EXCLUDED_DIRECTORIES and name not in links]
        problems += [f"{_join(below, name)}: a link to a folder, not read" for name in links]
        for name in names:
            path = _join(below, name)
            if path == MARKER:
                continue
            try:
                file = _read(os.path.join(folder, name), path, real_root, digest_bytes)
            except OSError as error:
                problems.append(f"{path}: {error.strerror}")
                continue
            if isinstance(file, str):
                problems.append(file)
            else:
                files.append(file)
    return Contents(tuple(sorted(files, key=lambda file: file.path)), tuple(sorted(problems)))


def _join(folder: str, name: str) -> str:
    joined = name if folder == "." else f"{folder}/{name}"
    # A name that isn't UTF-8 must not stop JSON or the digest.
    return joined.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _read(where: str, path: str, real_root: str, digest_bytes: int) -> File | str:
    """The file, or what keeps it from counting."""
    if os.path.islink(where):
        real = os.path.realpath(where)
        if os.path.commonpath([real, real_root]) != real_root:
            return f"{path}: a link that leads out of the directory, not followed"
    status = os.stat(where)
    if not stat.S_ISREG(status.st_mode):
        return f"{path}: not a regular file"
    if status.st_size > digest_bytes:
        return File(path, status.st_size, None)
    with open(where, "rb") as file:
        return File(path, status.st_size, hashlib.sha256(file.read()).hexdigest())


def digest(files: Sequence[File]) -> str:
    """sha256 over path, size and small content of every file, in order of the paths."""
    total = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.path):
        total.update(json.dumps([file.path, file.bytes, file.sha256]).encode() + b"\n")
    return total.hexdigest()


def content_problems(root: str, files: Sequence[File]) -> list[str]:
    """What a model lacks: its config, shards that an index names, whole downloads."""
    present = {file.path: file for file in files}
    problems = []
    if CONFIG not in present:
        problems.append(f"{CONFIG} is missing")
    elif not isinstance(_load(root, CONFIG), dict):
        problems.append(f"{CONFIG} is not a JSON object")
    for name in sorted(present):
        if "/" not in name and name.endswith(INDEX_SUFFIX):
            problems += _index_problems(root, name, present)
        if name.endswith(UNFINISHED):
            problems.append(f"{name} is the rest of a download that was cut short")
        if name.endswith(".safetensors") and present[name].bytes == 0:
            problems.append(f"{name} is empty")
    if not any(name.endswith((".safetensors", ".bin", ".gguf", ".pt")) for name in present):
        problems.append("there are no weights (*.safetensors)")
    return problems


def _index_problems(root: str, name: str, present: dict[str, File]) -> list[str]:
    index = _load(root, name)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict):
        return [f"{name} has no weight_map"]
    shards = sorted({str(shard) for shard in weight_map.values()})
    missing = [shard for shard in shards if shard not in present]
    if not missing:
        return []
    some = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
    return [f"{name} names {len(shards)} shards, {len(missing)} are missing: {some}"]


def _load(root: str, name: str) -> Any:
    """The JSON in a file, None when it isn't JSON."""
    try:
        with open(os.path.join(root, name), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def read_marker(root: str) -> dict[str, Any] | None:
    """The seal, None when there is none or it can't be read."""
    marker = _load(root, MARKER)
    return marker if isinstance(marker, dict) else None


def marker_text(source: str, revision: str, digest_now: str) -> str:
    """The seal's text."""
    marker = {"source": source, "revision": revision, "digest": digest_now}
    return json.dumps(marker, indent=2, sort_keys=True) + "\n"


def describe(root: str, digest_bytes: int, manifest: bool = False) -> dict[str, Any]:
    """All that model_directory_info returns about a directory."""
    if not os.path.isdir(root):
        problem = "not a directory" if os.path.lexists(root) else "does not exist"
        facts: dict[str, Any] = {"exists": False, "files": 0, "bytes": 0, "digest": None}
        facts.update(complete=False, marker=None, problems=[f"{root}: {problem}"])
        return {**facts, "manifest": []} if manifest else facts
    contents = scan(root, digest_bytes)
    now = digest(contents.files)
    marker = read_marker(root)
    facts = {
        "exists": True,
        "files": len(contents.files),
        "bytes": sum(file.bytes for file in contents.files),
        "digest": now,
        "marker": marker,
        "complete": marker is not None and marker.get("digest") == now,
        "problems": [*contents.problems, *content_problems(root, contents.files)],
    }
    if manifest:
        facts["manifest"] = [asdict(file) for file in contents.files]
    return facts
