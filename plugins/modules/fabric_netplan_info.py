#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What the node's netplan files say of the fabric's rails."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fabric_netplan_info
short_description: Tell what a node's netplan files say of the fabric's rails
version_added: 0.1.0
description:
  - Reads all netplan files of the node and finds the definitions that take part in a rail, beside the collection's own
    file, and those in the place of that file which are about something else. Says how the files would be without them,
    and by which interface the node is being managed.
  - Changes nothing.
options:
  interfaces:
    description: The rails.
    type: list
    elements: str
    required: true
  root:
    description: A folder to read netplan's folders and C(/sys) under, for tests.
    type: path
    default: /
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
- name: Look for other definitions of the rails
  dgx_spark.sglang.fabric_netplan_info:
    interfaces: [enp1s0f1np1, enP2p1s0f1np1]
  register: fabric_netplan_seen
"""

RETURN = r"""
files:
  description: The netplan files, in the order in which netplan merges them.
  returned: always
  type: list
  elements: str
  sample: [/etc/netplan/01-netcfg.yaml, /etc/netplan/40-cx7.yaml]
conflicts:
  description: Definitions that are in the way of the collection's own.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
      sample: /etc/netplan/50-cloud-init.yaml
    definition:
      description: Where in the file.
      type: str
      sample: ethernets.enp1s0f1np1
    interface:
      description: The rail, empty for a file that can't be read and for what has nothing to do with a rail.
      type: str
    problem:
      description: What is wrong.
      type: str
    mend:
      description: What to do.
      type: str
    movable:
      description: Whether the role can take it out, or move it to another file.
      type: bool
migrated:
  description: The files without the definitions that can be taken out, and the one with those that are moved.
  returned: always
  type: list
  elements: dict
  contains:
    path:
      description: The file.
      type: str
    content:
      description: What is left; not set where nothing is.
      type: str
    mode:
      description: Its permission bits, in octal.
      type: str
      sample: "0600"
management:
  description: The interfaces by which the node is being managed, of the ssh connection and of the default route.
  returned: always
  type: list
  elements: str
  sample: [enP7s7]
"""

import json
import stat
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _ssh

try:
    from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_netplan, _fabric_node
except ImportError:
    YAML_IS_THERE = False
else:
    YAML_IS_THERE = True


def ip(module: AnsibleModule, *words: str) -> list[dict[str, Any]]:
    """What iproute2 answers, empty where it fails."""
    code, out, _ = module.run_command(["ip", "-json", *words])
    answer: list[dict[str, Any]] = json.loads(out or "[]") if code == 0 else []
    return answer


def mode_of(path: Path) -> str:
    """The permission bits of a file, in octal; a new one is nobody else's business."""
    return f"{stat.S_IMODE(path.stat().st_mode):04o}" if path.exists() else "0600"


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "interfaces": {"type": "list", "elements": "str", "required": True},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    if not YAML_IS_THERE:
        module.fail_json(msg=missing_required_lib("PyYAML (apt-get install python3-yaml)"))
    root = Path(module.params["root"])
    addresses, routes = ip(module, "address", "show"), ip(module, "route", "show", "default")
    seen = _fabric_node.look(root, module.params["interfaces"], addresses, routes, _ssh.connection())
    migrated = [
        {"path": path, "content": content, "mode": mode_of(root / path.lstrip("/"))}
        for path, content in _fabric_netplan.migrated(seen.texts, seen.conflicts).items()
    ]
    module.exit_json(
        changed=False,
        files=list(seen.texts),
        conflicts=[asdict(conflict) for conflict in seen.conflicts],
        migrated=migrated,
        management=seen.management,
    )


if __name__ == "__main__":
    main()
