# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""RDMA devices, interfaces and rails, read from sysfs trees and `ip` outputs as real nodes have them."""

from __future__ import annotations

import copy
import importlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _rdma, _rdma_rails, _rdma_sysfs

from tests.unit import adhoc

FIXTURES = Path(__file__).parent / "fixtures/rdma"
RAILS = ["192.168.100.11", "192.168.101.11"]
INTERFACES = ["enp1s0f1np1", "enP2p1s0f1np1"]
# The kernel answers EINVAL where this is read, as for the attributes of a free GID slot.
UNREADABLE = Path("/sys/class/net/lo/speed")


def fixture(name: str) -> dict[str, Any]:
    """A fixture, laid over the one that it is `from`; its links over those of the same name."""
    own: dict[str, Any] = yaml.safe_load((FIXTURES / f"{name}.yml").read_text(encoding="utf-8"))
    if "from" not in own:
        return own
    base = fixture(own["from"])
    links = {link.get("ifname"): link for link in own.get("ip", [])}
    ip = [{**link, **links.get(link.get("ifname"), {})} for link in base["ip"]]
    return {"sysfs": laid_over(base["sysfs"], own.get("sysfs", {})), "ip": ip}


def laid_over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    inner = {name: laid_over(base.get(name, {}), one) for name, one in own.items() if isinstance(one, dict)}
    return {**base, **own, **inner}


def plant(folder: Path, tree: Mapping[str, Any]) -> None:
    """Make the tree of a fixture."""
    folder.mkdir()
    for name, one in tree.items():
        path = folder / name
        if isinstance(one, dict):
            plant(path, one)
        elif one == "EINVAL":
            path.symlink_to(UNREADABLE)
        elif one.startswith("-> "):
            path.symlink_to(one.removeprefix("-> "))
        else:
            path.write_text(f"{one}\n", encoding="utf-8")


def read(scratch: Path, name: str, addresses: list[str]) -> _rdma.Result:
    """The facts of a fixture."""
    told = fixture(name)
    plant(scratch / "sys", told["sysfs"])
    for interface, settings in {"all": (0, 0), **dict.fromkeys(INTERFACES, (1, 2)), "lo": (0, 0)}.items():
        conf = scratch / "proc/net/ipv4/conf" / interface
        conf.mkdir(parents=True, exist_ok=True)
        for key, setting in zip(("arp_ignore", "arp_announce"), settings, strict=True):
            (conf / key).write_text(f"{setting}\n", encoding="utf-8")
    return _rdma_sysfs.read(str(scratch / "sys"), json.dumps(told["ip"]), addresses, str(scratch / "proc"))


@pytest.fixture
def spark(tmp_path: Path) -> _rdma.Result:
    return read(tmp_path, "spark", RAILS)


def named(result: _rdma.Result) -> dict[str, _rdma.Device]:
    return {device["name"]: device for device in result["devices"]}


def interface_of(result: _rdma.Result, name: str) -> _rdma.Interface:
    return {one["name"]: one for one in result["interfaces"]}[name]


def rails(result: _rdma.Result) -> list[tuple[str | None, str | None, int | None, int | None]]:
    return [(one["interface"], one["hca"], one["port"], one["gid_index"]) for one in result["rails"]]


def troubles(result: _rdma.Result) -> list[str]:
    return [f"{one['problem']}. Mend: {one['mend']}" for one in result["rails"] if one["problem"]]


def gid(index: int, kind: str, address: str, raw: str, netdev: str | None) -> dict[str, Any]:
    return {"index": index, "type": kind, "gid": raw, "address": address, "netdev": netdev}


def test_spark(spark: _rdma.Result) -> None:
    """The whole of one device and one interface, and what differs of the others."""
    up = "enp1s0f1np1"
    local, mapped = "fe80:0000:0000:0000:4ebb:47ff:fe2c:0001", "0000:0000:0000:0000:0000:ffff:c0a8:640b"
    devices = named(spark)
    assert list(devices) == ["roceP2p1s0f0", "roceP2p1s0f1", "rocep1s0f0", "rocep1s0f1"]
    assert devices["rocep1s0f1"] == {
        "name": "rocep1s0f1",
        "firmware": "28.45.4028",
        "pci": {"address": "0000:01:00.1", "width": 4, "max_width": 4, "speed_gts": 32.0},
        "twins": ["roceP2p1s0f1"],
        "ports": [
            {
                "port": 1,
                "netdev": up,
                "state": "ACTIVE",
                "physical_state": "LinkUp",
                "link_layer": "Ethernet",
                "rate_gbps": 200.0,
                "netdev_mtu": 9000,
                "active_mtu": 4096,
                "gids": [
                    gid(0, "IB/RoCE v1", "fe80::4ebb:47ff:fe2c:1", local, up),
                    gid(1, "RoCE v2", "fe80::4ebb:47ff:fe2c:1", local, up),
                    gid(2, "IB/RoCE v1", "192.168.100.11", mapped, up),
                    gid(3, "RoCE v2", "192.168.100.11", mapped, up),
                ],
                "counters": {
                    "port_rcv_data": 18446744073709551615,
                    "out_of_sequence": 7,
                    "packet_seq_err": 1,
                    "rnr_nak_retry_err": 0,
                    "roce_adp_retrans": 2,
                    "np_cnp_sent": 3,
                },
            }
        ],
    }
    assert {name: device["twins"] for name, device in devices.items()} == {
        "rocep1s0f0": ["roceP2p1s0f0"],
        "rocep1s0f1": ["roceP2p1s0f1"],
        "roceP2p1s0f0": ["rocep1s0f0"],
        "roceP2p1s0f1": ["rocep1s0f1"],
    }
    (down,) = devices["roceP2p1s0f0"]["ports"]
    assert (down["state"], down["physical_state"], down["netdev"]) == ("DOWN", "Disabled", "enP2p1s0f0np0")
    assert [one["netdev"] for one in down["gids"]] == [None, None]
    assert (down["netdev_mtu"], down["active_mtu"]) == (1500, 1024)
    assert interface_of(spark, up) == {
        "name": up,
        "mac": "4c:bb:47:2c:00:01",
        "mtu": 9000,
        "up": True,
        "carrier": True,
        "speed_mbps": 200000,
        "arp_ignore": 1,
        "arp_announce": 2,
        "arp_ignore_own": 1,
        "arp_announce_own": 2,
        "addresses": ["192.168.100.11/24"],
        "hca": "rocep1s0f1",
    }
    assert [(one["name"], one["up"], one["carrier"], one["speed_mbps"], one["hca"]) for one in spark["interfaces"]] == [
        ("lo", True, True, None, None),
        ("enP7s7", True, True, 10000, None),
        ("enp1s0f0np0", True, False, None, "rocep1s0f0"),
        (up, True, True, 200000, "rocep1s0f1"),
        ("enP2p1s0f0np0", False, False, None, "roceP2p1s0f0"),
        ("enP2p1s0f1np1", True, True, 200000, "roceP2p1s0f1"),
    ]
    assert spark["rails"] == [
        {
            "address": "192.168.100.11",
            "interface": up,
            "hca": "rocep1s0f1",
            "port": 1,
            "gid_index": 3,
            "problem": None,
            "mend": None,
        },
        {
            "address": "192.168.101.11",
            "interface": "enP2p1s0f1np1",
            "hca": "roceP2p1s0f1",
            "port": 1,
            "gid_index": 4,
            "problem": None,
            "mend": None,
        },
    ]


def test_slots_that_cannot_be_read_are_really_unreadable(tmp_path: Path) -> None:
    """Or the fixtures would prove nothing of them."""
    plant(tmp_path / "sys", {"slot": "EINVAL"})
    with pytest.raises(OSError, match="Invalid argument"):
        (tmp_path / "sys/slot").read_text(encoding="utf-8")


def test_names_of_another_maker(tmp_path: Path) -> None:
    """Twins are what PCI says: mlx5_0 and mlx5_3, not neighbours by number."""
    result = read(tmp_path, "oem", RAILS)
    devices = named(result)
    assert {name: device["twins"] for name, device in devices.items()} == {
        "mlx5_0": ["mlx5_3"],
        "mlx5_1": ["mlx5_2"],
        "mlx5_2": ["mlx5_1"],
        "mlx5_3": ["mlx5_0"],
    }
    assert devices["mlx5_0"]["pci"] == {"address": "0000:01:00.1", "width": None, "max_width": None, "speed_gts": None}
    ports = [device["ports"][0] for device in (devices["mlx5_0"], devices["mlx5_2"])]
    assert [(port["rate_gbps"], port["active_mtu"], port["counters"]) for port in ports] == [
        (100.0, 1024, {}),
        (100.0, 4096, {}),
    ]
    assert rails(result) == [("ens1f1np1", "mlx5_0", 1, 1), ("ens2f0np0", "mlx5_2", 1, 1)]
    assert troubles(result) == []


def test_stale_address(tmp_path: Path) -> None:
    """The rail is found, and the address that doesn't belong there is named."""
    result = read(tmp_path, "stale_address", RAILS)
    assert [one["index"] for one in first_port(result)["gids"]] == [0, 1, 2, 3, 12, 13]
    assert interface_of(result, "enp1s0f1np1")["addresses"] == ["169.254.9.9/16", "192.168.100.11/24"]
    assert rails(result) == [("enp1s0f1np1", "rocep1s0f1", 1, 3), ("enP2p1s0f1np1", "roceP2p1s0f1", 1, 4)]
    assert troubles(result) == [
        "port 1 of rocep1s0f1 has a RoCE v2 GID not only for 192.168.100.11, but for 169.254.9.9 too, and NCCL may"
        " take that. Mend: Take 169.254.9.9 off enp1s0f1np1, in each file of /etc/netplan that gives it, as netplan"
        " adds up all files."
    ]


def test_link_local_gids_only(tmp_path: Path) -> None:
    """The RoCE v2 GID of fe80 is there on both rails, and stands for neither address."""
    result = read(tmp_path, "link_local_gid", RAILS)
    kinds = [(one["type"], one["address"]) for one in named(result)["roceP2p1s0f1"]["ports"][0]["gids"]]
    assert kinds == [("IB/RoCE v1", "fe80::4ebb:47ff:fe2c:5"), ("RoCE v2", "fe80::4ebb:47ff:fe2c:5")]
    assert rails(result) == [("enp1s0f1np1", "rocep1s0f1", 1, None), (None, None, None, None)]
    assert troubles(result) == [
        "port 1 of rocep1s0f1 has no RoCE v2 GID for 192.168.100.11, only IB/RoCE v1. Mend: Set enp1s0f1np1 down and"
        " up, so that the kernel makes its GIDs anew.",
        "no interface has 192.168.101.11. Mend: Give it to the rail's interface in netplan, then run `netplan apply`.",
    ]


def test_narrow_function(tmp_path: Path) -> None:
    """A fact, not a problem of the rail."""
    result = read(tmp_path, "narrow", RAILS)
    place = _rdma.place_of(result, result["rails"][1])
    assert place
    assert place.device["pci"] == {"address": "0002:01:00.1", "width": 2, "max_width": 4, "speed_gts": 32.0}
    assert troubles(result) == []


def test_settings_of_arp_are_those_in_force(tmp_path: Path) -> None:
    """The higher of the interface's and that of all; none where neither can be read."""
    result = read(tmp_path, "spark", [])
    found = {one["name"]: (one["arp_ignore"], one["arp_announce"]) for one in result["interfaces"]}
    assert (found["lo"], found["enp1s0f1np1"]) == ((0, 0), (1, 2))
    (lan,) = [one for one in result["interfaces"] if one["name"] == "enP7s7"]
    assert (lan["arp_ignore"], lan["arp_ignore_own"]) == (0, None)
    assert _rdma_sysfs.highest(1, 8) == _rdma_sysfs.highest(8, None) == _rdma_sysfs.highest(8, 0) == 8
    assert _rdma_sysfs.highest(None, None) is None


def test_soft_roce(tmp_path: Path) -> None:
    """Without `device`, the netdev is that of the GIDs."""
    result = read(tmp_path, "soft_roce", ["198.18.100.11", "198.18.101.11"])
    first, second = result["devices"]
    assert (first["firmware"], first["pci"], first["twins"], second["twins"]) == (None, None, [], [])
    assert [
        (port["netdev"], port["rate_gbps"], port["netdev_mtu"], port["active_mtu"], port["counters"], len(port["gids"]))
        for port in (*first["ports"], *second["ports"])
    ] == [
        ("enp1s0f1np1", 2.5, 9000, 4096, {"sent_pkts": 12}, 2),
        ("enP2p1s0f1np1", 2.5, 1500, 1024, {"sent_pkts": 12}, 2),
    ]
    assert [one["speed_mbps"] for one in result["interfaces"]] == [None, None]
    assert rails(result) == [("enp1s0f1np1", "rxe0", 1, 1), ("enP2p1s0f1np1", "rxe1", 1, 1)]
    assert troubles(result) == []


def test_no_rdma(tmp_path: Path) -> None:
    result = read(tmp_path, "no_rdma", ["192.168.100.11"])
    assert result["devices"] == []
    assert [(one["mac"], one["addresses"], one["speed_mbps"], one["hca"]) for one in result["interfaces"]] == [
        ("02:00:00:00:00:01", ["192.168.100.11/24"], 10000, None),
        (None, ["10.8.0.2/32"], None, None),
    ]
    assert rails(result) == [("enp1s0f1np1", None, None, None)]
    assert troubles(result) == [
        "enp1s0f1np1 has 192.168.100.11, but no RDMA device is on it. Mend: Load the driver with `modprobe mlx5_ib`,"
        " and see that `rdma link` shows the interface."
    ]


def first_port(result: _rdma.Result) -> _rdma.Port:
    """That of the first rail."""
    return named(result)["rocep1s0f1"]["ports"][0]


def add_gid(result: _rdma.Result, netdev: str) -> None:
    """The first rail's address once more, at index 9."""
    port = first_port(result)
    port["gids"].append({**port["gids"][3], "index": 9, "netdev": netdev})


def on_the_lan(result: _rdma.Result) -> None:
    interface_of(result, "enp1s0f1np1")["addresses"].clear()
    interface_of(result, "enP7s7")["addresses"].append("192.168.100.11/24")


def on_both(result: _rdma.Result) -> None:
    interface_of(result, "enP2p1s0f1np1")["addresses"].append("192.168.100.11/24")


def inactive(**interface: bool) -> Callable[[_rdma.Result], None]:
    def spoil(result: _rdma.Result) -> None:
        first_port(result).update({"state": "DOWN", "physical_state": "Polling"})
        interface_of(result, "enp1s0f1np1").update(interface)  # type: ignore[typeddict-item]

    return spoil


PROBLEMS: list[tuple[Callable[[_rdma.Result], None], tuple[str | None, str | None, int | None], str, str]] = [
    (on_the_lan, ("enP7s7", None, None), "enP7s7 has 192.168.100.11, but no RDMA", "enp1s0f0np0, enp1s0f1np1, enP2p1"),
    (on_both, (None, None, None), "enp1s0f1np1 and enP2p1s0f1np1 have 192.168.100.11", "off the others in netplan"),
    (inactive(), ("enp1s0f1np1", "rocep1s0f1", None), "rocep1s0f1 is DOWN (Polling), not ACTIVE", "`dmesg`"),
    (inactive(carrier=False), ("enp1s0f1np1", "rocep1s0f1", None), "not ACTIVE", "Plug in the cable of enp1s0f1np1"),
    (
        inactive(carrier=False, up=False),
        ("enp1s0f1np1", "rocep1s0f1", None),
        "port 1 of rocep1s0f1 is DOWN",
        "`ip link set enp1s0f1np1 up`",
    ),
    (
        lambda result: add_gid(result, "enp1s0f1np1.7"),
        ("enp1s0f1np1", "rocep1s0f1", None),
        "port 1 of rocep1s0f1 has 2 RoCE v2 GIDs for 192.168.100.11: 3 and 9",
        "Take 192.168.100.11 off enp1s0f1np1.7 in netplan.",
    ),
    (
        lambda result: add_gid(result, "enp1s0f1np1"),
        ("enp1s0f1np1", "rocep1s0f1", None),
        "2 RoCE v2 GIDs",
        "Set enp1s0f1np1 down and up",
    ),
]


@pytest.mark.parametrize(("spoil", "found", "problem", "mend"), PROBLEMS)
def test_problem(
    spark: _rdma.Result,
    spoil: Callable[[_rdma.Result], None],
    found: tuple[str | None, str | None, int | None],
    problem: str,
    mend: str,
) -> None:
    """Only the rail that it is about has it."""
    spoiled = copy.deepcopy(spark)
    spoil(spoiled)
    first, second = _rdma_rails.rails_of(spoiled, RAILS)
    assert (first["interface"], first["hca"], first["gid_index"]) == found
    assert problem in (first["problem"] or "")
    assert mend in (first["mend"] or "")
    assert second == spark["rails"][1]
    assert (first["port"] == 1) is (first["hca"] is not None)


def test_hardware_comes_before_soft_roce(spark: _rdma.Result) -> None:
    """Even where both are on one interface; a VLAN's RDMA device is the one in whose GIDs it shows."""
    soft: _rdma.Device = {**named(spark)["rocep1s0f1"], "name": "a_soft_one", "pci": None}
    devices = [soft, *spark["devices"]]
    assert [place.device["name"] for place in _rdma.places_of(devices, "enp1s0f1np1")] == ["rocep1s0f1", "a_soft_one"]
    add_gid(spark, "enp1s0f1np1.7")
    assert _rdma.places_of(spark["devices"], "enp1s0f1np1.7")[0].device["name"] == "rocep1s0f1"
    assert _rdma.places_of(spark["devices"], "enP7s7") == []


def test_one_function_with_two_ports(tmp_path: Path) -> None:
    """Each port's netdev is the one of its dev_port."""
    tree = fixture("spark")["sysfs"]
    function = tree["devices"]["pci0000:00"]["0000:00:00.0"]["0000:01:00.1"]
    function["net"] = {"enp1s0f0np0": {}, "enp1s0f1np1": {}}
    ports = function["infiniband"]["rocep1s0f1"]["ports"]
    ports["2"] = {**ports["1"], "gids": {}, "link_layer": "InfiniBand"}
    tree["class"]["net"]["enp1s0f1np1"] = {"dev_port": "1", "mtu": "9000"}
    plant(tmp_path / "sys", tree)
    (device,) = [one for one in _rdma_sysfs.devices(tmp_path / "sys") if one["name"] == "rocep1s0f1"]
    assert [(port["port"], port["netdev"], port["active_mtu"]) for port in device["ports"]] == [
        (1, "enp1s0f0np0", 1024),
        (2, "enp1s0f1np1", None),
    ]


@pytest.mark.parametrize(
    ("netdev", "rdma"),
    [(9000, 4096), (4200, 4096), (4192, 4096), (4191, 2048), (2144, 2048), (1500, 1024), (1119, 512), (352, 256)],
)
def test_active_mtu(netdev: int, rdma: int) -> None:
    assert _rdma.active_mtu(netdev) == rdma


def test_active_mtu_of_a_netdev_too_small() -> None:
    assert _rdma.active_mtu(351) is None


def test_gid_of_infiniband_is_no_address() -> None:
    mapped = "0000:0000:0000:0000:0000:ffff:c0a8:640b"
    assert _rdma.gid_address(mapped, "InfiniBand") is None
    assert _rdma.gid_address("2001:0db8:0000:0000:0000:0000:0000:0001", "Ethernet") == "2001:db8::1"


@pytest.mark.parametrize(
    ("text", "number"),
    [("200 Gb/sec (4X HDR)", 200.0), ("2.5 GT/s PCIe", 2.5), ("Unknown", None), ("", None), (None, None)],
)
def test_number(text: str | None, number: float | None) -> None:
    assert _rdma.number(text) == number


@pytest.mark.parametrize("shown", ["oops", "{}1", "3", "[3]", '[{"ifname": "eth0"}]'])
def test_output_that_is_not_of_ip(shown: str) -> None:
    unknown: _rdma.Aside = {
        "speed_mbps": None,
        "arp_ignore": None,
        "arp_announce": None,
        "arp_ignore_own": None,
        "arp_announce_own": None,
    }
    with pytest.raises(ValueError, match=r"."):
        _rdma.interfaces_of(shown, [], lambda _: unknown)


def stand_in(folder: Path, script: str) -> dict[str, str]:
    """The environment in which `ip` is a script of one line."""
    folder.mkdir(exist_ok=True)
    (folder / "ip").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / "ip").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def documented(returned: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of RETURN as a tree."""
    return {name: documented(value["contains"]) if "contains" in value else {} for name, value in returned.items()}


def present(value: Any) -> dict[str, Any]:
    """The keys of a result as a tree; the entries of a list are looked at together."""
    tree: dict[str, Any] = {}
    for item in value if isinstance(value, list) else [value]:
        for name, inner in item.items() if isinstance(item, dict) else ():
            tree[name] = {**tree.get(name, {}), **(present(inner) if name != "counters" else {})}
    return tree


def test_module(tmp_path: Path, spark: _rdma.Result) -> None:
    """In check mode: the same facts, all of them documented, nothing changed."""
    (tmp_path / "shown").write_text(json.dumps(fixture("spark")["ip"]), encoding="utf-8")
    env = stand_in(tmp_path / "bin", f'echo "$*" > {tmp_path}/call; cat {tmp_path}/shown')
    arguments = {"sysfs_root": str(tmp_path / "sys"), "settings_root": str(tmp_path / "proc"), "addresses": RAILS}
    result = adhoc.run(tmp_path, "rdma_info", arguments, check=True, env=env).result
    assert (result.pop("failed"), result.pop("changed")) == (False, False)
    assert result == spark
    assert (tmp_path / "call").read_text(encoding="utf-8").split() == ["-json", "address", "show"]
    module = importlib.import_module("ansible_collections.dgx_spark.sglang.plugins.modules.rdma_info")
    assert present(result) == documented(yaml.safe_load(module.RETURN))


def test_module_on_this_machine(tmp_path: Path) -> None:
    """The real `ip` and the real sysfs, whatever there is; every machine has this address on lo."""
    result = adhoc.run(tmp_path, "rdma_info", {"addresses": ["127.0.0.1"]}).result
    assert not result["failed"]
    (loopback,) = [one for one in result["interfaces"] if one["name"] == "lo"]
    assert (loopback["up"], loopback["carrier"], loopback["speed_mbps"]) == (True, True, None)
    assert "127.0.0.1/8" in loopback["addresses"]
    assert result["rails"][0]["interface"] == "lo"
    assert "no RDMA device is on it" in result["rails"][0]["problem"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no netlink >&2; exit 2", "`ip -json address show` failed: no netlink. Mend: run it on the node"),
        ("exit 2", "failed: it ended with 2."),
        ("echo oops", "`ip -json address show` can't be understood: "),
    ],
)
def test_module_with_an_ip_that_fails(tmp_path: Path, script: str, message: str) -> None:
    result = adhoc.run(tmp_path, "rdma_info", {}, env=stand_in(tmp_path / "bin", script)).result
    assert result["failed"]
    assert message in result["msg"]


class NoCommands:
    """A module on a node where nothing is installed."""

    def get_bin_path(self, _: str) -> None:
        return None

    def fail_json(self, msg: str) -> None:
        raise RuntimeError(msg)


def test_module_without_ip() -> None:
    """Ansible looks in /usr/sbin whatever PATH says, so no environment is without it."""
    module = importlib.import_module("ansible_collections.dgx_spark.sglang.plugins.modules.rdma_info")
    with pytest.raises(RuntimeError, match=r"ip is not installed. Mend: install the package iproute2"):
        module.shown_addresses(NoCommands())


def test_module_refuses_what_is_no_address(tmp_path: Path) -> None:
    """Each wrong one is named."""
    addresses = ["192.168.100.11/24", "192.168.101.11", "fe80::1"]
    result = adhoc.run(tmp_path, "rdma_info", {"addresses": addresses}).result
    assert result["failed"]
    prefixed, ipv6 = result["msg"].splitlines()
    assert prefixed.startswith("addresses: '192.168.100.11/24' is not an IPv4 address. Mend: give it as in ")
    assert ipv6.startswith("addresses: 'fe80::1' ")
