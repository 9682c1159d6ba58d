#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Says which release ranks are started with."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_switch
short_description: Say which release a rank is started with
version_added: 0.1.0
description:
  - Tries a release, keeps it for good, or gives the trial up. A rank that runs is left alone; what counts is its next
    start.
  - A trial does not outlive a boot, so that a node that a bad release brings down comes back with the one before.
options:
  state:
    description:
      - V(tried) - starts take O(release) until it is kept or given up. Without a release in use, it is kept at once.
      - V(kept) - starts take O(release) for good.
      - V(dropped) - starts take O(release) for good if it is given, else what was kept last.
    type: str
    required: true
    choices: [tried, kept, dropped]
  release:
    description: The id of a release on this node.
    type: str
  served:
    description: With O(state=kept), whether a group has just proved to serve with it.
    type: bool
    default: false
  keep:
    description: With O(state=kept), how many releases stay on the node, 2 or more; older ones are removed.
    type: int
    default: 5
attributes:
  check_mode:
    description: Says whether it would change anything.
    support: full
  diff_mode:
    description: Shows what would be started with before and after.
    support: full
author:
  - the dgx_spark.sglang contributors
"""

EXAMPLES = r"""
- name: Try a release
  dgx_spark.sglang.release_switch:
    release: 0123456789ab
    state: tried
"""

RETURN = r"""
before:
  description: The id of the release that a start took before; none if there was none.
  returned: success
  type: str
used:
  description: The id of the release that a start takes now; none if there is none.
  returned: success
  type: str
images:
  description: Baked images of releases that were too many and are gone now.
  returned: success
  type: list
  elements: str
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _release


def switch(store: _release.Store, params: dict[str, Any]) -> list[str]:
    """Do what is asked for; returns the images that are of no use any more."""
    if params["state"] == "tried":
        store.attempt(params["release"])
    elif params["state"] == "kept":
        store.keep(params["release"], params["served"])
        return store.prune(params["keep"])
    else:
        store.give_up(params["release"])
    return []


def wanted(store: _release.Store, params: dict[str, Any]) -> bool:
    """Whether anything is to be done."""
    release = params["release"]
    if params["state"] == "dropped":
        return store.trial() is not None or (store.whole(release or "") and release != store.current())
    if params["state"] == "tried":
        return bool(release != store.used())
    if release != store.current() or store.trial():
        return True
    unseen = params["served"] and store.whole(release) and not store.find(release).served
    return bool(unseen or store.surplus(params["keep"]))


def main() -> None:
    """Switch."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "required": True, "choices": ["tried", "kept", "dropped"]},
            "release": {"type": "str"},
            "served": {"type": "bool", "default": False},
            "keep": {"type": "int", "default": 5},
        },
        required_if=[("state", "tried", ["release"]), ("state", "kept", ["release"])],
        supports_check_mode=True,
    )
    if module.params["keep"] < 2:
        module.fail_json(msg="keep must be 2 or more: the release in use, and one to go back to.")
    store = _release.Store()
    before = store.used()
    try:
        changed = wanted(store, module.params)
        images = switch(store, module.params) if changed and not module.check_mode else []
    except _release.ReleaseError as trouble:
        module.fail_json(msg=str(trouble))
    except OSError as trouble:
        module.fail_json(msg=f"The release can't be switched: {trouble}.")
    after = store.used()
    if module.check_mode:
        after = module.params["release"] or store.current()
    result: dict[str, Any] = {
        "changed": changed,
        "before": before,
        "used": after,
        "images": images,
    }
    if module._diff and before != after:
        result["diff"] = {"before": f"{before or 'none'}\n", "after": f"{after or 'none'}\n"}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
