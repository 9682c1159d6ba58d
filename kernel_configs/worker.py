"""Compiles launches of one kernel under one Triton, for compiler.py: `python -P worker.py KERNEL.py ARCH`.

Runs alone in a process whose PYTHONPATH holds that Triton, so nothing of ours is imported. It says
{"triton": VERSION} and then answers each JSON line on stdin, a launch as kernel.py describes it, with
{"shared": BYTES} or {"error": WHY}. For Triton 3.4 to 3.9, whose differences stand where they matter.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sys
from typing import Any

import triton
import triton.language as tl
from triton._C.libtriton import ir, nvidia, passes
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler.compiler import make_backend

WARP = 32
# The PTX that CUDA 12.9 speaks, the first that knows sm_121; said outright because Triton would ask ptxas, which is
# not unpacked. It has no part in how much shared memory is allocated.
PTX = 88


def kernel_in(path: str) -> Any:
    """The kernel of a file; Triton reads its source, so it has to be a file."""
    spec = importlib.util.spec_from_file_location("cut_kernel", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fused_moe_kernel


def source_of(kernel: Any, arguments: dict[str, tuple[str, Any]]) -> Any:
    """What Triton's JIT would hand to its compiler for these arguments: {name: (type, detail)}."""
    signature, constants, attributes = {}, {}, {}
    for position, parameter in enumerate(kernel.params):
        kind, detail = arguments[parameter.name]
        signature[parameter.name] = kind
        if kind == "constexpr":
            constants[(position,)] = getattr(tl, detail["dtype"]) if isinstance(detail, dict) else detail
        elif detail:
            attributes[(position,)] = [["tt.divisibility", detail]]
    return ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)


def lower(source: Any, target: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Run Triton's own stages up to its GPU dialect; returns (module, stages, metadata)."""
    backend = make_backend(target)
    parsed = backend.parse_options({**options, "ptx_version": PTX})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    known = (parsed, backend.get_codegen_implementation(parsed), backend.get_module_map(), context)
    # From 3.5 on the target comes first.
    module = source.make_ir(target, *known) if version() >= (3, 5) else source.make_ir(*known)
    stages: dict[str, Any] = {}
    backend.add_stages(stages, parsed, source.language)
    metadata = {"hash": "", "target": target, **parsed.__dict__}
    for stage in ("ttir", "ttgir"):
        module = stages[stage](module, metadata)
    return module, stages, metadata


def version() -> tuple[int, ...]:
    """Triton's version, its first two numbers."""
    return tuple(int(number) for number in triton.__version__.split(".")[:2])


def allocate(module: Any, arch: int) -> int:
    """Run the passes of Triton's next stage up to the allocation of shared memory; returns the bytes."""
    manager = ir.pass_manager(module.context)
    passes.ttgpuir.add_combine_tensor_select_and_if(manager)
    # From 3.8 on: whether a sanitizer is on.
    sanitizer = (False,) if version() >= (3, 8) else ()
    passes.ttgpuir.add_allocate_warp_groups(manager, *sanitizer)
    passes.convert.add_scf_to_cf(manager)
    if version() >= (3, 6):
        passes.gluon.add_inliner(manager)
    if version() >= (3, 5):
        nvidia.passes.ttgpuir.add_allocate_shared_memory_nv(manager, arch, PTX)
    else:
        passes.ttgpuir.add_allocate_shared_memory(manager)
    # From 3.6 on a run has a name.
    manager.run(module, *(("allocate",) if version() >= (3, 6) else ()))
    return int(module.get_int_attr("ttg.shared"))


def shared(kernel: Any, launch: dict[str, Any], arch: int) -> int:
    """Bytes of shared memory a block that a launch needs."""
    arguments = {name: (kind, detail) for name, kind, detail in launch["arguments"]}
    target = GPUTarget("cuda", arch, WARP)
    module, stages, metadata = lower(source_of(kernel, arguments), target, launch["options"])
    if launch.get("whole"):
        # The whole way to LLVM's IR, and what Triton's launcher would compare with the GPU's limit.
        stages["llir"](module, metadata)
        return int(metadata["shared"])
    return allocate(module, arch)


def one_line(error: BaseException) -> str:
    """The reason behind a compile error, without the source that Triton quotes."""
    while error.__cause__:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip(" ^")]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no reason given'}"


def main() -> None:
    """Answer until stdin ends."""
    path, arch = sys.argv[1], int(sys.argv[2])
    kernel = kernel_in(path)
    # The compiler prints its own notes; the answers go where they can't mix.
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        print(json.dumps({"triton": triton.__version__}), file=answers, flush=True)
        for line in sys.stdin:
            try:
                answer: dict[str, Any] = {"shared": shared(kernel, json.loads(line), arch)}
            except Exception as error:  # whatever the compiler refuses with is the answer
                answer = {"error": one_line(error)}
            print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
