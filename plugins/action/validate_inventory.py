# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Checks the inventory and the model on the controller, before any host is touched."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, report, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._inventory import GROUP
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import read_cluster


class ActionModule(ActionBase):
    """Lists everything that is wrong, each with where it stands, its value and its mend."""

    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return nothing of note, or fail with all findings."""
        super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(argument_spec={"whole_group": {"type": "bool", "default": True}})
        assert task_vars is not None
        findings, plan = read_cluster(task_vars)
        if plan and arguments["whole_group"]:
            findings = _left_out([rank.host for rank in plan.ranks], task_vars)
        if not findings:
            return {"changed": False}
        count = "1 error" if len(findings) == 1 else f"{len(findings)} errors"
        return {"failed": True, "msg": report(findings, f"{count} in the inventory; nothing was changed.")}


def _left_out(ranks: list[str], task_vars: dict[str, Any]) -> list[Finding]:
    """A group is rolled out whole: half of it on a new plan could never form one group."""
    playing = set(task_vars["ansible_play_hosts_all"])
    missing = [host for host in ranks if host not in playing]
    if not missing:
        return []
    problem = f"Leaves out {', '.join(missing)} of the group {GROUP}, whose ranks work only together."
    mend = "Run without --limit; tags roll out single stages on all ranks."
    return [Finding("command line", "--limit", shown(task_vars.get("ansible_limit")), problem, mend)]
