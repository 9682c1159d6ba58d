# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A guarded change: what is kept, what is put back, and when. systemd-run is played by a stand-in that only notes."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.dgx_spark.sglang.plugins.action import guarded_change
from ansible_collections.dgx_spark.sglang.plugins.action.guarded_change import ActionModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _guard
from ansible_collections.dgx_spark.sglang.plugins.module_utils._guard import File, Guard, GuardError
from ansible_collections.dgx_spark.sglang.plugins.modules import guarded_change as guarded_change_module
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

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
    return guard.begin(wanted, apply=apply or [], boot=steps.get("boot", []), seconds=60)


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
    guard.apply(backup)
    assert guard.confirm(backup) is None
    assert guard.restore("too late") is False
    assert path.read_text() == "new"
    assert f"systemctl stop dgx-spark-guard-net-{backup.replace('.', '-')}.timer" in standin_systemd.read_text()
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
    backup = begin(guard, [mine(path, "new")])
    armed, applied = standin_systemd.read_text().splitlines()
    assert "--on-active=60s" in armed
    assert armed.endswith(f"{_guard.SCRIPT} restore net {backup}")
    assert applied.endswith(f"{_guard.SCRIPT} apply net {backup}")


def test_nothing_is_written_where_the_way_back_cannot_be_armed(guard: Guard, tmp_path: Path) -> None:
    (tmp_path / "bin/systemd-run").write_text("#!/bin/sh\necho no bus; exit 1\n")
    with pytest.raises(GuardError, match="no bus"):
        begin(guard, [mine(tmp_path / "file", "new")])
    assert not (tmp_path / "file").exists()
    assert guard.restore("nothing is pending") is False


def test_nothing_stays_written_where_the_change_cannot_be_applied(
    guard: Guard, tmp_path: Path, standin_systemd: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("old")
    (tmp_path / "bin/systemd-run").write_text('#!/bin/sh\ncase "$*" in *" apply "*) echo still loaded; exit 1;; esac\n')
    with pytest.raises(GuardError, match=r"nothing was changed: .*still loaded"):
        begin(guard, [mine(old, "other"), mine(new, "new")])
    assert (old.read_text(), new.exists()) == ("old", False)
    assert guard.restore("nothing is pending") is False
    assert "systemctl stop dgx-spark-guard-net-" in standin_systemd.read_text()


def test_a_file_that_cannot_be_written_takes_the_others_back(guard: Guard, tmp_path: Path) -> None:
    path = tmp_path / "old"
    path.write_text("old")
    with pytest.raises(GuardError, match="nothing was changed"):
        begin(guard, [mine(path, "other"), mine(tmp_path / ("x" * 255), "too long for a name beside it")])
    assert path.read_text() == "old"
    assert guard.restore("nothing is pending") is False


def test_a_late_timer_does_no_harm_to_the_next_change(guard: Guard, tmp_path: Path) -> None:
    path = tmp_path / "file"
    first = begin(guard, [mine(path, "one")])
    second = begin(guard, [mine(path, "two")], [["true"]])
    assert guard.restore("the first one's time is up", backup=first) is False
    guard.apply(first)
    assert guard.wait(second, 0) is False
    guard.apply(second)
    assert guard.confirm(second) is None
    assert path.read_text() == "two"


def test_commands_that_still_run_are_ended_before_the_files_go_back(
    guard: Guard, tmp_path: Path, standin_systemd: Path
) -> None:
    path = tmp_path / "file"
    look = ["sh", "-c", f"cat {standin_systemd} > {tmp_path}/seen"]
    backup = begin(guard, [mine(path, "new")], [look])
    guard.restore("time is up", backup=backup)
    unit = f"dgx-spark-guard-net-{backup.replace('.', '-')}-apply"
    assert f"systemctl stop {unit}.timer {unit}.service" in (tmp_path / "seen").read_text()


def test_a_command_that_fails_takes_the_change_back_at_once(guard: Guard, tmp_path: Path) -> None:
    path, log = tmp_path / "file", tmp_path / "log"
    path.write_text("old")
    write = ["sh", "-c", f"cat {path} >> {log}; echo >> {log}"]
    failing = ["sh", "-c", "echo it broke; exit 3"]
    backup = begin(guard, [mine(path, "new")], [write, failing, ["touch", str(tmp_path / "never")]])
    guard.apply(backup)
    assert "it broke" in (guard.confirm(backup) or "")
    assert path.read_text() == "old"
    # Applied with the new files, and again with the old ones; a failure does not stop that.
    assert log.read_text().split() == ["new", "old"]
    assert (tmp_path / "never").exists()


def test_a_change_that_is_never_applied_is_not_confirmed(guard: Guard, tmp_path: Path) -> None:
    backup = begin(guard, [mine(tmp_path / "file", "new")])
    assert guard.wait(backup, NEVER) is False
    assert "not applied in time" in (guard.confirm(backup) or "")
    assert not (tmp_path / "file").exists()


def test_waiting_ends_with_the_commands_or_with_the_way_back(guard: Guard, tmp_path: Path) -> None:
    backup = begin(guard, [mine(tmp_path / "file", "new")], [["sleep", "0.3"]])
    applying = threading.Thread(target=guard.apply, args=(backup,))
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


def test_trouble_with_sudo_during_the_change_is_no_end_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = AnsibleError("Timeout waiting for privilege escalation prompt")
    result, _ = act(monkeypatch, {"change": BEGUN, "wait": lost, "confirm": lost})
    assert "privilege escalation" in result["msg"]


def test_an_error_of_the_disk_names_the_file_and_the_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("where a folder is needed")
    files = [{"path": str(tmp_path / "file/x"), "content": "x"}]
    result = adhoc.run(
        tmp_path, "guarded_change", {"name": "test", "files": files, "apply": [["true"]]}, check=True
    ).result
    assert f"{tmp_path}/file/x: Not a directory. Mend: See to that file" in result["msg"]


def test_an_interrupted_run_is_put_back_by_the_next(guard: Guard, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    begin(guard, [mine(path, "half")])
    second = begin(guard, [mine(path, "new")], [["true"]])
    assert guard.files_of(second)[0].content == b"old"
    guard.apply(second)
    assert guard.confirm(second) is None
    assert path.read_text() == "new"


@pytest.fixture
def module_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The module's change of one file, with a guard under the test's own folder."""
    monkeypatch.setattr(Guard.__init__, "__defaults__", (str(tmp_path / "guard"),))
    monkeypatch.setattr(_guard, "install", lambda source: None)
    monkeypatch.setattr(guarded_change_module, "SETTLE_SECONDS", NEVER)
    monkeypatch.setattr(guarded_change_module, "wanted", lambda file: mine(Path(file["path"]), file["content"]))

    def run(path: Path, content: str, *, check: bool = False) -> dict[str, Any]:
        options: dict[str, Any] = {
            "name": "net",
            "files": [{"path": str(path), "content": content}],
            "backup": None,
            "force": False,
        }
        options |= {"stage": [], "check": [], "apply": [["true"]], "boot": [], "seconds": 0}
        return guarded_change_module.change(SimpleNamespace(params=options, check_mode=check))

    return run


def test_unconfirmed_files_are_not_what_is_compared_with(
    guard: Guard, tmp_path: Path, module_runs: Callable[..., dict[str, Any]]
) -> None:
    """A run that was killed before its confirmation, and started again at once."""
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    killed = module_runs(path, "new")
    again = module_runs(path, "new")
    assert (killed["changed"], again["changed"], again["paths"]) == (True, True, [str(path)])
    assert guard.restore("the first one's timer", backup=killed["backup"]) is False
    guard.apply(again["backup"])
    assert guard.confirm(again["backup"]) is None
    assert path.read_text() == "new"
    assert module_runs(path, "new")["changed"] is False


def test_taking_an_unconfirmed_change_back_is_a_change(
    tmp_path: Path, module_runs: Callable[..., dict[str, Any]]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    module_runs(path, "new")
    result = module_runs(path, "old")
    assert (result["changed"], "backup" in result, path.read_text()) == (True, False, "old")


def test_a_check_run_waits_for_the_node_to_settle_and_changes_nothing(
    guard: Guard, tmp_path: Path, module_runs: Callable[..., dict[str, Any]]
) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o600)
    module_runs(path, "new")
    with pytest.raises(GuardError, match="pending for long; nothing was changed"):
        module_runs(path, "new", check=True)
    assert path.read_text() == "new"
    guard.restore("time is up")
    assert module_runs(path, "new", check=True)["changed"] is True
    assert path.read_text() == "old"


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


def test_what_cannot_be_put_back_at_boot_does_not_keep_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "guard"
    monkeypatch.setattr(_guard, "ROOT", str(root))
    monkeypatch.setattr(Guard.__init__, "__defaults__", (str(root),))
    path = tmp_path / "file"
    begin(Guard("net", str(root)), [mine(path, "new")])
    for name, note in (("a", "half a no"), ("b", '{"backup": "gone", "boot": []}'), ("c", "{}")):
        (root / name).mkdir()
        (root / name / "pending.json").write_text(note)
    assert _guard.main(["boot"]) == 1
    assert not path.exists()
    told = capsys.readouterr().err
    assert all(f"{name} can't be put back" in told for name in "abc")


def test_the_first_backup_grows_with_what_is_changed(guard: Guard, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    changes = [[mine(one, "a")], [mine(one, "b"), mine(two, "b")], [mine(two, "c")]] + [
        [mine(one, str(number))] for number in range(7)
    ]
    for files in changes:
        backup = begin(guard, files, [["true"]])
        guard.apply(backup)
        assert guard.confirm(backup) is None
    first = {file.path: file.content for file in guard.files_of("first")}
    assert first == {str(one): b"1", str(two): b"2"}


def test_backups(guard: Guard, tmp_path: Path) -> None:
    path = tmp_path / "file"
    for number in range(9):
        backup = begin(guard, [mine(path, str(number))], [["true"]])
        guard.apply(backup)
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


def test_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, standin_systemd: Path) -> None:
    for name in ("SCRIPT", "BOOT_UNIT"):
        monkeypatch.setattr(_guard, name, str(tmp_path / name))
    for _ in range(2):
        _guard.install("print('the node')\n")
    assert os.access(_guard.SCRIPT, os.X_OK)
    # Each time, as an earlier run may have been interrupted before it came to that.
    assert standin_systemd.read_text().splitlines() == ["systemctl daemon-reload", "systemctl enable BOOT_UNIT"] * 2


def test_notes_are_for_root_alone(guard: Guard, tmp_path: Path) -> None:
    begin(guard, [mine(tmp_path / "file", "new")])
    for path in guard.folder.rglob("*.json"):
        assert path.stat().st_mode & 0o777 == 0o600
        assert json.loads(path.read_text())
