"""Answers as GLM-4.7 writes them, with what they mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Output:
    """One answer. calls: [name, arguments] of each call of a known function."""

    about: str
    text: str
    calls: list[list[Any]] = field(default_factory=list)
    normal_text: str = ""


def _tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [
    _tool("get_weather", city={"type": "string"}, days={"type": "integer"}, unit={"enum": ["C", "F"]}),
    _tool("now"),
    _tool(
        "write_file",
        path={"type": "string"},
        content={"type": "string"},
        append={"type": "boolean"},
        mode={"anyOf": [{"type": "string"}, {"type": "null"}]},
    ),
    _tool(
        "query",
        filter={"type": "object"},
        ids={"type": "array", "items": {"type": "integer"}},
        ratio={"type": "number"},
    ),
]


def _call(name: str, *pairs: tuple[str, str], gap: str = "") -> str:
    arguments = "".join(f"<arg_key>{key}</arg_key>{gap}<arg_value>{value}</arg_value>{gap}" for key, value in pairs)
    return f"<tool_call>{name}{gap}{arguments}</tool_call>"


_PARIS = [("city", "Paris"), ("days", "3")]
_CODE = 'if a < b and b > "c":\n\tprint(f"{a}\\n")  # </tool_call> </div>\n'

OUTPUTS = [
    Output("newline-free", _call("get_weather", *_PARIS), [["get_weather", {"city": "Paris", "days": 3}]]),
    Output("newlines", _call("get_weather", *_PARIS, gap="\n"), [["get_weather", {"city": "Paris", "days": 3}]]),
    Output("zero-arguments", _call("now"), [["now", {}]]),
    Output("zero-arguments-newlines", "<tool_call>\nnow\n</tool_call>\n", [["now", {}]]),
    Output(
        "several-calls",
        _call("get_weather", ("city", "Oslo")) + _call("now") + _call("get_weather", ("city", "Rom")),
        [["get_weather", {"city": "Oslo"}], ["now", {}], ["get_weather", {"city": "Rom"}]],
    ),
    Output(
        "text-around",
        f"Let me look.\n{_call('now')} And then: {_call('get_weather', *_PARIS)}\nDone.\n",
        [["now", {}], ["get_weather", {"city": "Paris", "days": 3}]],
        "Let me look.\n And then: \nDone.",
    ),
    Output(
        "code",
        _call("write_file", ("path", "a.py"), ("content", _CODE), ("append", "true")),
        [["write_file", {"path": "a.py", "content": _CODE, "append": True}]],
    ),
    Output(
        "json-as-a-string",
        _call("write_file", ("path", "a.json"), ("content", '{"a": [1, null]}')),
        [["write_file", {"path": "a.json", "content": '{"a": [1, null]}'}]],
    ),
    Output(
        "null-or-a-string",
        _call("write_file", ("path", "x"), ("mode", "null")) + _call("write_file", ("path", "5"), ("mode", "0644")),
        [["write_file", {"path": "x", "mode": None}], ["write_file", {"path": "5", "mode": "0644"}]],
    ),
    Output(
        "objects-arrays-numbers",
        _call("query", ("filter", '{"a": {"b": [true, "\u00e9"]}}'), ("ids", "[1, 2, 3]"), ("ratio", "-1.5e-3")),
        [["query", {"filter": {"a": {"b": [True, "é"]}}, "ids": [1, 2, 3], "ratio": -0.0015}]],
    ),
    Output(
        "unicode",
        _call("get_weather", ("city", "北京 🌧️"), ("unit", "C")),
        [["get_weather", {"city": "北京 🌧️", "unit": "C"}]],
    ),
    Output(
        "unknown-parameter-and-function",
        _call("now", ("zone", "UTC"), ("offset", "2")) + _call("launch", ("now", "true")),
        [["now", {"zone": "UTC", "offset": 2}]],
    ),
    Output("no-call", "2 < 3, and that is all.", [], "2 < 3, and that is all."),
]
