# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Real supervisors on loopback addresses, with a stand-in for Docker, and this test in place of systemd."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.roles.rank.files import dgx_spark_rank as rank
from ansible_collections.dgx_spark.sglang.tests.unit.ports import free_ports

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "roles/rank/files/dgx_spark_rank.py"
DOCKER = HERE / "standin_docker.py"
PATIENCE = 20.0


class Unit:
    """A rank's unit: starts the supervisor, hears what it tells systemd, and starts it again when it ends."""

    def __init__(self, folder: Path, rank: int, ranks: int, ports: tuple[int, int, int], **other: object) -> None:
        self.rank = rank
        self.folder = folder / f"node-{rank}"
        self.folder.mkdir()
        self.codes: list[int] = []
        self.told: list[str] = []
        self.enabled = True
        udp, http, dist = ports
        host = f"127.0.0.{11 + rank}"
        key = self.folder / "key"
        key.touch(mode=0o600)
        key.write_text("5a" * 32)
        several = ranks > 1
        values: dict[str, Any] = {
            "group": "g1",
            "rank": rank,
            "members": [
                {"rank": r, "host": f"spark-{r + 1}", "address": f"127.0.0.{11 + r}" if several else ""}
                for r in range(ranks)
            ],
            "port": udp,
            "key_file": str(key),
            "container": "c",
            "health_url": f"http://{host}:{http}/health",
            "generate_url": None if rank else f"http://{host}:{http}/generate",
            "dist_init": f"127.0.0.11:{dist}" if rank else None,
            "started_marker": str(self.folder / "served"),
            "health_seconds": 2,
            "health_interval_seconds": 0.2,
            "silence_seconds": 3,
            "backoff_first_seconds": 0.1,
            "state_dir": str(self.folder / "state"),
        }
        self.config = self.folder / "config.json"
        self.config.write_text(json.dumps(values | other))
        words = [f"--rank={rank}", f"--host={host}", f"--port={http}"] + [f"--dist=127.0.0.11:{dist}"] * several
        docker = self.folder / "docker"
        docker.write_text(f'#!/bin/sh\nSTANDIN_DIR={self.folder} exec {sys.executable} -I -S {DOCKER} "$@"\n')
        docker.chmod(0o755)
        self.command = [str(docker), "run", "--name=c", "--label=dgx-spark.plan=g1", *words]
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(str(self.folder / "notify"))
        self.log = (self.folder / "log").open("ab")
        self.start()

    def start(self) -> None:
        """Start the supervisor."""
        self.enabled = True
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SCRIPT), str(self.config), "--", *self.command],
            stdout=self.log,
            stderr=self.log,
            env={"NOTIFY_SOCKET": str(self.folder / "notify")},
        )

    def poll(self) -> None:
        """Do what systemd does."""
        while True:
            try:
                self.told += self.socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                break
        if self.enabled and self.process.poll() is not None:
            self.codes.append(self.process.returncode)
            self.start()

    @property
    def pid(self) -> int:
        """The container's first process."""
        return int((self.folder / "c.pid").read_text())

    @property
    def journal(self) -> str:
        """All that was written."""
        return (self.folder / "log").read_text()

    @property
    def last(self) -> dict[str, Any]:
        """The note about the last end."""
        found: dict[str, Any] = json.loads((self.folder / "state/last.json").read_text())
        return found

    def ready(self) -> int:
        """How often it has said that it is ready."""
        return self.told.count("READY=1")

    def status(self) -> list[str]:
        """All STATUS texts."""
        return [line.removeprefix("STATUS=") for line in self.told if line.startswith("STATUS=")]

    def end(self) -> None:
        """Leave nothing."""
        if self.log.closed:
            return
        self.enabled = False
        self.process.kill()
        self.process.wait()
        subprocess.run([*self.command[:1], "rm", "--force", "c"], check=False, capture_output=True)
        self.log.close()
        self.socket.close()


Make = Callable[..., list[Unit]]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes the units of some ranks."""
    units: list[Unit] = []

    def made(ranks: int, **other: object) -> list[Unit]:
        udp, http, dist = free_ports(3)
        units.extend(Unit(tmp_path, rank, ranks, (udp, http, dist), **other) for rank in range(ranks))
        return units

    yield made
    for unit in units:
        unit.end()
        print(unit.rank, unit.codes, unit.status(), unit.journal, sep="\n")


def wait(units: list[Unit], until: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Let the units live until a condition holds."""
    deadline = time.monotonic() + seconds
    while True:
        for unit in units:
            unit.poll()
        if until():
            return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def all_ready(units: list[Unit], times: int = 1) -> Callable[[], bool]:
    """Whether all have said so often that they are ready."""
    return lambda: all(unit.ready() == times for unit in units)


def ended(units: list[Unit], times: int = 1) -> Callable[[], bool]:
    """Whether the supervisors have ended so often, each by itself."""
    return lambda: all(len(unit.codes) >= times for unit in units)


def test_three_ranks_form_a_group_and_a_death_ends_it_everywhere(make: Make) -> None:
    # Silence and health would take longer than is waited here: what ends the others is what rank 2 tells.
    units = make(3, backoff_first_seconds=2, silence_seconds=20, health_seconds=15)
    wait(units, all_ready(units))
    epochs = {word for unit in units for word in (unit.folder / "argv").read_text().split() if "epoch" in word}
    assert len(epochs) == 1
    argv = (units[1].folder / "argv").read_text().splitlines()
    assert argv[1] == "run"
    assert argv[2] in epochs
    assert json.loads((units[0].folder / "generated").read_text())["sampling_params"]["max_new_tokens"] == 1
    assert not (units[1].folder / "generated").exists()
    assert "loading 50 %" in units[2].status() or "loading 100 %" in units[2].status()
    assert "Loading safetensors checkpoint shards:  50% Completed | 1/2\n" in units[2].journal
    assert "WATCHDOG=1" in units[0].told
    wait(units, lambda: all(unit.status()[-1] == "serving" for unit in units))
    assert (units[1].folder / "served").exists()

    os.kill(units[2].pid, signal.SIGKILL)
    wait(units, lambda: all(unit.status()[-1].startswith("ending: rank 2 (spark-3)") for unit in units), 8)
    wait(units, ended(units))
    for unit in units:
        assert unit.codes == [1]
        assert "the group ended: rank 2 (spark-3) failed first: its container ended with 137" in unit.journal
        assert unit.last["first_rank"] == 2
        assert unit.last["host"] == "spark-3"
        assert unit.last["served"] is True

    wait(units, all_ready(units, 2))
    assert units[0].codes == units[1].codes == units[2].codes == [1]
    again = {word for unit in units for word in (unit.folder / "argv").read_text().split() if "epoch" in word}
    assert len(again) == 1
    assert again != epochs
    # It served, so nothing is to be waited for.
    assert not any("next start in" in text for unit in units for text in unit.status())


def test_a_stopped_process_is_found_and_named(make: Make) -> None:
    units = make(2, health_seconds=15)
    wait(units, all_ready(units))
    os.kill(units[1].pid, signal.SIGSTOP)
    wait(units, ended(units))
    for unit in units:
        assert unit.last["first_rank"] == 1
        assert unit.last["why"].startswith("process ")
        assert "is stopped" in unit.last["why"]


def test_a_health_answer_other_than_200_ends_the_group(make: Make) -> None:
    units = make(2)
    wait(units, all_ready(units))
    (units[0].folder / "answer").write_text("503")
    wait(units, ended(units))
    (units[0].folder / "answer").unlink()
    assert [unit.last["first_rank"] for unit in units] == [0, 0]
    assert units[1].last["why"].startswith("its /health answers 503")


def test_a_rank_stopped_by_hand_takes_the_others_along_and_they_wait_for_it(make: Make) -> None:
    units = make(3)
    wait(units, all_ready(units))
    units[1].enabled = False
    units[1].process.terminate()
    others = [units[0], units[2]]
    wait(units, lambda: units[1].process.poll() is not None)
    assert units[1].process.returncode == 0
    wait(units, ended(others))
    assert "the group ended: rank 1 (spark-2) was stopped by hand" in units[2].journal
    assert json.loads((units[0].folder / "state/history.json").read_text())["failures"] == 0
    wait(units, lambda: all("waiting for rank 1 (spark-2)" in unit.status()[-1] for unit in others))
    assert not any((unit.folder / "c.pid").exists() for unit in units)
    units[1].start()
    wait(units, all_ready(units, 2))
    assert [unit.codes for unit in others] == [[0], [0]]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_supervisor_that_is_killed_is_missed_and_its_container_removed(make: Make, rank: int) -> None:
    units = make(2)
    wait(units, all_ready(units))
    orphan = units[rank].pid
    # Nothing but the supervisor: its container lives on, as it does under a real Docker.
    units[rank].process.kill()
    wait(units, ended(units))
    other = units[1 - rank]
    assert other.codes == [1]
    assert other.last["first_rank"] == rank
    wait(units, all_ready(units, 2))
    assert not Path(f"/proc/{orphan}").exists() or orphan != units[rank].pid


def test_a_frozen_supervisor_is_silent_and_finds_out_itself(make: Make) -> None:
    units = make(2)
    wait(units, all_ready(units))
    units[1].process.send_signal(signal.SIGSTOP)
    wait(units, ended(units[:1]))
    assert "rank 1 (spark-2) failed first: not heard for" in units[0].journal
    units[1].process.send_signal(signal.SIGCONT)
    wait(units, all_ready(units, 2))
    assert units[1].codes == [1]


def test_a_rank_of_another_plan_is_waited_for_and_named_as_such(make: Make) -> None:
    units = make(2)
    wait(units, all_ready(units))
    command = units[1].command
    units[1].command = [word.replace("plan=g1", "plan=g2") for word in command]
    changed = json.loads(units[1].config.read_text()) | {"group": "g2"}
    units[1].config.write_text(json.dumps(changed))
    units[1].process.terminate()
    wait(units, lambda: "waiting for rank 1 (spark-2): it has another plan or release" in units[0].status())
    # What it is told while it waits, it takes by itself.
    units[1].command = command
    units[1].config.write_text(json.dumps(changed | {"group": "g1"}))
    wait(units, all_ready(units, 2))


def test_a_rank_that_waits_takes_a_new_key(make: Make) -> None:
    """As where the head was set up anew: it makes a key, and whoever has read the one of before would be deaf."""
    units = make(2)
    head, other = units
    for unit in units:
        unit.enabled = False
        unit.process.kill()
        unit.process.wait()
    (head.folder / "key").write_text("a5" * 32)
    for unit in units:
        unit.start()
    wait(units, lambda: "another key, from 127.0.0.12" in head.journal)
    assert other.codes == []
    (other.folder / "key").write_text("a5" * 32)
    wait(units, all_ready(units))
    assert (head.codes, other.codes) == ([], [0])
    assert "what this rank was told has changed: it begins anew" in other.journal


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rests of a supervisor that runs in this process, taken in no time; what else it changes here is put back."""
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    found: list[float] = []
    monkeypatch.setattr(time, "sleep", found.append)
    return found


def test_a_command_of_another_plan_is_refused(make: Make, rests: list[float]) -> None:
    """As where a run was cut off before systemd knew the new unit: the group would be of two minds."""
    (unit,) = make(1)
    unit.end()
    command = [word.replace("plan=g1", "plan=g0") for word in unit.command]
    assert rank.main([str(unit.config), "--", *command]) == 2
    assert rests.count(rank.REST_SECONDS) == 1


def test_a_rank_that_waits_sees_an_environment_of_another_plan(make: Make) -> None:
    waiting, other = make(2)
    other.end()
    waiting.enabled = False
    waiting.process.kill()
    waiting.process.wait()
    env = waiting.folder / "rank.env"
    env.write_text("# dgx-spark.plan=g1\n")
    waiting.command.insert(2, f"--env-file={env}")
    waiting.start()
    wait([waiting], lambda: "waiting for rank 1 (spark-2)" in waiting.status())
    env.write_text("# dgx-spark.plan=g2\n")
    wait([waiting], lambda: f"is of another plan than {env}" in waiting.journal)


def test_an_environment_of_another_plan_is_refused(tmp_path: Path) -> None:
    """As where a run was cut off between the files."""
    ours, other, servers = (tmp_path / name for name in ("ours", "other", "servers"))
    ours.write_text("# Ansible managed\n# dgx-spark.plan=g1\nNCCL_DEBUG=WARN\n")
    other.write_text("# Ansible managed\n# dgx-spark.plan=g2\n")
    servers.write_text("NCCL_DEBUG=WARN\n")
    command = ["docker", "run", "--label=dgx-spark.plan=g1", f"--env-file={servers}"]
    rank.check_plan("g1", [*command, f"--env-file={ours}"])
    with pytest.raises(rank.ConfigError, match=f"another plan than {other}"):
        rank.check_plan("g1", [*command, f"--env-file={other}"])


def test_one_node_alone_needs_no_address_and_counts_its_failures(make: Make) -> None:
    units = make(1, failing_after=1, start_seconds=3, first_start_seconds=3)
    (units[0].folder / "slow").touch()
    wait(units, ended(units))
    assert units[0].last["served"] is False
    assert units[0].last["why"].startswith("not healthy after 3 s: its /health answers 503; it said: Loading")
    assert json.loads((units[0].folder / "state/history.json").read_text())["failures"] >= 1
    said = " starts in a row never served; the last: rank 0 (spark-1) failed first:"
    wait(units, lambda: f"failing: 1{said}" in units[0].journal and any(said in text for text in units[0].status()))
    (units[0].folder / "slow").unlink()
    wait(units, all_ready(units))
    assert json.loads((units[0].folder / "state/history.json").read_text())["failures"] == 0


@pytest.mark.parametrize("ready", [True, False])
def test_a_stop_by_hand_is_no_error_at_any_time(make: Make, ready: bool) -> None:
    (unit,) = make(1)
    wait([unit], lambda: unit.ready() == 1 if ready else "starting" in unit.status())
    unit.enabled = False
    unit.process.terminate()
    wait([unit], lambda: unit.process.poll() is not None)
    unit.poll()
    assert unit.process.returncode == 0
    assert unit.status()[-1] == "stopping by hand"
    assert "STOPPING=1" in unit.told
    assert not (unit.folder / "c.pid").exists()


def test_a_death_is_known_before_docker_tells(make: Make) -> None:
    (unit,) = make(1, health_interval_seconds=9)
    wait([unit], all_ready([unit]))
    (unit.folder / "linger").write_text("4")
    wait([unit], lambda: unit.status()[-1] == "serving")
    time.sleep(3)  # until Docker was asked for the process, which nothing tells
    os.kill(unit.pid, signal.SIGKILL)
    wait([unit], lambda: "ending" in unit.status(), 3)
    wait([unit], lambda: unit.codes == [1])
    assert unit.last["why"].startswith("its container ended; it said: Loading")


def test_the_end_of_a_scheduler_is_known_before_its_container_ends(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, since whoever runs the tests may have no cgroups to put a scheduler into."""
    (unit,) = make(1)
    unit.end()
    with subprocess.Popen(["sleep", "60"]) as scheduler:
        watched = {scheduler.pid: "sglang::schedul"}
        monkeypatch.setattr(rank.Processes, "look", lambda *_: (watched, None))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        supervisor = rank.Supervisor(rank.parse_config(unit.config.read_text()), unit.command)
        thread = threading.Thread(target=supervisor.run)
        thread.start()
        wait([], lambda: scheduler.pid in supervisor.watched)
        scheduler.kill()
        killed = time.monotonic()
        wait([], lambda: supervisor.failure is not None)
        assert time.monotonic() - killed < rank.LOOK_SECONDS
        thread.join(PATIENCE)
    assert unit.last["why"].startswith(f"process {scheduler.pid} (sglang::schedul) ended; it said")


@pytest.mark.parametrize(("text", "why"), [("{}", "group: it is missing"), ("[", "it is no JSON")])
def test_a_wrong_configuration_ends_it_with_2(
    text: str, why: str, tmp_path: Path, rests: list[float], capfd: pytest.CaptureFixture[str]
) -> None:
    """After a rest."""
    (tmp_path / "config.json").write_text(text)
    assert rank.main([str(tmp_path / "config.json"), "--", "docker", "run"]) == 2
    assert why in capfd.readouterr().out
    assert rests.count(rank.REST_SECONDS) == 1


UNFORESEEN = """
import runpy, sys, threading
sys.argv = [sys.argv[1]]
rank = runpy.run_path(sys.argv[0])
rank["main"]([])
threading.Thread(target=lambda: 1 / 0).start()
threading.Event().wait(20)
"""


def test_a_thread_that_ends_unforeseen_ends_the_supervisor() -> None:
    words = [sys.executable, "-c", UNFORESEEN, str(SCRIPT)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert "supervisor: a part of the supervisor ended: ZeroDivisionError: division by zero" in done.stdout
