# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The smoke test's tool calls against a server that calls tools rightly, and wrongly in every way we can think of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _smoke, _smoke_tools
from ansible_collections.dgx_spark.sglang.plugins.module_utils._smoke_calls import MARKUP, Served
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc
from ansible_collections.dgx_spark.sglang.tests.unit.endpoint import DONE, END, USAGE, Reply, event, piece, serving

PARIS = '{"city": "Paris, France", "days": 3}'
SPOKEN = (
    "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value>"
    "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>"
)
SPOKEN_BY_LINES = (
    "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n"
    "<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>"
)
REAL = Served("glm47", "glm45", random_weights=False)
RANDOM = Served("glm47", "glm45", random_weights=True)


def called(name: str | None, arguments: object, index: int | None = -1, id_: str | None = "call_1") -> dict[str, Any]:
    """One entry of tool_calls; SGLang's GLM detectors give -1 as index where nothing is streamed."""
    return {"id": id_, "index": index, "type": "function", "function": {"name": name, "arguments": arguments}}


def said(*calls: dict[str, Any], reason: str = "tool_calls", **message: Any) -> Reply:
    """A whole chat."""
    message = {"role": "assistant", "content": None, "reasoning_content": None, "tool_calls": [*calls], **message}
    return 200, json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": USAGE})


def streamed(*calls: dict[str, Any], content: str = "", reason: str = "tool_calls", end: str = END + DONE) -> Reply:
    """A stream, with one event for each piece of a call."""
    events = [event(piece("")), event(piece(content)) if content else ""]
    for call in calls:
        events.append(event({"choices": [{"index": 0, "delta": {"content": None, "tool_calls": [call]}}]}))
    return 200, "".join([*events, event(piece(None, reason)), end])


def begun(name: str | None = "get_weather", arguments: str = "", index: int | None = 0) -> dict[str, Any]:
    """The first piece of a streamed call."""
    return called(name, arguments, index)


def more(arguments: str, index: int | None = 0, name: str | None = None) -> dict[str, Any]:
    """A further piece."""
    return called(name, arguments, index, None)


WEATHER = said(called("get_weather", PARIS))
TIME = said(called("get_time", "{}"), content="")
STREAM = streamed(begun(), more('{"city": "Pa'), more('ris", "days": '), more("3}"))
THINKING = said(called("get_weather", PARIS), reasoning_content="Paris, 3 days.\n")


def model(**changes: Reply) -> Callable[[dict[str, Any]], Reply]:
    """A model that calls the right tool, but for the changes, by check."""

    def answer(payload: dict[str, Any]) -> Reply:
        if payload.get("stream"):
            name = "TOOL_STREAM"
        elif payload["chat_template_kwargs"]["enable_thinking"]:
            name = "TOOL_THINKING"
        else:
            name = "TOOL_CALL" if "Paris" in payload["messages"][0]["content"] else "TOOL_NO_ARGS"
        good = {"TOOL_CALL": WEATHER, "TOOL_NO_ARGS": TIME, "TOOL_STREAM": STREAM, "TOOL_THINKING": THINKING}
        return {**good, **changes}[name]

    return answer


def parse(payload: dict[str, Any]) -> Reply:
    """A plain GLM parser: by lines as glm and glm45 read, without them as glm47 does."""
    line = "" if payload["tool_call_parser"] == "glm47" else "\n"
    calls = []
    for name, rest in re.findall(rf"<tool_call>(\w+){line}((?:<arg_key>.*?)?)</tool_call>", payload["text"], re.DOTALL):
        pairs = re.findall(rf"<arg_key>(\w+)</arg_key>{line}<arg_value>(.*?)</arg_value>{line}", rest)
        arguments = {key: int(value) if value.isdigit() else value for key, value in pairs}
        calls.append({"tool_index": -1, "name": name, "parameters": json.dumps(arguments)})
    return 200, json.dumps({"normal_text": "" if calls else payload["text"], "calls": calls})


def separate(payload: dict[str, Any]) -> Reply:
    """A plain parser of thoughts."""
    thoughts, _, text = payload["text"].replace("<think>", "").partition("</think>")
    return 200, json.dumps({"reasoning_text": thoughts, "text": text})


def checks(served: Served, **answers: Any) -> dict[str, dict[str, Any]]:
    """The tool checks against a server with these answers, by their id."""
    good = {"tools": model(), "/parse_function_call": parse, "/separate_reasoning": separate}
    with serving(answers={**good, **answers}) as (url, handler):
        target = _smoke.Target(url, "glm-tiny", 10, None, 16, stream_usage=True)
        results = _smoke.run_checks(target, _smoke_tools.checks(served), _smoke_tools.IDS)
        found: dict[str, dict[str, Any]] = {str(result["id"]): result for result in results}
        for result in found.values():
            result["requests"] = handler.seen
    return found


def one_failed(results: dict[str, dict[str, Any]], check: str) -> dict[str, Any]:
    """The result of the only check that failed."""
    assert [name for name, result in results.items() if not result["ok"]] == [check]
    return results[check]


def test_right_calls() -> None:
    """A model that calls rightly passes; the question, the tools and the room for thoughts are sent."""
    results = checks(REAL)
    assert list(results) == ["TOOL_CALL", "TOOL_NO_ARGS", "TOOL_STREAM", "TOOL_THINKING"]
    assert [result["problem"] for result in results.values()] == [None] * 4
    call, no_args, stream, thinking = results["TOOL_CALL"]["requests"]
    assert [request["chat_template_kwargs"]["enable_thinking"] for request in (call, no_args, stream, thinking)] == [
        False,
        False,
        False,
        True,
    ]
    # A model that has a reasoning parser may think whatever it is told.
    assert [request["max_tokens"] for request in (call, thinking)] == [2048, 2048]
    assert all(
        request["chat_template_kwargs"]["thinking"] is request["chat_template_kwargs"]["enable_thinking"]
        for request in (call, thinking)
    )
    assert call["temperature"] == 0
    assert call["model"] == "glm-tiny"
    assert "stream" not in call
    assert stream["stream"] is True
    functions = {tool["function"]["name"]: tool["function"]["parameters"] for tool in call["tools"]}
    assert functions["get_weather"]["required"] == ["city"]
    assert functions["get_time"] == {"type": "object", "properties": {}, "required": []}
    assert results["TOOL_CALL"]["received"] == f"get_weather({PARIS}), finish_reason tool_calls"
    assert results["TOOL_STREAM"]["received"].startswith('get_weather({"city": "Paris", "days": 3})')
    assert "Paris, 3 days." in results["TOOL_THINKING"]["received"]
    assert all(len(result["sent"]) <= 300 for result in results.values())


@pytest.mark.parametrize("city", ['{"city": "paris"}', '{"city": "Paris (FR)", "days": 0, "unit": "C"}'])
def test_a_model_may_choose_its_words(city: str) -> None:
    """Days may be left out, and the city may be named otherwise."""
    results = checks(REAL, tools=model(TOOL_CALL=said(called("get_weather", city), content="I look.")))
    assert results["TOOL_CALL"]["ok"]


@pytest.mark.parametrize("index", [-1, 0, 7, None])
def test_a_whole_call_needs_no_index(index: int | None) -> None:
    """Nothing has to be put together where nothing is streamed."""
    results = checks(REAL, tools=model(TOOL_CALL=said(called("get_weather", PARIS, index))))
    assert results["TOOL_CALL"]["ok"]


def test_calls_in_a_piece_each() -> None:
    """A detector may stream a call at once, as glm45 does."""
    results = checks(REAL, tools=model(TOOL_STREAM=streamed(begun("get_weather", PARIS), content="I look. ")))
    assert results["TOOL_STREAM"]["ok"]


PARSER = ("--tool-call-parser", "parser_patch")
REASONING = ("--reasoning-parser", "enable_thinking")
BAD: list[tuple[str, Reply, str, tuple[str, ...]]] = [
    ("TOOL_CALL", (200, "[]"), "not a JSON object", ("journalctl",)),
    ("TOOL_CALL", (200, "{}"), "no choices", ("journalctl",)),
    ("TOOL_CALL", (400, '{"message": "bad template"}'), "HTTP 400 instead of 200: bad template", ("journalctl",)),
    ("TOOL_CALL", said(content=SPOKEN), "no call came, but the content holds its markup: '<tool_call>get_we", PARSER),
    ("TOOL_CALL", said(content="It is sunny.", reason="stop"), "answered in words: 'It is sunny.'", ("chat template",)),
    ("TOOL_CALL", said(content="Well ", reason="length"), "no call came before max_tokens", ("thoughts", "weights")),
    ("TOOL_CALL", said(called("get_time", "{}")), "called get_time instead of get_weather", ("weights",)),
    ("TOOL_CALL", said(called("get_weather</arg_key>", PARIS)), "called get_weather</arg_key> instead", PARSER),
    ("TOOL_CALL", said(*[called("get_weather", PARIS)] * 2), "2 calls came instead of 1: get_weather, get_w", PARSER),
    ("TOOL_CALL", said(called("get_weather", '{"city": ')), "get_weather are not a JSON object: '{\"city\": '", PARSER),
    ("TOOL_CALL", said(called("get_weather", '["Paris"]')), "arguments of get_weather are not a JSON object", PARSER),
    ("TOOL_CALL", said(called("get_weather", "")), "arguments of get_weather are not a JSON object", PARSER),
    ("TOOL_CALL", said(called("get_weather", {"city": "Paris"})), "are not a text with JSON but {'city'", PARSER),
    ("TOOL_CALL", said(called("get_weather", '{"days": 3}')), "argument city is missing: {'days': 3}", PARSER),
    (
        "TOOL_CALL",
        said(called("get_weather", '{"city": "Rome"}')),
        "city is 'Rome', not a text that names Paris",
        PARSER,
    ),
    ("TOOL_CALL", said(called("get_weather", '{"city": ["Paris"]}')), "city is ['Paris'], not a text", PARSER),
    ("TOOL_CALL", said(called("get_weather", '{"city": "Paris", "days": "3"}')), "days is '3', not an int", PARSER),
    ("TOOL_CALL", said(called("get_weather", '{"city": "Paris", "days": true}')), "days is True, not an int", PARSER),
    (
        "TOOL_CALL",
        said(called("get_weather", '{"city": "Paris</arg_value>"}')),
        "arguments of get_weather hold ma",
        PARSER,
    ),
    ("TOOL_CALL", said(called("get_weather", PARIS), content="</tool_call>"), "content holds markup", PARSER),
    ("TOOL_CALL", said(called("get_weather", PARIS), reason="stop"), "finish_reason is stop, not tool", ("proxy",)),
    ("TOOL_CALL", said(called("get_weather", PARIS), reason="length"), "finish_reason is length", ("eos_token_id",)),
    ("TOOL_CALL", said(called("get_weather", PARIS, id_=None)), "a call has no id", ("proxy",)),
    ("TOOL_NO_ARGS", said(called("get_time", '{"zone": "UTC"}')), "get_time takes no arguments, but", PARSER),
    ("TOOL_NO_ARGS", said(called("get_time", "null")), "arguments of get_time are not a JSON object", PARSER),
    ("TOOL_STREAM", streamed(begun("get_weather", PARIS), end=END), "broke off after 4 chunks, without", ("proxy",)),
    ("TOOL_STREAM", (200, event({"error": {"message": "oom"}}) + DONE), "the server sent an error", ("journalctl",)),
    ("TOOL_STREAM", streamed(content=SPOKEN, reason="stop"), "no call came, but the content holds", PARSER),
    ("TOOL_STREAM", streamed(begun(), more(PARIS, name="get_weather")), "twice: get_weather, get_weather", PARSER),
    (
        "TOOL_STREAM",
        streamed(begun(None), more(PARIS, name="get_weather")),
        "first piece of tool call 0 does n",
        PARSER,
    ),
    ("TOOL_STREAM", streamed(begun(None, PARIS)), "first piece of tool call 0 does not name", PARSER),
    ("TOOL_STREAM", streamed(begun(), more(PARIS[:20])), "the joined arguments of get_weather are not a JSON", PARSER),
    ("TOOL_STREAM", streamed(begun(), more(PARIS), more("}")), "joined arguments of get_weather are not a", PARSER),
    ("TOOL_STREAM", streamed(begun(), more(PARIS, 1)), "first piece of tool call 1 does not name", PARSER),
    ("TOOL_STREAM", streamed(begun(index=-1), more(PARIS, -1)), "no index of 0 or more", PARSER),
    ("TOOL_STREAM", streamed(begun(index=None), more(PARIS, None)), "no index of 0 or more", PARSER),
    ("TOOL_STREAM", streamed(begun("get_weather", PARIS), begun("get_time", "{}", 1)), "2 calls came inst", PARSER),
    ("TOOL_STREAM", streamed(more(PARIS, name="get_weather")), "a call has no id", ("proxy",)),
    ("TOOL_STREAM", streamed(begun("get_weather", PARIS), reason="stop"), "finish_reason is stop", ("proxy",)),
    ("TOOL_STREAM", streamed(begun("get_weather", PARIS), content="</tool_call>"), "content holds markup", PARSER),
    ("TOOL_THINKING", WEATHER, "the thoughts are empty", REASONING),
    ("TOOL_THINKING", said(called("get_weather", PARIS), reasoning_content=" \n"), "thoughts are empty", REASONING),
    ("TOOL_THINKING", said(reasoning_content=SPOKEN, reason="stop"), "but the thoughts hold its markup", REASONING),
    ("TOOL_THINKING", said(called("get_weather", PARIS), reasoning_content="<tool_call>"), "hold markup", REASONING),
]


@pytest.mark.parametrize(("check", "reply", "words", "mend"), BAD)
def test_one_wrong_answer(check: str, reply: Reply, words: str, mend: tuple[str, ...]) -> None:
    """The check that it concerns names what is wrong and what mends it; all others pass."""
    failed = one_failed(checks(REAL, tools=model(**{check: reply})), check)
    assert words in failed["problem"]
    for word in mend:
        assert word in failed["mend"]


def test_the_mend_blames_the_model_where_the_parser_is_sound() -> None:
    """A parser chooses no function."""
    failed = one_failed(checks(REAL, tools=model(TOOL_CALL=said(called("get_time", "{}")))), "TOOL_CALL")
    assert "--tool-call-parser" not in failed["mend"]
    # Not every model that has a parser is made for the question.
    assert failed["mend"].endswith("Or leave TOOL_CALL out of smoke_checks.")


LEFT_OUT: list[tuple[Served, list[str]]] = [
    (Served("", "glm45", random_weights=False), []),
    (Served("", "glm45", random_weights=True), []),
    (Served("glm47", "", random_weights=False), ["TOOL_CALL", "TOOL_NO_ARGS", "TOOL_STREAM"]),
    (Served("glm47", "", random_weights=True), ["TOOL_CALL", "TOOL_NO_ARGS", "TOOL_STREAM"]),
    (Served("qwen25", "qwen3", random_weights=False), list(_smoke_tools.IDS)),
    (Served("qwen25", "qwen3", random_weights=True), []),
]


@pytest.mark.parametrize(("served", "ids"), LEFT_OUT)
def test_left_out(served: Served, ids: list[str]) -> None:
    """What a server has no parser for isn't asked."""
    assert [check.id for check in _smoke_tools.checks(served)] == ids


@pytest.mark.parametrize("parser", ["glm47", "glm45", "glm"])
def test_the_parser_alone(parser: str) -> None:
    """With random weights the parsers get what the model would write; title and answer say so."""
    results = checks(Served(parser, "glm45", random_weights=True), tools=(500, "no model is asked"))
    assert [result["problem"] for result in results.values()] == [None] * 4
    for result in results.values():
        assert "the parser alone: random weights" in result["title"]
        assert result["received"].startswith("the parser alone: {")
    requests = results["TOOL_CALL"]["requests"]
    assert len(requests) == 5
    assert all(request.get("tool_call_parser", parser) == parser for request in requests)
    assert requests[0]["text"] == (SPOKEN if parser == "glm47" else SPOKEN_BY_LINES)
    assert requests[2]["text"].count("<tool_call>") == 2
    assert requests[3]["reasoning_parser"] == "glm45"
    assert requests[4]["text"] == requests[0]["text"]
    assert "; then POST /parse_function_call" in results["TOOL_THINKING"]["sent"]
    assert "; then the parser alone: " in results["TOOL_THINKING"]["received"]


def found(*calls: tuple[str, str], text: str = "") -> Reply:
    """An answer of the endpoint that parses."""
    items = [{"tool_index": -1, "name": name, "parameters": parameters} for name, parameters in calls]
    return 200, json.dumps({"normal_text": text, "calls": items})


EXACT = ("get_weather", '{"city": "Paris", "days": 3}')
BAD_ALONE: list[tuple[Reply, str, tuple[str, ...]]] = [
    ((404, "{}"), "HTTP 404, /parse_function_call is not served", ("Leave", "TOOL_*")),
    ((400, '{"message": "Unsupported tool_call_parser: glm47"}'), "HTTP 400 instead of 200: Unsupported", PARSER),
    ((500, "Internal Server Error"), "HTTP 500 instead of 200", ("may not know the parser glm47", *PARSER)),
    ((503, ""), "HTTP 503 instead of 200", ("journalctl",)),
    ((200, "null"), "not a JSON object", ("journalctl",)),
    (found(), "found no call", PARSER),
    (found(text=SPOKEN), "no call came, but the content holds its markup", PARSER),
    (found(("get_time", "{}")), "called get_time instead of get_weather", PARSER),
    (found(EXACT, EXACT), "2 calls came instead of 1", PARSER),
    (found(EXACT, text="</tool_call>"), "content holds markup", PARSER),
    (found(("get_weather", '{"city": "Paris"}')), "are {'city': 'Paris'}, not {'city': 'Paris', 'days': 3}", PARSER),
    (found(("get_weather", '{"city": "Paris", "days": "3"}')), "'days': '3'}, not", PARSER),
    (found(("get_weather", '{"city": "Paris, France", "days": 3}')), "'Paris, France', 'days': 3}, not", PARSER),
    (found(("get_weather", "{")), "not a JSON object", PARSER),
]


@pytest.mark.parametrize(("reply", "words", "mend"), BAD_ALONE)
def test_a_parser_that_reads_wrongly(reply: Reply, words: str, mend: tuple[str, ...]) -> None:
    """Alone, a parser must find exactly what it was given."""

    def answer(payload: dict[str, Any]) -> Reply:
        return reply if payload["text"] == SPOKEN else parse(payload)

    results = checks(Served("glm47", "", random_weights=True), **{"/parse_function_call": answer})
    failed = one_failed(results, "TOOL_CALL")
    assert words in failed["problem"]
    for word in mend:
        assert word in failed["mend"]


def test_a_parser_that_loses_the_second_call() -> None:
    """Two calls in a row are two."""

    def answer(payload: dict[str, Any]) -> Reply:
        return found(EXACT) if payload["text"].count("<tool_call>") == 2 else parse(payload)

    failed = one_failed(checks(RANDOM, **{"/parse_function_call": answer}), "TOOL_STREAM")
    assert "1 calls came instead of 2: get_weather" in failed["problem"]


BAD_THOUGHTS: list[tuple[Reply, str, tuple[str, ...]]] = [
    ((404, ""), "HTTP 404, /separate_reasoning is not served", ("Leave",)),
    ((500, ""), "HTTP 500", ("may not know the parser glm45", "--reasoning-parser")),
    ((200, "no"), "not a JSON object", ("journalctl",)),
    ((200, json.dumps({"reasoning_text": "", "text": SPOKEN})), "thoughts are empty", REASONING),
    ((200, json.dumps({"reasoning_text": None, "text": SPOKEN})), "thoughts are empty", REASONING),
    ((200, json.dumps({"reasoning_text": "Hm." + SPOKEN, "text": ""})), "thoughts hold markup", REASONING),
    ((200, json.dumps({"reasoning_text": "The user", "text": SPOKEN})), "thoughts are 'The user', not", REASONING),
    ((200, json.dumps({"reasoning_text": _smoke_tools.THOUGHT, "text": None})), "found no call", PARSER),
]


@pytest.mark.parametrize(("reply", "words", "mend"), BAD_THOUGHTS)
def test_thoughts_that_are_not_told_apart(reply: Reply, words: str, mend: tuple[str, ...]) -> None:
    """The parser of thoughts comes first, what it leaves goes on."""
    failed = one_failed(checks(RANDOM, **{"/separate_reasoning": reply}), "TOOL_THINKING")
    assert words in failed["problem"]
    for word in mend:
        assert word in failed["mend"]


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>", "</tool_call", "<arg_key>", "</arg_value>", "<function=get_time>", "<minimax:tool_call>",
        "<|tool_calls_section_begin|>", "<\uff5ctool\u2581calls\u2581begin\uff5c>", "[TOOL_CALLS] [", "<|python_tag|>",
    ],
)  # fmt: skip
def test_markup(text: str) -> None:
    """Of every parser that SGLang has."""
    assert MARKUP.search(f"I look {text}")


@pytest.mark.parametrize("text", ["a < b", "call a tool: <b>", "tool_calls", "the function = f", "[1]"])
def test_no_markup(text: str) -> None:
    """Plain words aren't."""
    assert not MARKUP.search(text)


def test_module(tmp_path: Path) -> None:
    """The real module: tool checks run by default where a parser is named, and tell their mend."""
    wrong = model(TOOL_CALL=said(content=SPOKEN, reason="stop"))
    with serving(answers={"tools": wrong}) as (url, _):
        arguments = {"url": url, "timeout": 10, "tool_parser": "glm45", "reasoning_parser": "glm45"}
        failed = adhoc.run(tmp_path, "smoke_test", arguments).result
        assert failed["failed"]
        assert "1 of 9" in failed["msg"]
        assert "Mend: The tool call parser glm45 reads" in failed["msg"]
        few = {**arguments, "checks": ["TOOL_NO_ARGS", "HEALTH"]}
        passed = adhoc.run(tmp_path, "smoke_test", few).result
        assert [check["id"] for check in passed["checks"]] == ["HEALTH", "TOOL_NO_ARGS"]
    with serving(answers={"/parse_function_call": parse}) as (url, _):
        few = {"url": url, "checks": ["TOOL_CALL", "TOOL_THINKING"], "tool_parser": "glm47", "random_weights": True}
        passed = adhoc.run(tmp_path, "smoke_test", few).result
        assert passed["ok"]
        assert [check["title"] for check in passed["checks"]] == ["a tool is called (the parser alone: random weights)"]
