# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What a rank is doing, read from systemd's properties, the container and SGLang's own log lines.

The log lines are those of SGLang 0.5.4.post2; every marker below names what the server has just
begun, so the last marker in the log is where it stands.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

# The properties that `systemctl show` is asked for.
PROPERTIES = (
    "LoadState",
    "UnitFileState",
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainStatus",
    "NRestarts",
    "NeedDaemonReload",
    "ActiveEnterTimestamp",
    "StateChangeTimestamp",
    "MainPID",
    "InvocationID",
    "StatusText",
)
CONTAINER = "sglang-rank"
"""A rank's container."""
UNIT = f"{CONTAINER}.service"
GATE_CONTAINER = "dgx-spark-gate-gpu"
"""The look at the GPU that the gates of its unit take (dgx_spark_gates.py)."""
LABEL_GROUP = "dgx-spark.group"
"""The label that tells which plan a running container belongs to."""
LABEL_PLAN = "dgx-spark.plan"
"""What a rank was planned with; ranks that differ in it never form a group."""
LABEL_RELEASE = "dgx-spark.release"
"""The label that tells which release lies over the image of a running container."""
LAST_LINES = 15
LINE_LENGTH = 400

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_RANK_PREFIX = re.compile(r"^\[rank\d+\]: ?")
# As ServerArgs prints itself, as a dict of its fields (0.5.23), and as options. The supervisor takes out the very keys.
_SECRETS = re.compile(r"(api_key'?[=:] ?'|api_key=(?!None\b)|--(?:admin-)?api-key[= ])[^'\s,)]+")
# How SGLang says which kernel config file it took, from 0.5.4 to 0.5.23; names may hold a space. It says so at the
# first forward, once a file and process.
_MOE_CONFIG = re.compile(r"[Uu]s(?:ing|e) MoE kernel config from (.+?\.json)\.(?: |$)")
MOE_CONFIG_LINES = "MoE kernel config"
_MOE_DEFAULT = "Using default MoE kernel config"
_BAR = re.compile(r"(\d+)%.*?\|\s*(\d+)/(\d+)")


@dataclass(frozen=True)
class Marker:
    """A text in the log, the phase that begins with it, and a remark for people."""

    text: str
    phase: str
    detail: str = ""


# Looked up line by line; the first marker that a line contains counts.
MARKERS = (
    Marker("Unable to find image", "pulling image"),
    Marker("server_args=ServerArgs(", "starting server"),
    Marker("Init torch distributed begin", "waiting for peers", "the ranks are finding each other"),
    Marker("Init torch distributed ends", "loading weights", "all ranks have joined"),
    Marker("Load weight begin", "loading weights"),
    Marker("Loading safetensors checkpoint shards", "loading weights"),
    Marker("Multi-thread loading shards", "loading weights"),
    Marker("Load weight end", "waiting for peers", "loaded; other ranks may still be loading"),
    Marker("KV Cache is allocated", "allocating memory pools"),
    Marker("Memory pool end", "allocating memory pools", "done"),
    Marker("DeepGEMM JIT Pre-Compile", "compiling kernels"),
    Marker("Capture cuda graph begin", "capturing graphs"),
    Marker("Capture cpu graph begin", "capturing graphs"),
    Marker("Capture draft cuda graph begin", "capturing graphs", "of the draft model"),
    Marker("Capture draft extend cuda graph begin", "capturing graphs", "of the draft model"),
    Marker("Capturing batches", "capturing graphs"),
    Marker("max_total_num_tokens=", "starting API"),
    Marker("Started server process", "starting API"),
    Marker("Uvicorn running on", "warming up"),
    Marker("The server is fired up and ready to roll!", "serving"),
    Marker("Dummy health check server started", "serving", "as a rank without the API"),
    Marker("Gracefully exiting", "stopping"),
    Marker("SIGTERM received", "stopping"),
    Marker("Scheduler hit an exception", "failing"),
    Marker("Received sigquit from a child process", "failing"),
    Marker("SIGQUIT received", "failing"),
)

WAITING = "waiting for the group"
"""The phase of a supervisor that has not started its container yet; its own words say for whom."""

_AFTER_SERVING = ("serving", "stopping", "failing")

# A traceback that ends so only follows another failure.
_CONSEQUENCES = ("EOFError", "SystemExit", "KeyboardInterrupt", "Initialization failed.")
# One-line reasons, the telling ones first. The group, or the whole match, is the reason.
_REASONS = (
    re.compile(r"^\S+\.py: error: (.+)"),
    re.compile(r"^gate \S+: failed after \d+ s: (.+)"),
    re.compile(r"\S*error while attempting to bind on address .*in use", re.IGNORECASE),
    re.compile(r"^docker: (?:Error response from daemon: )?(?!Pulling)(.+)"),
    re.compile(r"^(?:\S+: )?(?:\S+: )?line \d+: .*: command not found"),
    re.compile(r"Watchdog timeout \(.*\)"),
    re.compile(r"\S+: (start operation timed out|start-pre operation timed out)", re.IGNORECASE),
    re.compile(r"\S+: (Failed with result 'oom-kill')"),
    re.compile(r"\S+: (A process of this unit has been killed by .*)"),
    re.compile(r"\S+: (Watchdog timeout)"),
    re.compile(r"(Scheduler or DataParallelController \d+ terminated with -?\d+)"),
    re.compile(r"(?:Received sigquit|SIGQUIT received).*"),
    re.compile(r"\S+: (Main process exited, code=\w+, status=\S+)"),
    re.compile(r"\S+: (Control process exited, code=\w+, status=\S+)"),
)


@dataclass(frozen=True)
class Entry:
    """One line of the journal and the invocation (one start of the unit) that it belongs to."""

    invocation: str
    message: str


def properties(text: str) -> dict[str, str]:
    """`systemctl show` output as a dict; lines without "=" are passed over."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return dict(pairs)


def iso_time(timestamp: str) -> str | None:
    """systemd's "Mon 2026-11-23 12:31:58 UTC" (asked for with TZ=UTC) as 2026-11-23T12:31:58Z."""
    found = re.search(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.\d+)? UTC", timestamp)
    return f"{found.group(1)}T{found.group(2)}Z" if found else None


def unit_facts(shown: Mapping[str, str]) -> dict[str, object]:
    """The unit's properties under the module's own names."""
    active = shown.get("ActiveState", "")
    stamp = shown.get("ActiveEnterTimestamp", "") if active == "active" else ""
    return {
        "installed": shown.get("LoadState", "not-found") not in ("not-found", ""),
        "enabled": shown.get("UnitFileState", "").startswith("enabled"),
        "active_state": active or "unknown",
        "sub_state": shown.get("SubState") or "unknown",
        "result": shown.get("Result") or "unknown",
        "exec_main_status": _number(shown.get("ExecMainStatus", "")),
        "restarts": _number(shown.get("NRestarts", "")),
        "need_daemon_reload": shown.get("NeedDaemonReload") == "yes",
        "since": iso_time(stamp or shown.get("StateChangeTimestamp", "")),
        "pid": _number(shown.get("MainPID", "")),
        "status_text": shown.get("StatusText", ""),
    }


def supervised(unit: Mapping[str, object], container: Mapping[str, object], now: str) -> dict[str, object]:
    """What the unit runs or is about to run: {group, release, epoch}, each None where nothing is under way.

    now: what the supervisor has noted about itself ("" for nothing), which counts while it lives. Before its container
    is there only this tells whether it belongs to the plan; one that has noted nothing belongs to none ("").
    """
    noted = _note(now)
    if noted and noted.get("pid") == unit["pid"]:
        return {name: noted.get(name) for name in ("group", "release", "epoch")}
    if container["running"]:
        return {"group": container["group"], "release": container["release"], "epoch": None}
    nothing = "" if unit["pid"] else None
    return {"group": nothing, "release": nothing, "epoch": None}


def last_end(last: str) -> dict[str, object] | None:
    """What the supervisor has noted about the last end of its group, None where it has not seen one."""
    noted = _note(last)
    names = ("epoch", "first_rank", "host", "why", "by_hand", "at", "served")
    return {name: noted.get(name) for name in names} if noted else None


def _note(text: str) -> dict[str, object]:
    try:
        noted = json.loads(text or "{}")
    except ValueError:  # a foreign file; the supervisor replaces its own in one step
        noted = {}
    return noted if isinstance(noted, dict) else {}


def _number(text: str) -> int:
    return int(text) if text.strip().lstrip("-").isdigit() else 0


def entries(journal: str) -> list[Entry]:
    """The lines of `journalctl -o json`, each with its invocation.

    A line cut short while the journal is being written is passed over. The manager's own lines
    carry INVOCATION_ID, the unit's carry _SYSTEMD_INVOCATION_ID; one with neither goes with the
    line before it.
    """
    found: list[Entry] = []
    for line in journal.splitlines():
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if not isinstance(fields, dict):
            continue
        invocation = fields.get("INVOCATION_ID") or fields.get("_SYSTEMD_INVOCATION_ID")
        if not isinstance(invocation, str):
            invocation = found[-1].invocation if found else ""
        found.append(Entry(invocation, _message(fields.get("MESSAGE"))))
    return found


def _message(value: object) -> str:
    """A journal field as text: journald writes what isn't plain UTF-8 as a list of byte values."""
    if isinstance(value, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in value):
        return bytes(value).decode("utf-8", "replace")
    return value if isinstance(value, str) else ""


def messages(found: Iterable[Entry], invocation: str | None) -> list[str]:
    """The messages of one invocation."""
    return [entry.message for entry in found if entry.invocation == invocation]


def previous_invocation(found: Sequence[Entry], current: str) -> str | None:
    """The newest invocation beside the current one, None when there is no other."""
    others = [entry.invocation for entry in found if entry.invocation not in (current, "")]
    return others[-1] if others else None


def clean(messages: Iterable[str]) -> list[str]:
    """Messages as single lines: progress bars cut at carriage returns, colours and keys removed."""
    lines: list[str] = []
    for message in messages:
        for line in re.split(r"[\r\n]+", _ANSI.sub("", message)):
            line = _SECRETS.sub(r"\1***", _RANK_PREFIX.sub("", line)).rstrip()
            if line:
                lines.append(line)
    return lines


def shortened(line: str, length: int = LINE_LENGTH) -> str:
    """The line, cut in its middle to at most length characters."""
    if len(line) <= length:
        return line
    half = (length - 5) // 2
    return f"{line[:half]} ... {line[-half:]}"


def last_lines(lines: Sequence[str]) -> list[str]:
    """The tail for people to read."""
    return [shortened(line) for line in lines[-LAST_LINES:]]


def phase(lines: Iterable[str]) -> tuple[str, str]:
    """The phase that the cleaned lines of one invocation end in, and a detail ("" if none)."""
    name, detail = "starting container", ""
    for line in lines:
        marker = next((marker for marker in MARKERS if marker.text in line), None)
        # Uvicorn may report its start after the server has said that it is ready.
        if marker is None or (name == "serving" and marker.phase not in _AFTER_SERVING):
            continue
        name, detail = marker.phase, marker.detail
        bar = _BAR.search(line)
        if bar:
            detail = f"{bar.group(2)} of {bar.group(3)}"
    return name, detail


def overall_phase(
    unit: Mapping[str, object],
    log: tuple[str, str],
    health: int | None,
    health_error: str | None,
    asked: bool,
    container_runs: bool,
) -> tuple[str, str]:
    """The phase of the rank: systemd's word first, then /health, then the log.

    health: the HTTP status, None when none came; asked: False when there was no health_url.
    container_runs: whether Docker says so; the server loads its libraries before its first line.
    """
    state, sub = unit["active_state"], unit["sub_state"]
    if not unit["installed"]:
        return "not installed", "systemd knows no such unit"
    if state == "failed":
        return "failed", f"result {unit['result']}"
    if state == "inactive":
        return "stopped", ""
    if sub in ("auto-restart", "auto-restart-queued"):
        return "restarting", f"{unit['restarts']} restarts so far"
    if state == "deactivating":
        return "stopping", str(sub)
    words = str(unit["status_text"])
    if sub in ("condition", "start-pre"):
        return "checking", words or "the checks before the start"
    if health == 200 and state == "active":
        return "serving", ""
    if state == "activating" and not container_runs and words:
        return WAITING, words
    if health == 200:
        return "warming up", words
    if log[0] == "serving" and asked:
        said = f"answers {health}" if health is not None else str(health_error)
        return "unhealthy", f"the log says serving, /health: {said}"
    if log[0] == "starting container" and container_runs:
        return "starting server", ""
    return log


def model_classes(lines: Iterable[str]) -> list[str]:
    """The classes of the loaded models in order: the model, then its draft model if it has one."""
    found: list[str] = []
    for line in lines:
        match = re.search(r"Load weight end\. type=(\w+)", line)
        if match and match.group(1) not in found:
            found.append(match.group(1))
    return found


def moe_configs(lines: Iterable[str]) -> dict[str, object]:
    """The kernel config files that the server took (used), and whether it took default tiles somewhere (default)."""
    used: list[str] = []
    default = False
    for line in lines:
        match = _MOE_CONFIG.search(line)
        if match and match.group(1) not in used:
            used.append(match.group(1))
        default = default or _MOE_DEFAULT in line
    return {"used": used, "default": default}


def tp_group(lines: Iterable[str]) -> dict[str, int | None]:
    """Sizes and ranks that the server logged about itself; None for what it has not said yet."""
    facts: dict[str, int | None] = {"size": None, "rank": None, "nodes": None, "node_rank": None}
    names = {"tp_size": "size", "nnodes": "nodes", "node_rank": "node_rank"}
    for line in lines:
        if "server_args=ServerArgs(" in line:
            for option, value in re.findall(r"\b(tp_size|nnodes|node_rank)=(\d+)", line):
                facts[names[option]] = int(value)
        prefix = re.match(r"\[[\d: -]+(?: DP\d+)? TP(\d+)[ \]]", line)
        if prefix and facts["rank"] is None:
            facts["rank"] = int(prefix.group(1))
    return facts


def failure(lines: Sequence[str]) -> str | None:
    """Why the invocation with these cleaned lines failed, in one line, or None if it doesn't say.

    A traceback says most; the last one counts unless it only reports that another process died.
    """
    endings = _traceback_endings(lines)
    telling = [end for end in endings if not any(word in end for word in _CONSEQUENCES)]
    if telling:
        return shortened(telling[-1])
    for pattern in _REASONS:
        for line in reversed(lines):
            match = pattern.search(line)
            if match:
                return shortened(match.group(match.lastindex or 0))
    return shortened(endings[-1]) if endings else None


def _traceback_endings(lines: Sequence[str]) -> list[str]:
    """The final line of every traceback: the first one after it begins that isn't indented."""
    endings: list[str] = []
    inside = False
    for line in lines:
        if "Traceback (most recent call last):" in line:
            inside = True
        elif inside and not line.startswith((" ", "[")):
            endings.append(line)
            inside = False
    return endings


def has_failed(unit: Mapping[str, object]) -> bool:
    """Whether the current invocation has ended badly, be it waiting for its restart or not."""
    return unit["active_state"] == "failed" or (
        unit["result"] not in ("success", "unknown") and unit["sub_state"] != "running"
    )


def container_facts(inspected: str) -> dict[str, object]:
    """The first container of `docker inspect` output; ValueError when it isn't such output."""
    documents = json.loads(inspected)
    if not isinstance(documents, list) or not documents or not isinstance(documents[0], dict):
        raise ValueError("docker inspect gave no list of containers")
    document = documents[0]
    config, state = document.get("Config") or {}, document.get("State") or {}
    labels = config.get("Labels") or {}
    started = str(state.get("StartedAt") or "")
    return {
        "running": bool(state.get("Running")),
        "id": document.get("Id"),
        "image": config.get("Image"),
        "image_id": document.get("Image"),
        "group": labels.get(LABEL_GROUP),
        "release": labels.get(LABEL_RELEASE),
        # Docker writes year 1 for a container that never started.
        "started_at": re.sub(r"\.\d+", "", started) if started > "0002" else None,
        "problem": None,
    }


def no_container(problem: str | None) -> dict[str, object]:
    """The same keys for a container that isn't there, with the reason when that is trouble."""
    keys = ("id", "image", "image_id", "group", "release", "started_at")
    return {"running": False, **dict.fromkeys(keys), "problem": problem}
