# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""One HTTP request to a server of the cluster, with its trouble as data instead of exceptions."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException

# The servers are neighbours: a proxy from the environment would only stand in the way.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# More than any answer we ask for; a server that streams without end must not fill the memory.
MAX_BYTES = 16 * 1024 * 1024
CHUNK = 64 * 1024


@dataclass(frozen=True)
class Answer:
    """What came back: status is None when no HTTP answer came; error is None when all arrived.

    Both may be set: a stream that broke off has a status, the body so far and an error.
    """

    status: int | None
    body: str
    error: str | None


def ask(url: str, timeout: float, payload: object | None = None, api_key: str | None = None) -> Answer:
    """GET url, or POST payload as JSON. timeout: seconds for the whole exchange."""
    headers = {"Accept": "*/*"}
    data = None
    if payload is not None:
        headers["Content-Type"] = "application/json"
        data = json.dumps(payload).encode()
    if api_key:
        headers["Authorization"] = f"Bearer {api_key}"
    deadline = time.monotonic() + timeout
    try:
        request = urllib.request.Request(url, data=data, headers=headers)
        with _OPENER.open(request, timeout=timeout) as response:
            body, error = _read(response, deadline, timeout)
            return Answer(response.status, body, error)
    except urllib.error.HTTPError as refusal:
        with refusal:
            body, error = _read(refusal, deadline, timeout)
            return Answer(refusal.code, body, error)
    except (OSError, HTTPException, ValueError) as trouble:
        return Answer(None, "", _words(trouble, timeout))


def _read(response: object, deadline: float, timeout: float) -> tuple[str, str | None]:
    """The body, and what cut it short. read1 hands out what has come, so the deadline counts."""
    read1 = getattr(response, "read1", None) or response.read  # type: ignore[attr-defined]
    parts: list[bytes] = []
    size = 0
    error = None
    try:
        while size < MAX_BYTES:
            part = read1(CHUNK)
            if not part:
                break
            parts.append(part)
            size += len(part)
            if time.monotonic() > deadline:
                error = f"the answer was not complete after {timeout:g} s"
                break
        # Of the bytes that the server announced; read1 ends quietly when they don't come.
        if error is None and size < MAX_BYTES and getattr(response, "length", None):
            error = "the connection broke off in the middle of the answer"
    except (OSError, HTTPException, ValueError) as trouble:
        error = _words(trouble, timeout)
    return b"".join(parts).decode("utf-8", "replace"), error


def _words(trouble: Exception, timeout: float) -> str:
    """The trouble in words that need no knowledge of Python."""
    reason: object = trouble
    if isinstance(trouble, urllib.error.URLError):
        reason = trouble.reason
    if isinstance(reason, socket.timeout):
        return f"no answer within {timeout:g} s"
    if isinstance(reason, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(reason, HTTPException):
        return f"the connection broke off ({type(reason).__name__})"
    if isinstance(reason, OSError) and reason.strerror:
        return reason.strerror.lower()
    return str(reason) or type(trouble).__name__
