"""Pages that are made from the source are the ones in the tree."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_page_of_variables_is_current() -> None:
    spec = importlib.util.spec_from_file_location("make_variables", ROOT / "docs/make_variables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (ROOT / "docs/variables.md").read_text(encoding="utf-8")
    assert page == module.page(), "run: python docs/make_variables.py"


def test_page_of_variables_names_every_role() -> None:
    page = (ROOT / "docs/variables.md").read_text(encoding="utf-8")
    for role in (ROOT / "roles").iterdir():
        assert f"## Role `{role.name}`" in page
