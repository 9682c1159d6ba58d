# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What moe_config_info says of a release is what the release's own code does, for every pinned release of SGLang.

The code is loaded by the program that a rollout runs inside the image, so this proves that program too.
"""

from __future__ import annotations

import ast
import builtins
import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _image_moe, _moe
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import (
    Tile,
    default_tile,
    since,
    tile_from_entry,
    tile_to_entry,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernel_configs import wheels

releases = pytest.mark.parametrize("version", wheels.SGLANG)

GB10 = "NVIDIA GB10"
RESOLVER: dict[str, Any] = {"__name__": "resolver"}
exec(compile(_image_moe.RESOLVE, "RESOLVE", "exec"), RESOLVER)

# Entries that can be told apart, by M; not in order, and with two ties (M 6 and 24).
KEYS = (8, 4, 16, 32, 1, 512)


@cache
def package(version: str) -> Path:
    return wheels.sglang(version) / "sglang"


def load(version: str, triton: str = "3.5.0", **options: Any) -> dict[str, Any]:
    """The release's config module; that it lies where the project says is part of the proof."""
    path = package(version) / _moe.config_folder(version) / "fused_moe_triton_config.py"
    scope: dict[str, Any] = RESOLVER["load"](str(path), options.pop("device", GB10), triton, **options)
    return scope


def a_lookup(
    experts: int = 160,
    n: int = 384,
    dtype: str | None = "fp8_w8a8",
    block_shape: tuple[int, int] | None = None,
    per_channel: bool = False,
) -> _moe.Lookup:
    up, down = (_moe.config_file(experts, n, GB10, dtype, block_shape, per_channel, down) for down in (False, True))
    return _moe.Lookup(up, down, experts, n, dtype, block_shape, per_channel)


LOOKUPS = (
    a_lookup(),
    a_lookup(161, 384, per_channel=True),
    a_lookup(256, 256, block_shape=(128, 128)),
    a_lookup(128, 768, None),
    a_lookup(64, 1024, "int8_w8a8", per_channel=True),
)


def entries(mark: int) -> dict[str, dict[str, int]]:
    """A file's content; mark makes it differ from another's."""
    return {
        str(key): tile_to_entry(Tile(16, 64, 64, group_m=mark, num_warps=4, num_stages=place + 1))
        for place, key in enumerate(KEYS)
    }


# ---- names ------------------------------------------------------------------------------------


@releases
@given(
    experts=st.integers(1, 512),
    n=st.integers(1, 8192),
    device=st.sampled_from([GB10, "NVIDIA H100 80GB HBM3", "x"]),
    dtype=st.sampled_from([None, "fp8_w8a8", "int8_w8a8"]),
    block=st.sampled_from([None, (128, 128), (64, 32)]),
    per_channel=st.booleans(),
    down=st.booleans(),
)
@settings(deadline=None, max_examples=30)
def test_file_name(
    version: str,
    experts: int,
    n: int,
    device: str,
    dtype: str | None,
    block: tuple[int, int] | None,
    per_channel: bool,
    down: bool,
) -> None:
    theirs = load(version, device=device)["get_config_file_name"](
        experts, n, dtype, list(block or (0, 0)), per_channel, down_moe=down
    )
    assert _moe.config_file(experts, n, device, dtype, block, per_channel, down) == theirs


# ---- which file is picked ---------------------------------------------------------------------

DIRECTORIES = (
    "triton_3_1_0",
    "triton_3_3_0",
    "triton_3_3_1",
    "triton_3_4_0",
    "triton_3_5_0",
    "triton_3_5_1",
    "triton_3_10_0",
    "triton_3.6.0",
    "triton_3_6_0",
    "triton_3_5_0+git12",
    "other",
)
TRITONS = ("3.3.0", "3.4.0", "3.5.0", "3.5.1", "3.6.0", "3.5.0+git12", "3.7.1")


def answers(
    version: str, triton: str, lookup: _moe.Lookup, tree: Mapping[str, tuple[bool, bool]] | None
) -> tuple[dict[str, Any], dict[str, _moe.Resolution]]:
    """The resolver's answers for both GEMMs over a real folder, and ours.

    tree: whether each directory below `configs` has the up and the down file; None without `configs`.
    """
    listing = (
        None
        if tree is None
        else {
            name: [file for file, there in zip((lookup.file, lookup.down_file), has, strict=True) if there]
            for name, has in tree.items()
        }
    )
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGLANG_MOE_CONFIG_DIR", root)
        for place, (name, files) in enumerate((listing or {}).items()):
            (Path(root) / "configs" / name).mkdir(parents=True)
            for mark, file in enumerate(files):
                (Path(root) / "configs" / name / file).write_text(json.dumps(entries(2 * place + mark + 1)))
        if listing == {}:
            (Path(root) / "configs").mkdir()
        scope = load(version, triton)
        asked = [lookup.experts, lookup.n, lookup.dtype, *(lookup.block_shape or (0, 0)), lookup.per_channel]
        theirs = {gemm: RESOLVER["answer"](scope, asked, gemm == "down") for gemm in ("up", "down")}
        for answer in theirs.values():
            if answer["path"]:
                answer["path"] = str(Path(answer["path"]).relative_to(Path(root) / "configs"))
    return theirs, {gemm: _moe.resolve(listing, lookup, gemm, version, triton) for gemm in ("up", "down")}


def agree(version: str, gemm: str, theirs: dict[str, Any], ours: _moe.Resolution) -> None:
    assert (theirs["raises"] or "").split(":")[0] == (ours.raises or "").split(":")[0]
    if gemm == "down" and ours.how == "up file" and not since(version, _moe.DOWN_REUSES_UP):
        # There get_moe_configs has no answer, and its caller takes the up file.
        assert (theirs["path"], theirs["entries"]) == (None, None)
    else:
        assert theirs["path"] == ours.path
        assert (theirs["entries"] is None) == (ours.path is None)
    log = " ".join(theirs["log"])
    if theirs["path"] and gemm == "up":
        assert ("Fallback to triton version" in log) == (ours.how == "fallback")
        assert ("Using MoE kernel config from" in log) == (ours.how == "exact")


trees = st.none() | st.dictionaries(st.sampled_from(DIRECTORIES), st.tuples(st.booleans(), st.booleans()))


@releases
@given(triton=st.sampled_from(TRITONS), lookup=st.sampled_from(LOOKUPS), tree=trees)
@example("3.5.0", LOOKUPS[0], {"triton_3_5_0": (True, True)})
@example("3.5.0", LOOKUPS[1], {"triton_3_5_0": (True, False)})
@example("3.5.1", LOOKUPS[0], {"triton_3_5_0": (True, True), "triton_3_4_0": (True, False)})
@example("3.5.1", LOOKUPS[0], {"triton_3_10_0": (True, False), "triton_3_5_0": (True, True)})
@example("3.7.1", LOOKUPS[2], {"triton_3_5_0+git12": (False, False), "triton_3_5_0": (True, False)})
@example("3.5.0+git12", LOOKUPS[2], {"triton_3_5_0+git12": (True, False)})
@settings(deadline=None, max_examples=80)
def test_resolution(
    version: str, triton: str, lookup: _moe.Lookup, tree: Mapping[str, tuple[bool, bool]] | None
) -> None:
    theirs, ours = answers(version, triton, lookup, tree)
    for gemm in ("up", "down"):
        agree(version, gemm, theirs[gemm], ours[gemm])


@releases
@given(
    triton=st.sampled_from(TRITONS),
    existing=st.sets(st.sampled_from([name for name in DIRECTORIES if re.fullmatch(r"triton_[\d_]+", name)])),
)
@settings(deadline=None, max_examples=30)
def test_a_file_in_our_directory_comes_first(version: str, triton: str, existing: set[str]) -> None:
    """Even if every other directory holds one of the same name, and it makes no other lookup fail."""
    directory = _moe.directory_name(version, triton, sorted(existing))
    tree = {**dict.fromkeys(existing, (True, True)), directory: (True, True)}
    theirs, _ = answers(version, triton, LOOKUPS[0], tree)
    assert theirs["up"]["path"] == f"{directory}/{LOOKUPS[0].file}"
    assert theirs["down"]["path"] == f"{directory}/{LOOKUPS[0].down_file}"
    missing, _ = answers(version, triton, LOOKUPS[1], dict.fromkeys(tree, (False, False)))
    assert missing["up"]["raises"] is None


@releases
def test_a_deterministic_server_reads_no_file(version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "triton_3_5_0"
    folder.mkdir(parents=True)
    (folder / LOOKUPS[0].file).write_text(json.dumps(entries(1)))
    monkeypatch.setenv("SGLANG_MOE_CONFIG_DIR", str(tmp_path))
    for deterministic in (False, True):
        found = load(version, deterministic=deterministic)["get_moe_configs"](160, 384, "fp8_w8a8")
        assert (found is None) == deterministic


# ---- which entry is picked --------------------------------------------------------------------


def optimal(scope: dict[str, Any], version: str, lookup: _moe.Lookup, m: int) -> tuple[Any, Any]:
    """try_get_optimal_moe_config's answer for M tokens: the entries for up and down."""
    options: dict[str, Any] = {"return_down_config": True}
    if since(version, _moe.PER_CHANNEL_IN_NAME):
        options["per_channel_quant"] = lookup.per_channel
    up, (down, _) = scope["try_get_optimal_moe_config"](
        (lookup.experts, 2 * lookup.n, 1024),
        (lookup.experts, 1024, lookup.n),
        8,
        lookup.dtype,
        m,
        block_shape=list(lookup.block_shape) if lookup.block_shape else None,
        **options,
    )
    return up, down


@releases
def test_entry(version: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "configs" / "triton_3_5_0"
    folder.mkdir(parents=True)
    lookup = LOOKUPS[0]
    up, down = entries(1), entries(2)
    (folder / lookup.file).write_text(json.dumps(up))
    (folder / lookup.down_file).write_text(json.dumps(down))
    monkeypatch.setenv("SGLANG_MOE_CONFIG_DIR", str(tmp_path))
    scope = load(version)
    picked = set()
    for m in [*range(1, 600), 4096]:
        key = _moe.nearest_entry(KEYS, m)
        assert optimal(scope, version, lookup, m) == (up[str(key)], down[str(key)]), m
        picked.add(key)
    assert picked == set(KEYS)
    assert (_moe.nearest_entry(KEYS, 6), _moe.nearest_entry(KEYS, 24)) == (8, 16)


sizes = st.dictionaries(st.sampled_from([1, 2, 4, 7, 8, 16, 33]), st.sampled_from([16, 32]), min_size=1)


@releases
@given(up=sizes, down=sizes)
@settings(deadline=None, max_examples=25)
def test_pairs(version: str, up: dict[int, int], down: dict[int, int]) -> None:
    """check_pair names exactly the M for which SGLang stops, or overrides the down tile."""
    lookup = LOOKUPS[0]
    files = [{str(key): tile_to_entry(Tile(size, 64, 64)) for key, size in table.items()} for table in (up, down)]
    spans = [re.match(r"M (\d+)(?: to (\d+)| (and more))?:", problem) for problem in _moe.check_pair(*files)]
    named = {m for span in spans if span for m in range(int(span[1]), 50 if span[3] else int(span[2] or span[1]) + 1)}
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SGLANG_MOE_CONFIG_DIR", root)
        folder = Path(root) / "configs" / "triton_3_5_0"
        folder.mkdir(parents=True)
        for name, data in zip((lookup.file, lookup.down_file), files, strict=True):
            (folder / name).write_text(json.dumps(data))
        scope = load(version)
        assert {m for m in range(1, 50) if _objects(scope, version, lookup, m)} == named


def _objects(scope: dict[str, Any], version: str, lookup: _moe.Lookup, m: int) -> bool:
    """Whether the release minds the pair for M tokens, in the way that the project says."""
    del scope["lines"][:]
    try:
        optimal(scope, version, lookup, m)
    except AssertionError:
        assert not since(version, _moe.PAIR_OVERRIDDEN)
        return True
    minds = any("does not match up config" in line for line in scope["lines"])
    assert not minds or since(version, _moe.PAIR_OVERRIDDEN)
    return minds


# ---- without a file ---------------------------------------------------------------------------

KINDS = (
    ("bf16", None, None),
    ("fp8_channel", "fp8_w8a8", None),
    ("fp8_tensor", "fp8_w8a8", None),
    ("fp8_block", "fp8_w8a8", (128, 128)),
    ("fp8_block", "fp8_w8a8", (64, 32)),
    ("int8_channel", "int8_w8a8", None),
)


@releases
@pytest.mark.parametrize(("kind", "dtype", "block"), KINDS)
@pytest.mark.parametrize("limit", [101_376, 131_071, 131_072, 232_448])
def test_default_tile(version: str, kind: str, dtype: str | None, block: tuple[int, int] | None, limit: int) -> None:
    default = load(version, shared_memory=limit)["get_default_config"]
    for experts in (8, 160, 161):
        for m in (1, experts - 1, experts, experts + 1, 8192):
            theirs = default(m, experts, 384, 5120, 8, dtype, False, list(block) if block else None)
            assert default_tile(m, experts, kind, block, version, limit) == tile_from_entry(theirs), (experts, m)


@pytest.mark.parametrize("version", wheels.TRITON)
def test_triton_defaults(version: str) -> None:
    """What a tile without warps and stages is launched with."""
    tree = _tree(wheels.triton(version) / "triton/backends/nvidia/compiler.py")
    (options,) = (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "CUDAOptions")
    defaults = {
        ast.unparse(line.target): ast.unparse(line.value)
        for line in options.body
        if isinstance(line, ast.AnnAssign) and line.value
    }
    tile = Tile(16, 16, 16)
    assert (defaults["num_warps"], defaults["num_stages"]) == (str(tile.num_warps), str(tile.num_stages))


# ---- what decides E and per_channel_quant -----------------------------------------------------


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8-sig"))


def _calls(path: Path, name: str) -> Iterator[ast.Call]:
    """The calls of a function in a file, also through functools.partial."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            words = [ast.unparse(node.func).split(".")[-1], *(ast.unparse(value) for value in node.args[:1])]
            if words[0] == name or words == ["partial", name]:
                yield node


def _keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), None)


@releases
def test_per_channel_in_the_lookup(version: str) -> None:
    calls = list(_calls(package(version) / _moe.config_folder(version) / "fused_moe.py", "try_get_optimal_moe_config"))
    passes = {_keyword(call, "per_channel_quant") for call in calls}
    assert passes == ({"per_channel_quant"} if since(version, _moe.PER_CHANNEL_IN_NAME) else {None})
    shape = _shape(kind="fp8_channel")
    (lookup,) = _moe.lookups(shape, 4, 1, version, GB10, fused=False)
    assert lookup.per_channel == since(version, _moe.PER_CHANNEL_IN_NAME)


@releases
def test_which_quantizations_are_per_channel(version: str) -> None:
    folder = package(version) / "srt/layers/quantization"

    def passed(*names: str) -> set[str | None]:
        paths = [path for name in names for path in folder.glob(name)]
        calls = [call for path in paths for call in _calls(path, "TritonMoeQuantInfo")]
        assert calls
        return {_keyword(call, "per_channel_quant") for call in calls}

    # fp8: by tensors or blocks; w8a8_*: by channels; compressed-tensors: as the checkpoint says.
    assert passed("fp8.py") == {None}
    assert passed("unquant.py") == {None}
    assert passed("w8a8_fp8.py") == passed("w8a8_int8.py") == {"True"}
    fp8 = passed("compressed_tensors/compressed_tensors_moe.py", "compressed_tensors/schemes/*_w8a8_fp8_moe.py")
    assert fp8 - {None} == {"self.weight_quant.strategy == QuantizationStrategy.CHANNEL"}


def _shape(**changes: Any) -> _moe.MoeShape:
    fields: dict[str, Any] = {
        "architecture": "Glm4MoeForCausalLM",
        "experts": 160,
        "shared_experts": 1,
        "top_k": 8,
        "hidden": 5120,
        "intermediate": 1536,
        "kind": "bf16",
        "block_shape": None,
    }
    return _moe.MoeShape(**{**fields, **changes})


# The methods of a model's class by which releases decide; the last but one since 0.5.15, the last since 0.5.23.
HOOKS = (
    "determine_num_fused_shared_experts",
    "_determine_num_fused_shared_experts",
    "shared_experts_fusion_disable_reason",
    "num_fusable_shared_experts",
)


@cache
def _classes(version: str) -> dict[str, ast.ClassDef]:
    """The classes of the model files that decide about fusing, by name."""
    found = {}
    for path in sorted((package(version) / "srt/models").rglob("*.py")):
        if not any(hook in path.read_text(encoding="utf-8-sig") for hook in HOOKS):
            continue
        for node in _tree(path).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = node
    return found


def _hooks(version: str, architecture: str) -> type | None:
    """The class of an architecture with only what decides about fusing; None if the release lacks it."""
    classes = _classes(version)
    if architecture not in classes:
        return None
    order: list[str] = []

    def visit(name: str) -> None:
        if name in classes and name not in order:
            for base in classes[name].bases:
                visit(ast.unparse(base))
            order.append(name)

    visit(architecture)
    body: list[ast.stmt] = []
    for name in order:
        kept: list[ast.stmt] = [
            node
            for node in classes[name].body
            if (isinstance(node, ast.FunctionDef) and node.name in HOOKS)
            or (isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "fused_shared_experts_architecture")
        ]
        bases = [base for base in classes[name].bases if ast.unparse(base) in order]
        body.append(ast.ClassDef(name=name, bases=bases, keywords=[], body=kept or [ast.Pass()], decorator_list=[]))
    scope = Server()
    module = ast.fix_missing_locations(ast.Module(body=body, type_ignores=[]))
    exec(compile(module, architecture, "exec"), scope)
    made: type = scope[architecture]
    made.server = scope  # type: ignore[attr-defined]
    return made


class Server(dict[str, Any]):
    """The names that a model's file would have on a GB10: whatever is not set is false and gives itself."""

    def __init__(self) -> None:
        nothing, fake = RESOLVER["Nothing"](), RESOLVER["Fake"]
        self.arguments = fake(disable_shared_experts_fusion=False, enforce_shared_experts_fusion=False)
        self.arguments.enable_deepep_waterfill = False
        self.parallel = SimpleNamespace(moe_ep_size=1, tp_size=4)
        super().__init__(
            __builtins__={**vars(builtins), "__import__": lambda name, *_: nothing},
            _is_cuda=True,
            _is_hip=False,
            _device_sm=121,
            torch=fake(cuda=fake(get_device_capability=lambda *_: (12, 1))),
            get_global_server_args=lambda: self.arguments,
            get_server_args=lambda: self.arguments,
            get_exec=lambda: fake(moe=self.arguments),
            get_parallel=lambda: self.parallel,
            get_moe_expert_parallel_world_size=lambda: self.parallel.moe_ep_size,
            is_sm90_supported=lambda: False,
        )
        self._nothing = nothing

    def __missing__(self, name: str) -> Any:
        return vars(builtins).get(name, self._nothing)


def decides(version: str, shape: _moe.MoeShape, ep: int) -> bool | None:
    """Whether the release's own code fuses the shared expert; None without such code or such a model."""
    made: Any = _hooks(version, shape.architecture)
    if made is None or not any(hasattr(made, hook) for hook in HOOKS):
        return None
    made.server.parallel.moe_ep_size = ep
    config = SimpleNamespace(
        architectures=[shape.architecture], n_routed_experts=shape.experts, n_shared_experts=shape.shared_experts
    )
    config.text_config = config
    if hasattr(made, "shared_experts_fusion_disable_reason"):
        if made.shared_experts_fusion_disable_reason(config, None):
            return False
        counts = getattr(made, "num_fusable_shared_experts", lambda config: config.n_shared_experts)
        return bool(counts(config) > 0)
    model = made()
    model.config, model.quant_config, model.num_fused_shared_experts = config, None, 0
    next(getattr(model, hook) for hook in HOOKS if hasattr(model, hook))()
    return bool(model.num_fused_shared_experts > 0)


def ours(version: str, shape: _moe.MoeShape, ep: int) -> bool:
    (lookup,) = _moe.lookups(shape, 4, ep, version, GB10)
    assert lookup.experts - shape.experts // ep in (0, 1)
    return lookup.experts > shape.experts // ep


BY_HOOKS = (
    *("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "DeepseekV4ForCausalLM", "Glm4MoeForCausalLM"),
    *("Glm4vMoeForConditionalGeneration", "Glm4MoeLiteForCausalLM", "GlmMoeDsaForCausalLM"),
    *("MiniMaxM3SparseForCausalLM", "MiniMaxM3SparseForConditionalGeneration"),
)


@pytest.mark.parametrize("architecture", BY_HOOKS)
@releases
def test_fused_shared_experts(version: str, architecture: str) -> None:
    told = 0
    for experts in (64, 128, 160, 256, 384):
        for ep in (1, 2, 4):
            shape = _shape(architecture=architecture, experts=experts)
            theirs = decides(version, shape, ep)
            if theirs is not None:
                assert ours(version, shape, ep) == theirs, (experts, ep)
                told += 1
    if not told:
        # Without the code the model, if there is one, keeps its shared experts apart.
        assert architecture == "Glm4vMoeForConditionalGeneration" or not ours(version, shape, 1)
    elif architecture == "Glm4MoeForCausalLM":
        assert since(version, "0.5.6")


@releases
def test_glm_vision_before_it_asks(version: str) -> None:
    """In 0.5.6 and before GLM-4.5V goes by the flag alone, and its layers are those of GLM-4.5."""
    if since(version, "0.5.6.post1"):
        pytest.skip("has a method of its own, see test_fused_shared_experts")
    text = (package(version) / "srt/models/glm4_moe.py").read_text(encoding="utf-8-sig")
    fuses = "self.num_fused_shared_experts" in text
    for ep in (1, 2):
        assert ours(version, _shape(architecture="Glm4vMoeForConditionalGeneration"), ep) == fuses


@releases
def test_qwen_shared_experts(version: str) -> None:
    """Qwen3-Next asks for it on CUDA from a release on, Qwen3.5 and Qwen2 never do."""
    folder = package(version) / "srt/models"

    def asks(name: str) -> bool:
        path = folder / name
        calls = _calls(path, "Qwen2MoeSparseMoeBlock") if path.exists() else ()
        return any(_keyword(call, "enable_cuda_shared_expert_fusion") == "True" for call in calls)

    for architecture, file in (
        ("Qwen3NextForCausalLM", "qwen3_next.py"),
        ("Qwen3_5MoeForConditionalGeneration", "qwen3_5.py"),
        ("Qwen2MoeForCausalLM", "qwen2_moe.py"),
    ):
        same = _shape(architecture=architecture, experts=512, intermediate=512, shared_intermediate=512)
        wider = _shape(architecture=architecture, experts=512, intermediate=512, shared_intermediate=1024)
        assert [ours(version, same, 1), ours(version, same, 2)] == [asks(file)] * 2
        assert not ours(version, wider, 1)
    if asks("qwen3_next.py"):
        (rule,) = (
            ast.unparse(node)
            for node in _tree(folder / "qwen2_moe.py").body
            if isinstance(node, ast.FunctionDef) and node.name == "can_fuse_shared_expert"
        )
        assert "config.shared_expert_intermediate_size != config.moe_intermediate_size" in rule


@pytest.mark.parametrize(
    ("architecture", "file"),
    [
        ("BailingMoeForCausalLM", "bailing_moe.py"),
        ("BailingMoeV2ForCausalLM", "bailing_moe.py"),
        ("Ernie4_5_MoeForCausalLM", "ernie4.py"),
        ("Step3p5ForCausalLM", "step3p5.py"),
    ],
)
@releases
def test_models_that_never_fuse(version: str, architecture: str, file: str) -> None:
    assert not ours(version, _shape(architecture=architecture), 1)
    path = package(version) / "srt/models" / file
    if path.exists():
        calls = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]
        assert not any(_keyword(call, "num_fused_shared_experts") for call in calls)


@releases
def test_local_experts(version: str) -> None:
    """A rank's experts are its share of the routed ones, and the fused one on top."""
    layer = _tree(package(version) / "srt/layers/moe/fused_moe_triton/layer.py")
    assigned = [
        ast.unparse(node.value)
        for node in ast.walk(layer)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "self.num_local_experts"
    ]
    if since(version, "0.5.5.post3"):
        assert assigned[0].endswith(" + num_fused_shared_experts")
    else:
        # Where nothing is fused under expert parallelism, it makes no difference.
        assert assigned[0] == "num_experts // self.moe_ep_size"


def test_the_releases_of_every_change_are_covered() -> None:
    """A release before and one from each change on."""
    changes = (_moe.PER_CHANNEL_IN_NAME, _moe.MOVED, _moe.SCANS_DIRECTORIES, _moe.PAIR_OVERRIDDEN, _moe.DOWN_REUSES_UP)
    for change in changes:
        assert {since(version, change) for version in wheels.SGLANG} == {False, True}
