# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The tool calls in the smoke test's answers: how they are read, and what they must hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union

from ansible_collections.dgx_spark.sglang.plugins.module_utils._smoke import CUT, LOGS, NOT_JSON, Trouble
from ansible_collections.dgx_spark.sglang.plugins.module_utils._smoke_answers import (
    as_mapping,
    as_object,
    as_text,
    objects,
    parse_stream,
    shortened,
)

WEATHER, TIME = "get_weather", "get_time"
CITY, DAYS = "Paris", 3
# What a parser must make of a text that calls them, and of nothing else.
EXACT: Mapping[str, dict[str, object]] = {WEATHER: {"city": CITY, "days": DAYS}, TIME: {}}
# Of all of SGLang's parsers; a model that is read by the wrong one leaves its own here.
MARKUP = re.compile(
    r"</?(?:\w+:)?tool_call|</?arg_(?:key|value)>|<function=|<[|\uff5c](?:tool|python_tag)|\[TOOL_CALLS\]"
)
TEMPLATE = (
    "Check that the server uses the model's own chat template (chat_template.jinja; --chat-template overrides it),"
    " which hands the tools to the model."
)
CHOSEN = (
    "A parser does not choose; the model did. Compare its chat template and its weights with their source, and the"
    " sampling with what the model's makers advise."
)
NO_END = "The model goes on after its call: check eos_token_id in its generation_config.json."


@dataclass(frozen=True)
class Served:
    """How the server was started. Empty names: the server has no such parser."""

    tool_parser: str
    reasoning_parser: str
    random_weights: bool

    @property
    def fit(self) -> str:
        """The mend of a parser that reads calls wrongly."""
        return (
            f"The tool call parser {self.tool_parser} reads this model's calls wrongly. Set --tool-call-parser to the"
            " model's own (glm47 for GLM-4.7, glm45 for GLM-4.5 and 4.6); where the release lacks a good one, the role"
            " parser_patch puts it in."
        )

    @property
    def think(self) -> str:
        """The mend of thoughts that weren't told from the answer."""
        return (
            f"The reasoning parser {self.reasoning_parser} does not find this model's thoughts. Set --reasoning-parser"
            " to the model's own (glm45 for GLM-4.5 to 4.7), and check that its chat template knows enable_thinking."
        )


@dataclass(frozen=True)
class Call:
    """One call as it came. arguments: should be JSON text."""

    name: str
    arguments: object
    id: str | None = None


@dataclass(frozen=True)
class Message:
    """What a model, or its parser alone, gave. whole: False where the parts came in a stream."""

    content: str
    calls: Sequence[Call]
    reasoning: str = ""
    finish_reason: str | None = None
    whole: bool = True

    def __str__(self) -> str:
        """In one line, calls first."""
        parts = [f"{call.name}({call.arguments})" for call in self.calls] or ["no call"]
        parts.append(f"finish_reason {self.finish_reason}")
        if self.content:
            parts.append(f"content {self.content!r}")
        if self.reasoning:
            parts.append(f"reasoning_content {self.reasoning!r}")
        return shortened(", ".join(parts))


Read = Callable[[str, Served], Union[Message, Trouble]]


def read_chat(body: str, served: Served) -> Message | Trouble:
    """The message of a whole chat."""
    document = as_object(body)
    if document is None:
        return Trouble(NOT_JSON)
    choices = objects(document.get("choices"))
    if not choices:
        return Trouble("the answer has no choices")
    message = as_mapping(choices[0].get("message"))
    calls = [(call, as_mapping(call.get("function"))) for call in objects(message.get("tool_calls"))]
    return Message(
        as_text(message.get("content")),
        [Call(as_text(part.get("name")), part.get("arguments"), as_text(call.get("id"))) for call, part in calls],
        as_text(message.get("reasoning_content")),
        as_text(choices[0].get("finish_reason")) or None,
    )


def read_stream(body: str, served: Served) -> Message | Trouble:
    """The message of a stream that came to its end, its calls put together as clients do it."""
    stream = parse_stream(body)
    if stream.problem:
        return Trouble(stream.problem, CUT)
    if not stream.done:
        return Trouble(f"the stream broke off after {stream.chunks} chunks, without [DONE]", CUT)
    calls = []
    for index, pieces in sorted(stream.calls.items()):
        if index < 0:
            return Trouble("a piece of a tool call has no index of 0 or more", served.fit)
        if not pieces.led:
            return Trouble(f"the first piece of tool call {index} does not name the function", served.fit)
        if len(pieces.names) > 1:
            # Clients join names as they join arguments, and would call get_weatherget_weather.
            return Trouble(f"tool call {index} names its function twice: {', '.join(pieces.names)}", served.fit)
        calls.append(Call(pieces.names[0], pieces.arguments, "".join(pieces.ids)))
    return Message(stream.content, calls, stream.reasoning, stream.finish_reason, whole=False)


def read_parsed(body: str, served: Served) -> Message | Trouble:
    """What the parser alone gave; it has neither ids nor a finish_reason."""
    document = as_object(body)
    if document is None:
        return Trouble(NOT_JSON)
    calls = [Call(as_text(call.get("name")), call.get("parameters")) for call in objects(document.get("calls"))]
    return Message(as_text(document.get("normal_text")), calls)


def judge_calls(message: Message, wanted: Sequence[str], served: Served) -> Trouble | None:
    """Exactly the wanted functions were called, with sound arguments, and no markup is left anywhere."""
    if not message.calls:
        return judge_silence(message, served)
    names = [call.name for call in message.calls]
    if len(names) != len(wanted):
        return Trouble(
            f"{len(names)} calls came instead of {len(wanted)}: {', '.join(names)}",
            served.fit if served.random_weights else f"If received shows one call twice: {served.fit} Else: {CHOSEN}",
        )
    if names != list(wanted):
        mend = served.fit if served.random_weights or MARKUP.search("".join(names)) else CHOSEN
        return Trouble(f"it called {', '.join(names)} instead of {', '.join(wanted)}", mend)
    for call in message.calls:
        trouble = judge_arguments(call, message.whole, served)
        if trouble:
            return trouble
    if MARKUP.search(message.content):
        return Trouble(f"the content holds markup of tool calls: {message.content[:80]!r}", served.fit)
    return None


def judge_silence(message: Message, served: Served) -> Trouble:
    """Why no call came."""
    if MARKUP.search(message.content):
        return Trouble(f"no call came, but the content holds its markup: {message.content[:80]!r}", served.fit)
    if served.random_weights:
        return Trouble("the parser found no call in what it was sent", served.fit)
    if MARKUP.search(message.reasoning):
        return Trouble("no call came, but the thoughts hold its markup", served.think)
    if message.finish_reason == "length":
        return Trouble("no call came before max_tokens", f"A model that never ends its thoughts does so. {CHOSEN}")
    return Trouble(f"no call came; the model answered in words: {message.content[:80]!r}", TEMPLATE)


def judge_arguments(call: Call, whole: bool, served: Served) -> Trouble | None:
    """The arguments are what the question asked for, as the text of a JSON object."""
    of = f"the arguments of {call.name}" if whole else f"the joined arguments of {call.name}"
    if not isinstance(call.arguments, str):
        return Trouble(f"{of} are not a text with JSON but {call.arguments!r:.80}", served.fit)
    arguments = as_object(call.arguments)
    if arguments is None:
        return Trouble(f"{of} are not a JSON object: {call.arguments[:80]!r}", served.fit)
    if MARKUP.search(call.arguments):
        return Trouble(f"{of} hold markup of tool calls: {call.arguments[:80]!r}", served.fit)
    if served.random_weights:
        if arguments != EXACT[call.name]:
            return Trouble(f"{of} are {arguments}, not {EXACT[call.name]}", served.fit)
        return None
    return judge_values(call, arguments, f"If the model did give it: {served.fit} Else: {CHOSEN}")


def judge_values(call: Call, arguments: Mapping[str, Any], mend: str) -> Trouble | None:
    """A model may put the city in other words and leave the days out."""
    if call.name == TIME:
        return Trouble(f"{TIME} takes no arguments, but got {arguments}", mend) if arguments else None
    if "city" not in arguments:
        return Trouble(f"the argument city is missing: {arguments}", mend)
    if CITY.lower() not in as_text(arguments["city"]).lower():
        return Trouble(f"the argument city is {arguments['city']!r}, not a text that names {CITY}", mend)
    days = arguments.get("days", DAYS)
    if isinstance(days, bool) or not isinstance(days, int):
        return Trouble(f"the argument days is {days!r}, not an integer", mend)
    return None


def judge_reply(message: Message, served: Served) -> Trouble | None:
    """What a chat has around its calls: ids to answer to, and the right finish_reason."""
    if not all(call.id for call in message.calls):
        return Trouble("a call has no id, so that clients cannot answer it", f"{LOGS}; look for a proxy that drops it.")
    if message.finish_reason == "length":
        return Trouble("finish_reason is length, not tool_calls", NO_END)
    if message.finish_reason != "tool_calls":
        return Trouble(
            f"finish_reason is {message.finish_reason}, not tool_calls",
            f"SGLang itself gives tool_calls with every call: look for a proxy that changes it. {LOGS}.",
        )
    return None


def judge_thoughts(reasoning: str, served: Served) -> Trouble | None:
    """Thoughts came, and the call is no part of them."""
    if not reasoning.strip():
        return Trouble("the thoughts are empty", served.think)
    if MARKUP.search(reasoning):
        return Trouble("the thoughts hold markup of tool calls", served.think)
    return None
