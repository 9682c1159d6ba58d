"""The fabric on guests with kernels of their own and Soft-RoCE: what is set, what is found, and what is taken back."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tools import operating
from tests.tools.operating import ROOT, changes, environment, run, until

INVENTORY = ROOT / ".lab/guests-inventory"
LAST = "spark-1"
RAILS = ["enp1s0f1np1", "enP2p1s0f1np1"]
OWN = "/etc/netplan/40-cx7.yaml"
SECONDS = 30
GUARD = "dgx_spark.sglang.guarded_change"


def play(playbook: str, *arguments: str, code: int = 0) -> str:
    """Run a playbook on the guests."""
    return operating.play(playbook, *arguments, code=code, inventory=INVENTORY, seconds=300)


def fabric(*arguments: str, code: int = 0) -> str:
    """Configure the rails."""
    return play("site.yml", "--tags", "fabric", *arguments, code=code)


def lab(*words: str) -> None:
    """Do something to the guests from outside."""
    run("python3", "-m", "lab", "guests", *words, seconds=300)


def on(guest: str, script: str) -> str:
    """Run a line of shell in a guest; returns what it printed."""
    return operating.on(guest, script, ROOT / ".lab/guests/ssh_config")


def module(guest: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """What a module returns."""
    words = ["ansible", "-i", str(INVENTORY), guest, "-m", f"dgx_spark.sglang.{name}", "-a", json.dumps(arguments)]
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env={**environment(), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_STDOUT_CALLBACK": "minimal"},
    )  # fmt: skip
    result: dict[str, Any] = json.loads(done.stdout.partition("=>")[2])
    return result


def has_rails(guest: str) -> bool:
    """Whether the rails of a guest have their addresses and nothing else, their MTU and their settings."""
    links = json.loads(on(guest, "ip -json address show"))
    number = 11 + int(guest[-1])
    found = {
        link["ifname"]: (link["mtu"], [f"{entry['local']}/{entry['prefixlen']}" for entry in link["addr_info"]])
        for link in links
    }
    wanted = {rail: (9000, [f"198.18.{100 + index}.{number}/24"]) for index, rail in enumerate(RAILS)}
    ignored = on(guest, "cat " + " ".join(f"/proc/sys/net/ipv4/conf/{rail}/arp_ignore" for rail in RAILS))
    return {rail: found[rail] for rail in RAILS} == wanted and ignored.split() == ["1", "1"]


def is_bare(guest: str) -> bool:
    """Whether a guest is as it was before the collection came: its files, its rails and their settings."""
    names = on(guest, "ls /etc/netplan /etc/sysctl.d /etc/security/limits.d /run/systemd/network")
    links = [link for link in json.loads(on(guest, "ip -json address show")) if link["ifname"] in RAILS]
    settings = [f"ipv4/conf/{rail}/{key}" for rail in RAILS for key in ("arp_ignore", "arp_announce")]
    settings += [f"ipv6/conf/{rail}/disable_ipv6" for rail in RAILS]
    return (
        not any(word in names for word in ("cx7", "dgx-spark", *RAILS))
        and [(link["mtu"], link["addr_info"], "UP" in link["flags"]) for link in links] == [(1500, [], False)] * 2
        and set(on(guest, "cd /proc/sys/net; cat " + " ".join(settings)).split()) == {"0"}
    )


def test_rails_are_as_planned() -> None:
    for guest in ("spark-0", LAST):
        assert has_rails(guest)
        assert on(guest, f"stat -c %a {OWN}") == "600"
        assert on(guest, "ip -br address show enP7s7").split()[1] == "UP"


def test_rdma_info_agrees_with_the_kernels_own_tools() -> None:
    addresses = ["198.18.100.12", "198.18.101.12"]
    told = module(LAST, "rdma_info", {"addresses": addresses})
    for index, (rail, hca) in enumerate(zip(told["rails"], ["rocep1s0f1", "roceP2p1s0f1"], strict=True)):
        assert (rail["interface"], rail["hca"], rail["problem"]) == (RAILS[index], hca, None)
        (device,) = [device for device in told["devices"] if device["name"] == hca]
        (port,) = device["ports"]
        info = on(LAST, f"ibv_devinfo -v -d {hca}")
        assert f"active_mtu:\t\t{port['active_mtu']}" in info
        assert port["active_mtu"] == 4096
        assert f"GID[{rail['gid_index']:3}]:\t\t::ffff:{addresses[index]}, RoCE v2" in info


def test_hcas_are_asked_for_where_the_inventory_names_none() -> None:
    rails = [{"interface": rail, "subnet": f"198.18.{100 + index}.0/24"} for index, rail in enumerate(RAILS)]
    given = json.dumps({"sglang_device": "cuda", "cluster_rails": rails})
    output = play("molecule/fabric/plan.yml", "-e", given)
    assert output.count("=rocep1s0f1,roceP2p1s0f1") == (INVENTORY / "hosts.yml").read_text().count("ansible_host")


def test_pairs_pass_with_real_rdma(tmp_path: Path) -> None:
    output = play("playbooks/fabric_test.yml", "-e", f"fabric_test_report_folder={tmp_path}")
    assert "no failure" in output
    report = json.loads((tmp_path / "fabric-test.json").read_text())
    assert report["verdict"] == "ok"
    for row in report["tests"]:
        assert row["verdict"] == "ok", row
    assert {row["test"] for row in report["tests"]} == {"ping", "rping", "write"}
    assert "<html" in (tmp_path / "fabric-test.html").read_text()


def test_everything_is_there_after_a_boot() -> None:
    lab("reboot", LAST)
    deadline = time.monotonic() + 60
    while not has_rails(LAST):
        assert time.monotonic() < deadline, on(LAST, "ip address; journalctl -u systemd-networkd")
    gids = module(LAST, "rdma_info", {"addresses": ["198.18.100.12", "198.18.101.12"]})["rails"]
    assert [rail["problem"] for rail in gids] == [None, None]


def test_faults_are_found_by_name_and_mended_by_site_yml() -> None:
    """A check run tells them; it ends well, as the role would mend them."""
    faults = [
        ("spark-0", f"ip link set {RAILS[1]} mtu 1500", f"FABRIC.MTU spark-0 {RAILS[1]}"),
        ("spark-0", f"ip address del 198.18.100.11/24 dev {RAILS[0]}", f"FABRIC.ADDRESS spark-0 {RAILS[0]}"),
        (LAST, f"ip address add 198.18.100.112/24 dev {RAILS[1]}", f"FABRIC.SUBNET {LAST} {RAILS[0]}"),
    ]
    for guest, fault, _ in faults:
        on(guest, fault)
    rows = [line.split() for line in fabric("--check").splitlines() if line.startswith("FABRIC.")]
    told = [" ".join(row[:1] + row[2:4]) for row in rows]
    for _, _, row in faults:
        assert row in told
    fabric()
    assert has_rails("spark-0")
    assert has_rails(LAST)


@pytest.fixture
def cables() -> Iterator[None]:
    """Put the cables back where they belong."""
    yield
    for rail in ("rail0", "rail1"):
        lab("plug", LAST, rail, rail)
    until("the rails are back", lambda: has_rails(LAST), 30)


@pytest.mark.usefixtures("cables")
def test_a_pulled_cable() -> None:
    lab("plug", LAST, "rail0", "none")
    output = play("playbooks/fabric_test.yml", code=2)
    assert f"FABRIC.CARRIER on {RAILS[0]}" in output
    assert f"fatal: [{LAST}]" in output
    # Nothing that the role could change.
    assert f"FABRIC.CARRIER on {RAILS[0]}" in fabric("--check", code=2)


@pytest.mark.usefixtures("cables")
def test_swapped_rails(tmp_path: Path) -> None:
    for rail, other in (("rail0", "rail1"), ("rail1", "rail0")):
        lab("plug", LAST, rail, other)
    play("playbooks/fabric_test.yml", "-e", f"fabric_test_report_folder={tmp_path}", code=2)
    report = json.loads((tmp_path / "fabric-test.json").read_text())
    told = [row["found"] for row in report["tests"] if row["test"] == "ping" and LAST in (row["from"], row["to"])]
    assert told
    assert all("the rails are swapped" in found for found in told)


def test_back_to_before_the_collection_came() -> None:
    management = on(LAST, "sha256sum /etc/netplan/01-mgmt.yaml; ip -json address show enP7s7")
    play("playbooks/fabric_restore.yml", "-e", "fabric_restore_to=first", "--limit", LAST)
    assert is_bare(LAST)
    assert on(LAST, "sha256sum /etc/netplan/01-mgmt.yaml; ip -json address show enP7s7") == management


NVIDIAS = """\
# as it came
network:
  version: 2
  ethernets:
    enp1s0f0np0: {link-local: [ipv4]}
    enp1s0f1np1: {link-local: [ipv4]}
    enP2p1s0f0np0: {link-local: [ipv4]}
    enP2p1s0f1np1: {link-local: [ipv4]}
"""
STALE = "# by hand\nnetwork:\n  ethernets:\n    enp1s0f1np1: {addresses: [10.9.9.9/24]}\n"


def test_what_is_in_the_way_is_refused_or_migrated() -> None:
    """NVIDIA's own file, with more than the rails, and one of somebody's; on a node that the test before left bare."""
    for name, text in (("40-cx7.yaml", NVIDIAS), ("90-stale.yaml", STALE)):
        on(LAST, f"cd /etc/netplan; printf '%s' '{text}' > {name}; chmod 600 {name}; sha256sum * > /root/sum")
    output = fabric(code=2)
    assert "nothing of the fabric was changed" in output
    assert f"{OWN}: ethernets.enP2p1s0f0np0" in output
    assert f"{OWN}: ethernets.{RAILS[0]}" not in output
    assert f"/etc/netplan/90-stale.yaml: ethernets.{RAILS[0]}" in output

    fabric("-e", "fabric_migrate_netplan=true")
    assert has_rails(LAST)
    assert on(LAST, "ls /etc/netplan").split() == ["01-mgmt.yaml", "40-cx7.yaml", "41-cx7-other.yaml"]
    assert on(LAST, "stat -c %a /etc/netplan/41-cx7-other.yaml") == "600"
    assert on(LAST, "netplan get ethernets.enP2p1s0f0np0.link-local") == "- ipv4"
    assert changes(fabric())[-1] == 0

    play("playbooks/fabric_restore.yml", "--limit", LAST)
    assert on(LAST, "cd /etc/netplan; sha256sum --check --quiet /root/sum && echo same") == "same"
    assert on(LAST, "ls /etc/netplan").split() == ["01-mgmt.yaml", "40-cx7.yaml", "90-stale.yaml"]
    until("the rails are as those files say", lambda: "10.9.9.9/24" in on(LAST, f"ip address show {RAILS[0]}"), 30)
    until("both of them", lambda: "169.254." in on(LAST, f"ip address show {RAILS[1]}"), 30)
    assert on(LAST, f"cat /sys/class/net/{RAILS[0]}/mtu") == "1500"
    on(LAST, f"rm {OWN} /etc/netplan/90-stale.yaml")
    fabric()
    assert has_rails(LAST)


def test_a_network_that_is_really_broken_is_put_back_by_the_timer() -> None:
    """The management interface gets another address: no new connection comes through."""
    path = "/etc/netplan/01-mgmt.yaml"
    before = on(LAST, f"sha256sum {path}; stat -c '%a %u' {path}")
    text = "network: {version: 2, ethernets: {enP7s7: {addresses: [198.18.9.99/24]}}}\n"
    change = {"name": "broken", "files": [{"path": path, "content": text, "mode": "0600"}], "seconds": SECONDS}
    apply = [["netplan", "apply"]]
    words = [
        "ansible",
        "-i",
        str(INVENTORY),
        LAST,
        "-T",
        "5",
        "-m",
        GUARD,
        "-a",
        json.dumps({**change, "apply": apply}),
    ]
    began = time.monotonic()
    output = run(*words, code=2, seconds=300)
    assert "the node is as it was before: the controller did not confirm it in time" in output
    assert time.monotonic() - began >= SECONDS
    assert on(LAST, f"sha256sum {path}; stat -c '%a %u' {path}") == before
    assert on(LAST, "ls /etc/netplan").split() == ["01-mgmt.yaml", "40-cx7.yaml"]


@pytest.mark.usefixtures("cables")
def test_networkmanager_and_back() -> None:
    """On one node with a cable pulled: that is a finding, but no reason to take the change back."""
    run("ansible", "-i", str(INVENTORY), "sparks", "-m", "ansible.builtin.systemd_service", "-a",
        "name=NetworkManager state=started", seconds=300)  # fmt: skip
    lab("plug", LAST, "rail0", "none")
    output = fabric("-e", "fabric_renderer=NetworkManager fabric_settle_seconds=3", code=2)
    assert "taken back" not in output
    assert f"FABRIC.CARRIER on {RAILS[0]}" in output
    assert has_rails("spark-0")
    lab("plug", LAST, "rail0", "rail0")
    until("NetworkManager connects the rail by itself", lambda: has_rails(LAST), 60)
    for rail in RAILS:
        assert on(LAST, f"nmcli -g GENERAL.CONNECTION device show {rail}") == f"netplan-{rail}"

    play("playbooks/fabric_restore.yml", "--limit", LAST)
    until("networkd has the rails back", lambda: has_rails(LAST), 30)
    fabric()
    for guest in ("spark-0", LAST):
        assert has_rails(guest)
        for rail in RAILS:
            assert on(guest, f"nmcli -g GENERAL.STATE device show {rail}") == "10 (unmanaged)"
