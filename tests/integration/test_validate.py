"""Broken inventories through ansible-playbook: each ends before any host is touched, without a traceback."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def site(inventory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    command = ["ansible-playbook", "-i", str(inventory), "site.yml", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False, timeout=60)


def inventory_of(folder: Path, hosts: dict[str, Any], **changes: Any) -> Path:
    """inventory/spark4 with other hosts and variables; hosts lie where nothing answers (loopback, port 9)."""
    group = yaml.safe_load((ROOT / "inventory/spark4/group_vars/sparks.yml").read_text())
    variables = {**group, "ansible_host": "127.0.0.1", "ansible_port": 9, **changes}
    # Addresses differ, so that only what a case breaks is broken; all of 127.0.0.0/8 is this machine.
    for number, name in enumerate(hosts):
        hosts[name] = {"ansible_host": f"127.0.0.{11 + number}", **(hosts[name] or {})}
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"children": {"sparks": {"hosts": hosts, "vars": variables}}}}))
    return path


def four() -> dict[str, Any]:
    return {f"spark-{number}": None for number in range(4)}


CASES: list[tuple[str, dict[str, Any], dict[str, Any], list[str], list[str]]] = [
    ("no hosts", {}, {}, [], ["group sparks = (no hosts)", "Mend: List the Sparks"]),
    ("one too few", {f"s{n}": None for n in range(3)}, {}, [], ["tensor_parallel = 4", "has 3 (s0, s1, s2)"]),
    ("model", four(), {"cluster_model": "glm-4.7"}, [], ["cluster_model = 'glm-4.7'", "`glm-4.7-fp8`"]),
    (
        "template",
        four(),
        {"cluster_env": {"A": "{{ no_such_thing }}"}},
        [],
        ["cluster_env = {'A': '{{ no_such_thing }}'} (template)", "'no_such_thing' is undefined"],
    ),
    ("type", four(), {"cluster_rails": "both"}, [], ["cluster_rails = 'both'", "Is not a list"]),
    ("misspelt", four(), {"cluster_api_prot": 30000}, [], ["cluster_api_prot = 30000", "`cluster_api_port`"]),
    ("extra variable", four(), {}, ["-e", "cluster_api_port=99999"], ["cluster_api_port = '99999'", "1024 to 65535"]),
    (
        "address",
        {**four(), "spark-1": {"ansible_host": "{{ nope }}"}},
        {},
        [],
        ["spark-1: ansible_host = '{{ nope }}' (template)"],
    ),
    ("own models", four(), {"cluster_model_dirs": ["/nonexistent"]}, [], ["cluster_model_dirs = /nonexistent"]),
    (
        "no such check",
        four(),
        {"preflight_skip": {"FABRIC.MTU_EQUALS": "the switch is new"}},
        [],
        ["preflight_skip.FABRIC.MTU_EQUALS = 'the switch is new'", "`FABRIC.MTU_EQUAL`"],
    ),
    (
        "skipped without a reason",
        four(),
        {},
        ["-e", '{"preflight_skip": {"FABRIC.MTU": ""}}'],
        ["preflight_skip.FABRIC.MTU = ''", "Skips a check without a reason", "Say in a few words why"],
    ),
    ("limit", four(), {}, ["--limit", "spark-1"], ["--limit = 'spark-1'", "Leaves out spark-0, spark-2, spark-3"]),
]


@pytest.mark.parametrize(
    ("hosts", "changes", "arguments", "said"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_wrong_inventory_ends_before_any_host_is_touched(
    tmp_path: Path, hosts: dict[str, Any], changes: dict[str, Any], arguments: list[str], said: list[str]
) -> None:
    done = site(inventory_of(tmp_path, hosts, **changes), *arguments)
    output = done.stdout + done.stderr
    assert done.returncode != 0
    for text in ["nothing was changed", *said]:
        assert text in output, output
    assert "Traceback" not in output
    assert "unreachable=1" not in output, "a host was contacted"
    assert "Bring up one endpoint" not in output, "the run went on"


def test_broken_model_profile_names_the_line(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models/mine.yml").write_text("description: a\nflags: [\n")
    inventory = inventory_of(tmp_path, four(), cluster_model="mine", cluster_model_dirs=[str(tmp_path / "models")])
    done = site(inventory)
    assert done.returncode != 0
    assert "models/mine.yml" in done.stdout
    assert "line 3" in done.stdout


def test_right_inventory_gets_past_validation(tmp_path: Path) -> None:
    """The hosts then turn out unreachable, as nothing listens on their port: rows of preflight's table."""
    done = site(inventory_of(tmp_path, four()))
    assert "nothing was changed" not in done.stdout
    rows = [line.split()[1:3] for line in done.stdout.splitlines() if line.startswith("error ")]
    assert rows == [["HOST.REACHABLE", f"spark-{number}"] for number in range(4)]
