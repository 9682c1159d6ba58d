# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Who is tested with whom, and what the output of ping, rping and ib_write_bw means."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_tests as tests
from ansible_collections.dgx_spark.sglang.plugins.module_utils._fabric_rounds import partners, rounds

OUTPUTS: dict[str, str] = yaml.safe_load((Path(__file__).parent / "fixtures/fabric_test.yml").read_text())
RAIL = tests.Rail(0, "enp1s0f1np1", "192.168.100.11", "192.168.100.12", "rocep1s0f1")
SETTINGS = tests.Settings("spark-0", "spark-1", 0, 9000, True, 18515, 3, 65536, 20000, 10.0, 60.0)


@pytest.mark.parametrize("count", range(1, 65))
def test_rounds(count: int) -> None:
    """Each pair once, nobody twice in a round, and no round too many."""
    found = rounds(count)
    assert sorted(pair for pairs in found for pair in pairs) == list(combinations(range(count), 2))
    assert all(len({number for pair in pairs for number in pair}) == 2 * len(pairs) for pairs in found)
    assert len(found) == (count - 1 if count % 2 == 0 else count if count > 1 else 1)
    assert all(len(pairs) == count // 2 for pairs in found)


def test_four_nodes_take_three_rounds() -> None:
    assert rounds(4) == [[(0, 3), (1, 2)], [(0, 2), (1, 3)], [(0, 1), (2, 3)]]
    assert partners(rounds(4)[1]) == {0: 2, 2: 0, 1: 3, 3: 1}
    assert partners(rounds(3)[0]) == {1: 2, 2: 1}
    assert rounds(0) == []
    with pytest.raises(ValueError, match="-1 nodes"):
        rounds(-1)


def ping(big: str, small: str | None = None) -> tests.Outcome:
    seen = [tests.pinged(OUTPUTS[name], 0 if name.endswith("_ok") else 1) for name in (big, small) if name]
    return tests.ping_outcome(SETTINGS, RAIL, seen[0], seen[1] if small else None)


def test_ping_passes() -> None:
    outcome = ping("ping_ok")
    assert (outcome.ok, outcome.value, outcome.unit, outcome.found) == (True, 0.179, "ms", "3 of 3 answers")
    assert not outcome.mend
    argv = " ".join(tests.ping_argv(SETTINGS, RAIL, 9000 - tests.PING_HEADERS))
    assert argv == "ping -n -M do -s 8972 -c 3 -i 0.2 -W 1 -I enp1s0f1np1 192.168.100.12"


@pytest.mark.parametrize(
    ("big", "small", "found", "mend"),
    [
        ("ping_own_mtu", "ping_small_ok", "a path MTU of 1500 at enp1s0f1np1", "Set the MTU of enp1s0f1np1 to 9000"),
        ("ping_route_mtu", "ping_small_ok", "a path MTU of 1500", "Set the MTU of enp1s0f1np1 to 9000"),
        ("ping_lost", "ping_small_ok", "0 of 3 answers (pings of 56 bytes pass)", "Set an MTU of 9000 on spark-1"),
        ("ping_some_lost", "ping_small_ok", "1 of 3 answers (pings of 56", "Look for a bad cable"),
        ("ping_lost", "ping_lost", "0 of 3 answers", "Plug the cables of enp1s0f1np1 into the same rail"),
        ("ping_no_interface", "ping_no_interface", "SO_BINDTODEVICE enp1s0f1np1: No such", "Give enp1s0f1np1 its"),
    ],
)
def test_ping_fails(big: str, small: str, found: str, mend: str) -> None:
    """Each cause has its own mend."""
    outcome = ping(big, small)
    assert not outcome.ok
    assert outcome.value is None
    assert found in outcome.found
    assert outcome.mend.startswith(mend)
    assert "8972" in outcome.expected


@pytest.mark.parametrize(
    ("output", "code", "calls", "ok", "found"),
    [
        ("rping_client", 0, True, True, "10 rounds"),
        ("rping_server", 0, False, True, "10 rounds"),
        # Some releases of the server end with an error once the client has left, or don't end.
        ("rping_server", 255, False, True, "10 rounds"),
        ("", None, False, True, "10 rounds"),
        ("rping_client", 255, True, False, "rping ended with 255"),
        ("", 0, True, False, "(0 rounds)"),
        ("rping_unreachable", 255, True, False, "RDMA_CM_EVENT_UNREACHABLE, error -110"),
        ("rping_rejected", 255, True, False, "RDMA_CM_EVENT_REJECTED"),
        ("", None, True, False, "had to be ended, as it took too long"),
        ("", 1, False, False, "ended with 1"),
    ],
)
def test_rping(output: str, code: int | None, calls: bool, ok: bool, found: str) -> None:
    outcome = tests.judge_rping(SETTINGS, RAIL, OUTPUTS.get(output, ""), code, calls)
    assert outcome.ok is ok
    assert found in outcome.found
    assert bool(outcome.mend) is not ok


@pytest.mark.parametrize(
    ("output", "code", "calls", "value", "found"),
    [
        ("write_client", 0, True, 108.7, "108.7 Gb/s between the right GIDs"),
        ("write_cpu_frequency", 0, True, 0.13, "0.13 Gb/s between the right GIDs"),
        ("write_server", 0, False, None, "the right GIDs"),
    ],
)
def test_write_passes(output: str, code: int, calls: bool, value: float | None, found: str) -> None:
    """The figure is the sender's."""
    outcome = tests.judge_write(SETTINGS, RAIL, OUTPUTS[output], code, calls)
    assert (outcome.ok, outcome.value, outcome.unit, outcome.found) == (True, value, "Gb/s", found)


@pytest.mark.parametrize(
    ("output", "code", "found", "mend"),
    [
        ("write_link_local", 0, "GIDs of fe80::4ada:3fff:fe60:1122 and 192.168.100.12", "Set enp1s0f1np1 down and up"),
        ("write_megabytes", 0, "ib_write_bw says", "Run ib_write_bw on both nodes by hand"),
        ("write_refused", 1, "Couldn't connect to 192.168.100.12", "Run ib_write_bw on both nodes by hand"),
        ("write_retry", 1, "Failed status 12", "Give both ends and each port of the switch on this rail an MTU"),
        ("write_memory", 1, "Failed to create MR", "Let root lock memory"),
        ("write_no_device", 1, "IB device rocep1s0f1 not found", "Load the driver of rocep1s0f1"),
        ("", 0, "ib_write_bw says ''", "Run ib_write_bw"),
        ("", None, "had to be ended", "Give both ends and each port of the switch"),
    ],
)
def test_write_fails(output: str, code: int | None, found: str, mend: str) -> None:
    """Each cause has its own mend, and no figure counts between the wrong addresses."""
    outcome = tests.judge_write(SETTINGS, RAIL, OUTPUTS.get(output, ""), code, True)
    assert not outcome.ok
    assert outcome.value is None
    assert found in outcome.found
    assert outcome.mend.startswith(mend)


def test_who_is_not_there_yet_is_asked_again() -> None:
    assert tests.nobody_listens(OUTPUTS["write_refused"])
    assert tests.nobody_listens(OUTPUTS["rping_rejected"])
    assert not tests.nobody_listens(OUTPUTS["rping_unreachable"])
    assert not tests.nobody_listens(OUTPUTS["write_retry"])


def test_command_lines() -> None:
    """Both ends of a step have the same port, and no step shares its port with another rail."""
    called, calls = (" ".join(tests.step_argv(SETTINGS, RAIL, 0, side, 3)) for side in (False, True))
    assert called == "rping -s -a 192.168.100.11 -p 18516 -C 10 -v -V"
    assert calls == "rping -c -a 192.168.100.12 -I 192.168.100.11 -p 18516 -C 10 -v -V"
    called, calls = (" ".join(tests.step_argv(SETTINGS, RAIL, 1, side, 3)) for side in (False, True))
    assert called == "ib_write_bw -d rocep1s0f1 -x 3 -F --report_gbits -p 18517 -s 65536 -n 20000"
    assert calls == f"{called} 192.168.100.12"
    second = tests.Rail(1, "enP2p1s0f1np1", "192.168.101.11", "192.168.101.12", "roceP2p1s0f1")
    ports = [tests.port(SETTINGS, rail, step) for rail in (RAIL, second) for step in range(len(tests.STEPS) + 1)]
    assert len(set(ports)) == len(ports)
