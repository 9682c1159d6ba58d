# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The role's pieces in real releases of SGLang: a patched one is imported and used, one that knows glm47 is left."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_patch import changed, parsers, patch
from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_syntax import FOLDER, MARK, READ
from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_tree import patch_tree

from kernel_configs import wheels

ROOT = Path(__file__).resolve().parents[2]
PIECES = ROOT / "roles/parser_patch/files"
DETECTOR, TYPES = ((PIECES / name).read_text() for name in ("glm47_moe_detector.py", "json_schema_types.py"))

WITHOUT = ("0.5.4", "0.5.4.post2", "0.5.5", "0.5.6")
WITH = ("0.5.7", "0.5.8", "0.5.14", "0.5.23")
without = pytest.mark.parametrize("version", WITHOUT)


def package(version: str) -> Path:
    """The one that everything shares: nothing here may write into it, so patch_tree gets a copy."""
    return wheels.sglang(version) / "sglang"


def sources(root: Path) -> dict[str, str]:
    paths = [root / FOLDER / name for name in READ]
    return {path.name: path.read_bytes().decode() for path in paths if path.exists()}


def digests(root: Path) -> dict[str, str]:
    """The digest of every file, temporary ones too."""
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    assert set(READ[:-1]) < {path.name for path in paths}
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture
def copy(tmp_path: Path, version: str) -> Path:
    """A release's folder `sglang` with only what is imported, to write in."""
    root = tmp_path / "sglang"
    for folder in ("srt/function_call", "srt/parser"):
        shutil.copytree(package(version) / folder, root / folder)
    for file in ("version.py", "_version.py", "srt/environ.py"):
        if (package(version) / file).exists():
            shutil.copy(package(version) / file, root / file)
    return root


# Run in a process of its own, as the server would: argument root, prints what the parsers make of a text.
USE = """
import json, sys
from pathlib import Path
from tests.tools.sglang_functions import function_call, tool

made = function_call(Path(sys.argv[1]))
assert made.__file__.startswith(sys.argv[1]), made.__file__
weather = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
tools = [tool("get_time"), tool("get_weather", weather)]
texts = json.loads(sys.stdin.read())
answers = {}
for name, text in texts.items():
    parser = made.FunctionCallParser(tools, name)
    normal, calls = parser.parse_non_stream(text)
    streamed = made.FunctionCallParser(tools, name)
    pieces = [streamed.parse_stream_chunk(character) for character in text]
    answers[name] = {
        "has": parser.has_tool_call(text),
        "normal": normal,
        "calls": [[call.tool_index, call.name, call.parameters] for call in calls],
        "stream": "".join(piece for piece, _ in pieces),
        "names": [call.name for _, items in pieces for call in items if call.name],
        "arguments": "".join(call.parameters for _, items in pieces for call in items),
    }
registry = made.FunctionCallParser.ToolCallParserEnum
module = getattr(registry.get("glm47"), "__module__", "")
print(json.dumps({"answers": answers, "parsers": list(registry), "module": module}))
"""
GLM45 = "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>"
GLM47 = (
    "Let me see.<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value>"
    "<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>"
)


def use(root: Path, texts: dict[str, str]) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", USE, str(root)],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@without
def test_a_patched_release_is_used(version: str, copy: Path) -> None:
    patched = patch_tree(copy, DETECTOR, TYPES)
    assert patched.state == "patched"
    assert {step["did"] for step in patched.steps} == {"added"}
    used = use(copy, {"glm47": GLM47, "glm45": GLM45})
    assert used["parsers"] == patched.parsers == parsers(sources(copy)["function_call_parser.py"])
    assert used["module"] == "sglang.srt.function_call.glm47_moe_detector"
    assert used["answers"]["glm47"] == {
        "has": True,
        "normal": "Let me see.",
        "calls": [[0, "get_weather", '{"city": "Paris", "days": 3}']],
        "stream": "Let me see.",
        "names": ["get_weather"],
        "arguments": '{"city": "Paris", "days": 3}',
    }
    # GLM-4.5's own parser works as before.
    ((_, name, arguments),) = used["answers"]["glm45"]["calls"]
    assert (name, json.loads(arguments)) == ("get_weather", {"city": "Paris"})


@without
def test_only_whole_lines_are_new(version: str) -> None:
    before = sources(package(version))
    patched = patch(before, DETECTOR, TYPES)
    assert set(patched.files) == {"glm47_moe_detector.py", "utils.py", "function_call_parser.py"}
    assert patched.files["glm47_moe_detector.py"] == DETECTOR
    new = patched.files["function_call_parser.py"].splitlines(keepends=True)
    marked = [line for line in new if line.rstrip().endswith(MARK)]
    assert len(marked) == 2
    assert "".join(line for line in new if line not in marked) == before["function_call_parser.py"]
    utils = patched.files["utils.py"]
    assert utils.startswith(before["utils.py"] + f"\n\n{MARK}: ")
    assert utils.endswith(f"\n{MARK}: end\n")
    counts = Counter(utils[len(before["utils.py"]) :].splitlines()) - Counter(TYPES.splitlines())
    assert set(counts) <= {"", f"{MARK}: end"}


@without
def test_patching_again_changes_nothing(version: str, copy: Path) -> None:
    first = patch_tree(copy, DETECTOR, TYPES)
    stamps = {name: (copy / FOLDER / name).stat().st_ino for name in first.files}
    again = sources(copy)
    second = patch_tree(copy, DETECTOR, TYPES)
    assert second.files == first.files
    assert changed(again, second) == []
    assert {step["did"] for step in second.steps} == {"already there"}
    assert {name: (copy / FOLDER / name).stat().st_ino for name in first.files} == stamps
    older = patch(sources(package(version)), DETECTOR + "\nOLDER = 1\n", TYPES.replace("return None", "return (None)"))
    assert patch({**again, **older.files}, DETECTOR, TYPES).files == first.files


@without
def test_looking_leaves_the_release(version: str, copy: Path) -> None:
    before = digests(copy)
    assert patch_tree(copy, DETECTOR, TYPES, write=False).state == "patched"
    assert digests(copy) == before


@pytest.mark.parametrize("version", WITH)
def test_a_release_that_knows_it_is_left_alone(version: str, copy: Path) -> None:
    before = digests(copy)
    patched = patch_tree(copy, DETECTOR, TYPES)
    assert (patched.state, patched.files) == ("present", {})
    assert "glm47" in patched.parsers
    assert digests(copy) == before


@pytest.mark.parametrize("version", sorted({*wheels.SGLANG, *WITHOUT, *WITH}))
def test_which_releases_lack_it(version: str) -> None:
    patched = patch(sources(package(version)), DETECTOR, TYPES)
    assert patched.state == ("patched" if version in WITHOUT else "present")
    # What is read from the text is what the server would have.
    registry = use(package(version), {})["parsers"]
    assert [name for name in patched.parsers if patched.state == "present" or name != "glm47"] == registry
