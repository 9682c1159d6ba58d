# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""SGLang's tool-call parsers as syntax trees: where things are in them, and how trouble with them is told."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Union

FOLDER = "srt/function_call"
BASE, CORE, UTILS, PARSER, DETECTOR = READ = (
    "base_format_detector.py",
    "core_types.py",
    "utils.py",
    "function_call_parser.py",
    "glm47_moe_detector.py",
)
"""The files that are looked at, below FOLDER; the last may be absent."""

PACKAGE = "sglang.srt.function_call"
MARK = "# dgx_spark.sglang parser patch"
"""Ends each line of ours, and begins each of our pieces (there with a colon and a text)."""

OTHER_RELEASE = "take SGLang 0.5.4 to 0.5.6, or 0.5.7 and newer, which knows glm47 itself"
OWN_FILES = "put the release's own files back (they are in its image and its wheel)"
OUR_PIECE = "take the piece as the role parser_patch has it"

Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


class PatchError(ValueError):
    """A release that cannot be patched: what is in the way, in which file, and the mend. Nothing was written."""


def is_ours(text: str) -> bool:
    return without_bom(text).startswith(f"{MARK}:")


def has_mark(text: str) -> bool:
    return any(line.startswith(f"{MARK}:") for line in lines_of(without_bom(text)))


def trouble(file: str, what: str, mend: str) -> PatchError:
    return PatchError(f"{'/'.join([FOLDER, file]).rstrip('/')}: {what}. Mend: {mend}.")


def tree_of(name: str, text: str) -> ast.Module:
    try:
        with quiet():
            return ast.parse(without_bom(text), name)
    except (SyntaxError, ValueError) as error:
        python = ".".join(map(str, sys.version_info[:2]))
        raise trouble(name, f"Python {python} cannot read it: {error}", OWN_FILES) from None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings about a release's own doubtful escapes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def without_bom(text: str) -> str:
    """Without the byte order mark that some editors leave."""
    return text[1:] if text.startswith("\ufeff") else text


def lines_of(text: str) -> list[str]:
    """The lines with their ends, counted as Python's parser counts them."""
    return list(io.StringIO(text, newline=""))


def newline_of(text: str) -> str:
    found = re.search(r"\r\n|\n", text)
    return found.group() if found else "\n"


def class_of(tree: ast.Module, name: str, file: str, mend: str = OTHER_RELEASE) -> ast.ClassDef:
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    if len(found) != 1:
        raise trouble(file, f"it has {len(found) or 'no'} {'classes' if found else 'class'} {name}", mend)
    return found[0]


def registry_of(tree: ast.Module) -> ast.Dict:
    found = [
        node.value
        for node in class_of(tree, "FunctionCallParser", PARSER).body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id == "ToolCallParserEnum"
    ]
    if len(found) != 1 or not isinstance(found[0], ast.Dict):
        what = "FunctionCallParser.ToolCallParserEnum is not one annotated assignment of a dict literal"
        raise trouble(PARSER, what, OTHER_RELEASE)
    return found[0]


def entries_of(registry: ast.Dict) -> list[tuple[str, ast.Constant, ast.Name]]:
    """The registry's keys, with the nodes of key and value."""
    entries = []
    for key, value in zip(registry.keys, registry.values):
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str) or not isinstance(value, ast.Name):
            what = f"ToolCallParserEnum has an entry, line {value.lineno}, that is not a text and the name of a class"
            raise trouble(PARSER, what, OTHER_RELEASE)
        entries.append((key.value, key, value))
    return entries


def imports_of(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    return (node for node in tree.body if isinstance(node, ast.ImportFrom))


def names_of(tree: ast.Module) -> set[str]:
    """The names of a module's own: classes, functions, assignments and imports."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        else:
            names |= targets_of([node])
    return names


def targets_of(nodes: Iterable[ast.stmt]) -> set[str]:
    """The plain names that assignments among these statements give."""
    targets: list[ast.expr] = []
    for node in nodes:
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    return {target.id for target in targets if isinstance(target, ast.Name)}


def class_names(node: ast.ClassDef) -> set[str]:
    return targets_of(node.body)


def methods_of(node: ast.ClassDef) -> dict[str, Function]:
    return {one.name: one for one in node.body if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))}


def functions_of(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def parameters_of(method: Function) -> list[str]:
    arguments = method.args
    return [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


def required_of(function: Function) -> int:
    """How many arguments have to be given, self among them."""
    arguments = function.args
    by_place = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return by_place + sum(default is None for default in arguments.kw_defaults)


def attributes_of(nodes: Sequence[ast.AST], stored: bool = False) -> set[str]:
    """The names X of all self.X below the nodes; stored: only of those that are assigned."""
    return {
        node.attr
        for top in nodes
        for node in ast.walk(top)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and (not stored or isinstance(node.ctx, ast.Store))
    }


def set_in_init(methods: Mapping[str, Function]) -> set[str]:
    return attributes_of([methods["__init__"]], stored=True) if "__init__" in methods else set()


def last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
