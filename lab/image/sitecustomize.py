"""Lets SGLang start on a machine without a GPU. Python runs it first: PYTHONPATH names its folder.

SGLang imports GPU libraries when it loads, and never calls them on a CPU. Two kinds of gap are
filled:

- `triton`, `sgl_kernel` and `torchao` are absent: any of their modules and names can be imported,
  and do nothing.
- Without AMX instructions SGLang takes activation and norm classes from vllm, in place of its own
  that it has just
  defined. It is handed its own back. Without this it falls back to a slow generic model class,
  silently.

And before the CPU computes the experts, `gb10_kernel` plays what a GB10 would make of the kernel configs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FunctionType, ModuleType
from typing import Any

# The version that the images for GB10 carry: names of tuned kernel configurations are made from it.
_ABSENT = {"triton": "3.5.0", "sgl_kernel": "0.3.16", "torchao": "0.9.0"}
# vllm module -> the module of SGLang that asks it for names which it defines itself.
_OWN = {
    "vllm.model_executor.layers.activation": "sglang.srt.layers.activation",
    "vllm.model_executor.layers.layernorm": "sglang.srt.layers.layernorm",
}
_CUSTOM_OPS = "vllm._custom_ops"
_EXPERTS = "sglang.srt.layers.moe.fused_moe_native"
_VLLM = {"vllm", "vllm.model_executor", "vllm.model_executor.layers", _CUSTOM_OPS, *_OWN}


class _Nothing:
    """Can be called, subscripted, joined in a type union and asked for any attribute."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        decorates = len(args) == 1 and not kwargs and isinstance(args[0], (FunctionType, type))
        return args[0] if decorates else _Nothing(f"{self._name}()")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Nothing(f"{self._name}.{name}")

    def __getitem__(self, index: Any) -> _Nothing:
        return self

    def __or__(self, other: Any) -> _Nothing:
        return self

    __ror__ = __or__

    def __repr__(self) -> str:
        return f"<nothing in place of {self._name}>"


class _EmptyModule(ModuleType):
    """A module in which every name is there, and stands for nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        value = _Nothing(f"{self.__name__}.{name}")
        setattr(self, name, value)
        return value


def _ceiling_division(dividend: int, divisor: int) -> int:
    return -(-dividend // divisor)


def _next_power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length() if number > 0 else 1


class _StandIn(MetaPathFinder, Loader):
    """Finds and makes the stand-ins.

    It is asked last, so that the real packages win where they are installed.
    """

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] in _ABSENT or fullname in _VLLM:
            return ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return ModuleType(spec.name) if spec.name in _VLLM else _EmptyModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__
        if name in _OWN:
            own = sys.modules[_OWN[name]]
            module.__dict__["__getattr__"] = lambda attribute: getattr(own, attribute)
        elif name == _CUSTOM_OPS:
            module.__dict__["rotary_embedding"] = None
        elif name in _ABSENT:
            module.__dict__["__version__"] = _ABSENT[name]
            if name == "triton":
                # These two are called, to compute sizes.
                module.__dict__.update(cdiv=_ceiling_division, next_power_of_2=_next_power_of_2)


class _ExpertsLoader(SourceFileLoader):
    """Loads SGLang's experts on CPU, and puts the launches of a GB10 before them."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        from gb10_kernel import before

        module.__dict__["moe_forward_native"] = before(module.__dict__["moe_forward_native"])


class _Experts(MetaPathFinder):
    """Finds that one module; asked first."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname == _EXPERTS else None
        if spec and spec.origin:
            spec.loader = _ExpertsLoader(fullname, spec.origin)
        return spec


sys.meta_path.append(_StandIn())
sys.meta_path.insert(0, _Experts())
