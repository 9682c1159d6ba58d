#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""How the machine is, as far as the role host has to know."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_info
short_description: Tell how a node is set up as a machine
version_added: 0.1.0
description:
  - Tells the kernel's command line, whether a desktop runs, what turns swap on, systemd's limit of locked memory, who
    sets the clock, and who would guard the memory beside the role C(memory_guard).
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
- name: See how the node is set up
  dgx_spark.sglang.host_info:
  register: seen
"""

RETURN = r"""
cmdline:
  description: The words of the kernel's command line.
  returned: success
  type: list
  elements: str
desktop:
  description: Whether a display manager runs.
  returned: success
  type: bool
memlock:
  description: The limit of locked memory that systemd gives its services, in bytes, or V(infinity).
  returned: success
  type: str
  sample: "8388608"
swap_makers:
  description: The services that turn swap on by themselves, and run or are enabled.
  returned: success
  type: list
  elements: str
  sample: [zramswap.service]
swap_units:
  description: The units by which systemd may turn swap on, and for each whether its file is where a mask would be.
  returned: success
  type: dict
  sample: {swap.img.swap: false}
chrony_sources:
  description: Whether chrony reads servers from the folder of Debian's configuration.
  returned: success
  type: bool
time_daemons:
  description: The services that set the clock.
  returned: success
  type: list
  elements: str
  sample: [systemd-timesyncd.service]
guarded:
  description: Whether the role C(memory_guard) has set up earlyoom.
  returned: success
  type: bool
masked:
  description: Whether earlyoom's unit is masked.
  returned: success
  type: bool
oom_rivals:
  description: What overrides earlyoom's unit by hand (C(files)), and what else guards the memory (C(units)).
  returned: success
  type: dict
oomd_slices:
  description: The slices above Docker's containers for which systemd-oomd kills.
  returned: success
  type: list
  elements: str
"""

import glob
import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _host


def text_of(path: str | Path) -> str:
    """The text of a file, "" where it can't be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def main() -> None:
    """Ask systemd and /proc."""
    module = AnsibleModule(argument_spec={}, supports_check_mode=True)

    def show(properties: str, *units: str) -> list[dict[str, str]]:
        _, told, _ = module.run_command(["systemctl", "show", "--all", f"--property={properties}", "--", *units])
        return _host.blocks(told)

    def active(units: tuple[str, ...]) -> list[str]:
        # Id may be that of another unit, which this name is an alias of.
        found = [one["Id"] for one in show("Id,ActiveState", *units) if one.get("ActiveState") == "active"]
        return list(dict.fromkeys(found))

    _, told, _ = module.run_command(["systemctl", "show", "--property=DefaultLimitMEMLOCK"])
    manager = (_host.blocks(told) or [{}])[0]
    overrides = [path for pattern in _host.EARLYOOM_OVERRIDES for path in sorted(glob.glob(pattern))]
    # A link to /dev/null masks the unit.
    texts = {path: text_of(path) for path in overrides if not os.path.islink(path)}
    processes = [path.parent for path in Path("/proc").glob("[0-9]*/comm") if text_of(path).strip() == "earlyoom"]
    running = [_host.unit_of(text_of(folder / "cgroup")) for folder in processes]
    chrony = [path for pattern in _host.CHRONY_CONFIG for path in sorted(glob.glob(pattern))]
    slices = zip(_host.GUARDED_SLICES, show("ManagedOOMSwap,ManagedOOMMemoryPressure", *_host.GUARDED_SLICES))
    module.exit_json(
        changed=False,
        cmdline=text_of("/proc/cmdline").split(),
        desktop=bool(active(("display-manager.service",))),
        memlock=manager.get("DefaultLimitMEMLOCK", ""),
        swap_makers=[
            one["Id"]
            for one in show("Id,ActiveState,UnitFileState", *_host.SWAP_MAKERS)
            if one.get("ActiveState") == "active" or one.get("UnitFileState") == "enabled"
        ],
        swap_units=_host.swap_units(show("Id,LoadState,UnitFileState,FragmentPath", "*.swap")),
        chrony_sources=any(_host.reads_sources(text_of(path)) for path in chrony),
        time_daemons=active(_host.TIME_DAEMONS),
        masked=os.path.islink(_host.EARLYOOM_OVERRIDES[0]),
        guarded=_host.GUARD_MARK in text_of(_host.EARLYOOM_FILE),
        oom_rivals=_host.oom_rivals(texts, running, active(_host.RIVALS)),
        oomd_slices=[name for name, found in slices if "kill" in found.values()],
    )


if __name__ == "__main__":
    main()
