# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Documentation of the action plugin of the same name."""

from __future__ import annotations

DOCUMENTATION = r"""
module: validate_inventory
short_description: Check the inventory and the model before any host is touched
version_added: 0.1.0
description:
  - Holds every variable of the group C(sparks) against the argument specs of the roles, and the chosen model profile
    against its schema, then what they say together.
  - Reports all errors at once, each with the variable, its value and the mend. Contacts no host.
options:
  whole_group:
    description: Whether leaving out hosts by C(--limit) is an error.
    type: bool
    default: true
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
- name: Check the inventory
  dgx_spark.sglang.validate_inventory:
"""

RETURN = r"""
msg:
  description: All findings, each with where it stands, the variable, its value, the problem and the mend.
  returned: failure
  type: str
"""
