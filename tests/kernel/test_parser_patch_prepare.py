# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""parser_patch_prepare as a task would run it; a script in Docker's place runs its programs over real releases."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _image_parsers, _release
from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_patch import patch
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

from kernel_configs import wheels

MODULE = "parser_patch_prepare"
ROOT = Path(__file__).resolve().parents[2]
PIECES = ROOT / "roles/parser_patch/files"
DETECTOR, TYPES = ((PIECES / name).read_text() for name in ("glm47_moe_detector.py", "json_schema_types.py"))
FOLDER = "srt/function_call"
PATCHED = ("glm47_moe_detector.py", "utils.py", "function_call_parser.py")
LACKS_IT, HAS_IT = "0.5.4.post2", "0.5.7"

# What releases import for tool calls that is not theirs, or would import torch.
BARE = ("", "srt", "srt/entrypoints", "srt/entrypoints/openai")
PROTOCOL = """
from tests.tools.sglang_functions import Anything, Function, Tool, ToolChoice, ToolChoiceFuncName
__getattr__ = Anything(__name__).__getattr__
"""
OTHERS: tuple[str, ...] = (
    "orjson",
    *(f"partial_json_parser/{name}" for name in ("", "core", "core/exceptions", "core/options")),
)
OTHER = """
from tests.tools.sglang_functions import Anything
__getattr__ = Anything(__name__).__getattr__
"""
# Lays the mounts over the image's files as long as the program runs, and notes how it was called.
DOCKER = """#!{python}
import csv, json, os, pathlib, subprocess, sys, time
with open({calls!r}, "a") as calls:
    print(json.dumps(sys.argv[1:]), file=calls)
if sys.argv[1] == "rm":
    sys.exit(0)
options = [word for word in sys.argv[2:] if word.startswith("--")]
image, c, source, question = [word for word in sys.argv[2:] if not word.startswith("--")]
if image == "absent":
    print("docker: Error response from daemon: No such image: absent", file=sys.stderr)
    sys.exit(125)
mounts = [next(csv.reader([option[8:]])) for option in options if option.startswith("--mount=")]
if image == "slow" or (image == "slow-to-prove" and mounts):
    time.sleep(60)
before = {{}}
for fields in mounts:
    mount = dict(field.partition("=")[::2] for field in fields)
    target = pathlib.Path(mount["target"])
    before[target] = target.read_bytes() if target.exists() else None
    target.write_bytes(pathlib.Path(mount["source"]).read_bytes())
env = {{**os.environ, "PYTHONPATH": {path!r}, "PYTHONDONTWRITEBYTECODE": "1"}}
try:
    code = subprocess.run([sys.executable, "-c", source, question], env=env).returncode
finally:
    for target, content in before.items():
        target.unlink() if content is None else target.write_bytes(content)
sys.exit(code)
"""


class Image:
    """A release's tool calls in a site-packages of their own, and the `docker` that runs programs over it."""

    def __init__(self, scratch: Path, version: str) -> None:
        self.scratch = scratch
        site = scratch / "site"
        self.folder = site / "sglang" / FOLDER
        release = wheels.sglang(version) / "sglang"
        for name in BARE:
            package = site / "sglang" / name
            package.mkdir(parents=True)
            (package / "__init__.py").touch()
        for name in (FOLDER, "srt/parser"):
            shutil.copytree(release / name, site / "sglang" / name)
        for name in ("version.py", "_version.py", "srt/environ.py"):
            if (release / name).exists():
                shutil.copy(release / name, site / "sglang" / name)
        (site / "sglang/srt/entrypoints/openai/protocol.py").write_text(PROTOCOL)
        for name in OTHERS:
            (site / name).mkdir(parents=True, exist_ok=True)
            (site / name / "__init__.py").write_text(OTHER)
        (scratch / "bin").mkdir()
        docker = scratch / "bin/docker"
        path = f"{site}:{ROOT}"
        docker.write_text(DOCKER.format(python=sys.executable, calls=str(scratch / "calls"), path=path))
        docker.chmod(0o755)

    def sources(self) -> dict[str, str]:
        """All that the image knows of tool calls."""
        return {path.name: path.read_bytes().decode() for path in self.folder.iterdir()}

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_bytes(text.encode())

    def calls(self) -> list[list[str]]:
        """How `docker` was called, and forgets it."""
        log = self.scratch / "calls"
        found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        return found

    def prepare(
        self, parser: str = "glm47", check: bool = False, detector: str = DETECTOR, docker: bool = True, **options: Any
    ) -> dict[str, Any]:
        """The module's result. The image is never changed. docker: whether the node has it."""
        given = {"image": "img", "parser": parser, **options}
        for name, text in (("detector", detector), ("types", TYPES)):
            (self.scratch / name).write_text(text)
            # As the role hands it over: what looks like a template in it is none.
            given[name] = f"{{{{ lookup('ansible.builtin.file', '{self.scratch / name}', rstrip=false) }}}}"
        env = {"PATH": f"{self.scratch / 'bin'}:{os.environ['PATH']}" if docker else str(self.scratch)}
        before = self.sources()
        result = adhoc.run(self.scratch, MODULE, given, check=check, env=env).result
        assert "Traceback" not in result.get("msg", "")
        assert not result.get("changed")
        assert self.sources() == before
        return result


def mounts(call: list[str]) -> list[str]:
    return [word for word in call if word.startswith("--mount=")]


@pytest.fixture
def image(tmp_path: Path, request: pytest.FixtureRequest) -> Image:
    """The image of LACKS_IT, or of the release that a test is parametrized with."""
    return Image(tmp_path, getattr(request, "param", LACKS_IT))


has_it = pytest.mark.parametrize("image", [HAS_IT], indirect=True)


@pytest.mark.parametrize("check", [False, True])
def test_a_parser_that_is_lacking(image: Image, check: bool) -> None:
    result = image.prepare(check=check)
    assert not result["failed"], result["msg"]
    assert (result["state"], result["sglang_version"]) == ("patched", LACKS_IT)
    assert {"glm45", "glm47", "qwen25"} <= set(result["parsers"])
    expected = patch(image.sources(), DETECTOR, TYPES)
    files = {file["name"]: file for file in result["files"]}
    assert files.keys() == {f"parsers/{name}" for name in PATCHED} == {f"parsers/{name}" for name in expected.files}
    for name, file in files.items():
        own = name.removeprefix("parsers/")
        assert file == {"name": name, "target": str(image.folder / own), "content": expected.files[own]}
    # As a release takes them.
    assert len(_release.files_from(result["files"])) == 3
    assert [step["did"] for step in result["steps"]] == ["added"] * 5
    assert {step["file"] for step in result["steps"]} == set(PATCHED)
    assert result["proof"] == _image_parsers.question("glm47")
    looked, proved = image.calls()
    assert {looked[0], proved[0]} == {"run"}
    assert {"--pull=never", "--network=none"} <= {*looked} & {*proved}
    assert (len(mounts(looked)), len(mounts(proved))) == (0, 3)
    assert json.loads(proved[-1]) == result["proof"]


@pytest.mark.parametrize("image", [HAS_IT, "0.5.23"], indirect=True)
def test_a_release_that_has_it(image: Image) -> None:
    result = image.prepare()
    assert not result["failed"], result["msg"]
    assert (result["state"], result["files"], result["proof"]) == ("present", [], None)
    assert "glm47" in result["parsers"]
    # Nothing was added.
    assert {step["did"] for step in result["steps"]} <= {"already there"}
    # There is nothing to prove.
    assert len(image.calls()) == 1


def test_another_parser_of_the_release(image: Image) -> None:
    result = image.prepare("qwen25", detector="not looked at")
    assert not result["failed"], result["msg"]
    assert (result["state"], result["files"], result["steps"], result["proof"]) == ("present", [], [], None)
    # It is not patched for nothing.
    assert "glm47" not in result["parsers"]
    assert len(image.calls()) == 1


@pytest.mark.parametrize(
    ("parser", "mend"),
    [
        ("Qwen-25", "{tool-call-parser: qwen25}"),
        ("glm_45", "{tool-call-parser: glm45}"),
        # The patch counts as well.
        ("glm-47", "{tool-call-parser: glm47}"),
        ("x", "{tool-call-parser: ...}"),
    ],
)
def test_a_parser_that_nobody_knows(image: Image, parser: str, mend: str) -> None:
    result = image.prepare(parser)
    assert result["failed"]
    assert f"SGLang {LACKS_IT} has no tool-call parser {parser}; there are " in result["msg"]
    assert f"Mend: set cluster_flags: {mend}" in result["msg"]
    assert "files" not in result


def test_an_image_that_is_patched_already(image: Image) -> None:
    for name, text in patch(image.sources(), DETECTOR, TYPES).files.items():
        image.write(name, text)
    result = image.prepare()
    assert not result["failed"], result["msg"]
    assert (result["files"], {step["did"] for step in result["steps"]}) == ([], {"already there"})
    assert "glm47" in result["parsers"]


def test_an_image_with_an_older_patch_gets_what_is_new(image: Image) -> None:
    for name, text in patch(image.sources(), DETECTOR + "\nOLDER = 1\n", TYPES).files.items():
        image.write(name, text)
    result = image.prepare()
    assert not result["failed"], result["msg"]
    assert [file["name"] for file in result["files"]] == ["parsers/glm47_moe_detector.py"]
    assert len(mounts(image.calls()[1])) == 1


@pytest.mark.parametrize(
    ("sound", "broken", "said"),
    [
        # Blind to calls: every case is wrong.
        (
            'CALL, CALL_END = "<tool_call>"',
            'CALL, CALL_END = "<tool-call>"',
            ("'<tool_call>get_weather<arg_key>city</arg_key>", "as a whole gave ", "'<tool_call>get_time</tool_call>'"),
        ),
        # Right calls, yet a word too many.
        (
            "normal_text, _ = reader.feed(text)",
            'normal_text, _ = reader.feed(text); normal_text += " and more"',
            ("as a whole gave [' and more'",),
        ),
        ("json_schema_types(self._schema()", "json_schema_typo(self._schema()", ("NameError",)),
    ],
)
def test_a_patch_that_does_not_work(image: Image, sound: str, broken: str, said: tuple[str, ...]) -> None:
    assert sound in DETECTOR
    result = image.prepare(detector=DETECTOR.replace(sound, broken))
    assert result["failed"]
    assert result["msg"].startswith("img: The patched parser does not work; nothing was changed: ")
    for words in said:
        assert words in result["msg"]
    assert "Mend: " in result["msg"]
    assert "files" not in result


def test_a_patch_whose_stream_does_not_work(image: Image) -> None:
    deaf = "\n\ndef _deaf(self, new_text, tools):\n    return StreamingParseResult()\n"
    deaf += "\n\nGlm47MoeDetector.parse_streaming_increment = _deaf\n"
    result = image.prepare(detector=DETECTOR + deaf)
    assert result["failed"]
    assert "'<tool_call>get_time</tool_call>' streamed gave ['', []]" in result["msg"]
    assert "as a whole" not in result["msg"]


@pytest.mark.parametrize("check", [False, True])
def test_a_patch_that_cannot_be_imported(image: Image, check: bool) -> None:
    result = image.prepare(check=check, detector=DETECTOR.replace("_ENDS = {", "_ENDS = nothing or {"))
    assert result["failed"]
    assert "does not work; nothing was changed: importing it ended with NameError: name 'nothing'" in result["msg"]


def test_an_image_that_is_missing(image: Image) -> None:
    result = image.prepare(image="absent")
    assert result["failed"]
    assert "The node does not have the image absent. Mend: pull it first." in result["msg"]
    checked = image.prepare(image="absent", check=True)
    assert not checked["failed"]
    assert (checked["state"], checked["files"], checked["steps"], checked["proof"]) == ("unknown", [], [], None)
    assert "absent" in checked["msg"]


@pytest.mark.parametrize(("name", "removed"), [("slow", 1), ("slow-to-prove", 2)])
def test_a_container_that_does_not_answer_is_removed(image: Image, name: str, removed: int) -> None:
    result = image.prepare(image=name, timeout=6 if removed == 2 else 1)
    assert result["failed"]
    assert f"{name} did not answer in " in result["msg"]
    assert "its container was removed." in result["msg"]
    *_, started, last = calls = image.calls()
    assert len(calls) == removed + 1
    container = next(word for word in started if word.startswith("--name="))
    assert last == ["rm", "--force", container.removeprefix("--name=")]


# ---- a registry that can't be read ------------------------------------------------------------


def otherwise(image: Image) -> None:
    """The same registry, written as no release does."""
    text = image.sources()["function_call_parser.py"]
    own = "ToolCallParserEnum: Dict[str, Type[BaseFormatDetector]] = {"
    assert own in text
    image.write("function_call_parser.py", text.replace(own, "ToolCallParserEnum = {"))


@has_it
def test_the_word_of_a_release_that_is_written_otherwise_counts(image: Image) -> None:
    known = image.prepare()["parsers"]
    otherwise(image)
    image.calls()
    result = image.prepare()
    assert not result["failed"], result["msg"]
    assert (result["state"], result["files"], result["steps"], result["proof"]) == ("present", [], [], None)
    assert result["parsers"] == sorted(known)
    assert len(image.calls()) == 2


def test_a_release_that_is_written_otherwise_and_lacks_it(image: Image) -> None:
    otherwise(image)
    result = image.prepare()
    assert result["failed"]
    assert result["msg"].startswith(f"img: SGLang {LACKS_IT}, srt/function_call/function_call_parser.py: ")
    assert "ToolCallParserEnum" in result["msg"]
    assert image.prepare("glm45")["state"] == "present"
    assert "{tool-call-parser: glm45}" in image.prepare("glm_45")["msg"]


def test_failures(image: Image) -> None:
    assert "timeout must be 1 or more" in image.prepare(timeout=0)["msg"]
    assert "The docker command is not installed" in image.prepare(docker=False)["msg"]
    assert image.prepare(docker=False, check=True)["state"] == "unknown"
    (image.folder.parents[1] / "version.py").unlink()
    assert "img: SGLang in the image does not tell its version. Mend: " in image.prepare()["msg"]


def test_everything_that_is_returned_is_documented(image: Image) -> None:
    documented = yaml.safe_load(
        importlib.import_module(f"ansible_collections.dgx_spark.sglang.plugins.modules.{MODULE}").RETURN
    )
    assert set(documented) == set(image.prepare()) - {"failed", "changed"}
