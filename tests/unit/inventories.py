# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Inventories in files, with one thing changed, loaded by Ansible's own loaders as ansible-playbook does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.vars.hostvars import HostVars
from ansible.vars.manager import VariableManager
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import COLLECTION

REFERENCE = COLLECTION / "inventory/spark4"
REFERENCE_MODEL = COLLECTION / "models/glm-4.7-fp8.yml"


@dataclass
class Tree:
    """What stands in the files of an inventory: inventory/spark4, on hosts that no network knows.

    hosts, variables: of the group. profile: of the model that is served. hosts_text, variables_text, profile_text:
    what is written in place of them, where data can't say it (a syntax error). more_text: what follows the variables.
    """

    group: str = "sparks"
    hosts: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, Any] = field(default_factory=dict)
    profile: dict[str, Any] = field(default_factory=dict)
    hosts_text: str = ""
    more_text: str = ""
    profile_text: str = ""

    def write(self, folder: Path) -> Path:
        """Write the files; returns the folder of the inventory."""
        inventory = folder / "inventory"
        (inventory / "group_vars").mkdir(parents=True)
        (folder / "models").mkdir()
        groups = {self.group: {"hosts": self.hosts}}
        text = self.hosts_text or yaml.safe_dump({"all": {"children": groups}}, sort_keys=False)
        (inventory / "hosts.yml").write_text(text)
        variables = {"cluster_model_dirs": [str(folder / "models")], **self.variables}
        text = yaml.safe_dump(variables, sort_keys=False)
        (inventory / f"group_vars/{self.group}.yml").write_text(text + self.more_text)
        text = self.profile_text or yaml.safe_dump(self.profile, sort_keys=False)
        (folder / "models/mine.yml").write_text(text)
        return inventory


@cache
def _read(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load(path.read_text())
    return data


Change = Callable[[Tree], object]


def reference() -> Tree:
    """The reference inventory and model, untouched."""
    variables, profile = (copy.deepcopy(_read(path)) for path in (REFERENCE / "group_vars/sparks.yml", REFERENCE_MODEL))
    # Names under .invalid never resolve (RFC 6761).
    hosts = {f"spark-{number}": {"ansible_host": f"spark-{number}.invalid"} for number in range(4)}
    return Tree(hosts=hosts, variables={**variables, "cluster_model": "mine"}, profile=profile)


def group(**variables: Any) -> Change:
    """Set variables of the group."""
    return lambda tree: tree.variables.update(copy.deepcopy(variables))


def without(*names: str) -> Change:
    """Take variables of the group away."""
    return lambda tree: [tree.variables.pop(name) for name in names]


def host(number: int, **variables: Any) -> Change:
    """Set variables of one host."""
    return lambda tree: tree.hosts[f"spark-{number}"].update(variables)


def hosts(count: int) -> Change:
    """Keep the first hosts, or add some."""

    def change(tree: Tree) -> None:
        tree.hosts = {f"spark-{number}": {"ansible_host": f"spark-{number}.invalid"} for number in range(count)}

    return change


def ranks(*numbers: Any) -> Change:
    """Give each host its rank; None gives none."""

    def change(tree: Tree) -> None:
        for own, number in zip(tree.hosts.values(), numbers, strict=True):
            own |= {} if number is None else {"cluster_rank": number}

    return change


def rail(index: int, **keys: Any) -> Change:
    """Set keys of a rail."""
    return lambda tree: tree.variables["cluster_rails"][index].update(keys)


def model(**keys: Any) -> Change:
    """Set keys of the model's profile."""
    return lambda tree: tree.profile.update(copy.deepcopy(keys))


def model_without(*names: str) -> Change:
    """Take keys of the model's profile away."""
    return lambda tree: [tree.profile.pop(name) for name in names]


def shape(**keys: Any) -> Change:
    """Set keys of the model's shape."""
    return lambda tree: tree.profile["shape"].update(keys)


def flags(**options: Any) -> Change:
    """Set options of the model's server (with _ for -); None takes one away."""

    def change(tree: Tree) -> None:
        for name, value in options.items():
            tree.profile["flags"].pop(name.replace("_", "-"), None)
            if value is not None:
                tree.profile["flags"][name.replace("_", "-")] = value

    return change


def text(**texts: str) -> Change:
    """Set the text of files."""

    def change(tree: Tree) -> None:
        for name, value in texts.items():
            setattr(tree, name, value)

    return change


def named(name: str) -> Change:
    """Give the group another name."""
    return text(group=name)


def both(*changes: Change) -> Change:
    """Several changes at once."""
    return lambda tree: [change(tree) for change in changes]


@cache
def _find_plugins() -> None:
    """As each command of Ansible does first: without it there is no `ansible.builtin.` to call a plugin by."""
    init_plugin_loader([str(COLLECTION / ".collections")])


def load(inventory: Path) -> dict[str, Any]:
    """The variables of a task on the controller, as ansible-playbook makes them."""
    _find_plugins()
    loader = DataLoader()
    manager = InventoryManager(loader=loader, sources=[str(inventory)])
    variables = VariableManager(loader=loader, inventory=manager)
    return {"groups": manager.get_groups_dict(), "hostvars": HostVars(manager, variables, loader)}
