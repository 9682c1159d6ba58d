# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What the answers of an endpoint hold, read without trust in their shape."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SHOWN = 300


@dataclass
class Pieces:
    """One tool call of a stream.

    names, ids: all that its pieces gave. led: whether its first piece had the name. arguments: joined.
    """

    names: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    led: bool = False
    arguments: str = ""


@dataclass
class Stream:
    """A parsed stream of server-sent events.

    reasoning, content: joined. calls: by their index, -1 for one without a whole number as index.
    chunks: events with JSON. done: whether it ended in [DONE]. problem: what could not be parsed.
    """

    reasoning: str = ""
    content: str = ""
    calls: dict[int, Pieces] = field(default_factory=dict)
    chunks: int = 0
    done: bool = False
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    problem: str | None = None

    @property
    def text(self) -> str:
        """Thoughts and answer."""
        return self.reasoning + self.content


def parse_stream(body: str) -> Stream:
    """Read a chat completion stream; it stops at the first event that isn't what it should be."""
    stream = Stream()
    for event in re.split(r"\r?\n\r?\n", body):
        data = "\n".join(line[5:].lstrip(" ") for line in event.splitlines() if line.startswith("data:"))
        if not data:
            continue
        if stream.done:
            stream.problem = "an event came after [DONE]"
            return stream
        if data == "[DONE]":
            stream.done = True
            continue
        chunk = as_object(data)
        if chunk is None:
            stream.problem = f"event {stream.chunks + 1} is not a JSON object: {data[:60]!r}"
            return stream
        if chunk.get("error"):
            stream.problem = f"the server sent an error: {str(chunk['error'])[:200]}"
            return stream
        stream.chunks += 1
        _take(stream, chunk)
    return stream


def _take(stream: Stream, chunk: Mapping[str, Any]) -> None:
    """Add one chunk to the stream."""
    if isinstance(chunk.get("usage"), dict):
        stream.usage = chunk["usage"]
    for choice in objects(chunk.get("choices")):
        delta = choice.get("delta")
        if isinstance(delta, dict):
            stream.reasoning += as_text(delta.get("reasoning_content"))
            stream.content += as_text(delta.get("content"))
            for piece in objects(delta.get("tool_calls")):
                _take_call(stream, piece)
        stream.finish_reason = choice.get("finish_reason") or stream.finish_reason


def _take_call(stream: Stream, piece: Mapping[str, Any]) -> None:
    """Add one piece of a tool call to the stream."""
    index = piece.get("index")
    first = Pieces()
    pieces = stream.calls.setdefault(index if isinstance(index, int) else -1, first)
    function = as_mapping(piece.get("function"))
    name = as_text(function.get("name"))
    if name:
        pieces.names.append(name)
        pieces.led = pieces.led or pieces is first
    if piece.get("id"):
        pieces.ids.append(str(piece["id"]))
    pieces.arguments += as_text(function.get("arguments"))


def parse_metrics(text: str) -> dict[str, list[float]]:
    """Series of Prometheus' text form: name -> values of its samples; other lines are passed."""
    series: dict[str, list[float]] = {}
    for line in text.splitlines():
        found = re.match(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})?[ \t]+(\S+)", line)
        if found:
            try:
                value = float(found.group(2))
            except ValueError:
                continue
            series.setdefault(found.group(1), []).append(value)
    return series


def as_object(text: str) -> dict[str, Any] | None:
    """The text as a JSON object, None when it isn't one."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in a JSON array; none when it's something else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def as_mapping(value: object) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_text(value: object) -> str:
    """The value if it is a text; null and all else are an empty one."""
    return value if isinstance(value, str) else ""


def completion_tokens(usage: object) -> int:
    """The number of generated tokens that a usage object names, 0 when it names none."""
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else 0


def shortened(text: str) -> str:
    """An answer as one short line."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 4]} ..."


def reason(text: str) -> str:
    """What a server says of its refusal, in SGLang's form or OpenAI's; empty if it says nothing."""
    document = as_object(text) or {}
    said = as_text(document.get("message")) or as_text(as_mapping(document.get("error")).get("message"))
    return shortened(said)
