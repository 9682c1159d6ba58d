# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A program that runs beside us for a while and is surely ended; and a line to the one who runs its other half."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

# Messages in the one form that is read here.
LOCALE = {"LANG": "C", "LC_ALL": "C", "LANGUAGE": "C"}

AGAIN = 0.2
"""Seconds between two tries, or two looks at a program."""

_TERM_SECONDS = 2.0
"""How long a program has to end after SIGTERM."""


def end_on_signals() -> None:
    """Make SIGTERM and SIGHUP an exception, so that whoever started a program comes to end it."""

    def stop(number: int, frame: object) -> NoReturn:
        raise SystemExit(f"ended by signal {number}")

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)


class Program:
    """A program in a process group of its own; what it writes goes to a file, so it never waits for us."""

    def __init__(self, argv: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        """Start it. OSError if that can't be done."""
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the program
        try:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **LOCALE, **(environment or {})},
                start_new_session=True,
            )
        except OSError:
            self._output.close()
            raise

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *unused: object) -> None:
        self.end()
        self._output.close()

    def code(self) -> int | None:
        """Its exit status, None while it runs, negative for a signal."""
        return self._process.poll()

    def wait(self, seconds: float) -> int | None:
        """Its exit status once it has ended, None if it did not in so many seconds."""
        try:
            return self._process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return None

    def output(self) -> str:
        """What it has written so far, stdout and stderr together."""
        self._output.flush()
        # Not by seek and read: the program writes at the position of the file that it shares with us.
        data = os.pread(self._output.fileno(), os.fstat(self._output.fileno()).st_size, 0)
        return data.decode("utf-8", errors="replace")

    def end(self) -> None:
        """End it and all that it started, if it still runs."""
        # The group outlives its leader where that left children.
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
            except (ProcessLookupError, PermissionError):
                break
            if self.wait(_TERM_SECONDS) is not None and number == signal.SIGTERM and not self._group_lives():
                break
        self.wait(_TERM_SECONDS)

    def _group_lives(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except (ProcessLookupError, PermissionError):
            return False
        return True


class LineError(RuntimeError):
    """Why the other side can't be talked to."""


class Line:
    """Messages to and from the other side: a JSON object a line."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._read = b""
        connection.settimeout(5.0)

    def close(self) -> None:
        """Hang up; the other side sees it at once."""
        self._socket.close()

    def send(self, message: Mapping[str, Any]) -> None:
        """Send. LineError if the other side is gone."""
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as trouble:
            raise LineError(f"the connection broke: {trouble}") from None

    def receive(self, seconds: float) -> dict[str, Any] | None:
        """The next message, None if there is none in so many seconds. LineError if the other side is gone."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self._read:
            ready, _, _ = select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                return None
            try:
                data = self._socket.recv(65536)
            except OSError as trouble:
                raise LineError(f"the connection broke: {trouble}") from None
            if not data:
                raise LineError("it hung up")
            self._read += data
        text, _, self._read = self._read.partition(b"\n")
        try:
            message = json.loads(text)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise LineError("it is something else that answers")
        return message


def listen(address: str, port: int) -> socket.socket:
    """A socket that waits for the other side. OSError if the address is not on this node or the port is taken."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen(4)
    except OSError:
        listener.close()
        raise
    return listener


def accept(listener: socket.socket, peer: str, seconds: float) -> Line:
    """The other side's call; those of others are dropped. LineError if it does not come."""
    deadline = time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([listener], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise LineError(f"it did not call in {seconds:g} s")
        connection, (caller, *_) = listener.accept()
        if caller == peer:
            return Line(connection)
        connection.close()


def call(address: str, peer: str, port: int, seconds: float) -> Line:
    """Call the other side from one of our addresses, until it answers. LineError if it does not."""
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        try:
            return Line(socket.create_connection((peer, port), max(AGAIN, min(left, 5.0)), (address, 0)))
        except OSError as trouble:
            if left <= AGAIN:
                raise LineError(f"it can't be called in {seconds:g} s: {trouble}") from None
        time.sleep(AGAIN)
