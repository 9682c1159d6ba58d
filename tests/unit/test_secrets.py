# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""No secret where others could read it: canaries go in, and nothing that is made or shown of them holds one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _secrets
from ansible_collections.dgx_spark.sglang.plugins.module_utils._container import host_options
from ansible_collections.dgx_spark.sglang.plugins.module_utils._gates import GateOptions, gates_config
from ansible_collections.dgx_spark.sglang.plugins.module_utils._supervision import supervision
from ansible_collections.dgx_spark.sglang.plugins.module_utils._unit import RunOptions, run_command, systemd_exec
from ansible_collections.dgx_spark.sglang.tests.unit.test_plan import option, plan_of

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
CANARY, ADMIN = "canary-0123456789abcdef", "canary-of-admins-456789abcdef"
KEYS = {"cluster_api_key": CANARY, "cluster_admin_api_key": ADMIN}
KEYS_FILE = "/etc/dgx-spark/server-keys.yaml"
SUPERVISION = yaml.safe_load((ROOT / "roles/rank/vars/main.yml").read_text())["rank_supervision_options"]


def options_of(**changes: Any) -> RunOptions:
    base: dict[str, Any] = {"ulimits": {}, "gpu_devices": [], "rdma": True, "env_file": "/e", "model_digest": "d"}
    return RunOptions(**{**base, "docker_options": [], "keys_file": KEYS_FILE, **changes})


def command_of(plan: Mapping[str, Any], rank: int = 0) -> list[str]:
    return run_command(plan, plan["ranks"][rank], options_of())


def test_nothing_that_is_made_of_the_plan_holds_a_key() -> None:
    plan = plan_of(2, None, **KEYS).as_dict()
    told = dict.fromkeys(SUPERVISION, 7) | {"key_file": "/k", "keys_file": KEYS_FILE, "model_digest": "d"}
    gates = GateOptions(gpu_devices=[], mtu=9000, drop_caches=True, floor_bytes=0, timeouts={})
    made = [
        plan,
        *(systemd_exec(command_of(plan, rank)) for rank in range(2)),
        *(supervision(plan, rank, told) for rank in plan["ranks"]),
        *(gates_config(plan, rank, gates) for rank in plan["ranks"]),
    ]
    assert "canary" not in json.dumps(made)


def test_the_server_reads_its_keys_from_a_file_on_rank_0_alone() -> None:
    plan = plan_of(2, None, **KEYS).as_dict()
    first, second = (command_of(plan, rank) for rank in range(2))
    assert option(first, "--config") == "/run/secrets/sglang.yaml"
    mount = f"--mount=type=bind,source={KEYS_FILE},target=/run/secrets/sglang.yaml,readonly"
    # Of the container, not of the server.
    assert first.index(mount) < first.index("python3")
    assert not [word for word in second if "config" in word or "secrets" in word or KEYS_FILE in word]
    told = dict.fromkeys(SUPERVISION, 7) | {"keys_file": KEYS_FILE, "model_digest": "d"}
    assert [supervision(plan, rank, told).get("keys_file") for rank in plan["ranks"]] == [KEYS_FILE, None]


def test_without_a_key_nothing_is_asked_for() -> None:
    plan = plan_of(2).as_dict()
    assert plan["api_keys"] == {"options": [], "fingerprint": ""}
    words = " ".join(command_of(plan))
    assert "--config" not in words
    assert "/run/secrets" not in words


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"cluster_api_key": CANARY},
        {**KEYS, "cluster_api_key": CANARY + "0"},
        {"cluster_api_key": ADMIN, "cluster_admin_api_key": CANARY},
    ],
)
def test_other_keys_restart_the_group(other: dict[str, str]) -> None:
    def label(values: dict[str, str], rank: int) -> str:
        words = command_of(plan_of(2, None, **values).as_dict(), rank)
        return next(word for word in words if word.startswith("--label=dgx-spark.group="))

    for rank in range(2):
        assert label(KEYS, rank) == label(KEYS, rank)
        assert label(KEYS, rank) != label(other, rank)


def test_the_fingerprint_can_be_checked_for_no_more_than_a_few_words_a_second() -> None:
    """As RFC 7914 has it: what it costs is memory, 128 * r * n bytes, and that can't be saved."""
    assert _secrets._SCRYPT["n"] * _secrets._SCRYPT["r"] * 128 >= 16 * 2**20
    assert re.fullmatch(r"[0-9a-f]{12}", _secrets.fingerprint(KEYS))


def test_file() -> None:
    text = _secrets.server_file(CANARY, ADMIN)
    assert json.loads(text) == yaml.safe_load(text) == {"api-key": CANARY, "admin-api-key": ADMIN}
    assert json.loads(_secrets.server_file(CANARY, "")) == {"api-key": CANARY}
    assert _secrets.server_file("", None) == ""
    # A number to YAML, but not in quotes.
    assert yaml.safe_load(_secrets.server_file("0123456789012345", "")) == {"api-key": "0123456789012345"}


# ---- the container ---------------------------------------------------------------------------


@pytest.mark.parametrize(("rdma", "kept"), [(False, []), (True, ["--cap-add=IPC_LOCK"])])
def test_no_capability_but_the_one_for_rdma(rdma: bool, kept: list[str]) -> None:
    words = host_options("cuda", {"memlock": -1}, ["nvidia.com/gpu=all"], rdma=rdma)
    assert "--privileged" not in words
    assert "--cap-drop=ALL" in words
    assert "--security-opt=no-new-privileges" in words
    assert [word for word in words if word.startswith("--cap-add")] == kept
    assert ("--device=/dev/infiniband" in words) == rdma


# ---- what Ansible does and shows -------------------------------------------------------------

Play = Callable[..., str]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where each node's file goes."""
    return tmp_path


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Runs keys/play.yml on inventory/spark4 with everything that Ansible can show; returns what it showed."""
    srt = tmp_path / "image/sglang/srt"
    srt.mkdir(parents=True)
    (srt.parent / "__init__.py").write_text("")
    (srt.parent / "version.py").write_text('__version__ = "0.5.6"\n')
    (srt / "server_args.py").write_text('ConfigArgumentMerger\nparser.add_argument("--api-key")\n')

    def run(*arguments: str, code: int = 0, **keys: str) -> str:
        variables = {
            "rank_keys_file": f"{tmp_path}/{{{{ inventory_hostname }}}}.yaml",
            "cluster_api_key": "{{ lookup('ansible.builtin.env', 'SGLANG_API_KEY') }}",
            "cluster_admin_api_key": "{{ lookup('ansible.builtin.env', 'SGLANG_ADMIN_API_KEY') }}",
            "model_hub_token": "{{ lookup('ansible.builtin.env', 'HF_TOKEN') }}",
        }
        command = ["ansible-playbook", "-i", "inventory/spark4", "tests/unit/keys/play.yml"]
        command += ["-vvv", "--diff", "-e", json.dumps(variables), *arguments]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_LOCAL_TEMP": str(tmp_path / "local"),
            "PATH": f"{HERE / 'keys'}:{os.environ['PATH']}",
            "STANDIN_PYTHON": sys.executable,
            "PYTHONPATH": str(tmp_path / "image"),
            "HF_TOKEN": "canary-of-the-hub",
            **keys,
        }
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def test_a_run_writes_them_for_root_on_rank_0_and_shows_nothing(play: Play, out: Path) -> None:
    shown = play(SGLANG_API_KEY=CANARY)
    assert "canary" not in shown
    (file,) = out.glob("*.yaml")
    assert file.name == "spark-0.local.yaml"
    assert (file.stat().st_mode & 0o777, file.stat().st_uid) == (0o600, 0)
    assert json.loads(file.read_text()) == {"api-key": CANARY}
    # Again, with another, in a check run, and with none.
    assert "changed=1" not in play(SGLANG_API_KEY=CANARY)
    shown = play("--check", SGLANG_API_KEY=f"{CANARY}-2")
    assert "changed=1" in shown
    assert "canary" not in shown
    assert json.loads(file.read_text()) == {"api-key": CANARY}
    shown = play(SGLANG_API_KEY=f"{CANARY}-2")
    assert "canary" not in shown
    assert json.loads(file.read_text()) == {"api-key": f"{CANARY}-2"}
    assert "changed=1" in play()
    assert not file.exists()


def test_a_key_that_the_server_does_not_know_ends_the_run_before_anything_is_written(play: Play, out: Path) -> None:
    shown = play(SGLANG_API_KEY=CANARY, SGLANG_ADMIN_API_KEY=ADMIN, code=2)
    assert "SGLang 0.5.6 has no --admin-api-key. Mend: leave cluster_admin_api_key out" in shown
    assert "canary" not in shown
    assert not list(out.glob("*.yaml"))


def test_the_files_that_others_may_read_hold_no_key(tmp_path: Path) -> None:
    """Units, environments, and what gates and supervisors are told, rendered by Ansible for all ranks."""
    variables = {"out": str(tmp_path), "cluster_api_key": "{{ lookup('ansible.builtin.env', 'SGLANG_API_KEY') }}"}
    command = ["ansible-playbook", "-i", "inventory/spark4", "tests/unit/units/render.yml", "-e", json.dumps(variables)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "SGLANG_API_KEY": CANARY}
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=True)
    texts = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert len(texts) == 4 * 4
    assert "canary" not in "".join(texts.values())
    with_keys = {name for name, text in texts.items() if KEYS_FILE in text}
    assert with_keys == {"0-sglang-rank.service", "0-supervision.json"}


def test_a_bad_key_is_told_but_not_shown(play: Play, out: Path) -> None:
    shown = play(SGLANG_API_KEY="canary with blanks", code=2)
    assert "cluster_api_key = ***" in shown
    assert "canary" not in shown


def test_an_environment_without_the_key_does_not_open_the_api(play: Play) -> None:
    """As docs/security.md has it: default=undef()."""
    wanted = "{{ lookup('ansible.builtin.env', 'SGLANG_API_KEY', default=undef()) }}"
    assert wanted in (ROOT / "docs/security.md").read_text()
    shown = play("-e", json.dumps({"cluster_api_key": wanted}), code=2)
    assert re.search(r"cluster_api_key = \*\*\*\s+The environment variable .SGLANG_API_KEY. is not set", shown)
    assert "Mend: Define what the template uses" in shown


def no_log_tasks() -> list[tuple[str, dict[str, Any]]]:
    """The tasks of all roles that are given a secret, by their file."""
    found = []
    for path in sorted((ROOT / "roles").glob("*/tasks/*.yml")):
        todo = list(yaml.safe_load(path.read_text()) or [])
        while todo:
            task = todo.pop()
            todo += [inner for key in ("block", "rescue", "always") for inner in task.get(key, [])]
            own = {key: value for key, value in task.items() if key not in ("block", "rescue", "always")}
            if re.search(r"cluster_(?:admin_)?api_key|model_hub_token", json.dumps(own)):
                found.append((path.relative_to(ROOT).as_posix(), task))
    return found


def test_tasks_that_are_given_a_secret_do_not_log() -> None:
    found = no_log_tasks()
    assert {path for path, _ in found} == {
        "roles/rank/tasks/keys.yml",
        "roles/model/tasks/fetch.yml",
        "roles/smoke/tasks/endpoint.yml",
    }
    for path, task in found:
        # The module of the smoke test hides the key itself, and shows what it asked.
        assert task.get("no_log") is True or "dgx_spark.sglang.smoke_test" in task, path
