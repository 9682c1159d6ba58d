"""What tests do with a lab as its operator would: playbooks, ssh, and the endpoint."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
API = "http://198.18.0.11:30000"
NODES = [f"spark-{number}" for number in range(4)]


INVENTORY = ROOT / "inventory/sim4"
SSH_CONFIG = ROOT / ".lab/ssh_config"


def command(playbook: str, *arguments: str, inventory: Path = INVENTORY) -> list[str]:
    """The words of ansible-playbook for a playbook of the checkout."""
    return ["ansible-playbook", "-i", str(inventory), str(ROOT / playbook), *arguments]


def environment() -> dict[str, str]:
    """Without molecule's colours, and wide enough for a table whose cells are not broken."""
    return {
        **os.environ,
        "COLUMNS": "200",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_FORCE_COLOR": "0",
    }


def run(*words: str, code: int = 0, seconds: float = 600) -> str:
    """Run a command in the checkout to its end; returns its output."""
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env=environment(), timeout=seconds, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode == code, output
    return output


def play(playbook: str, *arguments: str, code: int = 0, inventory: Path = INVENTORY, seconds: float = 600) -> str:
    """Run a playbook to its end; returns its output."""
    return run(*command(playbook, *arguments, inventory=inventory), code=code, seconds=seconds)


def changes(output: str) -> list[int]:
    """How many changes there were on each node."""
    recap = output.partition("PLAY RECAP")[2]
    return [int(number) for number in re.findall(r"^spark-.* changed=(\d+)", recap, flags=re.MULTILINE)]


def until(what: str, true: Callable[[], bool], seconds: float) -> None:
    """Wait for a condition; fail with its name."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.5)


def on(node: str, script: str, ssh_config: Path = SSH_CONFIG) -> str:
    """Run a line of shell on a node; returns what it printed."""
    ssh = ["ssh", "-F", str(ssh_config), node, script]
    return subprocess.run(ssh, capture_output=True, text=True, timeout=60, check=False).stdout.strip()


def on_all(script: str) -> list[str]:
    """The same on every node, in rank order."""
    return [on(node, script) for node in NODES]


def flags(**values: Any) -> list[str]:
    """Arguments of a playbook that set flags of the server."""
    named = {name.replace("_", "-"): value for name, value in values.items()}
    return ["-e", json.dumps({"cluster_flags": named})]


def serves() -> bool:
    """Whether rank 0 is healthy."""
    try:
        with urllib.request.urlopen(f"{API}/health", timeout=60) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def server_info() -> dict[str, Any]:
    """What the server says of its own settings."""
    with urllib.request.urlopen(f"{API}/get_server_info", timeout=60) as answer:
        info: dict[str, Any] = json.load(answer)
    return info


def asked(path: str, question: Any) -> dict[str, Any]:
    """What the server answers to a POST of JSON."""
    body = json.dumps(question).encode()
    request = urllib.request.Request(API + path, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        told: dict[str, Any] = json.load(answer)
    return told
