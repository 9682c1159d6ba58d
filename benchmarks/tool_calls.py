"""Measures what it costs to stream a tool call with one long argument: `python3 -m benchmarks.tool_calls`.

The argument is a file's worth of code, or a JSON object, and comes in pieces of four characters; a tag comes whole, as
the one token that it is to the model (glm45 does not see it otherwise). Our detector of GLM-4.7's calls is held against
the ones that releases bring: glm45 of 0.5.4.post2, with the same call in the newline form that it reads, and glm47 of
0.5.23. All in one process and in turn, by processor time; what each of them made of the call is checked. Writes the
table to docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import json
import re
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.bring_up import machine
from benchmarks.page import put
from benchmarks.runner import ROOT
from kernel_configs import wheels
from tests.tools.sglang_functions import detector, function_call, tool

OURS = ROOT / "roles/parser_patch/files/glm47_moe_detector.py"
RELEASE, LATER = "0.5.4.post2", "0.5.23"
PARAMETERS = {"type": "object", "properties": {"content": {"type": "string"}, "data": {"type": "object"}}}
TOOLS = [tool("write_file", PARAMETERS)]
PIECE = 4
# Characters of the argument; each size is twice the one before.
SIZES = (25_000, 50_000, 100_000, 200_000)
OBJECT_SIZE = 100_000
CODE = 'def less(a: int, b: int) -> bool:\n    """a < b, "strictly"."""\n    return a < b and not b <= a\n\n\n'


class WrongAnswerError(Exception):
    """A detector did not find the call that was written; the text says which and what it found."""


def string_argument(size: int) -> str:
    """Code of that many characters."""
    return (CODE * (size // len(CODE) + 1))[:size]


def object_argument(size: int) -> str:
    """The JSON of an object, of about that many characters."""
    row = {"name": "less", "line": 1, "text": CODE.splitlines()[0]}
    return json.dumps({"rows": [row] * (size // (len(json.dumps(row)) + 2))})


def call(key: str, value: str, newlines: bool) -> str:
    """The call as GLM-4.7 writes it, or with newlines as GLM-4.5 and 4.6 do."""
    end = "\n" if newlines else ""
    return f"<tool_call>write_file{end}<arg_key>{key}</arg_key>{end}<arg_value>{value}</arg_value>{end}</tool_call>"


def pieces(text: str) -> list[str]:
    """The text as a server gets it: tags whole, all else in pieces of four characters."""
    found: list[str] = []
    for number, part in enumerate(re.split(r"(</?(?:tool_call|arg_key|arg_value)>)", text)):
        size = len(part) if number % 2 else PIECE
        found += [part[start : start + size] for start in range(0, len(part), size)]
    return found


def stream(made: Any, pieces: list[str]) -> tuple[float, str]:
    """Seconds of processor time that a detector takes for all pieces, and the arguments that it told."""
    told: list[str] = []
    gc.collect()
    began = time.process_time()
    for piece in pieces:
        told += [item.parameters for item in made.parse_streaming_increment(piece, TOOLS).calls]
    return time.process_time() - began, "".join(told)


Detectors = dict[str, tuple[Callable[[], Any], bool]]


def detectors() -> Detectors:
    """What makes a new detector, and whether it wants newlines, by the names of the columns."""
    release, later = (wheels.sglang(version) / "sglang" for version in (RELEASE, LATER))
    glm45 = function_call(release).FunctionCallParser.ToolCallParserEnum["glm45"]
    glm47 = function_call(later).FunctionCallParser.ToolCallParserEnum["glm47"]
    return {
        "ours": (detector(release, OURS), False),
        f"glm45 of {RELEASE}": (glm45, True),
        f"glm47 of {LATER}": (glm47, False),
    }


def measure(made: Detectors, key: str, value: str) -> dict[str, float]:
    """Seconds of each detector for one argument. WrongAnswerError if one reads something else."""
    # glm45 takes blanks off the ends of a string.
    expected = (value, value.strip()) if key == "content" else (json.loads(value),)
    seconds = {}
    for name, (make, newlines) in made.items():
        seconds[name], told = stream(make(), pieces(call(key, value, newlines)))
        if json.loads(told or "null") not in [{key: argument} for argument in expected]:
            raise WrongAnswerError(f"{name} read {told[:200]!r} from an argument of {len(value)} characters")
    return seconds


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """Of each detector's seconds."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def table(strings: dict[int, dict[str, float]], objects: dict[int, dict[str, float]]) -> str:
    """The Markdown table; strings, objects: median seconds by size in characters and by detector, sizes rising."""
    names = list(next(iter(strings.values())))
    lines = [
        f"| argument | {' | '.join(f'{name}, s | ratio' for name in names)} |",
        f"| --- |{' ---: | ---: |' * len(names)}",
    ]
    before: dict[str, float] = {}
    for size, row in strings.items():
        cells = [f"{row[name]:.3f} | {f'{row[name] / before[name]:.1f}' if before else ''}" for name in names]
        lines.append(f"| string, {size // 1000} kB | {' | '.join(cells)} |")
        before = row
    for size, row in objects.items():
        lines.append(f"| object, {size // 1000} kB | {' | '.join(f'{row[name]:.3f} | ' for name in names)} |")
    ours, *others = names
    largest = max(strings)
    times = [f"{name} takes {strings[largest][name] / strings[largest][ours]:.1f} times as long" for name in others]
    return "\n".join([*lines, "", f"For the string of {largest // 1000} kB {' and '.join(times)} as ours."])


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.tool_calls", description=__doc__)
    parser.add_argument("--repeats", type=int, default=3, help="how often each is measured (3)")
    options = parser.parse_args(arguments)
    try:
        made = detectors()
        strings: dict[int, list[dict[str, float]]] = {size: [] for size in SIZES}
        objects: list[dict[str, float]] = []
        # The largest first, and all sizes in each round: what else the machine does falls on one round of each.
        for _ in range(options.repeats):
            for size in reversed(SIZES):
                strings[size].append(measure(made, "content", string_argument(size)))
            objects.append(measure(made, "data", object_argument(OBJECT_SIZE)))
    except WrongAnswerError as error:
        print(error, file=sys.stderr)
        return 1
    rows = table({size: medians(rounds) for size, rounds in strings.items()}, {OBJECT_SIZE: medians(objects)})
    put("tool_calls", f"Measured {datetime.date.today()} on {machine()}; medians of {options.repeats}.\n\n{rows}")
    print(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
