# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What the action plugins read on the controller: the roles' specs, the hosts' variables and the model profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding
from ansible_collections.dgx_spark.sglang.plugins.module_utils._inventory import (
    CONNECTION,
    GROUP,
    Host,
    check_fit,
    check_inventory,
    settings,
    unsound_of,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._model import check_profile, sound_profile
from ansible_collections.dgx_spark.sglang.plugins.module_utils._near_misses import nearest_variable
from ansible_collections.dgx_spark.sglang.plugins.module_utils._plan import Plan, make_plan
from ansible_collections.dgx_spark.sglang.plugins.module_utils._specs import Spec

COLLECTION = Path(__file__).resolve().parents[2]

INTERNAL = ("cluster_hcas_seen", "cluster_plan", "cluster_planned", "cluster_self")
"""Facts that the roles themselves set."""

PARAMETERS = ("spread_path",)
"""Arguments that one role gives to another; no inventory has them."""


@cache
def role_specs() -> dict[str, Spec]:
    """Variable -> argument spec, over the `main` entry points of all roles."""
    specs: dict[str, Spec] = {}
    for path in sorted(COLLECTION.glob("roles/*/meta/argument_specs.yml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        specs |= document["argument_specs"].get("main", {}).get("options", {})
    return {name: spec for name, spec in specs.items() if name not in PARAMETERS}


def read_hosts(task_vars: Mapping[str, Any]) -> list[Host]:
    """The hosts of the group with those of their variables that are ours, or look like it."""
    hosts = []
    for name in task_vars["groups"].get(GROUP, []):
        known = task_vars["hostvars"][name]
        variables: dict[str, Any] = {}
        unreadable: dict[str, str] = {}
        raw: dict[str, Any] = {}
        for variable in known:
            if variable in CONNECTION or is_ours(variable):
                try:
                    variables[variable] = _plain(known[variable])
                except AnsibleError as error:
                    unreadable[variable] = _sentence(error)
                    raw[variable] = task_vars["hostvars"].raw_get(name).get(variable)
        hosts.append(Host(name, str(variables.get("ansible_host") or name), variables, unreadable, raw))
    return hosts


@cache
def is_ours(variable: str) -> bool:
    """Whether a variable is one of the roles', or may be meant to be."""
    known = tuple(role_specs())
    prefixes = tuple({f"{name.split('_')[0]}_" for name in known})
    if variable in INTERNAL or variable.startswith("ansible_"):
        return False
    return variable.startswith(prefixes) or nearest_variable(variable, known) is not None


def read_cluster(task_vars: Mapping[str, Any]) -> tuple[list[Finding], Plan | None]:
    """Check the whole inventory and the chosen model; the plan comes only where there is no finding."""
    hosts = read_hosts(task_vars)
    directories = _own_profile_dirs(hosts)
    profiles = find_profiles([*directories, COLLECTION / "models"])
    findings = check_inventory(hosts, role_specs(), sorted(profiles), list(task_vars["groups"]))
    if not hosts:
        return findings, None
    findings += missing_directories("cluster_model_dirs", directories)
    unsound = unsound_of(findings)
    values = settings(hosts, role_specs(), unsound)
    name = str(values["cluster_model"])
    if "cluster_model" in unsound or name not in profiles:
        return findings, None
    profile, wrong = read_profile(name, profiles[name])
    if profile:
        findings = [*findings, *wrong, *check_fit(hosts, values, profile, unsound | unsound_of(wrong, "model."))]
    else:
        findings += wrong
    return findings, None if findings else make_plan(hosts, values, profile, read_hcas(task_vars))


def read_hcas(task_vars: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Host name -> interface -> RDMA device, as the hosts have answered (`cluster_hcas_seen`, by rdma_info)."""
    known, names = task_vars["hostvars"], task_vars["groups"].get(GROUP, [])
    seen = {name: known[name].get("cluster_hcas_seen") or {} for name in names}
    return {
        name: {str(link["name"]): str(link["hca"]) for link in answer.get("interfaces", []) if link["hca"]}
        for name, answer in seen.items()
    }


def find_profiles(directories: Sequence[Path]) -> dict[str, Path]:
    """Name -> file of every model profile; a directory named first wins over those after it."""
    found: dict[str, Path] = {}
    for directory in directories:
        for path in sorted(directory.glob("*.yml")):
            found.setdefault(path.stem, path)
    return found


def read_profile(name: str, path: Path) -> tuple[dict[str, Any], list[Finding]]:
    """Read and check one profile: what is right of it, with its defaults ({} if it is no mapping), and the findings."""
    where = f"models/{path.name}" if path.parent == COLLECTION / "models" else str(path)
    try:
        profile = yaml.load(path.read_text(encoding="utf-8"), _Unique)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        mend = "Mend the YAML; models/glm-4.7-fp8.yml is an example."
        return {}, [Finding(where, "(file)", str(path), _unread(error), mend)]
    findings = check_profile(where, profile)
    return (sound_profile(name, profile, unsound_of(findings)) if isinstance(profile, Mapping) else {}), findings


def _unread(error: Exception) -> str:
    """Why a file can't be read, as a sentence with the place."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        return f"Is not YAML that means something: {error.problem} (line {mark.line + 1}, column {mark.column + 1})."
    return f"Can't be read: {' '.join(str(error).split())}."


class _Unique(yaml.SafeLoader):
    """Of a key that stands twice, YAML's own loader keeps the last without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands twice", key.start_mark)
            seen.add(str(key.value))
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _own_profile_dirs(hosts: Sequence[Host]) -> list[Path]:
    own = hosts[0].variables.get("cluster_model_dirs") if hosts else None
    return [Path(str(path)).expanduser() for path in own] if isinstance(own, list) else []


def missing_directories(variable: str, directories: Sequence[Path]) -> list[Finding]:
    """A finding for each directory of a list variable that is not there."""
    mend = "Make it, or take it out of the list; relative paths count from where ansible-playbook is run."
    return [
        Finding(f"group {GROUP}", variable, str(path), "Is no directory on this controller.", mend)
        for path in directories
        if not path.is_dir()
    ]


def _sentence(error: AnsibleError) -> str:
    """The first line of an error of ansible-core; what follows it is the place in the source."""
    lines = str(error).splitlines() or [type(error).__name__]
    return f"{lines[0].rstrip('.')}."


def _plain(value: Any) -> Any:
    """Templated values as plain Python data: mappings and lists are copied, so that lazy ones fail here."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return None if value is None else str(value)
