#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Which MoE kernel configs SGLang looks for, which it takes, and whether they fit the GPU."""

from __future__ import annotations

DOCUMENTATION = r"""
module: moe_config_info
short_description: Tell which MoE kernel configs SGLang looks for and whether they fit the GPU
version_added: 0.1.0
description:
  - From a model's C(config.json), its split over ranks, the versions of SGLang and Triton and the
    name of the GPU, tells the names and the directory of the kernel configs of the fused-MoE Triton
    kernel, which file SGLang takes, what each of its entries needs of shared memory, and what
    happens without a file.
  - Asks the image for its versions and files; no GPU is needed. Where O(image) is not given, it
    answers for the versions and files that it is told.
  - Changes nothing. A container that it starts has no network, and is removed.
  - Files are ignored by a server with C(--enable-deterministic-inference), and by one with another
    C(--moe-runner-backend) than C(triton) or C(auto). Redundant experts (C(--ep-num-redundant-experts))
    and draft models of another shape are not taken into account.
options:
  model_dir:
    description: The model directory on the node; its C(config.json) is read.
    type: path
    required: true
  image:
    description: The image with SGLang, which the node must have. Needs Docker.
    type: str
  sglang_version:
    description:
      - Version of SGLang, V(0.5.4.post2) or newer. A release newer than 0.5.23 is taken to do as that one does.
      - Needed where there is no O(image); else it takes precedence over what the image says.
    type: str
  triton_version:
    description:
      - Version of Triton as C(triton.__version__) gives it.
      - Needed where there is no O(image); else it takes precedence over what the image says.
    type: str
  directories:
    description:
      - The directories below C(configs/) and the files in each, where there is no O(image).
    type: dict
    default: {}
  tp:
    description: Number of ranks that split the model (C(--tp-size)).
    type: int
    required: true
  ep:
    description: Number of groups that share out the experts (C(--ep-size)).
    type: int
    default: 1
  quantization:
    description: Value of C(--quantization), which counts for a checkpoint that is not quantized itself.
    type: str
  fused_shared_experts:
    description:
      - Whether the shared expert is computed as one more routed expert, where the server's flags
        decide that, such as V(false) for C(--disable-shared-experts-fusion).
      - When left out, the model and the release decide. Where that is not known, both names are returned.
    type: bool
  device_name:
    description: Name of the GPU as its driver gives it.
    type: str
    default: NVIDIA GB10
  limit:
    description: Shared memory in bytes that the GPU lets a block opt into (attribute 97 of the CUDA driver).
    type: int
    default: 101376
  mounts:
    description: Files that the server's container would have besides those of the image.
    type: list
    elements: dict
    default: []
    suboptions:
      source:
        description: Path on the node. Either this or C(content).
        type: path
      content:
        description: Its text, for a file that is not there yet.
        type: str
      target:
        description: Path in the container.
        type: str
        required: true
  environment:
    description:
      - Variables of the server's container. SGLang reads C(SGLANG_MOE_CONFIG_DIR), the parent of a
        C(configs/) that replaces its own.
    type: dict
    default: {}
  resolve:
    description:
      - Whether SGLang's own resolver in the image answers too, with O(mounts) in their places. Needs O(image).
      - Where O(sglang_version) and O(triton_version) are given too, the image is asked for nothing else.
    type: bool
    default: false
  timeout:
    description: Seconds within which a container must have answered.
    type: int
    default: 120
attributes:
  check_mode:
    description: Can run in check mode and return its result; it never changes anything.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
seealso:
  - module: dgx_spark.sglang.shared_memory_info
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Ask the image which kernel configs it looks for
  dgx_spark.sglang.moe_config_info:
    model_dir: /var/lib/dgx-spark/models/glm-4.7-fp8
    image: lmsysorg/sglang:spark
    tp: 4
  register: moe_configs

- name: Show what happens without them
  ansible.builtin.debug:
    msg: "{{ item.file }}: {{ item.up.how }}, without it the server {{ item.without_file.verdict }}"
  loop: "{{ moe_configs.lookups }}"

- name: Let SGLang's own resolver look for a file before it is rolled out
  dgx_spark.sglang.moe_config_info:
    model_dir: /var/lib/dgx-spark/models/glm-4.7-fp8
    image: lmsysorg/sglang:spark
    tp: 4
    resolve: true
    mounts:
      - source: /var/lib/dgx-spark/releases/7/E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json
        target: >-
          {{ moe_configs.root }}/configs/{{ moe_configs.directory }}/{{ moe_configs.lookups[0].file }}

- name: Answer for a release that is not on the node
  dgx_spark.sglang.moe_config_info:
    model_dir: /var/lib/dgx-spark/models/glm-4.7-fp8
    sglang_version: 0.5.23
    triton_version: 3.7.1
    tp: 4
"""

RETURN = r"""
moe:
  description: Whether the model has experts.
  returned: always
  type: bool
reason:
  description: Why no file is looked for, or none that is covered here; empty if one is.
  returned: always
  type: str
  sample: the model is dense
shape:
  description: The MoE layers, none for a dense model.
  returned: always
  type: dict
  contains:
    architecture:
      description: The first of C(architectures).
      type: str
    experts:
      description: Number of routed experts.
      type: int
    shared_experts:
      description: Number of shared experts.
      type: int
    top_k:
      description: Experts for each token.
      type: int
    hidden:
      description: Width of the model.
      type: int
    intermediate:
      description: Width of one expert, unsplit.
      type: int
    kind:
      description:
        - Quantization of the experts. One of V(bf16), V(fp8_channel), V(fp8_tensor), V(fp8_block),
          V(int8_channel), or V(other:) and a name.
      type: str
    block_shape:
      description: Block of block-wise scales, n and k; else none.
      type: list
      elements: int
    shared_intermediate:
      description: Width of the shared expert where the model names it, else 0.
      type: int
sglang_version:
  description: Version of SGLang.
  returned: when the model has experts that are covered
  type: str
  sample: 0.5.4.post2
triton_version:
  description: Version of Triton.
  returned: when the model has experts that are covered
  type: str
  sample: 3.5.0
root:
  description:
    - The folder that holds C(configs/), in the container; without O(image) relative to the package.
  returned: when the model has experts that are covered
  type: str
directory:
  description: The directory below C(configs/) where a file is found before any other of its name.
  returned: when the model has experts that are covered
  type: str
  sample: triton_3_5_0
env_dir:
  description: Value of C(SGLANG_MOE_CONFIG_DIR), none if it is not set.
  returned: when the model has experts that are covered
  type: str
lookups:
  description: What each rank looks up. One, or two candidates where it is not known which; none if RV(reason) says why.
  returned: always
  type: list
  elements: dict
  contains:
    file:
      description: Name of the file for both GEMMs, or for the first if there is a RV(lookups[].down_file).
      type: str
      sample: E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8.json
    down_file:
      description: Name of the file for the second GEMM.
      type: str
      sample: E=160,N=384,device_name=NVIDIA_GB10,dtype=fp8_w8a8_down.json
    experts:
      description: Experts of one rank, a fused shared one included.
      type: int
    n:
      description: Width of an expert on one rank.
      type: int
    dtype:
      description: As in the name, none for 16 bits.
      type: str
    block_shape:
      description: As in the name, none without block-wise scales.
      type: list
      elements: int
    per_channel:
      description: Whether the name says C(per_channel_quant=True).
      type: bool
    up:
      description: The file that the first GEMM, gate and up, would take.
      type: dict
      contains: &gemm
        path:
          description: Its path, none if there is none.
          type: str
        how:
          description:
            - V(exact) for the directory of the image's Triton, V(fallback) for another, V(up file) for a second
              GEMM that takes the first one's file, V(default) for no file.
          type: str
        raises:
          description: The error with which the release ends instead, else none.
          type: str
        entries:
          description: The tiles with C(m), C(block_m), C(block_n), C(block_k), C(group_m), C(num_warps),
            C(num_stages), C(bytes) of shared memory and C(fits); none if the content isn't known.
          type: list
          elements: dict
        problems:
          description: What is wrong with the file.
          type: list
          elements: str
        fits:
          description: Whether all entries fit; none if that is not known.
          type: bool
    down:
      description: The file that the second GEMM would take.
      type: dict
      contains: *gemm
    pair_problems:
      description: Where the two files have other BLOCK_SIZE_M for the same number of tokens.
      type: list
      elements: str
    without_file:
      description: What happens without a file.
      type: dict
      contains:
        small:
          description: SGLang's own tile for up to RV(lookups[].experts) tokens, with C(tile), C(bytes) and C(fits).
          type: dict
        large:
          description: The same for more tokens.
          type: dict
        verdict:
          description: What the server does.
          type: str
          sample: fails at the first forward of more than 160 tokens
    resolved:
      description: What SGLang's own resolver answered, none unless O(resolve=true).
      type: dict
      contains:
        up:
          description: Path of the file that it read, none for the default.
          type: str
        down:
          description: The same for the second GEMM. Before 0.5.16 none where the first one's file is taken.
          type: str
    raised:
      description: The errors with which the resolver ended, empty without them or without O(resolve=true).
      type: list
      elements: str
question:
  description: What SGLang's own resolver is asked with O(resolve=true).
  returned: when the model reads kernel configs
  type: dict
"""

import json
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _image, _image_moe, _moe
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import shared_bytes, tile_facts


def read_model(directory: str) -> dict[str, Any]:
    """config.json, with what ModelOpt keeps in a file of its own. ValueError with the mend."""
    try:
        config = json.loads((Path(directory) / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"There is no config.json in {directory}. Mend: name the model's own directory.") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"config.json in {directory} can't be read: {error}. Mend: copy it again.") from None
    if not isinstance(config, dict):
        raise ValueError(f"config.json in {directory} holds no object. Mend: copy it again.")
    other = Path(directory) / "hf_quant_config.json"
    if "quantization_config" not in config and other.is_file():
        try:
            quant = json.loads(other.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{other} can't be read: {error}. Mend: copy it again.") from None
        config["quantization_config"] = {"quant_method": "modelopt", **quant}
    return config


def ask(params: dict[str, Any], source: str, question: dict[str, Any]) -> dict[str, Any]:
    """What a program of _image_moe says in the image; ImageError when it can't be asked."""
    mounts = [(mount["source"], mount["target"]) for mount in params["mounts"]]
    return _image.ask(params["image"], source, question, params["timeout"], mounts, params["environment"])


def write_contents(module: AnsibleModule) -> None:
    """Give every mount a source: contents go to files that end with the module."""
    for number, mount in enumerate(module.params["mounts"]):
        if mount["source"] is None:
            path = Path(module.tmpdir) / f"mount-{number}.json"
            path.write_text(mount["content"], encoding="utf-8")
            path.chmod(0o644)
            mount["source"] = str(path)


def told(params: dict[str, Any]) -> dict[str, Any]:
    """The answer of an image that is not there: what the options say of it, and the mounts."""
    directories = {name: list(files or ()) for name, files in params["directories"].items()}
    files: dict[str, Any] = {}
    for mount in params["mounts"]:
        target = PurePosixPath(mount["target"])
        directories.setdefault(target.parent.name, []).append(target.name)
        try:
            files[f"{target.parent.name}/{target.name}"] = json.loads(Path(mount["source"]).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            files[f"{target.parent.name}/{target.name}"] = f"cannot be read as JSON: {error}"
    return {
        "sglang": params["sglang_version"],
        "triton": params["triton_version"],
        "package": _moe.config_folder(params["sglang_version"]),
        "env_dir": params["environment"].get("SGLANG_MOE_CONFIG_DIR"),
        "directories": directories,
        "files": files,
    }


class Report:
    """What is returned about each lookup, from the model's shape and the image's answer."""

    def __init__(self, params: dict[str, Any], shape: _moe.MoeShape, image: dict[str, Any]) -> None:
        self.sglang = params["sglang_version"] or image["sglang"]
        self.triton = params["triton_version"] or image["triton"]
        self.directories = image["directories"]
        self.root = image["package"] if image["env_dir"] is None else image["env_dir"]
        self.lookups = _moe.lookups(
            shape, params["tp"], params["ep"], self.sglang, params["device_name"], params["fused_shared_experts"]
        )
        self._shape = shape
        self._files = image["files"]
        self._limit = params["limit"]
        self._device = params["device_name"]

    def about(self, lookup: _moe.Lookup) -> dict[str, Any]:
        """Everything that is known of a lookup without SGLang's own word."""
        found = {
            gemm: _moe.resolve(self.directories, lookup, gemm, self.sglang, self.triton) for gemm in ("up", "down")
        }
        facts = _moe.without_file(lookup, self._shape.kind, self.sglang, self._limit)
        for size in ("small", "large"):
            facts[size]["tile"] = tile_facts(facts[size]["tile"])
        return {
            **asdict(lookup),
            **{gemm: self._gemm(resolution) for gemm, resolution in found.items()},
            "pair_problems": self._pair(found["up"].path, found["down"]),
            "without_file": facts,
            "resolved": None,
            "raised": [],
        }

    def _gemm(self, found: _moe.Resolution) -> dict[str, Any]:
        data = self._files.get(found.path)
        entries, problems = None, []
        if found.path and data is not None:
            name = found.path.partition("/")[2]
            shape = self._shape
            problems = (
                [data]
                if isinstance(data, str)
                else _moe.check_file(name, data, shape.kind, shape.block_shape, self._limit, self._device)
            )
            entries = self._entries(data)
        over = [entry for entry in entries or () if not entry["fits"]]
        return {
            "path": f"{self.root}/configs/{found.path}" if found.path else None,
            "how": found.how,
            "raises": found.raises,
            "entries": entries,
            "problems": problems,
            "fits": False if over else None if entries is None or problems else True,
        }

    def _entries(self, data: Any) -> list[dict[str, Any]]:
        """The entries that can be read; check_file tells of the others."""
        entries = []
        for key, entry in data.items() if isinstance(data, dict) else ():
            try:
                m, tile = int(key), _moe.entry_tile(entry)
            except ValueError:
                continue
            needed = shared_bytes(tile, self._shape.kind, self._shape.block_shape)
            entries.append({"m": m, **tile_facts(tile), "bytes": needed, "fits": needed <= self._limit})
        return entries

    def _pair(self, up: str | None, down: _moe.Resolution) -> list[str]:
        if down.how not in ("exact", "fallback"):
            return []
        if up is None:
            return ["There is a file for down but none for up, whose default tile may have another BLOCK_SIZE_M."]
        pair = self._files.get(up), self._files.get(down.path)
        try:
            return _moe.check_pair(*pair) if all(pair) else []
        except (AttributeError, KeyError, TypeError, ValueError):
            # The files are malformed, which check_file tells of.
            return []


def question(params: dict[str, Any], found: list[_moe.Lookup]) -> dict[str, Any]:
    """What SGLang's own resolver is asked."""
    asked = [[one.experts, one.n, one.dtype, *(one.block_shape or (0, 0)), one.per_channel] for one in found]
    return {"device_name": params["device_name"], "lookups": asked}


def resolved(params: dict[str, Any], found: list[_moe.Lookup]) -> list[dict[str, Any]]:
    """The answers of SGLang's own resolver in the image."""
    answers: list[dict[str, Any]] = ask(params, _image_moe.RESOLVE, question(params, found))["lookups"]
    return [
        {
            "resolved": {gemm: answer[gemm]["path"] if not answer[gemm]["raises"] else None for gemm in ("up", "down")},
            "raised": [answer[gemm]["raises"] for gemm in ("up", "down") if answer[gemm]["raises"]],
        }
        for answer in answers
    ]


def main() -> None:
    """Read the model, ask the image, put it together."""
    module = AnsibleModule(
        argument_spec={
            "model_dir": {"type": "path", "required": True},
            "image": {"type": "str"},
            "sglang_version": {"type": "str"},
            "triton_version": {"type": "str"},
            "directories": {"type": "dict", "default": {}},
            "tp": {"type": "int", "required": True},
            "ep": {"type": "int", "default": 1},
            "quantization": {"type": "str"},
            "fused_shared_experts": {"type": "bool"},
            "device_name": {"type": "str", "default": "NVIDIA GB10"},
            "limit": {"type": "int", "default": 101376},
            "mounts": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "source": {"type": "path"},
                    "content": {"type": "str"},
                    "target": {"type": "str", "required": True},
                },
                "required_one_of": [("source", "content")],
                "mutually_exclusive": [("source", "content")],
            },
            "environment": {"type": "dict", "default": {}},
            "resolve": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not params["image"] and (not params["sglang_version"] or not params["triton_version"] or params["resolve"]):
        module.fail_json(msg="Give an image, or sglang_version and triton_version; resolve works with an image only.")
    if params["timeout"] < 1:
        module.fail_json(msg="timeout must be 1 or more.")
    try:
        shape = _moe.moe_shape(read_model(params["model_dir"]), params["quantization"])
        facts = {"moe": shape is not None, "reason": _moe.why_no_lookup(shape), "shape": shape and asdict(shape)}
        if shape is None or facts["reason"]:
            module.exit_json(changed=False, lookups=[], **facts)
            return
        write_contents(module)
        known = params["sglang_version"] and params["triton_version"] and params["resolve"]
        probed = params["image"] and not known
        image = ask(params, _image_moe.PROBE, {"device_name": params["device_name"]}) if probed else told(params)
        report = Report(params, shape, image)
        lookups = [report.about(lookup) for lookup in report.lookups]
        directory = _moe.directory_name(report.sglang, report.triton, list(report.directories or ()))
        if params["resolve"]:
            lookups = [{**known, **own} for known, own in zip(lookups, resolved(params, report.lookups))]
    except ValueError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        **facts,
        sglang_version=report.sglang,
        triton_version=report.triton,
        root=report.root,
        directory=directory,
        env_dir=image["env_dir"],
        lookups=lookups,
        question=question(params, report.lookups),
    )


if __name__ == "__main__":
    main()
