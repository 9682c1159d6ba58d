#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The releases that are kept on this node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_info
short_description: List the releases that are kept on a node
version_added: 0.1.0
description:
  - A release is a set of files that are mounted over those of the image, kernel configs for instance.
  - Lists those that are there whole, and says which one a rank that starts now is started with.
  - Changes nothing.
options: {}
attributes:
  check_mode:
    description: Can run in check mode and return its result; it never changes anything.
    support: full
  diff_mode:
    description: Has nothing to show, as nothing is changed.
    support: none
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Look at the releases
  dgx_spark.sglang.release_info:
  register: releases
"""

RETURN = r"""
used:
  description: The id of the release that a rank is started with; none if there is none.
  returned: always
  type: str
  sample: 0123456789ab
current:
  description: The id of the release in use for good; none if there is none.
  returned: always
  type: str
trial:
  description: The id of the release that is being tried; none if there is none.
  returned: always
  type: str
releases:
  description: All releases, the one made last first.
  returned: always
  type: list
  elements: dict
  contains:
    id:
      description: Names its content.
      type: str
    made:
      description: When it was written, UTC.
      type: str
    served:
      description: When a group first proved to serve with it after it was rolled out, UTC; none if never.
      type: str
    image:
      description: The image that it was made for.
      type: str
    image_id:
      description: The id of that image.
      type: str
    runs:
      description: The image that a start takes; another one than RV(releases[].image) if the files are baked in.
      type: str
    files:
      description: Its files, each with name, target (the path in the image) and sha256.
      type: list
      elements: dict
    mounts:
      description: What is mounted, each with source and target.
      type: list
      elements: dict
    flags:
      description: Arguments of the server that go with it.
      type: list
      elements: str
    state:
      description: V(current), V(trial) or empty.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils._release import Store, as_dict


def main() -> None:
    """Look."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)
    store = Store()
    module.exit_json(
        changed=False,
        used=store.used(),
        current=store.current(),
        trial=store.trial(),
        releases=[as_dict(release) for release in store.all()],
    )


if __name__ == "__main__":
    main()
