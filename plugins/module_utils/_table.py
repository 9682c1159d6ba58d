# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Rows of data as an aligned table for a terminal, and nothing else."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence

GAP = "  "
# A column is never squeezed below this, even if the table then gets wider than asked.
NARROWEST = 8
ELLIPSIS = "…"
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x1f\x7f]")

Paint = Callable[[str, str], str]


def width(text: str) -> int:
    """Columns that the text takes on a terminal: East Asian wide characters two, combining none."""
    total = 0
    for char in text:
        if unicodedata.combining(char) or unicodedata.category(char) in ("Cf", "Me"):
            continue
        total += 2 if unicodedata.east_asian_width(char) in "WF" else 1
    return total


def fit(text: str, columns: int) -> str:
    """The text cut to at most columns, its end shown as an ellipsis when something is missing."""
    if width(text) <= columns:
        return text
    kept = ""
    for char in text:
        if width(kept + char) > columns - 1:
            break
        kept += char
    return kept + ELLIPSIS


def wrap(text: str, columns: int) -> list[str]:
    """The text in lines of at most columns, broken at spaces, inside a word only if it's longer."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if width(joined) <= columns:
            line = joined
            continue
        if line:
            lines.append(line)
        while width(word) > columns:
            head = ""
            for char in word:
                if head and width(head + char) > columns:
                    break
                head += char
            lines.append(head)
            word = word[len(head) :]
        line = word
    return [*lines, line] if line or not lines else lines


def cell(value: object) -> str:
    """A value as one line of plain text: nothing for None, yes or no, lists with commas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(cell(item) for item in value)
    return _CONTROL.sub(" ", str(value))


def normal_columns(columns: Sequence[object]) -> list[tuple[str, str]]:
    """Columns as (key, title): each is given as a string or as {key, title}. ValueError if not."""
    normal = []
    for number, column in enumerate(columns, 1):
        if isinstance(column, str):
            normal.append((column, column))
        elif isinstance(column, Mapping) and isinstance(column.get("key"), str):
            normal.append((column["key"], str(column.get("title", column["key"]))))
        else:
            raise ValueError(f"column {number} is {column!r}; give a string, or a dict with key and title")
    return normal


def _widths(table: Sequence[Sequence[str]], numbers: Sequence[bool], total: int) -> list[int]:
    """Width of each column: as wide as its widest cell, the widest squeezed until total is met."""
    widths = [max(width(text) for text in column) for column in zip(*table)]
    room = total - len(GAP) * (len(widths) - 1)
    while sum(widths) > room:
        # Numbers stay whole: half a number is a wrong number.
        squeezable = [i for i, wide in enumerate(widths) if wide > NARROWEST and not numbers[i]]
        if not squeezable:
            break
        widest = max(squeezable, key=lambda i: widths[i])
        widths[widest] -= 1
    return widths


def render(
    rows: Sequence[Mapping[str, object]],
    columns: Sequence[object],
    max_width: int = 120,
    long_cells: str = "wrap",
    colors: Mapping[str, Mapping[str, str]] | None = None,
    paint: Paint | None = None,
) -> str:
    """The table as text without a final newline; a line of titles, a rule, a row a line.

    columns: strings or {key, title}, see normal_columns. max_width: columns of the terminal.
    long_cells: "wrap" (onto further lines) or "ellipsis". colors: {column: {value: color}}.
    paint: called with a text and a colour name; without it nothing is coloured.
    Columns that hold only numbers are aligned to the right.
    """
    normal = normal_columns(columns)
    if not normal:
        return ""
    body = [[cell(row.get(key)) for key, _ in normal] for row in rows]
    numbers = [_all_numbers([row.get(key) for row in rows]) for key, _ in normal]
    titles = [cell(title) for _, title in normal]
    widths = _widths([titles, *body], numbers, max_width)
    lines = _lines(titles, widths, numbers, long_cells, [None] * len(normal), None)
    lines.append(GAP.join("-" * wide for wide in widths))
    for texts in body:
        wanted = [(colors or {}).get(key, {}).get(text) for (key, _), text in zip(normal, texts)]
        lines += _lines(texts, widths, numbers, long_cells, wanted, paint)
    return "\n".join(lines)


def _all_numbers(values: Sequence[object]) -> bool:
    """Whether every value that is there is a number, and there is one."""
    there = [value for value in values if value is not None]
    return bool(there) and all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in there)


def _lines(
    texts: Sequence[str],
    widths: Sequence[int],
    numbers: Sequence[bool],
    long_cells: str,
    colors: Sequence[str | None],
    paint: Paint | None,
) -> list[str]:
    """One row as one or more lines; colour goes around the text, so it doesn't count as width."""
    parts = [wrap(text, wide) if long_cells == "wrap" else [fit(text, wide)] for text, wide in zip(texts, widths)]
    lines = []
    for number in range(max(len(part) for part in parts)):
        shown = []
        for part, wide, right, color in zip(parts, widths, numbers, colors):
            text = part[number] if number < len(part) else ""
            space = " " * (wide - width(text))
            if text and color and paint:
                text = paint(text, color)
            shown.append(space + text if right else text + space)
        lines.append(GAP.join(shown).rstrip())
    return lines
