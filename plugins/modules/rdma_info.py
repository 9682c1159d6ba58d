#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The RDMA devices of this node, its interfaces, and where its fabric addresses are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rdma_info
short_description: Tell what RDMA devices and interfaces a node has, and find the rails of its fabric addresses
version_added: 0.1.0
description:
  - Reads the RDMA devices from sysfs and the interfaces and addresses from C(ip -json address show).
  - Finds the interface, the RDMA device, its port and its GID for each address in O(addresses), and says what is wrong
    with it and how to mend it.
  - Width, speed and MTU are told as they are, and not judged.
  - A node without RDMA is a result, not an error, and so is a rail with a problem.
  - Changes nothing. Works with hardware and with Soft-RoCE.
options:
  sysfs_root:
    description: Where sysfs is mounted.
    type: path
    default: /sys
  settings_root:
    description: Where the kernel's parameters are.
    type: path
    default: /proc/sys
  addresses:
    description: The node's IPv4 addresses on the fabric, without prefix lengths.
    type: list
    elements: str
    default: []
notes:
  - Needs the command C(ip) of iproute2 on the node, no RDMA tools, and no root.
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
- name: Look at both rails of this node
  dgx_spark.sglang.rdma_info:
    addresses: ["192.168.100.11", "192.168.101.11"]
  register: rdma

- name: Make sure that each fabric address has its RDMA device, port and GID
  ansible.builtin.assert:
    that: rdma.rails | map(attribute='problem') | reject('none') | length == 0
    fail_msg: "{{ rdma.rails }}"
"""

RETURN = r"""
devices:
  description: The RDMA devices by name, empty where the kernel has none.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: rocep1s0f1
    firmware:
      description: Version of its firmware, none for software.
      type: str
      sample: 28.45.4028
    pci:
      description: Its PCI function, none for software.
      type: dict
      contains:
        address:
          description: Domain, bus, device and function.
          type: str
          sample: "0000:01:00.1"
        width:
          description: Lanes in use. A Spark has V(4); older firmware gave V(2) to the second function of a cage.
          type: int
          sample: 4
        max_width:
          description: Lanes that the function can use.
          type: int
          sample: 4
        speed_gts:
          description: GT/s a lane, V(32.0) for PCIe Gen5.
          type: float
          sample: 32.0
    twins:
      description:
        - The other devices of the same QSFP cage. They have the same PCI bus, device and function in another domain.
      type: list
      elements: str
      sample: [roceP2p1s0f1]
    ports:
      description: Its ports.
      type: list
      elements: dict
      contains:
        port:
          description: Number of the port, from 1.
          type: int
          sample: 1
        netdev:
          description: The network interface of the port, none where it has none.
          type: str
          sample: enp1s0f1np1
        state:
          description: The port's state, V(ACTIVE) when it can be used, V(unknown) when it can't be read.
          type: str
          sample: ACTIVE
        physical_state:
          description: The state of its link, V(unknown) when it can't be read.
          type: str
          sample: LinkUp
        link_layer:
          description: V(Ethernet) for RoCE, or V(InfiniBand).
          type: str
          sample: Ethernet
        rate_gbps:
          description: Rate in Gb/s as RDMA counts it, which for a port that is down means nothing.
          type: float
          sample: 200.0
        netdev_mtu:
          description: MTU of the netdev in bytes.
          type: int
          sample: 9000
        active_mtu:
          description: The RDMA MTU in bytes that follows from the netdev's, none unless the port is a RoCE port.
          type: int
          sample: 4096
        gids:
          description: The GIDs of the port by index. Free slots are left out.
          type: list
          elements: dict
          contains:
            index:
              description: Its index, which drifts with every change of addresses.
              type: int
              sample: 3
            type:
              description: V(RoCE v2) or V(IB/RoCE v1).
              type: str
              sample: RoCE v2
            gid:
              description: The GID as the kernel writes it.
              type: str
              sample: "0000:0000:0000:0000:0000:ffff:c0a8:640b"
            address:
              description: The IPv4 or IPv6 address that it stands for, none unless the port is a RoCE port.
              type: str
              sample: 192.168.100.11
            netdev:
              description: The interface that it comes from, such as the port's netdev or a VLAN on it.
              type: str
              sample: enp1s0f1np1
        counters:
          description: All counters of the port by name. Which there are is a matter of the driver.
          type: dict
          sample: {"np_cnp_sent": 0, "out_of_sequence": 0, "packet_seq_err": 0, "rnr_nak_retry_err": 0}
interfaces:
  description: The network interfaces in the kernel's order.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: Its name.
      type: str
      sample: enp1s0f1np1
    mac:
      description: Its MAC address, none where it has none.
      type: str
      sample: 4c:bb:47:2c:00:01
    mtu:
      description: Its MTU in bytes.
      type: int
      sample: 9000
    up:
      description: Whether it is set up.
      type: bool
      sample: true
    carrier:
      description: Whether its link is up. An interface that isn't RV(interfaces[].up) has none.
      type: bool
      sample: true
    speed_mbps:
      description: Speed of its link in Mb/s, none where there is none or the driver doesn't tell.
      type: int
      sample: 200000
    arp_ignore:
      description: The setting of ARP in force, the higher of its own and that of all; none where it can't be read.
      type: int
      sample: 1
    arp_announce:
      description: The setting of ARP in force, the higher of its own and that of all; none where it can't be read.
      type: int
      sample: 2
    arp_ignore_own:
      description: Its own setting of ARP.
      type: int
      sample: 1
    arp_announce_own:
      description: Its own setting of ARP.
      type: int
      sample: 2
    addresses:
      description: Its IPv4 and IPv6 addresses with their prefix lengths.
      type: list
      elements: str
      sample: [192.168.100.11/24]
    hca:
      description: The RDMA device on it, none where there is none; hardware rather than Soft-RoCE where it has both.
      type: str
      sample: rocep1s0f1
rails:
  description: An entry for each of O(addresses), in their order. What isn't found is none.
  returned: always
  type: list
  elements: dict
  contains:
    address:
      description: The address.
      type: str
      sample: 192.168.100.11
    interface:
      description: The one interface that has it.
      type: str
      sample: enp1s0f1np1
    hca:
      description: The RDMA device on the interface.
      type: str
      sample: rocep1s0f1
    port:
      description: The device's port.
      type: int
      sample: 1
    gid_index:
      description: The index of the one RoCE v2 GID that stands for the address.
      type: int
      sample: 3
    problem:
      description:
        - What is wrong, none for a good rail.
        - The address is on no interface or on several, its interface has no RDMA device, the port isn't active, the
          address has no RoCE v2 GID or several, or the port has a RoCE v2 GID of another IPv4 address too.
      type: str
      sample: no interface has 192.168.100.11
    mend:
      description: What to do about it, none for a good rail.
      type: str
      sample: Give it to the rail's interface in netplan, then run `netplan apply`.
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _rdma_rails, _rdma_sysfs

COMMAND = "ip -json address show"


def shown_addresses(module: AnsibleModule) -> str:
    """What COMMAND prints; fails with the mend where it can't be had."""
    program, *arguments = COMMAND.split()
    path = module.get_bin_path(program)
    if not path:
        module.fail_json(msg="the command ip is not installed. Mend: install the package iproute2 on the node.")
    code, out, err = module.run_command([path, *arguments])
    if code != 0:
        why = " ".join(err.split()) or f"it ended with {code}"
        module.fail_json(msg=f"`{COMMAND}` failed: {why}. Mend: run it on the node, and repair iproute2.")
    return str(out)


def main() -> None:
    """Read everything, then find the rails."""
    module = AnsibleModule(
        argument_spec={
            "sysfs_root": {"type": "path", "default": "/sys"},
            "settings_root": {"type": "path", "default": "/proc/sys"},
            "addresses": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    addresses = module.params["addresses"] or []
    mistakes = _rdma_rails.mistaken_addresses(addresses)
    if mistakes:
        module.fail_json(msg="\n".join(mistakes))
    try:
        roots = module.params["sysfs_root"], module.params["settings_root"]
        facts = _rdma_sysfs.read(roots[0], shown_addresses(module), addresses, roots[1])
    except ValueError as trouble:
        mend = "Mend: see what it prints on the node, and install the iproute2 of the distribution."
        module.fail_json(msg=f"`{COMMAND}` can't be understood: {trouble}. {mend}")
    module.exit_json(changed=False, **facts)


if __name__ == "__main__":
    main()
