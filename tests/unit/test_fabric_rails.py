# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What brings about netplan's files on a node: who is told what, and in which order. All programs are stand-ins."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.filter import fabric
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_netplan

from roles.fabric.files import dgx_spark_rails as program
from roles.fabric.files.dgx_spark_rails import NETWORKD, NETWORKMANAGER, Link, Rails, definition_of

RAILS = ["enp1s0f1np1", "enP2p1s0f1np1"]
FIRST = Link(RAILS[0], "02:00:00:00:00:01", "mlx5_core")

STANDIN = """\
#!/bin/sh
name=${0##*/}
folder=%s
echo "$name $*" >> $folder/log
test -e "$folder/fails-$name" && { cat "$folder/fails-$name"; exit 1; }
case "$name $*" in
"ip -json link show") cat $folder/links ;;
"systemctl is-active"*) test -e "$folder/active-$4" -o -e "$folder/active-$3" ;;
"systemctl start "*) : > "$folder/active-$2" ;;
"nmcli --get-values "*) cat "$folder/state-$5" ;;
"nmcli device set "*yes) echo "30 (disconnected)" > "$folder/state-$3" ;;
"nmcli device set "*no) echo "10 (unmanaged)" > "$folder/state-$3" ;;
esac
"""


class Node:
    """A node's files under a folder, and the programs that it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.root, self._programs = folder / "root", folder / "bin"
        for path in (self._programs, *(self.root / name for name in ("run/systemd/network", "etc/sysctl.d"))):
            path.mkdir(parents=True)
        (self.root / "run/NetworkManager/system-connections").mkdir(parents=True)
        for name in ("ip", "netplan", "networkctl", "nmcli", "systemctl", "udevadm"):
            (self._programs / name).write_text(STANDIN % self._programs)
            (self._programs / name).chmod(0o755)
        links = [{"ifname": rail, "address": f"02:00:00:00:00:0{number}"} for number, rail in enumerate(RAILS, 1)]
        self.say("links", json.dumps([{"ifname": "enP7s7", "address": "02:00:00:00:00:07"}, *links]))
        for name in ("default", *RAILS):
            for setting in program.SETTINGS:
                self.write(f"proc/sys/net/{setting.format(name)}", "0")
        for rail in RAILS:
            self.say(f"state-{rail}", "10 (unmanaged)")
            self.write(f"sys/class/net/{rail}/carrier", "1")

    def say(self, name: str, text: str) -> None:
        """What the stand-ins read."""
        (self._programs / name).write_text(text)

    def write(self, path: str, text: str) -> None:
        """A file of the node."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def runs(self, unit: str) -> None:
        """Let a service be active."""
        self.say(f"active-{unit}.service", "")

    def networkd(self, rail: str) -> None:
        """What netplan generates of our own file."""
        text = f"[Match]\nName={rail}\n\n[Link]\nMTUBytes=9000\n\n[Network]\nAddress=10.0.0.1/24\nAddress=10.0.0.2/24\n"
        self.write(f"run/systemd/network/10-netplan-{rail}.network", text)

    def manager(self, rail: str) -> None:
        """The same for NetworkManager."""
        text = f"[connection]\nid=netplan-{rail}\ntype=ethernet\ninterface-name={rail}\n\n[ethernet]\nmtu=9000\n"
        self.write(f"run/NetworkManager/system-connections/netplan-{rail}.nmconnection", text)

    def settings(self, rail: str) -> list[str]:
        """The kernel's of a rail."""
        return [(self.root / "proc/sys/net" / setting.format(rail)).read_text() for setting in program.SETTINGS]

    def bring_about(self, *names: str) -> tuple[list[str], list[str]]:
        """Run it. Returns what was asked of the programs, and the problems."""
        (self._programs / "log").unlink(missing_ok=True)
        rails = Rails(names or RAILS, self.root)
        rails.bring_about()
        asked = (self._programs / "log").read_text().splitlines()
        assert "netplan apply" not in asked
        assert not any("enP7s7" in words for words in asked)
        return [words for words in asked if "is-active" not in words and "--get-values" not in words], rails.problems


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node whose rails nobody defines, without NetworkManager."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(program, "WAIT_SECONDS", 0)
    return Node(tmp_path)


def test_networkd_takes_the_rails(node: Node) -> None:
    for rail in RAILS:
        node.networkd(rail)
    node.write(program.SYSCTL_FILE, _fabric_netplan.sysctls(RAILS))
    asked, problems = node.bring_about()
    assert problems == []
    assert asked == [
        "netplan generate",
        "ip -json link show",
        "systemctl start systemd-networkd.service",
        "networkctl reload",
        f"ip link set dev {RAILS[0]} mtu 9000",
        f"ip link set dev {RAILS[1]} mtu 9000",
        f"networkctl reconfigure {' '.join(RAILS)}",
    ]
    assert [node.settings(rail) for rail in RAILS] == [["1", "2", "1"]] * 2
    assert node.settings("default") == ["0", "0", "0"]
    assert node.bring_about() == (asked, [])


def test_a_rail_that_nobody_defines_is_bare(node: Node) -> None:
    """The way back to before this collection: the file of settings is gone too."""
    node.runs(NETWORKD)
    node.networkd(RAILS[0])
    for setting, value in zip(program.SETTINGS, ["1", "2", "1"], strict=True):
        node.write(f"proc/sys/net/{setting.format(RAILS[1])}", value)
    asked, problems = node.bring_about()
    assert problems == []
    assert asked[3:] == [
        "networkctl reload",
        f"ip address flush dev {RAILS[1]}",
        f"ip link set dev {RAILS[1]} down",
        f"ip link set dev {RAILS[0]} mtu 9000",
        f"ip link set dev {RAILS[1]} mtu 1500",
        f"networkctl reconfigure {RAILS[0]}",
        f"networkctl reconfigure {RAILS[1]}",
    ]
    assert node.settings(RAILS[1]) == ["0", "0", "0"]


def test_networkmanager_connects_what_has_a_carrier(node: Node) -> None:
    """The other one is no failure: it is connected once it has one."""
    node.runs(NETWORKD)
    node.runs(NETWORKMANAGER)
    for rail in RAILS:
        node.manager(rail)
    node.write(f"sys/class/net/{RAILS[1]}/carrier", "0")
    asked, problems = node.bring_about()
    assert problems == []
    # networkd lets go before the other takes.
    assert asked.index("networkctl reload") < asked.index("nmcli connection reload")
    assert asked[asked.index("nmcli connection reload") :] == [
        "nmcli connection reload",
        f"nmcli device set {RAILS[0]} managed yes",
        f"ip link set dev {RAILS[0]} up",
        f"nmcli device set {RAILS[1]} managed yes",
        f"ip link set dev {RAILS[1]} up",
        f"nmcli --wait 15 connection up id netplan-{RAILS[0]} ifname {RAILS[0]}",
    ]
    assert f"ip link set dev {RAILS[1]} mtu 9000" in asked


def test_networkmanager_lets_go_before_networkd_takes(node: Node) -> None:
    node.runs(NETWORKMANAGER)
    for rail in RAILS:
        node.networkd(rail)
        node.say(f"state-{rail}", "100 (connected)")
    asked, problems = node.bring_about()
    assert problems == []
    assert f"nmcli device set {RAILS[1]} managed no" in asked
    assert asked.index(f"nmcli device set {RAILS[1]} managed no") < asked.index("networkctl reload")
    assert not any("connection up" in words or "managed yes" in words for words in asked)


def test_a_manager_that_does_not_run_is_told_and_the_rest_is_done(node: Node) -> None:
    node.manager(RAILS[0])
    node.networkd(RAILS[1])
    asked, (problem,) = node.bring_about()
    assert problem.startswith(f"NetworkManager is to manage {RAILS[0]}, but it does not run. Mend:")
    assert f"networkctl reconfigure {RAILS[1]}" in asked


def test_nothing_is_touched_where_netplan_refuses_its_files(node: Node) -> None:
    node.networkd(RAILS[0])
    node.say("fails-netplan", "Error in network definition")
    assert node.bring_about() == (["netplan generate"], ["`netplan generate` failed: Error in network definition"])


def test_what_fails_is_told_in_its_own_words(node: Node) -> None:
    node.networkd(RAILS[0])
    node.say("fails-networkctl", "no bus")
    _, problems = node.bring_about(RAILS[0])
    assert problems == [
        "`networkctl reload` failed: no bus",
        f"`networkctl reconfigure {RAILS[0]}` failed: no bus",
    ]


def test_an_interface_that_is_not_there_keeps_nobody_from_the_others(
    node: Node, capsys: pytest.CaptureFixture[str]
) -> None:
    node.networkd(RAILS[0])
    asked, problems = node.bring_about("enp9s0", RAILS[0])
    assert problems == []
    assert asked[-1] == f"networkctl reconfigure {RAILS[0]}"
    assert "enp9s0: there is no such interface" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("match", "is_ours"),
    [
        ("Name=enp1s0f1np1", True),
        ("Name=enP1*", False),
        ("Name=eth0 enp1*", True),
        ("PermanentMACAddress=02:00:00:00:00:01", True),
        ("PermanentMACAddress=02:00:00:00:00:02", False),
        ("PermanentMACAddress=02:00:00:00:00:01\nName=eth0", False),
        ("Driver=e1000 mlx5*", True),
        ("Driver=e1000", False),
    ],
)
def test_networkds_files_say_whom_they_are_about(node: Node, match: str, is_ours: bool) -> None:
    node.write("run/systemd/network/10-netplan-x.network", f"[Match]\n{match}\n\n[Network]\nDHCP=ipv4\n")
    found = definition_of(FIRST, node.root)
    assert (found is not None) == is_ours
    assert not found or (found.manager, found.mtu) == (NETWORKD, 1500)


@pytest.mark.parametrize(
    ("text", "is_ours"),
    [
        ("[connection]\ninterface-name=enp1s0f1np1\n", True),
        ("[connection]\ninterface-name=enP1s0f1np1\n", False),
        ("[connection]\n\n[match]\ninterface-name=eth*;enp*;\n", True),
        ("[connection]\n\n[match]\ninterface-name=eth*;\n", False),
        ("[connection]\n\n[ethernet]\nmac-address=02:00:00:00:00:01\n", True),
        ("[connection]\n\n[ethernet]\nmac-address=02:00:00:00:00:02\n", False),
    ],
)
def test_networkmanagers_files_say_whom_they_are_about(node: Node, text: str, is_ours: bool) -> None:
    text = text.replace("[connection]\n", "[connection]\nid=netplan-x\ntype=ethernet\n")
    node.write("run/NetworkManager/system-connections/netplan-x.nmconnection", text)
    found = definition_of(FIRST, node.root)
    assert (found is not None) == is_ours
    assert not found or (found.manager, found.name) == (NETWORKMANAGER, "netplan-x")


def test_the_role_writes_what_is_read() -> None:
    variables = yaml.safe_load((Path(program.__file__).parents[1] / "vars/main.yml").read_text())
    assert f"/{program.SYSCTL_FILE}" == fabric.SYSCTL_FILE == variables["fabric_sysctl_file"]
    said = [line.partition(" =")[0] for line in _fabric_netplan.sysctls(["x"]).splitlines()[1:]]
    assert said == [f"net/{setting.format('x')}" for setting in program.SETTINGS]


def test_the_program_says_what_failed(
    node: Node, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node.say("fails-netplan", "Error in network definition")
    assert program.main(RAILS) == 1
    assert "Error in network definition" in capsys.readouterr().out
