# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Filters of the role container_runtime; the work is done in module_utils/_container_runtime.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _container_runtime
from ansible_collections.dgx_spark.sglang.plugins.module_utils._container_runtime import Options


def needs(seen: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What is to be done on a node; options are the fields of Options."""
    return _container_runtime.needs(seen, Options(**options))


def missing_devices(seen: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """The CDI devices that are asked for and not there."""
    return _container_runtime.missing_devices(seen, Options(**options))


def daemon_settings(seen: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """What daemon.json has to say."""
    return _container_runtime.daemon_settings(seen, Options(**options))


def daemon_defaults(options: Mapping[str, Any]) -> dict[str, Any]:
    """What daemon.json says unless it says something else."""
    return _container_runtime.daemon_defaults(Options(**options))


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {
            "container_runtime_defaults": daemon_defaults,
            "container_runtime_missing": missing_devices,
            "container_runtime_needs": needs,
            "container_runtime_settings": daemon_settings,
        }
