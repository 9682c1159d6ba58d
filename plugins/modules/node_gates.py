#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Passes gates on a node, by the program that does so before each start of a rank."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_gates
short_description: Pass gates on a node outside of a start
version_added: 0.1.0
description:
  - Runs the program of the gates (C(roles/rank/files/dgx_spark_gates.py)) with a configuration of its own, as for the
    proof that a container of the image sees the GPU. Nothing has to be installed for it.
  - Changes nothing. Fails with what the first gate that is not passed says.
options:
  program:
    description: The text of the program.
    type: str
    required: true
  config:
    description: What it looks at, the content of C(gates.json); what is left out is not looked at.
    type: dict
    required: true
attributes:
  check_mode:
    description: Does nothing in check mode.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Prove that a container of the image sees the GPU
  dgx_spark.sglang.node_gates:
    program: "{{ lookup('ansible.builtin.file', 'dgx_spark_gates.py') }}"
    config:
      image: lmsysorg/sglang:spark
      gpu_devices: [nvidia.com/gpu=all]
      gpu_probe: "{{ lookup('ansible.builtin.file', 'gpu_probe.py') }}"
"""

RETURN = r"""
lines:
  description: What the gates say, one line each.
  returned: always
  type: list
  elements: str
  sample: ["gate docker: passed after 0 s: engine 28.5.1"]
"""

import json
import os
import sys
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    """Write program and configuration where they vanish, and run."""
    module = AnsibleModule(
        argument_spec={
            "program": {"type": "str", "required": True},
            "config": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=False, lines=[])
    program, config = (os.path.join(module.tmpdir, name) for name in ("gates.py", "gates.json"))
    Path(program).write_text(module.params["program"])
    Path(config).write_text(json.dumps(module.params["config"]))
    # Without the journal its lines carry no levels.
    command = ["env", "--unset=JOURNAL_STREAM", sys.executable, "-I", program, config]
    code, said, complained = module.run_command(command)
    lines = said.splitlines()
    if code:
        module.fail_json(msg=(lines or complained.strip().splitlines() or [f"exit code {code}"])[-1], lines=lines)
    module.exit_json(changed=False, lines=lines)


if __name__ == "__main__":
    main()
