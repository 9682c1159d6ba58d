#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Writes a release onto this node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_write
short_description: Write a release onto a node, beside those that are there
version_added: 0.1.0
description:
  - Writes files that are to be mounted over those of an image into a directory named after their content.
  - Nothing uses it until M(dgx_spark.sglang.release_switch) says so. A release that is there whole is left alone, and
    one that was damaged is written anew.
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
attributes:
  check_mode:
    description: Says whether it would write.
    support: full
  diff_mode:
    description: Shows the files against those of the release that is in use.
    support: full
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Write a release of one kernel config
  dgx_spark.sglang.release_write:
    image: "example:1"
    files:
      - name: moe_configs/a.json
        target: /usr/lib/python3/dist-packages/a.json
        content: "{}"
  register: release
"""

RETURN = r"""
image_id:
  description: The id of the image on the node.
  returned: success
  type: str
served:
  description: Whether the release is in use for good, and a group has proved to serve with it.
  returned: success
  type: bool
release:
  description: The id of the release.
  returned: success
  type: str
  sample: 0123456789ab
unproved:
  description: Whether nobody has looked yet if the image reads it.
  returned: success
  type: bool
mounts:
  description: What would be mounted now, each with source and target.
  returned: success
  type: list
  elements: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _release


def diff(store: _release.Store, files: list[_release.File]) -> list[dict[str, str]]:
    """A diff a file that the release in use has not got, or has otherwise, or that goes."""
    used = store.used()
    old: dict[str, str] = {}
    if used and store.whole(used):
        old = {file["name"]: (store.path(used) / file["name"]).read_text() for file in store.find(used).files}
    new = {file.name: file.content for file in files}
    return [
        {
            "before_header": str(Path("current") / name) if name in old else "/dev/null",
            "after_header": name if name in new else "/dev/null",
            "before": old.get(name, ""),
            "after": new.get(name, ""),
        }
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def ask_image(module: AnsibleModule) -> str:
    """The image's id; a bare node has none in check mode."""
    image = module.params["image"]
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", image]
    try:
        code, out, err = module.run_command(command, handle_exceptions=False)
    except OSError as trouble:
        code, out, err = 127, "", str(trouble)
    if code and not module.check_mode:
        module.fail_json(msg=f"There is no {image} here: {err.strip()}. Mend: run site.yml with the stage image.")
    return str(out).strip()


def main() -> None:
    """Write what is not there."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {name: {"type": "str", "required": True} for name in ("name", "target", "content")},
            },
            "image": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    store = _release.Store()
    try:
        files = _release.files_from(module.params["files"])
        image_id = ask_image(module)
        identity = _release.release_id(files, image_id)
        changed = not store.whole(identity)
        result = {"changed": changed, "release": identity, "image_id": image_id}
        result.update(unproved=True, mounts=[], served=False)
        if changed and module._diff:
            result["diff"] = diff(store, files)
        if changed and not module.check_mode:
            store.stage(files, module.params["image"], image_id)
        if store.whole(identity):
            found = store.find(identity)
            served = bool(found.served) and store.current() == identity
            result.update(unproved=found.unproved, mounts=found.mounts, served=served)
    except _release.ReleaseError as trouble:
        module.fail_json(msg=str(trouble))
    except OSError as trouble:
        module.fail_json(msg=f"The release can't be written: {trouble}. Mend: see that {_release.ROOT} can be written.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
