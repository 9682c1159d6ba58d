"""The catalog, the files that are shipped, their manifest, and the documentation that shows them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _moe
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import Tile, shared_bytes

from kernel_configs import catalog, cli, compare, manifest, plot, wheels
from kernel_configs.catalog import CatalogError, Model, all_targets, models, splits, targets
from kernel_configs.choose import BATCHES, Plan
from kernel_configs.cost import GEMMS
from kernel_configs.gb10 import GB10
from kernel_configs.generate import SHIPPED, bring_up_to_date, config_text
from kernel_configs.manifest import Facts, Manifest, ManifestError, read

FILES = sorted(read(SHIPPED).files)


def test_catalog() -> None:
    """The reference model with every split; FP8 by channel and by block, and 16 bits."""
    found = models()
    assert splits(found["GLM-4.7-FP8"].shape, wheels.SGLANG) == ([1, 2, 4, 8], {})
    assert {"fp8_channel", "fp8_block", "bf16"} <= {one.shape.kind for one in found.values()}
    assert len(found) >= 4


def test_a_split_that_the_blocks_do_not_allow() -> None:
    allowed, left_out = splits(models()["MiniMax-M2"].shape, wheels.SGLANG)
    assert allowed == [1, 2, 4]
    assert "192" in left_out[8]
    assert "Mend" not in left_out[8]


def test_names_by_release() -> None:
    """The shared expert counts from 0.5.6 on, and per_channel_quant is in the name."""
    found = {one.name: one for one in targets(models()["GLM-4.7-FP8"].shape, 4, wheels.SGLANG) if one.gemm == "up"}
    old = found["E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json"]
    new = found["E=161,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8,per_channel_quant=True.json"]
    assert (old.layer.shared, new.layer.shared) == (0, 1)
    assert old.layer.experts == new.layer.experts == 160
    assert set(old.releases) | set(new.releases) == set(wheels.SGLANG)


def test_names_without_the_fusion() -> None:
    """Whoever turns the fusion off looks for 160 experts, with per_channel_quant."""
    names = {one.name for one in all_targets(models().values(), wheels.SGLANG)}
    assert "E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8,per_channel_quant=True_down.json" in names


def test_two_layers_of_one_name() -> None:
    """SGLang's names leave out the hidden size."""
    first = models()["GLM-4.7-FP8"]
    second = Model("Other", ("x/other",), replace(first.shape, hidden=4096))
    with pytest.raises(CatalogError, match="the hidden size"):
        all_targets([first, second], wheels.SGLANG)


def test_two_models_of_one_layer() -> None:
    first = models()["GLM-4.7-FP8"]
    found = all_targets([first, replace(first, name="Twin")], wheels.SGLANG)
    assert {one.models for one in found} == {("GLM-4.7-FP8", "Twin")}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{hf_id: a/b, experts: 8}", "use the keys of MoeShape"),
        (
            "{hf_id: a/b, architecture: A, experts: 8, shared_experts: 0, top_k: 2, hidden: 64, intermediate: 64, "
            "kind: 'other:awq'}",
            "awq",
        ),
    ],
)
def test_bad_catalog(tmp_path: Path, entry: str, message: str) -> None:
    path = tmp_path / "models.yml"
    path.write_text(f"Odd: {entry}\n")
    with pytest.raises(CatalogError, match=message):
        models(path)


def test_a_misspelt_model() -> None:
    with pytest.raises(CatalogError, match=r"did you mean GLM-4\.7-FP8"):
        catalog.model("glm-4.7-fp", models())


# ---- what is shipped --------------------------------------------------------------------------


def test_every_target_is_shipped() -> None:
    """Every name that a supported release looks for, for every Triton; and nothing else."""
    names = {one.name for one in all_targets(models().values(), wheels.SGLANG)}
    assert {path.split("/", 1)[1] for path in FILES} == names
    assert {path.split("/", 1)[0] for path in FILES} == {manifest.folder_of(triton) for triton in wheels.TRITON}
    assert len(FILES) == len(names) * len(wheels.TRITON)
    assert sorted(path.relative_to(SHIPPED).as_posix() for path in SHIPPED.glob("*/*")) == FILES


def test_manifest_agrees_with_the_catalog() -> None:
    by_name = {one.name: one for one in all_targets(models().values(), wheels.SGLANG)}
    for path, facts in read(SHIPPED).files.items():
        folder, name = path.split("/", 1)
        target = by_name[name]
        assert folder == manifest.folder_of(facts.triton)
        assert (facts.gemm, facts.models, facts.releases) == (target.gemm, target.models, target.releases)
        assert (facts.tp, facts.layer) == (target.tp, target.layer)


@pytest.mark.parametrize("triton", wheels.TRITON)
def test_shipped_files_are_sound(triton: str) -> None:
    """Well-formed, below the limit by the formula too, BLOCK_SIZE_M the same for both GEMMs at every M."""
    known = read(SHIPPED).files
    for path in (path for path in FILES if known[path].triton == triton):
        facts = known[path]
        text = (SHIPPED / path).read_text()
        data = json.loads(text)
        assert [int(m) for m in data] == list(BATCHES) == list(facts.needed)
        assert len(text.splitlines()) == len(BATCHES) + 2
        layer = facts.layer
        problems = _moe.check_file(
            path.split("/")[1], data, layer.kind, layer.block_shape, GB10.shared_per_block, GB10.name
        )
        assert problems == []
        assert max(facts.needed.values()) <= GB10.shared_per_block
        for m, entry in data.items():
            by_formula = shared_bytes(_moe.entry_tile(entry), layer.kind, layer.block_shape)
            # Triton 3.4.0 asks for 512 bytes less for the scales of wide block-wise tiles.
            assert 0 <= by_formula - facts.needed[int(m)] <= (512 if triton == "3.4.0" else 0), (path, m)
        if facts.gemm == "up":
            down = json.loads((SHIPPED / path.replace(".json", "_down.json")).read_text())
            assert _moe.check_pair(data, down) == []


def test_the_choice_depends_on_triton_only_by_fp8() -> None:
    """What docs/moe-configs.md says: one set up to 3.7, another from 3.8 on, and 16 bits the same in both."""
    sets: dict[str, dict[str, str]] = {}
    for path in FILES:
        folder, name = path.split("/", 1)
        sets.setdefault(folder, {})[name] = (SHIPPED / path).read_text()
    before = [sets[name] for name in ("triton_3_4_0", "triton_3_5_0", "triton_3_5_1", "triton_3_6_0", "triton_3_7_1")]
    after = [sets[name] for name in ("triton_3_8_0", "triton_3_9_0")]
    assert all(one == before[0] for one in before)
    assert all(one == after[0] for one in after)
    differing = {name for name in before[0] if before[0][name] != after[0][name]}
    assert differing
    assert all("dtype=fp8" in name for name in differing)


# ---- writing ----------------------------------------------------------------------------------


def some_facts() -> Facts:
    one = next(iter(targets(models()["Qwen3-30B-A3B"].shape, 4, wheels.SGLANG)))
    return manifest.facts(one, "3.5.0", Plan({}, {gemm: {1: 4096} for gemm in GEMMS}))


def test_one_line_an_entry() -> None:
    text = config_text({16: Tile(16, 64, 128), 2: Tile(16, 32, 64, 32, 8, 2)})
    assert text.splitlines() == [
        "{",
        '  "2": {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 32, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 32, "num_warps": 8, '
        '"num_stages": 2},',
        '  "16": {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 64, "BLOCK_SIZE_K": 128, "GROUP_SIZE_M": 1, "num_warps": 4, '
        '"num_stages": 3}',
        "}",
    ]


def test_manifest_reads_what_it_writes(tmp_path: Path) -> None:
    one = some_facts()
    whole = Manifest({one.path: one}, {"0.5.4.post2": "ab"}, {"3.5.0": ("0.5.4.post2",)})
    (tmp_path / manifest.NAME).write_text(manifest.render(whole, GB10.shared_per_block, GB10.name))
    assert read(tmp_path) == whole


def test_manifest_does_not_depend_on_the_order_of_making() -> None:
    one = some_facts()
    first, second = {"3.5.0": ("x",), "3.4.0": ("y",)}, {"3.4.0": ("y",), "3.5.0": ("x",)}
    texts = {manifest.render(Manifest({one.path: one}, {}, checked), 1, "GPU") for checked in (first, second)}
    assert len(texts) == 1


@pytest.mark.parametrize("text", [None, "{", "[]", '{"files": {"a": {}}, "kernels": {}, "checked_with": {}}'])
def test_damaged_manifest(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / manifest.NAME).write_text(text)
    with pytest.raises(ManifestError, match="Mend: make it again"):
        read(tmp_path)


def test_folder_is_brought_up_to_date(tmp_path: Path) -> None:
    """A second run changes nothing; a partial one keeps the rest; a full one removes what is no longer made."""
    one = some_facts()
    other = replace(one, path="triton_3_5_0/other.json")
    both = Manifest({one.path: one, other.path: other}, {}, {"3.5.0": ()})
    texts = {one.path: "1\n", other.path: "2\n"}
    assert bring_up_to_date(tmp_path, texts, both, everything=True) == sorted([*texts, manifest.NAME])
    assert bring_up_to_date(tmp_path, texts, both, everything=True) == []
    only = Manifest({one.path: one}, {}, {"3.5.0": ()})
    assert bring_up_to_date(tmp_path, {one.path: "3\n"}, only, everything=False) == [one.path]
    assert set(read(tmp_path).files) == set(texts)
    assert bring_up_to_date(tmp_path, {one.path: "3\n"}, only, everything=True) == [manifest.NAME, other.path]
    assert set(read(tmp_path).files) == {one.path}
    assert not (tmp_path / other.path).exists()


# ---- comparison and documentation -------------------------------------------------------------


def test_published_tiles_say_where_they_are_from() -> None:
    data = json.loads(compare.PUBLISHED.read_text())
    assert data["origin"] == "published tiles"
    assert list(compare.published()) == list(BATCHES)


def test_comparison() -> None:
    """Ours are never predicted worse, as the model chose them; the old default crashes beyond 160 tokens."""
    for row in compare.rows():
        ours, theirs, default, later = (row.layer(whose) for whose in ("ours", "published", "default", "later"))
        assert ours
        assert theirs
        assert later
        assert theirs > 0.99 * ours
        assert later > ours
        assert (default is None) == (row.m > 160)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="kernel_configs generate"):
        compare.rows(tmp_path)


def test_documentation_shows_the_comparison() -> None:
    """Renewed by `python -m kernel_configs docs`."""
    found = compare.rows()
    page = cli.PAGE.read_text()
    table = page.split(cli.BEGIN)[1].split(cli.END)[0].strip()
    assert table == compare.markdown(found)
    assert cli.PLOT.read_text() == plot.svg(found)
    assert cli.PLOT.name in page


def test_documentation_names_every_model_and_term() -> None:
    page = cli.PAGE.read_text()
    assert all(name in page for name in models())
    assert all(f"`{term}`" in page for term in ("memory", "L2", "tensor", "latency"))


def test_plot_is_drawn_within_its_frame() -> None:
    root = ET.fromstring(plot.svg(compare.rows()))
    words = [element for element in root.iter() if element.tag.endswith("text")]
    for element in words:
        assert 0 < float(element.attrib["x"]) < plot.WIDTH
        assert 0 < float(element.attrib["y"]) < plot.HEIGHT
    lines = [
        element.attrib["d"] for element in root.iter() if element.tag.endswith("path") and "L" in element.attrib["d"]
    ]
    assert len(lines) == 2 * len(plot.SERIES)
    for line in lines:
        for point in line[1:].split("L"):
            left, top = (float(number) for number in point.split())
            assert plot.LEFT <= left <= plot.WIDTH - plot.RIGHT
            assert plot.TOP <= top <= plot.HEIGHT - 60
