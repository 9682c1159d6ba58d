#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Whether a node's firewall is in force as it is wanted, and how the node is reached."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_info
short_description: Tell whether a node's firewall is in force, and how the node is reached
version_added: 0.1.0
description:
  - Compares the rules that are loaded with those of O(content). To know how nft lists these, they are loaded into a
    network namespace of their own, which lives as long as the comparison and which nothing passes.
  - Tells by which connection Ansible came, so that rules which would close it can be refused before they are loaded.
  - A node without nftables, or without our table, is a result, not an error. Changes nothing. Needs root.
options:
  content:
    description:
      - The rules as they are wanted, as text for C(nft --file).
      - If it is empty, no firewall is wanted.
    type: str
    default: ""
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
- name: See what is in force
  dgx_spark.sglang.firewall_info:
    content: "{{ lookup('ansible.builtin.file', 'firewall.nft') }}"
  register: firewall_seen

- name: Say so where somebody flushed the rules
  ansible.builtin.debug:
    msg: "{{ firewall_seen.problem }}"
  when: not firewall_seen.as_wanted
"""

RETURN = r"""
as_wanted:
  description: Whether what O(content) says is loaded, and will be at boot; without O(content), that nothing is.
  returned: always
  type: bool
  sample: true
problem:
  description: Why RV(as_wanted) is false, else none.
  returned: always
  type: str
  sample: the table inet dgx_spark is not loaded
nft:
  description: Whether C(nft) is installed.
  returned: always
  type: bool
  sample: true
loaded:
  description: Whether our table is loaded, with whatever rules.
  returned: always
  type: bool
  sample: true
seen:
  description: How the node is reached.
  returned: always
  type: dict
  contains:
    client:
      description: The address from which Ansible's ssh connection comes; empty where it is none.
      type: str
      sample: 198.18.0.1
    port:
      description: The TCP port that it came to, 0 where it is none.
      type: int
      sample: 22
    interface:
      description: The interface by which the node answers it; empty where that is not known.
      type: str
      sample: enP7s7
    ways_out:
      description: The interfaces of the default routes.
      type: list
      elements: str
      sample: [enP7s7]
"""

import json
import shutil
from dataclasses import asdict
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _ssh
from ansible_collections.dgx_spark.sglang.plugins.module_utils._firewall import TABLE, UNIT, Seen

LOCALE = {"LANG": "C", "LC_ALL": "C", "LANGUAGE": "C"}
LISTING = ["nft", "--stateless", "list", "table", "inet", TABLE]
# The text comes by standard input, which nft takes to its end before the shell goes on.
LISTING_OF_TEXT = ["unshare", "--net", "sh", "-c", f"nft --file - && exec {' '.join(LISTING)}"]


def output(module: AnsibleModule, command: list[str], text: str | None = None) -> str | None:
    """What a command prints, None where it fails or isn't there."""
    if not shutil.which(command[0]):
        return None
    code, out, _ = module.run_command(command, data=text, environ_update=LOCALE)
    return out if code == 0 else None


def how_reached(module: AnsibleModule) -> Seen:
    """The connection and the interfaces; what isn't known stays empty."""
    ways_out: list[str] = []
    for family in ("-4", "-6"):
        routes = json.loads(output(module, ["ip", "-json", family, "route", "show", "default"]) or "[]")
        ways_out += [route["dev"] for route in routes if "dev" in route]
    connection = _ssh.connection()
    if len(connection) != 4:
        return Seen(ways_out=sorted(set(ways_out)))
    client, _, server, port = connection
    command = ["ip", "-json", "route", "get", client.partition("%")[0], "from", server.partition("%")[0]]
    if "%" in client:
        command += ["oif", client.partition("%")[2]]
    route = json.loads(output(module, command) or "[{}]")
    return Seen(client, int(port), str(route[0].get("dev", "")), sorted(set(ways_out)))


def unit_problem(module: AnsibleModule) -> str | None:
    """Why the rules would not be there after the next boot."""
    told = output(module, ["systemctl", "show", "--property=ActiveState,UnitFileState", UNIT]) or ""
    if "UnitFileState=enabled" not in told:
        return f"{UNIT} does not start at boot"
    return None if "ActiveState=active" in told else f"{UNIT} is not active"


def problem(module: AnsibleModule, wanted: str, loaded: str | None) -> str | None:
    """Why what is in force is not what is wanted."""
    name = f"the table inet {TABLE}"
    if not wanted:
        return None if loaded is None else f"{name} is loaded, and no firewall is wanted"
    if loaded is None:
        return f"{name} is not loaded"
    as_text = output(module, LISTING_OF_TEXT, wanted)
    # What a namespace without a network can't load (names of hosts in custom rules) can't be compared.
    if as_text is not None and as_text != loaded:
        return f"{name} holds other rules than the file"
    return unit_problem(module)


def main() -> None:
    """Look at the table, the unit and the connection."""
    module = AnsibleModule(
        argument_spec={"content": {"type": "str", "default": ""}},
        supports_check_mode=True,
    )
    loaded = output(module, LISTING)
    why = problem(module, module.params["content"], loaded)
    facts: dict[str, Any] = {
        "as_wanted": why is None,
        "problem": why,
        "nft": shutil.which("nft") is not None,
        "loaded": loaded is not None,
        "seen": asdict(how_reached(module)),
    }
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
