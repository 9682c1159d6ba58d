# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Holds values against argument specs (the `options` of a role's meta/argument_specs.yml).

ansible-core checks a role's arguments when the role starts, one host after another. Here the same specs are held
against the whole inventory before any host is touched, so that every error is told at once, with its mend.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._nearest import nearest

Spec = Mapping[str, Any]

_BOOLEAN_WORDS = {"yes", "no", "on", "off", "true", "false"}


def _type_problem(spec: Spec, value: object) -> str | None:
    """Why `value` is not of the spec's type, or None. Numbers and booleans may be text, as `-e name=value` gives."""
    wanted = spec.get("type", "str")
    if wanted == "raw":
        return None
    if wanted == "int":
        if isinstance(value, bool) or not _is_int(value):
            return "is not a whole number"
    elif wanted == "bool":
        if not isinstance(value, bool) and str(value).lower() not in _BOOLEAN_WORDS:
            return "is neither true nor false"
    elif wanted == "list":
        if not isinstance(value, (list, tuple)):
            return "is not a list"
    elif wanted == "dict":
        if not isinstance(value, Mapping):
            return "is not a mapping"
    elif isinstance(value, (Mapping, list, tuple)):
        return "is not text"
    elif not str(value).strip() and spec.get("default") != "":
        return "is empty"
    return None


def _is_int(value: object) -> bool:
    try:
        int(str(value))
    except ValueError:
        return False
    return True


def example(spec: Spec) -> str:
    """What to write, as the end of a mend: the spec's example, else its default, else nothing."""
    if "example" in spec:
        return f" Example: {shown(spec['example'])}."
    default = spec.get("default")
    return f" The default is {shown(default)}." if default is not None else ""


def check_value(where: str, variable: str, spec: Spec, value: object) -> list[Finding]:
    """Hold one value against its spec: type, choices, elements and nested options.

    Returns a list of findings, empty if the value is as the spec wants it.
    """
    problem = _type_problem(spec, value)
    if problem:
        mend = f"Give a value of type {spec.get('type', 'str')}.{example(spec)}"
        return [Finding(where, variable, shown(value), f"{problem.capitalize()}.", mend)]
    choices = spec.get("choices")
    if choices and not isinstance(value, (list, tuple)) and value not in choices:
        allowed = ", ".join(str(choice) for choice in choices)
        return [Finding(where, variable, shown(value), "Is not one of the choices.", f"Use one of: {allowed}.")]
    if isinstance(value, Mapping) and spec.get("options"):
        return check_mapping(where, variable, spec["options"], value)
    if isinstance(value, (list, tuple)):
        element = {"type": spec.get("elements", "raw"), "options": spec.get("options"), "choices": choices}
        return [
            finding
            for index, item in enumerate(value)
            for finding in check_value(where, f"{variable}[{index}]", element, item)
        ]
    return []


def check_mapping(where: str, variable: str, options: Mapping[str, Spec], value: Mapping[str, Any]) -> list[Finding]:
    """Hold a mapping against a closed set of options: unknown keys, missing keys, and each value."""
    findings = unknown_keys(where, variable, value, options)
    for name, spec in options.items():
        path = f"{variable}.{name}" if variable else name
        if value.get(name) is None:
            if spec.get("required"):
                findings.append(Finding(where, path, shown(None), "Is required.", f"Add `{name}`.{example(spec)}"))
        else:
            findings += check_value(where, path, spec, value[name])
    return findings


def unknown_keys(where: str, variable: str, value: Mapping[str, Any], known: Iterable[str]) -> list[Finding]:
    """A finding for each key that is not known, naming the nearest known one."""
    names = list(known)
    findings = []
    for key in value:
        if key in names:
            continue
        path = f"{variable}.{key}" if variable else str(key)
        near = nearest(str(key), names)
        mend = f"Did you mean `{near}`?" if near else f"Remove it, or use one of: {', '.join(sorted(names))}."
        findings.append(Finding(where, path, shown(value[key]), "Is not a known key.", mend))
    return findings
