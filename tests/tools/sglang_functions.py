"""SGLang's own modules for tool calls, imported from a release's folder without SGLang's dependencies.

Real are the modules below `sglang/srt/function_call`, `sglang/srt/parser` and `sglang/srt/environ.py`. The packages
above them are bare (their __init__ would import torch), the request models are the few of this file, and packages that
are not needed to parse a text have stand-ins, whether they are installed or not.

    root = wheels.sglang("0.5.4.post2") / "sglang"
    parser = function_call(root).FunctionCallParser([tool("get_time")], "glm45")
    detected = detector(root, FILES / "glm47_moe_detector.py")().detect_and_parse(text, [tool("get_time")])

In one process only the release that was loaded last is in sys.modules. Classes of an earlier one go on to work, but
for what their functions import when they run. Nothing is written into the release's folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Literal

from pydantic import BaseModel

PACKAGE = "sglang.srt.function_call"
BARE = ("", "srt", "srt/entrypoints", "srt/entrypoints/openai", "srt/function_call", "srt/parser")


class Function(BaseModel):
    """What a request says of a function; parameters: a JSON schema."""

    description: str | None = None
    name: str
    parameters: object | None = None
    strict: bool = False


class Tool(BaseModel):
    """A function as one of a request's tools."""

    type: str = "function"
    function: Function


class ToolChoiceFuncName(BaseModel):
    """The name of a chosen function."""

    name: str | None = None


class ToolChoice(BaseModel):
    """A request's choice of one function."""

    function: ToolChoiceFuncName
    type: Literal["function"] = "function"


def tool(name: str, parameters: object | None = None, **fields: Any) -> Tool:
    """One tool of a request; parameters: a JSON schema."""
    return Tool(function=Function(name=name, parameters=parameters, **fields))


class _Something(Exception):  # noqa: N818
    """Where an exception, a base class or a type is asked for."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Any option of a class is taken."""


class Anything(ModuleType):
    """A module with whatever is asked of it: each further name is a class, which may be raised and caught."""

    def __init__(self, name: str, **names: object) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        vars(self).update(names)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (_Something,), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


def function_call(root: Path) -> Any:
    """The module sglang.srt.function_call.function_call_parser. root: a release's folder `sglang`."""
    with _release(root):
        return importlib.import_module(f"{PACKAGE}.function_call_parser")


def detector(root: Path, source: Path) -> Any:
    """The class Glm47MoeDetector of the file source, on the base class of a release.

    root: the release's folder `sglang`. The functions of json_schema_types.py, which lies beside source, are put into
    the release's utils first.
    """
    with _release(root):
        utils = importlib.import_module(f"{PACKAGE}.utils")
        types = source.with_name("json_schema_types.py")
        before = dict(vars(utils))
        exec(compile(types.read_text(encoding="utf-8"), str(types), "exec"), vars(utils))
        new = {name for name, value in vars(utils).items() if value is not before.get(name)}
        assert all(isinstance(getattr(utils, name), FunctionType) for name in new - {"__doc__"}), new
        name = f"{PACKAGE}.{source.stem}"
        spec = importlib.util.spec_from_file_location(name, source)
        assert spec
        assert spec.loader
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Glm47MoeDetector


def _stand_ins() -> dict[str, ModuleType]:
    """What is not SGLang's; a name may be missing that no release asks for."""
    orjson = Anything("orjson", loads=json.loads, dumps=lambda value: json.dumps(value).encode())
    vars(orjson)["JSONDecodeError"] = json.JSONDecodeError
    regex = ModuleType("regex")
    vars(regex).update(vars(re), __name__="regex")
    names: tuple[str, ...] = ("partial_json_parser", "partial_json_parser.core", "partial_json_parser.core.exceptions")
    names += ("partial_json_parser.core.options", "xgrammar", "xgrammar.structural_tag", "lxml", "lxml.etree")
    names += ("msgspec", "json_repair", "torch")
    return {"orjson": orjson, "regex": regex, **{name: Anything(name) for name in names}}


@contextmanager
def _release(root: Path) -> Iterator[None]:
    """Imports of sglang are those of root; what belongs to others stands in only as long as this lasts."""
    if not (root / "srt/function_call").is_dir():
        raise FileNotFoundError(f"{root} has no srt/function_call. Mend: give a release's folder `sglang`.")
    for name in [name for name in sys.modules if name.split(".")[0] == "sglang"]:
        del sys.modules[name]
    for folder in BARE:
        name = ".".join(["sglang", *folder.split("/")]).rstrip(".")
        package = sys.modules[name] = ModuleType(name)
        package.__path__ = [str(root / folder)]
        above, _, last = name.rpartition(".")
        if above:
            setattr(sys.modules[above], last, package)
    models = {made.__name__: made for made in (Function, Tool, ToolChoiceFuncName, ToolChoice)}
    for name, made in (
        ("sglang.srt.entrypoints.openai.protocol", Anything("protocol", **models)),
        ("sglang.srt.debug_utils", Anything("debug_utils")),
        ("sglang.srt.debug_utils.cuda_coredump", Anything("cuda_coredump")),
    ):
        sys.modules[name] = made
    others = _stand_ins()
    kept = {name: sys.modules[name] for name in others if name in sys.modules}
    writes = sys.dont_write_bytecode
    importlib.invalidate_caches()
    sys.modules.update(others)
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = writes
        for name in others:
            del sys.modules[name]
        sys.modules.update(kept)
