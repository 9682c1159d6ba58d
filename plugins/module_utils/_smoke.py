# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The smoke test of an endpoint: what is asked, and what its answers must hold."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._http import Answer, ask

SHOWN = 300
PROMPT = "Say hello in one short sentence."
LOGS = "Read `journalctl -u sglang-rank` on rank 0"
NOT_JSON = "the answer is not a JSON object"


@dataclass(frozen=True)
class Target:
    """The endpoint. url: without a path. model: the name it must serve, None for the first one.

    timeout: seconds for each request. stream_usage: whether a stream must end with its usage.
    """

    url: str
    model: str | None
    timeout: float
    api_key: str | None
    max_tokens: int
    stream_usage: bool

    def ask(self, path: str, payload: object | None = None) -> Answer:
        """One request to the endpoint."""
        return ask(self.url.rstrip("/") + path, self.timeout, payload, self.api_key)


@dataclass(frozen=True)
class Result:
    """One check's outcome, in the form that the module returns."""

    id: str
    title: str
    ok: bool
    seconds: float
    sent: str
    received: str
    problem: str | None
    mend: str | None


@dataclass
class Stream:
    """A parsed stream of server-sent events.

    text: all pieces of the answer, thoughts included. chunks: events with JSON. done: whether it
    ended in [DONE]. problem: what could not be parsed.
    """

    text: str = ""
    chunks: int = 0
    done: bool = False
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    problem: str | None = None


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
            for part in ("reasoning_content", "content"):
                if isinstance(delta.get(part), str):
                    stream.text += delta[part]
        stream.finish_reason = choice.get("finish_reason") or stream.finish_reason


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


def completion_tokens(usage: object) -> int:
    """The number of generated tokens that a usage object names, 0 when it names none."""
    count = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) else 0


def shortened(text: str) -> str:
    """An answer as one short line."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 4]} ..."


def judge_health(answer: Answer, target: Target) -> str | None:
    """/health answered 200."""
    return None


def judge_models(answer: Answer, target: Target) -> str | None:
    """/v1/models lists the wanted name, or any name when none is wanted."""
    names = served(answer)
    if not names:
        return "it lists no model"
    if target.model and target.model not in names:
        return f"it serves {', '.join(names)}, not {target.model}"
    return None


def served(answer: Answer) -> list[str]:
    """The model names in an answer of /v1/models."""
    document = as_object(answer.body) or {}
    return [str(model["id"]) for model in objects(document.get("data")) if model.get("id")]


def judge_chat(answer: Answer, target: Target) -> str | None:
    """A chat gave at least one token and says why it stopped."""
    document = as_object(answer.body)
    if document is None:
        return NOT_JSON
    choices = objects(document.get("choices"))
    if not choices:
        return "the answer has no choices"
    if not isinstance(document.get("usage"), dict):
        return "the answer has no usage"
    if completion_tokens(document["usage"]) < 1:
        return "usage names no completion token"
    if not choices[0].get("finish_reason"):
        return "the answer has no finish_reason"
    return None


def judge_stream(answer: Answer, target: Target) -> str | None:
    """A stream came whole: text, a reason why it stopped, its usage, [DONE]."""
    stream = parse_stream(answer.body)
    tokens = completion_tokens(stream.usage)
    if stream.problem:
        return stream.problem
    if not stream.done:
        return f"the stream broke off after {stream.chunks} chunks, without [DONE]"
    if not stream.finish_reason:
        return "no chunk has a finish_reason"
    if target.stream_usage and tokens < 1:
        return "the stream has no usage, though it was asked for"
    # A model may end at once, or begin with tokens that are no text; not all of them can be.
    if not stream.text and tokens in (0, target.max_tokens):
        return "the chunks hold no text"
    return None


def judge_metrics(answer: Answer, target: Target) -> str | None:
    """/metrics has series of SGLang's own."""
    if any(name.startswith("sglang:") for name in parse_metrics(answer.body)):
        return None
    return "it has no series whose name begins with sglang:"


@dataclass(frozen=True)
class Check:
    """One check: where it asks, how it judges a whole 200 answer, how trouble is mended."""

    id: str
    title: str
    path: str
    judge: Callable[[Answer, Target], str | None]
    mend: str
    chat: dict[str, object] | None = field(default=None)

    def payload(self, target: Target) -> dict[str, object] | None:
        """What is posted; None for a GET."""
        if self.chat is None:
            return None
        return {
            "model": target.model or "default",
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": target.max_tokens,
            "temperature": 0,
            **self.chat,
        }


CHECKS = (
    Check("HEALTH", "the server is healthy", "/health", judge_health, f"{LOGS} and on its peers."),
    Check(
        "MODELS",
        "the model is served under its name",
        "/v1/models",
        judge_models,
        "Set cluster_model and --served-model-name to the name that clients use.",
    ),
    Check(
        "CHAT",
        "a chat is answered",
        "/v1/chat/completions",
        judge_chat,
        f"{LOGS}; a chat that hangs means that a peer is frozen or cut off.",
        {},
    ),
    Check(
        "STREAM",
        "a chat is streamed to its end",
        "/v1/chat/completions",
        judge_stream,
        f"{LOGS}; if it answers there, look for a proxy that cuts streams.",
        {"stream": True, "stream_options": {"include_usage": True}},
    ),
    Check(
        "METRICS",
        "metrics are exported",
        "/metrics",
        judge_metrics,
        "Start the server with --enable-metrics, or leave METRICS out of checks.",
    ),
)
IDS = tuple(check.id for check in CHECKS)


def refusal(answer: Answer, check: Check) -> tuple[str, str] | None:
    """What keeps an answer from being judged at all, with its mend; None for a 200."""
    if answer.status is None:
        return (
            str(answer.error),
            "Check that the unit sglang-rank runs, that url is right and no firewall is between.",
        )
    if answer.status in (401, 403):
        return f"HTTP {answer.status}, access refused", "Give the server's key in api_key."
    if answer.status == 404:
        return f"HTTP 404, {check.path} is not served", check.mend
    if answer.status != 200:
        return f"HTTP {answer.status} instead of 200", f"{LOGS} and on its peers."
    return None


def run_check(check: Check, target: Target) -> Result:
    """Ask and judge; never raises for what a server may do."""
    payload = check.payload(target)
    sent = f"GET {check.path}" if payload is None else f"POST {check.path} {json.dumps(payload)}"
    begin = time.monotonic()
    answer = target.ask(check.path, payload)
    seconds = round(time.monotonic() - begin, 3)
    problem, mend = refusal(answer, check) or (None, None)
    if problem is None:
        found = check.judge(answer, target)
        if found or answer.error:
            problem = "; ".join(filter(None, (found, answer.error)))
            mend = check.mend
    received = shortened(answer.body)
    ok = problem is None
    return Result(check.id, check.title, ok, seconds, sent, received, problem, mend)


def run_checks(target: Target, wanted: Sequence[str]) -> list[dict[str, object]]:
    """All wanted checks in their fixed order, whatever the earlier ones gave."""
    return [asdict(run_check(check, target)) for check in CHECKS if check.id in wanted]


def report(url: str, results: Sequence[Mapping[str, object]]) -> str:
    """The failed checks as one text, each with its mend."""
    failed = [result for result in results if not result["ok"]]
    lines = [f"{url}: {len(failed)} of {len(results)} smoke checks failed."]
    for result in failed:
        lines.append(f"{result['id']}, {result['title']}: {result['problem']}")
        lines.append(f"  Mend: {result['mend']}")
    return "\n".join(lines)
