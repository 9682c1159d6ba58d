# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Asks the node, and notes the controller's clock around it: the nodes' clocks are compared by that."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    """preflight_facts."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module; its result with `window`, the seconds since 1970 before and after it."""
        super().run(tmp, task_vars)
        sent = time.time()
        result: dict[str, Any] = self._execute_module(
            module_name="dgx_spark.sglang.preflight_facts", module_args=dict(self._task.args), task_vars=task_vars
        )
        return {**result, "window": [sent, time.time()]}
