"""Writes docs/variables.md from the roles' argument specs and the schema of model profiles.

Usage: python docs/make_variables.py (tests/unit/test_docs.py holds the page against the specs).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.dgx_spark.sglang.plugins.module_utils._bounds import bounds_of  # noqa: E402
from ansible_collections.dgx_spark.sglang.plugins.module_utils._model import PROFILE_OPTIONS  # noqa: E402

PAGE = ROOT / "docs/variables.md"
ORDER = [
    "validate",
    "cluster",
    "preflight",
    "host",
    "fabric",
    "fabric_test",
    "firewall",
    "container_runtime",
    "memory_guard",
    "image",
    "model",
    "spread",
    "moe_config",
    "parser_patch",
    "release",
    "rank",
    "smoke",
]
HEAD = """# Variables

Made from the roles' `meta/argument_specs.yml` by `python docs/make_variables.py`; do not edit.
How they are held against an inventory, and what else is checked: [validate.md](validate.md).
"""


def cell(text: object) -> str:
    """Text for a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def described(option: Mapping[str, Any]) -> str:
    """The description as one paragraph, with the choices."""
    text = option["description"]
    text = " ".join(text) if isinstance(text, list) else text
    choices = option.get("choices")
    whole = text + (f" One of: {', '.join(choices)}." if choices else "")
    return cell(re.sub(r"C\(([^)]*)\)", r"`\1`", whole))


def default_of(option: Mapping[str, Any]) -> str:
    """The default, or that there is none."""
    if option.get("required"):
        return "required"
    return f"`{json.dumps(option['default'])}`" if "default" in option else "-"


def type_of(name: str, option: Mapping[str, Any]) -> str:
    """The type, and from what to what a number may go."""
    kind = str(option["type"])
    bounds = bounds_of(name) if kind in ("int", "float") else None
    return f"{kind}, {bounds}" if bounds else kind


def rows(options: Mapping[str, Mapping[str, Any]], prefix: str = "") -> list[str]:
    """A row an option, nested ones after the one that holds them."""
    lines = []
    for name, option in options.items():
        example = f"`{json.dumps(option['example'])}`" if "example" in option else ""
        row = [
            f"`{prefix}{name}`",
            type_of(f"{prefix}{name}", option),
            default_of(option),
            described(option),
            cell(example),
        ]
        lines.append(f"| {' | '.join(row)} |")
        lines += rows(option.get("options", {}), f"{prefix}{name}{'[]' if option['type'] == 'list' else ''}.")
    return lines


def section(title: str, about: str, options: Mapping[str, Mapping[str, Any]]) -> str:
    """One role, or the model profiles."""
    table = ["| name | type | default | meaning | example |", "| --- | --- | --- | --- | --- |", *rows(options)]
    body = "\n".join(table) if options else "No variables of its own."
    return f"## {title}\n\n{about}\n\n{body}\n"


def page() -> str:
    """The whole page."""
    sections = []
    for role in ORDER:
        specs = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text(encoding="utf-8"))
        main = specs["argument_specs"]["main"]
        sections.append(section(f"Role `{role}`", f"{main['short_description']}.", main["options"]))
    about = "The keys of a file under `models/`; its name without `.yml` is what `cluster_model` says."
    sections.append(section("Model profiles", about, PROFILE_OPTIONS))
    return "\n".join([HEAD, *sections])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
