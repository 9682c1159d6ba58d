# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Variables that look like one of ours but are not: Ansible would ignore a typing error without a word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from itertools import takewhile

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import HIDDEN, Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._hosts import GROUP_WIDE, Host
from ansible_collections.dgx_spark.sglang.plugins.module_utils._nearest import nearest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._specs import Spec

# difflib's ratio for whole names: two letters that changed places in one of ten. What is less alike is somebody's own.
_WHOLE_NAME = 0.88


def near_misses(hosts: Sequence[Host], specs: Mapping[str, Spec]) -> list[Finding]:
    """A finding for each variable that is near to a known one, or begins with `cluster_` and is none."""
    findings = []
    places: dict[str, list[str]] = defaultdict(list)
    for host in hosts:
        for variable in host.variables:
            if variable not in specs:
                places[variable].append(host.name)
    for variable, names in places.items():
        near = nearest_variable(variable, tuple(specs))
        where = GROUP_WIDE if len(names) == len(hosts) else ", ".join(names)
        value = next(host.variables[variable] for host in hosts if host.name == names[0])
        if near:
            text = HIDDEN if specs[near].get("no_log") else shown(value)
            findings.append(Finding(where, variable, text, "Is not a variable.", f"Did you mean `{near}`?"))
        elif variable.startswith("cluster_"):
            known = ", ".join(sorted(name for name in specs if name.startswith("cluster_")))
            findings.append(Finding(where, variable, shown(value), "Is not a variable.", f"Use one of: {known}."))
    return findings


@cache  # the hosts of a group have the same variables
def nearest_variable(variable: str, known: tuple[str, ...]) -> str | None:
    """The known variable that a name most likely stands for, None for a known one or one that is nobody's."""
    if variable in known:
        return None
    first = f"{variable.partition('_')[0]}_"
    alike = [name for name in known if name.startswith(first)]
    if alike:
        return _nearest_of_role(variable, first, alike)
    plain = {name.replace("_", ""): name for name in known}
    found = get_close_matches(_plain(variable), list(plain), n=1, cutoff=_WHOLE_NAME)
    return plain[found[0]] if found else None


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


def _nearest_of_role(variable: str, first: str, alike: Sequence[str]) -> str | None:
    """The nearest variable of the same role: the role's name itself would make any two look alike."""
    # "moe_config_" where all variables with "moe_" are that role's.
    role = f"{_common_words(alike)}_"
    prefix = role if len(alike) > 1 and variable.startswith(role) else first
    near = nearest(variable[len(prefix) :], [name[len(prefix) :] for name in alike])
    return f"{prefix}{near}" if near else None


def _common_words(names: Iterable[str]) -> str:
    """The words that all names begin with: moe_config of moe_config_dirs and moe_config_seconds."""
    words = [name.split("_") for name in names]
    shared = takewhile(lambda column: len(set(column)) == 1, zip(*words))
    return "_".join(column[0] for column in shared)
