# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Derives the plan from the inventory and the model, on the controller."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import report
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import read_cluster


class ActionModule(ActionBase):
    """Returns the plan."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return {plan}; an inventory that cannot be planned fails as it does in validate_inventory."""
        super().run(tmp, task_vars)
        self.validate_argument_spec(argument_spec={})
        assert task_vars is not None
        findings, plan = read_cluster(task_vars)
        if plan is None:
            return {"failed": True, "msg": report(findings, "There is no plan for this inventory.")}
        return {"changed": False, "plan": plan.as_dict()}
