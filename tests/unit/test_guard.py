# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A guarded change: what is kept, what is put back, and when. systemd-run is played by a stand-in that only notes."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible_collections.dgx_spark.sglang.plugins.action import guarded_change
from ansible_collections.dgx_spark.sglang.plugins.action.guarded_change import ActionModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _guard
from ansible_collections.dgx_spark.sglang.plugins.module_utils._guard import File, Guard, GuardError

NEVER = 0.3


@pytest.fixture(autouse=True)
def standin_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """systemd-run and systemctl that write down what they are asked."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = tmp_path / "systemd.log"
    for name in ("systemd-run", "systemctl"):
        program = folder / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >> {log}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return log


@pytest.fixture
def guard(tmp_path: Path) -> Guard:
    """The guard of a change."""
    return Guard("net", str(tmp_path / "guard"))


def mine(path: Path, content: str | None, mode: int = 0o600) -> File:
    """A file that belongs to whoever runs the tests."""
    return File(str(path), None if content is None else content.encode(), mode, (os.getuid(), os.getgid()))


def begin(guard: Guard, wanted: list[File], apply: list[list[str]] | None = None, **steps: list[list[str]]) -> str:
    """Begin a change that writes."""
    return guard.begin(wanted, apply=apply or [], undo=steps.get("undo", []), boot=steps.get("boot", []), seconds=60)


def test_only_what_differs_is_a_change(tmp_path: Path) -> None:
    same, other, gone = tmp_path / "same", tmp_path / "other", tmp_path / "gone"
    for path in (same, other):
        path.write_text("old")
        path.chmod(0o600)
    wanted = [mine(same, "old"), mine(other, "old", 0o644), mine(gone, None)]
    assert [want.path for _, want in _guard.differing(wanted)] == [str(other)]


def test_a_link_in_the_place_of_a_file_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/etc/hostname")
    with pytest.raises(GuardError, match="not a regular file"):
        _guard.differing([mine(link, "x")])


def test_confirmed_files_stay(guard: Guard, tmp_path: Path, standin_systemd: Path) -> None:
    path = tmp_path / "deep" / "file"
    backup = begin(guard, [mine(path, "new")], [["true"]])
    assert path.read_text() == "new"
    guard.apply()
    assert guard.confirm(backup) is None
    assert guard.restore("too late") is False
    assert path.read_text() == "new"
    assert "systemctl stop dgx-spark-guard-net.timer" in standin_systemd.read_text()
    # The answer may have been lost on its way: asked again, it is the same.
    assert guard.confirm(backup) is None


def test_unconfirmed_files_go_back_byte_for_byte(guard: Guard, tmp_path: Path) -> None:
    old, new, gone = tmp_path / "old", tmp_path / "new", tmp_path / "gone"
    old.write_bytes(b"\xff\x00 not text")
    old.chmod(0o640)
    gone.write_text("here")
    backup = begin(guard, [mine(old, "changed"), mine(new, "new"), mine(gone, None)])
    assert (old.read_text(), new.exists(), gone.exists()) == ("changed", True, False)
    assert guard.restore("nobody confirmed") is True
    assert old.read_bytes() == b"\xff\x00 not text"
    assert old.stat().st_mode & 0o777 == 0o640
    assert (new.exists(), gone.read_text()) == (False, "here")
    assert guard.confirm(backup) == "nobody confirmed"


def test_the_way_back_is_armed_before_anything_is_written(
    guard: Guard, tmp_path: Path, standin_systemd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"

    def written_after_the_timer(file: File) -> None:
        if file.path == str(path):
            assert "--on-active=60s" in standin_systemd.read_text()
        real(file)

    real = _guard.put
    monkeypatch.setattr(_guard, "put", written_after_the_timer)
    begin(guard, [mine(path, "new")])
    armed, applied = standin_systemd.read_text().splitlines()
    assert armed.endswith(f"--on-active=60s --timer-property=AccuracySec=100ms {_guard.SCRIPT} restore net")
    assert applied.endswith("apply net")


def test_nothing_is_written_where_the_way_back_cannot_be_armed(guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "bin/systemd-run").write_text("#!/bin/sh\necho no bus; exit 1\n")
    with pytest.raises(GuardError, match="no bus"):
        begin(guard, [mine(tmp_path / "file", "new")])
    assert not (tmp_path / "file").exists()
    assert guard.restore("nothing is pending") is False


def test_a_command_that_fails_takes_the_change_back_at_once(guard: Guard, tmp_path: Path) -> None:
    path, log = tmp_path / "file", tmp_path / "log"
    path.write_text("old")
    write = ["sh", "-c", f"cat {path} >> {log}; echo >> {log}"]
    failing = ["sh", "-c", "echo it broke; exit 3"]
    backup = begin(guard, [mine(path, "new")], [write, failing, ["touch", str(tmp_path / "never")]], undo=[write])
    guard.apply()
    assert "it broke" in (guard.confirm(backup) or "")
    assert path.read_text() == "old"
    # Applied, undone with the new files in place, and applied again with the old ones; a failure does not stop that.
    assert log.read_text().split() == ["new", "new", "old"]
    assert (tmp_path / "never").exists()


def test_a_change_that_is_never_applied_is_not_confirmed(guard: Guard, tmp_path: Path) -> None:
    backup = begin(guard, [mine(tmp_path / "file", "new")])
    assert guard.wait(backup, NEVER) is False
    assert "not applied in time" in (guard.confirm(backup) or "")
    assert not (tmp_path / "file").exists()


def test_waiting_ends_with_the_commands_or_with_the_way_back(guard: Guard, tmp_path: Path) -> None:
    backup = begin(guard, [mine(tmp_path / "file", "new")], [["sleep", "0.3"]])
    applying = threading.Thread(target=guard.apply)
    applying.start()
    assert guard.wait(backup, 10) is True
    applying.join()
    second = begin(guard, [mine(tmp_path / "file", "newer")])
    guard.restore("time is up")
    assert guard.wait(second, 10) is False


class FakeConnection:
    """Notes when it is made anew."""

    def __init__(self, log: list[str]) -> None:
        self.log = log

    def reset(self) -> None:
        """A new connection."""
        self.log.append("connect")


def act(monkeypatch: pytest.MonkeyPatch, answers: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Run the action with given answers a step; an exception is raised. Returns its result and what it did."""
    log: list[str] = []

    def module(self: ActionModule, arguments: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        step = arguments.get("step", "change")
        log.append(step)
        if isinstance(answers[step], Exception):
            raise answers[step]
        return dict(answers[step])

    monkeypatch.setattr(ActionModule, "_module", module)
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp, task_vars: {})
    monkeypatch.setattr(guarded_change, "RETURN_SECONDS", NEVER)
    action = ActionModule.__new__(ActionModule)
    action._task = SimpleNamespace(args={"name": "network", "seconds": 0})
    action._connection = FakeConnection(log)
    return action.run(None, {}), log


BEGUN = {"changed": True, "backup": "1"}


def test_the_confirming_connection_is_made_after_the_change_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    result, log = act(monkeypatch, {"change": BEGUN, "wait": {"applied": True}, "confirm": {"kept": True}})
    assert result == BEGUN
    assert log == ["change", "connect", "wait", "connect", "confirm"]


def test_nothing_is_confirmed_where_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert act(monkeypatch, {"change": {"changed": False}})[1] == ["change"]


def test_a_node_that_went_back_fails_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {"kept": False, "why": "the controller did not confirm it in time"}
    result, _ = act(monkeypatch, {"change": BEGUN, "wait": {"applied": False}, "confirm": gone})
    assert result["failed"]
    assert "change of the network was taken back" in result["msg"]
    assert gone["why"] in result["msg"]


def test_a_node_that_does_not_answer_fails_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = AnsibleConnectionFailure("connection timed out")
    result, _ = act(monkeypatch, {"change": BEGUN, "wait": lost, "confirm": lost})
    assert result["failed"]
    assert "connection timed out" in result["msg"]
    assert "by itself" in result["msg"]


def test_an_interrupted_run_is_put_back_by_the_next(guard: Guard, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    begin(guard, [mine(path, "half")])
    second = begin(guard, [mine(path, "new")], [["true"]])
    assert guard.files_of(second)[0].content == b"old"
    guard.apply()
    assert guard.confirm(second) is None
    assert path.read_text() == "new"


def test_boot_puts_back_before_the_network_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standin_systemd: Path
) -> None:
    monkeypatch.setattr(_guard, "ROOT", str(tmp_path / "guard"))
    guard = Guard("net", _guard.ROOT)
    monkeypatch.setattr(Guard.__init__, "__defaults__", (_guard.ROOT,))
    path, log = tmp_path / "file", tmp_path / "log"
    begin(guard, [mine(path, "new")], [["touch", str(tmp_path / "applied")]], boot=[["touch", str(log)]])
    begun = standin_systemd.read_text()
    assert _guard.main(["boot"]) == 0
    assert (path.exists(), log.exists(), (tmp_path / "applied").exists()) == (False, True, False)
    assert standin_systemd.read_text() == begun  # nothing that would wait for the boot itself


def test_backups(guard: Guard, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for number in range(9):
        backup = begin(guard, [mine(path, str(number))], [["true"]])
        guard.apply()
        assert guard.confirm(backup) is None
    kept = guard.backups()
    assert len(kept) == _guard.KEPT_BACKUPS + 1
    assert guard.files_of("newest")[0].content == b"7"
    assert guard.files_of("first")[0].content is None
    with pytest.raises(GuardError, match=r"There is no backup x of the net.*Use newest, first"):
        guard.files_of("x")
    assert (guard.folder.stat().st_mode & 0o777) == 0o700


def test_the_candidate_is_tried_out_on_a_copy(tmp_path: Path) -> None:
    stage = tmp_path / "etc"
    stage.mkdir()
    (stage / "other").write_text("there")
    wanted = [mine(stage / "file", "candidate")]
    look = ["sh", "-c", f"cat {{root}}{stage}/file {{root}}{stage}/other; exit 7"]
    with pytest.raises(GuardError, match="nothing was changed:\ncandidatethere"):
        _guard.try_out(wanted, [str(stage)], [look])
    assert not (stage / "file").exists()
    _guard.try_out(wanted, [str(stage)], [["test", "-f", f"{{root}}{stage}/file"]])


def test_install_is_done_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standin_systemd: Path) -> None:
    for name in ("SCRIPT", "BOOT_UNIT"):
        monkeypatch.setattr(_guard, name, str(tmp_path / name))
    for _ in range(2):
        _guard.install("print('the node')\n")
    assert os.access(_guard.SCRIPT, os.X_OK)
    assert standin_systemd.read_text().splitlines() == ["systemctl daemon-reload", "systemctl enable BOOT_UNIT"]


def test_notes_are_for_root_alone(guard: Guard, tmp_path: Path) -> None:
    begin(guard, [mine(tmp_path / "file", "new")])
    for path in guard.folder.rglob("*.json"):
        assert path.stat().st_mode & 0o777 == 0o600
        assert json.loads(path.read_text())
