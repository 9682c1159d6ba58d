# dgx_spark.sglang parser patch: the tool calls of GLM-4.7
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""GLM-4.7's tool calls, for releases of SGLang that do not know them.

<tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value>...</tool_call>, with or without blanks between tags.
One reader serves both ways of parsing: it takes a text in pieces, looks at each character a bounded number of times,
and tells what it has found; how the text was cut does not matter.
"""

import ast
import json
import logging
import re
import warnings
from collections.abc import Iterable
from typing import Any

from sglang.srt.entrypoints.openai.protocol import Tool
from sglang.srt.function_call.base_format_detector import BaseFormatDetector
from sglang.srt.function_call.core_types import StreamingParseResult, ToolCallItem, _GetInfoFunc
from sglang.srt.function_call.utils import infer_type_from_json_schema, json_schema_types

logger = logging.getLogger(__name__)

CALL, CALL_END = "<tool_call>", "</tool_call>"
KEY, KEY_END = "<arg_key>", "</arg_key>"
VALUE, VALUE_END = "<arg_value>", "</arg_value>"

# What ends each state. A value ends at its own tag alone: code that is passed as an argument may hold all the others.
_ENDS = {
    "text": (CALL,),
    "name": (KEY, CALL_END, CALL),
    "key": (KEY_END, CALL_END),
    "keyed": (VALUE, KEY, CALL_END),
    "value": (VALUE_END,),
    "between": (KEY, CALL_END),
}
_STRING, _STRING_OR_NULL = frozenset({"string"}), frozenset({"string", "null"})
_SEARCH = {state: re.compile("|".join(tags)) for state, tags in _ENDS.items()}


class _Call:
    """One call. index: its place among the calls of known functions, None for an unknown one. parameters: its schema.

    The JSON of its arguments is kept in fragments: adding to one long string would copy it each time.
    """

    def __init__(self, name: str, index: int | None, parameters: object) -> None:
        self.name = name
        self.index = index
        self.parameters = parameters
        self.fragments: list[str] = []
        self.finished = False

    def json(self) -> str:
        return "".join(self.fragments)


class _Reader:
    """Reads an answer piece by piece.

    calls: those of known functions, so far. held: what may be the beginning of a tag, shorter than any tag.
    """

    def __init__(self, tools: Iterable[Tool]) -> None:
        self.calls: list[_Call] = []
        self.held = ""
        self._schemas = {tool.function.name: tool.function.parameters for tool in tools if tool.function.name}
        self._state = "text"
        self._call = _Call("", None, None)
        self._key: str | None = None
        self._parts: list[str] = []
        self._blank: list[str] = []
        self._types: frozenset[str] | None = None
        self._streams = False
        self._normal: list[str] = []
        self._told: list[tuple[int, str | None, list[str]]] = []

    def feed(self, text: str) -> tuple[str, list[ToolCallItem]]:
        """Take one more piece; returns the normal text and the parts of calls that are now known."""
        self._normal, self._told = [], []
        text = self.held + text
        at = 0
        while end := _SEARCH[self._state].search(text, at):
            self._take(text[at : end.start()])
            self._turn(end.group())
            at = end.end()
        self.held = _beginning_of(text[at:][-len(VALUE_END) :], _ENDS[self._state])
        self._take(text[at : len(text) - len(self.held)])
        items = [ToolCallItem(tool_index=i, name=name, parameters="".join(parts)) for i, name, parts in self._told]
        return "".join(self._normal), items

    def _take(self, text: str) -> None:
        """Text within a state."""
        if self._state == "text":
            self._say(text)
        elif self._streams:
            self._write(_quoted(text)[1:-1])
        elif text:
            self._parts.append(text)
            if self._state == "value" and self._types == _STRING_OR_NULL:
                self._decide()

    def _turn(self, tag: str) -> None:
        """The tag that ends a state: do what the text before it means, and go to the next state."""
        state, text = self._state, "".join(self._parts)
        self._parts = []
        if state == "name" and tag == CALL:
            self._say(CALL + text)
        elif state == "name":
            self._open(text.strip())
        elif state == "value":
            self._end_value(text)
        if tag == CALL_END:
            self._write("" if self._call.fragments else "{", "}")
            self._call.finished = True
        elif tag == VALUE:
            self._begin_value()
        self._key = text.strip() if tag == KEY_END else self._key if tag == VALUE else None
        self._state = {CALL: "name", KEY: "key", KEY_END: "keyed", VALUE: "value", CALL_END: "text"}.get(tag, "between")

    def _say(self, text: str) -> None:
        """Normal text; blanks wait until more of it follows, so that an answer of nothing but calls has none."""
        full = text.rstrip()
        if full:
            self._normal += [*self._blank, full]
            self._blank = []
        self._blank.append(text[len(full) :])

    def _open(self, name: str) -> None:
        if name in self._schemas:
            self._call = _Call(name, len(self.calls), self._schemas[name])
            self.calls.append(self._call)
            self._told.append((len(self.calls) - 1, name, []))
        else:
            logger.warning("Model attempted to call undefined function: %s", name)
            self._call = _Call(name, None, None)

    def _begin_value(self) -> None:
        self._types = json_schema_types(self._schema(), self._call.parameters)
        self._write(", " if self._call.fragments else "{", _quoted(self._key or ""), ": ")
        if self._types == _STRING:
            self._stream("")

    def _decide(self) -> None:
        """A text that may be null or a string is streamed as soon as it can't be null any more."""
        text = "".join(self._parts)
        if not "null".startswith(text):
            self._parts = []
            self._stream(text)

    def _stream(self, text: str) -> None:
        self._streams = True
        self._write('"', _quoted(text)[1:-1])

    def _end_value(self, text: str) -> None:
        likely = infer_type_from_json_schema(self._schema(), self._call.parameters)
        self._write('"' if self._streams else _as_json(text, self._types, likely))
        self._streams = False

    def _schema(self) -> object:
        """The schema of the argument that is being read; None without one."""
        parameters = self._call.parameters
        if not isinstance(parameters, dict):
            return None
        properties = parameters.get("properties")
        if isinstance(properties, dict) and self._key in properties:
            return properties[self._key]
        return parameters.get("additionalProperties")

    def _write(self, *fragments: str) -> None:
        """More of the call's arguments. What one piece brings is told as one fragment."""
        fragments = tuple(fragment for fragment in fragments if fragment)
        if self._call.index is None or not fragments:
            return
        self._call.fragments += fragments
        if not self._told or self._told[-1][:2] != (self._call.index, None):
            self._told.append((self._call.index, None, []))
        self._told[-1][2].extend(fragments)


class Glm47MoeDetector(BaseFormatDetector):
    """The detector of SGLang's `--tool-call-parser glm47`."""

    def __init__(self) -> None:
        super().__init__()
        self.bot_token = CALL
        self.eot_token = CALL_END
        self.tool_call_separator = ""
        self._reader: _Reader | None = None

    def has_tool_call(self, text: str) -> bool:
        """Whether a call begins in the text."""
        return CALL in text

    def detect_and_parse(self, text: str, tools: list[Tool]) -> StreamingParseResult:
        """The whole answer at once; a call that was cut off is none."""
        reader = _Reader(tools)
        normal_text, _ = reader.feed(text)
        calls = [
            ToolCallItem(tool_index=number, name=call.name, parameters=call.json())
            for number, call in enumerate(reader.calls)
            if call.finished
        ]
        return StreamingParseResult(normal_text=normal_text, calls=calls)

    def parse_streaming_increment(self, new_text: str, tools: list[Tool]) -> StreamingParseResult:
        """One more piece of the answer: a call's name once, then its arguments as fragments of JSON."""
        if self._reader is None:
            self._reader = _Reader(tools)
        normal_text, items = self._reader.feed(new_text)
        self._buffer = self._reader.held
        self._tell_the_server(self._reader.calls)
        return StreamingParseResult(normal_text=normal_text, calls=items)

    def _tell_the_server(self, calls: list[_Call]) -> None:
        """Keep what the server looks at when an answer ends: it adds what is missing of the last call's arguments.

        Only finished calls are told, in which it finds nothing missing: half a call, closed by it, would look whole.
        """
        for call in calls[len(self.prev_tool_call_arr) :]:
            if call.finished:
                try:
                    arguments = json.loads(call.json())
                except RecursionError:  # one level too deep: nothing is missing of it either
                    arguments = {}
                self.prev_tool_call_arr.append({"name": call.name, "arguments": arguments})
                self.streamed_args_for_tool.append(call.json())
        self.current_tool_id = len(calls) - 1
        self.current_tool_name_sent = bool(calls) and not calls[-1].finished

    def supports_structural_tag(self) -> bool:
        """No: such tags hold JSON, and GLM's arguments are not written as JSON."""
        return False

    def structure_info(self) -> _GetInfoFunc:
        """Never asked for, see `supports_structural_tag`."""
        raise NotImplementedError("GLM-4.7's calls are no structural tags")

    def build_ebnf(self, tools: list[Tool]) -> str:
        """A grammar of the calls. Only releases that ask for one have the composer."""
        from sglang.srt.function_call.ebnf_composer import EBNFComposer

        grammar: str = EBNFComposer.build_ebnf(
            tools,
            function_format="xml",
            individual_call_start_token=CALL,
            individual_call_end_token=CALL_END,
            tool_call_separator="",
            call_rule_fmt='"{name}" {arguments_rule}',
            key_value_rule_fmt=f'"{KEY}{{key}}{KEY_END}{VALUE}" {{valrule}} "{VALUE_END}"',
            key_value_separator="",
        )
        return grammar


def _beginning_of(text: str, tags: Iterable[str]) -> str:
    """The longest end of the text that one of the tags begins with."""
    for at in range(len(text)):
        if any(tag.startswith(text[at:]) and tag != text[at:] for tag in tags):
            return text[at:]
    return ""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _as_json(text: str, types: frozenset[str] | None, likely: str | None) -> str:
    """A whole value as JSON text. types: the JSON types that it may have, None for any. likely: the first of them."""
    bare = text.strip()
    kind = _kind(bare)
    if types is None:
        return bare if kind else _quoted(text)
    if kind in types and kind != "string":
        return bare
    if likely == "string":
        return _quoted(text)
    for other in _other_spellings(bare, kind):
        if _kind(other) in types:
            return other
    return bare if kind else _quoted(text)


def _kind(text: str) -> str | None:
    """The type of a JSON text; None if it is not JSON as the standard has it."""
    try:
        text.encode()  # half a surrogate pair can't be sent
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _refuse(constant: str) -> Any:
    """NaN and Infinity, which Python would take."""
    raise ValueError(constant)


def _other_spellings(text: str, kind: str | None) -> Iterable[str]:
    """What a value may stand for whose schema allows no string: JSON within quotes, or Python's way to write it."""
    if kind == "string":
        yield json.loads(text).strip()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a bad escape is the model's, and no matter of the server's log
            value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return
    if value is None or isinstance(value, (bool, list, tuple, dict)):
        try:
            yield json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError):
            return
