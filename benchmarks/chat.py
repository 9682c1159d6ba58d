"""Asks a running endpoint one question: `python3 -m benchmarks.chat URL [QUESTION]`.

Standard library only. Prints the endpoint, the model, the answer and how long it took; exits with 1
and a sentence when there is no answer. The key of an API that wants one is taken from SGLANG_API_KEY.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

KEY = "SGLANG_API_KEY"
"""The variable of the environment with the key: an argument would stand in the list of processes."""
QUESTION = "Say hello to four DGX Sparks."


class NoAnswerError(Exception):
    """The endpoint gave no answer; the text says what was asked and what came back."""


@dataclass(frozen=True)
class Answer:
    """One chat completion: the model's id, its text, the number of new tokens, the seconds."""

    model: str
    text: str
    tokens: int
    seconds: float


def fetch(url: str, timeout: float, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON object at `url` (a POST when there is a body).

    Waits at most `timeout` seconds. Raises NoAnswerError for a refused connection, an HTTP error
    or a reply that is no JSON object.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    if os.environ.get(KEY):
        headers["Authorization"] = f"Bearer {os.environ[KEY]}"
    request = urllib.request.Request(url, data, headers)
    # No proxy: the endpoint is on this machine's own network.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=timeout) as reply:
            answer = json.load(reply)
    except urllib.error.HTTPError as error:
        detail = error.read(2000).decode(errors="replace")
        mend = f". Mend: put the API's key into {KEY}" if error.code == 401 else ""
        raise NoAnswerError(f"{url}: HTTP {error.code}: {detail}{mend}") from error
    except (OSError, ValueError) as error:
        raise NoAnswerError(f"{url}: {error}") from error
    if not isinstance(answer, dict):
        raise NoAnswerError(f"{url}: expected a JSON object, got {type(answer).__name__}")
    return answer


def ask(api: str, question: str, timeout: float = 120.0, max_tokens: int = 24) -> Answer:
    """Ask the first model of the endpoint `api` (scheme, host and port) one question, to be answered without thoughts.

    Raises NoAnswerError; also when the reply has no text.
    """
    url = f"{api}/v1/models"
    models = fetch(url, timeout).get("data")
    if not models:
        raise NoAnswerError(f"{url}: no model is served")
    model = str(models[0]["id"])
    url = f"{api}/v1/chat/completions"
    start = time.monotonic()
    reply = fetch(
        url,
        timeout,
        {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "chat_template_kwargs": {"enable_thinking": False},
        },
    )
    seconds = time.monotonic() - start
    try:
        message = reply["choices"][0]["message"]
        # A reasoning model may spend its few tokens before it comes to the answer.
        text = message.get("content") or message.get("reasoning_content") or ""
        tokens = int(reply["usage"]["completion_tokens"])
    except (KeyError, IndexError, TypeError) as error:
        raise NoAnswerError(f"{url}: not a chat completion: {reply}") from error
    if tokens < 1:
        raise NoAnswerError(f"{url}: the answer has no token: {reply}")
    return Answer(model, text, tokens, seconds)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.chat", description=__doc__)
    parser.add_argument("url", help="scheme, host and port, as http://198.18.0.11:30000")
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--tokens", type=int, default=300, help="at most so many (%(default)s)")
    options = parser.parse_args(arguments)
    api = options.url.rstrip("/")
    try:
        answer = ask(api, options.question, max_tokens=options.tokens)
    except NoAnswerError as error:
        print(f"No answer. {error}", file=sys.stderr)
        return 1
    print(f"endpoint  {api}/v1")
    print(f"model     {answer.model}")
    print(f"question  {options.question}")
    print(f"answer    {answer.text.strip()!r}")
    print(f"took      {answer.seconds:.2f} s for {answer.tokens} tokens")
    return 0


if __name__ == "__main__":
    sys.exit(main())
