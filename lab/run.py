"""Running programs, and telling the user how far we are."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_START = time.monotonic()
# A killed lab command takes its running programs with it, so that none of them works on behind the
# next command's back.
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")


class LabError(Exception):
    """Something the user has to know: what went wrong, where, and the mend.

    Shown without a traceback.
    """


def say(text: str) -> None:
    """Print a progress line with the seconds since the command's start."""
    print(f"[{time.monotonic() - _START:4.0f} s] {text}", file=sys.stderr, flush=True)


def attempt(
    command: Sequence[str], *, text: str | None = None, timeout: float | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program and return its result, whatever its exit code. `text` is its standard input.

    A program that runs longer than `timeout` seconds is killed and counts as failed with code 124.
    """
    try:
        return subprocess.run(
            [*_DIE_WITH_PARENT, *command],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess([*command], 124, "", f"no answer within {timeout:.0f} seconds")


def run(command: Sequence[str], *, text: str | None = None, timeout: float | None = None) -> str:
    """Run a program and return its standard output.

    Raises LabError with its last words when it fails.
    """
    result = attempt(command, text=text, timeout=timeout)
    if result.returncode != 0:
        last_words = "\n  ".join(result.stderr.strip().splitlines()[-8:])
        raise LabError(f"`{' '.join(command)}` failed with code {result.returncode}:\n  {last_words}")
    return result.stdout


def contained(command: Sequence[str]) -> list[str]:
    """The command in process and mount namespaces of its own.

    When it is killed, all its descendants die and all their mounts are gone.
    """
    return [
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child=KILL",
        "--mount-proc",
        "--",
        *command,
    ]


def each(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Do the same work for all items at once.

    Returns the results in order; raises the first error after all ended.
    """
    chosen = list(items)
    if not chosen:
        return []
    with ThreadPoolExecutor(max_workers=len(chosen)) as pool:
        return [future.result() for future in [pool.submit(work, item) for item in chosen]]


def wait_for(what: str, ready: Callable[[], Result | None], *, seconds: float, pause: float = 0.1) -> Result:
    """Poll until `ready` returns something that isn't None. Raises LabError after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = ready()
        if value is not None:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"{what} did not happen within {seconds:.0f} seconds")
        time.sleep(pause)
