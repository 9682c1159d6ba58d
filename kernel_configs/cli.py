"""Configs of SGLang's fused-MoE kernel for the NVIDIA GB10, made and checked without a GPU.

generate   make the files that the collection ships
shape      make the files for any MoE layer, given by flags or a config.json
explain    why a tile was chosen, term by term
compare    our tiles beside the published ones and SGLang's defaults
check      hold every entry of a folder of files against the compiler
models     the catalog
docs       renew the table and the plot of docs/moe-configs.md
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _table
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe import MoeShape, moe_shape, why_no_lookup
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import KINDS

from kernel_configs import ROOT, catalog, wheels
from kernel_configs.catalog import CatalogError, Target
from kernel_configs.check import CheckError, check
from kernel_configs.choose import ChoiceError, plan
from kernel_configs.compare import COLUMNS, MODEL, RELEASE, TP, TRITON, cells, markdown, published, rows
from kernel_configs.compiler import CompilerError
from kernel_configs.explain import COLUMNS as EXPLAIN_COLUMNS
from kernel_configs.explain import nearest_batch, sentences, table
from kernel_configs.gb10 import GB10, multiplies_fp8
from kernel_configs.generate import SHIPPED, bring_up_to_date, make
from kernel_configs.kernel import LaunchError
from kernel_configs.plot import svg
from kernel_configs.wheels import WheelError

PAGE = ROOT / "docs" / "moe-configs.md"
PLOT = ROOT / "docs" / "moe-configs.svg"
BEGIN, END = "<!-- compare: begin -->", "<!-- compare: end -->"
# The Triton of the reference image first: the others follow its choice.
FIRST = "3.5.0"
WIDE = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 when all is well, 1 with a sentence on standard error when not."""
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except (CatalogError, CheckError, ChoiceError, CompilerError, LaunchError, WheelError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        print("interrupted; what was compiled is kept", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m kernel_configs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    one = _command(commands, "generate", "make the files that the collection ships", _generate)
    one.add_argument("--out", type=Path, default=SHIPPED, help="folder to write to (files/moe_configs)")
    one.add_argument("--model", action="append", help="only this model of the catalog; may be repeated")
    one.add_argument("--triton", action="append", choices=wheels.TRITON, help="only this Triton; may be repeated")
    _add_shape(commands)
    one = _command(commands, "explain", "why a tile was chosen", _explain)
    one.add_argument("model", help="a model of the catalog")
    one.add_argument("--tp", type=int, default=4, help="ranks (4)")
    one.add_argument("--m", type=int, required=True, help="tokens in a forward pass")
    one.add_argument("--triton", default=FIRST, help=f"Triton ({FIRST})")
    one.add_argument("--sglang", default=RELEASE, choices=wheels.SGLANG, help=f"SGLang ({RELEASE})")
    one = _command(commands, "compare", "our tiles beside the published ones and SGLang's defaults", _compare)
    one.add_argument("--markdown", action="store_true", help="as in the documentation")
    one = _command(commands, "check", "hold every entry of a folder against the compiler", _check)
    one.add_argument("folder", type=Path, help="holds <name>.json or triton_X_Y_Z/<name>.json")
    one.add_argument("--triton", choices=wheels.TRITON, help="for files that lie in no triton_X_Y_Z")
    one.add_argument("--hidden", type=int, default=4096, help="hidden size, for files without a manifest (4096)")
    one.add_argument("--top-k", type=int, default=8, help="experts of a token, for files without a manifest (8)")
    _command(commands, "models", "the catalog", _models)
    _command(commands, "docs", "renew the table and the plot of the documentation", _docs)
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    words: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
    parser.set_defaults(run=run)
    return parser


def _add_shape(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    one = _command(commands, "shape", "make the files for any MoE layer", _shape)
    one.add_argument("--config", type=Path, help="the model's config.json, instead of the sizes")
    for name, words in (
        ("--experts", "routed experts"),
        ("--top-k", "routed experts of a token"),
        ("--hidden", "hidden size"),
        ("--intermediate", "intermediate size of an expert, unsplit"),
    ):
        one.add_argument(name, type=int, help=words)
    one.add_argument("--kind", choices=KINDS, help="quantization of the experts")
    one.add_argument("--block-shape", type=int, nargs=2, metavar=("N", "K"), help="block of block-wise scales")
    one.add_argument(
        "--fused-shared-experts", type=int, default=0, help="shared experts computed with the routed ones (0)"
    )
    one.add_argument("--tp", type=int, required=True, help="ranks that an expert is split into")
    one.add_argument("--device-name", default=GB10.name, help="as the driver names the GPU; the choice is for a GB10")
    one.add_argument("--sglang", default=wheels.SGLANG[-1], choices=wheels.SGLANG, help="whose names")
    one.add_argument("--triton", default=FIRST, choices=wheels.TRITON, help=f"Triton of the image ({FIRST})")
    one.add_argument("--out", type=Path, default=Path("moe_configs"), help="folder to write to (moe_configs)")


class _Progress:
    """Reports with the seconds since the start, on standard error."""

    def __init__(self) -> None:
        self.start = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"[{time.monotonic() - self.start:4.0f} s] {line}", file=sys.stderr, flush=True)


def _generate(options: argparse.Namespace) -> int:
    known = catalog.models()
    wanted = [catalog.model(name, known) for name in options.model] if options.model else list(known.values())
    tritons = options.triton or sorted(wheels.TRITON, key=lambda version: version != FIRST)
    targets = catalog.all_targets(wanted, wheels.SGLANG)
    _write(options.out, targets, tritons, everything=not options.model and not options.triton)
    for one in wanted:
        for tp, reason in catalog.splits(one.shape, wheels.SGLANG)[1].items():
            print(f"left out: {one.name} with tp {tp}: {reason}")
    return 0


def _write(folder: Path, targets: Sequence[Target], tritons: Sequence[str], everything: bool) -> None:
    texts, manifest = make(targets, tritons, _Progress())
    changed = bring_up_to_date(folder, texts, manifest, everything)
    for path in changed:
        print(folder / path)
    print(f"{len(texts)} config files made, {len(changed)} files changed in {folder}")


def _shape(options: argparse.Namespace) -> int:
    shape, fused = _shape_of(options)
    found = catalog.targets(
        shape, options.tp, [options.sglang], options.device_name, fused, (shape.architecture or "a shape by flags",)
    )
    if options.device_name != GB10.name:
        print(f"note: named for {options.device_name}, but chosen for {GB10.name}", file=sys.stderr)
    _write(options.out, found, [options.triton], everything=False)
    return 0


def _shape_of(options: argparse.Namespace) -> tuple[MoeShape, bool | None]:
    """The shape by config.json or flags, and whether its shared experts are fused (None: the release decides)."""
    sizes = ("experts", "top_k", "hidden", "intermediate", "kind")
    if options.config:
        try:
            found = moe_shape(json.loads(options.config.read_text()))
        except OSError as error:
            raise CatalogError(f"{options.config}: {error.strerror}. Mend: name the model's config.json.") from error
        except json.JSONDecodeError as error:
            raise CatalogError(f"{options.config} is not JSON: {error}. Mend: copy it again.") from error
        reason = why_no_lookup(found)
        if reason or found is None:
            raise CatalogError(f"{options.config}: {reason}: SGLang looks for no config file that can be made here.")
        return found, None
    missing = [name for name in sizes if getattr(options, name) is None]
    if missing:
        flags = ", ".join("--" + name.replace("_", "-") for name in missing)
        raise CatalogError(f"The layer is not known: {flags} not given. Mend: give them, or --config.")
    for name in (*sizes[:4], "tp"):
        if getattr(options, name) < 1:
            raise CatalogError(f"--{name.replace('_', '-')} is {getattr(options, name)}. Mend: give 1 or more.")
    if options.top_k > options.experts:
        raise CatalogError(
            f"--top-k {options.top_k} is more than the {options.experts} experts. Mend: correct one of them."
        )
    block = tuple(options.block_shape) if options.block_shape else None
    if (options.kind == "fp8_block") != (block is not None):
        raise CatalogError("--block-shape belongs to --kind fp8_block, and to it alone. Mend: give both or neither.")
    shape = MoeShape(
        architecture="",
        experts=options.experts,
        shared_experts=options.fused_shared_experts,
        top_k=options.top_k,
        hidden=options.hidden,
        intermediate=options.intermediate,
        kind=options.kind,
        block_shape=(block[0], block[1]) if block else None,
    )
    return shape, bool(options.fused_shared_experts)


def _explain(options: argparse.Namespace) -> int:
    if options.m < 1:
        raise CatalogError(f"--m is {options.m}. Mend: give 1 or more tokens.")
    one = catalog.model(options.model, catalog.models())
    layer = catalog.targets(one.shape, options.tp, [options.sglang])[0].layer
    fp8 = multiplies_fp8(options.triton)
    entry = nearest_batch(options.m)
    chosen = {gemm: by_m[entry] for gemm, by_m in plan(layer, fp8).items()}
    is_published = (one.name, options.tp, options.triton, options.sglang) == (MODEL, TP, TRITON, RELEASE)
    others = {"published": published()[entry]} if is_published else {}
    experts = f"{layer.experts} experts" + (f" and {layer.shared} fused shared" if layer.shared else "")
    print(
        f"{one.name}, tp {options.tp}, SGLang {options.sglang}, Triton {options.triton}, "
        f"M {options.m} (entry {entry})\n"
        f"{experts}, top {layer.top_k}, hidden {layer.hidden}, {layer.n} of an expert a rank, {layer.kind}\n"
        f"Predicted for {GB10.name}, not measured; times in µs.\n"
    )
    print(_table.render(table(layer, options.m, fp8, chosen, others), EXPLAIN_COLUMNS, max_width=WIDE))
    print()
    print("\n".join(sentences(layer, options.m, fp8, chosen, others)))
    return 0


def _compare(options: argparse.Namespace) -> int:
    found = rows()
    if options.markdown:
        print(markdown(found))
        return 0
    print(
        f"{MODEL}, tp {TP}, SGLang {RELEASE}, Triton {TRITON}, {GB10.name}. Predicted, not measured. "
        "Others: times ours.\n"
    )
    print(_table.render(cells(found), COLUMNS, max_width=WIDE))
    return 0


def _check(options: argparse.Namespace) -> int:
    result = check(options.folder, options.triton, options.hidden, options.top_k, _Progress())
    for problem in result.problems:
        print(problem)
    print(f"{result.files} files, {result.entries} entries compiled, {len(result.problems)} problems")
    return 1 if result.problems else 0


def _models(options: argparse.Namespace) -> int:
    for one in catalog.models().values():
        allowed, left_out = catalog.splits(one.shape, wheels.SGLANG)
        print(f"{one.name}: {one.shape.kind}, tp {', '.join(str(tp) for tp in allowed)}")
        for tp, reason in left_out.items():
            print(f"  not tp {tp}: {reason}")
    return 0


def _docs(options: argparse.Namespace) -> int:
    found = rows()
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        raise CatalogError(f"{PAGE} has no place for the table. Mend: put {BEGIN} and {END} into it.")
    PAGE.write_text(f"{before}{BEGIN}\n{markdown(found)}\n{END}{after}")
    PLOT.write_text(svg(found))
    print(f"{PAGE}\n{PLOT}")
    return 0
