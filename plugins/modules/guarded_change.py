#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A change of files that the node takes back by itself unless the controller confirms it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: guarded_change
short_description: Change files of a network or a firewall without locking anyone out
version_added: 0.1.0
description:
  - Writes files and applies them, such that the node goes back by itself unless it is confirmed over a new ssh
    connection in time. Where the change closes that way, or a command fails, the files are put back byte for byte.
  - Before anything is changed the new files are tried out on a copy (O(check)), what is there is kept as a backup, and
    a timer of systemd is armed. A node that is restarted with an unconfirmed change puts it back before its network
    starts.
  - What was there before is kept under C(/var/lib/dgx-spark-guard), the newest five backups and the first, which holds
    every file that was ever changed.
options:
  name:
    description: What is changed. There is one unconfirmed change of a name at a time.
    type: str
    required: true
  files:
    description: The files as they are wanted. Only what differs is a change. Not with O(backup).
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: The file.
        type: path
        required: true
      content:
        description: What is in it.
        type: str
      content_base64:
        description: What is in it, in Base64, for files that need not be text.
        type: str
      mode:
        description: Its permission bits, in octal. It belongs to root.
        type: str
        default: "0644"
      state:
        description: V(absent) removes it.
        type: str
        choices: [present, absent]
        default: present
  backup:
    description:
      - A backup whose files are put back, instead of O(files). V(newest) is what was there before the last change,
        V(first) what was there before the first of all; else an id.
    type: str
  stage:
    description: Folders of the node that the copy for O(check) holds, beside the new files.
    type: list
    elements: path
    default: []
  check:
    description: Commands that say whether the new files are right. C({root}) is the folder of the copy.
    type: list
    elements: list
    default: []
  apply:
    description:
      - Commands that apply the files, also after they are put back. The first that fails ends the change.
      - Required to change anything.
    type: list
    elements: list
  boot:
    description: Commands that run where the files are put back at boot, before the network starts.
    type: list
    elements: list
    default: []
  force:
    description: Apply though all files are right, because what runs is not what they say.
    type: bool
    default: false
  seconds:
    description: How long the node waits for the confirmation.
    type: int
    default: 60
  step:
    description:
      - What to do. V(change) begins a change; the action goes on with V(wait), until it is applied, and with
        V(confirm).
      - V(settle) puts back what a run that was interrupted has left unconfirmed, before anyone looks at the files. A
        check run waits instead until the node has done so by itself.
    type: str
    choices: [change, wait, confirm, settle]
    default: change
  change_id:
    description: Which change to wait for or to confirm, by the id of its backup.
    type: str
attributes:
  action:
    description: Has an action part on the controller, which connects anew and confirms.
    support: full
  check_mode:
    description: Tries the files out on a copy and changes nothing.
    support: full
  diff_mode:
    description: Shows the difference of each file.
    support: full
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Give the fabric its addresses
  dgx_spark.sglang.guarded_change:
    name: fabric
    files:
      - path: /etc/netplan/40-cx7.yaml
        content: "{{ fabric_text }}"
        mode: "0600"
    stage: [/etc/netplan]
    check: [[netplan, generate, --root-dir, "{root}"]]
    apply: [[netplan, apply]]
    boot: [[netplan, generate]]

- name: Put back what was there before
  dgx_spark.sglang.guarded_change:
    name: fabric
    backup: newest
    apply: [[netplan, apply]]
"""

RETURN = r"""
backup:
  description: The id of the backup of what was there before.
  returned: changed
  type: str
  sample: 20261123T224501.123Z
paths:
  description: The files that differed.
  returned: always
  type: list
  elements: str
  sample: [/etc/netplan/40-cx7.yaml]
"""

import base64
import inspect
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _guard

SETTLE_SECONDS = 60
"""How long the node may take to put the files back, after its time for a confirmation is up."""

ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "path": {"type": "path", "required": True},
            "content": {"type": "str"},
            "content_base64": {"type": "str"},
            "mode": {"type": "str", "default": "0644"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
    },
    "backup": {"type": "str"},
    "stage": {"type": "list", "elements": "path", "default": []},
    "check": {"type": "list", "elements": "list", "default": []},
    "apply": {"type": "list", "elements": "list"},
    "boot": {"type": "list", "elements": "list", "default": []},
    "force": {"type": "bool", "default": False},
    "seconds": {"type": "int", "default": 60},
    "step": {"type": "str", "choices": ["change", "wait", "confirm", "settle"], "default": "change"},
    "change_id": {"type": "str"},
}


def wanted(options: dict[str, Any]) -> _guard.File:
    """The file that the options describe."""
    content = None
    if options["state"] == "present":
        encoded = options["content_base64"]
        content = (options["content"] or "").encode() if encoded is None else base64.b64decode(encoded)
    return _guard.File(options["path"], content, int(options["mode"], 8))


def diff(pairs: list[tuple[_guard.File, _guard.File]]) -> list[dict[str, str]]:
    """What Ansible shows of the files."""
    return [
        {
            "before_header": f"{before.path} {before.mode:04o}" if before.content is not None else "(absent)",
            "after_header": f"{after.path} {after.mode:04o}" if after.content is not None else "(absent)",
            "before": (before.content or b"").decode(errors="replace"),
            "after": (after.content or b"").decode(errors="replace"),
        }
        for before, after in pairs
    ]


def settle(module: AnsibleModule, guard: _guard.Guard) -> bool:
    """Take back what is pending of a run that was interrupted: its files are not those to compare with."""
    if not module.check_mode:
        return guard.restore("an earlier run was interrupted before it was confirmed")
    if not guard.until_settled(module.params["seconds"] + SETTLE_SECONDS):
        raise _guard.GuardError(
            f"A change of the {guard.name} has been pending for long; nothing was changed. "
            f"Mend: See why the node did not take it back: journalctl -u 'dgx-spark-guard*'."
        )
    return False


def change(module: AnsibleModule) -> dict[str, Any]:
    """Compare, try out, and begin the change unless this is a check run."""
    options = module.params
    guard = _guard.Guard(options["name"])
    settled = settle(module, guard)
    files = guard.files_of(options["backup"]) if options["backup"] else [wanted(file) for file in options["files"]]
    pairs = _guard.differing(files)
    result: dict[str, Any] = {
        "changed": bool(pairs) or options["force"] or settled,
        "paths": [file.path for _, file in pairs],
        "diff": diff(pairs),
    }
    if pairs:
        _guard.try_out(files, options["stage"], options["check"])
    if (pairs or options["force"]) and not module.check_mode:
        _guard.install(inspect.getsource(_guard))
        steps = {key: options[key] for key in ("apply", "boot", "seconds")}
        result["backup"] = guard.begin(files, **steps)
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        mutually_exclusive=[("files", "backup")],
        required_if=[
            ("step", "change", ["apply"]),
            ("step", "wait", ["change_id"]),
            ("step", "confirm", ["change_id"]),
        ],
    )
    options = module.params
    guard, change_id = _guard.Guard(options["name"]), options["change_id"]
    try:
        if options["step"] == "wait":
            module.exit_json(changed=False, applied=guard.wait(change_id, options["seconds"]))
        if options["step"] == "confirm":
            why = guard.confirm(change_id)
            module.exit_json(changed=False, kept=why is None, why=why)
        if options["step"] == "settle":
            module.exit_json(changed=settle(module, guard))
        module.exit_json(**change(module))
    except _guard.GuardError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        mend = (
            "See to that file and its disk (df, mount), and run again; what had begun is put back by the node itself."
        )
        module.fail_json(msg=f"{error.filename or 'A file'}: {error.strerror or error}. Mend: {mend}")


if __name__ == "__main__":
    main()
