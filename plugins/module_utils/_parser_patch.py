# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Gives a release of SGLang that lacks it the tool-call parser glm47: two pieces of ours, put in by syntax tree.

A piece is recognised by its mark, so a patched release can be patched again: what is ours is taken out first, and what
remains is the release's own text.
"""

from __future__ import annotations

import ast
import contextlib
import io
import itertools
import os
import re
import stat
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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

KEY = "glm47"
CLASS = "Glm47MoeDetector"
FUNCTIONS = ("json_schema_types", "infer_type_from_json_schema")
MARK = "# dgx_spark.sglang parser patch"
"""Ends each line of ours, and begins each of our pieces (there with a colon and a text)."""

_END = f"{MARK}: end"
_PACKAGE = "sglang.srt.function_call"
_IMPORT = f"from {_PACKAGE}.{DETECTOR[:-3]} import {CLASS}"
_OURS = re.compile(rf'(?:from {re.escape(_PACKAGE)}\.\w+ import \w+|\s+"{KEY}": \w+,)  {re.escape(MARK)}')
# After what the new lines go: GLM-4.5's.
_NEIGHBOUR_MODULE, _NEIGHBOUR, _NEIGHBOUR_KEY = f"{_PACKAGE}.glm4_moe_detector", "Glm4MoeDetector", "glm45"
# What our detector makes and returns: the fields that it sets or reads.
_FIELDS = {
    "StreamingParseResult": ("normal_text", "calls"),
    "ToolCallItem": ("tool_index", "name", "parameters"),
}
_ALIASES = ("StructureInfo", "_GetInfoFunc")

_OTHER_RELEASE = "take SGLang 0.5.4 to 0.5.6, or 0.5.7 and newer, which knows glm47 itself"
_OWN_FILES = "put the release's own files back (they are in its image and its wheel)"
_OUR_PIECE = "take the piece as the role parser_patch has it"

_Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


class PatchError(ValueError):
    """A release that cannot be patched: what is in the way, in which file, and the mend. Nothing was written."""


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
    return [name for name, _, _ in _entries(_registry(_tree(PARSER, source)))]


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


def patch_tree(root: Path, detector: str, types: str, write: bool = True) -> Patched:
    """Patch the package in place. root: the folder `sglang`; write: False only looks.

    All or nothing: each file is replaced at once, the registry last, and what was replaced is put back if a later one
    fails. Killed in between, it leaves whole files and a package that works; patched again, it is complete.
    """
    folder = root / FOLDER
    sources = {}
    for name in READ:
        path = folder / name
        try:
            sources[name] = path.read_bytes().decode()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise _error(name, f"it cannot be read from {folder}: {error}", _OWN_FILES) from None
    if not sources:
        raise _error("", f"{root} has none of these files", "name the folder `sglang` of an installed release")
    patched = patch(sources, detector, types, _version(root))
    if write:
        names = sorted(changed(sources, patched), key=lambda name: name == PARSER)
        _write(folder, {name: patched.files[name] for name in names}, sources)
    return patched


# ---- patching ---------------------------------------------------------------------------------


def _patch(sources: Mapping[str, str], detector: str, types: str) -> Patched:
    if PARSER not in sources:
        raise _error(PARSER, "it is missing", _OTHER_RELEASE)
    own_parser = _without_lines(sources[PARSER])
    registered = parsers(own_parser)
    if KEY in registered:
        if own_parser != sources[PARSER] or any(_has_mark(text) for text in sources.values()):
            raise _error(PARSER, f"it knows {KEY} itself, yet there are pieces of our patch", _OWN_FILES)
        steps = [_step(PARSER, f"parser {KEY}", "already there")]
        return Patched("present", {}, steps, registered)
    for name in READ[:-1]:
        if name not in sources:
            raise _error(name, "it is missing", _OTHER_RELEASE)
    if DETECTOR in sources and not _is_ours(sources[DETECTOR]):
        raise _error(DETECTOR, f"it is there and not ours, yet {KEY} is not registered", _OWN_FILES)
    _check_pieces(detector, types)
    own_utils, block = _split_utils(sources[UTILS])
    own = {**sources, UTILS: own_utils, PARSER: own_parser}
    _check_contract(own, detector, types)

    utils, utils_steps = _with_functions(own_utils, block, types)
    parser = _with_lines(own_parser)
    files = {DETECTOR: detector, UTILS: utils, PARSER: parser}
    _prove(own, files)
    steps = [_step(DETECTOR, f"class {CLASS}", _did(sources.get(DETECTOR), detector)), *utils_steps]
    marked = [line.strip() for line in _lines(sources[PARSER]) if line.rstrip().endswith(MARK)]
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
    tree = _tree(PARSER, text)
    imports = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        and (node.module, node.level) == (_NEIGHBOUR_MODULE, 0)
        and any((alias.name, alias.asname) == (_NEIGHBOUR, None) for alias in node.names)
    ]
    if len(imports) != 1:
        what = f"{_NEIGHBOUR} is not imported once from {_NEIGHBOUR_MODULE}, but {len(imports)} times"
        raise _error(PARSER, what, _OTHER_RELEASE)
    entries = _entries(_registry(tree))
    places = [place for place, (key, _, _) in enumerate(entries) if key == _NEIGHBOUR_KEY]
    if len(places) != 1:
        what = f"{_NEIGHBOUR_KEY} is not once in FunctionCallParser.ToolCallParserEnum, but {len(places)} times"
        raise _error(PARSER, what, _OTHER_RELEASE)
    (place,) = places
    _, key, value = entries[place]
    lines = _lines(text)
    indent = lines[key.lineno - 1][: key.col_offset]
    following = entries[place + 1][1] if place + 1 < len(entries) else None
    if indent.strip() or (following and following.lineno == value.lineno):
        raise _error(PARSER, f"{_NEIGHBOUR_KEY} is not on a line of its own in ToolCallParserEnum", _OTHER_RELEASE)
    # As the last entry it may have no comma behind it, so the new one goes before it.
    entry_at = value.lineno if following else key.lineno - 1
    newline = _newline(text)
    # The later line first: it moves no line before it.
    lines.insert(entry_at, f"{indent}{_entry_line()}{newline}")
    lines.insert(imports[0].end_lineno or 0, f"{_import_line()}{newline}")
    return "".join(lines)


def _without_lines(text: str) -> str:
    """function_call_parser.py without the lines that are marked as ours."""
    kept = []
    for number, line in enumerate(_lines(text), 1):
        bare = line.rstrip()
        if not bare.endswith(MARK):
            kept.append(line)
        elif not _OURS.fullmatch(bare):
            raise _error(PARSER, f"line {number} has our mark but is none of our lines: {bare.strip()}", _OWN_FILES)
    return "".join(kept)


def _with_functions(own: str, old_block: str, types: str) -> tuple[str, list[dict[str, str]]]:
    """utils.py with those of our functions that it lacks at its end, and the steps. old_block: ours of before."""
    theirs = _defined(_tree(UTILS, own))
    piece, old = _functions(types), _functions(old_block)
    steps = []
    for name in FUNCTIONS:
        did = "already there" if name in theirs else _did(old.get(name), piece[name])
        steps.append(_step(UTILS, f"function {name}", did))
    missing = [piece[name] for name in FUNCTIONS if name not in theirs]
    if not missing:
        return own, steps
    # The mark, and whose work it is.
    title = "\n".join(itertools.takewhile(lambda line: line.startswith("#"), _plain(types).splitlines()))
    block = "\n\n\n".join([title, *(text.rstrip() for text in missing), _END]) + "\n"
    newline = _newline(own)
    end = "" if not own or own.endswith("\n") else newline
    return own + end + f"\n\n{block}".replace("\n", newline), steps


def _split_utils(text: str) -> tuple[str, str]:
    """utils.py without our functions, and those, from the mark to its end; the two blank lines before are ours too."""
    lines = _lines(text)
    starts = [at for at, line in enumerate(lines) if line.startswith(f"{MARK}:") and line.rstrip() != _END]
    ends = [at for at, line in enumerate(lines) if line.rstrip() == _END]
    if not starts and not ends:
        return text, ""
    if len(starts) != 1 or len(ends) != 1 or ends < starts:
        what = f"our functions have {len(starts)} beginnings and {len(ends)} ends, not one of each in this order"
        raise _error(UTILS, what, _OWN_FILES)
    start, end = starts[0], ends[0] + 1
    block = "".join(lines[start:end])
    for _ in range(2):
        start -= start > 0 and not lines[start - 1].strip()
    return "".join(lines[:start] + lines[end:]), block


def _functions(text: str) -> dict[str, str]:
    """The functions of a piece, by name, each with its decorators and without blank lines around."""
    lines = _lines(text.replace("\r\n", "\n"))
    found = {}
    for node in _tree(UTILS, "".join(lines)).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = "".join(lines[node.lineno - 1 : node.end_lineno])
    return found


# ---- what has to hold -------------------------------------------------------------------------


def _check_pieces(detector: str, types: str) -> None:
    for name, text in ((DETECTOR, detector), ("json_schema_types.py", types)):
        if not _is_ours(text):
            raise _error(name, f"our piece does not begin with {MARK}", _OUR_PIECE)
    _class(_tree(DETECTOR, detector), CLASS, DETECTOR, _OUR_PIECE)
    tree = _tree("json_schema_types.py", types)
    names = [node.name for node in tree.body[1:] if isinstance(node, ast.FunctionDef) and not node.decorator_list]
    others = len(tree.body) - 1 - len(names)
    if ast.get_docstring(tree) is None or others or sorted(names) != sorted(FUNCTIONS):
        what = f"our piece is not a docstring and the functions {' and '.join(FUNCTIONS)}"
        raise _error("json_schema_types.py", what, _OUR_PIECE)


def _check_contract(own: Mapping[str, str], detector: str, types: str) -> None:
    """Everything of the release that our detector builds upon."""
    trees = {name: _tree(name, own[name]) for name in READ[:-1]}
    piece = _tree(DETECTOR, detector)
    ours, base = _class(piece, CLASS, DETECTOR, _OUR_PIECE), _class(trees[BASE], "BaseFormatDetector", BASE)
    _check_base(ours, base)
    _check_types(trees[CORE])
    _check_utils(trees[UTILS], _tree(UTILS, types))
    _check_imports(piece, trees, types)


def _check_base(ours: ast.ClassDef, base: ast.ClassDef) -> None:
    of_ours, of_base = _methods(ours), _methods(base)
    for name, method in of_base.items():
        if name not in of_ours and any(_last_name(one) == "abstractmethod" for one in method.decorator_list):
            raise _error(BASE, f"its abstract method {name} is one that our detector lacks", _OTHER_RELEASE)
    for name in of_ours.keys() & of_base.keys() - {"__init__"}:
        theirs, wanted = _parameters(of_base[name]), _parameters(of_ours[name])
        if theirs != wanted:
            what = f"its method {name} takes ({', '.join(theirs)}), ours ({', '.join(wanted)})"
            raise _error(BASE, what, _OTHER_RELEASE)
    if "__init__" not in of_base:
        raise _error(BASE, "BaseFormatDetector has no __init__", _OTHER_RELEASE)
    if _required(of_base["__init__"]) > 1:
        raise _error(BASE, "BaseFormatDetector's __init__ needs arguments", _OTHER_RELEASE)
    inherited = _attributes(ours.body) - _set_in_init(of_ours) - of_ours.keys() - _class_names(ours)
    lacking = sorted(inherited - _set_in_init(of_base) - of_base.keys() - _class_names(base))
    if lacking:
        what = f"BaseFormatDetector's __init__ does not set {', '.join(lacking)}"
        raise _error(BASE, what, _OTHER_RELEASE)


def _check_types(core: ast.Module) -> None:
    for name, wanted in _FIELDS.items():
        fields = [
            (node.target.id, node.value is not None)
            for node in _class(core, name, CORE).body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        ]
        lacking = [field for field in wanted if field not in dict(fields)]
        unknown = [field for field, has_default in fields if field not in wanted and not has_default]
        if lacking or unknown:
            what = f"its {name} has " + (f"no {', '.join(lacking)}" if lacking else f"to be given {', '.join(unknown)}")
            raise _error(CORE, what, _OTHER_RELEASE)
    for name in _ALIASES:
        if name not in _defined(core):
            raise _error(CORE, f"it has no {name}", _OTHER_RELEASE)


def _check_utils(utils: ast.Module, types: ast.Module) -> None:
    """A function of the release by a name of ours is left, so it has to take what ours takes."""
    theirs, ours = _function_nodes(utils), _function_nodes(types)
    for name in FUNCTIONS:
        if name in _defined(utils):
            wanted = len(ours[name].args.args)
            found = theirs.get(name)
            if found is None or len(found.args.args) < wanted or _required(found) > wanted:
                what = f"it has a {name} of its own, which does not take {wanted} arguments as ours does"
                raise _error(UTILS, what, _OTHER_RELEASE)


def _check_imports(piece: ast.Module, trees: Mapping[str, ast.Module], types: str) -> None:
    """The names that our detector imports at its beginning."""
    base_has = {(node.module, alias.name) for node in _imports(trees[BASE]) for alias in node.names}
    for node in _imports(piece):
        module = node.module or ""
        if module.split(".")[0] != "sglang":
            continue
        file = module[len(_PACKAGE) + 1 :] + ".py"
        for alias in node.names:
            if module.startswith(f"{_PACKAGE}.") and file in trees:
                there = alias.name in _defined(trees[file])
                if not there and not (file == UTILS and alias.name in FUNCTIONS):
                    raise _error(file, f"it has no {alias.name}, which our detector imports", _OTHER_RELEASE)
            elif (module, alias.name) not in base_has:
                what = f"it does not import {alias.name} from {module}, as our detector does"
                raise _error(BASE, what, _OTHER_RELEASE)


def _prove(own: Mapping[str, str], files: Mapping[str, str]) -> None:
    """That the new files compile, and are the release's own but for what was put in: as texts and as trees."""
    for name, text in files.items():
        try:
            with _quiet():
                compile(_plain(text), name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            raise _error(name, f"patched it would not compile: {error}", _OTHER_RELEASE) from None
    parser, utils = _tree(PARSER, files[PARSER]), _tree(UTILS, files[UTILS])
    registry = _registry(parser)
    entries = [place for place, (key, _, value) in enumerate(_entries(registry)) if (key, value.id) == (KEY, CLASS)]
    imports = [node for node in parser.body if ast.unparse(node) == _IMPORT]
    if (len(entries), len(imports)) != (1, 1):
        what = f"patched it would have {len(entries)} entries and {len(imports)} imports of ours, not one of each"
        raise _error(PARSER, what, _OTHER_RELEASE)
    del registry.keys[entries[0]], registry.values[entries[0]]
    parser.body.remove(imports[0])
    put_in = len(utils.body) - len(_tree(UTILS, own[UTILS]).body)
    added = utils.body[len(utils.body) - put_in :]
    utils.body = utils.body[: len(utils.body) - put_in]
    own_texts = {PARSER: _without_lines(files[PARSER]), UTILS: _split_utils(files[UTILS])[0]}
    for name, tree in ((PARSER, parser), (UTILS, utils)):
        same_text = own_texts[name].rstrip("\r\n") == own[name].rstrip("\r\n")
        if not same_text or ast.dump(tree) != ast.dump(_tree(name, own[name])):
            raise _error(name, "patched it would differ in more than what was put in", _OTHER_RELEASE)
    if not all(isinstance(node, ast.FunctionDef) and node.name in FUNCTIONS for node in added):
        raise _error(UTILS, "patched it would hold more than our functions", _OTHER_RELEASE)


# ---- syntax trees -----------------------------------------------------------------------------


def _tree(name: str, text: str) -> ast.Module:
    try:
        with _quiet():
            return ast.parse(_plain(text), name)
    except (SyntaxError, ValueError) as error:
        python = ".".join(map(str, sys.version_info[:2]))
        raise _error(name, f"Python {python} cannot read it: {error}", _OWN_FILES) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings about a release's own doubtful escapes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _plain(text: str) -> str:
    """Without the byte order mark that some editors leave."""
    return text[1:] if text.startswith("\ufeff") else text


def _lines(text: str) -> list[str]:
    """The lines with their ends, counted as Python's parser counts them."""
    return list(io.StringIO(text, newline=""))


def _newline(text: str) -> str:
    found = re.search(r"\r\n|\n", text)
    return found.group() if found else "\n"


def _class(tree: ast.Module, name: str, file: str, mend: str = _OTHER_RELEASE) -> ast.ClassDef:
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    if len(found) != 1:
        raise _error(file, f"it has {len(found) or 'no'} {'classes' if found else 'class'} {name}", mend)
    return found[0]


def _registry(tree: ast.Module) -> ast.Dict:
    found = [
        node.value
        for node in _class(tree, "FunctionCallParser", PARSER).body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and node.target.id == "ToolCallParserEnum"
    ]
    if len(found) != 1 or not isinstance(found[0], ast.Dict):
        what = "FunctionCallParser.ToolCallParserEnum is not one annotated assignment of a dict literal"
        raise _error(PARSER, what, _OTHER_RELEASE)
    return found[0]


def _entries(registry: ast.Dict) -> list[tuple[str, ast.Constant, ast.Name]]:
    """The registry's keys, with the nodes of key and value."""
    entries = []
    for key, value in zip(registry.keys, registry.values):
        if not isinstance(key, ast.Constant) or not isinstance(key.value, str) or not isinstance(value, ast.Name):
            what = f"ToolCallParserEnum has an entry, line {value.lineno}, that is not a text and the name of a class"
            raise _error(PARSER, what, _OTHER_RELEASE)
        entries.append((key.value, key, value))
    return entries


def _imports(tree: ast.Module) -> Iterator[ast.ImportFrom]:
    return (node for node in tree.body if isinstance(node, ast.ImportFrom))


def _defined(tree: ast.Module) -> set[str]:
    """The names of a module's own: classes, functions, assignments and imports."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name for alias in node.names}
        else:
            names |= _targets([node])
    return names


def _targets(nodes: Iterable[ast.stmt]) -> set[str]:
    """The plain names that assignments among these statements give."""
    targets: list[ast.expr] = []
    for node in nodes:
        if isinstance(node, ast.Assign):
            targets += node.targets
        elif isinstance(node, ast.AnnAssign):
            targets.append(node.target)
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _class_names(node: ast.ClassDef) -> set[str]:
    return _targets(node.body)


def _methods(node: ast.ClassDef) -> dict[str, _Function]:
    return {one.name: one for one in node.body if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))}


def _function_nodes(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def _parameters(method: _Function) -> list[str]:
    arguments = method.args
    return [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]


def _required(function: _Function) -> int:
    """How many arguments have to be given, self among them."""
    arguments = function.args
    by_place = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return by_place + sum(default is None for default in arguments.kw_defaults)


def _attributes(nodes: Sequence[ast.AST], stored: bool = False) -> set[str]:
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


def _set_in_init(methods: Mapping[str, _Function]) -> set[str]:
    return _attributes([methods["__init__"]], stored=True) if "__init__" in methods else set()


def _last_name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


# ---- files ------------------------------------------------------------------------------------


def _is_ours(text: str) -> bool:
    return _plain(text).startswith(f"{MARK}:")


def _has_mark(text: str) -> bool:
    return any(line.startswith(f"{MARK}:") for line in _lines(_plain(text)))


def _error(file: str, what: str, mend: str) -> PatchError:
    return PatchError(f"{'/'.join([FOLDER, file]).rstrip('/')}: {what}. Mend: {mend}.")


def _version(root: Path) -> str:
    """The version that the package tells of itself; empty if it tells none."""
    for name in ("_version.py", "version.py"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = (root / name).read_bytes().decode()
            found = re.search(r"""^(?:__version__|version)\b[^\n]*=\s*["']([^"']+)""", text, re.M)
            if found:
                return found.group(1)
    return ""


def _write(folder: Path, texts: Mapping[str, str], before: Mapping[str, str]) -> None:
    """Replace files, in this order. before: the texts to put back if one cannot be replaced."""
    made: dict[str, Path] = {}
    done: list[str] = []
    try:
        for name, text in texts.items():
            made[name] = _beside(folder / name, text)
        for name, path in made.items():
            os.replace(path, folder / name)
            done.append(name)
    except BaseException as error:
        for name in done:
            if name in before:
                os.replace(_beside(folder / name, before[name]), folder / name)
            else:
                (folder / name).unlink()
        if isinstance(error, OSError):
            mend = "let this user write there, and give it space"
            raise _error("", f"{folder} cannot be written: {error}", mend) from None
        raise
    finally:
        for path in made.values():
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _beside(path: Path, text: str) -> Path:
    """A complete temporary file next to path, with the mode of the one that is there."""
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o644
    handle, name = tempfile.mkstemp(prefix=".new-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode())
        os.chmod(name, mode)
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)
