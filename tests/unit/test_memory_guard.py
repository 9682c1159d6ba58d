# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The guard of the memory: earlyoom's arguments, the file that holds them, and the role's variables."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.plugins.filter.core import FilterModule
from ansible_collections.dgx_spark.sglang.plugins.filter.memory_guard import memory_guard_arguments
from ansible_collections.dgx_spark.sglang.plugins.module_utils._inventory import Host, check_inventory
from ansible_collections.dgx_spark.sglang.plugins.module_utils._memory_guard import check_memory_guard, expression
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import role_specs
from jinja2 import Environment, StrictUndefined

ROOT = Path(__file__).parents[2]
ROLE = ROOT / "roles/memory_guard"
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
VARS: dict[str, Any] = yaml.safe_load((ROLE / "vars/main.yml").read_text())
SETTINGS = {name: DEFAULTS[f"memory_guard_{name}"] for name in VARS["memory_guard_settings"]}

# /proc/PID/comm of what runs on a node that serves; the kernel has cut them.
ENGINE = ["sglang::schedul", "sglang::detoken", "sglang", "pt_main_thread", "python3", "python3.12"]
SYSTEM = ["systemd", "systemd-journal", "sshd", "sshd-session", "dbus-daemon", "dockerd", "docker", "containerd"]
SYSTEM += ["containerd-shim", "NetworkManager", "nvidia-persiste", "dgx-spark-gates", "agetty"]
OTHERS = ["bash", "Xorg", "VLLM::Worker", "my-sglang", "python", "rsync"]


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_limits_are_kib_and_swap_delays_neither_signal() -> None:
    words = memory_guard_arguments(SETTINGS)
    assert option(words, "-M") == "4194304,2097152"
    # One number would be that of SIGTERM; SIGKILL would wait until half of the swap is used.
    assert option(words, "-s") == "100,100"
    assert option(words, "-r") == "60"


def test_the_engine_goes_first_and_the_way_in_last() -> None:
    words = memory_guard_arguments(SETTINGS)
    for name, matched in (("--prefer", ENGINE), ("--avoid", SYSTEM)):
        pattern = re.compile(option(words, name))
        assert [comm for comm in (*ENGINE, *SYSTEM, *OTHERS) if pattern.search(comm)] == matched


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (["a"], "^(a)$"),
        (["a*", "b.c"], "^(a.*|b[.]c)$"),
        (["containerd-shim-runc-v2"], "^(containerd-shim)$"),
        (["sglang::scheduler*"], "^(sglang::schedul.*)$"),
    ],
)
def test_names_as_the_kernel_keeps_them(names: list[str], written: str) -> None:
    assert expression(names) == written


def test_no_names_are_no_option() -> None:
    words = memory_guard_arguments({**SETTINGS, "prefer": [], "avoid": []})
    assert words == ["-M", "4194304,2097152", "-s", "100,100", "-r", "60"]


@pytest.mark.parametrize(
    ("changes", "variable", "problem"),
    [
        ({"terminate_mib": 0}, "terminate_mib", "no amount of memory"),
        ({"terminate_mib": 16385}, "terminate_mib", "no amount of memory"),
        ({"kill_mib": 0}, "kill_mib", "Is not below"),
        ({"kill_mib": "4097"}, "kill_mib", "Is not below"),
        ({"prefer": ["ok", "a b"]}, "prefer[1]", "not the name of a process"),
        ({"prefer": ["*"]}, "prefer[0]", "not the name of a process"),
        ({"avoid": ["a*b"]}, "avoid[0]", "not the name of a process"),
        ({"avoid": ["it's"]}, "avoid[0]", "not the name of a process"),
        ({"avoid": ['a"']}, "avoid[0]", "not the name of a process"),
        ({"avoid": ["(a|b)"]}, "avoid[0]", "not the name of a process"),
        ({"avoid": ["a\n"]}, "avoid[0]", "not the name of a process"),
        ({"avoid": [""]}, "avoid[0]", "not the name of a process"),
    ],
)
def test_findings(changes: dict[str, Any], variable: str, problem: str) -> None:
    (finding,) = check_memory_guard({f"memory_guard_{name}": value for name, value in {**SETTINGS, **changes}.items()})
    assert finding.variable == f"memory_guard_{variable}"
    assert problem in finding.problem
    with pytest.raises(AnsibleFilterError, match=re.escape(f"memory_guard_{variable}")):
        memory_guard_arguments({**SETTINGS, **changes})


@pytest.mark.parametrize("changes", [{}, {"terminate_mib": 1, "kill_mib": 1}, {"terminate_mib": "16384"}])
def test_no_findings(changes: dict[str, Any]) -> None:
    assert check_memory_guard({f"memory_guard_{name}": value for name, value in {**SETTINGS, **changes}.items()}) == []
    assert check_memory_guard({}) == []


def test_an_inventory_is_held_against_it() -> None:
    group = yaml.safe_load((ROOT / "inventory/spark4/group_vars/sparks.yml").read_text())
    hosts = [Host(f"s{n}", f"s{n}", {**group, "memory_guard_kill_mib": 5000}, {}) for n in range(4)]
    (finding,) = check_inventory(hosts, role_specs(), ["glm-4.7-fp8"])
    assert finding.variable == "memory_guard_kill_mib"


def written(settings: dict[str, Any]) -> list[str]:
    """The lines of /etc/default/earlyoom as the role writes it."""
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters["quote"] = FilterModule().filters()["quote"]
    words = memory_guard_arguments(settings)
    text = environment.from_string((ROLE / "templates/earlyoom.j2").read_text()).render(
        memory_guard_words=words, memory_guard_mark=VARS["memory_guard_mark"]
    )
    assert VARS["memory_guard_mark"] in text
    return text.splitlines()


@pytest.mark.parametrize("changes", [{}, {"prefer": ["a.b*", "c"], "avoid": []}])
def test_the_file_is_read_as_it_is_meant(changes: dict[str, Any]) -> None:
    """Systemd and a shell unquote the value when they read it; systemd splits it, and unquotes the words again."""
    (line,) = [line for line in written({**SETTINGS, **changes}) if not line.startswith("#")]
    (assignment,) = shlex.split(line)
    name, _, value = assignment.partition("=")
    assert name == "EARLYOOM_ARGS"
    assert shlex.split(value) == memory_guard_arguments({**SETTINGS, **changes})
    # Neither of them may find a variable or an escape in it.
    assert not re.search(r"\$\w|\$[({]|[\\`]", line)


def test_the_packages_own_file_is_not_taken_for_ours() -> None:
    assert VARS["memory_guard_mark"] not in (ROLE / "files/earlyoom.default").read_text()


def test_simulated_nodes_share_a_memory_that_may_be_small() -> None:
    group = yaml.safe_load((ROOT / "inventory/sim4/group_vars/sparks.yml").read_text())
    assert group["memory_guard_terminate_mib"] <= 2
    assert group["memory_guard_kill_mib"] <= 1
