"""Names, addresses, command lines and answers of the guests: what needs no emulated machine."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from lab import cli, host, state
from lab.guests import access, layout, machines, net, qemu
from lab.guests.image import Image
from lab.guests.layout import CONTROLLER_LINK, MAX_GUESTS, MGMT, NETWORKS, Guest, by_name, guests, rail
from lab.layout import MAX_NODES, NAMESPACE, RAILS, nodes
from lab.run import LabError, wait_for

FILES = state.SOURCE / "guests" / "files"
INVENTORY = state.CHECKOUT / "inventory" / "guests2"
IMAGE = Image(Path("/image"))


def command(guest: Guest, memory: Path | None = None) -> list[str]:
    return qemu.command(guest, IMAGE, Path("/disk"), memory)


@pytest.mark.parametrize("count", [0, MAX_GUESTS + 1])
def test_there_are_one_to_four_guests(count: int) -> None:
    with pytest.raises(ValueError, match="1 to 4 guests"):
        guests(count)


def test_every_name_on_the_wire_fits_the_kernel() -> None:
    names = [
        name for guest in guests(MAX_GUESTS) for network in NETWORKS for name in (guest.tap(network), network.interface)
    ]
    assert max(map(len, [*names, CONTROLLER_LINK])) <= 15


def test_addresses_and_cards_are_distinct_and_no_nodes_management_address() -> None:
    everything = [(guest.address(network), guest.mac(network)) for guest in guests(MAX_GUESTS) for network in NETWORKS]
    assert len({address for address, _ in everything}) == len({card for _, card in everything}) == len(everything)
    assert all(ipaddress.ip_address(address) in ipaddress.ip_network("198.18.0.0/15") for address, _ in everything)
    assert layout.NAMESPACE != NAMESPACE
    assert not layout.NAMESPACE.startswith(f"{NAMESPACE}-")


def test_the_rails_are_those_of_the_nodes() -> None:
    pairs = zip(guests(MAX_GUESTS), nodes(MAX_NODES), strict=False)
    assert all(guest.address(network) == node.address(network) for guest, node in pairs for network in RAILS)
    assert Guest(1).address(MGMT) == "198.18.9.12"


@pytest.mark.parametrize("name", ["spark-4", "spark-", "node"])
def test_an_unknown_guest_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="no guest is called"):
        by_name(name)


def test_guests_and_rails_are_found_by_name() -> None:
    assert by_name("spark-3") == Guest(3)
    assert rail("rail1") is RAILS[1]
    with pytest.raises(ValueError, match="use rail0 or rail1"):
        rail("mgmt")


def test_interfaces_are_named_after_the_slots_of_their_cards() -> None:
    for network in NETWORKS:
        text = (FILES / f"root/etc/systemd/network/98-lab-{network.interface}.link").read_text()
        assert f"Path=*pci-0000:00:{layout.slot(network):02x}.0*" in text
        assert f"Name={network.interface}\n" in text
        assert f"mac={Guest(0).mac(network)},addr={layout.slot(network):#x}," in " ".join(command(Guest(0)))


def test_the_roce_devices_are_those_that_are_waited_for_and_that_the_inventory_names() -> None:
    unit = (FILES / "root/etc/systemd/system/lab-roce.service").read_text()
    made = dict(re.findall(r"rdma link add (\S+) type rxe netdev (\S+)", unit))
    rails = yaml.safe_load((INVENTORY / "group_vars/sparks.yml").read_text())["cluster_rails"]
    assert made == {entry["hca"]: entry["interface"] for entry in rails}
    assert list(made) == list(machines.DEVICES)


def test_jumbo_frames_pass_on_the_rails_only() -> None:
    cards = [word for word in command(Guest(0)) if word.startswith("virtio-net-pci")]
    assert [("host_mtu=9000" in card) for card in cards] == [False, True, True]


def test_a_guest_is_always_emulated_and_may_reboot() -> None:
    words = command(Guest(2))
    assert words[words.index("-accel") + 1].startswith("tcg")
    assert "-no-reboot" not in words
    assert words[words.index("-append") + 1].endswith("lab.name=spark-2 lab.address=198.18.9.13/24")


def test_only_a_restored_guest_reads_its_memory() -> None:
    assert "-incoming" not in command(Guest(0))
    assert command(Guest(0), Path("/state"))[-2:] == ["-incoming", "exec:cat '/state'"]


def test_the_inventory_of_two_is_the_committed_one() -> None:
    committed = yaml.safe_load((INVENTORY / "hosts.yml").read_text())
    assert yaml.safe_load(access.inventory(guests(2))) == committed


def test_ssh_and_ansible_share_the_connection_that_the_lab_hangs_up() -> None:
    variables = yaml.safe_load((INVENTORY / "group_vars/sparks.yml").read_text())
    assert variables["ansible_control_path"] % {} == access.CONTROL_PATH
    config = access.ssh_config(guests(2))
    assert f"  ControlPath {access.CONTROL_PATH}\n" in config
    assert f"  BindInterface {CONTROLLER_LINK}\n" in config
    assert f"BindInterface={CONTROLLER_LINK} " in variables["ansible_ssh_common_args"]
    assert "Host spark-1\n  HostName 198.18.9.12\n" in config


@pytest.mark.parametrize(("target", "words"), [("rail1", "master rail1"), ("none", "nomaster")])
def test_a_cable_is_moved_or_pulled(target: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[list[str]] = []
    monkeypatch.setattr(net, "batch", lambda namespace, *commands: batches.append([namespace, *commands]))
    net.move(Guest(1), RAILS[0], target)
    assert batches == [[layout.NAMESPACE, f"link set rail0-1 {words}"]]


# ---- the process and its monitor


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(qemu, "RUN", tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "content",
    [None, "", "not a number\n", f"{os.getpid()}\n", "4194305\n"],
    ids=["no file", "empty", "no number", "another program", "too large"],
)
def test_only_the_guests_own_process_counts(content: str | None, run_folder: Path) -> None:
    if content is not None:
        (run_folder / "spark-0.pid").write_text(content)
    assert qemu.pid(Guest(0)) is None


def test_a_guest_is_ended_by_its_number_and_leaves_no_file(run_folder: Path) -> None:
    number = run_folder / "spark-0.pid"
    with subprocess.Popen(["sh", "-c", "read line", str(number)], stdin=subprocess.PIPE) as process:
        number.write_text(f"{process.pid}\n")
        # Its command line can be read a moment after its start.
        assert wait_for("the process", lambda: qemu.pid(Guest(0)), seconds=5, pause=0.01) == process.pid
        qemu.end(Guest(0))
        assert process.wait(timeout=5) == -9
    assert not number.exists()


@pytest.fixture
def answers(run_folder: Path) -> Iterator[tuple[list[object], list[str]]]:
    """A monitor that gives these answers, and what it was asked."""
    planned: list[object] = []
    asked: list[str] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(run_folder / "spark-0.qmp"))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection, connection.makefile("rw", encoding="utf-8") as stream:
                stream.write('{"QMP": {}}\n')
                stream.flush()
                for answer in [{"return": {}}, *planned]:
                    asked.append(json.loads(stream.readline())["execute"])
                    stream.write('{"event": "RESUME"}\n' + json.dumps(answer) + "\n")
                    stream.flush()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield planned, asked
        thread.join(timeout=5)


def test_the_monitor_skips_events(answers: tuple[list[object], list[str]]) -> None:
    answers[0].append({"return": {"status": "running"}})
    assert qemu.monitor(Guest(0), {"execute": "query-status"}) == {"status": "running"}
    assert answers[1] == ["qmp_capabilities", "query-status"]


def test_the_monitors_refusal_is_an_error(answers: tuple[list[object], list[str]]) -> None:
    answers[0].append({"error": {"desc": "Device 'rail7' not found"}})
    with pytest.raises(LabError, match="monitor of spark-0 refuses: Device 'rail7' not found"):
        qemu.monitor(Guest(0), {"execute": "set_link"})


def test_a_monitor_that_is_not_there_is_an_error(run_folder: Path) -> None:
    with pytest.raises(LabError, match="does not answer"):
        qemu.monitor(Guest(0), {"execute": "stop"})


# ---- the command line


def test_a_wrong_number_of_guests_is_a_message_and_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["guests", "inventory", "--nodes", "5"]) == 1
    assert capsys.readouterr().err == "lab: there are 1 to 4 guests, not 5\n"


@pytest.mark.parametrize("arguments", [["plug", "spark-0", "rail0", "none"], ["reboot", "spark-0"]])
def test_a_guest_that_does_not_run_is_a_message_and_code_1(
    arguments: list[str], run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["guests", *arguments]) == 1
    assert "spark-0 does not run; run `python3 -m lab guests create`" in capsys.readouterr().err


def test_what_guests_need_is_not_asked_of_the_lab_of_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda program: None)
    with pytest.raises(LabError, match=r"can't hold the guests:\n.*apt-get install .*qemu-system-x86 ") as guest_error:
        host.require_guests(2)
    assert "podman" not in str(guest_error.value)
    with pytest.raises(LabError, match="podman") as lab_error:
        host.require(2)
    assert "qemu" not in str(lab_error.value)


@pytest.mark.parametrize("guests_run", [True, False])
def test_the_end_of_the_containers_keeps_the_files_of_running_guests(
    guests_run: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "guests"
    for folder in (kept, tmp_path / "inventory"):
        folder.mkdir()
        (folder / "file").touch()
    (tmp_path / "ssh_config").touch()
    monkeypatch.setattr(state, "STATE", tmp_path)
    cli.forget(keep=kept if guests_run else None)
    assert [path.name for path in tmp_path.glob("*")] == (["guests"] if guests_run else [])
    assert tmp_path.exists() is guests_run


# ---- what is kept of compiled modules

_LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("kept", sys.argv[1])
kept = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kept)
kept._FOLDER = sys.argv[2]
if sys.argv[4] == "never":
    del kept._compile
sys.path.insert(0, sys.argv[3])
import zipped
print(zipped.VALUE)
"""


def test_what_is_compiled_is_kept_for_the_same_source_only(tmp_path: Path) -> None:
    def load(value: int, compile_it: str) -> subprocess.CompletedProcess[str]:
        archive = tmp_path / f"{value}.zip"
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("zipped.py", f"VALUE = {value}\n")
        arguments = [str(FILES / "sitecustomize.py"), str(tmp_path), str(archive), compile_it]
        return subprocess.run([sys.executable, "-c", _LOAD, *arguments], capture_output=True, text=True)

    assert load(1, "may").stdout == "1\n"
    assert load(1, "never").stdout == "1\n"
    assert "NameError" in load(2, "never").stderr
    (kept,) = [path for path in tmp_path.iterdir() if path.suffix != ".zip"]
    kept.write_bytes(b"torn")
    assert load(1, "may").stdout == "1\n"
