"""Pages that are made from the source are the ones in the tree."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("name", ["variables", "checks"])
def test_page_is_current(name: str) -> None:
    spec = importlib.util.spec_from_file_location(f"make_{name}", ROOT / f"docs/make_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    assert page == module.page(), f"run: python docs/make_{name}.py"


def test_page_of_variables_names_every_role() -> None:
    page = (ROOT / "docs/variables.md").read_text(encoding="utf-8")
    for role in (ROOT / "roles").iterdir():
        assert f"## Role `{role.name}`" in page
