#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Makes a part of the machine as it is wanted, and puts back what was there before."""

from __future__ import annotations

DOCUMENTATION = r"""
module: machine_part
short_description: Change a part of the machine such that it can be put back
version_added: 0.1.0
description:
  - Makes files, links, units, kernel parameters, package holds and swap as they are wanted.
  - What each was before its first change is recorded once, in a file on the node, before anything is changed.
    V(restored) puts that back and removes the record; where there is none, it does nothing.
  - What somebody else has changed since is left alone, and told.
options:
  name:
    description: The part.
    type: str
    required: true
  state:
    description: V(present) makes it as wanted, V(restored) as it was before.
    type: str
    choices: [present, restored]
    default: present
  things:
    description: What belongs to the part.
    type: list
    elements: dict
    default: []
    suboptions:
      kind:
        description: >-
          What it is. V(hold) is the hold of packages of apt, by a pattern; V(package) is only recorded, and taken away
          if it was not there; V(swap) is all swap of the node.
        type: str
        choices: [file, link, unit, sysctl, hold, package, swap]
        required: true
      name:
        description: The path, unit, parameter or package; anything for V(swap).
        type: str
        required: true
      wanted:
        description:
          - How it is wanted; what is left out does not matter. Without it, it is only recorded.
          - "A file takes C(content) and C(mode), or C(absent); a link C(target) or C(absent); a unit C(enabled) as
            C(systemctl is-enabled) says it, and C(active); a sysctl C(value); a hold C(held); swap C(areas)."
        type: dict
  exact:
    description: Whether things of the record that are not listed any more are put back.
    type: bool
    default: true
  after:
    description: Commands to run after files of the part have changed, or were put back.
    type: list
    elements: list
    default: []
  records:
    description: The folder of the records.
    type: path
    default: /var/lib/dgx-spark-host
attributes:
  check_mode:
    description: Says what it would do.
    support: full
  diff_mode:
    description: Shows each thing before and after.
    support: full
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Boot without a desktop
  dgx_spark.sglang.machine_part:
    name: headless
    things:
      - kind: link
        name: /etc/systemd/system/default.target
        wanted:
          target: /usr/lib/systemd/system/multi-user.target

- name: Boot as before
  dgx_spark.sglang.machine_part:
    name: headless
    state: restored
"""

RETURN = r"""
things:
  description: What has changed, or would.
  returned: success
  type: list
  elements: str
  sample: [link /etc/systemd/system/default.target]
left:
  description: What somebody else has changed since, and was not put back.
  returned: success
  type: list
  elements: str
gone:
  description: What is there no more and could not be brought back, such as an area of swap whose file was removed.
  returned: success
  type: list
  elements: str
"""

import base64
import contextlib
import json
import os
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _machine_part
from ansible_collections.dgx_spark.sglang.plugins.module_utils._machine_part import (
    PartError,
    Record,
    State,
    Step,
    Thing,
)

ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "restored"], "default": "present"},
    "things": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "kind": {"type": "str", "choices": list(_machine_part.WANTED), "required": True},
            "name": {"type": "str", "required": True},
            "wanted": {"type": "dict"},
        },
    },
    "exact": {"type": "bool", "default": True},
    "after": {"type": "list", "elements": "list", "default": []},
    "records": {"type": "path", "default": "/var/lib/dgx-spark-host"},
}

COMMAND_SECONDS = 300  # apt may wait for its lock, and update-grub looks at all disks


def run(argv: list[str], *, may_fail: bool = False) -> str:
    """What a command prints; PartError with its last words where it fails, unless it may."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment,
            timeout=COMMAND_SECONDS, check=False, encoding="utf-8", errors="replace",
        )  # fmt: skip
    except FileNotFoundError:
        if may_fail:
            return ""
        raise PartError(f"`{argv[0]}` is not there. Mend: Install what brings it, or turn this part off.") from None
    except subprocess.TimeoutExpired:
        raise PartError(f"`{' '.join(argv)}` does not end within {COMMAND_SECONDS} seconds.") from None
    if done.returncode and not may_fail:
        raise PartError(f"`{' '.join(argv)}` ends with {done.returncode}: {done.stdout.strip()[-500:]}")
    return done.stdout


def packages() -> dict[str, str]:
    """Installed package -> what is wanted of it, `install` or `hold`."""
    told = run(
        ["dpkg-query", "--show", "--showformat=${db:Status-Want} ${db:Status-Status} ${Package}\n"], may_fail=True
    )
    rows = [line.split() for line in told.splitlines()]
    return {row[2]: row[0] for row in rows if len(row) == 3 and row[1] == "installed"}


def areas() -> list[list[Any]]:
    """The areas of swap that are on; a kernel without swap has no such file."""
    file = Path("/proc/swaps")
    return _machine_part.swap_areas(file.read_text()) if file.exists() else []


def is_gone(step: Step) -> bool:
    """Whether what a step could not bring back is there no more: a unit, or an area of swap."""

    def told(name: str) -> str:
        return run(["systemctl", "show", "--value", f"--property={name}", step.unit], may_fail=True).strip()

    if not step.unit:
        return step.argv[0] == "swapon" and not os.path.exists(step.area)
    return told("LoadState") == "not-found" or (step.unit.endswith(".swap") and not os.path.exists(told("What")))


def look(thing: Thing) -> State:
    """A thing as it is."""
    path = Path(thing.name)
    if thing.kind == "file":
        if not os.path.lexists(path):
            return {"content": None, "mode": None}
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise PartError(f"{path} is not a regular file. Mend: Put the file itself there, not a link or a folder.")
        content = base64.b64encode(path.read_bytes()).decode()
        return {"content": content, "mode": f"{stat.S_IMODE(found.st_mode):04o}"}
    if thing.kind == "link":
        if os.path.lexists(path) and not path.is_symlink():
            raise PartError(f"{path} is not a link. Mend: Move it out of the way.")
        return {"target": os.readlink(path) if path.is_symlink() else None}
    if thing.kind == "unit":
        enabled = run(["systemctl", "is-enabled", thing.name], may_fail=True).split()
        active = run(["systemctl", "is-active", thing.name], may_fail=True).strip()
        return {
            "enabled": next((word for word in enabled if word in _machine_part.UNIT_FILE_STATES), ""),
            "active": active in ("active", "activating", "reloading"),
        }
    if thing.kind == "sysctl":
        file = Path(_machine_part.sysctl_path(thing.name))
        return {"value": " ".join(file.read_text().split()) if file.exists() else None}
    if thing.kind == "swap":
        return {"areas": areas()}
    wants = packages()
    if thing.kind == "hold":
        return {"held": wants.get(thing.name) == "hold"}
    return {"installed": thing.name in wants}


def write(path: str, content: bytes, mode: int) -> None:
    """Write a file in one step, so that no reader sees half of it; those under /proc are written as they are."""
    if path.startswith("/proc/"):
        Path(path).write_bytes(content)
        return
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=os.path.dirname(path), prefix=f".{os.path.basename(path)}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            os.fchmod(out.fileno(), mode)
            out.flush()
            os.fsync(out.fileno())
        os.replace(fresh, path)
    except BaseException:
        Path(fresh).unlink()
        raise


def perform(step: Step) -> None:
    """Do one step."""
    if step.argv:
        if not (step.area and step.is_done(areas())):
            run(list(step.argv))
    elif step.content is not None:
        write(step.path, step.content, step.mode)
    elif step.target is not None:
        os.makedirs(os.path.dirname(step.path), mode=0o755, exist_ok=True)
        fresh = f"{step.path}.dgx-spark"
        Path(fresh).unlink(missing_ok=True)
        os.symlink(step.target, fresh)
        os.replace(fresh, step.path)
    else:
        Path(step.path).unlink(missing_ok=True)


def shown(kind: str, state: State) -> str:
    """A state for a diff: a file's text, and the rest as JSON."""
    if kind == "file":
        return base64.b64decode(state["content"] or "").decode(errors="replace")
    return json.dumps(state, sort_keys=True) + "\n"


class Part:
    """One part on this node."""

    def __init__(self, module: AnsibleModule) -> None:
        """Read what is known of it."""
        self.module = module
        self.path = os.path.join(module.params["records"], f"{module.params['name']}.json")
        try:
            self.record = _machine_part.read_record(json.loads(Path(self.path).read_text()))
        except FileNotFoundError:
            self.record = Record()
        except (ValueError, KeyError, TypeError) as trouble:
            raise PartError(
                f"{self.path} is no record: {trouble!r}. Mend: Restore it from a backup, or remove it; what was there "
                f"before is not known then."
            ) from None
        self.changes: list[tuple[Thing, State, State]] = []
        self.left: list[str] = []
        self.gone: list[str] = []

    def keep(self) -> None:
        """Write the record."""
        os.makedirs(self.module.params["records"], mode=0o700, exist_ok=True)
        write(self.path, json.dumps(self.record.as_dict(), indent=1).encode(), 0o600)

    def plan_present(self) -> Record:
        """What to change, and the record with it."""
        asked = [_machine_part.thing_of(options) for options in self.module.params["things"]]
        installed = packages() if any(thing.kind == "hold" for thing in asked) else {}
        seen = [(thing, look(thing)) for thing in _machine_part.expanded(asked, installed)]
        for thing, present in seen:
            if thing.wanted is not None and _machine_part.differs(present, thing.wanted):
                self.changes.append((thing, present, thing.wanted))
        after = [[str(word) for word in argv] for argv in self.module.params["after"]]
        fresh = _machine_part.recorded(self.record, seen, after)
        if self.module.params["exact"]:
            listed = {thing.key for thing, _ in seen}
            self.plan_back([key for key in fresh.entries if key not in listed])
            fresh.entries = {key: entry for key, entry in fresh.entries.items() if key in listed}
        return fresh

    def plan_back(self, keys: list[str]) -> None:
        """What to put back of these, and what to leave, as somebody else has changed it."""
        for key in reversed(keys):
            entry = self.record.entries[key]
            present = look(entry.thing)
            back = _machine_part.to_put_back(entry, present)
            if back is None:
                self.left.append(key)
            elif _machine_part.differs(present, back):
                self.changes.append((entry.thing, present, back))

    def steps(self) -> list[Step]:
        """All that is to be done, in order, checked before the first of it."""
        made = []
        for thing, present, wanted in self.changes:
            if thing.kind == "swap" and not wanted["areas"]:
                available = Path("/proc/meminfo").read_text().partition("MemAvailable:")[2].split()[0]
                used = _machine_part.swap_in_use(Path("/proc/swaps").read_text())
                _machine_part.check_swap_off(used, int(available))
            made += _machine_part.steps(thing, present, wanted)
        return sorted(made, key=lambda step: step.turn)

    def act(self, todo: list[Step], *, back: bool = False) -> None:
        """Do it, in the order of its turns. That commands are due is noted first: the next run makes up for one that is
        interrupted.

        back: what is gone since, such as the file of an area of swap, does not keep all the rest from being put back.
        """
        if self.record.after and any(step.is_config for step in todo):
            self.record.due = True
            self.keep()
        with_files = [step for step in todo if step.turn <= 1]
        self.do(with_files, back)
        if self.record.due:
            for argv in self.record.after:
                run(list(argv))
            self.record.due = False
            self.keep()
        self.do(todo[len(with_files) :], back)

    def do(self, steps: list[Step], back: bool) -> None:
        """These steps; back: see act."""
        for step in steps:
            try:
                perform(step)
            except PartError as trouble:
                if not (back and is_gone(step)):
                    raise
                self.gone.append(str(trouble))

    def make(self) -> bool:
        """Make it as it is wanted, by a record that is complete before the first change. Returns whether it changes."""
        fresh, due = self.plan_present(), self.record.due
        todo = self.steps()
        if not self.module.check_mode:
            # What is put back now has to be known until it is.
            both = Record({**self.record.entries, **fresh.entries}, fresh.after, due)
            self.note(_machine_part.moving(both, self.changing()))
            self.act(todo)
            self.note(_machine_part.moving(Record(fresh.entries, fresh.after), ()))
        return bool(todo) or due

    def restore(self) -> bool:
        """Put back what was there before. Returns whether it changes."""
        due = self.record.due
        self.plan_back(list(self.record.entries))
        todo = self.steps()
        if not self.module.check_mode:
            if todo:
                self.note(_machine_part.moving(self.record, self.changing()))
            self.act(todo, back=True)
            Path(self.path).unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # the record of another part is in it
                os.rmdir(self.module.params["records"])
        return bool(todo) or due

    def changing(self) -> list[str]:
        """The things that change."""
        return [thing.key for thing, _, _ in self.changes]

    def note(self, record: Record) -> None:
        """Write another record, if it is another."""
        if record.as_dict() != self.record.as_dict() or not os.path.exists(self.path):
            self.record = record
            self.keep()


def work(module: AnsibleModule) -> dict[str, Any]:
    """Bring the part to its state, and tell."""
    part = Part(module)
    changed = part.make() if module.params["state"] == "present" else part.restore()
    diff = [
        {
            "before_header": thing.key,
            "after_header": thing.key,
            "before": shown(thing.kind, before),
            "after": shown(thing.kind, after),
        }
        for thing, before, after in part.changes
    ]
    told = {"things": part.changing(), "left": part.left, "gone": part.gone}
    return {"changed": changed, **told, "diff": diff}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        result = work(module)
    except PartError as trouble:
        module.fail_json(msg=f"{module.params['name']}: {trouble}")
    except OSError as trouble:
        module.fail_json(msg=f"{module.params['name']}: {trouble.filename or 'a file'}: {trouble.strerror or trouble}.")
    if result["left"]:
        module.warn(
            f"{module.params['name']}: changed by somebody else since, and left alone: {', '.join(result['left'])}"
        )
    for told in result["gone"]:
        module.warn(f"{module.params['name']}: was there before, and can't be brought back: {told}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
