# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Netplan's files: ours, those that get in its way, and what is left of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_netplan as netplan
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _ssh
from ansible_collections.dgx_spark.sglang.plugins.module_utils._fabric_netplan import Link
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

RAILS = ["enp1s0f1np1", "enP2p1s0f1np1"]
LINKS = [
    Link("enP7s7", "02:00:00:00:00:07", "r8127"),
    Link(RAILS[0], "02:00:00:00:00:01", "mlx5_core"),
    Link(RAILS[1], "02:00:00:00:00:02", "mlx5_core"),
]


def network(**kinds: Any) -> dict[str, Any]:
    """A file's mapping."""
    return {"/etc/netplan/x.yaml": {"version": 2, **kinds}}


def test_our_file_says_all_that_counts() -> None:
    text = netplan.render({"enp1s0f1np1": "192.168.100.11/24"}, 9000)
    ethernets = yaml.safe_load(text)["network"]["ethernets"]
    assert ethernets == {
        "enp1s0f1np1": {
            "addresses": ["192.168.100.11/24"],
            "mtu": 9000,
            "dhcp4": False,
            "dhcp6": False,
            "accept-ra": False,
            "link-local": [],
        }
    }
    assert "renderer: NetworkManager" in netplan.render({"a": "10.0.0.1/24"}, 9000, "NetworkManager")


@pytest.mark.parametrize(
    ("kinds", "rails", "movable", "words"),
    [
        ({"ethernets": {RAILS[0]: {"dhcp4": True}}}, [RAILS[0]], True, "fabric_migrate_netplan"),
        ({"ethernets": {RAILS[0]: None}}, [RAILS[0]], True, "Remove"),
        ({"ethernets": {"x": {"match": {"macaddress": "02:00:00:00:00:02"}}}}, [RAILS[1]], True, "Remove"),
        ({"ethernets": {"x": {"match": {"driver": "mlx5*"}}}}, RAILS, True, "Remove"),
        ({"ethernets": {"x": {"match": {"driver": ["nothing", "mlx5_core"]}}}}, RAILS, True, "Remove"),
        (
            {"ethernets": {"all-en": {"match": {"name": "en*"}, "dhcp4": True}}},
            RAILS,
            False,
            "Narrow its match to enP7s7",
        ),
        ({"ethernets": {"x": {"match": {}}}}, RAILS, False, "Narrow"),
        # One id is one definition, even where its match is of another interface.
        ({"ethernets": {RAILS[0]: {"match": {"name": "gone"}}}}, [RAILS[0]], True, "Remove"),
        ({"bonds": {"bond0": {"interfaces": RAILS}}}, RAILS, False, "Take"),
        ({"vlans": {"v": {"id": 7, "link": RAILS[1]}}}, [RAILS[1]], False, "Take enP2p1s0f1np1 out"),
        ({"ethernets": {"enP7s7": {"dhcp4": True}}}, [], False, ""),
        ({"ethernets": {"x": {"match": {"name": "enP7*"}}}, "wifis": {"wlan0": {}}}, [], False, ""),
    ],
)
def test_conflicts(kinds: dict[str, Any], rails: list[str], movable: bool, words: str) -> None:
    found = netplan.conflicts(network(**kinds), RAILS, LINKS)
    assert sorted(conflict.interface for conflict in found) == sorted(rails)
    assert all(conflict.movable is movable and words in conflict.mend for conflict in found)


@pytest.mark.parametrize(("folder", "why"), [("/run/netplan", "made anew at each boot"), ("/lib/netplan", "a package")])
def test_what_comes_back_by_itself_is_not_taken_out(folder: str, why: str) -> None:
    """A file of the same name in /etc/netplan is the only mend that lasts."""
    kinds = {"ethernets": {RAILS[0]: {"dhcp4": "true"}, "all-en": {"match": {"name": "en*"}}}}
    found = netplan.conflicts({f"{folder}/x.yaml": kinds}, RAILS[:1], LINKS)
    assert [conflict.definition for conflict in found] == [f"ethernets.{RAILS[0]}", "ethernets.all-en"]
    for conflict in found:
        assert not conflict.movable
        assert why in conflict.mend
        assert "copy it to /etc/netplan/x.yaml" in conflict.mend


THEIRS = """\
# by hand
network:
  version: 2
  renderer: NetworkManager
  ethernets:
    enp1s0f0np0: {link-local: [ipv4]}
    enp1s0f1np1: {link-local: [ipv4]}
    lab: {match: {macaddress: 10:20:30:40:50:06}, wakeonlan: on, mtu: 0100}  # words, not numbers
    enP2p1s0f1np1:
      link-local: [ipv4]
  vlans:
    lab.7: {id: 7, link: lab}
"""


def ours(text: str, *others: str, path: str = netplan.OWN_FILE) -> tuple[list[netplan.Conflict], dict[str, str | None]]:
    """What is found in a file in our place, and what the role would make of it."""
    texts = {path: text, **dict.fromkeys(others, "network: {renderer: networkd}")}
    networks, _ = netplan.parse(texts)
    found = netplan.in_our_place(texts, networks, RAILS, LINKS)
    return found, netplan.migrated(texts, found)


def test_what_else_is_in_our_place_is_told_and_moved_as_it_is() -> None:
    found, files = ours(THEIRS)
    assert [conflict.definition for conflict in found] == [
        "ethernets.enp1s0f0np0",
        "ethernets.lab",
        "vlans.lab.7",
        "renderer",
    ]
    assert all(conflict.movable and "fabric_migrate_netplan: true" in conflict.mend for conflict in found)
    text = files[netplan.OTHER_FILE] or ""
    assert list(files) == [netplan.OTHER_FILE]
    assert yaml.load(text, Loader=yaml.BaseLoader)["network"] == {
        "version": "2",
        "renderer": "NetworkManager",
        "ethernets": {
            "enp1s0f0np0": {"link-local": ["ipv4"]},
            "lab": {"match": {"macaddress": "10:20:30:40:50:06"}, "wakeonlan": "on", "mtu": "0100"},
        },
        "vlans": {"lab.7": {"id": "7", "link": "lab"}},
    }
    for word in ("10:20:30:40:50:06", "wakeonlan: on", "mtu: 0100"):
        assert word in text
    # NVIDIA's own folder, or one that goes first, makes no difference.
    assert [conflict.definition for conflict in ours(THEIRS, path="/run/netplan/40-cx7.yaml")[0]] == [
        conflict.definition for conflict in found
    ]


def test_a_renderer_that_does_not_count_stays_behind() -> None:
    """Moved to a later file, it would."""
    found, files = ours(THEIRS, "/etc/netplan/40-d.yaml")
    assert "renderer" not in [conflict.definition for conflict in found]
    assert "renderer" not in (files[netplan.OTHER_FILE] or "")


def test_nothing_is_in_the_way_of_our_own_file() -> None:
    assert ours(f"{netplan.HEADER}\n{THEIRS}") == ([], {})
    assert ours(netplan.render({RAILS[0]: "10.0.0.1/24"}, 9000)) == ([], {})
    rails_alone = "network: {version: 2, ethernets: {enp1s0f1np1: {link-local: [ipv4]}}}"
    assert ours(rails_alone) == ([], {})


def test_what_is_about_rails_and_others_is_not_moved() -> None:
    found, files = ours("network: {ethernets: {all: {match: {name: en*}}}, bonds: {b: {interfaces: [enp1s0f1np1]}}}")
    assert {(conflict.definition, conflict.movable) for conflict in found} == {
        ("ethernets.all", False),
        ("bonds.b", False),
    }
    assert files == {}


def test_nothing_is_moved_over_a_file_that_is_there() -> None:
    found, files = ours(THEIRS, netplan.OTHER_FILE)
    assert files == {}
    assert all(not conflict.movable and netplan.OTHER_FILE in conflict.mend for conflict in found)


def test_an_address_of_digits_is_an_address() -> None:
    """YAML 1.1 reads a number."""
    links = [Link(RAILS[0], "10:20:30:40:50:06")]
    networks, _ = netplan.parse({"x": "network: {ethernets: {x: {match: {macaddress: 10:20:30:40:50:06}}}}"})
    assert [conflict.interface for conflict in netplan.conflicts(networks, RAILS, links)] == [RAILS[0]]


def test_files_that_netplan_would_refuse_are_told() -> None:
    networks, broken = netplan.parse({"a": "network: [", "b": "network: 3", "c": "", "d": "network: {version: 2}"})
    assert [conflict.path for conflict in broken] == ["a", "b"]
    assert list(networks) == ["c", "d"]


def test_the_last_file_says_who_configures() -> None:
    networks, _ = netplan.parse({"1": "network: {renderer: NetworkManager}", "2": "network: {}"})
    assert netplan.renderer_of(networks) == "NetworkManager"
    assert netplan.renderer_of({}) == "networkd"


def test_a_file_without_a_definition() -> None:
    text = yaml.safe_dump({"network": {"version": 2, "ethernets": {"enP7s7": {"dhcp4": True}, RAILS[0]: {}}}})
    left = netplan.without(text, [f"ethernets.{RAILS[0]}"])
    assert yaml.safe_load(left or "") == {"network": {"version": 2, "ethernets": {"enP7s7": {"dhcp4": True}}}}
    alone = yaml.safe_dump({"network": {"version": 2, "ethernets": {RAILS[0]: {}}}})
    assert netplan.without(alone, [f"ethernets.{RAILS[0]}"]) is None
    # A file that names the renderer is still needed.
    renderer = yaml.safe_dump({"network": {"renderer": "NetworkManager", "ethernets": {RAILS[0]: {}}}})
    assert "renderer: NetworkManager" in (netplan.without(renderer, [f"ethernets.{RAILS[0]}"]) or "")


def test_module(tmp_path: Path) -> None:
    (tmp_path / "etc/netplan").mkdir(parents=True)
    (tmp_path / "lib/netplan").mkdir(parents=True)
    (tmp_path / "etc/netplan/40-cx7.yaml").write_text(netplan.render({RAILS[0]: "10.0.0.1/24"}, 9000))
    (tmp_path / "lib/netplan/50-x.yaml").write_text("network: {ethernets: {enp1s0f1np1: {dhcp4: true}}}")
    shadow = tmp_path / "etc/netplan/50-x.yaml"
    shadow.write_text("network: {ethernets: {enp1s0f1np1: {addresses: [10.9.9.9/24]}}}")
    shadow.chmod(0o600)
    result = adhoc.run(tmp_path, "fabric_netplan_info", {"interfaces": RAILS, "root": str(tmp_path)}).result
    assert result["files"] == ["/etc/netplan/40-cx7.yaml", "/etc/netplan/50-x.yaml"]
    (conflict,) = result["conflicts"]
    assert (conflict["path"], conflict["definition"]) == ("/etc/netplan/50-x.yaml", "ethernets.enp1s0f1np1")
    assert result["migrated"] == [{"path": "/etc/netplan/50-x.yaml", "content": None, "mode": "0600"}]


def test_module_tells_what_is_in_our_place(tmp_path: Path) -> None:
    (tmp_path / "etc/netplan").mkdir(parents=True)
    (tmp_path / "etc/netplan/40-cx7.yaml").write_text(THEIRS)
    result = adhoc.run(tmp_path, "fabric_netplan_info", {"interfaces": RAILS, "root": str(tmp_path)}).result
    assert [conflict["definition"] for conflict in result["conflicts"]][-1] == "renderer"
    (moved,) = result["migrated"]
    assert (moved["path"], moved["mode"]) == ("/etc/netplan/41-cx7-other.yaml", "0600")
    assert "enp1s0f0np0" in moved["content"]


def test_the_ssh_session_is_found_through_sudo(tmp_path: Path) -> None:
    for pid, parent, environ in (
        (30, 20, "HOME=/"),
        (20, 10, "A=b\0SSH_CONNECTION=198.18.0.1 5 198.18.0.11 22\0"),
        (10, 1, ""),
    ):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "environ").write_text(environ)
        (tmp_path / str(pid) / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n")
    assert _ssh.connection(30, str(tmp_path)) == ["198.18.0.1", "5", "198.18.0.11", "22"]
    assert _ssh.connection(10, str(tmp_path)) == []
    assert _ssh.connection(os.getpid(), str(tmp_path)) == []
