#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What a node has of Docker and of NVIDIA's Container Toolkit."""

from __future__ import annotations

DOCUMENTATION = r"""
module: container_runtime_info
short_description: Tell which container engine and NVIDIA Container Toolkit a node has
version_added: 0.1.0
description:
  - Tells the versions of both, whether the toolkit refreshes the CDI specification by itself, which CDI devices there
    are, and which distribution the node runs.
  - Changes nothing, and does not need the engine to run.
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return its result; it never changes anything.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: See which engine the node has
  dgx_spark.sglang.container_runtime_info:
  register: seen
"""

RETURN = r"""
engine:
  description: The version of Docker's engine, empty where there is none.
  returned: success
  type: str
  sample: 28.5.1
toolkit:
  description: The version of NVIDIA's Container Toolkit, empty where there is none.
  returned: success
  type: str
  sample: 1.19.0
refresh:
  description: Whether the toolkit has brought its service C(nvidia-cdi-refresh).
  returned: success
  type: bool
devices:
  description: The CDI devices that C(nvidia-ctk cdi list) shows.
  returned: success
  type: list
  elements: str
  sample: ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]
others:
  description: Running containers, besides a rank's, that a restart of Docker would end; none where it has live-restore.
  returned: success
  type: list
  elements: str
distribution:
  description: C(ID) of C(/etc/os-release).
  returned: success
  type: str
  sample: ubuntu
codename:
  description: C(VERSION_CODENAME) of it.
  returned: success
  type: str
  sample: noble
"""

import shlex
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _container_runtime

REFRESH = "nvidia-cdi-refresh.service"


def main() -> None:
    """Ask the programs, and systemd."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)

    def told(program: str, *words: str) -> str:
        path = module.get_bin_path(program)
        # nvidia-ctk writes its log to stderr, and devices to stdout.
        return str(module.run_command([path, *words])[1]) if path else ""

    words = shlex.split(Path("/etc/os-release").read_text(), comments=True)
    system = dict(word.partition("=")[::2] for word in words)
    live_restore = told("docker", "info", "--format", "{{.LiveRestoreEnabled}}").strip()
    loaded = told("systemctl", "show", "--value", "--property=LoadState", REFRESH).strip()
    module.exit_json(
        changed=False,
        engine=_container_runtime.version_in(told("dockerd", "--version")),
        toolkit=_container_runtime.version_in(told("nvidia-ctk", "--version")),
        refresh=loaded == "loaded",
        devices=told("nvidia-ctk", "cdi", "list").split(),
        others=_container_runtime.others(told("docker", "ps", "--format", "{{.Names}}"), live_restore == "true"),
        distribution=system.get("ID", ""),
        codename=system.get("VERSION_CODENAME", ""),
    )


if __name__ == "__main__":
    main()
