# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""How the firewall comes into force and goes away, by what the role itself says; systemctl and nft are stand-ins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils._firewall import UNIT
from ansible_collections.dgx_spark.sglang.plugins.module_utils._guard import File, put, read
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

ROLE = Path(__file__).parents[2] / "roles/firewall"
SYSTEMCTL = """#!/bin/sh
echo systemctl "$@" >> {log}
[ "$1" = --quiet ] && shift
unit={root}/etc/systemd/system/{unit}
link={root}/etc/systemd/system/sysinit.target.wants/{unit}
case "$1" in
reenable) test -e $unit && mkdir -p ${{link%/*}} && ln -sf $unit $link ;;
reload-or-restart) test -e $unit && cp {root}/etc/dgx-spark/firewall.nft {root}/loaded ;;
esac
"""
NFT = """#!/bin/sh
echo nft "$@" >> {log}
rm -f {root}/loaded
"""


# In a process of its own: Ansible's loader of plugins changes how this one imports.
RENDER = """
import json, sys
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader
from ansible.template import Templar
role, variables = sys.argv[1], json.loads(sys.argv[2])
init_plugin_loader()
loader = DataLoader()
read = lambda name: loader.load_from_file(f"{role}/{name}/main.yml", trusted_as_template=True)
tasks = [task[name] for task in read("tasks") for name in task if name.endswith(".guarded_change")]
(arguments,) = [task for task in tasks if "files" in task]
print(json.dumps(Templar(loader, {**read("defaults"), **read("vars"), **variables}).template(arguments)))
"""


@cache
def change(enabled: bool, text: str = "rules") -> dict[str, Any]:
    """The arguments of the role's guarded change."""
    variables = {
        "firewall_enabled": enabled,
        "firewall_wanted_text": text if enabled else "",
        "firewall_seen": {"nft": True, "as_wanted": False},
        "ansible_check_mode": False,
        "ansible_search_path": [str(ROLE)],
    }
    command = [sys.executable, "-c", RENDER, str(ROLE), json.dumps(variables)]
    env = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(adhoc.COLLECTIONS)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@dataclass
class Node:
    """A node's files under a folder."""

    root: Path

    @property
    def nft(self) -> Path:
        return self.root / "etc/dgx-spark/firewall.nft"

    @property
    def unit(self) -> Path:
        return self.root / "etc/systemd/system" / UNIT

    @property
    def link(self) -> Path:
        return self.unit.parent / "sysinit.target.wants" / UNIT

    @property
    def loaded(self) -> str | None:
        """The rules in force."""
        path = self.root / "loaded"
        return path.read_text() if path.exists() else None

    def starts_at_boot(self) -> bool:
        """Whether systemd finds the unit and its condition holds."""
        return self.link.exists() and self.nft.exists()

    def begin(self, wanted: dict[str, Any]) -> list[File]:
        """Write the files and apply them; returns what was there before."""
        mine = os.getuid(), os.getgid()
        files = [
            File(
                f"{self.root}{file['path']}",
                file["content"].encode() if file.get("state", "present") == "present" else None,
                int(file.get("mode", "0644"), 8),
                mine,
            )
            for file in wanted["files"]
        ]
        before = [read(file.path) for file in files]
        for file in files:
            put(file)
        assert self.apply(wanted) == 0
        return before

    def apply(self, wanted: dict[str, Any]) -> int:
        """Run the apply commands."""
        (argv,) = wanted["apply"]
        here = [word.replace("/etc/", f"{self.root}/etc/") for word in argv]
        env = {**os.environ, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        return subprocess.run(here, env=env, check=False).returncode

    def put_back(self, before: list[File], wanted: dict[str, Any]) -> None:
        """What the guard does when nobody confirms."""
        for file in before:
            put(file)
        self.apply(wanted)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A bare node."""
    words = {"root": tmp_path, "log": tmp_path / "log", "unit": UNIT}
    (tmp_path / "bin").mkdir()
    for name, text in (("systemctl", SYSTEMCTL), ("nft", NFT)):
        program = tmp_path / "bin" / name
        program.write_text(text.format(**words))
        program.chmod(0o755)
    return Node(tmp_path)


def test_on(node: Node) -> None:
    node.begin(change(True))
    assert node.loaded == "rules"
    assert node.starts_at_boot()
    assert (node.nft.stat().st_mode & 0o777, node.unit.stat().st_mode & 0o777) == (0o600, 0o644)


def test_a_first_change_that_is_put_back_leaves_nothing(node: Node) -> None:
    wanted = change(True)
    node.put_back(node.begin(wanted), wanted)
    assert node.loaded is None
    assert not any(os.path.lexists(path) for path in (node.nft, node.unit, node.link))
    assert (node.root / "log").read_text().splitlines()[-1].startswith(("nft", "systemctl daemon-reload"))


def test_older_rules_come_back(node: Node) -> None:
    node.begin(change(True, "old"))
    wanted = change(True, "new")
    before = node.begin(wanted)
    assert node.loaded == "new"
    node.put_back(before, wanted)
    assert node.loaded == "old"
    assert node.starts_at_boot()


def test_off_that_is_put_back(node: Node) -> None:
    node.begin(change(True))
    wanted = change(False)
    before = node.begin(wanted)
    assert node.loaded is None
    assert not node.starts_at_boot()
    node.put_back(before, wanted)
    assert node.loaded == "rules"
    assert node.starts_at_boot()


def test_off_and_the_power_lost_before_it_is_confirmed(node: Node) -> None:
    """At boot the guard puts the files back and runs no command: the unit must start by itself."""
    node.begin(change(True))
    for file in node.begin(change(False)):
        put(file)
    assert node.starts_at_boot()


def test_rules_without_a_unit_that_would_load_them_are_none(node: Node) -> None:
    """Somebody removed the unit by hand: what the change loaded must not stay."""
    node.begin(change(True))
    node.unit.unlink()
    wanted = change(True, "new")
    node.put_back(node.begin(wanted), wanted)
    assert node.loaded is None


def test_a_table_that_stays_is_no_success(node: Node) -> None:
    (node.root / "bin/nft").write_text("#!/bin/sh\nexit 1\n")
    assert node.apply(change(False)) == 1


# ---- after off is confirmed ----------------------------------------------------------------------

PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.import_role:
        name: dgx_spark.sglang.firewall
        tasks_from: remove.yml
"""


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare") or not Path("/etc/systemd/system").is_dir(),
    reason="another folder in the place of /etc/systemd/system needs root and systemd",
)
def test_what_is_left_is_removed_once_off_is_confirmed(node: Node) -> None:
    """By the role's own tasks, in a mount namespace of their own; a check run before, and a run again after."""
    node.begin(change(True))
    node.begin(change(False))
    drop_in = node.unit.parent / "nftables.service.d/dgx-spark-firewall.conf"
    kept = node.unit.parent / "nftables.service.d/mine.conf"
    kept.write_text("[Unit]\n")
    play = node.root / "play.yml"
    play.write_text(PLAY)

    def run(*options: str) -> str:
        script = f'mount --bind {node.unit.parent} /etc/systemd/system && exec "$@"'
        command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "-c", "local", str(play), *options]
        env = {
            **os.environ,
            "ANSIBLE_COLLECTIONS_PATH": str(adhoc.COLLECTIONS),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_LOCAL_TEMP": str(node.root / "local"),
            "ANSIBLE_REMOTE_TEMP": str(node.root / "remote"),
            "PATH": f"{node.root}/bin:{os.environ['PATH']}",
        }
        words = ["unshare", "--mount", "sh", "-c", script, "sh", *command]
        done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "changed=0" not in run("--check")
    assert node.unit.exists()
    (node.root / "log").unlink()
    assert "changed=0" not in run()
    assert not any(os.path.lexists(path) for path in (node.unit, node.link, drop_in))
    assert kept.exists()
    assert "systemctl daemon-reload" in (node.root / "log").read_text().splitlines()
    assert "changed=0" in run()
