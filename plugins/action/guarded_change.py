# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Begins a guarded change on the node and confirms it over a connection that was made after it."""

from __future__ import annotations

import time
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase

RETURN_SECONDS = 120
"""How long a node may take, after its time is up, to put the files back and to answer again."""


class ActionModule(ActionBase):
    """guarded_change."""

    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module, connect anew, confirm; on failure, wait until the node is as it was and say so."""
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        seconds = int(arguments.get("seconds", 60))
        began = time.monotonic()
        result: dict[str, Any] = self._module(arguments, task_vars)
        change_id = result.get("backup")
        if result.get("failed") or not change_id:
            return result
        deadline = began + seconds + RETURN_SECONDS
        following = {**arguments, "change_id": change_id}
        # A connection that is made before the new rules are in force would prove nothing: first they are waited for.
        _, silence = self._ask({**following, "step": "wait"}, "applied", deadline, task_vars)
        answer, trouble = self._ask({**following, "step": "confirm"}, "kept", deadline, task_vars)
        if answer.get("kept"):
            return result
        return {**result, "failed": True, "msg": self._report(arguments["name"], answer, trouble or silence)}

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="dgx_spark.sglang.guarded_change", module_args=arguments, task_vars=task_vars
        )
        return result

    def _ask(
        self, arguments: dict[str, Any], wanted: str, deadline: float, task_vars: dict[str, Any] | None
    ) -> tuple[dict[str, Any], str]:
        """Ask over new connections until one answers. Returns the answer, and why the last attempt without one failed.

        An answer after the node's time is up says that it went back.
        """
        trouble = ""
        while time.monotonic() < deadline:
            try:
                # The old connection may live on where a new one is refused.
                self._connection.reset()
                answer = self._module(arguments, task_vars)
                if wanted in answer:
                    return answer, trouble
                trouble = str(answer.get("msg") or answer.get("module_stderr", ""))
            except AnsibleError as error:  # of the connection, or of sudo, while the network is being changed
                trouble = str(error)
            time.sleep(1)
        return {}, trouble

    @staticmethod
    def _report(name: str, answer: dict[str, Any], trouble: str) -> str:
        silence = f" No new ssh connection came through: {trouble}" if trouble else ""
        if answer:
            return (
                f"The change of the {name} was taken back; the node is as it was before: {answer['why']}.{silence} "
                f"Mend: Correct what the change says and run again."
            )
        return (
            f"The change of the {name} could not be confirmed.{silence} "
            f"The node puts back what was there before by itself; it has not answered since. "
            f"Mend: Look at it from its console: journalctl -u 'dgx-spark-guard*'."
        )
