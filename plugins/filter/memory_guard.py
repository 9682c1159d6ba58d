# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The filter that writes the arguments of earlyoom; the work is done in module_utils/_memory_guard.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _memory_guard


def memory_guard_arguments(settings: Mapping[str, Any]) -> list[str]:
    """The words after `earlyoom`; settings are the fields of _memory_guard.Settings."""
    try:
        return _memory_guard.arguments(_memory_guard.settings(settings))
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"memory_guard_arguments": memory_guard_arguments}
