# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Filters of the role host; the work is done in module_utils/_host.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _host


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {
            "host_hold_things": _host.hold_things,
            "host_oom_things": _host.oom_things,
            "host_pending": _host.pending,
            "host_swap_things": _host.swap_things,
            "host_sysctl_things": _host.sysctl_things,
            "host_time_server_things": _host.time_server_things,
            "host_time_things": _host.time_things,
        }
