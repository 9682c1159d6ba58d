# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Shows rows as a table on the controller's terminal; contacts no host."""

from __future__ import annotations

import shutil
from typing import Any

from ansible import constants
from ansible.plugins.action import ActionBase
from ansible.utils.color import stringc
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _table

ARGUMENTS = {
    "title": {"type": "str"},
    "columns": {"type": "list", "elements": "raw", "required": True},
    "rows": {"type": "list", "elements": "dict", "required": True},
    "footer": {"type": "str"},
    "colors": {"type": "dict", "default": {}},
    "max_width": {"type": "int", "default": 0},
    "long_cells": {"type": "str", "default": "wrap", "choices": ["wrap", "ellipsis"]},
}


class ActionModule(ActionBase):  # type: ignore[misc, unused-ignore]
    """table."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Render, show, return the text."""
        super().run(tmp, task_vars)
        _, options = self.validate_argument_spec(argument_spec=ARGUMENTS)
        unknown = unknown_colors(options["colors"])
        if unknown:
            return {"failed": True, "msg": unknown}
        # Ansible's own choice: ANSIBLE_COLOR, not a terminal and so on are settled in stringc.
        max_width = options["max_width"] or max(60, shutil.get_terminal_size((120, 24)).columns)
        arguments = (options["rows"], options["columns"], max_width, options["long_cells"])
        try:
            plain = _table.render(*arguments)
            shown = _table.render(*arguments, options["colors"], stringc)
        except ValueError as trouble:
            return {"failed": True, "msg": f"table: {trouble}."}
        ends = ([options["title"]] if options["title"] else [], [options["footer"]])
        for line in [*ends[0], *shown.split("\n"), *filter(None, ends[1])]:
            self._display.display(line)
        text = "\n".join([*ends[0], plain, *filter(None, ends[1])])
        return {"changed": False, "text": text}


def unknown_colors(colors: dict[str, Any]) -> str | None:
    """What is wrong with the colors option, or None."""
    for column, by_value in colors.items():
        if not isinstance(by_value, dict):
            return f"table: colors.{column} must be a dict of value: color, not {by_value!r}."
        for value, color in by_value.items():
            if color not in constants.COLOR_CODES:
                known = ", ".join(sorted(constants.COLOR_CODES))
                return f"table: colors.{column}.{value} is {color!r}; use one of {known}."
    return None
