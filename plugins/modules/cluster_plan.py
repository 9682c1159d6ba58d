# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: cluster_plan
short_description: Derive the plan of a cluster from its inventory and its model
version_added: 0.1.0
description:
  - Computes ranks, fabric addresses, environment and command line of every rank in one place. Contacts no host.
  - Where the inventory names no RDMA devices, they are taken from what the hosts have answered to rdma_info, registered
    as C(cluster_hcas_seen); of a host that has not answered they follow from the names of its interfaces.
options: {}
author:
  - dgx_spark.sglang contributors (@dgx-spark-sglang)
attributes:
  check_mode:
    description: Changes nothing in any mode.
    support: full
  diff_mode:
    description: Changes nothing, so that there is no difference to show.
    support: none
"""

EXAMPLES = r"""
- name: Derive the plan
  dgx_spark.sglang.cluster_plan:
  register: cluster_planned
"""

RETURN = r"""
plan:
  description: The plan of the whole group.
  returned: success
  type: dict
  contains:
    group_id:
      description: The name of this very plan; equal plans have equal ids.
      type: str
    model:
      description: The model profile with its defaults.
      type: dict
    image:
      description: The container image.
      type: str
    device:
      description: What the ranks compute on, C(cuda) or C(cpu).
      type: str
    api_url:
      description: Where clients reach the API.
      type: str
    api_port:
      description: TCP port number of the API.
      type: int
    dist_init:
      description: Address and port where the ranks meet, on the fabric.
      type: str
    rails:
      description: The rails of the fabric (interface, hca, subnet), empty where there is none.
      type: list
      elements: dict
    rdma:
      description: Whether the rails are RDMA.
      type: bool
    ask_hcas:
      description: Whether the nodes are asked for the RDMA devices of their rails.
      type: bool
    paths:
      description: Directories on a node (model, cache, spread, release_root, trial).
      type: dict
    moe:
      description: What the server's flags say about its MoE kernels (ep, quantization, fused_shared_experts, skip).
      type: dict
    api_keys:
      description: What may be known of the API's keys (options, fingerprint); never a key.
      type: dict
    ranks:
      description: One entry a rank (host, rank, addresses, interfaces, hcas, env, server_args, health_url).
      type: list
      elements: dict
"""
