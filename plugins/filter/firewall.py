# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Filters that write a node's firewall; the work is done in module_utils/_firewall.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _firewall


def firewall_rules(plan: Mapping[str, Any], host: str, settings: Mapping[str, Any]) -> str:
    """The rules of one host as text for nft; settings are the fields of _firewall.Settings."""
    wanted = _settings(settings)
    serves = plan["ranks"][0]["host"] == host
    return _firewall.render(wanted, _firewall.rails_of(plan, host), int(plan["api_port"]) if serves else None)


def firewall_objections(
    seen: Mapping[str, Any], plan: Mapping[str, Any], host: str, settings: Mapping[str, Any]
) -> list[str]:
    """Why the rules must not be put in force on a host; seen is what firewall_info returns by that name."""
    return _firewall.objections(_firewall.Seen(**seen), _settings(settings), _firewall.rails_of(plan, host))


def _settings(values: Mapping[str, Any]) -> _firewall.Settings:
    try:
        return _firewall.settings(values)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Name -> function."""
        return {"firewall_objections": firewall_objections, "firewall_rules": firewall_rules}
