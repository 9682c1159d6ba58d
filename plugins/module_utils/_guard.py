# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A change of files that a node takes back by itself unless the controller confirms it.

A network or a firewall that is set wrongly closes the way by which it could be mended. So: keep what is there, arm a
timer that puts it back, write, apply, and let the controller confirm over a connection made after the change. A node
that boots with a change pending puts it back before its network starts.

The module guarded_change imports this file and installs it on the node as SCRIPT, which timer and boot run: it needs
nothing but Python's standard library and systemd.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPT = "/usr/local/libexec/dgx-spark-guard"
BOOT_UNIT = "/etc/systemd/system/dgx-spark-guard.service"
ROOT = "/var/lib/dgx-spark-guard"
"""A folder a change's name: `pending.json` while it is not confirmed, `backups/<id>` of what was there before."""

KEPT_BACKUPS = 5
"""The newest ones; the first is always kept: it holds each file ever changed, as it was before this collection came."""

APPLY_SECONDS = 45
"""The longest that one command may take; `netplan apply` on a slow node takes about ten."""

BOOT_UNIT_TEXT = f"""\
[Unit]
Description=Put back a change of network or firewall that nobody confirmed
DefaultDependencies=no
RequiresMountsFor={ROOT}
After=local-fs.target systemd-tmpfiles-setup.service
Before=network-pre.target systemd-networkd.service NetworkManager.service shutdown.target
Wants=network-pre.target
Conflicts=shutdown.target
ConditionPathExistsGlob={ROOT}/*/pending.json

[Service]
Type=oneshot
ExecStart={SCRIPT} boot

[Install]
WantedBy=sysinit.target
"""

Argvs = Sequence[Sequence[str]]


class GuardError(Exception):
    """What can't be done, where and why. The text goes to the user."""


@dataclass(frozen=True)
class File:
    """One file as it is wanted or was. content: None where there is none. mode: permission bits. owner: uid, gid."""

    path: str
    content: bytes | None
    mode: int = 0o644
    owner: tuple[int, int] = (0, 0)


def read(path: str) -> File:
    """The file as it is; raises GuardError where it is not a plain one."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return File(path, None)
    if not stat.S_ISREG(found.st_mode):
        raise GuardError(f"{path} is not a regular file. Mend: Put the file itself there, not a link or a folder.")
    return File(path, Path(path).read_bytes(), stat.S_IMODE(found.st_mode), (found.st_uid, found.st_gid))


def differing(wanted: Sequence[File]) -> list[tuple[File, File]]:
    """Pairs of what is there and what is wanted, where they differ."""
    pairs = [(read(file.path), file) for file in wanted]
    return [
        (is_, want)
        for is_, want in pairs
        if is_.content != want.content
        or (want.content is not None and (is_.mode, is_.owner) != (want.mode, want.owner))
    ]


def put(file: File) -> None:
    """Write or remove one file in one step, so that no reader ever sees half of it."""
    path = Path(file.path)
    if file.content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(file.content)
            os.fchmod(out.fileno(), file.mode)
            os.fchown(out.fileno(), *file.owner)
            out.flush()
            os.fsync(out.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _private(path: str, content: bytes | None) -> File:
    """A file for whoever runs this alone: the guard's own notes, and copies of files that may hold secrets."""
    return File(path, content, 0o600, (os.getuid(), os.getgid()))


def try_out(wanted: Sequence[File], stage: Sequence[str], check: Argvs) -> None:
    """Run the check commands on a copy, with `{root}` in their arguments replaced by its folder.

    stage: folders of the node that the copy holds too. Raises GuardError with the last words of a command that fails.
    """
    if not check:
        return
    with tempfile.TemporaryDirectory(prefix="dgx-spark-guard-") as root:
        for folder in stage:
            if Path(folder).is_dir():
                shutil.copytree(folder, root + folder, symlinks=True, dirs_exist_ok=True)
        for file in wanted:
            put(_private(root + file.path, file.content))
        for argv in check:
            done = _run([word.replace("{root}", root) for word in argv])
            if done["rc"] != 0:
                text = done["output"].replace(root, "")
                raise GuardError(f"`{' '.join(argv)}` refuses the new files; nothing was changed:\n{text}")


def _run(argv: Sequence[str]) -> dict[str, Any]:
    """Run a command, bounded in time. Returns {argv, rc, output}; a program that isn't there has rc 127."""
    try:
        done = subprocess.run(
            list(argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=APPLY_SECONDS, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return {"argv": list(argv), "rc": 127, "output": f"{argv[0]}: not found"}
    except subprocess.TimeoutExpired:
        return {"argv": list(argv), "rc": 124, "output": f"no end within {APPLY_SECONDS} seconds"}
    return {"argv": list(argv), "rc": done.returncode, "output": done.stdout.decode(errors="replace").strip()}


class Guard:
    """The changes of one name, under a root folder."""

    def __init__(self, name: str, root: str = ROOT) -> None:
        """Take the guard of a name; its folder is made when something is kept."""
        self.name = name
        self.folder = Path(root) / name
        self._pending = self.folder / "pending.json"
        self._applied = self.folder / "applied.json"
        self._confirmed = self.folder / "confirmed.json"
        self._went_back = self.folder / "went_back.json"

    # ---- what is kept ------------------------------------------------------------------------

    def backups(self) -> list[dict[str, Any]]:
        """All backups, the newest first: {id, time, files: [{path, existed, mode, owner}]}."""
        found = sorted((self.folder / "backups").glob("*/manifest.json"), reverse=True)
        return [{"id": path.parent.name, **json.loads(path.read_text())} for path in found]

    def files_of(self, backup: str) -> list[File]:
        """The files of a backup as they were; raises GuardError where there is no such backup.

        backup: its id, or "newest" or "first".
        """
        kept = [entry["id"] for entry in self.backups()]
        if kept and backup in ("newest", "first"):
            backup = kept[0 if backup == "newest" else -1]
        folder = self.folder / "backups" / backup
        try:
            manifest = json.loads((folder / "manifest.json").read_text())
        except OSError as error:
            mend = (
                f"Use newest, first, or one of: {', '.join(kept)}" if kept else "Nothing was ever changed: leave it so"
            )
            raise GuardError(f"There is no backup {backup} of the {self.name}. Mend: {mend}.") from error
        return [
            File(
                entry["path"],
                (folder / str(number)).read_bytes() if entry["existed"] else None,
                entry["mode"],
                tuple(entry["owner"]),
            )
            for number, entry in enumerate(manifest["files"])
        ]

    def _keep(self, files: Sequence[File]) -> str:
        """Write a backup; it is complete once its manifest is there."""
        now = time.time()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
        folder = self.folder / "backups" / stamp
        folder.mkdir(parents=True, mode=0o700)
        os.chmod(self.folder, 0o700)
        entries = self._write(folder, files)
        self._note(folder / "manifest.json", {"time": int(now), "files": entries})
        self._add_to_first(stamp, files)
        for old in self.backups()[KEPT_BACKUPS:-1]:
            shutil.rmtree(self.folder / "backups" / old["id"])
        return stamp

    def _add_to_first(self, stamp: str, files: Sequence[File]) -> None:
        """Let the first backup hold every file that was ever changed, as it was before its own first change."""
        first = self.backups()[-1]
        known = {entry["path"] for entry in first["files"]}
        new = [file for file in files if file.path not in known]
        if first["id"] == stamp or not new:
            return
        folder = self.folder / "backups" / first["id"]
        entries = first["files"] + self._write(folder, new, after=len(known))
        self._note(folder / "manifest.json", {"time": first["time"], "files": entries})

    @staticmethod
    def _write(folder: Path, files: Sequence[File], after: int = 0) -> list[dict[str, Any]]:
        """Write the contents of a backup's files, numbered from `after` on; returns their entries in its manifest."""
        for number, file in enumerate(files, after):
            if file.content is not None:
                put(_private(str(folder / str(number)), file.content))
        return [
            {"path": file.path, "existed": file.content is not None, "mode": file.mode, "owner": file.owner}
            for file in files
        ]

    # ---- one change --------------------------------------------------------------------------

    def begin(self, wanted: Sequence[File], *, apply: Argvs, boot: Argvs, seconds: int, script: str = SCRIPT) -> str:
        """Keep what is there, arm the way back, write, and start the apply commands. Returns the backup's id.

        A change that is still pending, of a run that was interrupted, is put back first. Where this raises GuardError,
        nothing was changed.
        """
        with self._locked():
            self._put_back("another run came before it was confirmed")
            backup = self._keep([read(file.path) for file in wanted])
            for note in (self._applied, self._confirmed, self._went_back):
                note.unlink(missing_ok=True)
            self._note(self._pending, {"backup": backup, "apply": apply, "boot": boot})
            try:
                self._start(self._unit(backup), seconds, [script, "restore", self.name, backup])
                for file in wanted:
                    put(file)
                # A moment later, so that this answer is on its way before the network changes.
                self._start(self._unit(backup, "-apply"), 0.5, [script, "apply", self.name, backup])
            except (GuardError, OSError) as error:
                # If this fails too, the timer is still there.
                for file in self.files_of(backup):
                    put(file)
                self._pending.unlink()
                self._stop(f"{self._unit(backup)}.timer")
                raise GuardError(f"The {self.name} is as it was; nothing was changed: {error}") from error
        return backup

    def apply(self, backup: str) -> None:
        """Run the apply commands of a change, up to the first that fails, and note how it went."""
        pending = self._read(self._pending)
        if pending is None or pending["backup"] != backup:
            return
        done: list[dict[str, Any]] = []
        for argv in pending["apply"]:
            done.append(_run(argv))
            if done[-1]["rc"] != 0:
                break
        self._note(self._applied, {"backup": backup, "done": done})

    def wait(self, backup: str, seconds: float) -> bool:
        """Wait until the apply commands of a change have ended, or it was put back. Returns whether they have."""
        deadline = time.monotonic() + seconds
        while self._applied_of(backup) is None:
            if self._read(self._pending) is None or time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def confirm(self, backup: str) -> str | None:
        """Keep a change that is applied. Returns None, or why it is not kept (it is put back then)."""
        applied = self._applied_of(backup)
        failed = [step for step in applied["done"] if step["rc"] != 0] if applied else []
        if failed:
            self.restore(f"`{' '.join(failed[0]['argv'])}` failed: {failed[0]['output']}", backup=backup)
        elif applied is None:
            self.restore("it was not applied in time", backup=backup)
        with self._locked():
            pending = self._read(self._pending)
            if pending and pending["backup"] == backup:
                self._pending.unlink()
                self._note(self._confirmed, {"backup": backup})
                self._stop(f"{self._unit(backup)}.timer")
        confirmed, went_back = self._read(self._confirmed), self._read(self._went_back)
        if confirmed and confirmed["backup"] == backup:
            return None  # also where the answer to an earlier confirmation was lost on its way
        return str((went_back or {}).get("why", "it is not pending any more"))

    def restore(self, why: str, *, backup: str = "", at_boot: bool = False) -> bool:
        """Put back what was there before the pending change. Returns whether there was one.

        backup: put back this change alone, so that a timer that comes late does no harm to the next.
        """
        with self._locked():
            return self._put_back(why, backup=backup, at_boot=at_boot)

    def until_settled(self, seconds: float) -> bool:
        """Wait, without changing anything, until no change is pending. Returns whether it came to that in time."""
        deadline = time.monotonic() + seconds
        while self._read(self._pending) is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def _put_back(self, why: str, *, backup: str = "", at_boot: bool = False) -> bool:
        pending = self._read(self._pending)
        if pending is None or backup not in ("", pending["backup"]):
            return False
        if not at_boot:
            # Else its commands would go on between ours, and the last one would win.
            self._stop(*(f"{self._unit(pending['backup'], '-apply')}.{kind}" for kind in ("timer", "service")))
        for file in self.files_of(pending["backup"]):
            put(file)
        log = [_run(argv) for argv in pending["boot" if at_boot else "apply"]]
        self._note(self._went_back, {"backup": pending["backup"], "why": why, "log": log})
        self._pending.unlink()
        if not at_boot:
            self._stop(f"{self._unit(pending['backup'])}.timer")
        print(f"dgx-spark-guard: {self.name} is as it was before, because {why}", file=sys.stderr, flush=True)
        for step in log:
            print(f"  {' '.join(step['argv'])}: {step['rc']} {step['output']}", file=sys.stderr, flush=True)
        return True

    # ---- small parts -------------------------------------------------------------------------

    def _applied_of(self, backup: str) -> dict[str, Any] | None:
        note = self._read(self._applied)
        return note if note and note["backup"] == backup else None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            note: dict[str, Any] = json.loads(path.read_text())
        except FileNotFoundError:
            return None
        return note

    def _note(self, path: Path, note: Mapping[str, Any]) -> None:
        put(_private(str(path), json.dumps(note).encode()))

    def _unit(self, backup: str, suffix: str = "") -> str:
        """The name of a change's transient units: one of its own, as those of an earlier one may not be gone yet."""
        return f"dgx-spark-guard-{self.name}-{backup.replace('.', '-')}{suffix}"

    def _start(self, unit: str, seconds: float, command: Sequence[str]) -> None:
        """Let systemd run a command after some time, whatever becomes of this process."""
        argv = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", f"--on-active={seconds:g}s"]
        done = _run([*argv, "--timer-property=AccuracySec=100ms", "--property=TimeoutStopSec=5s", *command])
        if done["rc"] != 0:
            raise GuardError(
                f"`{argv[0]}` can't start {unit}: {done['output']} "
                f"Mend: See what systemd lacks (systemctl status; journalctl -b -p err), then run again."
            )

    def _stop(self, *units: str) -> None:
        _run(["systemctl", "stop", *units])


def install(source: str) -> None:
    """Install the node's part: this file as a program, and the unit that looks for a pending change at boot."""
    wanted = [
        File(SCRIPT, f"#!/usr/bin/python3\n{source}".encode(), 0o755),
        File(BOOT_UNIT, BOOT_UNIT_TEXT.encode()),
    ]
    for _, file in differing(wanted):
        put(file)
    # Each time: an earlier run may have been interrupted between the two.
    for argv in (["systemctl", "daemon-reload"], ["systemctl", "enable", Path(BOOT_UNIT).name]):
        if (done := _run(argv))["rc"] != 0:
            raise GuardError(
                f"The way back at boot can't be set up; nothing was changed. `{' '.join(argv)}` says: {done['output']} "
                f"Mend: See what systemd lacks (systemctl status; journalctl -b -p err), then run again."
            )


def at_boot() -> int:
    """Put back every pending change. What one name's can't be is told, and does not keep the others from theirs."""
    trouble = 0
    for path in sorted(Path(ROOT).glob("*/pending.json")):
        try:
            Guard(path.parent.name).restore("the node was restarted before it was confirmed", at_boot=True)
        except (GuardError, OSError, ValueError, KeyError) as error:
            trouble = 1
            print(f"dgx-spark-guard: {path.parent.name} can't be put back: {error!r}", file=sys.stderr, flush=True)
    return trouble


def main(arguments: Sequence[str]) -> int:
    """`apply NAME BACKUP`, `restore NAME BACKUP` (the timer), or `boot`: what systemd runs on the node."""
    verb, *names = arguments
    if verb == "boot":
        return at_boot()
    name, backup = names
    if verb == "apply":
        Guard(name).apply(backup)
    else:
        Guard(name).restore("the controller did not confirm it in time", backup=backup)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
