"""Pages that are made from the source are the ones in the tree, and what pages point at is there."""

from __future__ import annotations

import importlib.util
import re
import xml.etree.ElementTree as ET
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
pages = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


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


# ---- links -----------------------------------------------------------------------------------


def prose(path: Path) -> str:
    """A page without its code."""
    return re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def links(path: Path) -> list[str]:
    """The targets of all links and pictures."""
    return re.findall(r"\]\(([^()\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(path)))


@cache
def anchors(path: Path) -> set[str]:
    """What GitHub makes of a page's headings: lower case, blanks as hyphens, punctuation gone, doubles numbered."""
    found: Counter[str] = Counter()
    named = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *$", prose(path), flags=re.MULTILINE):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        named.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return named


def broken(path: Path, target: str) -> str:
    """What is wrong with a link of a page, "" if nothing is. Links to elsewhere in the world are not followed."""
    if re.match(r"[a-z]+:", target):
        return "" if target.startswith("https://") else "is not https"
    name, _, anchor = target.partition("#")
    file = (path.parent / name).resolve() if name else path
    if not file.is_relative_to(ROOT):
        return "leaves the repository"
    if not file.exists():
        return "is not there"
    if anchor and anchor not in anchors(file):
        return f"has no such heading; there are {', '.join(sorted(anchors(file)))}"
    return ""


@pages
def test_links_and_anchors_resolve(path: Path) -> None:
    found = {target: broken(path, target) for target in links(path)}
    assert {target: why for target, why in found.items() if why} == {}


def test_broken_links_are_found(tmp_path: Path) -> None:
    page = ROOT / "docs/security.md"
    assert broken(page, "nowhere.md") == "is not there"
    assert broken(page, "../../x.md") == "leaves the repository"
    assert broken(page, "http://example.org") == "is not https"
    assert "no such heading" in broken(page, "fabric.md#nothing")
    assert "no such heading" in broken(page, "#nothing")
    assert broken(page, "fabric.md#what-siteyml---tags-fabric-does") == ""
    twice = tmp_path / "x.md"
    twice.write_text("# A `b` (c)\n## [Two](x.md), it's\n## A b c\n```\n# no\n[x](y)\n```\n[x](y.md#z) `[no](no)`")
    assert anchors(twice) == {"a-b-c", "two-its", "a-b-c-1"}
    assert links(twice) == ["x.md", "y.md#z"]


def test_every_page_can_be_found_from_the_index() -> None:
    index = {target.partition("#")[0] for target in links(ROOT / "docs/README.md")}
    assert [path.name for path in PAGES[1:] if path.name not in index] == ["README.md"]


def test_the_readme_stays_short() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 120


# ---- what pages name -------------------------------------------------------------------------


def test_checks_that_pages_name_are_there() -> None:
    """Ids like FABRIC.MTU; in the generated page each stands in a row of its own."""
    listed = ROOT / "docs/checks.md"
    known = set(re.findall(r"^\| `([A-Z]+\.[A-Z0-9_]+)`", listed.read_text(encoding="utf-8"), flags=re.MULTILINE))
    for path in PAGES:
        named = set(re.findall(r"`([A-Z]+\.[A-Z0-9_]+)`", prose(path)))
        assert named - known == set(), path.name


@pages
def test_playbooks_that_a_page_names_are_there(path: Path) -> None:
    named = set(re.findall(r"playbooks/(\w+\.yml)", path.read_text(encoding="utf-8")))
    assert named - {file.name for file in (ROOT / "playbooks").glob("*.yml")} == set()


@pages
def test_variables_that_a_page_names_are_there(path: Path) -> None:
    """Words in code that begin as a role's variables do, and are set or explained."""
    known = set(re.findall(r"^\| `(\w+)", (ROOT / "docs/variables.md").read_text(encoding="utf-8"), flags=re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    set_here = set(re.findall(r"^ *#? *(cluster_\w+):", text, flags=re.MULTILINE))
    named = set(re.findall(r"`((?:cluster|rank|firewall|smoke|memory_guard)_\w+)`", text)) | set_here
    assert named - known - {"cluster_plan", "cluster_self", "rank_info", "rank_wait"} == set()


def test_the_picture_is_sound_and_has_no_scripts() -> None:
    root = ET.parse(ROOT / "docs/house.svg").getroot()
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert names <= {"svg", "title", "style", "rect", "text", "path", "defs", "g", "use"}
    assert "prefers-color-scheme: dark" in "".join(root.itertext())
