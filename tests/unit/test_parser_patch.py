# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The patcher, over small files in SGLang's shape and small pieces; tests/kernel patches the real releases."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _parser_patch
from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_patch import Patched, changed, parsers, patch
from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_syntax import FOLDER, MARK, READ, PatchError
from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_tree import patch_tree
from hypothesis import given
from hypothesis import strategies as st

BASE, CORE, UTILS, PARSER, DETECTOR = READ

STOCK = {
    BASE: '''\
from abc import ABC, abstractmethod
from sglang.srt.entrypoints.openai.protocol import Tool
from sglang.srt.function_call.core_types import StreamingParseResult

class BaseFormatDetector(ABC):
    def __init__(self):
        self._buffer = ""
        self.finished: list = []
        self.bot_token = ""

    @abstractmethod
    def detect_and_parse(self, text, tools):
        """Abstract, yet it may be used."""

    @abstractmethod
    def has_tool_call(self, text):
        raise NotImplementedError

    def helper(self):
        return 1
''',
    CORE: """\
from dataclasses import dataclass
from typing import Callable
from pydantic import BaseModel

class ToolCallItem(BaseModel):
    tool_index: int
    name: str | None = None
    parameters: str

class StreamingParseResult(BaseModel):
    normal_text: str = ""
    calls: list = []

@dataclass
class StructureInfo:
    begin: str

_GetInfoFunc = Callable[[str], StructureInfo]
""",
    UTILS: """\
def is_complete(text):
    return bool(text)
""",
    PARSER: """\
import logging
from typing import Dict, Type
from sglang.srt.function_call.base_format_detector import BaseFormatDetector
from sglang.srt.function_call.glm4_moe_detector import Glm4MoeDetector
from sglang.srt.function_call.gpt_oss_detector import GptOssDetector

logger = logging.getLogger(__name__)


class FunctionCallParser:
    ToolCallParserEnum: Dict[str, Type[BaseFormatDetector]] = {
        "glm": Glm4MoeDetector,
        "glm45": Glm4MoeDetector,
        "gpt-oss": GptOssDetector,
    }
    '''A text.
    '''

    def __init__(self, tools,  tool_call_parser ):
        self.tools=tools   # black would not
""",
}
OURS = f"""\
{MARK}: the detector
import json
from sglang.srt.entrypoints.openai.protocol import Tool
from sglang.srt.function_call.base_format_detector import BaseFormatDetector
from sglang.srt.function_call.core_types import StreamingParseResult, ToolCallItem, _GetInfoFunc
from sglang.srt.function_call.utils import is_complete, json_schema_types

class Glm47MoeDetector(BaseFormatDetector):
    kind = "glm"

    def __init__(self) -> None:
        super().__init__()
        self._mine = self.kind

    def detect_and_parse(self, text, tools):
        self._buffer += text
        self.finished.append(self._mine)
        return self.helper()

    def has_tool_call(self, text):
        return False
"""
TYPES = f'''\
{MARK}: the types
# Copyright (c) of ours
"""The two functions."""


def json_schema_types(schema, root=None, depth=0):
    return None


def infer_type_from_json_schema(schema, root=None):
    return json_schema_types(schema, root)
'''
IMPORT = f"from sglang.srt.function_call.glm47_moe_detector import Glm47MoeDetector  {MARK}"
ENTRY = f'"glm47": Glm47MoeDetector,  {MARK}'
BLOCK = f"""

{MARK}: the types
# Copyright (c) of ours


def json_schema_types(schema, root=None, depth=0):
    return None


def infer_type_from_json_schema(schema, root=None):
    return json_schema_types(schema, root)


{MARK}: end
"""


def stock(**texts: str) -> dict[str, str]:
    """STOCK with other texts, by the file's name without its end."""
    return {**STOCK, **{f"{name}.py": text for name, text in texts.items()}}


def done(patched: Patched) -> dict[str, str]:
    return {step["piece"]: step["did"] for step in patched.steps}


PIECES = ["class Glm47MoeDetector", "function json_schema_types", "function infer_type_from_json_schema"]
PIECES += ["import of Glm47MoeDetector", "parser glm47"]


# ---- what is made -----------------------------------------------------------------------------


def test_every_line_that_is_put_in() -> None:
    patched = patch(STOCK, OURS, TYPES)
    assert patched.state == "patched"
    parser = STOCK[PARSER].splitlines(keepends=True)
    glm45 = parser.index('        "glm45": Glm4MoeDetector,\n')
    parser.insert(glm45 + 1, f"        {ENTRY}\n")
    parser.insert(4, f"{IMPORT}\n")
    assert patched.files == {DETECTOR: OURS, UTILS: STOCK[UTILS] + BLOCK, PARSER: "".join(parser)}
    assert patched.parsers == ["glm", "glm45", "glm47", "gpt-oss"]
    assert done(patched) == dict.fromkeys(PIECES, "added")
    assert [step["file"] for step in patched.steps] == [DETECTOR, UTILS, UTILS, PARSER, PARSER]
    assert changed(STOCK, patched) == [DETECTOR, UTILS, PARSER]


def test_twice_is_once() -> None:
    first = patch(STOCK, OURS, TYPES)
    sources = {**STOCK, **first.files}
    second = patch(sources, OURS, TYPES)
    assert (second.state, second.files, second.parsers) == (first.state, first.files, first.parsers)
    assert done(second) == dict.fromkeys(PIECES, "already there")
    assert changed(sources, second) == []


def test_an_older_version_of_ours_is_renewed() -> None:
    older = patch(STOCK, OURS + "    old = 1\n", TYPES.replace("return None", "return 'older'"))
    old_parser = older.files[PARSER].replace("glm47_moe_detector", "glm47_detector").replace(
        '"glm47": Glm47MoeDetector', '"glm47": Glm47Detector'
    )  # fmt: skip
    sources = {**STOCK, **older.files, PARSER: old_parser}
    newer = patch(sources, OURS, TYPES)
    assert newer.files == patch(STOCK, OURS, TYPES).files
    assert done(newer) == {**dict.fromkeys(PIECES, "renewed"), PIECES[2]: "already there"}
    assert changed(sources, newer) == [DETECTOR, UTILS, PARSER]


@pytest.mark.parametrize("there", list(itertools.product([False, True], repeat=4)))
def test_a_half_patched_tree_is_completed(there: tuple[bool, ...]) -> None:
    whole = patch(STOCK, OURS, TYPES)
    has_detector, has_functions, has_import, has_entry = there
    parser = whole.files[PARSER]
    parser = parser if has_import else parser.replace(f"{IMPORT}\n", "")
    parser = parser if has_entry else parser.replace(f"        {ENTRY}\n", "")
    sources = {**STOCK, PARSER: parser, UTILS: whole.files[UTILS] if has_functions else STOCK[UTILS]}
    if has_detector:
        sources[DETECTOR] = OURS
    patched = patch(sources, OURS, TYPES)
    assert patched.files == whole.files
    have = (has_detector, has_functions, has_functions, has_import, has_entry)
    assert done(patched) == {
        piece: "already there" if one else "added" for piece, one in zip(PIECES, have, strict=True)
    }


def test_a_release_that_has_it_is_left_alone() -> None:
    text = STOCK[PARSER].replace('"glm":', '"glm47": Glm4MoeDetector,\n        "glm":')
    patched = patch({PARSER: text, DETECTOR: "class Glm47MoeDetector: ..."}, OURS, TYPES)
    assert (patched.state, patched.files, patched.parsers) == ("present", {}, ["glm47", "glm", "glm45", "gpt-oss"])
    assert patched.steps == [{"file": PARSER, "piece": "parser glm47", "did": "already there"}]


def test_functions_of_the_release_are_left() -> None:
    theirs = "def json_schema_types(schema, root, depth=1, more=None):\n    return 'theirs'\n"
    sources = stock(utils=STOCK[UTILS] + theirs)
    patched = patch(sources, OURS, TYPES)
    assert patched.files[UTILS].startswith(sources[UTILS])
    assert patched.files[UTILS].count("def json_schema_types") == 1
    assert patched.files[UTILS].count("def infer_type_from_json_schema") == 1
    assert done(patched)[PIECES[1]] == "already there"
    assert patch({**sources, **patched.files}, OURS, TYPES).files == patched.files


def test_a_release_that_has_both_functions_keeps_its_utils() -> None:
    theirs = TYPES.split('"""\n')[1]
    patched = patch(stock(utils=STOCK[UTILS] + theirs), OURS, TYPES)
    assert sorted(patched.files) == [PARSER, DETECTOR]
    assert done(patched) == {**dict.fromkeys(PIECES, "added"), **dict.fromkeys(PIECES[1:3], "already there")}


def test_what_others_put_behind_ours_stays() -> None:
    sources = {**STOCK, UTILS: STOCK[UTILS] + BLOCK + "\nMORE = 1\n"}
    patched = patch(sources, OURS, TYPES)
    assert patched.files[UTILS] == STOCK[UTILS] + "\nMORE = 1\n" + BLOCK


# ---- formatting -------------------------------------------------------------------------------

PARENTHESES = """\
from sglang.srt.function_call.glm4_moe_detector import (
    Glm4MoeDetector,  # and a comment
    Other,
)
"""
ONE_LINE = "from sglang.srt.function_call.glm4_moe_detector import Glm4MoeDetector\n"
FORMATS: dict[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "Windows": lambda text: text.replace("\n", "\r\n"),
    "byte order mark": lambda text: "\ufeff" + text,
    "no newline at the end": lambda text: text.rstrip("\n"),
    "blank lines at the end": lambda text: text + "\n\n\n",
    "form feed": lambda text: "# one\x0c two \x1c three\n" + text,
    "not ASCII": lambda text: '"""Grüße, 世界"""\n' + text,
    "import over lines": lambda text: text.replace(ONE_LINE, PARENTHESES),
    "import and more": lambda text: text.replace(ONE_LINE, ONE_LINE.replace("\n", "; import os\n")),
    "last entry": lambda text: text.replace('        "gpt-oss": GptOssDetector,\n', ""),
    "last entry, no comma": lambda text: text.replace(
        '"glm45": Glm4MoeDetector,\n        "gpt-oss": GptOssDetector,', '"glm45": Glm4MoeDetector'
    ),
    "only entry": lambda text: text.replace('        "glm": Glm4MoeDetector,\n', ""),
    "comments": lambda text: text.replace('"glm45": Glm4MoeDetector,', '"glm45": Glm4MoeDetector,  # é\n        #'),
    "over lines": lambda text: text.replace('"glm45": Glm4MoeDetector', '"glm45":\n            Glm4MoeDetector'),
    "warns": lambda text: text + 'DOUBTFUL = "\\d"\n',
}  # fmt: skip


def check_formatting(sources: dict[str, str]) -> None:
    """Only whole lines are new; what is read of it is right; a second time changes nothing."""
    patched = patch(sources, OURS, TYPES)
    old, new = (text.split("\n") for text in (sources[PARSER], patched.files[PARSER]))
    marked = [line for line in new if line.rstrip("\r").endswith(MARK)]
    assert [line.strip() for line in marked] == [IMPORT, ENTRY]
    assert [line for line in new if line not in marked] == old
    utils = patched.files[UTILS]
    assert utils.startswith(sources[UTILS])
    behind = utils[len(sources[UTILS]) :].replace("\r\n", "\n")
    assert behind == ("" if sources[UTILS].endswith("\n") else "\n") + BLOCK
    for text in (patched.files[PARSER], utils):
        assert len({line[-1:] == "\r" for line in text.split("\n")[:-1]}) == 1
    names = parsers(sources[PARSER])
    assert sorted(patched.parsers) == sorted([*names, "glm47"])
    assert [name for name in patched.parsers if name != "glm47"] == names
    again = patch({**sources, **patched.files}, OURS, TYPES)
    assert again.files == patched.files


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.filterwarnings("error")
def test_formatting_stays(name: str) -> None:
    change = FORMATS[name]
    texts = {file: change(STOCK[file]) for file in STOCK}
    assert name == "as it is" or texts[PARSER] != STOCK[PARSER]
    check_formatting(texts)


@given(
    before=st.lists(st.sampled_from(["qwen", "kimi_k2", "# glm45", ""]), unique=True),
    after=st.lists(st.sampled_from(["step3", "llama3", "# glm47", ""]), unique=True),
    comma=st.booleans(),
    formats=st.sets(st.sampled_from(["Windows", "byte order mark", "no newline at the end", "not ASCII"])),
)
def test_any_registry(before: list[str], after: list[str], comma: bool, formats: set[str]) -> None:
    def line(name: str) -> str:
        return f'        "{name}": GptOssDetector,' if name[:1] not in ("", "#") else f"        {name}".rstrip()

    behind = [line(name) for name in after]
    needs_comma = comma or any("GptOss" in text for text in behind)
    glm45 = '        "glm45": Glm4MoeDetector' + "," * needs_comma
    registry = "\n".join([*map(line, before), glm45, *behind])
    text = re.sub(r'        "glm":.*?GptOssDetector,', lambda _: registry, STOCK[PARSER], flags=re.DOTALL)
    for name in sorted(formats, key=["no newline at the end", "not ASCII", "Windows", "byte order mark"].index):
        text = FORMATS[name](text)
    check_formatting(stock(function_call_parser=text))


# ---- what is refused --------------------------------------------------------------------------


def digests(root: Path) -> dict[str, str]:
    """The digest of every file, temporary ones too."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A release's folder `sglang`."""
    return write(tmp_path / "sglang", STOCK)


def write(root: Path, sources: dict[str, str]) -> Path:
    (root / FOLDER).mkdir(parents=True)
    (root / "version.py").write_text('__version__ = "0.5.4.post2"\n')
    for name, text in sources.items():
        (root / FOLDER / name).write_bytes(text.encode())
    return root


PATCHED = {**STOCK, **patch(STOCK, OURS, TYPES).files}
# What is changed in which file, and what the error says of it.
REFUSED: dict[str, tuple[str, str, str, str]] = {
    "no syntax": (PARSER, "class F", "class class F", "cannot read it"),
    "no syntax in utils": (UTILS, "def", "def def", "cannot read it"),
    "renamed class": (PARSER, "class FunctionCallParser", "class CallParser", "no class FunctionCallParser"),
    "class twice": (PARSER, "class F", "class FunctionCallParser: ...\nclass F", "2 classes FunctionCallParser"),
    "renamed registry": (PARSER, "ToolCallParserEnum", "Registry", "not one annotated assignment of a dict"),
    "registry is made": (PARSER, "]] = {", "]] = BASE | {", "not one annotated assignment of a dict"),
    "registry without type": (PARSER, ": Dict[str, Type[BaseFormatDetector]] =", " =", "not one annotated assignment"),
    "registry takes another": (PARSER, '"glm": Glm4MoeDetector', "**OTHERS", "line 12, that is not a text and"),
    "value is a call": (PARSER, '"glm": Glm4MoeDetector', '"glm": lazy("x")', "line 12, that is not a text and"),
    "no glm45": (PARSER, '"glm45"', '"glm46"', "glm45 is not once in FunctionCallParser.ToolCallParserEnum"),
    "glm45 twice": (PARSER, '"glm":', '"glm45":', "but 2 times"),
    "glm45 in a crowd": (PARSER, 'Glm4MoeDetector,\n        "glm45"', 'Glm4MoeDetector, "glm45"', "line of its own"),
    "followed in its line": (PARSER, 'Glm4MoeDetector,\n        "gpt', 'Glm4MoeDetector, "gpt', "line of its own"),
    "no import": (PARSER, ONE_LINE, "", "Glm4MoeDetector is not imported once"),
    "imported twice": (PARSER, ONE_LINE, ONE_LINE * 2, "is not imported once from sglang.srt.function_call.glm4_moe"),
    "import elsewhere": (PARSER, "call.glm4_moe_detector", "call.glm4", "is not imported once"),
    "imported by another name": (PARSER, "import Glm4MoeDetector", "import Glm4MoeDetector as G", "not imported once"),
    "new abstract method": (BASE, "    def helper", "    @abstractmethod\n    def more", "its abstract method more is"),
    "other arguments": (BASE, "detect_and_parse(self, text, tools)", "detect_and_parse(self, text)", "takes (self, t"),
    "no attribute": (BASE, "self._buffer", "self._rest", "__init__ does not set _buffer"),
    "attribute set later": (BASE, "self.finished: list = []", "pass", "__init__ does not set finished"),
    "no helper": (BASE, "def helper", "def other", "__init__ does not set helper"),
    "no __init__": (BASE, "def __init__", "def setup", "has no __init__"),
    "__init__ needs more": (BASE, "__init__(self)", "__init__(self, *, tokenizer)", "__init__ needs arguments"),
    "no base class": (BASE, "class BaseFormatDetector", "class Base", "no class BaseFormatDetector"),
    "Tool from elsewhere": (BASE, "openai.protocol", "protocol", "does not import Tool from sglang.srt.entrypoints"),
    "no result": (CORE, "class StreamingParseResult", "class Result", "no class StreamingParseResult"),
    "result without calls": (CORE, "calls: list", "items: list", "StreamingParseResult has no calls"),
    "item without parameters": (CORE, "parameters: str", "arguments: str", "ToolCallItem has no parameters"),
    "item needs more": (CORE, "parameters: str", "parameters: str\n    id: str", "ToolCallItem has to be given id"),
    "no StructureInfo": (CORE, "StructureInfo", "Structure", "no StructureInfo"),
    "no _GetInfoFunc": (CORE, "_GetInfoFunc", "_Get", "no _GetInfoFunc"),
    "no imported function": (UTILS, "is_complete", "complete", "no is_complete, which our detector imports"),
    "their function takes less": (UTILS, "def", "def infer_type_from_json_schema(schema): ...\ndef", "does not take 2"),
    "their function needs more": (UTILS, "def", "def json_schema_types(a, b, c, d): ...\ndef", "does not take 3 arg"),
    "their name is no function": (UTILS, "def", "json_schema_types = {}\ndef", "does not take 3 arg"),
}
# The same over files that were patched before.
DAMAGED: dict[str, tuple[str, str, str, str]] = {
    "registered by hand": (PARSER, f"Glm47MoeDetector,  {MARK}", "Glm47MoeDetector,", "knows glm47 itself, yet"),
    "not our detector": (DETECTOR, MARK, "#", "it is there and not ours, yet glm47 is not registered"),
    "no end": (UTILS, f"{MARK}: end\n", "", "our functions have 1 beginnings and 0 ends"),
    "no beginning": (UTILS, f"{MARK}: the types\n", "", "our functions have 0 beginnings and 1 ends"),
    "twice": (UTILS, f"{MARK}: the types\n", f"{MARK}: the types\n{MARK}: the types\n", "have 2 beginnings"),
    "turned round": (UTILS, BLOCK, f"{MARK}: end\n{MARK}: the types\n", "1 beginnings and 1 ends, not one of each"),
    "strange line": (PARSER, "import logging", f"import logging  {MARK}", "line 1 has our mark but is none of our"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_release_that_is_not_as_we_know_it(tmp_path: Path, name: str) -> None:
    check_refused(tmp_path, STOCK, *REFUSED[name])


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_patch(tmp_path: Path, name: str) -> None:
    check_refused(tmp_path, PATCHED, *DAMAGED[name])


def check_refused(tmp_path: Path, sources: dict[str, str], file: str, old: str, new: str, words: str) -> None:
    assert old in sources[file]
    refused({**sources, file: sources[file].replace(old, new)}, tmp_path / "sglang", file, words)


def refused(sources: dict[str, str], at: Path, file: str, words: str, detector: str = OURS, types: str = TYPES) -> None:
    """The error names release, file and mend, and the tree stays as it was."""
    root = write(at, sources)
    before = digests(root)
    with pytest.raises(PatchError) as caught:
        patch_tree(root, detector, types)
    text = str(caught.value)
    assert text.startswith(f"SGLang 0.5.4.post2, {FOLDER}/{file}: ")
    assert words in text
    assert re.search(r"\. Mend: \w.*\.$", text, re.DOTALL)
    assert digests(root) == before
    with pytest.raises(PatchError, match=re.escape(f"{FOLDER}/{file}: ")):
        patch(sources, detector, types)


@pytest.mark.parametrize("file", READ[:-1])
def test_a_missing_file(tmp_path: Path, file: str) -> None:
    refused({name: text for name, text in STOCK.items() if name != file}, tmp_path / "sglang", file, "it is missing")


def test_a_detector_that_is_not_registered(tmp_path: Path) -> None:
    refused({**STOCK, DETECTOR: "import json\n"}, tmp_path / "sglang", DETECTOR, "it is there and not ours, yet glm47")


@pytest.mark.parametrize(
    ("detector", "types", "file", "words"),
    [
        (OURS[1:], TYPES, DETECTOR, "our piece does not begin with # dgx"),
        (OURS, TYPES[1:], "json_schema_types.py", "our piece does not begin with # dgx"),
        (OURS.replace("class Glm", "class Gl"), TYPES, DETECTOR, "no class Glm47MoeDetector"),
        (OURS + "def", TYPES, DETECTOR, "cannot read it"),
        (
            OURS,
            TYPES + "import os\n",
            "json_schema_types.py",
            "not a docstring and the functions json_schema_types and",
        ),
        (OURS, TYPES.replace("infer", "guess"), "json_schema_types.py", "not a docstring and the functions"),
        (OURS, TYPES.replace('"""The two functions."""', "import os"), "json_schema_types.py", "not a docstring and"),
        (OURS, MARK + ":\n", "json_schema_types.py", "not a docstring and the functions"),
        (OURS.replace("import is_complete", "import more"), TYPES, UTILS, "no more, which our detector imports"),
    ],
)
def test_a_piece_that_is_not_one(tmp_path: Path, detector: str, types: str, file: str, words: str) -> None:
    refused(STOCK, tmp_path / "sglang", file, words, detector, types)


@pytest.mark.parametrize(
    ("step", "file", "old", "new"),
    [
        ("_with_lines", PARSER, "tools,  tool", "tools, tool"),
        ("_with_lines", PARSER, '"glm": Glm4MoeDetector', '"glm": GptOssDetector'),
        ("_with_lines", PARSER, "logger =", "logger = 1; logger ="),
        ("_with_lines", PARSER, "class F", "class class F"),
        ("_with_lines", PARSER, f"{IMPORT}\n", f"{IMPORT}\n{IMPORT}\n"),
        ("_with_lines", PARSER, f"{IMPORT}\n", ""),
        ("_with_lines", PARSER, f"        {ENTRY}\n", ""),
        ("_with_lines", PARSER, ENTRY, ENTRY.replace("Glm47", "Glm4")),
        ("_with_lines", PARSER, "A text.\n", f"A text.\n{IMPORT}\n"),
        ("_with_functions", UTILS, "bool(text)", "bool(text) "),
        ("_with_functions", UTILS, "bool(text)", "not text"),
        ("_with_functions", UTILS, "def json_schema_types", "MORE = 1\ndef json_schema_types"),
    ],
)
def test_an_outcome_that_is_not_proved(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str, file: str, old: str, new: str
) -> None:
    """Were the patcher itself wrong, nothing would be written."""
    made: Callable[..., object] = getattr(_parser_patch, step)

    def wrong(*arguments: object) -> object:
        right = made(*arguments)
        text, *rest = right if isinstance(right, tuple) else (right,)
        assert old in text
        text = text.replace(old, new)
        return (text, *rest) if rest else text

    monkeypatch.setattr(_parser_patch, step, wrong)
    before = digests(root)
    with pytest.raises(PatchError, match=f"{FOLDER}/{file}: patched it would .* Mend: "):
        patch_tree(root, OURS, TYPES)
    assert digests(root) == before


@pytest.mark.parametrize("name", ["no syntax", "renamed class", "registry is made", "value is a call"])
def test_parsers_says_the_same(name: str) -> None:
    _, old, new, words = REFUSED[name]
    assert parsers(STOCK[PARSER]) == ["glm", "glm45", "gpt-oss"]
    with pytest.raises(PatchError, match=re.escape(words)):
        parsers(STOCK[PARSER].replace(old, new))


# ---- files ------------------------------------------------------------------------------------


def test_a_tree_is_patched_in_place(root: Path) -> None:
    (root / FOLDER / PARSER).chmod(0o640)
    patched = patch_tree(root, OURS, TYPES)
    assert patched == patch(STOCK, OURS, TYPES)
    assert read(root) == {**STOCK, **patched.files}
    modes = [(root / FOLDER / name).stat().st_mode & 0o777 for name in (PARSER, DETECTOR)]
    assert modes == [0o640, 0o644]
    assert len(digests(root)) == len(READ) + 1


def read(root: Path) -> dict[str, str]:
    return {path.name: path.read_bytes().decode() for path in (root / FOLDER).iterdir()}


def test_looking_writes_nothing(root: Path) -> None:
    before = digests(root)
    assert patch_tree(root, OURS, TYPES, write=False).state == "patched"
    assert digests(root) == before


def test_a_patched_tree_is_not_written_again(root: Path) -> None:
    patch_tree(root, OURS, TYPES)
    before = {path: path.stat() for path in (root / FOLDER).iterdir()}
    patch_tree(root, OURS, TYPES)
    assert {path: path.stat().st_ino for path in (root / FOLDER).iterdir()} == {
        path: status.st_ino for path, status in before.items()
    }


def test_other_line_ends_reach_the_disk(tmp_path: Path) -> None:
    sources = {name: text.replace("\n", "\r\n") for name, text in STOCK.items()}
    root = write(tmp_path / "sglang", sources)
    patched = patch_tree(root, OURS, TYPES)
    assert read(root) == {**sources, **patched.files}
    assert "\n" not in patched.files[PARSER].replace("\r\n", "")


def test_no_release(tmp_path: Path) -> None:
    with pytest.raises(PatchError, match=r"srt/function_call: .*/none has none of these files. Mend: name the folder"):
        patch_tree(tmp_path / "none", OURS, TYPES)


def test_a_file_that_is_no_text(root: Path) -> None:
    (root / FOLDER / CORE).write_bytes(b"\xff\xfe")
    with pytest.raises(PatchError, match=rf"{FOLDER}/{CORE}: it cannot be read from .* Mend: "):
        patch_tree(root, OURS, TYPES)


@pytest.mark.parametrize("failing", range(3))
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["replace", "fdopen", "chmod"])
def test_a_failing_write_is_undone(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str, error: BaseException, failing: int
) -> None:
    """Each of the three files may be the one that fails."""
    count = itertools.count()
    real: Callable[..., object] = getattr(os, call)

    def fails(*arguments: object) -> object:
        if next(count) == failing:
            raise error
        return real(*arguments)

    before = digests(root)
    monkeypatch.setattr(os, call, fails)
    expected = PatchError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        patch_tree(root, OURS, TYPES)
    assert next(count) > failing
    assert digests(root) == before
    if expected is PatchError:
        assert re.search(rf"{FOLDER}: .* cannot be written: .*No space.* Mend: let this user", str(caught.value))


@pytest.mark.parametrize("sources", [STOCK, PATCHED], ids=["new", "renewed"])
@pytest.mark.parametrize("call", ["replace", "fdopen", "chmod"])
@pytest.mark.parametrize("at", range(3))
def test_killed_in_between_each_file_is_whole(tmp_path: Path, sources: dict[str, str], call: str, at: int) -> None:
    """A process that is gone at once undoes nothing."""
    root = write(tmp_path / "sglang", sources)
    detector, types = OURS + "    newer = 1\n", TYPES.replace("None\n", "None  # newer\n")
    whole = {**STOCK, **patch(STOCK, detector, types).files}
    child = os.fork()
    if child == 0:
        count = itertools.count()
        real: Callable[..., object] = getattr(os, call)
        setattr(os, call, lambda *arguments: os._exit(9) if next(count) == at else real(*arguments))
        patch_tree(root, detector, types)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    files = 2 if sources is PATCHED else 3
    assert code == (9 if at < files else 0)
    found = {name: text for name, text in read(root).items() if not name.startswith(".new-")}
    for name, text in found.items():
        assert text in (sources.get(name), whole[name])
    if found[PARSER] == whole[PARSER]:
        # Never registered without the class that is imported for it.
        assert DETECTOR in found
        assert "def json_schema_types" in found[UTILS]
    patch_tree(root, detector, types)
    assert {name: text for name, text in read(root).items() if name in READ} == whole
