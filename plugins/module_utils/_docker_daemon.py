# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Merging settings into Docker's daemon.json without losing what the user wrote there."""

from __future__ import annotations

import json
import re
from typing import Any


class BadConfigError(Exception):
    """The file can't be understood; the text says where and how to mend it."""


def parse(text: str, path: str) -> dict[str, Any]:
    """The settings in the file's text, none in an empty one; BadConfigError if not an object."""
    if not text.strip():
        return {}
    try:
        settings = json.loads(text)
    except json.JSONDecodeError as trouble:
        raise BadConfigError(
            f"{path} is not valid JSON: {trouble.msg} at line {trouble.lineno}, column "
            f"{trouble.colno}. It was left as it is. Mend: correct that place by hand."
        ) from None
    if not isinstance(settings, dict):
        raise BadConfigError(
            f"{path} holds a JSON {_kind(settings)} at line 1, column 1, not an object. It was "
            'left as it is. Mend: make it an object, {"setting": value}.'
        )
    return settings


_PASSWORD = re.compile(r"(?://|^)[^/\s@:]*:([^/\s]+)@")
_PASSWORD_IN_JSON = re.compile(r"(?:/|\")[^/\s\"@:]*:([^/\s\"]+)@")


def passwords(settings: Any) -> set[str]:
    """The passwords in settings: those of addresses, as a proxy's `[http://]user:password@host`."""
    if isinstance(settings, dict):
        settings = list(settings.values())
    if isinstance(settings, list):
        return {found for one in settings for found in passwords(one)}
    return set(_PASSWORD.findall(settings)) if isinstance(settings, str) else set()


def written_passwords(text: str) -> set[str]:
    """The same in the text of a file, as they stand there: escaped, and also where it is no valid JSON."""
    return set(_PASSWORD_IN_JSON.findall(text))


def merge(present: Any, wanted: Any) -> Any:
    """wanted laid over present: dicts merged key by key, lists united in order, the rest replaced.

    Keys that wanted doesn't name stay, in their place; neither argument is changed.
    """
    if isinstance(present, dict) and isinstance(wanted, dict):
        merged = dict(present)
        for key, value in wanted.items():
            merged[key] = merge(present[key], value) if key in present else value
        return merged
    if isinstance(present, list) and isinstance(wanted, list):
        united = list(present)
        for item in wanted:
            if not _among(item, united):
                united.append(item)
        return united
    return wanted


LOG_DRIVERS = ("json-file", "local")
"""Those that write files of their own and take max-size and max-file; dockerd does not start others with these."""


def with_defaults(present: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The settings with what they say nothing of: keys that are there stay as they are, in dicts of dicts too.

    Options of the log are left out where its driver would not take them.
    """
    if present.get("log-driver", LOG_DRIVERS[0]) not in LOG_DRIVERS:
        defaults = {key: value for key, value in defaults.items() if key != "log-opts"}
    return _under(present, defaults)


def _under(present: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    whole = dict(present)
    for key, value in defaults.items():
        if key not in present:
            whole[key] = value
        elif isinstance(present[key], dict) and isinstance(value, dict):
            whole[key] = _under(present[key], value)
    return whole


def undone(former: dict[str, Any], made: dict[str, Any], current: dict[str, Any]) -> dict[str, Any]:
    """The current settings without what was made of the former ones; what somebody else has changed since stays.

    former: before the first change. made: after the last one. current: what is there now.
    """
    back: dict[str, Any] = {}
    for key, value in current.items():
        ours, before = made.get(key), former.get(key)
        if key not in made:
            back[key] = value
        elif _same(value, ours):
            if key in former:
                back[key] = before
        elif isinstance(value, dict) and isinstance(ours, dict):
            inner = undone(before if isinstance(before, dict) else {}, ours, value)
            if inner or key in former:
                back[key] = inner
        elif isinstance(value, list) and isinstance(ours, list):
            kept = before if isinstance(before, list) else []
            back[key] = [item for item in value if _among(item, kept) or not _among(item, ours)]
        else:
            back[key] = value
    return back


def _among(item: Any, items: list[Any]) -> bool:
    return any(_same(item, other) for other in items)


def rendered(settings: dict[str, Any]) -> str:
    """The text of the file: four spaces as in Docker's own documentation, keys in their order."""
    return json.dumps(settings, indent=4, ensure_ascii=False) + "\n"


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether both say the same to Docker; the order of keys doesn't count, that of lists does."""
    return _same(one, other)


def _same(one: Any, other: Any) -> bool:
    # Python holds True equal to 1; JSON doesn't.
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _kind(value: object) -> str:
    names = {list: "array", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def is_stale(shown: str, written: float) -> bool:
    """Whether a unit is active since before `written` (seconds since 1970).

    shown: its ActiveState and ActiveEnterTimestamp from `systemctl show --timestamp=unix` ("@1795438954").
    """
    lines = dict(line.partition("=")[::2] for line in shown.splitlines())
    since = lines.get("ActiveEnterTimestamp", "").lstrip("@")
    return lines.get("ActiveState") == "active" and since.isdigit() and int(since) < int(written)
