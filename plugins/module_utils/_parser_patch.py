# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Gives a release of SGLang that lacks it the tool-call parser glm47: two pieces of ours, put in by syntax tree.

A piece is recognised by its mark, so a patched release can be patched again: what is ours is taken out first, and what
remains is the release's own text.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_contract import (
    CLASS,
    FUNCTIONS,
    check_pieces,
    check_release,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_syntax import (
    DETECTOR,
    MARK,
    OTHER_RELEASE,
    OWN_FILES,
    PACKAGE,
    PARSER,
    READ,
    UTILS,
    PatchError,
    entries_of,
    has_mark,
    is_ours,
    lines_of,
    names_of,
    newline_of,
    quiet,
    registry_of,
    tree_of,
    trouble,
    without_bom,
)

KEY = "glm47"
_END = f"{MARK}: end"
_IMPORT = f"from {PACKAGE}.{DETECTOR[:-3]} import {CLASS}"
_OURS = re.compile(rf'(?:from {re.escape(PACKAGE)}\.\w+ import \w+|\s+"{KEY}": \w+,)  {re.escape(MARK)}')
# After what the new lines go: GLM-4.5's.
_NEIGHBOUR_MODULE, _NEIGHBOUR, _NEIGHBOUR_KEY = f"{PACKAGE}.glm4_moe_detector", "Glm4MoeDetector", "glm45"


@dataclass(frozen=True)
class Patched:
    """What became of a release's files.

    state: "present", the release knows glm47 itself and nothing is to be done, or "patched". files: the text of every
    file that differs from the release's own, by name. steps: what was done, {file, piece, did}, did being "added",
    "renewed" or "already there". parsers: what the registry holds afterwards, in its order.
    """

    state: str
    files: dict[str, str]
    steps: list[dict[str, str]]
    parsers: list[str]


def parsers(source: str) -> list[str]:
    """The names that --tool-call-parser takes, from the text of function_call_parser.py; PatchError if not found."""
    return [name for name, _, _ in entries_of(registry_of(tree_of(PARSER, source)))]


def patch(sources: Mapping[str, str], detector: str, types: str, release: str = "") -> Patched:
    """The release with the parser glm47; PatchError if it is not as we know it, or if the outcome cannot be proved.

    sources: the text of those files of READ that are there, by name. detector, types: the text of our pieces, the
    detector and the functions that utils.py gets. release: its version, for the error's text.
    """
    try:
        return _patch(sources, detector, types)
    except PatchError as error:
        raise PatchError(f"SGLang {release}, {error}" if release else str(error)) from None


def changed(sources: Mapping[str, str], patched: Patched) -> list[str]:
    """The files whose text differs from that in sources, or that are new."""
    return [name for name, text in patched.files.items() if sources.get(name) != text]


def _patch(sources: Mapping[str, str], detector: str, types: str) -> Patched:
    if PARSER not in sources:
        raise trouble(PARSER, "it is missing", OTHER_RELEASE)
    own_parser = _without_lines(sources[PARSER])
    registered = parsers(own_parser)
    if KEY in registered:
        if own_parser != sources[PARSER] or any(has_mark(text) for text in sources.values()):
            raise trouble(PARSER, f"it knows {KEY} itself, yet there are pieces of our patch", OWN_FILES)
        steps = [_step(PARSER, f"parser {KEY}", "already there")]
        return Patched("present", {}, steps, registered)
    for name in READ[:-1]:
        if name not in sources:
            raise trouble(name, "it is missing", OTHER_RELEASE)
    if DETECTOR in sources and not is_ours(sources[DETECTOR]):
        raise trouble(DETECTOR, f"it is there and not ours, yet {KEY} is not registered", OWN_FILES)
    check_pieces(detector, types)
    own_utils, block = _split_utils(sources[UTILS])
    own = {**sources, UTILS: own_utils, PARSER: own_parser}
    check_release(own, detector, types)

    utils, utils_steps = _with_functions(own_utils, block, types)
    parser = _with_lines(own_parser)
    files = {DETECTOR: detector, UTILS: utils, PARSER: parser}
    _prove(own, files)
    steps = [_step(DETECTOR, f"class {CLASS}", _did(sources.get(DETECTOR), detector)), *utils_steps]
    marked = [line.strip() for line in lines_of(sources[PARSER]) if line.rstrip().endswith(MARK)]
    for piece, line in ((f"import of {CLASS}", _import_line()), (f"parser {KEY}", _entry_line())):
        before = next((old for old in marked if old.startswith(line.split()[0])), None)
        steps.append(_step(PARSER, piece, _did(before, line)))
    if utils == sources[UTILS] == own_utils:
        del files[UTILS]
    return Patched("patched", files, steps, parsers(parser))


def _step(file: str, piece: str, did: str) -> dict[str, str]:
    return {"file": file, "piece": piece, "did": did}


def _did(before: str | None, after: str) -> str:
    return "added" if before is None else "already there" if before == after else "renewed"


def _import_line() -> str:
    return f"{_IMPORT}  {MARK}"


def _entry_line() -> str:
    return f'"{KEY}": {CLASS},  {MARK}'


def _with_lines(text: str) -> str:
    """function_call_parser.py with the import and the registry's entry, each on a line of its own."""
    tree = tree_of(PARSER, text)
    imports = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        and (node.module, node.level) == (_NEIGHBOUR_MODULE, 0)
        and any((alias.name, alias.asname) == (_NEIGHBOUR, None) for alias in node.names)
    ]
    if len(imports) != 1:
        what = f"{_NEIGHBOUR} is not imported once from {_NEIGHBOUR_MODULE}, but {len(imports)} times"
        raise trouble(PARSER, what, OTHER_RELEASE)
    entries = entries_of(registry_of(tree))
    places = [place for place, (key, _, _) in enumerate(entries) if key == _NEIGHBOUR_KEY]
    if len(places) != 1:
        what = f"{_NEIGHBOUR_KEY} is not once in FunctionCallParser.ToolCallParserEnum, but {len(places)} times"
        raise trouble(PARSER, what, OTHER_RELEASE)
    (place,) = places
    _, key, value = entries[place]
    lines = lines_of(text)
    indent = lines[key.lineno - 1][: key.col_offset]
    following = entries[place + 1][1] if place + 1 < len(entries) else None
    if indent.strip() or (following and following.lineno == value.lineno):
        raise trouble(PARSER, f"{_NEIGHBOUR_KEY} is not on a line of its own in ToolCallParserEnum", OTHER_RELEASE)
    # As the last entry it may have no comma behind it, so the new one goes before it.
    entry_at = value.lineno if following else key.lineno - 1
    newline = newline_of(text)
    # The later line first: it moves no line before it.
    lines.insert(entry_at, f"{indent}{_entry_line()}{newline}")
    lines.insert(imports[0].end_lineno or 0, f"{_import_line()}{newline}")
    return "".join(lines)


def _without_lines(text: str) -> str:
    """function_call_parser.py without the lines that are marked as ours."""
    kept = []
    for number, line in enumerate(lines_of(text), 1):
        bare = line.rstrip()
        if not bare.endswith(MARK):
            kept.append(line)
        elif not _OURS.fullmatch(bare):
            raise trouble(PARSER, f"line {number} has our mark but is none of our lines: {bare.strip()}", OWN_FILES)
    return "".join(kept)


def _with_functions(own: str, old_block: str, types: str) -> tuple[str, list[dict[str, str]]]:
    """utils.py with those of our functions that it lacks at its end, and the steps. old_block: ours of before."""
    theirs = names_of(tree_of(UTILS, own))
    piece, old = _functions(types), _functions(old_block)
    steps = []
    for name in FUNCTIONS:
        did = "already there" if name in theirs else _did(old.get(name), piece[name])
        steps.append(_step(UTILS, f"function {name}", did))
    missing = [piece[name] for name in FUNCTIONS if name not in theirs]
    if not missing:
        return own, steps
    # The mark, and whose work it is.
    title = "\n".join(itertools.takewhile(lambda line: line.startswith("#"), without_bom(types).splitlines()))
    block = "\n\n\n".join([title, *(text.rstrip() for text in missing), _END]) + "\n"
    newline = newline_of(own)
    end = "" if not own or own.endswith("\n") else newline
    return own + end + f"\n\n{block}".replace("\n", newline), steps


def _split_utils(text: str) -> tuple[str, str]:
    """utils.py without our functions, and those, from the mark to its end; the two blank lines before are ours too."""
    lines = lines_of(text)
    starts = [at for at, line in enumerate(lines) if line.startswith(f"{MARK}:") and line.rstrip() != _END]
    ends = [at for at, line in enumerate(lines) if line.rstrip() == _END]
    if not starts and not ends:
        return text, ""
    if len(starts) != 1 or len(ends) != 1 or ends < starts:
        what = f"our functions have {len(starts)} beginnings and {len(ends)} ends, not one of each in this order"
        raise trouble(UTILS, what, OWN_FILES)
    start, end = starts[0], ends[0] + 1
    block = "".join(lines[start:end])
    for _ in range(2):
        start -= start > 0 and not lines[start - 1].strip()
    return "".join(lines[:start] + lines[end:]), block


def _functions(text: str) -> dict[str, str]:
    """The functions of a piece, by name, each with its decorators and without blank lines around."""
    lines = lines_of(text.replace("\r\n", "\n"))
    found = {}
    for node in tree_of(UTILS, "".join(lines)).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = "".join(lines[node.lineno - 1 : node.end_lineno])
    return found


def _prove(own: Mapping[str, str], files: Mapping[str, str]) -> None:
    """That the new files compile, and are the release's own but for what was put in: as texts and as trees."""
    for name, text in files.items():
        try:
            with quiet():
                compile(without_bom(text), name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            raise trouble(name, f"patched it would not compile: {error}", OTHER_RELEASE) from None
    parser, utils = tree_of(PARSER, files[PARSER]), tree_of(UTILS, files[UTILS])
    registry = registry_of(parser)
    entries = [place for place, (key, _, value) in enumerate(entries_of(registry)) if (key, value.id) == (KEY, CLASS)]
    imports = [node for node in parser.body if ast.unparse(node) == _IMPORT]
    if (len(entries), len(imports)) != (1, 1):
        what = f"patched it would have {len(entries)} entries and {len(imports)} imports of ours, not one of each"
        raise trouble(PARSER, what, OTHER_RELEASE)
    del registry.keys[entries[0]], registry.values[entries[0]]
    parser.body.remove(imports[0])
    put_in = len(utils.body) - len(tree_of(UTILS, own[UTILS]).body)
    added = utils.body[len(utils.body) - put_in :]
    utils.body = utils.body[: len(utils.body) - put_in]
    own_texts = {PARSER: _without_lines(files[PARSER]), UTILS: _split_utils(files[UTILS])[0]}
    for name, tree in ((PARSER, parser), (UTILS, utils)):
        same_text = own_texts[name].rstrip("\r\n") == own[name].rstrip("\r\n")
        if not same_text or ast.dump(tree) != ast.dump(tree_of(name, own[name])):
            raise trouble(name, "patched it would differ in more than what was put in", OTHER_RELEASE)
    if not all(isinstance(node, ast.FunctionDef) and node.name in FUNCTIONS for node in added):
        raise trouble(UTILS, "patched it would hold more than our functions", OTHER_RELEASE)
