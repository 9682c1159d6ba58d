# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Holds values against argument specs (the `options` of a role's meta/argument_specs.yml).

ansible-core checks a role's arguments when the role starts, one host after another. Here the same specs are held
against the whole inventory before any host is touched, so that every error is told at once, with its mend. What the
specs can't say, the range of a number and the form of a text, comes from _bounds and _formats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._bounds import outside
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import HIDDEN, Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._formats import malformed
from ansible_collections.dgx_spark.sglang.plugins.module_utils._nearest import nearest

Spec = Mapping[str, Any]

_BOOLEAN_WORDS = {"yes", "no", "on", "off", "true", "false"}
_WHOLE = re.compile(r"[+-]?[0-9]+\Z")
# C0, DEL and C1: none belongs into a name, a path or a word of a command line.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _int_problem(value: object) -> str | None:
    if not isinstance(value, bool) and _WHOLE.match(str(value)):
        return None
    return "is not a whole number"


def _float_problem(value: object) -> str | None:
    try:
        right = not isinstance(value, bool) and math.isfinite(float(str(value)))
    except ValueError:
        right = False
    return None if right else "is not a number"


def _bool_problem(value: object) -> str | None:
    if isinstance(value, bool) or str(value).lower() in _BOOLEAN_WORDS:
        return None
    return "is neither true nor false"


def _text_problem(value: object) -> str | None:
    if isinstance(value, (Mapping, list, tuple)):
        return "is not text"
    # YAML takes yes, no, on and off for booleans, and 1.10 for the number 1.1.
    if isinstance(value, bool):
        return "is true or false to YAML, not text"
    if isinstance(value, float):
        return "is a number to YAML, which drops its last zeros, not text"
    return None


_TYPE_PROBLEMS: dict[str, Callable[[object], str | None]] = {
    "raw": lambda value: None,
    "int": _int_problem,
    "float": _float_problem,
    "bool": _bool_problem,
    "list": lambda value: None if isinstance(value, (list, tuple)) else "is not a list",
    "dict": lambda value: None if isinstance(value, Mapping) else "is not a mapping",
    "str": _text_problem,
    "path": _text_problem,
}


def _words_problem(spec: Spec, value: object) -> tuple[str, str] | None:
    """What is wrong with text as such, and its mend; None for other types."""
    if spec.get("type", "str") not in ("str", "path"):
        return None
    text = str(value)
    if not text.strip():
        blank = spec.get("default") == "" and not text
        return None if blank else ("Is empty.", f"Give it a value, or leave it out.{example(spec)}")
    if _CONTROL.search(text):
        return "Has a line break or another control character.", "Write it on one line."
    if text != text.strip():
        return "Begins or ends with a space.", "Take the space away."
    return None


def example(spec: Spec) -> str:
    """What to write, as the end of a mend: the spec's example, else its default, else nothing."""
    if "example" in spec:
        return f" Example: {shown(spec['example'])}."
    default = spec.get("default")
    return f" The default is {shown(default)}." if default is not None else ""


def check_value(where: str, variable: str, spec: Spec, value: object) -> list[Finding]:
    """Hold one value against its spec: type, choices, range, form, elements and nested options.

    Returns a list of findings, empty if the value is as the spec wants it. That of a secret (no_log) is in none.
    """
    findings = _check_value(where, variable, spec, value)
    return [replace(finding, value=HIDDEN) for finding in findings] if spec.get("no_log") else findings


def _check_value(where: str, variable: str, spec: Spec, value: object) -> list[Finding]:
    kind = str(spec.get("type", "str"))
    problem = _TYPE_PROBLEMS[kind](value)
    if problem:
        mend = f"Give a value of type {kind}{', in quotes' if 'YAML' in problem else ''}.{example(spec)}"
        return [Finding(where, variable, shown(value), f"{problem[0].upper()}{problem[1:]}.", mend)]
    choices = spec.get("choices")
    if choices and not isinstance(value, (list, tuple)) and value not in choices:
        near = nearest(str(value), [str(choice) for choice in choices])
        allowed = ", ".join(str(choice) or '""' for choice in choices)
        mend = f"{f'Did you mean `{near}`? ' if near else ''}Use one of: {allowed}."
        return [Finding(where, variable, shown(value), "Is not one of the choices.", mend)]
    told = _words_problem(spec, value) or outside(variable, kind, value) or malformed(variable, kind, value)
    if told:
        return [Finding(where, variable, shown(value), *told)]
    if isinstance(value, Mapping) and spec.get("options"):
        return check_mapping(where, variable, spec["options"], value)
    if isinstance(value, (list, tuple)):
        element = {"type": spec.get("elements", "raw"), "options": spec.get("options"), "choices": choices}
        return [
            finding
            for index, item in enumerate(value)
            for finding in _check_element(where, f"{variable}[{index}]", element, item)
        ]
    return []


def _check_element(where: str, variable: str, spec: Spec, value: object) -> list[Finding]:
    if value is None:
        return [null_finding(where, variable, spec)]
    if isinstance(value, int) and not isinstance(value, bool) and spec["type"] in ("str", "path"):
        # Whoever reads the list takes its words for text, and one that is none ends there.
        problem, mend = "Is a number to YAML, not text.", "Put it in quotes."
        return [Finding(where, variable, shown(value), problem, mend)]
    return check_value(where, variable, spec, value)


def check_mapping(where: str, variable: str, options: Mapping[str, Spec], value: Mapping[str, Any]) -> list[Finding]:
    """Hold a mapping against a closed set of options: unknown keys, missing keys, and each value."""
    findings = unknown_keys(where, variable, value, options)
    for name, spec in options.items():
        path = f"{variable}.{name}" if variable else name
        if value.get(name) is not None:
            findings += check_value(where, path, spec, value[name])
        elif spec.get("required"):
            findings.append(Finding(where, path, shown(None), "Is required.", f"Add `{name}`.{example(spec)}"))
        elif name in value and "default" in spec:
            findings.append(null_finding(where, path, spec))
    return findings


def null_finding(where: str, variable: str, spec: Spec) -> Finding:
    """A variable that is there without a value wins over the default, and is nothing."""
    mend = f"Give it a value, or remove the line.{example(spec)}"
    return Finding(where, variable, "null", "Has no value.", mend)


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
