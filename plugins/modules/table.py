#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Documentation of the table action plugin, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: table
short_description: Show rows as an aligned table
version_added: 0.1.0
description:
  - Shows data as a table on the terminal of the controller, without the frame that debug puts
    around it. No host is contacted.
options:
  title:
    description: A line above the table.
    type: str
  columns:
    description:
      - The columns in order, each a key of the rows or a dict with C(key) and C(title).
    type: list
    elements: raw
    required: true
  rows:
    description:
      - The rows. A missing key or none is an empty cell; true and false are shown as yes and no,
        lists with commas.
    type: list
    elements: dict
    required: true
  footer:
    description: A line below the table.
    type: str
  colors:
    description:
      - Colours of cells. For each column a dict of values and the colours they are shown in, by
        the names that Ansible knows. Left away whenever Ansible's own output has no colour.
    type: dict
    default: {}
  max_width:
    description: Widest line in characters, 0 for the width of the terminal.
    type: int
    default: 0
  long_cells:
    description: Whether a long cell is continued on the next line or cut.
    type: str
    choices: [wrap, ellipsis]
    default: wrap
attributes:
  check_mode:
    description: Shows the same in check mode; it never changes anything.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Show the ranks
  dgx_spark.sglang.table:
    title: Ranks
    columns:
      - host
      - {key: phase, title: doing}
    rows:
      - {host: spark-0, phase: serving}
      - {host: spark-1, phase: loading weights}
    colors:
      phase: {serving: green, failed: red}
  run_once: true
"""

RETURN = r"""
text:
  description: What was shown, without colours.
  returned: success
  type: str
"""
