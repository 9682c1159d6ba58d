#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Merges settings into Docker's daemon.json."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_daemon_config
short_description: Merge settings into Docker's daemon.json
version_added: 0.1.0
description:
  - Lays settings over those in Docker's configuration file and keeps every key that is there.
  - Dicts are merged key by key, lists are united in order without duplicates, all else is replaced.
  - Leaves a file alone that says the same already, whatever its layout.
  - What was there before the first change is recorded. V(restored) puts it back, byte for byte unless somebody else has
    changed the file since; their changes stay.
  - Does not restart Docker, but tells whether it runs since before the file was written, so that a restart that was
    missed can be made up for.
options:
  path:
    description: The configuration file. Its directory is made if it is missing.
    type: path
    default: /etc/docker/daemon.json
  state:
    description: V(merged) merges settings, V(restored) takes out what was merged.
    type: str
    choices: [merged, restored]
    default: merged
  settings:
    description: The settings to lay over those in the file.
    type: dict
    default: {}
  defaults:
    description:
      - Settings for what the file says nothing of; what it says stays.
      - C(log-opts) are left out where the file names a log driver that would not take them.
    type: dict
    default: {}
  record:
    description: Where it is noted what was there before.
    type: path
    default: /var/lib/dgx-spark-host/docker_daemon.json
  unit:
    description: Docker's systemd unit.
    type: str
    default: docker.service
attributes:
  check_mode:
    description: Says whether it would change the file.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Let Docker trust the registry of the cluster
  dgx_spark.sglang.docker_daemon_config:
    settings:
      insecure-registries: ["198.51.100.2:5000"]
  register: docker_config
"""

RETURN = r"""
path:
  description: The file.
  returned: always
  type: str
  sample: /etc/docker/daemon.json
settings:
  description: All settings of the file after the merge, with stars in place of passwords in addresses.
  returned: success
  type: dict
stale:
  description: Whether Docker runs with an older configuration than the file's.
  returned: success
  type: bool
backup_file:
  description: A byte-exact copy of the file as it was.
  returned: when an existing file was changed
  type: str
  sample: /etc/docker/daemon.json.4242.2026-11-23@12:31:58~
"""

import contextlib
import json
import os
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _docker_daemon

MODE = 0o644


def read(path: str) -> tuple[str, bool]:
    """The file's text and whether it is there; BadConfigError when its bytes aren't text."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8"), True
    except FileNotFoundError:
        return "", False
    except UnicodeDecodeError as trouble:
        raise _docker_daemon.BadConfigError(
            f"{path} is not UTF-8 text: byte {trouble.start} can't be read. It was left as it is. "
            "Mend: save it as UTF-8."
        ) from None


def hide(module: AnsibleModule, settings: Any) -> None:
    """Show no password of these settings: in no diff, nor setting, nor error, nor among what the module was told."""
    for password in _docker_daemon.passwords(settings):
        written = json.dumps(password)[1:-1], json.dumps(password, ensure_ascii=False)[1:-1]
        module.no_log_values.update({password, *written})


def write(module: AnsibleModule, path: str, text: str, present: bool) -> dict[str, str]:
    """Put the text in place of the file in one step, after a copy of the old one."""
    backup = {"backup_file": module.backup_local(path)} if present else {}
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    # It may hold the password of a proxy, and be closed to others for that.
    mode = os.stat(path).st_mode & 0o777 if present else MODE
    os.chmod(fresh, mode)
    module.atomic_move(fresh, path)
    os.chmod(path, mode)
    return backup


def read_record(path: str) -> dict[str, Any] | None:
    """What is noted of the file: {former: its text, None for none; made: the settings}; None where nothing is."""
    try:
        with open(path, encoding="utf-8") as file:
            noted: dict[str, Any] = json.load(file)
            return noted
    except FileNotFoundError:
        return None


def note(module: AnsibleModule, path: str, former: str | None, made: dict[str, Any]) -> None:
    """Note what was there before, and what is made of it."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"former": former, "made": made}, file)
    module.atomic_move(fresh, path)


def former_text(noted: dict[str, Any] | None, before: str, present: bool, path: str) -> str | None:
    """The text without anything of ours, None for no file."""
    if noted is None:
        return before if present else None
    former = _docker_daemon.parse(noted["former"] or "", path)
    back = _docker_daemon.undone(former, noted["made"], _docker_daemon.parse(before, path))
    if _docker_daemon.same(back, former):
        text: str | None = noted["former"]
        return text
    return _docker_daemon.rendered(back)


def stale(module: AnsibleModule, path: str, unit: str) -> bool:
    """Whether the unit was started before the file was written."""
    if not os.path.exists(path):
        return False
    show = ["systemctl", "show", "--timestamp=unix", "--property=ActiveState,ActiveEnterTimestamp", unit]
    _, shown, _ = module.run_command(show, handle_exceptions=False)
    return _docker_daemon.is_stale(shown, os.path.getmtime(path))


def work(module: AnsibleModule, path: str) -> dict[str, Any]:
    """Read, work out the new text, and write it. BadConfigError or OSError where that can't be."""
    record, merging = module.params["record"], module.params["state"] == "merged"
    before, present = read(path)
    module.no_log_values.update(_docker_daemon.written_passwords(before))
    current = _docker_daemon.parse(before, path)
    hide(module, current)
    noted = read_record(record)
    # Ours is taken out, so that what somebody has changed since the record was made becomes what was there before.
    former = former_text(noted, before, present, path)
    # And so that a setting that is no longer asked for goes, as does a default that no longer fits.
    base = _docker_daemon.parse(former or "", path)
    hide(module, base)
    settings = _docker_daemon.with_defaults(
        _docker_daemon.merge(base, module.params["settings"]), module.params["defaults"]
    )
    after: str | None = _docker_daemon.rendered(settings)
    if not merging:
        after, settings = former, _docker_daemon.parse(former or "", path)
    changed = present != (after is not None) or not _docker_daemon.same(current, settings)
    result: dict[str, Any] = {"changed": changed, "path": path, "settings": settings}
    if changed and module._diff:
        result["diff"] = {
            "before": before,
            "after": after or "",
            "before_header": path if present else "/dev/null",
            "after_header": path if after is not None else "/dev/null",
        }
    if module.check_mode:
        return result
    if changed:
        if merging:
            note(module, record, former, settings)
        if after is None:
            os.remove(path)
        else:
            result.update(write(module, path, after, present))
    if not merging and noted:
        os.remove(record)
        with contextlib.suppress(OSError):  # other records are in it
            os.rmdir(os.path.dirname(record))
    return result


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "state": {"type": "str", "choices": ["merged", "restored"], "default": "merged"},
            "settings": {"type": "dict", "default": {}},
            "defaults": {"type": "dict", "default": {}},
            "record": {"type": "path", "default": "/var/lib/dgx-spark-host/docker_daemon.json"},
            "unit": {"type": "str", "default": "docker.service"},
        },
        supports_check_mode=True,
    )
    path = os.path.abspath(module.params["path"])
    hide(module, [module.params["settings"], module.params["defaults"]])
    try:
        result = work(module, path)
    except _docker_daemon.BadConfigError as trouble:
        module.fail_json(path=path, msg=str(trouble))
    except OSError as trouble:
        name = trouble.filename or path
        module.fail_json(path=path, msg=f"{name} can't be read or written: {trouble.strerror}.")
    # Without a file there is nothing that says when it changed; whoever took it away restarts Docker.
    module.exit_json(**result, stale=stale(module, path, module.params["unit"]))


if __name__ == "__main__":
    main()
