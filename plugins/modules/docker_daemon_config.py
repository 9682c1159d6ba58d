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
  - Does not restart Docker, but tells whether it runs since before the file was written, so that a restart that was
    missed can be made up for.
options:
  path:
    description: The configuration file. Its directory is made if it is missing.
    type: path
    default: /etc/docker/daemon.json
  settings:
    description: The settings to lay over those in the file.
    type: dict
    required: true
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
  description: All settings of the file after the merge.
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

import os
import tempfile

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


def write(module: AnsibleModule, path: str, text: str, present: bool) -> dict[str, str]:
    """Put the text in place of the file in one step, after a copy of the old one."""
    backup = {"backup_file": module.backup_local(path)} if present else {}
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(fresh, MODE)
    module.atomic_move(fresh, path)
    os.chmod(path, MODE)
    return backup


def stale(module: AnsibleModule, path: str, unit: str) -> bool:
    """Whether the unit was started before the file was written."""
    if not os.path.exists(path):
        return False
    show = ["systemctl", "show", "--timestamp=unix", "--property=ActiveState,ActiveEnterTimestamp", unit]
    _, shown, _ = module.run_command(show, handle_exceptions=False)
    return _docker_daemon.is_stale(shown, os.path.getmtime(path))


def main() -> None:
    """Read, merge, compare, write."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/docker/daemon.json"},
            "settings": {"type": "dict", "required": True},
            "unit": {"type": "str", "default": "docker.service"},
        },
        supports_check_mode=True,
    )
    path = os.path.abspath(module.params["path"])
    try:
        before, present = read(path)
        current = _docker_daemon.parse(before, path)
    except _docker_daemon.BadConfigError as trouble:
        module.fail_json(path=path, msg=str(trouble))
    except OSError as trouble:
        module.fail_json(path=path, msg=f"{path} can't be read: {trouble.strerror}.")
    settings = _docker_daemon.merge(current, module.params["settings"])
    changed = not present or not _docker_daemon.same(current, settings)
    result = {"changed": changed, "path": path, "settings": settings}
    if changed:
        after = _docker_daemon.rendered(settings)
        if module._diff:
            result["diff"] = {
                "before": before,
                "after": after,
                "before_header": path if present else "/dev/null",
                "after_header": path,
            }
        if not module.check_mode:
            try:
                result.update(write(module, path, after, present))
            except OSError as trouble:
                module.fail_json(path=path, msg=f"{path} can't be written: {trouble.strerror}.")
    module.exit_json(**result, stale=stale(module, path, module.params["unit"]))


if __name__ == "__main__":
    main()
