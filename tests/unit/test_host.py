# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The role host: what it decides from how a node is, and its tasks as Ansible runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _host, _machine_part
from ansible_collections.dgx_spark.sglang.plugins.module_utils._inventory import Host, check_inventory
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import role_specs

ROOT = Path(__file__).resolve().parents[2]
ROLE = ROOT / "roles/host"
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
VARS: dict[str, Any] = yaml.safe_load((ROLE / "vars/main.yml").read_text())

# A node as DGX OS leaves it: a desktop, timesyncd, nobody who guards the memory.
SEEN: dict[str, Any] = {
    "cmdline": ["BOOT_IMAGE=/boot/vmlinuz-6.17.0-1014-nvidia", "root=UUID=0", "ro"],
    "desktop": True,
    "memlock": "8388608",
    "time_daemons": ["systemd-timesyncd.service"],
    "swap_makers": [],
    "swap_units": {},
    "chrony_sources": False,
    "guarded": False,
    "masked": False,
    "oom_rivals": {"files": [], "units": []},
    "oomd_slices": [],
}


def keys(things: list[dict[str, Any]]) -> list[str]:
    return [f"{one['kind']} {one['name']}{'' if 'wanted' in one else ' (recorded)'}" for one in things]


def test_properties_of_units() -> None:
    shown = "FragmentPath=/lib/a\nDropInPaths=/etc/x /etc/y\n\nFragmentPath=\nDropInPaths=\n"
    assert _host.blocks(shown) == [
        {"FragmentPath": "/lib/a", "DropInPaths": "/etc/x /etc/y"},
        {"FragmentPath": "", "DropInPaths": ""},
    ]
    assert _host.blocks("") == []


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/earlyoom.service\n", "earlyoom.service"),
        ("1:name=systemd:/system.slice/my-oom.service/sub\n0::/\n", "my-oom.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/oom.service\n", "oom.service"),
        ("0::/user.slice\n", ""),
    ],
)
def test_the_unit_of_a_process(cgroup: str, unit: str) -> None:
    assert _host.unit_of(cgroup) == unit


def test_rivals_of_the_memory_guard() -> None:
    """A unit made by hand, a drop-in that takes its arguments away, another that does not, and other services."""
    folder = "/etc/systemd/system/earlyoom.service"
    texts = {
        folder: "[Service]\nExecStart=/usr/local/bin/earlyoom\n",
        f"{folder}.d/args.conf": "[Service]\nExecStart=\nExecStart=/bin/earlyoom -m 10\n",
        f"{folder}.d/environment.conf": "[Service]\nEnvironment=EARLYOOM_ARGS=-m 10\n",
        f"{folder}.d/nice.conf": "[Service]\nNice=-20\n",
    }
    found = _host.oom_rivals(texts, ["earlyoom.service", "my-oom.service", ""], ["nohang.service"])
    assert found == {"files": list(texts)[:3], "units": ["my-oom.service", "nohang.service"]}
    assert _host.oom_rivals({}, ["earlyoom.service"], []) == {"files": [], "units": []}


def test_an_earlyoom_that_was_forbidden_is_allowed_for_the_time() -> None:
    (thing,) = [one for one in _host.oom_things({**SEEN, "masked": True}) if one["kind"] == "unit"]
    assert thing == {"kind": "unit", "name": "earlyoom.service", "wanted": {"enabled": "disabled"}}


def test_what_the_memory_guard_replaces_is_recorded_before_it_comes() -> None:
    before = [
        "file /etc/default/earlyoom (recorded)",
        "package earlyoom (recorded)",
        "unit earlyoom.service (recorded)",
    ]
    assert keys(_host.oom_things(SEEN)) == before
    # What that role has written itself is nobody's former state.
    assert _host.oom_things({**SEEN, "guarded": True}) == []
    rivals = {"files": ["/etc/systemd/system/earlyoom.service"], "units": ["nohang.service"]}
    found = _host.oom_things({**SEEN, "guarded": True, "oom_rivals": rivals, "oomd_slices": ["system.slice"]})
    assert keys(found) == [
        "file /etc/systemd/system/earlyoom.service",
        "unit nohang.service",
        "file /etc/systemd/system/system.slice.d/90-dgx-spark.conf",
    ]


def test_kernel_parameters_now_and_at_every_boot() -> None:
    # With slashes: an interface's name may hold dots.
    wanted = {"vm.swappiness": 1, "net/ipv4/conf/eth0.7/forwarding": 0}
    file, *now = _host.sysctl_things(wanted, VARS["host_persisted"])
    assert "\nvm.swappiness = 1\nnet/ipv4/conf/eth0.7/forwarding = 0\n" in file["wanted"]["content"]
    assert {one["name"]: one["wanted"]["value"] for one in now} == {"vm.swappiness": "1", list(wanted)[1]: "0"}
    assert _host.sysctl_things({}, VARS["host_persisted"]) == []
    # Read after /etc/sysctl.conf, which is linked there.
    assert Path(VARS["host_persisted"]).name > "99-sysctl.conf"


def test_whoever_sets_the_clock_goes_on() -> None:
    assert _host.time_things(SEEN) == []
    assert keys(_host.time_things({**SEEN, "time_daemons": []})) == [
        "package systemd-timesyncd (recorded)",
        "unit systemd-timesyncd.service",
    ]


@pytest.mark.parametrize(
    ("daemons", "path", "text", "after"),
    [
        (
            ["chrony.service"],
            "/etc/chrony/sources.d/dgx-spark.sources",
            "server a.example iburst\nserver b.example iburst\n",
            "systemctl try-restart chrony[.]service",
        ),
        *(
            (
                daemons,
                "/etc/systemd/timesyncd.conf.d/90-dgx-spark.conf",
                "[Time]\nNTP=a.example b.example\n",
                "systemctl try-restart systemd-timesyncd[.]service",
            )
            for daemons in ([], ["systemd-timesyncd.service"])
        ),
    ],
)
def test_time_servers_of_ones_own(daemons: list[str], path: str, text: str, after: str) -> None:
    seen = {**SEEN, "time_daemons": daemons, "chrony_sources": True}
    given = _host.time_server_things(seen, ["a.example", "b.example"])
    (thing,) = given["things"]
    assert (thing["name"], thing["wanted"]["content"].partition("\n")[2]) == (path, text)
    assert ([" ".join(argv) for argv in given["after"]], given["refused"]) == ([after], "")
    # Taken out again: the part is put back.
    assert _host.time_server_things(seen, [])["things"] == []


def test_time_servers_that_no_file_of_ours_can_give() -> None:
    """Also chrony, where its configuration does not read the folder."""
    for unit in _host.TIME_DAEMONS[1:]:
        seen = {**SEEN, "time_daemons": [unit]}
        assert _host.time_server_things(seen, ["a.example"]) == {"things": [], "after": [], "refused": unit}
        assert _host.time_server_things(seen, [])["refused"] == ""


def test_all_that_may_turn_swap_on_is_set_aside() -> None:
    seen = {**SEEN, "swap_makers": ["zramswap.service"], "swap_units": {"swap.img.swap": False, "mine.swap": True}}
    assert [(one["name"], one["wanted"]) for one in _host.swap_things(seen)] == [
        ("zramswap.service", {"enabled": "disabled", "active": False}),
        ("swap.target", {"enabled": "masked"}),
        ("swap.img.swap", {"enabled": "masked"}),
        # Where a mask would be is its own file.
        ("mine.swap", {"enabled": "disabled"}),
        ("all", {"areas": []}),
    ]


def test_units_by_which_systemd_may_turn_swap_on() -> None:
    rows = [
        ("swap.img.swap", "loaded", "generated", "/run/systemd/generator/swap.img.swap"),
        ("dev-zram0.swap", "loaded", "generated", "/run/systemd/generator/dev-zram0.swap"),
        ("mine.swap", "loaded", "enabled", "/etc/systemd/system/mine.swap"),
        ("unused.swap", "loaded", "disabled", "/etc/systemd/system/unused.swap"),
        ("masked.swap", "masked", "masked", "/etc/systemd/system/masked.swap"),
        ("by-hand.swap", "loaded", "", ""),
        ("gone.swap", "not-found", "", ""),
    ]
    shown = [dict(zip(("Id", "LoadState", "UnitFileState", "FragmentPath"), row, strict=True)) for row in rows]
    assert _host.swap_units(shown) == {"swap.img.swap": False, "dev-zram0.swap": False, "mine.swap": True}
    assert _host.swap_units([]) == {}


def test_a_configuration_of_chrony_that_reads_the_folder_of_servers() -> None:
    assert _host.reads_sources("# Debian\nsourcedir /run/chrony-dhcp\nsourcedir /etc/chrony/sources.d\n")
    assert not _host.reads_sources("#sourcedir /etc/chrony/sources.d\nserver a.example iburst\n")


@pytest.mark.parametrize(
    ("changes", "wanted", "waiting"),
    [
        ({}, {"headless": True, "kho_off": True, "memlock": True}, ["no desktop", "kho=off", "memlock limit"]),
        ({}, {"headless": False, "kho_off": False, "memlock": False}, []),
        ({"desktop": False}, {"headless": True, "kho_off": False, "memlock": False}, []),
        ({"cmdline": ["ro", "kho=off"]}, {"headless": False, "kho_off": True, "memlock": False}, []),
        ({"memlock": "infinity"}, {"headless": False, "kho_off": False, "memlock": True}, []),
    ],
)
def test_what_waits_for_a_boot(changes: dict[str, Any], wanted: dict[str, bool], waiting: list[str]) -> None:
    rows = _host.pending("spark-1", {**SEEN, **changes}, wanted)
    assert [row["what"] for row in rows] == waiting
    assert all(row["host"] == "spark-1" and row["why"] and row["mend"] for row in rows)


HELD = ["linux-image-6.17.0-1014-nvidia", "linux-image-nvidia-hwe-24.04", "linux-nvidia-hwe-24.04"]
HELD += ["linux-modules-nvidia-580-open-nvidia-hwe-24.04", "nvidia-driver-580-open", "libnvidia-compute-580"]
FREE = [
    "nvidia-container-toolkit",
    "libnvidia-container1",
    "docker-ce",
    "linux-firmware",
    "linux-libc-dev",
    "nvidia-settings",
]


def test_what_is_held_is_kernel_and_driver_alone() -> None:
    things = [_machine_part.thing_of(one) for one in _host.hold_things(DEFAULTS["host_hold_patterns"])]
    assert {thing.name for thing in _machine_part.expanded(things, HELD + FREE)} == set(HELD)


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"host_sysctl": {"swappiness": 1}}, "host_sysctl"),
        ({"host_sysctl": {"vm.swappiness": "1\n2"}}, "host_sysctl.vm.swappiness"),
        ({"host_sysctl": {"vm.swappiness": True}}, "host_sysctl.vm.swappiness"),
        ({"host_sysctl": {"../etc/passwd": 1}}, "host_sysctl"),
        ({"host_sysctl": {"net/ipv4/conf/enp1s0f1np1/arp_ignore": 0}}, "host_sysctl"),
        ({"host_sysctl": {"net.ipv6.conf.enp1s0f1np1.disable_ipv6": 0}}, "host_sysctl"),
        ({"host_time_servers": ["a b"]}, "host_time_servers[0]"),
        ({"host_hold_patterns": ["linux-image-*", "rm -rf"]}, "host_hold_patterns[1]"),
        ({"host_reboot": "now"}, "host_reboot"),
        ({"host_headless": "perhaps"}, "host_headless"),
        ({"host_swapoff": False}, "host_swapoff"),
    ],
)
def test_an_inventory_is_held_against_it(changes: dict[str, Any], variable: str) -> None:
    group = yaml.safe_load((ROOT / "inventory/spark4/group_vars/sparks.yml").read_text())
    hosts = [Host(f"s{n}", f"s{n}", {**group, **changes}, {}) for n in range(4)]
    (finding,) = check_inventory(hosts, role_specs(), ["glm-4.7-fp8"])
    assert finding.variable == variable
    assert finding.mend


def test_defaults_are_right() -> None:
    assert _host.check_host(DEFAULTS) == []
    assert {name for name, value in DEFAULTS.items() if value is False} == {
        *("host_headless_now", "host_hold_packages", "host_kho_off", "host_teardown"),
    }
    assert DEFAULTS["host_reboot"] == "never"


def test_simulated_nodes_leave_the_machines_kernel_alone() -> None:
    group = yaml.safe_load((ROOT / "inventory/sim4/group_vars/sparks.yml").read_text())
    for name in ("host_swap_off", "host_memlock", "host_sysctl", "host_time_sync"):
        assert not group[name]
    assert "host_kho_off" not in group


def test_every_part_has_its_tasks_and_is_put_back() -> None:
    used = []
    for path in sorted((ROLE / "tasks").glob("*.yml")):
        for task in yaml.safe_load(path.read_text()):
            part = task.get("dgx_spark.sglang.machine_part")
            if part and path.stem != "restore":
                assert part["name"] == path.stem
                used.append(path.stem)
    assert set(used) == set(VARS["host_parts"])
    order = [task["ansible.builtin.import_tasks"] for task in yaml.safe_load((ROLE / "tasks/main.yml").read_text())]
    assert [name.removesuffix(".yml") for name in order] == ["look", *VARS["host_parts"], "boot"]


PLAY = """
- hosts: sparks
  connection: local
  gather_facts: false
  roles: [dgx_spark.sglang.cluster]
  vars:
    host_sysctl: {}
  tasks:
    - name: Run the role
      ansible.builtin.import_role:
        name: dgx_spark.sglang.host
"""


SYSTEMCTL = """#!/usr/bin/python3
# A stand-in for systemctl on a node with a desktop and without a rank.
import sys
words = sys.argv[1:]
if words[0] == "show":
    asked = [name for word in words if word.startswith("--property=") for name in word[11:].split(",")]
    known = {"ActiveState": "inactive", "SubState": "dead", "LoadState": "not-found", "DefaultLimitMEMLOCK": "8388608"}
    for unit in [word for word in words[1:] if not word.startswith("--")] or [""]:
        known.update(Id=unit, ActiveState="active" if unit == "display-manager.service" else "inactive")
        print("".join(f"{name}={known.get(name, '')}\\n" for name in asked))
elif words[0] in ("is-enabled", "is-active"):
    print("inactive" if words[0] == "is-active" else "disabled")
    sys.exit(1)
else:
    sys.exit(f"a check run must not ask for {words}")
"""


def check_run(folder: Path, playbook: str, **variables: Any) -> str:
    """A check run of one node of inventory/spark4, which is this machine; returns what it tells."""
    (folder / "systemctl").write_text(SYSTEMCTL)
    (folder / "systemctl").chmod(0o755)
    words = [
        "ansible-playbook",
        "--check",
        "-i",
        "inventory/spark4",
        "--limit",
        "localhost,spark-0.local",
        playbook,
        "-e",
        json.dumps(variables),
    ]
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PATH": f"{folder}:{os.environ['PATH']}",
    }
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_check_run_on_a_machine_without_any_of_it(tmp_path: Path) -> None:
    """Every task is evaluated, with every part on but for the kernel's parameters, and nothing is changed."""
    (tmp_path / "play.yml").write_text(PLAY)
    on = {"host_hold_packages": True, "host_kho_off": True, "host_time_servers": ["a.example"]}
    told = check_run(tmp_path, str(tmp_path / "play.yml"), **on).partition("in force after a boot:")[2]
    assert told.count("kho=off") == told.count("no desktop") == 1
    assert "failed=0" in told
    assert not Path("/var/lib/dgx-spark-host").exists()


def test_teardown_of_a_machine_on_which_nothing_was_made_changes_nothing(tmp_path: Path) -> None:
    """Every task of it is evaluated, up to the fabric, which has no backup here."""
    variables = {"host_teardown": True, "ansible_connection": "local", "ansible_become": False}
    told = check_run(tmp_path, "playbooks/teardown.yml", **variables)
    order = [
        "memory_guard : ",
        "host : Put back",
        "container_runtime : ",
        "Take the firewall away",
        "Remove the folder",
    ]
    places = [told.index(words) for words in order]
    assert places == sorted(places)
    assert set(re.findall(r"changed=(\d+)", told)) == {"0"}
    plain = check_run(tmp_path, "playbooks/teardown.yml", **{**variables, "host_teardown": False})
    assert "firewall" not in plain
