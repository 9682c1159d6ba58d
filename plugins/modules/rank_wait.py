#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Documentation of the rank_wait action plugin, which does the work on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rank_wait
short_description: Wait until the SGLang rank of a host is healthy, and show how far it is
version_added: 0.1.0
description:
  - Polls M(dgx_spark.sglang.rank_info) on the host until its C(/health) answers 200.
  - Shows a line whenever the rank enters another phase, and a sign of life every 30 seconds.
  - Fails as soon as it is plain that waiting is of no use, with the reason that the log gives.
options:
  health_url:
    description: URL of the rank's C(/health), as the host itself reaches it.
    type: str
    required: true
  rank:
    description: Number of the rank, for the lines that are shown. Left out, the log is asked.
    type: int
  unit:
    description: Name of the systemd unit.
    type: str
    default: sglang-rank.service
  container:
    description: Name of the rank's container.
    type: str
    default: sglang-rank
  health_timeout:
    description: Seconds to wait for one answer of O(health_url).
    type: float
    default: 25
  log_lines:
    description: How many lines of the journal each poll looks at.
    type: int
    default: 400
  interval:
    description: Seconds between the end of one poll and the beginning of the next.
    type: float
    default: 3
  timeout:
    description: Seconds until giving up.
    type: float
    default: 1800
  max_restarts:
    description: Give up when systemd restarted the unit this many times during the wait.
    type: int
    default: 2
attributes:
  check_mode:
    description: Looks once and returns at once, healthy or not.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
seealso:
  - module: dgx_spark.sglang.rank_info
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Wait until every rank is healthy
  dgx_spark.sglang.rank_wait:
    health_url: "http://198.51.100.12:30000/health"
    rank: 2
    timeout: 2700
"""

RETURN = r"""
waited:
  description: Seconds from the first poll to the end of the wait.
  returned: always
  type: int
  sample: 41
phases:
  description: The phases that were seen, each with the seconds into the wait at which it was.
  returned: always
  type: list
  elements: dict
  sample: [{"phase": "loading weights", "at": 3}, {"phase": "serving", "at": 41}]
rank:
  description: The last result of M(dgx_spark.sglang.rank_info).
  returned: success
  type: dict
"""
