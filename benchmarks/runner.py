"""Runs a playbook through ansible-runner and counts what its events tell."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


class RunFailedError(Exception):
    """A playbook did not end well; the text holds the end of its output."""


@dataclass
class Run:
    """What one run of a playbook did.

    seconds: wall time. tasks: tasks started. results: task results of all hosts. changed: how many
    of them were a change. host_seconds: time in tasks, by host. task_seconds: longest time on any
    host, by task name. outputs: what commands printed, by task name and host.
    """

    seconds: float = 0.0
    tasks: int = 0
    results: int = 0
    changed: int = 0
    host_seconds: dict[str, float] = field(default_factory=dict)
    task_seconds: dict[str, float] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)

    def count(self, event: Mapping[str, Any]) -> None:
        """Take one event of ansible-runner into account."""
        kind = event.get("event")
        data = event.get("event_data") or {}
        if kind == "playbook_on_task_start":
            self.tasks += 1
        if kind not in ("runner_on_ok", "runner_on_failed"):
            return
        host, seconds, result = (
            data["host"],
            float(data.get("duration") or 0),
            data.get("res") or {},
        )
        self.results += 1
        self.changed += bool(result.get("changed"))
        self.host_seconds[host] = self.host_seconds.get(host, 0.0) + seconds
        task = data["task"]
        self.task_seconds[task] = max(self.task_seconds.get(task, 0.0), seconds)
        if result.get("stdout"):
            self.outputs.setdefault(task, {})[host] = str(result["stdout"])


def play(
    playbook: Path,
    inventory: Path,
    environment: Mapping[str, str] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> Run:
    """Run `playbook` with the checkout's ansible.cfg, and `environment` over it; returns counts.

    Raises RunFailedError with the last lines of the output when the playbook fails.
    """
    # Here and not above: a cold demo makes the environment that this comes from anew.
    import ansible_runner

    run = Run()
    # It keeps these for itself, also when it is done.
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with tempfile.TemporaryDirectory(prefix="bring-up-") as folder:
        start = time.monotonic()
        done = ansible_runner.run(
            private_data_dir=folder,
            project_dir=str(ROOT),
            playbook=str(playbook),
            inventory=str(inventory),
            envvars={
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                **(environment or {}),
            },
            extravars=dict(variables or {}),
            event_handler=run.count,
            quiet=True,
        )
        run.seconds = time.monotonic() - start
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if done.rc != 0:
            lines = done.stdout.read().splitlines()
            raise RunFailedError(f"{playbook.name} ended with {done.rc}:\n" + "\n".join(lines[-30:]))
    return run
