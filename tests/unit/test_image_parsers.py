# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""PROVE over a small package in SGLang's shape; tests/kernel runs it over the real releases."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _image, _image_parsers

PROTOCOL = """
class Tool:
    def __init__(self, *, type, function):
        self.name = function["name"]
"""
# Parsers of GLM-4.7's format that are right, or wrong in one way.
PARSER = """
import json, re
from types import SimpleNamespace as Item

def calls_in(text, numbers=True):
    for name, pairs in re.findall(r"<tool_call>(\\w+)(.*?)</tool_call>", text, re.S):
        found = re.findall("<arg_key>(.*?)</arg_key><arg_value>(.*?)</arg_value>", pairs, re.S)
        yield name, {key: int(value) if numbers and value.isdigit() else value for key, value in found}

class FunctionCallParser:
    ToolCallParserEnum = dict.fromkeys(["right", "text", "deaf", "stream", "place", "raises", "no-json"])

    def __init__(self, tools, name):
        assert [tool.name for tool in tools] == ["get_weather", "get_time"], tools
        self.name, self.text, self.told = name, "", 0

    def parse_non_stream(self, text):
        if self.name == "raises":
            raise RuntimeError("out of order")
        found = [] if self.name == "deaf" else calls_in(text, numbers=self.name != "text")
        return self.normal(text), [
            Item(name=name, parameters="{" if self.name == "no-json" else json.dumps(arguments))
            for name, arguments in found
        ]

    def parse_stream_chunk(self, piece):
        before, self.text = self.normal(self.text), self.text + piece
        found = [] if self.name == "deaf" else list(calls_in(self.text, numbers=self.name != "text"))
        items = []
        for name, arguments in found[self.told:]:
            whole, place = json.dumps(arguments), self.told + (self.name == "place")
            items += [Item(tool_index=place, name=name, parameters="")]
            items += [Item(tool_index=place, name=None, parameters=part) for part in (whole[:1], whole[1:])]
        self.told = len(found)
        return self.normal(self.text)[len(before):], items if self.name != "stream" else items[:-1]

    def normal(self, text):
        return text.partition("<")[0].strip()
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    openai, function_call = (tmp_path / "sglang/srt" / name for name in ("entrypoints/openai", "function_call"))
    openai.mkdir(parents=True)
    function_call.mkdir()
    (openai / "protocol.py").write_text(PROTOCOL)
    (function_call / "function_call_parser.py").write_text(PARSER)
    return tmp_path


def prove(site: Path, question: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The code that it ends with, and its answer."""
    command = [sys.executable, "-c", _image_parsers.PROVE, json.dumps(question)]
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    return done.returncode, _image.parse(done.stdout)


PARIS = "'<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value><arg_key>days</arg_key>"
PARIS += "<arg_value>3</arg_value></tool_call>'"


@pytest.mark.parametrize(
    ("parser", "count", "said"),
    [
        ("right", 0, ""),
        ("text", 2, f"""{PARIS} as a whole gave ['', [['get_weather', {{'city': 'Paris', 'days': '3'}}]]]"""),
        ("deaf", 3, f"{PARIS} as a whole gave ['', []]"),
        ("stream", 3, f"{PARIS} ended with JSONDecodeError: "),
        ("place", 3, f"{PARIS} ended with IndexError: "),
        ("raises", 3, f"{PARIS} ended with RuntimeError: out of order"),
        ("no-json", 3, f"{PARIS} ended with JSONDecodeError: "),
        ("absent", 1, "absent is not among the parsers"),
    ],
)
def test_prove(site: Path, parser: str, count: int, said: str) -> None:
    question = _image_parsers.question(parser)
    code, answer = prove(site, question)
    # A module reads the answer, so this is no error.
    assert code == 0
    assert answer["parsers"] == sorted(["right", "text", "deaf", "stream", "place", "raises", "no-json"])
    assert len(answer["wrong"]) == count
    assert "".join(answer["wrong"][:1]).startswith(said)
    # A build would end.
    assert prove(site, {**question, "strict": True}) == (1 if count else 0, answer)
    assert prove(site, {**question, "strict": False}) == (0, answer)


def test_a_difference_in_the_stream_alone(site: Path) -> None:
    path = site / "sglang/srt/function_call/function_call_parser.py"
    path.write_text(PARSER.replace("[len(before):]", ""))
    code, answer = prove(site, {**_image_parsers.question("right"), "strict": True})
    assert code == 1
    (wrong,) = answer["wrong"]
    assert " streamed gave ['BBoBotBothBoth.Both." in wrong
