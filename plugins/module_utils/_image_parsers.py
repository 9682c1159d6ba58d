# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What an image is asked about its tool-call parsers: PROBE and PROVE are programs as _image runs them."""

from __future__ import annotations

from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._image import FIND

PROBE = (
    FIND
    + r"""
def text(path):
    if os.path.isfile(path):
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()

def main():
    asked = json.loads(sys.argv[1])
    root = package()
    folder = os.path.realpath(os.path.join(root, asked["folder"]))
    sources = {name: text(os.path.join(folder, name)) for name in asked["files"]}
    print(json.dumps({
        "sglang": sglang_version(root), "folder": folder,
        "sources": {name: source for name, source in sources.items() if source is not None},
    }))

if __name__ == "__main__":
    main()
"""
)
"""Argument: {"folder": inside SGLang, "files": [name, ...]}. Answer: {sglang, folder: its path in the image, sources:
{name: text} of the files that are there}. Nothing is imported."""

PROVE = r'''
import json, sys

def prove(parser, tools, case):
    """What is wrong with a case, read as a whole and character by character; None if nothing is."""
    from sglang.srt.function_call.function_call_parser import FunctionCallParser
    normal, calls = FunctionCallParser(tools, parser).parse_non_stream(case["text"])
    whole = [normal, [[call.name, json.loads(call.parameters)] for call in calls]]
    stream, normal, calls = FunctionCallParser(tools, parser), "", []
    for character in case["text"]:
        more, items = stream.parse_stream_chunk(character)
        normal += more
        for item in items:
            if item.name:
                calls.append([item.name, ""])
            calls[item.tool_index][1] += item.parameters
    streamed = [normal, [[name, json.loads(arguments)] for name, arguments in calls]]
    wanted = [case["normal_text"], case["calls"]]
    for way, got in (("as a whole", whole), ("streamed", streamed)):
        if got != wanted:
            return "%r %s gave %r" % (case["text"], way, got)

def main():
    asked = json.loads(sys.argv[1])
    known, wrong = [], []
    try:
        from sglang.srt.entrypoints.openai.protocol import Tool
        from sglang.srt.function_call.function_call_parser import FunctionCallParser
        known = sorted(FunctionCallParser.ToolCallParserEnum)
        tools = [Tool(**tool) for tool in asked["tools"]]
    except Exception as error:
        wrong = ["importing it ended with %s: %s" % (type(error).__name__, error)]
    if not wrong and asked["parser"] not in known:
        wrong = [asked["parser"] + " is not among the parsers"]
    for case in asked["cases"] if not wrong else []:
        try:
            found = prove(asked["parser"], tools, case)
        except Exception as error:
            found = "%r ended with %s: %s" % (case["text"], type(error).__name__, error)
        if found:
            wrong.append(found)
    print(json.dumps({"parsers": known, "wrong": wrong}))
    # A build ends at what a module would report.
    sys.exit(1 if wrong and asked.get("strict") else 0)

if __name__ == "__main__":
    main()
'''
"""Argument: {parser, tools, cases: [{text, normal_text, calls: [[name, arguments], ...]}], strict}. Answer: {parsers:
what the release registers, wrong: sentences}. SGLang itself is imported. With `strict` it ends with 1 if anything is
wrong."""


def _call(name: str, **arguments: str) -> str:
    pairs = "".join(f"<arg_key>{key}</arg_key><arg_value>{value}</arg_value>" for key, value in arguments.items())
    return f"<tool_call>{name}{pairs}</tool_call>"


def question(parser: str) -> dict[str, Any]:
    """What PROVE is asked about a parser of GLM-4.7's format: a call with arguments, one without, two in a text."""
    properties = {"city": {"type": "string"}, "days": {"type": "integer"}}
    weather = {"name": "get_weather", "parameters": {"type": "object", "properties": properties}}
    paris = _call("get_weather", city="Paris", days="3")
    return {
        "parser": parser,
        "tools": [{"type": "function", "function": weather}, {"type": "function", "function": {"name": "get_time"}}],
        "cases": [
            {"text": paris, "normal_text": "", "calls": [["get_weather", {"city": "Paris", "days": 3}]]},
            {"text": _call("get_time"), "normal_text": "", "calls": [["get_time", {}]]},
            {
                "text": f"Both.\n{paris}\n{_call('get_time')}",
                "normal_text": "Both.",
                "calls": [["get_weather", {"city": "Paris", "days": 3}], ["get_time", {}]],
            },
        ],
    }
