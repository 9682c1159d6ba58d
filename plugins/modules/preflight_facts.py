#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What a node says of itself before a rank starts on it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_facts
short_description: Gather what the checks of preflight judge, from one node and in one go
version_added: 0.1.0
description:
  - Asks the node's own files and tools (C(/proc), C(/sys), C(ip), C(docker), C(systemctl), C(nvidia-smi) and such), all
    at the same time and each with a time-out of its own. Changes nothing, and can run while a group serves.
  - A tool that is not there or does not answer is a result and not an error, but for the missing answers.
  - Nothing is judged here. The role C(preflight) does that on the controller, for all nodes at once.
  - The result also tells between which times of the controller's clock the node was asked.
options:
  image:
    description: The container image.
    type: str
    required: true
  model:
    description: The directory of the model.
    type: path
    required: true
  interfaces:
    description: The interfaces of the node's rails.
    type: list
    elements: str
    default: []
  addresses:
    description: Its IPv4 address on each of them, without prefix lengths.
    type: list
    elements: str
    default: []
  mtu:
    description: The MTU of the rails in bytes.
    type: int
    default: 9000
  peers:
    description: Whom to ping with one packet of the whole MTU, each with C(interface), C(address) and C(host).
    type: list
    elements: dict
    default: []
  tcp:
    description: TCP ports that the ranks will take.
    type: list
    elements: int
    default: []
  udp:
    description: UDP ports that the ranks will take.
    type: list
    elements: int
    default: []
  names:
    description: Names of machines that the node will have to resolve.
    type: list
    elements: str
    default: []
  cuda:
    description: Whether to ask for GPUs.
    type: bool
    default: false
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
- name: Ask the node
  dgx_spark.sglang.preflight_facts:
    image: lmsysorg/sglang:spark
    model: /var/lib/dgx-spark/models/zai-org--GLM-4.7-FP8/main
    interfaces: [enp1s0f1np1, enP2p1s0f1np1]
    addresses: [192.168.100.11, 192.168.101.11]
    cuda: true
  register: preflight_seen
"""

RETURN = r"""
gathered:
  description: For each source a dict with C(value), and C(problem), which is empty where there is a value.
  returned: always
  type: dict
window:
  description: The controller's clock before and after the question, in seconds since 1970.
  returned: always
  type: list
  elements: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_facts, _rdma_rails


def main() -> None:
    """Ask for everything."""
    texts = {"type": "list", "elements": "str", "default": []}
    numbers = {"type": "list", "elements": "int", "default": []}
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "model": {"type": "path", "required": True},
            "interfaces": texts,
            "addresses": texts,
            "mtu": {"type": "int", "default": 9000},
            "peers": {"type": "list", "elements": "dict", "default": []},
            "tcp": numbers,
            "udp": numbers,
            "names": texts,
            "cuda": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    mistakes = _rdma_rails.mistaken_addresses(module.params["addresses"])
    if mistakes:
        module.fail_json(msg="\n".join(mistakes))
    asked = _preflight_facts.Questions(**module.params)
    module.exit_json(changed=False, gathered=_preflight_facts.answers(asked))


if __name__ == "__main__":
    main()
