#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""One node's half of the tests of the fabric between two nodes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fabric_pair
short_description: Test the fabric between this node and another one
version_added: 0.1.0
description:
  - Both nodes of a pair run this at the same time, one with O(called=true), and meet on each rail's own addresses. On
    each rail in turn they ping each other with whole packets that may not be fragmented; with O(rdma) they then run
    C(rping), and C(ib_write_bw) both ways, with the GID index looked up and the GIDs in its output held against the
    rail's addresses.
  - A test that fails is a row, not an error, so that the other tests run and everything can be told at the end. Every
    program and every wait is bounded in time, and what was started is ended.
options:
  host:
    description: This node's name in the rows.
    type: str
    required: true
  peer:
    description: The other node's name in the rows.
    type: str
    required: true
  called:
    description: Whether this node waits for the other's call; just one of the two does.
    type: bool
    required: true
  round:
    description: A number that both nodes give; they take no answer from another round.
    type: int
    default: 0
  rails:
    description: The rails, in the same order on both nodes.
    type: list
    elements: dict
    required: true
    suboptions:
      interface:
        description: This node's interface on the rail.
        type: str
        required: true
      address:
        description: This node's IPv4 address on the rail.
        type: str
        required: true
      peer_address:
        description: The other node's.
        type: str
        required: true
      hca:
        description: This node's RDMA device on the rail. Needed with O(rdma).
        type: str
        default: ""
  mtu:
    description: MTU of the rails, in bytes.
    type: int
    default: 9000
  rdma:
    description: Whether the rails are RDMA.
    type: bool
    default: true
  port:
    description: First of the TCP ports that the tests use, eight a rail.
    type: int
    default: 18515
  ping_count:
    description: How many pings must be answered, each way.
    type: int
    default: 5
  write_size:
    description: Bytes of a message of C(ib_write_bw).
    type: int
    default: 65536
  write_iterations:
    description: Messages of C(ib_write_bw).
    type: int
    default: 20000
  timeout:
    description: Seconds that one program may run.
    type: float
    default: 30
  wait:
    description: Seconds to wait on each rail for the other node to begin.
    type: float
    default: 60
  sysfs_root:
    description: Where sysfs is mounted.
    type: path
    default: /sys
attributes:
  check_mode:
    description: Sends nothing in check mode, and returns no rows.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
seealso:
  - module: dgx_spark.sglang.rdma_info
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Test the fabric between two nodes
  dgx_spark.sglang.fabric_pair:
    host: "{{ inventory_hostname }}"
    peer: "{{ (['spark-0', 'spark-1'] | difference([inventory_hostname])) | first }}"
    called: "{{ inventory_hostname == 'spark-0' }}"
    rails:
      - interface: enp1s0f1np1
        hca: rocep1s0f1
        address: "{{ (inventory_hostname == 'spark-0') | ternary('192.168.100.11', '192.168.100.12') }}"
        peer_address: "{{ (inventory_hostname == 'spark-0') | ternary('192.168.100.12', '192.168.100.11') }}"
  register: tested
"""

RETURN = r"""
rows:
  description: What this node saw of each test.
  returned: success
  type: list
  elements: dict
  contains:
    round:
      description: O(round).
      type: int
    rail:
      description: Number of the rail, from 0.
      type: int
    test:
      description: V(ping), V(rping) or V(write).
      type: str
    from:
      description: The node that sent.
      type: str
      sample: spark-1
    to:
      description: The node that was sent to.
      type: str
      sample: spark-0
    ok:
      description: Whether the test passed. How fast is not judged here.
      type: bool
    value:
      description: The figure of a test that measures, on the node that sent; else none.
      type: float
      sample: 98.2
    unit:
      description: Its unit; Gb/s of C(ib_write_bw), ms of a ping.
      type: str
      sample: Gb/s
    found:
      description: What was seen, in words.
      type: str
      sample: a path MTU of 1500 at enp1s0f1np1
    expected:
      description: What a good fabric shows, in words.
      type: str
      sample: 5 answers to pings of 8972 bytes that may not be fragmented
    mend:
      description: What to do, empty where there is nothing to do.
      type: str
      sample: "Set the MTU of enp1s0f1np1 to 9000: run site.yml --tags fabric."
    seen_by:
      description: O(host).
      type: str
"""

import ipaddress
import shutil
import subprocess
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import (
    _fabric_pair,
    _fabric_process,
    _fabric_tests,
    _rdma_sysfs,
)


def look(rail: _fabric_tests.Rail, sysfs_root: str) -> dict[str, Any]:
    """What rdma_info says of the rail's address; ValueError where the node can't be asked."""
    command = ["ip", "-json", "address", "show"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as trouble:
        raise ValueError(f"`{' '.join(command)}` failed: {trouble}") from None
    return dict(_rdma_sysfs.read(sysfs_root, shown, [rail.address])["rails"][0])


def ready(rail: _fabric_tests.Rail, sysfs_root: str) -> _fabric_pair.Ready:
    """Whether this node can run the RDMA tests of a rail."""
    for program in ("rping", "ib_write_bw"):
        if not shutil.which(program):
            return _fabric_pair.Ready(problem=f"{program} is not installed", mend=_fabric_tests.install(program))
    try:
        seen = look(rail, sysfs_root)
    except ValueError as trouble:
        return _fabric_pair.Ready(problem=str(trouble), mend="Install the iproute2 of the distribution on the node.")
    return _fabric_pair.readiness(rail, seen)


def mistakes(params: dict[str, Any]) -> list[str]:
    """What can't be tested so, a sentence with its mend each."""
    found = []
    for name in ("ping_count", "write_size", "write_iterations", "timeout", "wait"):
        if params[name] <= 0:
            found.append(f"{name} is {params[name]}; give a number above 0.")
    if params["mtu"] < 1280:
        found.append(f"mtu is {params['mtu']}; give the MTU of the rails, 9000 as a rule.")
    last = params["port"] + len(params["rails"]) * _fabric_tests.PORTS_A_RAIL - 1
    if params["port"] < 1024 or last > 65535:
        found.append(f"port is {params['port']}; give one from 1024, so that the last used, {last}, is at most 65535.")
    for rail in params["rails"]:
        for name in ("address", "peer_address"):
            try:
                ipaddress.IPv4Address(rail[name])
            except ValueError:
                found.append(f"rails: {name} is {rail[name]!r}; give an IPv4 address.")
        if params["rdma"] and not rail["hca"]:
            found.append(f"rails: {rail['interface']} has no hca; name its RDMA device, or set rdma: false.")
    return found


def main() -> None:
    """Run this node's half."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "peer": {"type": "str", "required": True},
            "called": {"type": "bool", "required": True},
            "round": {"type": "int", "default": 0},
            "rails": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "interface": {"type": "str", "required": True},
                    "address": {"type": "str", "required": True},
                    "peer_address": {"type": "str", "required": True},
                    "hca": {"type": "str", "default": ""},
                },
            },
            "mtu": {"type": "int", "default": 9000},
            "rdma": {"type": "bool", "default": True},
            "port": {"type": "int", "default": 18515},
            "ping_count": {"type": "int", "default": 5},
            "write_size": {"type": "int", "default": 65536},
            "write_iterations": {"type": "int", "default": 20000},
            "timeout": {"type": "float", "default": 30},
            "wait": {"type": "float", "default": 60},
            "sysfs_root": {"type": "path", "default": "/sys"},
        },
        supports_check_mode=True,
    )
    params = module.params
    wrong = mistakes(params)
    if wrong:
        module.fail_json(msg="\n".join(wrong))
    if module.check_mode:
        module.exit_json(changed=False, rows=[])
    same = ("host", "peer", "round", "mtu", "rdma", "port", "ping_count", "timeout", "wait")
    settings = _fabric_tests.Settings(
        **{name: params[name] for name in same}, size=params["write_size"], iterations=params["write_iterations"]
    )
    rails = [_fabric_tests.Rail(number, **rail) for number, rail in enumerate(params["rails"])]
    _fabric_process.end_on_signals()
    pair = _fabric_pair.Pair(settings, params["called"], lambda rail: ready(rail, params["sysfs_root"]))
    module.exit_json(changed=False, rows=pair.run(rails))


if __name__ == "__main__":
    main()
