# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Waits on the controller for the rank of one host, and shows its progress."""

from __future__ import annotations

import time
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _wait

INFO = "dgx_spark.sglang.rank_info"
INFO_OPTIONS = ("unit", "container", "health_url", "health_timeout", "log_lines")
ARGUMENTS = {
    "health_url": {"type": "str", "required": True},
    "rank": {"type": "int"},
    "unit": {"type": "str", "default": "sglang-rank.service"},
    "container": {"type": "str", "default": "sglang-rank"},
    "health_timeout": {"type": "float", "default": 25},
    "log_lines": {"type": "int", "default": 400},
    "interval": {"type": "float", "default": 3},
    "timeout": {"type": "float", "default": 1800},
    "max_restarts": {"type": "int", "default": 2},
}


class ActionModule(ActionBase):  # type: ignore[misc, unused-ignore]
    """rank_wait."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Poll until healthy, hopeless or out of time."""
        super().run(tmp, task_vars)
        task_vars = task_vars or {}
        _, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        for name in ("interval", "timeout", "max_restarts"):
            if options[name] <= 0:
                return {"failed": True, "msg": f"{name} is {options[name]}; it must be above 0."}
        host = str(task_vars.get("inventory_hostname", self._task.delegate_to))
        wait = _wait.Wait(host, options["unit"], options["rank"], options["timeout"], options["max_restarts"])
        arguments = {name: options[name] for name in INFO_OPTIONS}
        start = time.monotonic()
        while True:
            info = self._execute_module(module_name=INFO, module_args=arguments, task_vars=task_vars)
            if info.get("failed"):
                return dict(info)
            seconds = time.monotonic() - start
            line, trouble = wait.step(info, seconds)
            if line:
                self._display.display(line)
            result = {
                "changed": False,
                "waited": round(seconds),
                "phases": wait.phases,
                "rank": info,
            }
            if _wait.healthy(info) or self._task.check_mode:
                return result
            if trouble:
                # The message says all that is in `rank`, which would bury it on the terminal.
                del result["rank"]
                return {**result, "failed": True, "msg": wait.message(trouble, info)}
            time.sleep(options["interval"])
