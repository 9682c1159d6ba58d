"""SGLang's fused-MoE kernel as a release launches it: its source, cut out, and the arguments of a launch.

Both are taken from the release's wheel when they are needed. The arguments come from the release's own launcher,
`invoke_fused_moe_kernel`, run here with tensors that are only shapes: the kernel's signature changes with nearly
every release, and the launcher is what knows it.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import Any, Literal

from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import Tile, tile_to_entry

from kernel_configs import wheels

KERNEL, LAUNCHER = "fused_moe_kernel", "invoke_fused_moe_kernel"

# Neither moves the shared memory (tests/kernel holds that against the compiler): how many tokens, how many experts.
TOKENS = 64
EXPERTS = 128

# Pointers from torch's allocator, and integers that are multiples of it, are compiled as such: the loads of a tile are
# pipelined through shared memory only then. The number is Triton's (its JIT's specialization).
DIVISOR = 16

# Triton's names of the operands' types.
_OPERAND = {
    "bf16": "bf16",
    "fp8_channel": "fp8e4nv",
    "fp8_tensor": "fp8e4nv",
    "fp8_block": "fp8e4nv",
    "int8_channel": "i8",
}


class LaunchError(RuntimeError):
    """A release launches its kernel in a way that is not understood; the text names what."""


@dataclass(frozen=True)
class Job:
    """One GEMM of an MoE layer with one tile.

    n: rows of the GEMM's weight (twice the intermediate size a rank for "up", the hidden size for "down");
    k: its columns; kind: one of _moe_tiles.KINDS; block_shape: (n, k) of block-wise scales.
    """

    gemm: Literal["up", "down"]
    kind: str
    block_shape: tuple[int, int] | None
    n: int
    k: int
    top_k: int
    tile: Tile


@dataclass(frozen=True)
class Parameter:
    """A parameter of the kernel; fixed: compiled in; preset: its default as source text, if it has one."""

    name: str
    fixed: bool
    preset: str | None


@dataclass(frozen=True)
class Kernel:
    """A release's kernel: a file with it and the functions that it calls, and the digest of that text.

    parameters: of the kernel, in order; launcher: the compiled text of the release's launcher.
    """

    path: Path
    digest: str
    parameters: tuple[Parameter, ...]
    launcher: CodeType


@dataclass(frozen=True)
class _Tensor:
    """What a launcher asks of a tensor: Triton's name of its type, and a contiguous shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def stride(self, dimension: int) -> int:
        return math.prod(self.shape[range(self.ndim)[dimension] + 1 :])

    def numel(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True)
class _Type:
    """A number type of triton.language."""

    dtype: str


class _Recorder:
    """Stands for the kernel: kernel[grid](...) notes what it was called with."""

    def __getitem__(self, grid: object) -> _Recorder:
        return self

    def __call__(self, *values: Any, **named: Any) -> None:
        self.values, self.named = values, named


@functools.cache
def kernel(version: str) -> Kernel:
    """The kernel of a release. WheelError or LaunchError when it can't be had."""
    source = _source(version)
    tree = ast.parse(source)
    cut = "import triton\nimport triton.language as tl\n\n" + _cut(source, tree, KERNEL, without=())
    digest = hashlib.sha256(cut.encode()).hexdigest()
    path = wheels.cache() / "kernels" / f"{digest[:16]}.py"
    if not path.is_file():
        write(path, cut)
    launcher = "from __future__ import annotations\n\n" + _cut(source, tree, LAUNCHER, without=(KERNEL,))
    code = compile(launcher, f"{LAUNCHER} of SGLang {version}", "exec")
    return Kernel(path, digest, _parameters(_functions(tree)[KERNEL]), code)


def write(path: Path, text: str) -> None:
    """Put a file in its place at once: other processes see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".new-", delete=False) as file:
        file.write(text)
    os.replace(file.name, path)


def _source(version: str) -> str:
    folder = wheels.sglang(version)
    for path in sorted(folder.glob("sglang/**/fused_moe_triton_kernels.py")):
        text = path.read_text()
        if f"def {KERNEL}(" in text and f"def {LAUNCHER}(" in text:
            return text
    raise LaunchError(
        f"SGLang {version} has no {KERNEL} with its {LAUNCHER} any more. Mend: teach {__name__} its place."
    )


def _functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def _cut(source: str, tree: ast.Module, name: str, without: Iterable[str]) -> str:
    """The text of a function and of the module's functions that it calls, in their order."""
    functions = {each: node for each, node in _functions(tree).items() if each not in without}
    wanted, open_names = set(), [name]
    while open_names:
        current = open_names.pop()
        if current in functions and current not in wanted:
            wanted.add(current)
            open_names += [node.id for node in ast.walk(functions[current]) if isinstance(node, ast.Name)]
    lines = source.splitlines()
    return "\n\n".join("\n".join(_lines(lines, functions[each])) for each in functions if each in wanted) + "\n"


def _parameters(kernel_function: ast.FunctionDef) -> tuple[Parameter, ...]:
    known = kernel_function.args.args
    presets = [None] * (len(known) - len(kernel_function.args.defaults)) + kernel_function.args.defaults
    return tuple(
        Parameter(
            each.arg,
            fixed=each.annotation is not None and "constexpr" in ast.unparse(each.annotation),
            preset=ast.unparse(preset) if preset else None,
        )
        for each, preset in zip(known, presets, strict=True)
    )


def _lines(lines: list[str], node: ast.FunctionDef) -> list[str]:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    return lines[first - 1 : node.end_lineno]


def launch(job: Job, version: str, arch: int = 121, tokens: int = TOKENS) -> dict[str, Any]:
    """How a release launches its kernel for a job, as Triton's JIT sees it.

    arch: compute capability times ten; tokens: in the batch. Returns {"arguments": [[name, type, detail]...],
    "options": {...}}: type "constexpr" with its value as detail, or a pointer's or integer's type with the divisor
    that is known of it (0: none). LaunchError when the launcher wants something that is not known here.
    """
    release = kernel(version)
    recorder = _Recorder()
    names = {**_surroundings(arch), KERNEL: recorder}
    try:
        exec(release.launcher, names)
        names[LAUNCHER](**_call(job, tokens))
    except (NameError, AttributeError, TypeError, KeyError) as error:
        raise LaunchError(
            f"The launcher of SGLang {version} wants something new: {error}. Mend: add it to {__name__}."
        ) from error
    return _as_the_jit_sees(release, recorder)


def _surroundings(arch: int) -> dict[str, Any]:
    """What a launcher finds in its module on a CUDA machine with default settings, by name."""
    types = {"bfloat16": "bf16", "float16": "fp16", "float8_e4m3fn": "fp8e4nv", "int8": "i8"}
    return {
        "functools": functools,
        "torch": SimpleNamespace(**types),
        "tl": SimpleNamespace(bfloat16=_Type("bfloat16"), float16=_Type("float16")),
        "triton": SimpleNamespace(cdiv=lambda whole, part: -(-whole // part), jit=lambda function: function),
        "_is_cuda": True,
        "_is_hip": False,
        "_is_cpu": False,
        "is_batch_invariant_mode_enabled": lambda: False,
        # 0.5.8 asks whether it is an H20.
        "get_device_name": lambda: "NVIDIA GB10",
        # By its name and what it does: compute capability 9.x only, so GB10 never gets swap_ab.
        "is_sm90_supported": lambda: arch // 10 == 9,
        # Programmatic dependent launch: compute capability 9.0 and later.
        "is_arch_support_pdl": lambda: arch // 10 >= 9,
        # SGLANG_MOE_PADDING is off by default.
        "padding_size": 0,
        "scaled_fp8_quant": _scaled_fp8,
        "sglang_per_token_group_quant_fp8": lambda a, group: _by_group(a, group, "fp8e4nv"),
        "sglang_per_token_group_quant_int8": lambda a, group: _by_group(a, group, "i8"),
        "per_token_quant_int8": lambda a: (_Tensor("i8", a.shape), _Tensor("fp32", (a.shape[0], 1))),
    }


def _scaled_fp8(a: _Tensor, scale: _Tensor | None, use_per_token_if_dynamic: bool) -> tuple[_Tensor, _Tensor]:
    return _Tensor("fp8e4nv", a.shape), scale or _Tensor("fp32", (a.shape[0], 1) if use_per_token_if_dynamic else (1,))


def _by_group(a: _Tensor, group: int, dtype: str) -> tuple[_Tensor, _Tensor]:
    return _Tensor(dtype, a.shape), _Tensor("fp32", (a.shape[0], -(-a.shape[1] // group)))


def _call(job: Job, tokens: int) -> dict[str, Any]:
    """The arguments with which SGLang's fused_experts calls the launcher: tensor parallel, no LoRA, no TMA."""
    routed = tokens * job.top_k
    up = job.gemm == "up"
    # group_m only orders the blocks.
    config = {**tile_to_entry(job.tile), "GROUP_SIZE_M": 1}
    # moe_align_block_size pads each expert's tokens to whole tiles.
    padded = routed + (EXPERTS + 1) * (job.tile.block_m - 1)
    return {
        "A": _Tensor("bf16", (tokens if up else routed, job.k)),
        "B": _Tensor(_OPERAND[job.kind], (EXPERTS, job.n, job.k)),
        "bias": None,
        "C": _Tensor("bf16", (tokens, job.top_k, job.n)),
        "A_scale": None,
        "B_scale": _weight_scale(job),
        "B_zp": None,
        "topk_weights": _Tensor("fp32", (tokens, job.top_k)),
        "topk_ids": _Tensor("i32", (tokens, job.top_k)),
        "sorted_token_ids": _Tensor("i32", (padded,)),
        "expert_ids": _Tensor("i32", (-(-padded // job.tile.block_m),)),
        "num_tokens_post_padded": _Tensor("i32", (1,)),
        "mul_routed_weight": not up,
        "top_k": job.top_k if up else 1,
        "config": config,
        "compute_type": _Type("bfloat16"),
        "use_fp8_w8a8": job.kind.startswith("fp8"),
        "use_int8_w8a8": job.kind.startswith("int8"),
        "use_int8_w8a16": False,
        "use_int4_w4a16": False,
        "per_channel_quant": job.kind.endswith("_channel"),
        "block_shape": list(job.block_shape) if job.block_shape else None,
        # Without expert parallelism no expert lives on another rank.
        "filter_expert": False,
    }


def _weight_scale(job: Job) -> _Tensor | None:
    if job.kind == "bf16":
        return None
    if job.kind == "fp8_tensor":
        return _Tensor("fp32", (EXPERTS,))
    if job.block_shape:
        return _Tensor("fp32", (EXPERTS, -(-job.n // job.block_shape[0]), -(-job.k // job.block_shape[1])))
    return _Tensor("fp32", (EXPERTS, job.n, 1))


def _as_the_jit_sees(release: Kernel, call: _Recorder) -> dict[str, Any]:
    given = dict(zip((each.name for each in release.parameters), call.values, strict=False)) | call.named
    arguments = []
    for each in release.parameters:
        if each.name not in given and each.preset is None:
            raise LaunchError(f"The launcher gives no {each.name} to {release.path}. Mend: teach {__name__} why.")
        value = given.pop(each.name) if each.name in given else ast.literal_eval(each.preset or "")
        arguments.append([each.name, *(("constexpr", _plain(value)) if each.fixed else _specialized(value))])
    # What is not the kernel's is Triton's: warps, stages, the kind of launch.
    return {"arguments": arguments, "options": given}


def _plain(value: Any) -> Any:
    return {"dtype": value.dtype} if isinstance(value, _Type) else value


def _specialized(value: Any) -> tuple[str, Any]:
    """The type and divisor that Triton's JIT compiles a run-time argument for."""
    if isinstance(value, _Tensor):
        return f"*{value.dtype}", DIVISOR
    if value is None or value == 1:
        return "constexpr", value
    wide = not -(2**31) <= value < 2**31
    return "i64" if wide else "i32", 0 if value % DIVISOR else DIVISOR
