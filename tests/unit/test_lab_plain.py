"""Names, addresses, keys and texts of the lab: what needs no machine."""

from __future__ import annotations

import ipaddress
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lab import cli, inventory, overview, state
from lab.containers import Container
from lab.host import Host
from lab.layout import CONTROLLER_ADDRESS, CONTROLLER_LINK, LAN, MAX_NODES, NETWORKS, RAILS, Node, mac, nodes
from lab.nodes import container
from lab.run import LabError, each, wait_for

MIXED = Host(pure_cgroup2=False, may_raise_limits=False, nofile=20000, nproc=4096)
MODERN = Host(pure_cgroup2=True, may_raise_limits=True, nofile=1 << 20, nproc=1 << 20)


@pytest.mark.parametrize("count", [0, -1, MAX_NODES + 1])
def test_a_lab_has_one_to_eight_nodes(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 8 nodes"):
        nodes(count)


def test_every_name_on_the_wire_fits_the_kernel() -> None:
    names = [
        name for node in nodes(MAX_NODES) for network in NETWORKS for name in (node.port(network), network.interface)
    ]
    assert max(map(len, [*names, CONTROLLER_LINK])) <= 15


def test_addresses_are_distinct_and_in_the_benchmarking_range() -> None:
    addresses = [node.address(network) for node in nodes(MAX_NODES) for network in NETWORKS]
    assert len(set(addresses)) == MAX_NODES * len(NETWORKS)
    assert all(ipaddress.ip_address(address) in ipaddress.ip_network("198.18.0.0/15") for address in addresses)


def test_hardware_addresses_are_distinct_and_locally_administered() -> None:
    macs = [node.mac(network) for node in nodes(MAX_NODES) for network in NETWORKS]
    macs += [network.bridge_mac for network in NETWORKS] + [mac(CONTROLLER_ADDRESS)]
    assert len(set(macs)) == (MAX_NODES + 1) * len(NETWORKS) + 1
    assert Node(0).mac(LAN) == "02:00:c6:12:00:0b"


def test_the_documented_addresses() -> None:
    third = Node(2)
    assert [third.address(network) for network in (LAN, *RAILS)] == [
        "198.18.0.13",
        "198.18.100.13",
        "198.18.101.13",
    ]
    assert (third.name, third.namespace) == ("spark-2", "sparklab-2")


def test_the_inventory_of_four_is_the_committed_one() -> None:
    committed = (state.CHECKOUT / "inventory/sim4/hosts.yml").read_text()
    assert yaml.safe_load(inventory.render(nodes(4))) == yaml.safe_load(committed)


def test_ssh_reaches_each_node_by_the_lab_alone() -> None:
    config = inventory.ssh_config(nodes(2))
    assert "Host spark-1\n  HostName 198.18.0.12\n" in config
    assert "  BindInterface sparklab0\n" in config
    assert "  StrictHostKeyChecking yes\n" in config


def test_a_key_follows_content_and_mode_but_not_place(tmp_path: Path) -> None:
    for copy in ("one", "two"):
        (tmp_path / copy / "tree").mkdir(parents=True)
        (tmp_path / copy / "tree" / "file").write_text("content")
    first, second = (state.key("a", tmp_path / copy / "tree") for copy in ("one", "two"))
    assert first == second
    (tmp_path / "two" / "tree" / "file").chmod(0o755)
    assert state.key("a", tmp_path / "two" / "tree") != first
    assert state.key("b", tmp_path / "one" / "tree") != first


def test_a_key_tells_texts_apart_from_their_joining() -> None:
    assert state.key("ab", "c") != state.key("a", "bc")


@pytest.mark.parametrize(("host", "wrapped", "limited"), [(MIXED, True, True), (MODERN, False, False)])
def test_a_node_gets_what_its_host_needs(host: Host, wrapped: bool, limited: bool) -> None:
    assert bool(container(Node(0), host, "image").command) is wrapped
    assert bool(host.container_flags()) is limited


def test_a_container_is_another_one_when_its_inputs_change() -> None:
    one = Container(name="a", namespace="n", kind="service", image="i")
    others = [replace(one, flags=("--x",)), replace(one, command=("y",)), replace(one, inputs=("z",))]
    assert one.spec == replace(one).spec
    assert len({container.spec for container in (one, *others)}) == 4


def test_the_status_table_lines_up() -> None:
    assert overview.table([("NODE", "STATE"), ("a-long-name", "up")]) == "NODE         STATE\na-long-name  up"


def test_work_in_parallel_keeps_order_and_passes_errors_on() -> None:
    def double(number: int) -> int:
        if number == 3:
            raise LabError("three is too much")
        return 2 * number

    assert each(double, [1, 2]) == [2, 4]
    assert each(double, []) == []
    with pytest.raises(LabError, match="too much"):
        each(double, [1, 2, 3])


def test_waiting_ends_with_the_value_or_with_a_sentence() -> None:
    values = iter([None, None, "there"])
    assert wait_for("it", lambda: next(values), seconds=5, pause=0) == "there"
    with pytest.raises(LabError, match="it did not happen within 0 seconds"):
        wait_for("it", lambda: None, seconds=0, pause=0)


def test_a_wrong_number_of_nodes_is_a_message_and_code_1(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["inventory", "--nodes", "9"]) == 1
    assert capsys.readouterr().err == "lab: a lab has 1 to 8 nodes, not 9\n"


def test_the_number_of_nodes_comes_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_NODES", "2")
    assert cli.main(["inventory"]) == 0
    assert capsys.readouterr().out.count("ansible_host") == 2
