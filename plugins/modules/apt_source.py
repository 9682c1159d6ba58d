#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""An apt repository with the one key that may sign it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: Add an apt repository that only one key may sign
version_added: 0.1.0
description:
  - Writes a deb822 file of C(sources.list.d), and the key that it names with C(Signed-By). No other repository is
    trusted by this key.
  - A key whose fingerprint is not the one that is known ends the task before anything is written.
  - Does not refresh apt's lists; that is for whoever installs from it.
options:
  name:
    description: The name of both files.
    type: str
    required: true
  uri:
    description: Where the repository is. C($(ARCH)) stands for the architecture, as in sources.list(5).
    type: str
    required: true
  suite:
    description: The suite; one that ends with a slash is a path.
    type: str
    required: true
  components:
    description: The components, none for a suite that is a path.
    type: list
    elements: str
    default: []
  key:
    description: The public key, in ASCII armour.
    type: str
    required: true
  fingerprints:
    description: The fingerprints that it may have; none to take any.
    type: list
    elements: str
    default: []
  root:
    description: The folder under which C(etc/apt) lies.
    type: path
    default: /
attributes:
  check_mode:
    description: Says whether it would change a file.
    support: full
  diff_mode:
    description: Shows both files.
    support: full
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Add NVIDIA's repository
  dgx_spark.sglang.apt_source:
    name: dgx-spark-nvidia-container-toolkit
    uri: https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)
    suite: /
    key: "{{ lookup('ansible.builtin.file', 'nvidia.asc') }}"
    fingerprints: [C95B321B61E88C1809C4F759DDCAE044F796ECB0]
"""

RETURN = r"""
paths:
  description: The files that differed.
  returned: success
  type: list
  elements: str
"""

import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _apt_source

ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "uri": {"type": "str", "required": True},
    "suite": {"type": "str", "required": True},
    "components": {"type": "list", "elements": "str", "default": []},
    "key": {"type": "str", "required": True, "no_log": False},
    "fingerprints": {"type": "list", "elements": "str", "default": []},
    "root": {"type": "path", "default": "/"},
}


def write(module: AnsibleModule, path: str, text: str) -> None:
    """Put the text in place of the file in one step, readable for apt's own user."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.chmod(fresh, 0o644)
    module.atomic_move(fresh, path)


def main() -> None:
    """Check the key, compare, write."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    given = module.params
    try:
        _apt_source.check_key(given["key"], given["fingerprints"])
    except _apt_source.BadKeyError as trouble:
        module.fail_json(msg=f"{given['name']}: nothing was changed. {trouble}")
    key_path = os.path.join(given["root"], f"etc/apt/keyrings/{given['name']}.asc")
    source_path = os.path.join(given["root"], f"etc/apt/sources.list.d/{given['name']}.sources")
    text = _apt_source.source_text(given["uri"], given["suite"], given["components"], key_path)
    # The key first: a repository without its key makes every `apt-get update` fail.
    wanted = {key_path: given["key"].strip() + "\n", source_path: text}
    before = {path: Path(path).read_text() if os.path.exists(path) else "" for path in wanted}
    differing = [path for path, content in wanted.items() if before[path] != content]
    if not module.check_mode:
        try:
            for path in differing:
                write(module, path, wanted[path])
        except OSError as trouble:
            module.fail_json(msg=f"{trouble.filename or source_path} can't be written: {trouble.strerror}.")
    diff = [
        {"before": before[path], "after": wanted[path], "before_header": path, "after_header": path}
        for path in differing
    ]
    module.exit_json(changed=bool(differing), paths=differing, diff=diff)


if __name__ == "__main__":
    main()
