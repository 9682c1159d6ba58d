# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What a rank is doing, from log lines in the shape of SGLang's own; and waiting for it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _rank, _wait
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

T = "[2026-11-23 12:39:10 TP2]"
ARGS = (
    "[2026-11-23 12:39:02] server_args=ServerArgs(model_path='/models/glm', tp_size=4, pp_size=1, "
    "api_key='s3cret', dist_init_addr='198.51.100.11:50000', nnodes=4, node_rank=2, dtype='auto')"
)
DIST = f"{T} Init torch distributed begin."
JOINED = f"{T} Init torch distributed ends. mem usage=0.01 GB"
LOAD = f"{T} Load weight begin. avail mem=114.61 GB"
SHARD = "Loading safetensors checkpoint shards:  26% Completed | 12/46 [00:31<01:30,  2.60s/it]"
LOADED = f"{T} Load weight end. type=Glm4MoeForCausalLM, dtype=torch.bfloat16, avail mem=20.60 GB, mem usage=94.00 GB."
DRAFT = LOADED.replace("Glm4MoeForCausalLM", "Glm4MoeForCausalLMNextN")
CACHE = f"{T} KV Cache is allocated. #tokens: 4096, K size: 1.00 GB, V size: 1.00 GB"
POOL = f"{T} Memory pool end. avail mem=18.60 GB"
CAPTURE = f"{T} Capture cuda graph begin. This can take up to several minutes. avail mem=18.1 GB"
BATCHES = (
    "Capturing batches (bs=8 avail_mem=17.90 GB):   0%|          | 0/6 [00:00<?, ?it/s]\r"
    "Capturing batches (bs=4 avail_mem=17.80 GB):  50%|#####     | 3/6 [00:04<00:04,  1.5s/it]"
)
TOKENS = f"{T} max_total_num_tokens=4096, chunked_prefill_size=512, available_gpu_mem=17.60 GB"
UVICORN = "[2026-11-23 12:39:11] INFO:     Uvicorn running on http://0.0.0.0:30000"
READY = "[2026-11-23 12:39:11] The server is fired up and ready to roll!"
DUMMY = "[2026-11-23 12:39:11] Dummy health check server started in background thread at 198.51.100.13:30000"
ACCESS = '[2026-11-23 12:39:13] INFO:     127.0.0.1:49456 - "GET /health HTTP/1.1" 200 OK'
START = [ARGS, DIST, JOINED, LOAD, LOADED, CACHE, POOL]

TRACE = [
    f"{T} Scheduler hit an exception: Traceback (most recent call last):",
    '  File "/sgl/managers/scheduler.py", line 2801, in run_scheduler_process',
    "    scheduler = Scheduler(",
    "                ^^^^^^^^^^",
]
OUT_OF_RESOURCES = (
    "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 147456, "
    "Hardware limit: 101376. Reducing block sizes or `num_stages` may help."
)
SIGQUIT = "[2026-11-23 12:39:10] Received sigquit from a child process. It usually means the child failed."
DEAD = [
    "Traceback (most recent call last):",
    '  File "<frozen runpy>", line 198, in _run_module_as_main',
    "EOFError",
]
CHOICE = (
    "launch_server.py: error: argument --tool-call-parser: invalid choice: 'glm47' "
    "(choose from 'deepseekv3', 'glm', 'glm45')"
)
IN_USE = (
    "[2026-11-23 12:39:35] ERROR:    [Errno 98] error while attempting to bind on address "
    "('0.0.0.0', 30000): address already in use"
)
EXITED = "sglang-rank.service: Main process exited, code=exited, status=137/n/a"

PHASES: list[tuple[str, list[str], tuple[str, str]]] = [
    ("no line", [], ("starting container", "")),
    ("other lines", ["UserWarning: Only CUDA"], ("starting container", "")),
    (
        "pull",
        ["Unable to find image 'x:y' locally", "y: Pulling from x"],
        ("pulling image", ""),
    ),
    ("arguments", [ARGS], ("starting server", "")),
    ("rendezvous", [ARGS, DIST], ("waiting for peers", "the ranks are finding each other")),
    ("joined", START[:3], ("loading weights", "all ranks have joined")),
    ("loading", START[:4], ("loading weights", "")),
    ("shards", [*START[:4], SHARD], ("loading weights", "12 of 46")),
    ("loaded", START[:5], ("waiting for peers", "loaded; other ranks may still be loading")),
    ("pools", START, ("allocating memory pools", "done")),
    ("capture", [*START, CAPTURE], ("capturing graphs", "")),
    ("batches", [*START, CAPTURE, BATCHES], ("capturing graphs", "3 of 6")),
    ("draft model", [*START, CAPTURE, LOAD], ("loading weights", "")),
    ("tokens", [*START, TOKENS], ("starting API", "")),
    ("warm up", [*START, TOKENS, UVICORN], ("warming up", "")),
    ("ready", [*START, TOKENS, UVICORN, READY], ("serving", "")),
    ("ready before uvicorn", [*START, TOKENS, READY, UVICORN], ("serving", "")),
    ("other rank", [*START, DUMMY], ("serving", "as a rank without the API")),
    ("later", [*START, READY, ACCESS], ("serving", "")),
    ("exception", [*START, READY, *TRACE], ("failing", "")),
    ("signal", [*START, READY, "[x] SIGTERM received. signum=None"], ("stopping", "")),
]


@pytest.mark.parametrize(("lines", "phase"), [row[1:] for row in PHASES], ids=[row[0] for row in PHASES])
def test_phase(lines: list[str], phase: tuple[str, str]) -> None:
    """The last thing that the server began is where it stands."""
    assert _rank.phase(_rank.clean(lines)) == phase


FAILURES: list[tuple[str, list[str], str | None]] = [
    ("nothing", [*START, READY], None),
    ("traceback", [*START, *TRACE, OUT_OF_RESOURCES, "", SIGQUIT], OUT_OF_RESOURCES),
    ("follow-up", [*TRACE, "ValueError: root", SIGQUIT, *DEAD], "ValueError: root"),
    ("only follow-up", DEAD, "EOFError"),
    ("chain", [*TRACE, "OSError: a", "", "During handling", *TRACE, "KeyError: b"], "KeyError: b"),
    ("unfinished", DEAD[:2], None),
    (
        "torch traceback",
        [f"[rank2]: {line}" for line in [*DEAD[:2], "torch.OutOfMemoryError: CUDA out of memory"]],
        "torch.OutOfMemoryError: CUDA out of memory",
    ),
    ("option", ["usage: x", CHOICE, EXITED], CHOICE.split("error: ")[1]),
    (
        "port",
        [READY, IN_USE, EXITED],
        "error while attempting to bind on address ('0.0.0.0', 30000): address already in use",
    ),
    (
        "docker",
        ["docker: Error response from daemon: Conflict. The name is in use", EXITED],
        "Conflict. The name is in use",
    ),
    ("child", [SIGQUIT, EXITED], SIGQUIT.split("] ")[1]),
    (
        "peer",
        ["[x] Scheduler or DataParallelController 91 terminated with -9"],
        "Scheduler or DataParallelController 91 terminated with -9",
    ),
    (
        "killed",
        [EXITED, "sglang-rank.service: Failed with result 'oom-kill'."],
        "Failed with result 'oom-kill'",
    ),
    ("status", [ACCESS, EXITED], "Main process exited, code=exited, status=137/n/a"),
]


@pytest.mark.parametrize(("lines", "reason"), [row[1:] for row in FAILURES], ids=[row[0] for row in FAILURES])
def test_failure(lines: list[str], reason: str | None) -> None:
    """One line that tells most; what only follows from another failure comes last."""
    assert _rank.failure(_rank.clean(lines)) == reason


def test_clean() -> None:
    """Progress bars are split, colours and keys removed, empty lines dropped."""
    lines = _rank.clean([BATCHES, "\x1b[33mwarn\x1b[0m", "", ARGS, "x --api-key abc --port 1"])
    assert lines[1].endswith("1.5s/it]")
    assert lines[2] == "warn"
    assert len(lines) == 5
    assert "s3cret" not in lines[3]
    assert "api_key='***'" in lines[3]
    assert lines[4] == "x --api-key *** --port 1"
    (later,) = _rank.clean(["server_args={'api_key': 's3cret', 'admin_api_key': 's3cret', 'tp_size': 4}"])
    assert later == "server_args={'api_key': '***', 'admin_api_key': '***', 'tp_size': 4}"


def test_last_lines_are_short() -> None:
    """A log of one huge line fits on a screen."""
    lines = _rank.last_lines([*map(str, range(50)), "x" * 10_000])
    assert len(lines) == _rank.LAST_LINES
    assert max(map(len, lines)) <= _rank.LINE_LENGTH


def test_log_facts() -> None:
    """Model classes in order; the group as the server logged it."""
    lines = _rank.clean([*START, LOADED, DRAFT])
    assert _rank.model_classes(lines) == ["Glm4MoeForCausalLM", "Glm4MoeForCausalLMNextN"]
    assert _rank.tp_group(lines) == {"size": 4, "rank": 2, "nodes": 4, "node_rank": 2}
    assert set(_rank.tp_group([ACCESS]).values()) == {None}


SHOW = {
    "LoadState": "loaded",
    "UnitFileState": "enabled",
    "ActiveState": "active",
    "SubState": "running",
    "Result": "success",
    "ExecMainStatus": "0",
    "NRestarts": "3",
    "NeedDaemonReload": "yes",
    "ActiveEnterTimestamp": "Mon 2026-11-23 12:31:58 UTC",
    "StateChangeTimestamp": "Mon 2026-11-23 12:40:00 UTC",
    "MainPID": "4242",
    "InvocationID": "b" * 32,
}


def test_unit_facts() -> None:
    """systemd's words under our names; a unit that isn't there is a result."""
    assert _rank.unit_facts(_rank.properties("\n".join(map("=".join, SHOW.items())))) == {
        "installed": True,
        "enabled": True,
        "active_state": "active",
        "sub_state": "running",
        "result": "success",
        "exec_main_status": 0,
        "restarts": 3,
        "need_daemon_reload": True,
        "since": "2026-11-23T12:31:58Z",
        "pid": 4242,
        "status_text": "",
    }
    starting = _rank.unit_facts({**SHOW, "ActiveState": "activating"})
    assert starting["since"] == "2026-11-23T12:40:00Z"
    absent = _rank.unit_facts({"LoadState": "not-found", "NRestarts": "", "MainPID": "[not set]"})
    assert not absent["installed"]
    assert absent["since"] is None
    assert absent["pid"] == 0


OVERALL: list[tuple[dict[str, str], tuple[str, str], int | None, str]] = [
    ({"LoadState": "not-found"}, ("serving", ""), None, "not installed"),
    ({"ActiveState": "failed", "Result": "exit-code"}, ("failing", ""), None, "failed"),
    ({"ActiveState": "inactive"}, ("serving", ""), None, "stopped"),
    ({"ActiveState": "activating", "SubState": "auto-restart"}, ("x", ""), None, "restarting"),
    ({"ActiveState": "activating", "SubState": "start-pre"}, ("x", ""), None, "checking"),
    ({"ActiveState": "deactivating", "SubState": "stop-sigterm"}, ("x", ""), 200, "stopping"),
    ({"ActiveState": "activating"}, ("loading weights", ""), None, "loading weights"),
    ({"ActiveState": "activating"}, ("starting container", ""), None, "starting server"),
    ({}, ("starting container", ""), 200, "serving"),
    ({}, ("serving", ""), 200, "serving"),
    ({}, ("serving", ""), 503, "unhealthy"),
    ({}, ("serving", ""), None, "unhealthy"),
]


@pytest.mark.parametrize(("changes", "log", "health", "phase"), OVERALL)
def test_overall_phase(changes: dict[str, str], log: tuple[str, str], health: int | None, phase: str) -> None:
    """systemd's word goes before /health, that before the log."""
    unit = _rank.unit_facts({**SHOW, **changes})
    asked = {"health": health, "health_error": "no answer", "container_runs": True, "asked": True}
    assert _rank.overall_phase(unit, log, **asked)[0] == phase  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "health", "container", "phase"),
    [
        ({"SubState": "start-pre"}, None, False, ("checking", "waiting for spark-2")),
        ({"SubState": "start"}, None, False, (_rank.WAITING, "waiting for spark-2")),
        ({"SubState": "start"}, None, True, ("loading weights", "")),
        # Healthy, but the group has not said yet that it serves.
        ({"SubState": "start"}, 200, True, ("warming up", "waiting for spark-2")),
    ],
)
def test_phase_of_a_start(changes: dict[str, str], health: int | None, container: bool, phase: tuple[str, str]) -> None:
    """Before its container is there, a unit's own words say more than the log."""
    unit = _rank.unit_facts({**SHOW, "ActiveState": "activating", "StatusText": "waiting for spark-2", **changes})
    log = ("loading weights", "")
    assert _rank.overall_phase(unit, log, health, None, asked=True, container_runs=container) == phase


NOW = '{"pid": 4242, "group": "g", "release": "r", "epoch": "e"}'


@pytest.mark.parametrize(
    ("now", "container", "expected"),
    [
        (NOW, {"running": False}, ("g", "r", "e")),
        # Of an earlier process.
        (NOW.replace("4242", "7"), {"running": False}, ("", "", None)),
        (NOW.replace("4242", "7"), {"running": True, "group": "x", "release": "y"}, ("x", "y", None)),
        ("", {"running": True, "group": "x", "release": "y"}, ("x", "y", None)),
        ("half a no", {"running": False}, ("", "", None)),
        ("[]", {"running": False}, ("", "", None)),
    ],
)
def test_what_a_unit_runs(now: str, container: dict[str, object], expected: tuple[str | None, ...]) -> None:
    assert tuple(_rank.supervised(_rank.unit_facts(SHOW), container, now).values()) == expected


def test_a_unit_without_a_process_runs_nothing() -> None:
    stopped = _rank.unit_facts({**SHOW, "MainPID": "0"})
    assert set(_rank.supervised(stopped, {"running": False}, NOW).values()) == {None}


def test_a_gate_that_failed_is_the_reason() -> None:
    line = "gate image: failed after 3 s: sglang:1: is sha256:1 here, not sha256:2. Mend: Run site.yml."
    assert _rank.failure([line]) == "sglang:1: is sha256:1 here, not sha256:2. Mend: Run site.yml."


def test_the_last_end() -> None:
    told = {"epoch": "e", "first_rank": 2, "host": "spark-2", "why": "it said: boom", "at": "t", "served": True}
    told["by_hand"] = False
    assert _rank.last_end(json.dumps(told | {"of no use": 1})) == told
    assert _rank.last_end("") is None


def test_journal_entries() -> None:
    """Every shape of a journal line, the half-written last one included."""
    journal = "\n".join(
        [
            json.dumps({"MESSAGE": "old", "_SYSTEMD_INVOCATION_ID": "a"}),
            json.dumps({"MESSAGE": "Started.", "INVOCATION_ID": "b", "_PID": "1"}),
            json.dumps({"MESSAGE": [104, 105, 255], "_SYSTEMD_INVOCATION_ID": "b"}),
            json.dumps({"MESSAGE": "no id"}),
            json.dumps({"MESSAGE": None, "_SYSTEMD_INVOCATION_ID": "b"}),
            "[]",
            '{"MESSAGE": "cut',
        ]
    )
    found = _rank.entries(journal)
    assert _rank.messages(found, "b") == ["Started.", "hi\ufffd", "no id", ""]
    assert _rank.messages(found, _rank.previous_invocation(found, "b")) == ["old"]
    assert _rank.previous_invocation([], "b") is None


def test_container_facts() -> None:
    """docker inspect, shortened to what counts."""
    document = {
        "Id": "abc",
        "Image": "sha256:1",
        "Config": {"Image": "sglang:x", "Labels": {"dgx-spark.group": "g1", "dgx-spark.release": "r1"}},
        "State": {"Running": True, "StartedAt": "2026-11-23T12:31:58.123456789Z"},
    }
    facts = _rank.container_facts(json.dumps([document]))
    assert facts["running"]
    assert facts["group"] == "g1"
    assert facts["release"] == "r1"
    assert facts["image_id"] == "sha256:1"
    assert facts["started_at"] == "2026-11-23T12:31:58Z"
    assert facts.keys() == _rank.no_container(None).keys()
    for bad in ("[]", "{}", "[1]", "oops"):
        with pytest.raises(ValueError):  # noqa: PT011 (json's own or ours, both are caught)
            _rank.container_facts(bad)


MOE_CONFIG_LOG = [
    "[2026-11-23 12:00:00 TP0] Using MoE kernel config from /c/triton_3_5_0/E=16,N=64,device_name=NVIDIA_GB10.json.",
    "[2026-11-23 12:00:00 TP1] Using MoE kernel config from /c/triton_3_5_0/E=16,N=64,device_name=NVIDIA_GB10.json.",
    "Config file not found at /c/triton_3_6_0/a.json. Fallback to triton version 3.4.0 and use MoE kernel config from "
    "/c/triton_3_4_0/E=1,block_shape=[128, 128].json. Performance might be sub-optimal!",
]


def test_moe_configs() -> None:
    told = _rank.moe_configs(MOE_CONFIG_LOG)
    assert told == {
        "used": [
            "/c/triton_3_5_0/E=16,N=64,device_name=NVIDIA_GB10.json",
            "/c/triton_3_4_0/E=1,block_shape=[128, 128].json",
        ],
        "default": False,
    }
    line = "Using default MoE kernel config. Performance might be sub-optimal! Config file not found at /c/x.json"
    assert _rank.moe_configs([line]) == {"used": [], "default": True}
    assert _rank.moe_configs(["nothing"]) == {"used": [], "default": False}


def info(phase: str = "loading weights", **changes: Any) -> dict[str, Any]:
    """A rank_info result as far as waiting looks at it."""
    return {
        "phase": phase,
        "phase_detail": "",
        "installed": True,
        "active_state": "active",
        "last_end": None,
        "restarts": 5,
        "health": None,
        "health_error": "connection refused",
        "failure": None,
        "previous": None,
        "last_lines": ["last"],
        "tp_group": {"node_rank": 2},
        **changes,
    }


def new_wait() -> _wait.Wait:
    """A wait of 100 seconds that gives up at the second restart."""
    return _wait.Wait("spark-2", "sglang-rank.service", None, 100, 2)


def test_wait_shows_changes_and_heartbeats() -> None:
    """A line a phase, and one every 30 seconds."""
    wait = new_wait()
    steps = [(0, "loading weights"), (10, "loading weights"), (31, "loading weights")]
    steps += [(40, "loading weights"), (45, "capturing graphs"), (74, "capturing graphs")]
    lines = [wait.step(info(phase), at)[0] for at, phase in steps]
    assert lines == [
        "spark-2  rank 2  loading weights (0 s)",
        None,
        "spark-2  rank 2  loading weights (31 s)",
        None,
        "spark-2  rank 2  capturing graphs (45 s)",
        None,
    ]
    assert wait.phases == [
        {"phase": "loading weights", "at": 0},
        {"phase": "capturing graphs", "at": 45},
    ]


def troubles(*polls: dict[str, Any]) -> list[str | None]:
    """The verdict after each poll, a second apart."""
    wait = new_wait()
    return [wait.step(poll, at)[1] for at, poll in enumerate(polls)]


def test_wait_gives_up() -> None:
    """Not before it is plain, and then at once."""
    assert troubles(info(installed=False))[-1] == "there is no unit sglang-rank.service"
    restarts = troubles(info(restarts=5), info(restarts=6), info(restarts=7))
    assert restarts[:2] == [None, None]
    assert "restarted 2 times" in str(restarts[2])
    counted_anew = troubles(*(info(restarts=count) for count in (5, 0, 1, 2)))
    assert counted_anew[:3] == [None] * 3
    assert "restarted 2 times" in str(counted_anew[3])
    down = troubles(info("stopped"), info("failed"), info("stopped"))
    assert down[:2] == [None, None]
    assert "is stopped and nothing starts it" in str(down[2])
    assert troubles(info("stopped"), info("stopped"), info(), info("stopped")) == [None] * 4
    late = new_wait().step(info(), 100)[1]
    assert late
    assert "not healthy after 100 s; it is loading weights" in late
    assert new_wait().step(info(health=200), 500)[1] is None
    # The server answers before the unit says that the whole group serves.
    assert new_wait().step(info(health=200, active_state="activating"), 500)[1]


def test_wait_message() -> None:
    """After a restart the start before counts, else the current one; always with the mend."""
    previous = {"failure": "ValueError: root", "last_lines": ["older"]}
    wait = new_wait()
    wait.step(info(), 0)
    now = wait.message("trouble", info(previous=previous))
    assert "spark-2: trouble." in now
    assert "  last" in now
    assert "older" not in now
    assert "connection refused" in now
    assert "`journalctl -u sglang-rank.service` on spark-2" in now
    wait.step(info(restarts=6), 1)
    before = wait.message("trouble", info(previous=previous))
    assert "ValueError: root" in before
    assert "  older" in before
    assert "  last" not in before
    ended = {"first_rank": 1, "host": "spark-1", "why": "it said: boom", "at": "t", "by_hand": False}
    assert "rank 1 (spark-1) failed first: it said: boom" in wait.message("trouble", info(last_end=ended))
    again = wait.message("trouble", info(previous=previous, failure="KeyError: now"))
    assert "KeyError: now" in again
    assert "  last" in again
    assert "older" not in again


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A folder of stand-ins for systemctl, journalctl and docker, which say what files hold."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("systemctl", "journalctl", "docker"):
        script = folder / name
        script.write_text(f'#!/bin/sh\necho "$*" >> {folder}/{name}.calls\ncat {folder}/{name}.out\n')
        script.chmod(0o755)
    say(folder, START)
    (folder / "docker.out").write_text(
        json.dumps([{"Id": "abc", "State": {"Running": True}, "Config": {}, "Image": "i"}])
    )
    return folder


def say(folder: Path, lines: list[str], **changes: str) -> None:
    """What the unit and the journal say from now on; the previous start failed."""
    shown = {**SHOW, **changes}
    (folder / "systemctl.out").write_text("\n".join(map("=".join, shown.items())))
    older = [{"MESSAGE": line, "_SYSTEMD_INVOCATION_ID": "a" * 32} for line in [CHOICE, EXITED]]
    newer = [{"MESSAGE": line, "_SYSTEMD_INVOCATION_ID": "b" * 32} for line in lines]
    (folder / "journalctl.out").write_text("\n".join(map(json.dumps, [*older, *newer])))


def path_of(folder: Path) -> dict[str, str]:
    """The stand-ins first on the search path."""
    return {"PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin"}


@pytest.fixture
def health_url() -> Iterator[str]:
    """A server that is healthy."""

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Healthy)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/health"
    server.shutdown()
    thread.join()
    server.server_close()


def test_rank_info_module(tmp_path: Path, node: Path) -> None:
    """The real module puts all of it together, and asks for what it reads."""
    result = adhoc.run(tmp_path, "rank_info", {}, env=path_of(node), check=True).result
    assert not result["failed"]
    assert not result["changed"]
    assert result["phase"] == "allocating memory pools"
    assert result["restarts"] == 3
    assert result["model_class"] == "Glm4MoeForCausalLM"
    assert result["draft_model_class"] is None
    assert result["container"]["running"]
    assert result["container"]["id"] == "abc"
    assert result["failure"] is None
    assert "glm47" in result["previous"]["failure"]
    assert result["health"] is None
    assert result["health_error"] is None
    assert "--unit=sglang-rank.service" in (node / "journalctl.calls").read_text()


def test_rank_info_reads_the_beginning_too(tmp_path: Path, node: Path) -> None:
    """When the end of the log is only traffic, the beginning is asked for by its invocation."""
    result = adhoc.run(tmp_path, "rank_info", {"log_lines": 3}, env=path_of(node)).result
    calls = (node / "journalctl.calls").read_text().splitlines()
    assert not result["failed"]
    assert len(calls) == 2
    assert f"_SYSTEMD_INVOCATION_ID={'b' * 32}" in calls[1]


def test_rank_info_reads_the_whole_failed_start(tmp_path: Path, node: Path) -> None:
    """When the end of the log cuts the start that failed, its own end is asked for."""
    result = adhoc.run(tmp_path, "rank_info", {"log_lines": 9}, env=path_of(node)).result
    calls = (node / "journalctl.calls").read_text().splitlines()
    assert len(calls) == 2
    assert f"_SYSTEMD_INVOCATION_ID={'a' * 32}" in calls[1]
    assert "glm47" in result["previous"]["failure"]


def test_rank_info_without_systemd(tmp_path: Path, node: Path) -> None:
    """No traceback: what failed and what is needed."""
    (node / "systemctl").write_text("#!/bin/sh\necho 'not been booted with systemd' >&2\nexit 1\n")
    result = adhoc.run(tmp_path, "rank_info", {}, env=path_of(node)).result
    assert result["failed"]
    assert "booted with systemd" in result["msg"]
    assert "Mend" in result["msg"]


def test_rank_wait_until_healthy(tmp_path: Path, node: Path, health_url: str) -> None:
    """The real action plugin: progress on the terminal, the last rank_info in the result."""
    outcome = adhoc.run(tmp_path, "rank_wait", {"health_url": health_url}, env=path_of(node))
    assert "localhost  rank 2  serving (" in outcome.shown
    assert outcome.result["rank"]["health"] == 200
    assert not outcome.result["changed"]
    assert outcome.result["phases"][-1]["phase"] == "serving"


def test_rank_wait_times_out(tmp_path: Path, node: Path) -> None:
    """What it was doing, the last lines and the mend."""
    arguments = {"health_url": "http://127.0.0.1:1/health", "timeout": 1, "interval": 0.2}
    outcome = adhoc.run(tmp_path, "rank_wait", arguments, env=path_of(node))
    text = outcome.result["msg"]
    assert outcome.result["failed"]
    assert "it is allocating memory pools" in text
    assert "Memory pool end" in text
    assert "journalctl -u sglang-rank.service" in text
    assert "localhost  rank 2  allocating memory pools, done (" in outcome.shown


def test_rank_wait_gives_up_on_a_failed_unit(tmp_path: Path, node: Path) -> None:
    """It doesn't wait for the time-out, and names the reason."""
    say(node, [CHOICE, EXITED], ActiveState="failed", SubState="failed", Result="exit-code")
    arguments = {"health_url": "http://127.0.0.1:1/health", "interval": 0.1}
    result = adhoc.run(tmp_path, "rank_wait", arguments, env=path_of(node)).result
    assert result["failed"]
    assert result["waited"] < 60
    assert "invalid choice: 'glm47'" in result["msg"]


def test_rank_wait_looks_once_in_check_mode(tmp_path: Path, node: Path) -> None:
    """Unhealthy, and still no wait and no failure."""
    arguments = {"health_url": "http://127.0.0.1:1/health"}
    result = adhoc.run(tmp_path, "rank_wait", arguments, env=path_of(node), check=True).result
    assert not result["failed"]
    assert result["rank"]["phase"] == "allocating memory pools"
    assert len((node / "systemctl.calls").read_text().splitlines()) == 1


def test_rank_wait_refuses_nonsense(tmp_path: Path, node: Path) -> None:
    """An interval of zero would be a busy loop."""
    arguments = {"health_url": "http://127.0.0.1:1/health", "interval": 0}
    result = adhoc.run(tmp_path, "rank_wait", arguments, env=path_of(node)).result
    assert result["failed"]
    assert "interval is 0" in result["msg"]


def test_a_supervisor_that_was_just_started_is_waited_for(tmp_path: Path, node: Path) -> None:
    """It notes what it runs between the first look and the second."""
    (node / "docker.out").write_text("[]")
    (tmp_path / "told").write_text(NOW)
    asked = f"{node}/systemctl.calls"
    with (node / "systemctl").open("a") as script:
        script.write(f"[ $(wc -l < {asked}) -lt 2 ] || cp {tmp_path}/told {tmp_path}/now.json\n")
    result = adhoc.run(tmp_path, "rank_info", {"state_dir": str(tmp_path)}, env=path_of(node)).result
    assert result["runs"] == {"group": "g", "release": "r", "epoch": "e"}
