# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The smoke test of an endpoint: what is asked, and what its answers must hold."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

from ansible_collections.dgx_spark.sglang.plugins.module_utils._http import Answer, ask
from ansible_collections.dgx_spark.sglang.plugins.module_utils._smoke_answers import (
    as_object,
    completion_tokens,
    objects,
    parse_metrics,
    parse_stream,
    reason,
    shortened,
)

PROMPT = "Say hello in one short sentence."
LOGS = "Read `journalctl -u sglang-rank` on rank 0"
CUT = f"{LOGS}; if it answers there, look for a proxy that cuts streams."
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

    def ask(self, path: str, payload: object | None = None, *, anonymous: bool = False) -> Answer:
        """One request to the endpoint. anonymous: without the key."""
        return ask(self.url.rstrip("/") + path, self.timeout, payload, None if anonymous else self.api_key)


class Trouble(NamedTuple):
    """What is wrong with an answer. mend: what to do about it, None for the check's own mend."""

    problem: str
    mend: str | None = None


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


def judge_health(answer: Answer, target: Target) -> Trouble | None:
    """/health answered 200."""
    return None


def judge_open(answer: Answer, target: Target) -> Trouble | None:
    """A request without the key was answered."""
    return Trouble("it answers without a key")


def judge_models(answer: Answer, target: Target) -> Trouble | None:
    """/v1/models lists the wanted name, or any name when none is wanted."""
    names = served(answer)
    if not names:
        return Trouble("it lists no model")
    if target.model and target.model not in names:
        return Trouble(f"it serves {', '.join(names)}, not {target.model}")
    return None


def served(answer: Answer) -> list[str]:
    """The model names in an answer of /v1/models."""
    document = as_object(answer.body) or {}
    return [str(model["id"]) for model in objects(document.get("data")) if model.get("id")]


def judge_chat(answer: Answer, target: Target) -> Trouble | None:
    """A chat gave at least one token and says why it stopped."""
    document = as_object(answer.body)
    if document is None:
        return Trouble(NOT_JSON)
    choices = objects(document.get("choices"))
    if not choices:
        return Trouble("the answer has no choices")
    if not isinstance(document.get("usage"), dict):
        return Trouble("the answer has no usage")
    if completion_tokens(document["usage"]) < 1:
        return Trouble("usage names no completion token")
    if not choices[0].get("finish_reason"):
        return Trouble("the answer has no finish_reason")
    return None


def judge_stream(answer: Answer, target: Target) -> Trouble | None:
    """A stream came whole: text, a reason why it stopped, its usage, [DONE]."""
    stream = parse_stream(answer.body)
    tokens = completion_tokens(stream.usage)
    if stream.problem:
        return Trouble(stream.problem)
    if not stream.done:
        return Trouble(f"the stream broke off after {stream.chunks} chunks, without [DONE]")
    if not stream.finish_reason:
        return Trouble("no chunk has a finish_reason")
    if target.stream_usage and tokens < 1:
        return Trouble("the stream has no usage, though it was asked for")
    # A model may end at once, or begin with tokens that are no text; not all of them can be.
    if not stream.text and tokens in (0, target.max_tokens):
        return Trouble("the chunks hold no text")
    return None


def judge_metrics(answer: Answer, target: Target) -> Trouble | None:
    """/metrics has series of SGLang's own."""
    if any(name.startswith("sglang:") for name in parse_metrics(answer.body)):
        return None
    return Trouble("it has no series whose name begins with sglang:")


def show_body(answer: Answer) -> str:
    """The answer as it came, shortened."""
    return shortened(answer.body)


@dataclass(frozen=True)
class Check:
    """One check: where it asks, how it judges a whole 200 answer, how trouble is mended.

    chat: what a chat's request adds to the usual. body: the whole request instead, where it's no chat.
    mends: for refusals, by HTTP status. show: an answer for the table. then: the request that
    follows a good answer and belongs to the same check. refused: ask without the key, and want to be refused.
    """

    id: str
    title: str
    path: str
    judge: Callable[[Answer, Target], Trouble | None]
    mend: str
    chat: Mapping[str, object] | None = None
    body: Mapping[str, object] | None = None
    mends: Mapping[int, str] = field(default_factory=dict)
    show: Callable[[Answer], str] = show_body
    then: Callable[[Answer], Check] | None = None
    refused: bool = False

    def payload(self, target: Target) -> Mapping[str, object] | None:
        """What is posted; None for a GET."""
        if self.chat is None:
            return self.body
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
        "KEY",
        "whoever has no key is refused",
        "/v1/models",
        judge_open,
        "Run site.yml, which gives the server the key; or look for a proxy that adds one.",
        refused=True,
    ),
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
        CUT,
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


def refusal(answer: Answer, check: Check) -> Trouble | None:
    """What keeps an answer from being judged at all, with its mend; None for a 200."""
    if answer.status is None:
        return Trouble(
            str(answer.error),
            "Check that the unit sglang-rank runs, that url is right, no firewall is between and timeout is enough.",
        )
    if answer.status == 200:
        return None
    if answer.status in (401, 403):
        mend = (
            "Give the server's key: cluster_api_key (a new one needs site.yml --tags rank), or api_key of the module."
        )
        return Trouble(f"HTTP {answer.status}, access refused", mend)
    if answer.status == 404:
        return Trouble(f"HTTP 404, {check.path} is not served", check.mends.get(404))
    problem = ": ".join(filter(None, (f"HTTP {answer.status} instead of 200", reason(answer.body))))
    return Trouble(problem, check.mends.get(answer.status, f"{LOGS} and on its peers."))


def judged(check: Check, answer: Answer, target: Target) -> Trouble | None:
    """What is wrong with an answer, always with a mend; None when all is well."""
    if check.refused and answer.status == 401:
        return None
    found = refusal(answer, check)
    if found is None:
        found = check.judge(answer, target)
        if answer.error:
            found = Trouble(f"{found.problem}; {answer.error}" if found else answer.error, found and found.mend)
    return found and Trouble(found.problem, found.mend or check.mend)


def run_check(check: Check, target: Target) -> Result:
    """Ask and judge, until the first trouble; never raises for what a server may do."""
    sent: list[str] = []
    received: list[str] = []
    trouble: Trouble | None = None
    begin = time.monotonic()
    step: Check | None = check
    while step:
        payload = step.payload(target)
        sent.append(f"GET {step.path}" if payload is None else shortened(f"POST {step.path} {json.dumps(payload)}"))
        answer = target.ask(step.path, payload, anonymous=step.refused)
        received.append(step.show(answer))
        trouble = judged(step, answer, target)
        step = step.then(answer) if step.then and not trouble else None
    seconds = round(time.monotonic() - begin, 3)
    problem, mend = trouble or (None, None)
    shown = "; then ".join(sent), "; then ".join(received)
    return Result(check.id, check.title, trouble is None, seconds, *shown, problem, mend)


def run_checks(target: Target, checks: Iterable[Check], wanted: Sequence[str]) -> list[dict[str, object]]:
    """Those of the checks that are wanted, in their order, whatever the earlier ones gave; KEY only with a key."""
    asked = [check for check in checks if check.id in wanted and (target.api_key or not check.refused)]
    return [asdict(run_check(check, target)) for check in asked]


def report(url: str, results: Sequence[Mapping[str, object]]) -> str:
    """The failed checks as one text, each with its mend."""
    failed = [result for result in results if not result["ok"]]
    lines = [f"{url}: {len(failed)} of {len(results)} smoke checks failed."]
    for result in failed:
        lines.append(f"{result['id']}, {result['title']}: {result['problem']}")
        lines.append(f"  Mend: {result['mend']}")
    return "\n".join(lines)
