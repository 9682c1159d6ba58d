# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Both halves of a pair's tests, on loopback, with stand-ins for the programs; whatever happens, nothing is left."""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_pair, _fabric_process, _fabric_tests
from ansible_collections.dgx_spark.sglang.plugins.module_utils._fabric_pair import Pair, Ready
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc
from ansible_collections.dgx_spark.sglang.tests.unit.ports import free_ports

STANDIN = Path(__file__).parent / "fixtures/fabric_standin.py"
HOSTS = ("spark-0", "spark-1")
READY = Ready(gid_index=3)


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins in PATH; a folder with a file for each program that was started."""
    programs, started = tmp_path / "bin", tmp_path / "started"
    programs.mkdir()
    started.mkdir()
    for name in ("ping", "rping", "ib_write_bw"):
        (programs / name).write_text(f"#!{sys.executable}\n{STANDIN.read_text()}")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FABRIC_SCRATCH", str(started))
    return started


def rails(node: int, count: int = 1) -> list[_fabric_tests.Rail]:
    """127.0.<rail>.1 is the first node, 127.0.<rail>.2 the second."""
    me, peer = node + 1, 2 - node
    return [
        _fabric_tests.Rail(n, f"lo{n}{me}", f"127.0.{n}.{me}", f"127.0.{n}.{peer}", f"hca{n}{me}") for n in range(count)
    ]


def half(node: int, port: int, ready: Ready = READY, count: int = 1, **settings: Any) -> list[dict[str, Any]]:
    """One node's rows."""
    values = {
        "host": HOSTS[node], "peer": HOSTS[1 - node], "round": 0, "mtu": 9000, "rdma": True, "port": port,
        "ping_count": 3, "size": 65536, "iterations": 20000, "timeout": 3.0, "wait": 5.0,
    }  # fmt: skip
    pair = Pair(_fabric_tests.Settings(**{**values, **settings}), node == 0, lambda rail: ready)
    return pair.run(rails(node, count))


def both(ready: tuple[Ready, Ready] = (READY, READY), **settings: Any) -> list[list[dict[str, Any]]]:
    """The rows of both nodes, which run at once."""
    port = free_ports()[0]
    with ThreadPoolExecutor(2) as pool:
        halves = [pool.submit(half, node, port, ready[node], **settings) for node in range(2)]
        return [future.result(60) for future in halves]


def short(rows: list[dict[str, Any]]) -> list[str]:
    """Test, sender, receiver and how it went."""
    return [f"{row['test']} {row['from'][-1]}>{row['to'][-1]} {'ok' if row['ok'] else 'FAIL'}" for row in rows]


def alive(started: Path) -> list[str]:
    """Which of the programs that were started still run, themselves or by what they started."""
    groups = {int(line.rsplit(")", 1)[1].split()[2]) for line in _stats()}
    return [file.name for file in started.iterdir() if int(file.name.rsplit("-", 1)[1]) in groups]


def _stats() -> list[str]:
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            found.append(file.read_text())
        except OSError:
            continue
    # A zombie is no program any more.
    return [line for line in found if line.rsplit(")", 1)[1].split()[0] != "Z"]


def test_all_is_well(nodes: Path) -> None:
    """Both sides say the same of two rails; the figure is the sender's."""
    first, second = both(count=2)
    told = ["rping 1>0 ok", "write 1>0 ok", "write 0>1 ok"]
    assert short(first) == [*["ping 0>1 ok", *told] * 2]
    assert short(second) == [*["ping 1>0 ok", *told] * 2]
    assert [row["rail"] for row in first] == [0] * 4 + [1] * 4
    values = {(row["seen_by"], row["from"]): row["value"] for row in first + second if row["test"] == "write"}
    assert values == {
        ("spark-0", "spark-0"): 98.2,
        ("spark-1", "spark-1"): 98.2,
        ("spark-0", "spark-1"): None,
        ("spark-1", "spark-0"): None,
    }
    assert not alive(nodes)


def test_no_rdma(nodes: Path) -> None:
    """Without RDMA there are the pings, and nobody calls anybody."""
    assert short(half(0, free_ports()[0], rdma=False, count=2)) == ["ping 0>1 ok"] * 2
    assert not [file for file in nodes.iterdir() if not file.name.startswith("ping")]


def test_the_side_that_calls_waits_for_the_other(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABRIC_FAULTS", json.dumps({"rping-s": "late", "ib_write_bw-s": "late"}))
    first, second = both()
    assert short(first)[1:] == short(second)[1:] == ["rping 1>0 ok", "write 1>0 ok", "write 0>1 ok"]
    assert len(list(nodes.glob("rping-c-*"))) > 1
    assert not alive(nodes)


@pytest.mark.parametrize(
    ("faults", "rping", "first", "second"),
    [
        # The program that calls hangs: it is ended, and the other side hears of it.
        ({"rping-c": "hang"}, False, "spark-1: rping had to be ended", "rping had to be ended, as it took too long"),
        # What it started is ended with it.
        ({"rping-c": "child"}, False, "spark-1: rping had to be ended", "rping had to be ended, as it took too long"),
        ({"rping-c": "fail"}, False, "spark-1: rping ended with 7: it is broken", "rping ended with 7: it is broken"),
        ({"rping-c": "deaf"}, False, "spark-1: rping ended with 1", "rping ended with 1: RDMA_CM_EVENT_REJECTED"),
        # The program that is called hangs or fails: the other side is told.
        ({"rping-s": "hang"}, False, "spark-1: rping ended with 255", "rping ended with 255: cma event RDMA"),
        ({"rping-s": "fail"}, False, "rping ended with 7: it is broken", "spark-0: ended with 7: it is broken"),
        ({"ib_write_bw-s": "gid"}, True, "GIDs of 127.0.0.2 and 127.0.0.2", "98.2 Gb/s between the right GIDs"),
    ],
)
def test_a_program_fails(
    nodes: Path, monkeypatch: pytest.MonkeyPatch, faults: dict[str, str], rping: bool, first: str, second: str
) -> None:
    """The rows say whose program it was; the tests after it are run; nothing is left."""
    monkeypatch.setenv("FABRIC_FAULTS", json.dumps(faults))
    began = time.monotonic()
    rows = both(timeout=2.0)
    assert time.monotonic() - began < 25
    test = "rping" if not rping else "write"
    found = [next(row for row in side if row["test"] == test and row["from"] == "spark-1") for side in rows]
    assert found[0]["found"].startswith(first)
    assert found[1]["found"].startswith(second)
    assert not found[0]["ok"]
    assert found[0]["mend"]
    if not rping:
        assert short(rows[0])[2:] == short(rows[1])[2:] == ["write 1>0 ok", "write 0>1 ok"]
    assert not alive(nodes)


def test_a_stall_is_no_refusal(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that was refused first, then got through and hangs: it is the hanging that is told."""
    monkeypatch.setattr(_fabric_pair, "TRY_SECONDS", 1.0)
    monkeypatch.setenv("FABRIC_FAULTS", json.dumps({"ib_write_bw-s": "late stall"}))
    _, second = both(timeout=4.0)
    found = next(row["found"] for row in second if row["test"] == "write" and row["from"] == "spark-1")
    assert found == "ib_write_bw had to be ended, as it took too long"
    assert len(list(nodes.glob("ib_write_bw-c-*"))) > 2
    assert not alive(nodes)


def test_what_a_side_lacks_is_told_to_both(nodes: Path) -> None:
    lacking = Ready(problem="port 1 of hca02 has no RoCE v2 GID for 127.0.0.2", mend="Set it down and up.")
    first, second = both((READY, lacking))
    assert short(first)[1:] == short(second)[1:] == ["rping 1>0 FAIL", "write 1>0 FAIL", "write 0>1 FAIL"]
    assert {row["found"] for row in (first + second)[1:4]} == {f"spark-1: {lacking.problem}"}
    assert {row["mend"] for row in second[1:]} == {"Set it down and up."}
    assert not [file for file in nodes.iterdir() if not file.name.startswith("ping")]


@pytest.mark.parametrize("node", [0, 1])
def test_nobody_comes(nodes: Path, node: int) -> None:
    """A side whose other half never starts gives up in the time given, and says so of every test."""
    began = time.monotonic()
    rows = half(node, free_ports()[0], wait=1.0)
    assert time.monotonic() - began < 5
    assert [row["ok"] for row in rows] == [True, False, False, False]
    assert f"{HOSTS[1 - node]} was not met on 127.0.0.{2 - node}" in rows[1]["found"]
    assert "let its firewall pass TCP port" in rows[1]["mend"]


def test_a_side_dies_in_the_middle(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one hears it by the connection, and its program is ended."""
    port = free_ports()[0]
    with ThreadPoolExecutor(1) as pool:
        ours = pool.submit(half, 0, port)
        line = _fabric_process.call("127.0.0.2", "127.0.0.1", port, 10)
        line.send({"place": [0, 0], "problem": "", "mend": ""})
        assert line.receive(5) == {"place": [0, 0], "problem": "", "mend": ""}
        assert line.receive(5) == {"step": 0}
        line.close()
        rows = ours.result(20)
    assert short(rows) == ["ping 0>1 ok", "rping 1>0 FAIL", "write 1>0 FAIL", "write 0>1 FAIL"]
    assert {row["found"] for row in rows[1:]} == {"spark-1 was lost on 127.0.0.2: it hung up"}
    assert not alive(nodes)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ({"place": [3, 0]}, "it is at round and rail [3, 0], not at [0, 0]"),
        ([], "it is something else that answers"),
    ],
)
def test_somebody_else_calls(nodes: Path, message: Any, found: str) -> None:
    port = free_ports()[0]
    with ThreadPoolExecutor(1) as pool:
        ours = pool.submit(half, 0, port)
        line = _fabric_process.call("127.0.0.2", "127.0.0.1", port, 10)
        line.send(message)
        rows = ours.result(20)
        line.close()
    assert found in rows[1]["found"]


def test_strangers_are_hung_up_on() -> None:
    """Only the other side's own address is taken, however often somebody else calls before."""
    listener = _fabric_process.listen("127.0.0.1", free_ports()[0])
    port = listener.getsockname()[1]
    stranger = _fabric_process.call("127.0.0.3", "127.0.0.1", port, 5)
    peer = _fabric_process.call("127.0.0.2", "127.0.0.1", port, 5)
    ours = _fabric_process.accept(listener, "127.0.0.2", 5)
    ours.send({"place": 1})
    assert peer.receive(5) == {"place": 1}
    with pytest.raises(_fabric_process.LineError, match="hung up"):
        stranger.receive(5)
    with pytest.raises(_fabric_process.LineError, match=r"did not call in 0\.1 s"):
        _fabric_process.accept(listener, "127.0.0.2", 0.1)
    for one in (ours, peer, stranger, listener):
        one.close()


def test_pings_tell_the_mtu(nodes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FABRIC_FAULTS", json.dumps({"ping-c": "mtu"}))
    (row,) = half(0, free_ports()[0], rdma=False)
    assert row["found"] == "0 of 3 answers (pings of 56 bytes pass)"


def test_swapped_rails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing answers, but the peer's address of the other rail is found by ARP."""
    silent = (_fabric_tests.Pinged(3, 0, None, None, ""), _fabric_tests.Outcome(False, found="0 of 3 answers"))
    asked: list[str] = []

    def ping(self: Pair, rail: _fabric_tests.Rail, size: int) -> tuple[_fabric_tests.Pinged, _fabric_tests.Outcome]:
        asked.append(f"{rail.interface} {rail.peer_address}")
        return silent

    monkeypatch.setattr(Pair, "_run_ping", ping)
    answers = ["echo '[{}]'", """echo '[{"lladdr": "02:00:00:00:00:01"}]'"""]
    monkeypatch.setattr(_fabric_tests, "neighbour_argv", lambda rail: ["sh", "-c", answers.pop(0)])
    rows = half(0, free_ports()[0], count=2, rdma=False)
    assert "the rails are swapped" not in rows[0]["found"]
    assert rows[1]["found"].startswith("spark-1 has 127.0.0.2 of rail 0 here: the rails are swapped")
    # With whole and small packets, then for the other rail's address out of this rail's interface.
    assert asked == [f"lo{rail}1 127.0.{at}.2" for rail, at in ((0, 0), (0, 0), (0, 1), (1, 1), (1, 1), (1, 0))]


def test_readiness() -> None:
    rail = rails(0)[0]
    seen = {"problem": None, "mend": None, "hca": "hca01", "gid_index": 3}
    assert _fabric_pair.readiness(rail, seen) == Ready(3)
    assert _fabric_pair.readiness(rail, {**seen, "problem": "P", "mend": "M"}) == Ready(None, "P", "M")
    other = _fabric_pair.readiness(rail, {**seen, "hca": "mlx5_1"})
    assert other.problem == "127.0.0.1 is on mlx5_1, not on hca01 as planned"


def test_module_runs_as_a_task(nodes: Path, tmp_path: Path) -> None:
    """The real module, one half a task, the GID found in a stand-in of sysfs."""
    (nodes.parent / "bin/ip").write_text(f"#!/bin/sh\ncat {tmp_path}/addresses.json\n")
    (nodes.parent / "bin/ip").chmod(0o755)
    links = []
    for node in (1, 2):
        name, device = f"lo0{node}", tmp_path / f"sys/class/infiniband/hca0{node}/ports/1"
        files = {
            "state": "4: ACTIVE", "phys_state": "5: LinkUp", "link_layer": "Ethernet", "rate": "200 Gb/sec (4X HDR)",
            "gids/3": f"0000:0000:0000:0000:0000:ffff:7f00:000{node}", "gid_attrs/types/3": "RoCE v2",
            "gid_attrs/ndevs/3": name,
        }  # fmt: skip
        for path, content in files.items():
            (device / path).parent.mkdir(parents=True, exist_ok=True)
            (device / path).write_text(content + "\n")
        local = [{"family": "inet", "local": f"127.0.0.{node}", "prefixlen": 24}]
        links.append({"ifname": name, "mtu": 9000, "flags": ["UP", "LOWER_UP"], "addr_info": local})
    (tmp_path / "addresses.json").write_text(json.dumps(links))
    port = free_ports()[0]

    def task(node: int) -> dict[str, Any]:
        rail = rails(node)[0]
        arguments = {
            "host": HOSTS[node], "peer": HOSTS[1 - node], "called": node == 0, "port": port, "wait": 30,
            "sysfs_root": str(tmp_path / "sys"),
            "rails": [{name: getattr(rail, name) for name in ("interface", "address", "peer_address", "hca")}],
        }  # fmt: skip
        scratch = tmp_path / f"task{node}"
        scratch.mkdir()
        return adhoc.run(scratch, "fabric_pair", arguments).result

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(task, range(2))
    assert not first["failed"], first
    assert short(first["rows"]) == ["ping 0>1 ok", "rping 1>0 ok", "write 1>0 ok", "write 0>1 ok"], first["rows"]
    assert short(second["rows"]) == ["ping 1>0 ok", "rping 1>0 ok", "write 1>0 ok", "write 0>1 ok"]
    assert not alive(nodes)


def test_module_refuses_what_cannot_be_tested(tmp_path: Path) -> None:
    rail = {"interface": "a", "address": "x", "peer_address": "127.0.0.1"}
    wrong = {"host": "a", "peer": "b", "called": True, "rails": [rail], "timeout": 0, "port": 65535, "mtu": 100}
    result = adhoc.run(tmp_path, "fabric_pair", wrong).result
    assert result["failed"]
    assert [line.split(" ")[0] for line in result["msg"].splitlines()] == ["timeout", "mtu", "port", "rails:", "rails:"]
    good = {"host": "a", "peer": "b", "called": True, "rails": [{**rail, "address": "127.0.0.2", "hca": "h"}]}
    assert adhoc.run(tmp_path, "fabric_pair", good, check=True).result["rows"] == []
