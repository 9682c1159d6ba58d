"""Every role documents its variables once, in meta/argument_specs.yml.

Here the files are held to that: each option has a type, a description, an example and a unit, and
says what holds when it is not set; defaults/main.yml says the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.parent.parent for path in ROOT.glob("roles/*/tasks/main.yml"))
# One name for the whole cluster: every role that asks for the device reads the same variable.
SHARED_NAMES = {"cluster": {"sglang_device"}}
UNIT = re.compile(
    r"\b(seconds?|minutes?|hours?|milliseconds?|bytes?|[KMGT]iB|percent|tokens?|ranks?|hosts?|nodes?|retries|restarts|attempts|times"
    r"|ports?|port number|host number|GPUs?|requests?|lines?|processes|packets)\b"
)
UNSET = "one of: a default, required: true, or what holds if it is not set"

Spec = dict[str, Any]


def load(path: Path) -> Any:
    """Return a YAML file's content; an empty dict for a missing or empty file."""
    return (yaml.safe_load(path.read_text()) if path.exists() else None) or {}


def options_of(role: Path) -> Spec:
    """Return the options of the role's main entry point, by name."""
    options: Spec = load(role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    return options


def walk(options: Spec, prefix: str = "") -> Iterator[tuple[str, Spec]]:
    """Yield every option with its dotted name, those inside dicts and lists too."""
    for name, option in options.items():
        yield prefix + name, option
        yield from walk(option.get("options", {}), f"{prefix}{name}.")


def problems_of(name: str, option: Spec) -> Iterator[str]:
    """Yield what a reader would miss in one option."""
    kind = option.get("type")
    description = option.get("description", "")
    text = " ".join(description) if isinstance(description, list) else str(description)
    nested = "." in name
    if not text.strip():
        yield f"{name}: no description"
    if kind is None:
        yield f"{name}: no type"
    if kind == "list" and "elements" not in option:
        yield f"{name}: a list without elements"
    ways_out = ["default" in option, bool(option.get("required")), "not set" in text]
    if sum(ways_out) != 1 and not (nested and not any(ways_out)):
        yield f"{name}: {UNSET}"
    if "default" in option and option["default"] is None:
        yield f"{name}: null is no default"
    if kind != "bool" and "choices" not in option and "example" not in option:
        yield f"{name}: no example"
    if kind in ("int", "float") and not UNIT.search(text):
        yield f"{name}: the description does not say the unit"


def test_there_are_roles() -> None:
    assert ROLES


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_options_are_documented(role: Path) -> None:
    found = [line for item in walk(options_of(role)) for line in problems_of(*item)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_defaults_agree(role: Path) -> None:
    documented = {name: spec["default"] for name, spec in options_of(role).items() if "default" in spec}
    assert documented == load(role / "defaults/main.yml")


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_names_carry_the_role(role: Path) -> None:
    foreign = {name for name in options_of(role) if not name.startswith(f"{role.name}_")}
    assert foreign <= SHARED_NAMES.get(role.name, set())


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ({"description": "If it is not set, B.", "type": "str", "example": "a"}, None),
        ({"type": "str", "default": "", "example": "a"}, "no description"),
        ({"description": "A.", "default": "", "example": "a"}, "no type"),
        (
            {"description": "A.", "type": "str", "example": "a"},
            UNSET,
        ),
        ({"description": "A.", "type": "str", "required": True}, "no example"),
        (
            {"description": "A.", "type": "list", "default": [], "example": []},
            "a list without elements",
        ),
        (
            {"description": "How long.", "type": "int", "default": 1, "example": 2},
            "the description does not say the unit",
        ),
    ],
)
def test_a_gap_is_found(option: Spec, problem: str | None) -> None:
    assert list(problems_of("x", option)) == ([f"x: {problem}"] if problem else [])
