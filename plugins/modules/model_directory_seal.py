#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Seals a complete model directory."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_directory_seal
short_description: Seal a model directory as complete
version_added: 0.1.0
description:
  - Writes the file C(.dgx-spark-complete) with the source, the revision and the digest of the
    directory as it is now.
  - Refuses to seal a directory that lacks something, such as shards that its index names.
options:
  path:
    description: The model directory.
    type: path
    required: true
  source:
    description: Where the model came from, such as the hub's id of it.
    type: str
    required: true
  revision:
    description: The revision that was fetched.
    type: str
    required: true
  digest_bytes:
    description: As in M(dgx_spark.sglang.model_directory_info); both must be given the same value.
    type: int
    default: 1048576
attributes:
  check_mode:
    description: Says whether it would write the seal.
    support: full
  diff_mode:
    description: Shows the seal before and after.
    support: full
seealso:
  - module: dgx_spark.sglang.model_directory_info
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Seal the model after the download
  dgx_spark.sglang.model_directory_seal:
    path: /var/lib/dgx-spark/models/glm-4.7-fp8
    source: zai-org/GLM-4.7-FP8
    revision: main
"""

RETURN = r"""
marker:
  description: Path of the seal.
  returned: success
  type: str
  sample: /var/lib/dgx-spark/models/glm-4.7-fp8/.dgx-spark-complete
digest:
  description: The digest that it holds.
  returned: success
  type: str
problems:
  description: Why it was not sealed.
  returned: when the directory lacks something
  type: list
  elements: str
"""

import os
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _model_directory


def read(path: str) -> str:
    """The text of the present seal, empty when there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Put the seal in place in one step."""
    handle, fresh = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(fresh, 0o644)
    module.atomic_move(fresh, path)


def main() -> None:
    """Look, refuse or seal."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "source": {"type": "str", "required": True},
            "revision": {"type": "str", "required": True},
            "digest_bytes": {"type": "int", "default": 1048576},
        },
        supports_check_mode=True,
    )
    params = module.params
    facts = _model_directory.describe(params["path"], params["digest_bytes"])
    if facts["problems"]:
        module.fail_json(
            msg=f"{params['path']} is not sealed: {'; '.join(facts['problems'])}. "
            "Mend: fetch the model again, or correct path.",
            problems=facts["problems"],
        )
    marker = os.path.join(params["path"], _model_directory.MARKER)
    text = _model_directory.marker_text(params["source"], params["revision"], facts["digest"])
    result = {"marker": marker, "digest": facts["digest"]}
    try:
        before = read(marker)
        result["changed"] = before != text
        if result["changed"] and module._diff:
            headers = {"before_header": marker, "after_header": marker}
            result["diff"] = {"before": before, "after": text, **headers}
        if result["changed"] and not module.check_mode:
            write(module, marker, text)
    except OSError as trouble:
        module.fail_json(msg=f"{marker} can't be written: {trouble.strerror}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
