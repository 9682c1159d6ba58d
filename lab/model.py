"""A tiny random GLM-4 MoE with tokenizer, template and weights, the same bytes at every making.

It has all that a real model folder has, in miniature: the server loads it as it would load GLM-4.7.
"""

from __future__ import annotations

import array
import json
import random
import shutil
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lab import state
from lab.layout import MODEL_ID
from lab.run import say

_FOLDER = state.SOURCE / "tiny_model"
_TEMPLATE = _FOLDER / "chat_template.jinja"
_SPECIAL = (
    "<|endoftext|>",
    "[gMASK]",
    "<sop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
)
_MARKS = (
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
)
_END = ("<|endoftext|>", "<|user|>", "<|observation|>")
# Words of their own make random output readable. Each brings its beginnings along: t, th, the.
_WORDS = (_FOLDER / "words.txt").read_text().split()
_VOCABULARY_MULTIPLE = 64

# GLM-4.7's shape in miniature. Heads, key-value heads, and both intermediate sizes divide by 8: any
# TP of 1, 2, 4, 8. The experts' width is a multiple of 32 a rank, to which SGLang on CPU would pad it.
SHAPE: dict[str, Any] = {
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    "attention_bias": True,
    "attention_dropout": 0.0,
    "first_k_dense_replace": 1,
    "head_dim": 16,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "max_position_embeddings": 8192,
    "moe_intermediate_size": 256,
    "n_group": 1,
    "n_routed_experts": 16,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 16,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 8,
    "num_nextn_predict_layers": 0,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "routed_scaling_factor": 2.5,
    "tie_word_embeddings": False,
    "topk_group": 1,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_qk_norm": True,
}


def byte_symbols() -> list[str]:
    """A printable character for each of the 256 byte values, as byte-level BPE defines it.

    Printable bytes stand for themselves; the others take the characters from U+0100 on, in order.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte if byte in printable else 256 + others.index(byte)) for byte in range(256)]


def merges(words: list[str]) -> list[tuple[str, str]]:
    """The pairs that build each word from its left: (t, h), (th, e)."""
    pairs = {(word[:end], word[end]): None for word in words for end in range(1, len(word))}
    return list(pairs)


def _added(identifier: int, content: str, *, special: bool) -> dict[str, Any]:
    flags = {
        "single_word": False,
        "lstrip": False,
        "rstrip": False,
        "normalized": False,
        "special": special,
    }
    return {"id": identifier, "content": content, **flags}


def tokenizer() -> dict[str, Any]:
    """tokenizer.json: byte-level BPE over bytes and words, then GLM's special tokens."""
    symbols = byte_symbols()
    space = symbols[0x20]
    pairs = merges([*_WORDS, *(space + word for word in _WORDS)])
    names = [*symbols, *(left + right for left, right in pairs)]
    added = [(mark, mark in _SPECIAL) for mark in (*_SPECIAL, *_MARKS)]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            _added(len(names) + place, mark, special=special) for place, (mark, special) in enumerate(added)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {name: place for place, name in enumerate(names)},
            "merges": [list(pair) for pair in pairs],
        },
    }


def _ids() -> dict[str, int]:
    return {token["content"]: token["id"] for token in tokenizer()["added_tokens"]}


def config() -> dict[str, Any]:
    """config.json. The vocabulary is padded, so that it divides by any TP."""
    ids = _ids()
    size = -(-(max(ids.values()) + 1) // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE
    ends = {"eos_token_id": [ids[token] for token in _END], "pad_token_id": ids[_END[0]]}
    return {**SHAPE, **ends, "vocab_size": size}


def shapes(settings: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of each weight, in the order of the file."""
    hidden, head = settings["hidden_size"], settings["head_dim"]
    queries, keys = settings["num_attention_heads"] * head, settings["num_key_value_heads"] * head
    yield "model.embed_tokens.weight", (settings["vocab_size"], hidden)
    for layer in range(settings["num_hidden_layers"]):
        name = f"model.layers.{layer}"
        yield f"{name}.input_layernorm.weight", (hidden,)
        yield f"{name}.post_attention_layernorm.weight", (hidden,)
        for part, rows in (("q", queries), ("k", keys), ("v", keys)):
            yield f"{name}.self_attn.{part}_proj.weight", (rows, hidden)
            yield f"{name}.self_attn.{part}_proj.bias", (rows,)
        yield f"{name}.self_attn.o_proj.weight", (hidden, queries)
        yield f"{name}.self_attn.q_norm.weight", (head,)
        yield f"{name}.self_attn.k_norm.weight", (head,)
        if layer < settings["first_k_dense_replace"]:
            yield from _mlp(f"{name}.mlp", hidden, settings["intermediate_size"])
            continue
        experts, width = settings["n_routed_experts"], settings["moe_intermediate_size"]
        yield f"{name}.mlp.gate.weight", (experts, hidden)
        yield f"{name}.mlp.gate.e_score_correction_bias", (experts,)
        for expert in range(experts):
            yield from _mlp(f"{name}.mlp.experts.{expert}", hidden, width)
        yield from _mlp(f"{name}.mlp.shared_experts", hidden, width * settings["n_shared_experts"])
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (settings["vocab_size"], hidden)


def _mlp(name: str, hidden: int, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.gate_proj.weight", (width, hidden)
    yield f"{name}.up_proj.weight", (width, hidden)
    yield f"{name}.down_proj.weight", (hidden, width)


def _values(name: str, count: int, source: random.Random) -> bytes:
    """Little-endian bfloat16 (a float's upper half): ones for norms, else small random numbers."""
    if "norm" in name:
        floats = array.array("f", [1.0]) * count
    else:
        # Wide enough that the model prefers some tokens clearly: its greedy answer is the same for
        # every TP.
        floats = array.array("f", (source.uniform(-0.15, 0.15) for _ in range(count)))
    if sys.byteorder == "big":
        floats.byteswap()
    return array.array("H", floats.tobytes())[1::2].tobytes()


def weights(settings: dict[str, Any]) -> bytes:
    """model.safetensors: an 8-byte length, a JSON header, then the values."""
    source = random.Random(0)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts: list[bytes] = []
    offset = 0
    for name, shape in shapes(settings):
        count = 1
        for side in shape:
            count *= side
        data = _values(name, count, source)
        header[name] = {
            "dtype": "BF16",
            "shape": list(shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
        parts.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(parts)


def write(folder: Path) -> None:
    """Write all files of the model."""
    settings = config()
    template = _TEMPLATE.read_text()
    ends = {name: settings[name] for name in ("eos_token_id", "pad_token_id")}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": _END[0],
        "pad_token": _END[0],
        "model_max_length": settings["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "additional_special_tokens": list(_SPECIAL),
    }
    documents = {
        "config.json": settings,
        "generation_config.json": {**ends, "do_sample": True, "temperature": 1.0},
        "tokenizer_config.json": tokenizer_config,
        "tokenizer.json": tokenizer(),
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "README.md").write_text(f"# {MODEL_ID}\n\nA tiny random GLM-4 MoE, made by the lab for its own tests.\n")
    (folder / "model.safetensors").write_bytes(weights(settings))


def ensure() -> Path:
    """The model's folder in the cache, made unless it is there. Older ones are removed."""
    folder = state.cache() / "models" / state.key(Path(__file__), _FOLDER)
    if not folder.exists():
        say("making the tiny model ...")
        unfinished = state.scratch() / "model"
        unfinished.mkdir()
        write(unfinished)
        shutil.rmtree(folder.parent, ignore_errors=True)
        folder.parent.mkdir()
        unfinished.rename(folder)
    return folder
