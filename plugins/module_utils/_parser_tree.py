# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Patches the tool-call parsers of an SGLang that lies in a folder, in place."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_patch import (
    Patched,
    changed,
    patch,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_syntax import (
    FOLDER,
    OWN_FILES,
    PARSER,
    READ,
    trouble,
)


def patch_tree(root: Path, detector: str, types: str, write: bool = True) -> Patched:
    """Patch the package in place. root: the folder `sglang`; write: False only looks.

    All or nothing: each file is replaced at once, the registry last, and what was replaced is put back if a later one
    fails. Killed in between, it leaves whole files and a package that works; patched again, it is complete.
    """
    folder = root / FOLDER
    sources = {}
    for name in READ:
        path = folder / name
        try:
            sources[name] = path.read_bytes().decode()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise trouble(name, f"it cannot be read from {folder}: {error}", OWN_FILES) from None
    if not sources:
        raise trouble("", f"{root} has none of these files", "name the folder `sglang` of an installed release")
    patched = patch(sources, detector, types, _version(root))
    if write:
        names = sorted(changed(sources, patched), key=lambda name: name == PARSER)
        _write(folder, {name: patched.files[name] for name in names}, sources)
    return patched


def _version(root: Path) -> str:
    """The version that the package tells of itself; empty if it tells none."""
    for name in ("_version.py", "version.py"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = (root / name).read_bytes().decode()
            found = re.search(r"""^(?:__version__|version)\b[^\n]*=\s*["']([^"']+)""", text, re.M)
            if found:
                return found.group(1)
    return ""


def _write(folder: Path, texts: Mapping[str, str], before: Mapping[str, str]) -> None:
    """Replace files, in this order. before: the texts to put back if one cannot be replaced."""
    made: dict[str, Path] = {}
    done: list[str] = []
    try:
        for name, text in texts.items():
            made[name] = _beside(folder / name, text)
        for name, path in made.items():
            os.replace(path, folder / name)
            done.append(name)
    except BaseException as error:
        for name in done:
            if name in before:
                os.replace(_beside(folder / name, before[name]), folder / name)
            else:
                (folder / name).unlink()
        if isinstance(error, OSError):
            mend = "let this user write there, and give it space"
            raise trouble("", f"{folder} cannot be written: {error}", mend) from None
        raise
    finally:
        for path in made.values():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _beside(path: Path, text: str) -> Path:
    """A complete temporary file next to path, with the mode of the one that is there."""
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
    handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        os.chmod(name, mode)
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)
