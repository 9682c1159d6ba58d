#!/usr/bin/python
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The state of the rank on this node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rank_info
short_description: Tell what the SGLang rank on a node is doing
version_added: 0.1.0
description:
  - Reads the systemd unit, the container, the rank's C(/health) and the log of the unit's current
    start, and says in one word what the rank is doing.
  - Changes nothing. Works while the rank starts, serves, fails or is not installed.
options:
  unit:
    description: Name of the systemd unit.
    type: str
    default: sglang-rank.service
  container:
    description: Name of the rank's container.
    type: str
    default: sglang-rank
  state_dir:
    description: Where the unit's supervisor notes what it does.
    type: path
    default: /run/sglang-rank
  health_url:
    description: URL of the rank's C(/health). Not asked when left out.
    type: str
  health_timeout:
    description:
      - Seconds to wait for the answer of O(health_url).
      - A server whose peer is frozen answers 503 after 20 seconds, so shorter waits see no answer.
    type: float
    default: 25
  log_lines:
    description:
      - How many lines of the journal are looked at, both from the beginning of the current start
        and from the end of the log.
    type: int
    default: 400
  moe_configs:
    description: Whether to search the whole log of the current start for the MoE kernel configs that the server took.
    type: bool
    default: false
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
- name: Look at the rank of every node
  dgx_spark.sglang.rank_info:
    health_url: "http://198.51.100.12:30000/health"
  register: rank

- name: Show what it is doing
  ansible.builtin.debug:
    msg: "{{ rank.phase }} {{ rank.phase_detail }}"
"""

RETURN = r"""
installed:
  description: Whether systemd knows the unit.
  returned: always
  type: bool
enabled:
  description: Whether the unit starts at boot.
  returned: always
  type: bool
active_state:
  description: systemd's ActiveState, V(unknown) without a unit.
  returned: always
  type: str
  sample: active
sub_state:
  description: systemd's SubState.
  returned: always
  type: str
  sample: running
result:
  description: systemd's Result of the last start.
  returned: always
  type: str
  sample: success
exec_main_status:
  description: Exit status of the unit's last main process, 0 while it runs.
  returned: always
  type: int
  sample: 137
restarts:
  description: How often systemd restarted the unit since it was started by hand or at boot.
  returned: always
  type: int
  sample: 0
need_daemon_reload:
  description: Whether the unit file changed since systemd read it.
  returned: always
  type: bool
since:
  description: When the unit became active, or last changed its state if it is not active; UTC.
  returned: always
  type: str
  sample: "2026-11-23T12:31:58Z"
pid:
  description: The unit's main process, 0 for none.
  returned: always
  type: int
  sample: 4242
container:
  description: The rank's container as Docker knows it.
  returned: always
  type: dict
  contains:
    running:
      description: Whether it runs.
      type: bool
    id:
      description: Its id.
      type: str
    image:
      description: The image's name it was started with.
      type: str
    image_id:
      description: The image's id, equal on all nodes that run the same image.
      type: str
    group:
      description: The group of ranks that it belongs to (label C(dgx-spark.group)).
      type: str
    release:
      description: The release that lies over its image (label C(dgx-spark.release)).
      type: str
    started_at:
      description: When it started, UTC.
      type: str
    problem:
      description: Why Docker could not be asked, else none.
      type: str
status_text:
  description: What the unit says of itself, as C(systemctl status) shows it.
  returned: always
  type: str
  sample: "waiting for rank 2 (spark-2)"
runs:
  description: What the unit runs, or is about to run; each is none where nothing is under way.
  returned: always
  type: dict
  contains:
    group:
      description: The plan that it belongs to; empty where a process is there that does not tell.
      type: str
    release:
      description: The release.
      type: str
    epoch:
      description: The start of the whole group that it belongs to.
      type: str
last_end:
  description: The last end of the group that this node has seen since it booted, none where it has seen none.
  returned: always
  type: dict
  contains:
    epoch:
      description: Which start of the group ended.
      type: str
    first_rank:
      description: The rank that failed first.
      type: int
    host:
      description: Its host.
      type: str
    why:
      description: Why.
      type: str
    by_hand:
      description: Whether a person stopped it, so that it was no failure.
      type: bool
    at:
      description: When, by this node's clock; UTC.
      type: str
    served:
      description: Whether the group had served.
      type: bool
health:
  description: HTTP status of O(health_url), none when there was no answer or it was not asked.
  returned: always
  type: int
  sample: 200
health_error:
  description: Why there was no answer, else none.
  returned: always
  type: str
phase:
  description:
    - What the rank is doing. One of V(not installed), V(stopped), V(checking), V(waiting for the group),
      V(pulling image), V(starting container), V(starting server), V(waiting for peers), V(loading weights),
      V(allocating memory pools), V(compiling kernels), V(capturing graphs), V(starting API),
      V(warming up), V(serving), V(unhealthy), V(failing), V(stopping), V(restarting), V(failed).
  returned: always
  type: str
  sample: loading weights
phase_detail:
  description: More about the phase, may be empty.
  returned: always
  type: str
  sample: 12 of 48
model_class:
  description: Class of the model that was loaded, from the log; none before that.
  returned: always
  type: str
  sample: Glm4MoeForCausalLM
draft_model_class:
  description: Class of the draft model of speculative decoding, none without one.
  returned: always
  type: str
  sample: Glm4MoeForCausalLMNextN
tp_group:
  description: What the server logged about its group; each is none until it has.
  returned: always
  type: dict
  contains:
    size:
      description: Tensor parallel size.
      type: int
    rank:
      description: Tensor parallel rank of this node's first process.
      type: int
    nodes:
      description: Number of nodes.
      type: int
    node_rank:
      description: Rank of this node.
      type: int
moe_configs:
  description: Which MoE kernel configs the server says it took; none if O(moe_configs) is not set.
  returned: always
  type: dict
  contains:
    used:
      description: Paths in the container.
      type: list
      elements: str
    default:
      description: Whether it took default tiles for a GEMM.
      type: bool
last_lines:
  description: The last lines of the current start's log, API keys removed.
  returned: always
  type: list
  elements: str
failure:
  description: Why the current start failed, from its log; none when it did not.
  returned: always
  type: str
  sample: "argument --tool-call-parser: invalid choice: 'glm47'"
previous:
  description: The start before the current one, none when the lines looked at hold no other start.
  returned: always
  type: dict
  contains:
    failure:
      description: Why it ended, from its log; none when the log gives no reason.
      type: str
    last_lines:
      description: Its last lines.
      type: list
      elements: str
log_problem:
  description: Why the journal could not be read, else none.
  returned: always
  type: str
"""

import os
import shutil
import subprocess
import time
from itertools import islice
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _http, _rank

# Timestamps and messages in the one form that _rank reads.
LOCALE = {"LANG": "C", "LC_ALL": "C", "LANGUAGE": "C", "TZ": "UTC"}

NOTE_SECONDS = 3.0
"""So long a supervisor that was just started may take to note what it runs."""


def show_unit(module: AnsibleModule, unit: str) -> dict[str, str]:
    """The unit's properties; ends the module when systemd can't be asked."""
    command = ["systemctl", "show", unit, "--property", ",".join(_rank.PROPERTIES)]
    code, out, err = module.run_command(command, environ_update=LOCALE, handle_exceptions=False)
    if code != 0:
        module.fail_json(
            msg=f"`systemctl show {unit}` failed: {err.strip() or out.strip()}. "
            "Mend: the node must be booted with systemd, and the task needs become: true."
        )
    return _rank.properties(out)


def inspect_container(module: AnsibleModule, name: str) -> dict[str, object]:
    """The container's facts; a container or a Docker that isn't there is a result, not an error."""
    if not shutil.which("docker"):
        return _rank.no_container("the docker command is not installed")
    command = ["docker", "inspect", "--type", "container", name]
    code, out, err = module.run_command(command, environ_update=LOCALE)
    if code == 0:
        try:
            return _rank.container_facts(out)
        except ValueError as trouble:
            return _rank.no_container(str(trouble))
    absent = "no such" in err.lower()
    return _rank.no_container(None if absent else err.strip() or f"docker inspect ended {code}")


def read_note(folder: str, name: str) -> str:
    """A note of the supervisor, "" where there is none."""
    try:
        return Path(folder, name).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ""


def look(module: AnsibleModule) -> tuple[str, dict[str, object], dict[str, object], dict[str, object]]:
    """The start that the unit is in, the unit, the container, and what the unit runs, seen in one moment.

    A supervisor notes what it runs as soon as it can: one that has noted nothing yet is not taken for another plan's.
    """
    params = module.params
    deadline = time.monotonic() + NOTE_SECONDS
    while True:
        shown = show_unit(module, params["unit"])
        unit = _rank.unit_facts(shown)
        container = inspect_container(module, params["container"])
        runs = _rank.supervised(unit, container, read_note(params["state_dir"], "now.json"))
        if runs["group"] != "" or time.monotonic() > deadline:
            return shown.get("InvocationID") or "none", unit, container, runs
        time.sleep(0.2)


def read_log(module: AnsibleModule, unit: str, invocation: str, count: int) -> tuple[list[str], list[str], str | None]:
    """Lines of the current start, lines of the start before it, and why there are none.

    Where the end of the log doesn't hold them whole, the beginning of the current start is read
    too, as after days of serving only it names the model, and the end of the start before it.
    """
    journal = ["journalctl", "--quiet", "--no-pager", "--all"]
    fields = "MESSAGE,INVOCATION_ID,_SYSTEMD_INVOCATION_ID"
    tail = [*journal, f"--lines={count}", "--output=json", f"--output-fields={fields}"]
    command = [*tail, f"--unit={unit}"]
    code, out, err = module.run_command(command, environ_update=LOCALE, errors="replace")
    if code != 0:
        return [], [], err.strip() or f"journalctl ended with {code}"
    found = _rank.entries(out)
    current = _rank.messages(found, invocation)
    before = _rank.previous_invocation(found, invocation)
    previous = _rank.messages(found, before)
    if len(current) >= count:
        current = first_lines([*journal, "--output=cat", *matches(invocation)], count) + current
    elif before and len(found) >= count:
        command = [*tail, *matches(before)]
        code, out, err = module.run_command(command, environ_update=LOCALE, errors="replace")
        previous = _rank.messages(_rank.entries(out), before)
    return _rank.clean(current), _rank.clean(previous), None


def matches(invocation: str) -> list[str]:
    """journalctl's words for one start of a unit: its own lines and the manager's about it."""
    return [f"_SYSTEMD_INVOCATION_ID={invocation}", "+", f"INVOCATION_ID={invocation}"]


def first_lines(command: list[str], count: int) -> list[str]:
    """The first lines that a command writes; it is ended once they are read."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **LOCALE},
        encoding="utf-8",
        errors="replace",
    ) as process:
        lines = list(islice(process.stdout or (), count))
        process.kill()
    return lines


def moe_configs(module: AnsibleModule, invocation: str) -> dict[str, object]:
    """What the whole log of one start tells of kernel configs; after weeks of serving it may tell nothing any more."""
    journal = ["journalctl", "--quiet", "--no-pager", "--all", "--output=cat", f"--grep={_rank.MOE_CONFIG_LINES}"]
    command = [*journal, f"_SYSTEMD_INVOCATION_ID={invocation}"]
    # journalctl ends with 1 where no line matches.
    _, out, _ = module.run_command(command, environ_update=LOCALE, errors="replace")
    return _rank.moe_configs(_rank.clean(out.splitlines()))


def main() -> None:
    """Read everything, then put it together."""
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "default": "sglang-rank.service"},
            "container": {"type": "str", "default": "sglang-rank"},
            "state_dir": {"type": "path", "default": "/run/sglang-rank"},
            "health_url": {"type": "str"},
            "health_timeout": {"type": "float", "default": 25},
            "log_lines": {"type": "int", "default": 400},
            "moe_configs": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    params = module.params
    if params["log_lines"] < 1 or params["health_timeout"] <= 0:
        module.fail_json(msg="log_lines and health_timeout must be greater than 0.")
    health = _http.Answer(None, "", None)
    if params["health_url"]:
        health = _http.ask(params["health_url"], params["health_timeout"])

    try:
        invocation, unit, container, runs = look(module)
        current, previous, log_problem = read_log(module, params["unit"], invocation, params["log_lines"])
    except FileNotFoundError as trouble:
        module.fail_json(msg=f"{trouble.filename} is not installed. Mend: use a node with systemd.")
    phase, detail = _rank.overall_phase(
        unit,
        _rank.phase(current),
        health=health.status,
        health_error=health.error,
        asked=bool(params["health_url"]),
        container_runs=bool(container["running"]),
    )
    classes = [*_rank.model_classes(current), None, None]
    module.exit_json(
        changed=False,
        **unit,
        container=container,
        runs=runs,
        last_end=_rank.last_end(read_note(params["state_dir"], "last.json")),
        health=health.status,
        health_error=health.error if health.status is None else None,
        phase=phase,
        phase_detail=detail,
        model_class=classes[0],
        draft_model_class=classes[1],
        tp_group=_rank.tp_group(current),
        moe_configs=moe_configs(module, invocation) if params["moe_configs"] else None,
        last_lines=_rank.last_lines(current),
        failure=_rank.failure(current) if _rank.has_failed(unit) else None,
        previous={"failure": _rank.failure(previous), "last_lines": _rank.last_lines(previous)} if previous else None,
        log_problem=log_problem,
    )


if __name__ == "__main__":
    main()
