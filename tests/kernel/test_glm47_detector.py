# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Our detector of GLM-4.7's tool calls, on the base class and with the server code of releases that it is put into."""

from __future__ import annotations

import ast
import codecs
import json
import logging
import re
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from kernel_configs import wheels
from tests.tools.sglang_functions import Tool, ToolChoice, ToolChoiceFuncName, detector, function_call, tool

SOURCE = Path(__file__).parents[2] / "roles/parser_patch/files/glm47_moe_detector.py"
RELEASE = "0.5.4.post2"
RELEASES = ("0.5.4", RELEASE, "0.5.5", "0.5.6")
releases = pytest.mark.parametrize("version", RELEASES)

TAGS = ("<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
LONGEST = max(map(len, TAGS))

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "$defs": {
        "Name": {"type": "string"},
        "Point": {"properties": {"x": {"type": "number"}}, "required": ["x"]},
        "a/b~c": {"type": "boolean"},
        "Loop": {"anyOf": [{"$ref": "#/$defs/Loop"}, {"type": "string"}]},
    },
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "sure": {"type": "boolean"},
        "nothing": {"type": "null"},
        "list": {"type": "array", "items": {"type": "string"}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "any": {},
        "id": {"type": ["integer", "string"]},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "one": {"oneOf": [{"type": "array"}, {"type": "boolean"}]},
        "all": {"allOf": [{"type": ["string", "integer"]}, {"type": ["integer", "boolean"]}]},
        "level": {"enum": ["low", "high", 3]},
        "word": {"enum": ["5", "true"]},
        "fixed": {"const": "5"},
        "name": {"$ref": "#/$defs/Name"},
        "point": {"$ref": "#/$defs/Point"},
        "flag": {"$ref": "#/$defs/a~1b~0c"},
        "loop": {"$ref": "#/$defs/Loop"},
        "nested": {"anyOf": [{"allOf": [{"$ref": "#/$defs/Name"}]}, {"oneOf": [{"type": "null"}]}]},
        "lost": {"$ref": "#/$defs/Nobody"},
    },
}
TOOLS = [
    tool("put", PARAMETERS),
    tool("get_weather", {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}),
    tool("say", {"type": "object", "additionalProperties": {"type": "string"}}),
    tool("now"),
    tool("ping", {}),
    tool("odd", {"type": "object", "properties": ["no", "mapping"], "additionalProperties": False}),
]


@dataclass(frozen=True)
class Example:
    """What a model may write, and what has to come of it. calls: names and arguments, as JSON to the letter."""

    text: str
    normal: str = ""
    calls: tuple[tuple[str, str], ...] = ()


def put(key: str, value: str, expected: str) -> Example:
    """A call of `put` with one argument; expected: its JSON."""
    text = f"<tool_call>put<arg_key>{key}</arg_key><arg_value>{value}</arg_value></tool_call>"
    return Example(text, calls=(("put", f'{{"{key}": {expected}}}'),))


EXAMPLES = {
    "no newlines": Example(
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value>"
        "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>",
        calls=(("get_weather", '{"city": "Paris", "days": 3}'),),
    ),
    "newlines and blanks": Example(
        "<tool_call>\n get_weather\n\n<arg_key> city\n</arg_key> \n\t<arg_value>Paris</arg_value>\r\n"
        "<arg_key>days</arg_key>\n<arg_value>\n 3 </arg_value>\n</tool_call>\n",
        calls=(("get_weather", '{"city": "Paris", "days": 3}'),),
    ),
    "no arguments": Example("<tool_call>now</tool_call>", calls=(("now", "{}"),)),
    "no arguments, with newlines": Example("\n<tool_call>\nnow\n</tool_call>\n", calls=(("now", "{}"),)),
    "no arguments where there may be some": Example("<tool_call>put</tool_call>", calls=(("put", "{}"),)),
    "several calls": Example(
        "<tool_call>now</tool_call><tool_call>get_weather<arg_key>days</arg_key><arg_value>1</arg_value></tool_call>"
        "\n<tool_call>now</tool_call>",
        calls=(("now", "{}"), ("get_weather", '{"days": 1}'), ("now", "{}")),
    ),
    "text before, between, after": Example(
        "  I look. \n\n<tool_call>now</tool_call>\n then \n<tool_call>ping</tool_call> done <b> \n ",
        "  I look. \n\n\n then \n done <b>",
        (("now", "{}"), ("ping", "{}")),
    ),
    "text alone": Example("if a < b: print('<tool_call') ", "if a < b: print('<tool_call')"),
    "blanks alone": Example(" \n\t "),
    "nothing": Example(""),
    "a long integer": put("count", "123456789012345678901234567890", "123456789012345678901234567890"),
    "zero, negative": put("count", "-0", "-0"),
    "a number as it is written": put("ratio", " 1.50E+03\n", "1.50E+03"),
    "an integer as a number": put("ratio", "2", "2"),
    "a number too large for Python": put("ratio", "1e999", "1e999"),
    "not a number": put("ratio", "NaN", '"NaN"'),
    "infinite": put("any", "-Infinity", '"-Infinity"'),
    "infinite, inside": put("list", "[1, Infinity]", '"[1, Infinity]"'),
    "true": put("sure", "true", "true"),
    "True": put("sure", "True", "true"),
    "false": put("sure", "\nfalse\n", "false"),
    "null": put("nothing", "null", "null"),
    "None": put("limit", "None", "null"),
    "null for an integer": put("limit", "null", "null"),
    "an integer or null": put("limit", "10", "10"),
    "an array, unchanged": put("list", ' [1,  "a",\n null] ', '[1,  "a",\n null]'),
    "an array with escapes": put("list", r'["\u00e9\ud83d\ude00\n"]', r'["\u00e9\ud83d\ude00\n"]'),
    "an object": put("map", '{"a": {"b": [1e2]}, "c": "</tool_call>"}', '{"a": {"b": [1e2]}, "c": "</tool_call>"}'),
    "an object in Python": put("map", "{'a': True, 1: (None, 'é')}", '{"a": true, "1": [null, "é"]}'),
    "an object in doubled braces": put("map", '{{"a": 1}}', r'"{{\"a\": 1}}"'),
    "an object with an array as a key": put("map", "{[]: 1}", '"{[]: 1}"'),
    "an object with a tuple as a key": put("map", "{(1, 2): 3}", '"{(1, 2): 3}"'),
    "a set": put("list", "{1, 2}", '"{1, 2}"'),
    "bytes": put("list", "[b'a']", "\"[b'a']\""),
    "a broken object": put("map", '{"a": ', r'"{\"a\": "'),
    "half a character": put("list", r"['\ud800']", r'''"['\\ud800']"'''),
    "quotes around an integer": put("count", '"5"', "5"),
    "quotes around an object": put("map", r'"{\"a\": \"b\"}"', r'{"a": "b"}'),
    "quotes around half a character": put("list", r'"[\"\ud800\"]"', r'"[\"\ud800\"]"'),
    "quotes around a word": put("count", '"five"', '"five"'),
    "an object for an integer": put("count", '{"a": 1}', '{"a": 1}'),
    "a fraction for an integer": put("count", "2.0", "2.0"),
    "a word for an integer": put("count", " five ", '" five "'),
    "nothing for an integer": put("count", "", '""'),
    "quotes and backslashes": put("text", r'say "hi" \ \n \u00e9', r'"say \"hi\" \\ \\n \\u00e9"'),
    "newlines in a string": put("text", "\n a\n\tb\r\n ", r'"\n a\n\tb\r\n "'),
    "control characters": put("text", "\x00\x1f\x7f\u2028", '"\\u0000\\u001f\x7f\u2028"'),
    "Unicode": put("text", "Zürich 北京 👩‍👩‍👧 e\u0301 \u202e", '"Zürich 北京 👩‍👩‍👧 e\u0301 \u202e"'),
    "angle brackets": put("text", "a<b && c>d </b> <arg <", '"a<b && c>d </b> <arg <"'),
    "an empty string": put("text", "", '""'),
    "blanks for a string": put("text", " ", '" "'),
    "JSON for a string": put("text", '{"a": [1]}', r'"{\"a\": [1]}"'),
    "a number for a string": put("text", "5", '"5"'),
    "null for a string": put("text", "null", '"null"'),
    "the end of a call in a string": put("text", "</tool_call>", '"</tool_call>"'),
    "all tags in a string": put(
        "text",
        "<tool_call>now<arg_key>a</arg_key><arg_value></tool_call></arg_value",
        '"<tool_call>now<arg_key>a</arg_key><arg_value></tool_call></arg_value"',
    ),
    "an integer or a string: integer": put("id", " 7 ", "7"),
    "an integer or a string: string": put("id", " seven ", '" seven "'),
    "an integer or a string: an array is text": put("id", "[7]", '"[7]"'),
    "an integer or a string: quotes stay": put("id", '"7"', r'"\"7\""'),
    "a string or null: null": put("note", "null", "null"),
    "a string or null: not quite null": put("note", " null", '" null"'),
    "a string or null: nullable": put("note", "nullable", '"nullable"'),
    "a string or null: nul": put("note", "nul", '"nul"'),
    "a string or null: empty": put("note", "", '""'),
    "a string or null: 5": put("note", "5", '"5"'),
    "oneOf": put("one", "[true]", "[true]"),
    "allOf": put("all", "5", "5"),
    "allOf, quoted": put("all", '"5"', "5"),
    "an enum's number": put("level", "3", "3"),
    "an enum's string": put("level", "low", '"low"'),
    "an enum of strings": put("word", "5", '"5"'),
    "a const": put("fixed", "5", '"5"'),
    "a reference to a string": put("name", "null", '"null"'),
    "a reference to an object": put("point", "{'x': 1}", '{"x": 1}'),
    "a reference with escapes": put("flag", "True", "true"),
    "a reference to itself": put("loop", "5", "5"),
    "a reference to nothing": put("lost", "x", '"x"'),
    "a nested schema: null": put("nested", "null", "null"),
    "a nested schema: string": put("nested", "5", '"5"'),
    "no schema: JSON": put("any", ' {"a": 1} ', '{"a": 1}'),
    "no schema: a JSON string": put("any", r'"a\n"', r'"a\n"'),
    "no schema: text": put("any", " it's ", '" it\'s "'),
    "no schema: Python": put("any", "True", '"True"'),
    "an unknown key": put("else", "5", "5"),
    "an odd key": Example(
        '<tool_call>now<arg_key>é "k"\n1</arg_key><arg_value>x</arg_value></tool_call>',
        calls=(("now", r'{"é \"k\"\n1": "x"}'),),
    ),
    "additional properties": Example(
        "<tool_call>say<arg_key>a</arg_key><arg_value>5</arg_value></tool_call>", calls=(("say", '{"a": "5"}'),)
    ),
    "a tool without parameters": Example(
        "<tool_call>now<arg_key>a</arg_key><arg_value>5</arg_value><arg_key>b</arg_key><arg_value>v</arg_value>"
        "</tool_call><tool_call>ping<arg_key>a</arg_key><arg_value>[]</arg_value></tool_call>",
        calls=(("now", '{"a": 5, "b": "v"}'), ("ping", '{"a": []}')),
    ),
    "a tool with odd parameters": Example(
        "<tool_call>odd<arg_key>no</arg_key><arg_value>5</arg_value></tool_call>", calls=(("odd", '{"no": 5}'),)
    ),
    "an unknown function": Example(
        "a<tool_call>nope<arg_key>a</arg_key><arg_value>b</arg_value></tool_call>b<tool_call>now</tool_call>c"
        "<tool_call>nope</tool_call><tool_call></tool_call>",
        "abc",
        (("now", "{}"),),
    ),
    "a key without a value": Example(
        "<tool_call>get_weather<arg_key>city</arg_key><arg_key>days</arg_key><arg_value>2</arg_value><arg_key>city"
        "</arg_key></tool_call><tool_call>now<arg_key>a</tool_call>",
        calls=(("get_weather", '{"days": 2}'), ("now", "{}")),
    ),
    "a key given twice": Example(
        "<tool_call>get_weather<arg_key>days</arg_key><arg_value>1</arg_value><arg_key>days</arg_key>"
        "<arg_value>2</arg_value></tool_call>",
        calls=(("get_weather", '{"days": 1, "days": 2}'),),
    ),
    "a further call in a name": Example(
        "say <tool_call>get <tool_call>now</tool_call>.", "say <tool_call>get .", (("now", "{}"),)
    ),
    "a value without a key": Example(
        "<tool_call>now<arg_value>1</arg_value></tool_call><tool_call>now</tool_call>", calls=(("now", "{}"),)
    ),
    "something between the tags": Example(
        "<tool_call>get_weather<arg_key>days</arg_key>: </arg_value><tool_call><arg_value>2</arg_value>, <arg_value>"
        "<tool_call></arg_key><arg_key>city</arg_key><arg_value>x</arg_value>!</tool_call>",
        calls=(("get_weather", '{"days": 2, "city": "x"}'),),
    ),
    "ends of nothing": Example("a</tool_call> </arg_value><arg_key>b", "a</tool_call> </arg_value><arg_key>b"),
    "the beginning of a call at the end": Example("<tool_call>now</tool_call>a \n<tool_cal", "a", (("now", "{}"),)),
    "cut off in a name": Example("a <tool_call>no", "a"),
    "cut off in a value": Example(
        "a\n<tool_call>now</tool_call><tool_call>put<arg_key>text</arg_key><arg_value>b</tool_call> c",
        "a",
        (("now", "{}"),),
    ),
}
examples = pytest.mark.parametrize("told", [pytest.param(told, id=name) for name, told in EXAMPLES.items()])


# ---- reading ---------------------------------------------------------------------------------


@cache
def root(version: str) -> Path:
    return wheels.sglang(version) / "sglang"


@cache
def loaded(version: str) -> Any:
    """The detector's class on a release's base class."""
    return detector(root(version), SOURCE)


@pytest.fixture(scope="module", autouse=True)
def _sglang_is_not_left_behind() -> Iterator[None]:
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "sglang"}
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == "sglang"]:
        del sys.modules[name]
    sys.modules.update(kept)


class Listener:
    """Reads a stream as a client does, and holds every item that comes against the rules of the protocol."""

    def __init__(self, tools: list[Tool], version: str = RELEASE) -> None:
        self.detector = loaded(version)()
        self.tools = tools
        self.normal = ""
        self.calls: list[tuple[str, list[str]]] = []

    def hear(self, piece: str) -> None:
        result = self.detector.parse_streaming_increment(piece, self.tools)
        self.normal += result.normal_text
        for item in result.calls:
            if item.name is not None:
                assert (item.tool_index, item.parameters) == (len(self.calls), ""), "a name comes first, and in order"
                assert all(is_json(arguments) for _, arguments in self.arguments()), "one call at a time"
                self.calls.append((item.name, []))
            else:
                assert item.tool_index == len(self.calls) - 1
                assert item.parameters, "an empty fragment says nothing"
                self.calls[-1][1].append(item.parameters)
        # What is held back is less than a tag; or else it could be told.
        assert len(self.detector._buffer) < LONGEST

    def arguments(self) -> list[tuple[str, str]]:
        return [(name, "".join(fragments)) for name, fragments in self.calls]


def listen(pieces: Iterable[str], tools: list[Tool], version: str = RELEASE) -> Listener:
    listener = Listener(tools, version)
    for piece in pieces:
        listener.hear(piece)
    return listener


def whole(text: str, tools: list[Tool], version: str = RELEASE) -> tuple[str, list[tuple[str, str]]]:
    """The normal text and the calls of a parse at once."""
    result = loaded(version)().detect_and_parse(text, tools)
    assert [call.tool_index for call in result.calls] == list(range(len(result.calls)))
    return result.normal_text, [(call.name, call.parameters) for call in result.calls]


def is_json(text: str) -> bool:
    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    try:
        json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return True


def hold_to_whole(listener: Listener, text: str) -> None:
    """What was heard of a text is what a parse at once finds in it, but for a call that is still open."""
    normal, calls = whole(text, listener.tools)
    assert listener.normal == normal
    heard = listener.arguments()
    assert heard[: len(calls)] == calls
    assert len(heard) - len(calls) in (0, 1)
    assert all(is_json(arguments) for _, arguments in calls)
    assert not any(is_json(arguments) for _, arguments in heard[len(calls) :])
    # The server's own record: finished calls only.
    told = listener.detector.prev_tool_call_arr
    assert [(call["name"], call["arguments"]) for call in told] == [(name, json.loads(args)) for name, args in calls]
    assert listener.detector.streamed_args_for_tool == [arguments for _, arguments in calls]


def cut(text: str, places: Iterable[int]) -> list[str]:
    return [text[start:end] for start, end in pairwise([0, *sorted(places), len(text)])]


def cut_bytes(text: str, places: Iterable[int]) -> list[str]:
    """Cut in UTF-8, as tokens do: what is there of a character waits for the rest."""
    data = text.encode()
    decoder = codecs.getincrementaldecoder("utf-8")()
    return [decoder.decode(data[start:end]) for start, end in pairwise([0, *sorted(places), len(data)])]


# ---- examples --------------------------------------------------------------------------------


@releases
@examples
def test_at_once(told: Example, version: str) -> None:
    assert whole(told.text, TOOLS, version) == (told.normal, list(told.calls))


@releases
@examples
def test_one_character_at_a_time(told: Example, version: str) -> None:
    """Truncated at every place: the finished calls and the text are there, of the open one a part and no more."""
    listener = Listener(TOOLS, version)
    for number, character in enumerate(told.text, start=1):
        listener.hear(character)
        hold_to_whole(listener, told.text[:number])
        for (name, part), (full_name, full) in zip(listener.arguments(), told.calls, strict=False):
            assert name == full_name
            assert full.startswith(part)
    heard = listener.arguments()
    assert listener.normal == told.normal
    assert heard[: len(told.calls)] == list(told.calls)


@examples
def test_cut_in_two(told: Example) -> None:
    for place in range(len(told.text) + 1):
        listener = listen(cut(told.text, [place]), TOOLS)
        hold_to_whole(listener, told.text)
        assert listener.normal == told.normal


def test_a_string_comes_as_it_is_written() -> None:
    """Not when it ends: a client sees a long file grow."""
    listener = listen(["<tool_call>put<arg_key>text</arg_key><arg_value>"], TOOLS)
    for piece, seen in (("a", "a"), ('"', r"\""), ("b</arg_val", "b"), ("x", "</arg_valx"), ("\n", r"\n")):
        before = len(listener.calls[-1][1])
        listener.hear(piece)
        assert listener.calls[-1][1][before:] == [seen]


def test_a_name_comes_before_the_first_argument() -> None:
    assert listen(["<tool_call>put<arg_key>"], TOOLS).arguments() == [("put", "")]


def test_has_tool_call() -> None:
    made = loaded(RELEASE)()
    assert made.has_tool_call("a\n<tool_call>now")
    assert not made.has_tool_call("a <tool_call now</tool_call>")


@pytest.mark.parametrize("name", ["nope", "", "no w", "Now"])
def test_an_unknown_function_is_logged(name: str, caplog: pytest.LogCaptureFixture) -> None:
    text = f"<tool_call>{name}<arg_key>a</arg_key><arg_value>b</arg_value></tool_call>"
    for read in (lambda: whole(text, TOOLS), lambda: listen(text, TOOLS)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            read()
        assert [record.getMessage() for record in caplog.records] == [
            f"Model attempted to call undefined function: {name}"
        ]


def test_a_known_function_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        listen(EXAMPLES["several calls"].text, TOOLS)
        listen(EXAMPLES["cut off in a name"].text, TOOLS)
    assert not caplog.records


def test_odd_python_of_a_model_warns_nobody() -> None:
    """Python's own warning of the escape would go to the server's log."""
    told = put("list", r"['\d']", r'["\\d"]')
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        assert whole(told.text, TOOLS) == ("", list(told.calls))
    assert not shown


def test_the_same_detector_parses_at_once_again_and_again() -> None:
    made = loaded(RELEASE)()
    text = "<tool_call>now</tool_call>"
    assert [len(made.detect_and_parse(text, TOOLS).calls) for _ in range(3)] == [1, 1, 1]


# ---- generated calls -------------------------------------------------------------------------

KINDS = ("string", "integer", "number", "boolean", "null", "array", "object")
# Pieces that a careless reader stumbles over.
PIECES = (
    *TAGS,
    "<tool_call",
    "</arg_value",
    "<",
    ">",
    "</",
    '"',
    "\\",
    "\\u00e9",
    "\n",
    " ",
    "null",
    "True",
    "5",
    "-1e5",
    "[1]",
    "{",
    "}",
    "'a'",
    "say",
    "😀",
    "👩‍👧",
    "e\u0301",
    "北",
    "\x00",
    "\u2028",
)
CHARACTERS = st.characters(exclude_categories=["Cs"])
WORDS = st.lists(st.one_of(st.sampled_from(PIECES), st.text(CHARACTERS, max_size=6)), max_size=6).map("".join)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), FLOATS, WORDS)
JSON: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)),
    max_leaves=5,
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": WORDS,
    "integer": st.integers(),
    "number": FLOATS,
    "boolean": st.booleans(),
    "null": st.none(),
    "array": st.lists(JSON, max_size=3),
    "object": st.dictionaries(WORDS, JSON, max_size=3),
}
GAPS = st.sampled_from(["", "", "", "\n", " ", "\r\n\t", "\n\n"])
Kinds = frozenset[str] | None


def kind_of(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def closed(kinds: Iterable[str]) -> frozenset[str]:
    """With the integers, which are numbers."""
    kinds = frozenset(kinds)
    return kinds | {"integer"} if "number" in kinds else kinds


def rendered(value: object) -> str:
    """A value as GLM-4.7's chat template writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def decidable(value: object, kinds: Kinds) -> bool:
    """Whether what is written for a value can mean no other value under a schema of these types (None: of any)."""
    text = rendered(value)
    if "</arg_value>" in text:
        return False
    if not isinstance(value, str):
        return True
    if kinds is None:
        return not is_json(text.strip())
    if kinds == {"string", "null"}:
        return text != "null"
    others = kinds - {"string"}
    return not (others and is_json(text.strip()) and kind_of(json.loads(text)) in others)


@st.composite
def schemas(draw: st.DrawFn, definitions: dict[str, object], depth: int = 0) -> tuple[Any, Kinds]:
    """A schema, and the types that it allows; its references go into definitions."""
    forms = ["type", "types", "enum", "const", "allOf", "shape", "none"]
    forms += ["anyOf", "oneOf", "$ref"] if depth < 3 else []
    form = draw(st.sampled_from(forms))
    if form == "type":
        kind = draw(st.sampled_from(KINDS))
        return {"type": kind}, closed([kind])
    if form == "types":
        kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
        return {"type": kinds}, closed(kinds)
    if form in ("enum", "const"):
        values = draw(st.lists(SCALARS, min_size=1, max_size=3 if form == "enum" else 1))
        return {form: values if form == "enum" else values[0]}, closed(map(kind_of, values))
    if form == "allOf":
        kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=2))
        more, others = (draw(st.lists(st.sampled_from(KINDS), max_size=2)) for _ in range(2))
        branches = [{"type": kinds + more}, {"title": "says nothing of types"}, {"type": kinds + others}]
        return {"allOf": branches}, closed(kinds + more) & closed(kinds + others)
    if form == "shape":
        keyword, kind = draw(st.sampled_from([("properties", "object"), ("required", "object"), ("items", "array")]))
        return {keyword: [] if keyword == "required" else {}}, frozenset([kind])
    if form == "none":
        return draw(st.sampled_from([{}, True, {"description": "free"}])), None
    if form == "$ref":
        schema, allowed = draw(schemas(definitions, depth + 1))
        name = draw(st.sampled_from(["A", "b/c", "d~e"])) + str(len(definitions))
        definitions[name] = schema
        return {"$ref": f"#/$defs/{name.replace('~', '~0').replace('/', '~1')}"}, allowed
    choices: list[tuple[Any, Kinds]] = draw(st.lists(schemas(definitions, depth + 1), min_size=1, max_size=3))
    union: Kinds = frozenset()
    for _, allowed in choices:
        union = None if union is None or allowed is None else union | allowed
    return {form: [schema for schema, _ in choices]}, union


@dataclass(frozen=True)
class Case:
    """A generated answer. normal, calls: what it means; calls: names and arguments."""

    tools: list[Tool]
    text: str
    normal: str
    calls: list[tuple[str, dict[str, Any]]]


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True)
KEYS = st.one_of(NAMES, st.text(CHARACTERS, min_size=1, max_size=5)).map(str.strip).filter(lambda key: "<" not in key)


@st.composite
def functions(draw: st.DrawFn, name: str) -> tuple[Tool, dict[str, Kinds], Kinds]:
    """A tool, the types of its parameters, and those of any other key."""
    if draw(st.integers(0, 5)) == 0:
        return tool(name, draw(st.sampled_from([None, {}, {"type": "object"}]))), {}, None
    definitions: dict[str, object] = {}
    made = {key: draw(schemas(definitions)) for key in draw(st.lists(KEYS, max_size=4, unique=True))}
    properties = {key: schema for key, (schema, _) in made.items()}
    parameters: dict[str, Any] = {"type": "object", "properties": properties, "$defs": definitions}
    others: Kinds = None
    if draw(st.booleans()):
        parameters["additionalProperties"], others = draw(schemas(definitions))
    return tool(name, parameters), {key: kinds for key, (_, kinds) in made.items()}, others


@st.composite
def answers(draw: st.DrawFn) -> Case:
    made = [draw(functions(name)) for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True))]
    outside = WORDS.filter(lambda text: "<tool_call>" not in text)
    texts, calls, answer = [draw(outside)], [], ""
    for _ in range(draw(st.integers(0, 3))):
        function, types, others = draw(st.sampled_from(made))
        keys = draw(st.lists(st.one_of(KEYS, *([st.sampled_from(sorted(types))] * 4 if types else [])), max_size=4))
        arguments = {}
        for key in dict.fromkeys(keys):
            kinds = types.get(key, others)
            values = st.one_of([VALUES[kind] for kind in sorted(KINDS if kinds is None else kinds)])
            arguments[key] = draw(values)
            assume(decidable(arguments[key], kinds))
        calls.append((function.function.name, arguments))
        answer += texts[-1] + "<tool_call>" + draw(GAPS) + function.function.name + draw(GAPS)
        for key, value in arguments.items():
            answer += f"<arg_key>{draw(GAPS)}{key}{draw(GAPS)}</arg_key>{draw(GAPS)}"
            answer += f"<arg_value>{rendered(value)}</arg_value>{draw(GAPS)}"
        answer += "</tool_call>"
        texts.append(draw(outside))
    normal = "".join([*texts[:-1], without_beginning_of_call(texts[-1])]).rstrip()
    return Case([function for function, _, _ in made], answer + texts[-1], normal, calls)


def without_beginning_of_call(text: str) -> str:
    for length in range(len("<tool_call>") - 1, 0, -1):
        if text.endswith("<tool_call>"[:length]):
            return text[:-length]
    return text


def exact(calls: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Calls in a form in which 1, 1.0 and True differ, as do other orders of keys."""
    return [(name, json.dumps(arguments)) for name, arguments in calls]


@given(case=answers(), data=st.data())
@settings(deadline=None, max_examples=200)
def test_what_the_template_writes_is_read(case: Case, data: st.DataObject) -> None:
    """The arguments that come out are those that went in, however the answer is cut."""
    normal, calls = whole(case.text, case.tools)
    assert normal == case.normal
    assert exact((name, json.loads(arguments)) for name, arguments in calls) == exact(case.calls)

    inside = {
        match.start() + offset
        for match in re.finditer("|".join(TAGS), case.text)
        for offset in range(1, len(match.group()))
    }
    places = st.lists(st.integers(0, len(case.text)), max_size=12)
    bytes_places = st.lists(st.integers(0, len(case.text.encode())), max_size=40)
    for pieces in (
        [case.text],
        case.text,
        cut(case.text, data.draw(places)),
        cut(case.text, inside),
        cut(case.text, data.draw(st.sets(st.sampled_from(sorted(inside)))) if inside else ()),
        cut_bytes(case.text, data.draw(bytes_places)),
        cut_bytes(case.text, range(len(case.text.encode()))),
    ):
        listener = listen(pieces, case.tools)
        assert listener.arguments() == calls
        hold_to_whole(listener, case.text)


# ---- anything at all -------------------------------------------------------------------------


def by_regex(text: str, known: Iterable[str]) -> tuple[str, list[tuple[str, dict[str, str]]]]:
    """The language of the answers once more, in another way: for functions whose arguments are all strings."""

    def until(*tags: str) -> str:
        return f"(?:(?!{'|'.join(tags)}).)*"

    name = re.compile(
        f"({until('<arg_key>', '</tool_call>', '<tool_call>')})(<arg_key>|</tool_call>|<tool_call>)", re.S
    )
    value = f"<arg_value>({until('</arg_value>')})</arg_value>{until('<arg_key>', '</tool_call>')}"
    key = f"<arg_key>({until('</arg_key>', '</tool_call>')})"
    item = f"{key}(?:</arg_key>{until('<arg_value>', '<arg_key>', '</tool_call>')}(?:{value})?)?"
    end = re.compile(f"(?:{item})*</tool_call>", re.S)
    normal, calls = "", list[tuple[str, dict[str, str]]]()
    while "<tool_call>" in text:
        before, _, text = text.partition("<tool_call>")
        normal += before
        called = name.match(text)
        if called and called[2] == "<tool_call>":
            normal += "<tool_call>" + called[1]
            text = text[called.end(1) :]
            continue
        finished = end.match(text, called.end(1)) if called else None
        if not called or not finished:
            return normal.rstrip(), calls
        if called[1].strip() in known:
            pairs = re.finditer(item, finished[0], re.S)
            # Of a key that stands twice JSON's reader takes the last one.
            calls.append((called[1].strip(), {pair[1].strip(): pair[2] for pair in pairs if pair[2] is not None}))
        text = text[finished.end() :]
    return (normal + without_beginning_of_call(text)).rstrip(), calls


JUNK = st.lists(
    st.one_of(
        st.sampled_from(TAGS),
        st.sampled_from(TAGS),
        st.sampled_from([tag[:length] for tag in TAGS for length in (1, 2, len(tag) - 1)]),
        st.sampled_from(
            ["say", "say", "nope", "put", "text", "count", " ", "\n", "null", "5", '"', "{'a': 1}", "😀", ">"]
        ),
        st.text(CHARACTERS, max_size=3),
    ),
    max_size=25,
)
OPENING = "<tool_call>say<arg_key>a</arg_key><arg_value>"


@given(pieces=JUNK, places=st.lists(st.integers(0, 200), max_size=5))
@example(pieces=[OPENING, "<tool_call>nope</arg_value>", "<tool_call>"], places=[])
@settings(deadline=None, max_examples=400)
def test_any_disorder_is_read_the_same_way(pieces: list[str], places: list[int]) -> None:
    text = "".join(pieces)
    tools = [tool("say", TOOLS[2].function.parameters)]
    normal, calls = whole(text, tools)
    assert (normal, [(name, json.loads(arguments)) for name, arguments in calls]) == by_regex(text, ["say"])
    for parts in (pieces, text, cut(text, [min(place, len(text)) for place in places])):
        hold_to_whole(listen(parts, tools), text)


@given(before=JUNK, after=JUNK, key=st.sampled_from(sorted(PARAMETERS["properties"])))
@settings(deadline=None, max_examples=300)
def test_any_disorder_of_any_types_is_read_the_same_way(before: list[str], after: list[str], key: str) -> None:
    text = "".join([*before, f"<tool_call>put<arg_key>{key}</arg_key><arg_value>", *after])
    listener = Listener(TOOLS)
    for number, character in enumerate(text, start=1):
        listener.hear(character)
        if number % 7 == 0:
            hold_to_whole(listener, text[:number])
    hold_to_whole(listener, text)


CODE = (
    *"{}[]():,'\"-\\.",
    "'a'",
    '"a"',
    "1",
    "2.5",
    "e9",
    "True",
    "None",
    "null",
    "true",
    "NaN",
    "b'x'",
    "r'",
    "\\ud800",
    "\\x00",
    "\x00",
    "not ",
    "lambda: ",
    "set()",
    "1j",
    "0xff",
    " ",
    "\n",
    "é",
    "😀",
    "*",
    "**{}",
)


@given(
    key=st.sampled_from(sorted(PARAMETERS["properties"])),
    value=st.lists(st.sampled_from(CODE), max_size=10).map("".join),
)
@example(key="map", value='{{"a": 1}}')
@example(key="list", value="['\\ud800']")
@example(key="list", value="9" * 5000)
@example(key="list", value="[0x" + "f" * 5000 + "]")
@settings(deadline=None, max_examples=600)
def test_any_value_becomes_json_that_can_be_sent(key: str, value: str) -> None:
    text = put(key, value, "").text
    normal, calls = whole(text, TOOLS)
    assert (normal, len(calls)) == ("", 1)
    calls[0][1].encode()
    hold_to_whole(listen(text, TOOLS), text)


@pytest.mark.parametrize("key", ["list", "any", "id", "text", "note", "count"])
def test_any_depth_is_read(key: str) -> None:
    """Where Python's own reader of JSON gives up, a value is a string."""
    limit = 500
    while is_json("[" * limit + "]" * limit) and limit < 50_000:
        limit += 1
    for depth in [*range(limit - 30, limit + 3), 100_000]:
        text = put(key, "[" * depth + "]" * depth, "").text
        _, calls = whole(text, TOOLS)
        assert len(calls) == 1
        heard = listen([text], TOOLS)
        assert [name for name, _ in heard.calls] == ["put"]
        assert len(heard.detector.prev_tool_call_arr) == 1


@pytest.mark.parametrize("opening", ["-", "(", "not ", "{'a': ", "[1, ", "{", "'a' ", "1+"])
def test_any_depth_of_python_is_read(opening: str) -> None:
    for depth in (50, 500, 20_000):
        assert len(whole(put("list", opening * depth, "").text, TOOLS)[1]) == 1


# ---- the server ------------------------------------------------------------------------------

FINISHER = "_check_for_unstreamed_tool_args"


class Model:
    """Stands in for a model of the server's answers."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields

    def model_dump_json(self) -> str:
        return json.dumps(self.fields, default=lambda model: model.fields)


@cache
def finisher(version: str) -> Callable[..., str | None]:
    """The function of a release's server that adds, when a stream ends, what is missing of the last call."""
    path = root(version) / "srt/entrypoints/openai/serving_chat.py"
    found = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef) and node.name == FINISHER
    ]
    assert len(found) == 1
    names = ("ToolCall", "FunctionResponse", "DeltaMessage", "ChatCompletionResponseStreamChoice")
    scope: dict[str, Any] = dict.fromkeys((*names, "ChatCompletionStreamResponse"), Model)
    scope |= {"json": json, "time": SimpleNamespace(time=lambda: 0)}
    # This file's own `from __future__ import annotations` holds for it too: no annotation is evaluated.
    exec(compile(ast.Module([*found], []), str(path), "exec"), scope)
    function: Callable[..., str | None] = scope[FINISHER]
    return function


def added(made: Any, version: str) -> str | None:
    """What the server adds when the stream of a detector ends now."""
    content = {"meta_info": {"id": "x"}}
    return finisher(version)(None, SimpleNamespace(detector=made), content, SimpleNamespace(model="m"), 0)


@releases
@examples
def test_the_server_adds_nothing(told: Example, version: str) -> None:
    """Neither to a finished answer nor to one that was truncated, wherever that was."""
    listener = Listener(TOOLS, version)
    for character in told.text:
        listener.hear(character)
        assert added(listener.detector, version) is None


@given(case=answers(), data=st.data())
@settings(deadline=None, max_examples=60)
def test_the_server_adds_nothing_to_any_answer(case: Case, data: st.DataObject) -> None:
    text = case.text[: data.draw(st.integers(0, len(case.text)))]
    for part in (text, case.text):
        assert added(listen([part], case.tools).detector, RELEASE) is None


@releases
def test_the_server_would_close_half_a_call(version: str) -> None:
    """What this guards against: of a detector that told it of an open call."""
    listener = listen(["<tool_call>put<arg_key>list</arg_key><arg_value>[1]</arg_value>"], TOOLS)
    listener.detector.prev_tool_call_arr.append({"name": "put", "arguments": {"list": [1]}})
    listener.detector.streamed_args_for_tool.append('{"list": [1]')
    told = added(listener.detector, version)
    assert told is not None
    assert '"arguments": "}"' in told


@releases
def test_the_release_parses_with_it(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As its endpoint does: through the registry, whole and in a stream."""
    made = loaded(version)
    parsers = function_call(root(version)).FunctionCallParser
    monkeypatch.setitem(parsers.ToolCallParserEnum, "glm47", made)
    told = EXAMPLES["text before, between, after"]
    parser = parsers(TOOLS, "glm47")
    assert parser.has_tool_call(told.text)
    normal, calls = parser.parse_non_stream(told.text)
    assert (normal, tuple((call.name, call.parameters) for call in calls)) == (told.normal, told.calls)
    chunks = [parser.parse_stream_chunk(character) for character in told.text]
    assert "".join(normal for normal, _ in chunks) == told.normal
    assert sum(call.name is not None for _, calls in chunks for call in calls) == len(told.calls)
    # Without a call the text stays as it is.
    assert parsers(TOOLS, "glm47").parse_non_stream(" a \n") == (" a \n", [])


@releases
def test_the_release_asks_for_structure(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Automatic choice is left to the model, strict or not; what is required is JSON by the server's own schema."""
    made = loaded(version)
    parsers = function_call(root(version)).FunctionCallParser
    monkeypatch.setitem(parsers.ToolCallParserEnum, "glm47", made)
    strict = tool("get_weather", TOOLS[1].function.parameters, strict=True)
    parser = parsers([strict, tool("now")], "glm47")
    assert not parser.detector.supports_structural_tag()
    assert parser.get_structure_constraint("auto") is None
    kind, schema = parser.get_structure_constraint("required")
    assert kind == "json_schema"
    wanted = [branch["properties"]["name"]["enum"] for branch in schema["items"]["anyOf"]]
    assert wanted == [["get_weather"], ["now"]]
    kind, schema = parser.get_structure_constraint(ToolChoice(function=ToolChoiceFuncName(name="now")))
    assert (kind, schema["items"]["properties"]["name"]["enum"]) == ("json_schema", ["now"])
    with pytest.raises(NotImplementedError):
        parser.detector.structure_info()


def test_a_grammar_of_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # the composer is imported late, from the wheel's folder
    made = detector(root(RELEASE), SOURCE)()
    rules = dict(
        line.split(" ::= ", 1) for line in made.build_ebnf([TOOLS[1], TOOLS[3]]).splitlines() if " ::= " in line
    )
    assert (
        rules["root"] == '"<tool_call>" function_call "</tool_call>" ( "" "<tool_call>" function_call "</tool_call>" )*'
    )
    assert rules["function_call"] == "call_get_weather | call_now"
    assert rules["call_get_weather"] == '"get_weather" arguments_get_weather'
    city = '"<arg_key>city</arg_key><arg_value>" xml_text "</arg_value>"'
    days = '"<arg_key>days</arg_key><arg_value>" basic_number "</arg_value>"'
    words = rules["arguments_get_weather"].split()
    assert " ".join(words).startswith(f"( {city} ( {days} )? | {days} )?")
    assert rules["arguments_now"] == '""'


@releases
def test_nothing_abstract_is_left(version: str) -> None:
    assert not loaded(version).__abstractmethods__


# ---- cost ------------------------------------------------------------------------------------


class Meter:
    """Counts the characters that the detector's functions are given, by function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: dict[str, int] = {}
        scope = loaded(RELEASE).detect_and_parse.__globals__
        patterns: Mapping[str, re.Pattern[str]] = scope["_SEARCH"]
        monkeypatch.setitem(scope, "_SEARCH", {state: self._searching(pattern) for state, pattern in patterns.items()})
        for name in ("_quoted", "_beginning_of", "_kind", "_as_json"):
            monkeypatch.setitem(scope, name, self._counting(name, scope[name]))

    def _count(self, name: str, characters: int) -> None:
        self.seen[name] = self.seen.get(name, 0) + characters

    def _searching(self, pattern: re.Pattern[str]) -> SimpleNamespace:
        def search(text: str, at: int = 0) -> re.Match[str] | None:
            match = pattern.search(text, at)
            self._count("search", (match.end() if match else len(text)) - at)
            return match

        return SimpleNamespace(search=search)

    def _counting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(text: str, *others: Any) -> Any:
            self._count(name, len(text))
            return function(text, *others)

        return counted


def pieces_of(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


BODIES = {
    "words": "word " * 2_000,
    "brackets": "x<" * 5_000,
    "half tags": "</arg_valu" * 1_000,
    "other tags": "</tool_call><tool_call>" * 400,
    "newlines": "\n" * 10_000,
}
bodies = pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in BODIES.items()])


@bodies
@pytest.mark.parametrize("size", [1, 4, 1_000])
@pytest.mark.parametrize("key", ["text", "note", "any", "id"])
def test_each_character_is_looked_at_a_bounded_number_of_times(
    body: str, size: int, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the length of the answer: a piece costs itself and what was held back, which is less than a tag."""
    text = put(key, body, "").text
    meter = Meter(monkeypatch)
    listen(pieces_of(text, size), TOOLS)
    count = -(-len(text) // size)
    assert len(text) <= meter.seen["search"] <= len(text) + count * (LONGEST - 1)
    assert meter.seen["_beginning_of"] <= min(count * LONGEST, len(text) + count * (LONGEST - 1))
    # Told once, but that a value which is no JSON is quoted as a whole.
    assert meter.seen["_quoted"] <= len(text)
    assert meter.seen.get("_kind", 0) <= len(text)
    assert meter.seen.get("_as_json", 0) <= len(body)


@bodies
def test_at_once_each_character_is_looked_at_once(body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = body.replace("<tool_call>", "<tool>") + put("text", body, "").text * 3 + body.replace("<tool_call>", "<>")
    meter = Meter(monkeypatch)
    whole(text, TOOLS)
    assert meter.seen["search"] == len(text)


@bodies
@pytest.mark.parametrize("size", [1, 4, 1_000])
def test_each_character_is_told_once(body: str, size: int) -> None:
    """As one fragment a piece at most, none of them empty."""
    text = put("text", body, "").text
    listener = listen(pieces_of(text, size), TOOLS)
    [(_, fragments)] = listener.calls
    assert sum(map(len, fragments)) == len(json.dumps({"text": body}, ensure_ascii=False))
    assert len(fragments) <= -(-len(text) // size)


def test_a_string_is_told_in_as_many_fragments_as_pieces() -> None:
    body = "abcd" * 500
    listener = listen(["<tool_call>put<arg_key>text</arg_key><arg_value>", *pieces_of(body, 4)], TOOLS)
    assert listener.calls == [("put", ['{"text": "', *["abcd"] * 500])]
    listener.hear("</arg_value></tool_call>")
    assert listener.calls[0][1][-1] == '"}'


def test_what_may_be_null_waits_no_longer_than_null() -> None:
    listener = listen(["<tool_call>put<arg_key>note</arg_key><arg_value>nul"], TOOLS)
    assert listener.arguments() == [("put", '{"note": ')]
    listener.hear("l")
    assert listener.arguments() == [("put", '{"note": ')]
    listener.hear("s")
    assert listener.arguments() == [("put", '{"note": "nulls')]


@pytest.mark.parametrize("key", ["text", "note", "any", "id", "list"])
def test_a_piece_costs_no_copy_of_what_came_before(key: str) -> None:
    """Seen by the memory that it takes at most, while it is read."""
    listener = listen([f"<tool_call>put<arg_key>{key}</arg_key><arg_value>"], TOOLS)
    piece, most = "<b>" * 400, 0
    tracemalloc.start()
    try:
        for _ in range(400):
            before, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            listener.detector.parse_streaming_increment(piece, TOOLS)
            most = max(most, tracemalloc.get_traced_memory()[1] - before)
    finally:
        tracemalloc.stop()
    assert most < 100_000 < 400 * len(piece)


def test_calls_are_parsed_once_for_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """When each ends; not all of them again with every piece."""
    scope = loaded(RELEASE).detect_and_parse.__globals__
    read = []

    def loads(text: str, **options: Any) -> Any:
        read.append(len(text))
        return json.loads(text, **options)

    stand_in = SimpleNamespace(loads=loads, dumps=json.dumps)
    monkeypatch.setitem(scope, "json", stand_in)
    one = put("text", "abc", "").text
    listener = listen(one * 50, TOOLS)
    assert len(listener.calls) == 50
    assert read == [len('{"text": "abc"}')] * 50
