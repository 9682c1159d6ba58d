"""The tiny model: the same at every making, of a shape that any tensor parallel size divides."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from lab import model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    model.write(made)
    return made


def test_two_makings_are_equal(folder: Path, tmp_path: Path) -> None:
    model.write(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        path.name: path.read_bytes() for path in folder.iterdir()
    }


@pytest.mark.parametrize("tensor_parallel", [1, 2, 4, 8])
@pytest.mark.parametrize(
    "name",
    [
        "num_attention_heads",
        "num_key_value_heads",
        "moe_intermediate_size",
        "intermediate_size",
        "vocab_size",
    ],
)
def test_the_shape_divides(name: str, tensor_parallel: int) -> None:
    assert model.config()[name] % tensor_parallel == 0


def test_byte_symbols_are_those_of_byte_level_bpe() -> None:
    symbols = model.byte_symbols()
    assert len(set(symbols)) == 256
    assert (symbols[ord("A")], symbols[ord(" ")], symbols[ord("\n")], symbols[0xAD]) == (
        "A",
        "Ġ",
        "Ċ",
        "Ń",
    )


def test_merges_build_words_from_the_left_without_repeating() -> None:
    assert model.merges(["the", "this", "a"]) == [
        ("t", "h"),
        ("th", "e"),
        ("th", "i"),
        ("thi", "s"),
    ]


def test_the_vocabulary_has_no_gaps_and_holds_all_merges() -> None:
    tokenizer = model.tokenizer()
    vocabulary = tokenizer["model"]["vocab"]
    added = [token["id"] for token in tokenizer["added_tokens"]]
    assert sorted([*vocabulary.values(), *added]) == list(range(len(vocabulary) + len(added)))
    assert all(left + right in vocabulary for left, right in tokenizer["model"]["merges"])


def test_the_weights_file_is_as_long_as_its_header_says(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    entries = [entry for name, entry in header.items() if name != "__metadata__"]
    assert max(entry["data_offsets"][1] for entry in entries) == len(content) - 8 - length
    assert header["model.norm.weight"] == {
        **header["model.norm.weight"],
        "dtype": "BF16",
        "shape": [model.SHAPE["hidden_size"]],
    }
