# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Chooses and checks the kernel configs of a rollout, on the controller."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, report
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_choice import (
    Chosen,
    Source,
    choose,
    is_triton_folder,
    sources,
)
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import COLLECTION, missing_directories

ARGUMENTS = {
    "asked": {"type": "dict", "required": True},
    "directories": {"type": "list", "elements": "path", "default": []},
    "device_name": {"type": "str", "required": True},
    "limit": {"type": "int", "required": True},
    "skip": {"type": "str", "default": ""},
}


class ActionModule(ActionBase):
    """moe_config_choose."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return {files, notes, rows}; what is wrong with any file of the user's fails."""
        super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        directories = [Path(path).expanduser() for path in options["directories"]]
        found = {path: _list(path) for path in directories}
        findings = missing_directories("moe_config_dirs", directories)
        findings += [_empty(path) for path, listed in found.items() if path.is_dir() and not listed]
        own = [source for listed in found.values() for source in listed]
        shipped = _list(COLLECTION / "files" / "moe_configs")
        settings = (options["limit"], options["device_name"], options["skip"])
        choice = choose(options["asked"], own, shipped, _read, *settings)
        findings += choice.findings
        if findings:
            title = "The kernel configs can't be rolled out; nothing was changed."
            return {"failed": True, "msg": report(findings, title)}
        files = [{key: getattr(file, key) for key in ("name", "target", "content")} for file in choice.files]
        rows = [_row(file, options["limit"]) for file in choice.files]
        return {"changed": False, "files": files, "rows": rows, "notes": choice.notes}


def _row(file: Chosen, limit: int) -> dict[str, str]:
    """A row for people; bytes are those of the largest entry, against the limit."""
    return {
        "file": PurePosixPath(file.target).name,
        "directory": PurePosixPath(file.target).parent.name,
        "entries": str(file.entries),
        "bytes": f"{file.largest:,} of {limit:,}",
        "from": file.source.removeprefix(f"{COLLECTION}/"),
    }


def _read(path: str) -> str:
    return Path(path).read_text(encoding="utf-8")


def _list(path: Path) -> list[Source]:
    """The config files right in a folder, then those in its triton_X_Y_Z folders."""
    if not path.is_dir():
        return []
    # The manifest tells about the files, and is none itself.
    found = sources(str(path), "", [item.name for item in path.glob("*.json") if item.name != "manifest.json"])
    for folder in sorted(item for item in path.iterdir() if item.is_dir() and is_triton_folder(item.name)):
        found += sources(str(folder), folder.name, [item.name for item in folder.glob("*.json")])
    return found


def _empty(path: Path) -> Finding:
    mend = "Put <name>.json into it, or triton_X_Y_Z/<name>.json; see docs/moe-configs.md."
    return Finding("group sparks", "moe_config_dirs", str(path), "Holds no config file.", mend)
