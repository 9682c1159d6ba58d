# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The smoke test's tool calls: what the model is asked to call, and what its calls must hold.

With random weights no model can be asked for a call. The server's own parser is then given the text
that the model would write; it is the same parser, but chat template, weights and stream stay unproved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible_collections.dgx_spark.sglang.plugins.module_utils._http import Answer
from ansible_collections.dgx_spark.sglang.plugins.module_utils._smoke import LOGS, NOT_JSON, Check, Target, Trouble
from ansible_collections.dgx_spark.sglang.plugins.module_utils._smoke_answers import as_object, as_text, shortened
from ansible_collections.dgx_spark.sglang.plugins.module_utils._smoke_calls import (
    CITY,
    DAYS,
    TIME,
    WEATHER,
    Read,
    Served,
    judge_calls,
    judge_reply,
    judge_thoughts,
    read_chat,
    read_parsed,
    read_stream,
)

TITLES = {
    "TOOL_CALL": "a tool is called",
    "TOOL_NO_ARGS": "a tool without arguments is called",
    "TOOL_STREAM": "a tool call is streamed whole",
    "TOOL_THINKING": "a tool is called after thoughts",
}
IDS = tuple(TITLES)
SLOW = f"{LOGS}; a model that thinks for long needs a longer timeout."
LEAVE_OUT = "Leave the checks TOOL_* out: this release cannot try its parser alone."
ASK_WEATHER = f"What is the weather in {CITY} for the next {DAYS} days?"
ASK_TIME = "What time is it now?"
TOKENS, TOKENS_THINKING = 512, 2048
THOUGHT = "The user wants the weather, so I call the tool for it."


def _tool(name: str, description: str, properties: Mapping[str, object], required: Sequence[str]) -> dict[str, object]:
    """One tool in OpenAI's form."""
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [
    _tool(
        WEATHER,
        "Get the weather forecast for a city.",
        {
            "city": {"type": "string", "description": "Name of the city"},
            "days": {"type": "integer", "description": "Number of days from today"},
        },
        ["city"],
    ),
    _tool(TIME, "Get the current time.", {}, []),
]
_LINES = {
    WEATHER: f"<tool_call>{WEATHER}\n<arg_key>city</arg_key>\n<arg_value>{CITY}</arg_value>\n"
    f"<arg_key>days</arg_key>\n<arg_value>{DAYS}</arg_value>\n</tool_call>",
    TIME: f"<tool_call>{TIME}\n</tool_call>",
}
# What a model writes for a call, by the parser that reads it: GLM-4.5 and 4.6 by lines, GLM-4.7 without.
SPOKEN = {
    "glm": _LINES,
    "glm45": _LINES,
    "glm47": {name: text.replace("\n", "") for name, text in _LINES.items()},
}


def _chat(served: Served, name: str, function: str, *, stream: bool = False, think: bool = False) -> Check:
    """The check that asks the model itself for one call."""
    read: Read = read_stream if stream else read_chat

    def judge(answer: Answer, target: Target) -> Trouble | None:
        message = read(answer.body, served)
        if isinstance(message, Trouble):
            return message
        trouble = judge_calls(message, [function], served) or judge_reply(message, served)
        trouble = trouble or (judge_thoughts(message.reasoning, served) if think else None)
        # Not every model that has a parser is made for this.
        return trouble and trouble._replace(mend=f"{trouble.mend or LOGS} Or leave {name} out of smoke_checks.")

    def show(answer: Answer) -> str:
        message = read(answer.body, served)
        return shortened(answer.body) if isinstance(message, Trouble) else str(message)

    chat = {
        "messages": [{"role": "user", "content": ASK_TIME if function == TIME else ASK_WEATHER}],
        # Some models think whatever they are told.
        "max_tokens": TOKENS_THINKING if served.reasoning_parser else TOKENS,
        **({"stream": True} if stream else {}),
        # As the templates of GLM and Qwen name it, and that of DeepSeek-V3.1.
        "chat_template_kwargs": {"enable_thinking": think, "thinking": think},
        "tools": TOOLS,
    }
    return Check(name, TITLES[name], "/v1/chat/completions", judge, SLOW, chat, show=show)


def _title(name: str) -> str:
    """The title of a check that asks the parser alone; that has no stream."""
    what = "two tool calls in a row are read" if name == "TOOL_STREAM" else TITLES[name]
    return f"{what} (the parser alone: random weights)"


def _alone(answer: Answer) -> str:
    """The answer for the table, with the reminder that no model was asked."""
    return f"the parser alone: {shortened(answer.body)}"


def _mends(parser: str, mend: str) -> dict[int, str]:
    """By the status with which a release refuses a parser that it doesn't know: 500 in older ones."""
    unknown = f"The release may not know the parser {parser}, the log would tell. {mend}"
    return {400: unknown, 404: LEAVE_OUT, 422: unknown, 500: unknown}


def _parse(served: Served, name: str, functions: Sequence[str], text: str | None = None) -> Check:
    """The check that gives the parser alone the text of calls, as the model writes it."""

    def judge(answer: Answer, target: Target) -> Trouble | None:
        message = read_parsed(answer.body, served)
        return message if isinstance(message, Trouble) else judge_calls(message, functions, served)

    spoken = "".join(SPOKEN[served.tool_parser][function] for function in functions)
    body = {"text": spoken if text is None else text, "tool_call_parser": served.tool_parser, "tools": TOOLS}
    mends = _mends(served.tool_parser, served.fit)
    return Check(name, _title(name), "/parse_function_call", judge, LOGS, body=body, mends=mends, show=_alone)


def _separate(served: Served, name: str) -> Check:
    """The check that gives both parsers, one after the other, thoughts and a call."""

    def judge(answer: Answer, target: Target) -> Trouble | None:
        document = as_object(answer.body)
        if document is None:
            return Trouble(NOT_JSON)
        thoughts = as_text(document.get("reasoning_text"))
        trouble = judge_thoughts(thoughts, served)
        if trouble is None and thoughts.strip() != THOUGHT:
            return Trouble(f"the thoughts are {thoughts[:80]!r}, not {THOUGHT!r}", served.think)
        return trouble

    def then(answer: Answer) -> Check:
        text = as_text((as_object(answer.body) or {}).get("text"))
        return _parse(served, name, [WEATHER], text)

    text = f"<think>{THOUGHT}</think>{SPOKEN[served.tool_parser][WEATHER]}"
    body = {"text": text, "reasoning_parser": served.reasoning_parser}
    mends = _mends(served.reasoning_parser, served.think)
    return Check(name, _title(name), "/separate_reasoning", judge, LOGS, body=body, mends=mends, show=_alone, then=then)


def checks(served: Served) -> list[Check]:
    """Those that make sense for this server, in a fixed order."""
    if not served.tool_parser or (served.random_weights and served.tool_parser not in SPOKEN):
        return []
    if served.random_weights:
        found = [
            _parse(served, "TOOL_CALL", [WEATHER]),
            _parse(served, "TOOL_NO_ARGS", [TIME]),
            _parse(served, "TOOL_STREAM", [WEATHER, TIME]),
            _separate(served, "TOOL_THINKING"),
        ]
    else:
        found = [
            _chat(served, "TOOL_CALL", WEATHER),
            _chat(served, "TOOL_NO_ARGS", TIME),
            _chat(served, "TOOL_STREAM", WEATHER, stream=True),
            _chat(served, "TOOL_THINKING", WEATHER, think=True),
        ]
    return [check for check in found if served.reasoning_parser or check.id != "TOOL_THINKING"]
