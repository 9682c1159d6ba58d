# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Which JSON types a parameter's schema allows, as the role parser_patch teaches SGLang."""

from __future__ import annotations

import ast
import copy
import json
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

SOURCE = Path(__file__).parents[2] / "roles/parser_patch/files/json_schema_types.py"
# As the end of another module: nothing of this one's head is there.
SCOPE: dict[str, Any] = {}
exec(compile(SOURCE.read_text(), str(SOURCE), "exec"), SCOPE)

ROOT: dict[str, Any] = {
    "$defs": {
        "Name": {"type": "string"},
        "Alias": {"$ref": "#/$defs/Name"},
        "Maybe": {"anyOf": [{"$ref": "#/$defs/Name"}, {"type": "null"}]},
        "a/b": {"type": "array"},
        "c~d": {"type": "object"},
        "~1": {"type": "boolean"},
        "Loop": {"$ref": "#/$defs/Pool"},
        "Pool": {"$ref": "#/$defs/Loop"},
        "Tree": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Tree"}]},
        "Bound": {"allOf": [{"type": "string"}, {"$ref": "#/$defs/Bound"}]},
    },
    "properties": {"first": {"type": "integer"}},
}
NUMBER = {"number", "integer"}

TABLE: list[tuple[Any, set[str] | None]] = [
    # Nothing that says anything.
    (None, None),
    (True, None),
    ("string", None),
    ([], None),
    ({}, None),
    ({"description": "free", "title": "Free", "default": 5}, None),
    # A type, or several; what is not known is kept, and matches no value.
    ({"type": "string"}, {"string"}),
    ({"type": "integer"}, {"integer"}),
    ({"type": "number"}, NUMBER),
    ({"type": ["string", "null"]}, {"string", "null"}),
    ({"type": ["null", "number"]}, NUMBER | {"null"}),
    ({"type": []}, None),
    ({"type": 5}, None),
    ({"type": None}, None),
    ({"type": "file"}, {"file"}),
    ({"type": ["string", None]}, {"string", "None"}),
    # Values.
    ({"enum": ["a", 1, 1.5, True, None, [], {}]}, {"string", "null", "array", "object", "boolean"} | NUMBER),
    ({"enum": [True]}, {"boolean"}),
    ({"enum": [1.5]}, NUMBER),
    ({"enum": []}, None),
    ({"enum": "abc"}, None),
    ({"const": None}, {"null"}),
    ({"const": "5"}, {"string"}),
    ({"const": 5}, {"integer"}),
    ({"const": {}, "enum": ["a"]}, {"object"}),
    ({"type": "string", "enum": ["a", "b"]}, {"string"}),
    ({"type": ["string", "integer"], "enum": ["a", "b"]}, {"string"}),
    ({"type": "number", "enum": [1, 2]}, {"integer"}),
    # Alternatives.
    ({"anyOf": [{"type": "string"}, {"type": "null"}]}, {"string", "null"}),
    ({"oneOf": [{"type": "array"}, {"enum": [1]}]}, {"array", "integer"}),
    ({"anyOf": [{"type": "string"}, {}]}, None),
    ({"anyOf": [{"type": "string"}, True]}, None),
    ({"anyOf": []}, None),
    ({"anyOf": {"type": "string"}}, None),
    ({"anyOf": [{"type": "string"}], "oneOf": [{"type": ["string", "null"]}]}, {"string"}),
    ({"type": "string", "anyOf": [{"minLength": 1}, {"pattern": "a"}]}, {"string"}),
    ({"anyOf": [{"anyOf": [{"type": "null"}]}, {"oneOf": [{"type": "string"}]}]}, {"string", "null"}),
    # All of several.
    ({"allOf": [{"type": ["string", "integer"]}, {"type": ["integer", "null"]}]}, {"integer"}),
    ({"allOf": [{"type": "number"}, {"type": "integer"}]}, {"integer"}),
    ({"allOf": [{"minLength": 1}, {"type": "string"}]}, {"string"}),
    ({"allOf": [{}]}, None),
    ({"type": ["string", "null"], "allOf": [{"type": "string"}]}, {"string"}),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, None),
    # References.
    ({"$ref": "#/$defs/Name"}, {"string"}),
    ({"$ref": "#/$defs/Alias"}, {"string"}),
    ({"$ref": "#/$defs/Maybe"}, {"string", "null"}),
    ({"$ref": "#/properties/first"}, {"integer"}),
    ({"$ref": "#/$defs/a~1b"}, {"array"}),
    ({"$ref": "#/$defs/c~0d"}, {"object"}),
    ({"$ref": "#/$defs/~01"}, {"boolean"}),
    ({"$ref": "#/$defs/Nobody"}, None),
    ({"$ref": "#/$defs/Name/type"}, None),
    ({"$ref": "#/$defs/Name/type/deeper"}, None),
    ({"$ref": "#"}, None),
    ({"$ref": "https://example.com/schema"}, None),
    ({"$ref": 5}, None),
    ({"$ref": "#/$defs/Maybe", "type": "string"}, {"string"}),
    ({"$ref": "#/$defs/Loop"}, None),
    ({"$ref": "#/$defs/Tree"}, None),
    ({"$ref": "#/$defs/Bound"}, {"string"}),
    ({"$ref": "#/$defs/Loop", "type": "null"}, {"null"}),
    ({"anyOf": [{"$ref": "#/$defs/Name"}, {"$ref": "#/$defs/Name"}]}, {"string"}),
    # Keywords that only make sense for one type, where nothing else says which.
    ({"properties": {}}, {"object"}),
    ({"additionalProperties": False}, {"object"}),
    ({"required": ["a"]}, {"object"}),
    ({"items": {"type": "string"}}, {"array"}),
    ({"prefixItems": []}, {"array"}),
    ({"type": "array", "properties": {}}, {"array"}),
    ({"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"object"}),
]


@pytest.mark.parametrize(("schema", "types"), TABLE)
def test_types(schema: object, types: set[str] | None) -> None:
    assert SCOPE["json_schema_types"](schema, ROOT) == types


@pytest.mark.parametrize(
    ("schema", "likely"),
    [
        ({}, None),
        (None, None),
        ({"type": "file"}, None),
        ({"type": ["null", "integer", "string"]}, "string"),
        ({"type": ["null", "array", "object", "boolean"]}, "object"),
        ({"type": ["integer", "array"]}, "array"),
        ({"type": "number"}, "number"),
        ({"type": ["boolean", "integer"]}, "integer"),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, "boolean"),
        ({"type": "null"}, "null"),
        ({"$ref": "#/$defs/Maybe"}, "string"),
        ({"properties": {}}, "object"),
    ],
)
def test_the_likely_type(schema: object, likely: str | None) -> None:
    assert SCOPE["infer_type_from_json_schema"](schema, ROOT) == likely


def test_a_reference_without_a_root_says_nothing() -> None:
    assert SCOPE["json_schema_types"]({"$ref": "#/$defs/Name"}) is None
    assert SCOPE["infer_type_from_json_schema"]({"$ref": "#/$defs/Name"}) is None


def test_it_is_two_functions_and_nothing_else() -> None:
    """They go to the end of a module of others: no import, no name beside them."""
    body = ast.parse(SOURCE.read_text(), feature_version=(3, 10)).body
    assert [getattr(node, "name", type(node).__name__) for node in body] == [
        "Expr",
        "json_schema_types",
        "infer_type_from_json_schema",
    ]
    made = {name for name, value in SCOPE.items() if isinstance(value, FunctionType)}
    assert made == {"json_schema_types", "infer_type_from_json_schema"}
    assert SOURCE.read_text().startswith("# dgx_spark.sglang parser patch: ")


class Counted(dict[str, Any]):
    """Definitions that fail when they are looked up too often, so that nobody has to wait."""

    left = 1_000

    def get(self, key: str, default: Any = None) -> Any:
        self.left -= 1
        assert self.left, "looked up a thousand times"
        return super().get(key, default)


@pytest.mark.parametrize("width", [1, 2, 5, 20])
def test_references_to_themselves_take_no_longer(width: int) -> None:
    names = [f"D{number}" for number in range(12)]
    all_of_them = {"anyOf": [{"$ref": f"#/{name}"} for name in names[:width]]}
    root = Counted(dict.fromkeys(names, all_of_them))
    assert SCOPE["json_schema_types"](all_of_them, root) is None
    root = Counted({"D": {"oneOf": [{"$ref": "#/D"}] * width}})
    assert SCOPE["infer_type_from_json_schema"]({"$ref": "#/D"}, root) is None


def test_references_that_fan_out_take_no_longer() -> None:
    """Each definition names the next one twice: 2 to the power of 8 ways to the last."""
    root = Counted({f"D{number}": {"anyOf": [{"$ref": f"#/D{number + 1}"}] * 4} for number in range(8)})
    root["D8"] = {"type": "string"}
    assert SCOPE["json_schema_types"]({"$ref": "#/D0"}, root) == {"string"}


def test_any_nesting_ends() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(5_000):
        schema = {"allOf": [schema]}
    assert SCOPE["json_schema_types"](schema, {}) is None


# ---- against a validator ---------------------------------------------------------------------

KINDS = ["string", "integer", "number", "boolean", "null", "array", "object"]
VALUES = ["", "a", "5", 0, 1, -3, 1.5, True, False, None, [], [1], {}, {"a": 1}]
NAMES = ["A", "B", "C"]
SCHEMAS: st.SearchStrategy[dict[str, Any]] = st.recursive(
    st.one_of(
        st.just({}),
        st.builds(lambda kind: {"type": kind}, st.sampled_from(KINDS)),
        st.builds(lambda kinds: {"type": kinds}, st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True)),
        st.builds(lambda values: {"enum": values}, st.lists(st.sampled_from(VALUES), min_size=1, max_size=3)),
        st.builds(lambda value: {"const": value}, st.sampled_from(VALUES)),
        st.builds(lambda name: {"$ref": f"#/$defs/{name}"}, st.sampled_from(NAMES)),
    ),
    lambda inner: st.one_of(
        st.builds(
            lambda keyword, branches: {keyword: branches},
            st.sampled_from(["anyOf", "oneOf", "allOf"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda one, other: {**one, **other}, inner, inner),
    ),
    max_leaves=6,
)


def kinds_of(value: object) -> set[str]:
    """The types that a value has to a validator."""
    return {kind for kind in KINDS if Draft202012Validator({"type": kind}).is_valid(value)}


@given(
    schema=SCHEMAS,
    definitions=st.lists(SCHEMAS.filter(lambda schema: "$ref" not in json.dumps(schema)), min_size=3, max_size=3),
)
@settings(max_examples=300)
def test_no_type_is_denied_that_a_valid_value_has(schema: dict[str, Any], definitions: list[dict[str, Any]]) -> None:
    root = {"$defs": dict(zip(NAMES, definitions, strict=True))}
    before = copy.deepcopy((schema, root))
    types = SCOPE["json_schema_types"](schema, root)
    assert (schema, root) == before
    validator = Draft202012Validator({**schema, **root})
    for value in VALUES:
        if types is not None and validator.is_valid(value):
            assert kinds_of(value) & types, value


@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    form=st.sampled_from(["type", "anyOf", "oneOf", "enum"]),
)
def test_no_type_is_allowed_that_no_valid_value_has(kinds: list[str], form: str) -> None:
    valid = [value for value in VALUES if kinds_of(value) & set(kinds)]
    forms: dict[str, list[Any]] = {"type": kinds, "enum": valid}
    types = SCOPE["json_schema_types"]({form: forms.get(form, [{"type": kind} for kind in kinds])}, {})
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    assert types == {names.get(type(value), "null") for value in valid}


KEYWORDS = ["type", "$ref", "enum", "const", "anyOf", "oneOf", "allOf", "properties", "items", "required"]
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.sampled_from([*KINDS, "#/A", "#/A/type", "#/0", "#/"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from([*KEYWORDS, "A", ""]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(schema=ANYTHING, root=ANYTHING)
@settings(max_examples=300)
def test_anything_may_stand_where_a_schema_should(schema: object, root: object) -> None:
    types = SCOPE["json_schema_types"](schema, root)
    assert types is None or types
    assert all(isinstance(name, str) for name in types or ())
    likely = SCOPE["infer_type_from_json_schema"](schema, root)
    assert likely is None or likely in (types or ())
