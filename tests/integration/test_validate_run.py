# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Some of the wrong inventories of the unit tests, through the real `ansible-playbook site.yml`.

The hosts are reached by a connection plugin that notes whoever uses it: nobody does before everything is right.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.dgx_spark.sglang.tests.unit.inventories import Tree, group, reference
from ansible_collections.dgx_spark.sglang.tests.unit.test_wrong_inventories import WRONG, Wrong

ROOT = Path(__file__).resolve().parents[2]

REPRESENTATIVE = (
    "types: rank_start_seconds text",
    "types: firewall_enabled null",
    "names: role misspelt",
    "hosts: group misspelt",
    "hosts: syntax error",
    "hosts: user undefined",
    "hosts: three for four ranks",
    "rails: LAN",
    "rails: names alone",
    "ports: cluster_api_port of the copying",
    "others: token in a vault",
    "others: token misspelt",
    "others: of itself",
    "others: template cut off",
    "models: file is broken",
    "models: speculation half set",
)
"""One of each way in which a value comes to the check: as data, as a template, from a vault, from a file."""


def site(tree: Tree, folder: Path, *arguments: str) -> tuple[int, str, list[str]]:
    """Run site.yml on an inventory: (exit code, what the terminal showed, the hosts that were touched)."""
    touched = folder / "touched"
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CONNECTION_PLUGINS": str(Path(__file__).parent / "connection_plugins"),
        "ANSIBLE_NOCOLOR": "1",
        "TRIPWIRE": str(touched),
    }
    # With extra variables: nothing of the inventory can take another way.
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(tree.write(folder)), "site.yml"]
    command += ["-e", "ansible_connection=tripwire", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False, timeout=60)
    hosts = touched.read_text().splitlines() if touched.exists() else []
    return done.returncode, done.stdout + done.stderr, hosts


def cases() -> list[Wrong]:
    by_name = {str(param.id): param.values[0] for param in WRONG}
    found = [by_name[name] for name in REPRESENTATIVE]
    assert all(isinstance(case, Wrong) for case in found)
    return [case for case in found if isinstance(case, Wrong)]


@pytest.mark.parametrize("case", cases(), ids=REPRESENTATIVE)
def test_wrong_inventory_ends_before_any_host_is_touched(case: Wrong, tmp_path: Path) -> None:
    tree = reference()
    case.change(tree)
    code, output, touched = site(tree, tmp_path)
    assert code == 2, output
    assert touched == [], output
    assert "nothing was changed" in output
    told = re.sub(r"\s+", " ", output)
    for variable in case.variable.split() if case.variable != "group sparks" else [case.variable]:
        assert f"{variable} = " in told, output
    for text in (case.value, case.mend):
        assert text in told, output
    assert "hunter2" not in output
    for sign in ("Traceback", "jinja2.", "<class '", "Unexpected failure"):
        assert sign not in output, output
    assert "Bring up one endpoint" not in output, "the run went on"


def test_the_tripwire_is_seen_where_the_inventory_is_right(tmp_path: Path) -> None:
    code, output, touched = site(reference(), tmp_path)
    assert code != 0
    assert "nothing was changed" not in output
    assert set(touched) == {f"spark-{number}.invalid" for number in range(4)}, output


def test_encrypted_file_without_a_password_is_told_by_ansible(tmp_path: Path) -> None:
    """The whole file can't be read, so that no play begins."""
    tree = reference()
    (tmp_path / "password").write_text("one")
    inventory = tree.write(tmp_path)
    vault = [str(Path(sys.executable).parent / "ansible-vault"), "encrypt"]
    vault += ["--vault-password-file", str(tmp_path / "password"), str(inventory / "group_vars/sparks.yml")]
    subprocess.run(vault, check=True, capture_output=True)
    command = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory), "playbooks/validate.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode != 0
    assert "Attempting to decrypt but no vault secrets found" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_all_errors_come_in_one_run(tmp_path: Path) -> None:
    tree = reference()
    group(fabric_mtu=1, cluster_modle="x", rank_start_seconds="{{ nope }}")(tree)
    _, output, touched = site(tree, tmp_path)
    assert "3 errors in the inventory; nothing was changed." in output
    assert touched == []
