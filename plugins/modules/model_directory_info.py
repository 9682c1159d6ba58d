#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Tells whether a model directory is complete."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_directory_info
short_description: Tell whether a model directory on a node is complete
version_added: 0.1.0
description:
  - Reads a model directory and returns a digest that is equal on all nodes that hold the same
    model.
  - The directory is complete when it was sealed with M(dgx_spark.sglang.model_directory_seal) and
    its digest has not changed since.
  - The folder C(.cache) of the hub's client and the seal itself don't count.
options:
  path:
    description: The model directory.
    type: path
    required: true
  digest_bytes:
    description:
      - Files of up to this many bytes are told apart by their content, larger ones by their name
        and size only.
      - A seal holds only for the value it was made with.
    type: int
    default: 1048576
  manifest:
    description: Whether to return the list of all files.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in check mode and return its result; it never changes anything.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
seealso:
  - module: dgx_spark.sglang.model_directory_seal
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Look at the model on every node
  dgx_spark.sglang.model_directory_info:
    path: /var/lib/dgx-spark/models/glm-4.7-fp8
  register: model_directory
"""

RETURN = r"""
exists:
  description: Whether it is a directory.
  returned: always
  type: bool
files:
  description: Number of files.
  returned: always
  type: int
bytes:
  description: Size of all files together.
  returned: always
  type: int
digest:
  description: sha256 over paths, sizes and the content of small files; none without a directory.
  returned: always
  type: str
marker:
  description: The seal with C(source), C(revision) and C(digest), none without one.
  returned: always
  type: dict
complete:
  description: Whether the seal's digest is the digest now.
  returned: always
  type: bool
problems:
  description: What the directory lacks as a model, such as shards that the index names.
  returned: always
  type: list
  elements: str
manifest:
  description: All files with C(path), C(bytes) and, for small ones, C(sha256).
  returned: when O(manifest=true)
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _model_directory


def main() -> None:
    """Describe the directory."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "digest_bytes": {"type": "int", "default": 1048576},
            "manifest": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    facts = _model_directory.describe(params["path"], params["digest_bytes"], params["manifest"])
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
