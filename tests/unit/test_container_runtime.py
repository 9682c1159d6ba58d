# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What a node lacks of Docker and NVIDIA's toolkit; on DGX OS nothing."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _apt_source
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _container_runtime as runtime
from ansible_collections.dgx_spark.sglang.plugins.module_utils._inventory import Host, check_inventory
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import role_specs

from lab import apt_repository
from tests.tools.operating import changes

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/container_runtime"
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text())

GPU = runtime.Options("cuda", ["nvidia.com/gpu=all"], {}, "50m", 3)
CPU = replace(GPU, device="cpu")

BARE: dict[str, Any] = {"engine": "", "toolkit": "", "refresh": False, "devices": []}
# DGX OS 7: Docker CE and the toolkit are preinstalled.
DGX = {"engine": "29.2.1", "toolkit": "1.19.0", "refresh": True, "devices": ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]}
DGX_DAEMON = {"runtimes": {"nvidia": {"args": [], "path": "nvidia-container-runtime"}}}


@pytest.mark.parametrize(
    ("seen", "options", "wanted"),
    [
        (BARE, GPU, {"engine": True, "toolkit": True, "own_refresh": False}),
        (BARE, CPU, {"engine": True, "toolkit": False, "own_refresh": False}),
        (DGX, GPU, {"engine": False, "toolkit": False, "own_refresh": False}),
        ({**DGX, "refresh": False}, GPU, {"engine": False, "toolkit": False, "own_refresh": True}),
        ({**DGX, "toolkit": ""}, GPU, {"engine": False, "toolkit": True, "own_refresh": False}),
        ({**DGX, "engine": "20.10.24+dfsg1"}, CPU, {"engine": False, "toolkit": False, "own_refresh": False}),
    ],
)
def test_what_is_there_and_new_enough_is_kept(
    seen: dict[str, Any], options: runtime.Options, wanted: dict[str, bool]
) -> None:
    assert runtime.needs(seen, options) == {**wanted, "problems": []}


@pytest.mark.parametrize(
    ("changes", "minimum", "words"),
    [
        ({"engine": "24.0.7"}, "25.0", ["Docker 24.0.7", "25.0 or newer", "Mend:"]),
        ({"engine": "20.10.24+dfsg1"}, "25.0", ["Docker 20.10.24+dfsg1"]),
        ({"engine": "25.0.3"}, "28", ["28 or newer"]),
        ({"toolkit": "1.11.0"}, "25.0", ["Toolkit 1.11.0", "1.12 or newer", "Mend:"]),
    ],
)
def test_what_is_too_old_is_told_and_not_replaced(changes: dict[str, Any], minimum: str, words: list[str]) -> None:
    found = runtime.needs({**DGX, **changes}, replace(GPU, minimum_engine=minimum))
    assert not found["engine"]
    (problem,) = found["problems"]
    assert all(word in problem for word in words)
    assert runtime.needs({**DGX, **changes}, CPU)["problems"] == []


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("Docker version 28.5.1, build e180ab8", "28.5.1"),
        ("Docker version 20.10.24+dfsg1, build 297e128", "20.10.24+dfsg1"),
        ("NVIDIA Container Toolkit CLI version 1.19.0\ncommit: 1f7480c8", "1.19.0"),
        ("NVIDIA Container Toolkit CLI version 1.20.0-rc.1", "1.20.0-rc.1"),
        ("", ""),
    ],
)
def test_versions(told: str, version: str) -> None:
    assert runtime.version_in(told) == version


def test_versions_are_compared_by_their_numbers() -> None:
    assert runtime.version("9.1") < runtime.version("25.0") < runtime.version("25.0.1") < runtime.version("28.2")
    assert runtime.version("") == ()


@pytest.mark.parametrize(
    ("engine", "options", "features"),
    [
        ("29.2.1", GPU, None),
        ("28.2.0", GPU, None),
        ("28.1.1", GPU, {"cdi": True}),
        ("25.0.3", replace(GPU, daemon={"features": {"buildkit": True}}), {"cdi": True, "buildkit": True}),
        ("25.0.3", replace(GPU, daemon={"features": {"cdi": False}}), {"cdi": False}),
        ("20.10.24+dfsg1", CPU, None),
    ],
)
def test_cdi_is_turned_on_where_it_is_not_on_by_itself(
    engine: str, options: runtime.Options, features: dict[str, bool] | None
) -> None:
    assert runtime.daemon_settings({**DGX, "engine": engine}, options).get("features") == features


def test_missing_devices() -> None:
    assert runtime.missing_devices(DGX, GPU) == []
    assert runtime.missing_devices(BARE, GPU) == ["nvidia.com/gpu=all"]
    assert runtime.missing_devices(BARE, CPU) == []


def test_defaults_of_the_daemon() -> None:
    assert runtime.daemon_defaults(CPU) == {"log-opts": {"max-size": "50m", "max-file": "3"}}
    assert runtime.daemon_defaults(replace(GPU, log_max_size="")) == DGX_DAEMON


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"container_runtime_minimum_engine": "new"}, "container_runtime_minimum_engine"),
        ({"container_runtime_log_max_size": "50 MB"}, "container_runtime_log_max_size"),
        ({"container_runtime_log_max_files": 0}, "container_runtime_log_max_files"),
        (
            {"container_runtime_toolkit_key_fingerprints": ["DDCAE044F796ECB0"]},
            "container_runtime_toolkit_key_fingerprints[0]",
        ),
        ({"container_runtime_restart": "now"}, "container_runtime_restart"),
        ({"container_runtime_engine_source": "snap"}, "container_runtime_engine_source"),
    ],
)
def test_an_inventory_is_held_against_it(changes: dict[str, Any], variable: str) -> None:
    group = yaml.safe_load((ROOT / "inventory/spark4/group_vars/sparks.yml").read_text())
    hosts = [Host(f"s{n}", f"s{n}", {**group, **changes}, {}) for n in range(4)]
    (finding,) = check_inventory(hosts, role_specs(), ["glm-4.7-fp8"])
    assert finding.variable == variable
    assert finding.mend
    assert runtime.check_container_runtime(DEFAULTS) == []


PLAY = """
- hosts: sparks
  connection: local
  gather_facts: false
  tasks:
    - name: Derive the plan
      ansible.builtin.import_role:
        name: dgx_spark.sglang.cluster
      tags: [always]
    - name: Run the role
      ansible.builtin.import_role:
        name: dgx_spark.sglang.container_runtime
      tags: [container_runtime]
      vars:
        container_runtime_config_path: "{{ stand_in_daemon_file }}"
"""

PROGRAMS = {
    "dockerd": "#!/bin/sh\necho 'Docker version 29.2.1, build 1'\n",
    "nvidia-ctk": """#!/bin/sh
case "$*" in
--version) echo 'NVIDIA Container Toolkit CLI version 1.19.0' ;;
'cdi list') echo nvidia.com/gpu=0; echo nvidia.com/gpu=all ;;
*) exit 1 ;;
esac
""",
    # Somebody runs a container of their own.
    "docker": """#!/bin/sh
case "$1" in
ps) printf 'open-webui\\\\nsglang-rank\\\\n' ;;
info) echo LIVE_RESTORE ;;
*) exit 1 ;;
esac
""",
    # A node that serves nothing yet, whose Docker and CDI units are enabled and active.
    "systemctl": """#!/bin/sh
case "$*" in
*LoadState*nvidia-cdi-refresh*) echo loaded ;;
*LoadState*) printf 'LoadState=not-found\\\\nActiveState=inactive\\\\nSubState=dead\\\\n' ;;
is-enabled*) echo enabled ;;
is-active*) echo active ;;
show*docker.service*) printf 'LoadState=loaded\\\\nActiveState=active\\\\nUnitFileState=enabled\\\\n' ;;
show*) printf 'LoadState=not-found\\\\nActiveState=inactive\\\\n' ;;
*) exit 1 ;;
esac
""",
}


STOCK = ("dockerd", "nvidia-ctk", "systemctl")


def run_role(
    folder: Path,
    daemon: dict[str, Any],
    programs: tuple[str, ...] = STOCK,
    live: Any = "false",
    nodes: str = "spark-0.local",
    **variables: Any,
) -> str:
    """The whole role in a check run on a node of four with these programs; returns what it tells."""
    (folder / "bin").mkdir(exist_ok=True)
    for name in programs:
        text = PROGRAMS[name]
        (folder / "bin" / name).write_text(text.replace("\\\\n", "\\n").replace("LIVE_RESTORE", live))
        (folder / "bin" / name).chmod(0o755)
    (folder / "play.yml").write_text(PLAY)
    (folder / "daemon.json").write_text(json.dumps(daemon))
    given = {"stand_in_daemon_file": str(folder / "daemon.json"), "container_runtime_tool_packages": ["bash"]}
    words = ["ansible-playbook", "--check", "--diff", "--tags", "container_runtime", "-i", "inventory/spark4"]
    words += ["--limit", nodes, str(folder / "play.yml")]
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": path}
    words += ["-e", json.dumps({**given, **variables})]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_on_dgx_os_nothing_changes(tmp_path: Path) -> None:
    """But for the bound of the logs, which has its switch; and nothing at all once that is there."""
    assert changes(run_role(tmp_path, DGX_DAEMON, container_runtime_log_rotation=False)) == [0]
    bounded = {**DGX_DAEMON, "log-opts": {"max-size": "10m", "max-file": "5"}}
    assert changes(run_role(tmp_path, bounded)) == [0]


def test_on_dgx_os_the_bound_of_the_logs_is_merged(tmp_path: Path) -> None:
    told = run_role(tmp_path, DGX_DAEMON)
    # The file, and the restart of Docker.
    assert changes(told) == [2]
    assert '"max-size": "50m"' in told


def test_a_restart_that_would_end_somebodys_containers_waits(tmp_path: Path) -> None:
    programs = (*STOCK, "docker")
    told = run_role(tmp_path, DGX_DAEMON, programs)
    assert changes(told) == [1]
    assert "and these containers run: open-webui. Mend:" in " ".join(told.split())
    assert changes(run_role(tmp_path, DGX_DAEMON, programs, container_runtime_restart="always")) == [2]
    # With live-restore they go on.
    assert changes(run_role(tmp_path, DGX_DAEMON, programs, "true")) == [2]


def test_on_the_cpu_nothing_of_nvidias_is_set_up(tmp_path: Path) -> None:
    """And it is said; an engine too old for CDI will do."""
    off = {"sglang_device": "cpu", "container_runtime_log_rotation": False}
    told = run_role(tmp_path, {}, ("dockerd", "systemctl"), nodes="sparks", **off)
    assert " ".join(told.split()).count("nothing of NVIDIA") == 1
    assert changes(told) == [0] * 4


def test_a_check_run_on_a_bare_node_says_what_would_come(tmp_path: Path) -> None:
    """The repository, with the key that was given; and not more than apt knows of before it is there."""
    repository = tmp_path / "repository"
    apt_repository.publish(repository, "1.19.0")
    given: dict[str, Any] = {
        "container_runtime_toolkit_key": str(repository / "gpgkey"),
        "container_runtime_engine_packages": ["bash"],
    }
    known = _apt_source.fingerprints((repository / "gpgkey").read_text())
    told = run_role(tmp_path, {}, ("systemctl",), **given, container_runtime_toolkit_key_fingerprints=known)
    assert "+Signed-By: /etc/apt/keyrings/dgx-spark-nvidia-container-toolkit.asc" in told
    assert '"cdi": true' in told
    assert not Path("/etc/apt/sources.list.d/dgx-spark-nvidia-container-toolkit.sources").exists()


GATES = ROOT / "roles/rank/files/dgx_spark_gates.py"
PROOF = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: Look
      dgx_spark.sglang.node_gates:
        program: "{{ lookup('ansible.builtin.file', gates) }}"
        config: {image: x, gpu_devices: [], timeouts: {docker: 0.1}}
      register: looked
    - name: Tell
      ansible.builtin.debug:
        msg: "{{ looked.lines }}"
"""


@pytest.mark.parametrize(("code", "words"), [(0, "gate image: passed"), (1, "msg: 'gate docker: failed")])
def test_the_gpu_is_proved_by_the_gates_own_program(tmp_path: Path, code: int, words: str) -> None:
    """With a stand-in for docker, and without devices; tests/unit/test_gates.py has the gates themselves."""
    docker = tmp_path / "docker"
    docker.write_text(f"#!/bin/sh\n[ $1 != version ] || exit {code}\necho sha256:0\n")
    docker.chmod(0o755)
    (tmp_path / "play.yml").write_text(PROOF)
    path = f"{tmp_path}:{os.environ['PATH']}"
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PATH": path, "JOURNAL_STREAM": "8:1"}
    command = [
        "ansible-playbook",
        "-i",
        "localhost,",
        "-c",
        "local",
        str(tmp_path / "play.yml"),
        "-e",
        f"gates={GATES}",
    ]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == (2 if code else 0), done.stdout
    assert words in done.stdout
    assert "<3>" not in done.stdout
    assert "changed=0" in done.stdout


def test_the_proof_looks_at_what_the_ranks_use() -> None:
    (task,) = yaml.safe_load((ROLE / "tasks/prove.yml").read_text())
    asked = task["dgx_spark.sglang.node_gates"]
    assert asked["config"].keys() == {"image", "gpu_devices", "gpu_probe"}
    assert "rank/files/dgx_spark_gates.py" in asked["program"]
    assert "rank/files/gpu_probe.py" in asked["config"]["gpu_probe"]
