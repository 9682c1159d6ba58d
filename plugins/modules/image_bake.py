#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Builds an image with the files of a release in it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_bake
short_description: Build an image with the files of a release in it
version_added: 0.1.0
description:
  - Builds in a folder of its own, without network. The name of the image follows from the files and the image that it
    is made from, so one that is there is left alone.
options:
  image:
    description: The image to build from. The node must have it.
    type: str
    required: true
  files:
    description: What goes into it, as for M(dgx_spark.sglang.release_write).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Path inside the release.
        type: str
        required: true
      target:
        description: Absolute path in the image.
        type: str
        required: true
      content:
        description: Its text.
        type: str
        required: true
  dockerfile:
    description: >-
      The Dockerfile. Beside it lie C(files/), the files by their path in the image, and C(proofs/), for each proof
      C(NUMBER.py), the program, and C(NUMBER.json), what it is asked.
    type: str
    required: true
  proofs:
    description: What the build proves by the image's own Python; a proof that fails ends the build.
    type: list
    elements: dict
    default: []
    suboptions:
      about:
        description: What is proved.
        type: str
        required: true
        choices: [moe_configs, parsers]
      question:
        description: What the program is asked, with C(strict), so that it ends with an error.
        type: dict
        required: true
  timeout:
    description: How many seconds the build may take.
    type: int
    default: 600
attributes:
  check_mode:
    description: Says whether it would build.
    support: full
  diff_mode:
    description: Has nothing to show.
    support: none
seealso:
  - module: dgx_spark.sglang.release_write
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Bake a kernel config into the image
  dgx_spark.sglang.image_bake:
    image: "example:1"
    dockerfile: "{{ lookup('ansible.builtin.template', 'Dockerfile.j2') }}"
    files:
      - name: moe_configs/a.json
        target: /usr/lib/python3/dist-packages/a.json
        content: "{}"
"""

RETURN = r"""
name:
  description: The name of the image.
  returned: success
  type: str
  sample: localhost/dgx-spark/sglang:0123456789ab
image_id:
  description: Its id, empty if it is not there yet in check mode.
  returned: success
  type: str
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _image, _image_moe, _image_parsers, _release

PROGRAMS = {"moe_configs": _image_moe.RESOLVE, "parsers": _image_parsers.PROVE}


class BuildError(RuntimeError):
    """Why the image could not be built, and the mend."""


def write_context(folder: Path, params: dict[str, Any]) -> None:
    """What the build sees."""
    content = {"Dockerfile": params["dockerfile"]}
    content |= {f"files{file['target']}": file["content"] for file in params["files"]}
    for number, proof in enumerate(params["proofs"]):
        content[f"proofs/{number}.py"] = PROGRAMS[proof["about"]]
        content[f"proofs/{number}.json"] = json.dumps(proof["question"])
    for name in ("files", "proofs"):
        (folder / name).mkdir(parents=True)
    for name, text in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    # COPY takes modes along, whatever the umask here.
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def build(folder: Path, name: str, timeout: int) -> None:
    """Build. BuildError with the end of what Docker said."""
    # Failing steps leave no container behind with BuildKit; the builder before it has to be told.
    command = ["docker", "build", "--network=none", "--force-rm", f"--tag={name}", str(folder)]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        raise BuildError(f"The image was not built in {timeout} s. Mend: look at what slows the node down.") from None
    if done.returncode:
        said = "\n".join(done.stdout.strip().splitlines()[-40:])
        raise BuildError(f"The image can't be built; nothing was changed. Mend what Docker says:\n{said}")


def bake(module: AnsibleModule) -> dict[str, Any]:
    """Build what is not there; returns the result."""
    params = module.params
    base, _ = _image.image_id(params["image"])
    if not base and not module.check_mode:
        raise BuildError(f"There is no {params['image']} here. Mend: run site.yml with the stage image.")
    files = _release.files_from(params["files"])
    name = _release.baked_image(files, base)
    found, _ = _image.image_id(name)
    missing = not found
    if missing and not module.check_mode:
        folder = Path(module.tmpdir) / "bake"
        write_context(folder, params)
        build(folder, name, params["timeout"])
        found, _ = _image.image_id(name)
        if not found:
            raise BuildError(
                f"Docker built {name}, but does not have it. Mend: `docker buildx use default`: other builders keep "
                "their images to themselves."
            )
    return {"changed": missing, "name": name, "image_id": found}


def main() -> None:
    """Bake."""
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": _release.FILE_OPTIONS,
            },
            "dockerfile": {"type": "str", "required": True},
            "proofs": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "about": {"type": "str", "required": True, "choices": sorted(PROGRAMS)},
                    "question": {"type": "dict", "required": True},
                },
            },
            "timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    try:
        module.exit_json(**bake(module))
    except (BuildError, _release.ReleaseError) as trouble:
        module.fail_json(msg=str(trouble))
    except OSError as trouble:
        module.fail_json(msg=f"The image can't be built: {trouble}. Mend: run the stage container_runtime.")


if __name__ == "__main__":
    main()
