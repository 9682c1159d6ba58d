#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Writes a release onto this node, and lets ranks start with it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_write
short_description: Write a release onto a node beside those that are there, and use it
version_added: 0.1.0
description:
  - Writes files that are to be mounted over those of an image into a directory named after their content, and then
    switches as M(dgx_spark.sglang.release_switch) does. A rank that runs is left alone; what counts is its next start.
  - A release that is there whole is left alone, and one that was damaged is written anew.
options:
  files:
    description: The files of the release. None at all is a release too, the image as it is.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Path inside the release.
        type: str
        required: true
      target:
        description: Absolute path in the container that the file is mounted over.
        type: str
        required: true
      content:
        description: Its text.
        type: str
        required: true
  image:
    description: The image that the release is made for. The node must have it; its id counts, not its name.
    type: str
    required: true
  baked:
    description: Whether a start takes an image that has the files in it (M(dgx_spark.sglang.image_bake)), not mounts.
    type: bool
    default: false
  flags:
    description: Arguments of the server that go with the release, after those of the unit.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(tried) - starts take it until it is kept or given up. Without a release in use, it is kept at once.
      - V(kept) - starts take it for good.
    type: str
    default: tried
    choices: [tried, kept]
attributes:
  check_mode:
    description: Says whether it would write or switch.
    support: full
  diff_mode:
    description: Shows the files against those of the release that is in use.
    support: full
seealso:
  - module: dgx_spark.sglang.release_switch
  - module: dgx_spark.sglang.image_bake
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Try a release of one kernel config
  dgx_spark.sglang.release_write:
    image: "example:1"
    files:
      - name: moe_configs/a.json
        target: /usr/lib/python3/dist-packages/a.json
        content: "{}"
  register: release
"""

RETURN = r"""
release:
  description: The id of the release.
  returned: success
  type: str
  sample: 0123456789ab
before:
  description: The id of the release that was in use for good before; none if there was none.
  returned: success
  type: str
image_id:
  description: The id of the image on the node.
  returned: success
  type: str
files:
  description: Its files, each with name, target and sha256.
  returned: success
  type: list
  elements: dict
flags:
  description: Arguments of the server that go with it.
  returned: success
  type: list
  elements: str
served:
  description: Whether the release is in use for good, and a group has proved to serve with it.
  returned: success
  type: bool
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _image, _release


def ask_image(module: AnsibleModule) -> str:
    """The image's id; a bare node has none in check mode."""
    image = module.params["image"]
    found, said = _image.image_id(image)
    if not found and not module.check_mode:
        module.fail_json(msg=f"There is no {image} here: {said}. Mend: run site.yml with the stage image.")
    return found


def diff(store: _release.Store, files: list[_release.File]) -> list[dict[str, str]]:
    """A diff a file that the release in use has not got, or has otherwise, or that goes."""
    used = store.used()
    old: dict[str, str] = {}
    if used and store.whole(used):
        old = {file["name"]: (store.path(used) / file["name"]).read_text() for file in store.find(used).files}
    new = {file.name: file.content for file in files}
    return [
        {
            "before_header": f"in use: {name}" if name in old else "/dev/null",
            "after_header": name if name in new else "/dev/null",
            "before": old.get(name, ""),
            "after": new.get(name, ""),
        }
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def write(module: AnsibleModule, store: _release.Store) -> dict[str, Any]:
    """Write and switch what is not so yet; returns the result."""
    files = _release.files_from(module.params["files"])
    params = module.params
    image_id = ask_image(module)
    content = _release.Content(files, params["image"], image_id, params["baked"], params["flags"])
    identity = content.id
    kept = params["state"] == "kept"
    switched = store.used() != identity or (kept and store.trial() is not None)
    changed = switched or not store.whole(identity)
    result = {"changed": changed, "release": identity, "before": store.current(), "image_id": image_id}
    if changed and module._diff:
        result["diff"] = diff(store, files)
    if changed and not module.check_mode:
        if not store.whole(identity):
            store.write(content)
        store.keep(identity, served=False) if kept else store.attempt(identity)
    found = store.find(identity) if store.whole(identity) else None
    served = bool(found and found.served and store.current() == identity)
    return {**result, "files": found.files if found else [], "flags": params["flags"], "served": served}


def main() -> None:
    """Write what is not there."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": _release.FILE_OPTIONS,
            },
            "image": {"type": "str", "required": True},
            "baked": {"type": "bool", "default": False},
            "flags": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "default": "tried", "choices": ["tried", "kept"]},
        },
        supports_check_mode=True,
    )
    try:
        result = write(module, _release.Store())
    except _release.ReleaseError as trouble:
        module.fail_json(msg=str(trouble))
    except OSError as trouble:
        module.fail_json(msg=f"The release can't be written: {trouble}. Mend: see that {_release.ROOT} can be written.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
