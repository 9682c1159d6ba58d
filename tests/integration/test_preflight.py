"""playbooks/preflight.yml as it is run: two "nodes" that are this machine, and one that nobody answers for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE: dict[str, Any] = {
    "ansible_connection": "local",
    "ansible_become": False,
    "ansible_python_interpreter": sys.executable,
}
NOBODY: dict[str, Any] = {"ansible_host": "127.0.0.13", "ansible_port": 9, "ansible_become": False}


def preflight(
    folder: Path, hosts: dict[str, dict[str, Any]], *arguments: str, playbook: str = "playbooks/preflight.yml"
) -> Any:
    group = {
        "cluster_model": "glm4-moe-tiny",
        "sglang_device": "cpu",
        "cluster_tensor_parallel": len(hosts),
        "cluster_rails": [{"interface": "no-such-rail", "subnet": "198.18.100.0/24"}],
        "preflight_out": str(folder / "report"),
    }
    inventory = folder / "hosts.yml"
    inventory.write_text(yaml.safe_dump({"all": {"children": {"sparks": {"hosts": hosts, "vars": group}}}}))
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "200"}
    command = ["ansible-playbook", "-i", str(inventory), playbook, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False, timeout=120)


def report(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / "report/preflight.json").read_text())
    return made


@pytest.fixture
def nodes() -> dict[str, dict[str, Any]]:
    return {"a": {**HERE, "ansible_host": "127.0.0.11"}, "b": {**HERE, "ansible_host": "127.0.0.12"}}


def test_all_findings_come_at_once_then_the_run_fails(tmp_path: Path, nodes: dict[str, dict[str, Any]]) -> None:
    done = preflight(tmp_path, nodes, "-e", '{"preflight_skip": {"MODEL.COMPLETE": "it comes tomorrow"}}')
    assert done.returncode == 2, done.stdout + done.stderr
    made = report(tmp_path)
    found = {one["id"]: one for one in made["findings"]}
    # One machine under two names, without a rail, a firewall of ours or an image.
    assert {"HOST.NAMES_UNIQUE", "FABRIC.INTERFACE"} <= set(found)
    assert found["FABRIC.INTERFACE"]["hosts"] == ["a", "b"]
    assert made["skipped"] == [{"id": "MODEL.COMPLETE", "reason": "it comes tomorrow"}]
    assert "it comes tomorrow" in done.stdout
    for one in found.values():
        assert one["id"] in done.stdout
    assert "preflight.html, and preflight.json beside it." in " ".join(done.stdout.split())
    assert "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / "report/preflight.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("arguments", [["playbooks/preflight.yml"], ["site.yml", "--tags", "preflight"]])
def test_a_node_out_of_reach_is_a_finding_beside_the_others(
    tmp_path: Path, nodes: dict[str, dict[str, Any]], arguments: list[str]
) -> None:
    playbook, *more = arguments
    done = preflight(tmp_path, {"a": nodes["a"], "c": NOBODY}, *more, playbook=playbook)
    assert done.returncode == 2
    assert "HOST.REACHABLE" in done.stdout
    found = {one["id"]: one["hosts"] for one in report(tmp_path)["findings"]}
    assert found["HOST.REACHABLE"] == ["c"]
    assert found["FABRIC.INTERFACE"] == ["a"]


def test_site_yml_looks_at_bare_nodes_and_stops_with_what_it_finds(
    tmp_path: Path, nodes: dict[str, dict[str, Any]]
) -> None:
    done = preflight(tmp_path, nodes, "--tags", "preflight", playbook="site.yml")
    assert done.returncode == 2
    made = report(tmp_path)
    assert made["stage"] == "before"
    assert {"MODEL.COMPLETE", "NET.FIREWALL"}.isdisjoint(row["id"] for row in made["checks"])
    assert "HOST.NAMES_UNIQUE" in done.stdout
    # What there is nothing to judge about is for who asks.
    assert "n/a" not in done.stdout


def test_a_run_in_check_mode_tells_the_same_and_writes_nothing(
    tmp_path: Path, nodes: dict[str, dict[str, Any]]
) -> None:
    done = preflight(tmp_path, nodes, "--check")
    assert done.returncode == 2
    assert "HOST.NAMES_UNIQUE" in done.stdout
    assert not (tmp_path / "report").exists()
