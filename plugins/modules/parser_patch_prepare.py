#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Patches the tool-call parsers of an image, beside the image, and lets the image prove the patch."""

from __future__ import annotations

DOCUMENTATION = r"""
module: parser_patch_prepare
short_description: Prepare the files that give an image a tool-call parser which it lacks
version_added: 0.1.0
description:
  - Takes the sources of SGLang's tool-call parsers out of the image and looks for the wanted one. Where the release
    has it, nothing is touched.
  - Where V(glm47) is missing, the parser, its helpers and its registration are added to copies of the sources, which
    the image then has to import and to parse GLM-4.7's calls with, in a container without network.
  - Changes nothing. M(dgx_spark.sglang.release_write) writes the files, and a start mounts them.
options:
  image:
    description: The image. It is never pulled.
    type: str
    required: true
  parser:
    description: What launch_server gets as C(--tool-call-parser).
    type: str
    required: true
  detector:
    description: Source of the parser V(glm47), for releases without it.
    type: str
    required: true
  types:
    description: Source of the functions about JSON Schema that it needs.
    type: str
    required: true
  timeout:
    description: How many seconds the image may take for each of two answers.
    type: int
    default: 120
attributes:
  check_mode:
    description: Can run in check mode; it never changes anything. An image that is not there is no error then.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
seealso:
  - module: dgx_spark.sglang.release_write
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Prepare GLM-4.7's tool calls
  dgx_spark.sglang.parser_patch_prepare:
    image: lmsysorg/sglang:spark
    parser: glm47
    detector: "{{ lookup('ansible.builtin.file', 'glm47_moe_detector.py', rstrip=false) }}"
    types: "{{ lookup('ansible.builtin.file', 'json_schema_types.py', rstrip=false) }}"
  register: patch
"""

RETURN = r"""
state:
  description:
    - V(present) - the image has the parser.
    - V(patched) - it gets it by RV(files).
    - V(unknown) - the image is not there, in check mode.
  returned: success
  type: str
sglang_version:
  description: SGLang's release in the image.
  returned: when the image was asked
  type: str
parsers:
  description: The parsers that the server will know.
  returned: when the image was asked
  type: list
  elements: str
files:
  description: The files as M(dgx_spark.sglang.release_write) takes them, each with name, target and content.
  returned: success
  type: list
  elements: dict
steps:
  description: A row a piece for people, with file, piece and did.
  returned: success
  type: list
  elements: dict
proof:
  description: What the image was asked for the proof, none if there was nothing to prove.
  returned: success
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _image, _image_parsers, _parser_patch
from ansible_collections.dgx_spark.sglang.plugins.module_utils._nearest import nearest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._parser_syntax import FOLDER, READ, PatchError

PATCHABLE = "glm47"


def prepare(params: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The result of the module; ImageError or PatchError without one. folder: where files may lie until the end."""
    image, parser = params["image"], params["parser"]
    asked = {"folder": FOLDER, "files": READ}
    answer = _image.ask(image, _image_parsers.PROBE, asked, params["timeout"])
    found = _found(params, answer)
    if parser not in found.parsers:
        known = sorted({*found.parsers, PATCHABLE})
        close = nearest(parser, known)
        raise PatchError(
            f"SGLang {answer['sglang']} has no tool-call parser {parser}; there are {', '.join(known)}. "
            f"Mend: set cluster_flags: {{tool-call-parser: {close or '...'}}}, or take an image that has it."
        )
    files = [
        {"name": f"parsers/{name}", "target": f"{answer['folder']}/{name}", "content": found.files[name]}
        for name in _parser_patch.changed(answer["sources"], found)
    ]
    proof = _image_parsers.question(parser) if files else None
    if proof:
        _prove(params, proof, files, folder)
    return {
        "state": found.state,
        "sglang_version": answer["sglang"],
        "parsers": found.parsers,
        "files": files,
        "steps": found.steps,
        "proof": proof,
    }


def _found(params: dict[str, Any], answer: dict[str, Any]) -> _parser_patch.Patched:
    """What the sources hold, or can be patched to."""
    parser, sources = params["parser"], answer["sources"]
    try:
        if parser == PATCHABLE:
            return _parser_patch.patch(sources, params["detector"], params["types"], answer["sglang"])
        return _present(_parser_patch.parsers(sources.get("function_call_parser.py", "")))
    except PatchError:
        # A release that is written otherwise may have it all the same: its own word counts.
        question = {"parser": parser, "tools": [], "cases": []}
        known = _image.ask(params["image"], _image_parsers.PROVE, question, params["timeout"])["parsers"]
        if parser not in known and parser == PATCHABLE:
            raise
        return _present(known)


def _present(parsers: list[str]) -> _parser_patch.Patched:
    return _parser_patch.Patched(state="present", files={}, steps=[], parsers=parsers)


def _prove(params: dict[str, Any], proof: dict[str, Any], files: list[dict[str, str]], folder: Path) -> None:
    """Let the image import the files, from where a release would mount them, and use the parser."""
    mounts = []
    for number, file in enumerate(files):
        path = folder / f"{number}.py"
        path.write_text(file["content"], encoding="utf-8")
        path.chmod(0o644)
        mounts.append((str(path), file["target"]))
    told = _image.ask(params["image"], _image_parsers.PROVE, proof, params["timeout"], mounts)
    if told["wrong"]:
        raise PatchError(
            f"The patched parser does not work; nothing was changed: {'; '.join(told['wrong'])}. "
            "Mend: report this with the name of the image, or take one that has the parser."
        )


def main() -> None:
    """Ask, patch, prove."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "parser": {"type": "str", "required": True},
            "detector": {"type": "str", "required": True},
            "types": {"type": "str", "required": True},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    if module.params["timeout"] < 1:
        module.fail_json(msg="timeout must be 1 or more.")
    try:
        result = prepare(module.params, Path(module.tmpdir))
    except _image.ImageError as error:
        if not (module.check_mode and isinstance(error, _image.ImageMissingError)):
            module.fail_json(msg=str(error))
        result = {"state": "unknown", "files": [], "steps": [], "proof": None, "msg": str(error)}
    except PatchError as error:
        module.fail_json(msg=f"{module.params['image']}: {error}")
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
