#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Documentation of the moe_config_choose action plugin, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: moe_config_choose
short_description: Choose and check the MoE kernel configs of a rollout
version_added: 0.1.0
description:
  - Takes a file for every name that the image looks for, from your directories first, then from those that the
    collection brings.
  - Fails, with every finding, when an entry of a file is malformed or needs more shared memory than the GPU has, when
    none of your files is looked for, or when there is no file and SGLang's default would end the server.
  - Runs on the controller and contacts no host.
options:
  asked:
    description: What M(dgx_spark.sglang.moe_config_info) returned.
    type: dict
    required: true
  directories:
    description: Directories on the controller with files of your own, C(<name>.json) or C(triton_X_Y_Z/<name>.json).
    type: list
    elements: path
    default: []
  device_name:
    description: The GPU's name as its driver gives it.
    type: str
    required: true
  limit:
    description: Shared memory that a block may opt in to, in bytes; the least of all nodes.
    type: int
    required: true
  skip:
    description: Why the server's flags make it read no file, if they do.
    type: str
    default: ""
attributes:
  check_mode:
    description: Can run in check mode; it never changes anything.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
seealso:
  - module: dgx_spark.sglang.moe_config_info
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Choose the files
  dgx_spark.sglang.moe_config_choose:
    asked: "{{ moe_config_asked }}"
    device_name: NVIDIA GB10
    limit: 101376
  register: chosen
"""

RETURN = r"""
files:
  description: The files as M(dgx_spark.sglang.release_write) takes them, each with name, target and content.
  returned: success
  type: list
  elements: dict
rows:
  description: A row a file for people.
  returned: success
  type: list
  elements: dict
notes:
  description: What people should know, a sentence each.
  returned: success
  type: list
  elements: str
"""
