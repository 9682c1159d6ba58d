# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Tables: aligned whatever the cells hold, and never wider than asked where that is possible."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _table
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

ROWS: list[dict[str, object]] = [
    {"host": "spark-0", "state": "serving", "tokens": 1234},
    {"host": "火花-1", "state": None, "tokens": 7.5},
]


def test_alignment() -> None:
    """Text to the left, numbers to the right, wide characters counted as two."""
    text = _table.render(ROWS, ["host", {"key": "state", "title": "doing"}, "tokens"])
    assert text.split("\n") == [
        "host     doing    tokens",
        "-------  -------  ------",
        "spark-0  serving    1234",
        "火花-1               7.5",
    ]


@pytest.mark.parametrize(
    ("text", "columns"),
    [("abc", 3), ("火花", 4), ("e\u0301", 1), ("\u200b", 0), ("\uff46\uff55", 4), ("", 0)],
)
def test_width(text: str, columns: int) -> None:
    """Columns on a terminal, not characters."""
    assert _table.width(text) == columns


@pytest.mark.parametrize(
    ("text", "columns", "shown"),
    [("abcdef", 6, "abcdef"), ("abcdef", 5, "abcd…"), ("火花火花", 6, "火花…"), ("abc", 1, "…")],
)
def test_fit(text: str, columns: int, shown: str) -> None:
    """A cut cell says so, and never gets wider than it may be."""
    assert _table.fit(text, columns) == shown
    assert _table.width(shown) <= columns


@pytest.mark.parametrize(
    ("text", "columns", "lines"),
    [
        ("one two three", 8, ["one two", "three"]),
        ("abcdefghij", 4, ["abcd", "efgh", "ij"]),
        ("a bcdefghij", 4, ["a", "bcde", "fghi", "j"]),
        ("火花火花", 5, ["火花", "火花"]),
        ("火", 1, ["火"]),
        ("", 4, [""]),
    ],
)
def test_wrap(text: str, columns: int, lines: list[str]) -> None:
    """Broken at spaces; inside a word only if it must be."""
    assert _table.wrap(text, columns) == lines


@pytest.mark.parametrize("long_cells", ["wrap", "ellipsis"])
def test_max_width(long_cells: str) -> None:
    """A long cell gives way, numbers stay whole."""
    rows = [{"a": "word " * 30, "b": 1234567890, "c": "short"}]
    text = _table.render(rows, ["a", "b", "c"], max_width=40, long_cells=long_cells)
    assert max(_table.width(line) for line in text.split("\n")) <= 40
    assert "1234567890" in text
    assert "short" in text
    assert ("…" in text) == (long_cells == "ellipsis")


def test_numbers_are_never_cut() -> None:
    """Not even when the table gets wider than asked."""
    text = _table.render([{"a": "one two three", "n": 12345678901234}], ["a", "n"], max_width=16)
    assert text.split("\n")[2:] == ["one two   12345678901234", "three"]


def test_color_does_not_move_columns() -> None:
    """Colour is put around the text only, and only where it was asked for."""
    colors = {"state": {"serving": "green"}}
    text = _table.render(ROWS, ["state", "host"], colors=colors, paint=lambda word, color: f"<{color}>{word}</>")
    assert "<green>serving</>  spark-0" in text
    assert text.count("<green>") == 1


def test_cells() -> None:
    """Values as people read them; control characters can't reach the terminal."""
    values = [None, True, False, ["a", 1], "x\ny", "\x1b[31mred", 0]
    assert [_table.cell(value) for value in values] == [
        "",
        "yes",
        "no",
        "a, 1",
        "x y",
        " red",
        "0",
    ]


def test_no_rows_and_bad_columns() -> None:
    """An empty table still has its titles; a column without a key is named."""
    assert _table.render([], ["host"]) == "host\n----"
    with pytest.raises(ValueError, match="column 2"):
        _table.render([], ["host", {"title": "x"}])


def test_plugin_shows_the_table(tmp_path: Path) -> None:
    """The real action plugin, without colour and with it, in check mode too."""
    arguments = {
        "title": "Ranks",
        "columns": ["host", "state"],
        "rows": [{"host": "spark-0", "state": "serving"}],
        "footer": "1 of 1",
        "colors": {"state": {"serving": "green"}},
    }
    plain = adhoc.run(tmp_path, "table", arguments, check=True, env={"ANSIBLE_NOCOLOR": "1"})
    text = "Ranks\nhost     state\n-------  -------\nspark-0  serving\n1 of 1"
    assert plain.result["text"] == text
    assert not plain.result["changed"]
    assert text in plain.shown
    colored = adhoc.run(tmp_path, "table", arguments, env={"ANSIBLE_FORCE_COLOR": "1"})
    assert "\x1b[0;32mserving\x1b[0m" in colored.shown
    assert colored.result["text"] == text


def test_plugin_names_an_unknown_color(tmp_path: Path) -> None:
    """The error says which colours there are."""
    arguments = {"columns": ["a"], "rows": [], "colors": {"a": {"x": "mauve"}}}
    result = adhoc.run(tmp_path, "table", arguments).result
    assert result["failed"]
    assert "colors.a.x" in result["msg"]
    assert "green" in result["msg"]
