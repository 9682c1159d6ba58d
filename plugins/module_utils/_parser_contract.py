# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What the patch of SGLang's tool-call parsers builds upon: its own pieces, and a release as they know it."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_syntax import (
    BASE,
    CORE,
    DETECTOR,
    MARK,
    OTHER_RELEASE,
    OUR_PIECE,
    PACKAGE,
    READ,
    UTILS,
    attributes_of,
    class_names,
    class_of,
    functions_of,
    imports_of,
    is_ours,
    last_name,
    methods_of,
    names_of,
    parameters_of,
    required_of,
    set_in_init,
    tree_of,
    trouble,
)

CLASS = "Glm47MoeDetector"
FUNCTIONS = ("json_schema_types", "infer_type_from_json_schema")
# What our detector makes and returns: the fields that it sets or reads.
_FIELDS = {
    "StreamingParseResult": ("normal_text", "calls"),
    "ToolCallItem": ("tool_index", "name", "parameters"),
}
_ALIASES = ("StructureInfo", "_GetInfoFunc")


def check_pieces(detector: str, types: str) -> None:
    for name, text in ((DETECTOR, detector), ("json_schema_types.py", types)):
        if not is_ours(text):
            raise trouble(name, f"our piece does not begin with {MARK}", OUR_PIECE)
    class_of(tree_of(DETECTOR, detector), CLASS, DETECTOR, OUR_PIECE)
    tree = tree_of("json_schema_types.py", types)
    names = [node.name for node in tree.body[1:] if isinstance(node, ast.FunctionDef) and not node.decorator_list]
    others = len(tree.body) - 1 - len(names)
    if ast.get_docstring(tree) is None or others or sorted(names) != sorted(FUNCTIONS):
        what = f"our piece is not a docstring and the functions {' and '.join(FUNCTIONS)}"
        raise trouble("json_schema_types.py", what, OUR_PIECE)


def check_release(own: Mapping[str, str], detector: str, types: str) -> None:
    """Everything of the release that our detector builds upon."""
    trees = {name: tree_of(name, own[name]) for name in READ[:-1]}
    piece = tree_of(DETECTOR, detector)
    ours, base = class_of(piece, CLASS, DETECTOR, OUR_PIECE), class_of(trees[BASE], "BaseFormatDetector", BASE)
    _check_base(ours, base)
    _check_types(trees[CORE])
    _check_utils(trees[UTILS], tree_of(UTILS, types))
    _check_imports(piece, trees)


def _check_base(ours: ast.ClassDef, base: ast.ClassDef) -> None:
    of_ours, of_base = methods_of(ours), methods_of(base)
    for name, method in of_base.items():
        if name not in of_ours and any(last_name(one) == "abstractmethod" for one in method.decorator_list):
            raise trouble(BASE, f"its abstract method {name} is one that our detector lacks", OTHER_RELEASE)
    for name in of_ours.keys() & of_base.keys() - {"__init__"}:
        theirs, wanted = parameters_of(of_base[name]), parameters_of(of_ours[name])
        if theirs != wanted:
            what = f"its method {name} takes ({', '.join(theirs)}), ours ({', '.join(wanted)})"
            raise trouble(BASE, what, OTHER_RELEASE)
    if "__init__" not in of_base:
        raise trouble(BASE, "BaseFormatDetector has no __init__", OTHER_RELEASE)
    if required_of(of_base["__init__"]) > 1:
        raise trouble(BASE, "BaseFormatDetector's __init__ needs arguments", OTHER_RELEASE)
    inherited = attributes_of(ours.body) - set_in_init(of_ours) - of_ours.keys() - class_names(ours)
    lacking = sorted(inherited - set_in_init(of_base) - of_base.keys() - class_names(base))
    if lacking:
        what = f"BaseFormatDetector's __init__ does not set {', '.join(lacking)}"
        raise trouble(BASE, what, OTHER_RELEASE)


def _check_types(core: ast.Module) -> None:
    for name, wanted in _FIELDS.items():
        fields = [
            (node.target.id, node.value is not None)
            for node in class_of(core, name, CORE).body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        ]
        lacking = [field for field in wanted if field not in dict(fields)]
        unknown = [field for field, has_default in fields if field not in wanted and not has_default]
        if lacking or unknown:
            what = f"its {name} has " + (f"no {', '.join(lacking)}" if lacking else f"to be given {', '.join(unknown)}")
            raise trouble(CORE, what, OTHER_RELEASE)
    for name in _ALIASES:
        if name not in names_of(core):
            raise trouble(CORE, f"it has no {name}", OTHER_RELEASE)


def _check_utils(utils: ast.Module, types: ast.Module) -> None:
    """A function of the release by a name of ours is left, so it has to take what ours takes."""
    theirs, ours = functions_of(utils), functions_of(types)
    for name in FUNCTIONS:
        if name in names_of(utils):
            wanted = len(ours[name].args.args)
            found = theirs.get(name)
            if found is None or len(found.args.args) < wanted or required_of(found) > wanted:
                what = f"it has a {name} of its own, which does not take {wanted} arguments as ours does"
                raise trouble(UTILS, what, OTHER_RELEASE)


def _check_imports(piece: ast.Module, trees: Mapping[str, ast.Module]) -> None:
    """The names that our detector imports at its beginning."""
    base_has = {(node.module, alias.name) for node in imports_of(trees[BASE]) for alias in node.names}
    for node in imports_of(piece):
        module = node.module or ""
        if module.split(".")[0] != "sglang":
            continue
        file = module[len(PACKAGE) + 1 :] + ".py"
        for alias in node.names:
            if module.startswith(f"{PACKAGE}.") and file in trees:
                there = alias.name in names_of(trees[file])
                if not there and not (file == UTILS and alias.name in FUNCTIONS):
                    raise trouble(file, f"it has no {alias.name}, which our detector imports", OTHER_RELEASE)
            elif (module, alias.name) not in base_has:
                what = f"it does not import {alias.name} from {module}, as our detector does"
                raise trouble(BASE, what, OTHER_RELEASE)
