# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The supervisor's parts that touch the world: configuration, files, the container's processes and its health."""

from __future__ import annotations

import errno
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.roles.rank.files import dgx_spark_rank as rank
from ansible_collections.dgx_spark.sglang.roles.rank.files.dgx_spark_rank import (
    ConfigError,
    History,
    Notifier,
    Output,
    Processes,
    Removal,
)

MEMBERS = [{"rank": number, "host": f"spark-{number + 1}", "address": f"10.0.0.{number + 1}"} for number in range(2)]
CONFIG: dict[str, Any] = {
    "group": "g",
    "rank": 1,
    "members": MEMBERS,
    "port": 30001,
    "key_file": "/k",
    "container": "c",
    "health_url": "http://10.0.0.2:30000/health",
    "generate_url": None,
    "dist_init": "10.0.0.1:20000",
    "started_marker": "/m",
}


# ---- configuration ----


def test_a_configuration_is_read() -> None:
    config = rank.parse_config(json.dumps(CONFIG | {"silence_seconds": 3}))
    assert config.members[1].name == "rank 1 (spark-2)"
    assert (config.silence_seconds, config.stop_seconds) == (3, 30)
    alone = CONFIG | {"rank": 0, "members": [{"rank": 0, "host": "a"}], "dist_init": None}
    assert rank.parse_config(json.dumps(alone)).members[0].address == ""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"prot": 1}, "prot: there is no such key"),
        ({"port": "1"}, "port: '1' is no int"),
        ({"port": 70000}, "port: 70000 is no port"),
        ({"rank": True}, "rank: True is no int"),
        ({"rank": 2}, "rank: there is no member 2"),
        ({"silence_seconds": -1}, "silence_seconds: -1 is negative or endless"),
        ({"silence_seconds": float("inf")}, "silence_seconds: inf is negative or endless"),
        ({"group": ""}, "group: it is no name"),
        ({"health_url": "https://x/"}, "health_url: 'https://x/' is no http://HOST:PORT/PATH"),
        ({"generate_url": "x"}, "generate_url: 'x' is no"),
        ({"dist_init": "spark-1:1"}, "dist_init: 'spark-1:1' is no IP:PORT"),
        ({"members": [MEMBERS[1], MEMBERS[0]]}, "members: their ranks are not 0, 1, 2"),
        ({"members": [MEMBERS[0], MEMBERS[1] | {"address": "10.1"}]}, "members[1].address: '10.1' is no IPv4"),
        ({"members": [MEMBERS[0], MEMBERS[1] | {"address": "10.0.0.1"}]}, "members: an address is given twice"),
        ({"members": [MEMBERS[0], MEMBERS[1] | {"x": 1}]}, "members[1].x: there is no such key"),
        ({"members": [MEMBERS[0], 1]}, "members[1] is no object"),
    ],
)
def test_a_wrong_key_is_named(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError) as error:
        rank.parse_config(json.dumps(CONFIG | change))
    assert str(error.value).startswith(why)


def test_the_key_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("ab" * 32 + "\n")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="may be read by others"):
        rank.read_key(str(path))
    path.chmod(0o600)
    assert rank.read_key(str(path)) == b"\xab" * 32
    for text in ("ab" * 31, "no hex"):
        path.write_text(text)
        with pytest.raises(ConfigError, match="key_file"):
            rank.read_key(str(path))
    with pytest.raises(ConfigError, match="No such file"):
        rank.read_key(str(tmp_path / "none"))


# ---- systemd and files ----


@pytest.mark.parametrize("abstract", [True, False])
def test_systemd_hears_a_status_once(tmp_path: Path, abstract: bool) -> None:
    path = f"@dgx-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as systemd:
        systemd.bind(path.replace("@", "\0"))
        notifier = Notifier({"NOTIFY_SOCKET": path})
        notifier.status("a")
        notifier.status("a")
        notifier.tell("READY=1", "WATCHDOG=1")
        assert systemd.recv(99) == b"STATUS=a"
        assert systemd.recv(99) == b"READY=1\nWATCHDOG=1"
    notifier.status("nobody listens")
    Notifier({}).status("nor here")


def test_history_is_kept_and_rubbish_is_none(tmp_path: Path) -> None:
    path = tmp_path / "state/history.json"
    History(path).write(3, "why")
    again = History(path)
    assert (again.failures, again.why) == (3, "why")
    for rubbish in ("", "[]", '{"failures": null}', "{"):
        path.write_text(rubbish)
        assert History(path).failures == 0


# ---- the container ----


def test_output_is_passed_on_by_line_and_read() -> None:
    doing: list[str] = []
    output = Output(lambda: doing.append(output.doing))
    source, into = os.pipe()
    out, target = os.pipe()
    text = (
        b"[rank1]: one\r\n"
        b"Loading safetensors checkpoint shards:  43% Completed | 12/48\r"
        b"Multi-thread loading shards: 44% Completed\r\rLoad weight end. type=X\n"
        b"Capturing batches (bs=8): 12%|#  | 1/8\n\x1b[31mapi_key='s'\xff no end"
    )
    os.write(into, text)
    os.close(into)
    output.follow(source, target)
    os.close(target)
    lines = os.read(out, 65536).split(b"\n")
    assert lines[:2] == [b"[rank1]: one", b"Loading safetensors checkpoint shards:  43% Completed | 12/48"]
    assert lines[-2:] == [b"\x1b[31mapi_key='s'\xff no end", b""]
    assert doing == ["loading 43 %", "loading 44 %", "loaded, getting ready", "capturing graphs 12 %"]
    assert output.lines[-1] == "api_key='***'\N{REPLACEMENT CHARACTER} no end"


@pytest.mark.parametrize("size", [1, 7, 65536])
@pytest.mark.parametrize("before", [*range(16384 - 30, 16384 + 4), 0, 70000])
def test_no_secret_is_passed_on(before: int, size: int) -> None:
    """Wherever it stands in a line that is cut, and however it comes."""
    secrets = ["canary-of-the-api", "canary-of-the-api-and-more"]
    output = Output(lambda: None, secrets)
    text = b"x" * before + f" ServerArgs(api_key='{secrets[0]}', admin_api_key='{secrets[1]}')\n".encode() + b"y" * 99
    source, into = os.pipe()
    out, target = os.pipe()
    said: list[bytes] = []

    def write() -> None:
        # What one read gets: as much as fits, or a few bytes around where the line is cut.
        first = max(0, before - 64) if size < 65536 else 0
        os.write(into, text[:first])
        for start in range(first, len(text), size):
            os.write(into, text[start : start + size])
        os.close(into)

    def read() -> None:
        while piece := os.read(out, 65536):
            said.append(piece)

    threads = [threading.Thread(target=write), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    output.follow(source, target)
    os.close(target)
    for thread in threads:
        thread.join()
    passed = b"".join(said)
    assert b"canary" not in passed.replace(b"\n", b"")
    assert "canary" not in " ".join(output.lines)
    assert passed.replace(b"\n", b"") == (
        b"x" * before + b" ServerArgs(api_key='***', admin_api_key='***')" + b"y" * 99
    )


@pytest.mark.parametrize("come", range(len("canary-and-more")))
def test_a_secret_that_begins_as_another_does_is_not_cut(come: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many bytes of it come with what makes the line too long, the rest later."""
    text = b"x" * 16400 + b"canary-and-more" + b"\n"
    pieces = [text[: 16400 + come], text[16400 + come :], b""]
    monkeypatch.setattr("os.read", lambda *_: pieces.pop(0))
    passed: list[bytes] = []

    def write(_: int, data: bytes) -> int:
        passed.append(bytes(data))
        return len(data)

    monkeypatch.setattr("os.write", write)
    Output(lambda: None, ["canary", "canary-and-more"]).follow(0, 1)
    assert b"".join(passed).replace(b"\n", b"") == b"x" * 16400 + b"***"


def test_api_keys_are_read_where_only_their_owner_may(tmp_path: Path) -> None:
    assert rank.read_api_keys(None) == {}
    path = tmp_path / "keys.yaml"
    with pytest.raises(ConfigError, match=r"keys_file: .*No such file"):
        rank.read_api_keys(str(path))
    path.write_text('{"api-key": "canary"}')
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="may be read by others"):
        rank.read_api_keys(str(path))
    path.chmod(0o600)
    assert rank.read_api_keys(str(path)) == {"api-key": "canary"}
    for rubbish in ("", "canary", "{}", '["canary"]', '{"api-key": 1}', '{"api-key": ""}', "\u00e4canary"):
        path.write_text(rubbish)
        with pytest.raises(ConfigError, match="keys_file: ") as error:
            rank.read_api_keys(str(path))
        assert "canary" not in str(error.value)


def test_output_that_nobody_takes_does_not_stop_it() -> None:
    output = Output(lambda: None)
    source, into = os.pipe()
    os.write(into, b"a\n" * 100 + b"x" * 40000 + b"\nlast\n")
    os.close(into)
    output.follow(source, os.open("/dev/full", os.O_WRONLY))
    assert output.lines[-1] == "last"
    assert len(output.lines) == 30


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "it said nothing"),
        (["a", "b"], "it said: b"),
        (["torch.OutOfMemoryError: CUDA", "bye"], "it said: torch.OutOfMemoryError: CUDA"),
        (["ValueError: first", "EOFError: pipe", "bye"], "it said: ValueError: first"),
        (["docker: Error response from daemon: no", "Run 'docker run --help'"], "it said: docker: Error response"),
        (["launch_server.py: error: unrecognized", "x"], "it said: launch_server.py: error: unrecognized"),
    ],
)
def test_the_telling_line_is_the_reason(lines: list[str], said: str) -> None:
    assert rank.reason(lines).startswith(said)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 0", ""),
        ("echo 'Error response from daemon: No such container: c' >&2; exit 1", ""),
        ('[ -e "$0.tried" ] || { touch "$0.tried"; echo in progress; exit 1; }', ""),
        ("echo no daemon; exit 1", "the last container can't be removed: no daemon"),
    ],
)
def test_a_container_is_removed_or_it_is_said_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, error: str
) -> None:
    monkeypatch.setattr(rank, "REMOVE_SECONDS", 3.0)
    docker = tmp_path / "docker"
    docker.write_text(f'#!/bin/sh\n[ "$*" = "rm --force c" ] || exit 9\n{script}\n')
    docker.chmod(0o755)
    done = threading.Event()
    removal = Removal(str(docker), "c", done.set).begin()
    assert done.wait(10)
    assert (removal.done, removal.error) == (True, error)


# ---- its processes ----


@pytest.fixture
def proc(tmp_path: Path) -> Callable[[int, str, str, int], None]:
    """Writes a process into a made-up /proc."""

    def write(pid: int, name: str, state: str, parent: int) -> None:
        folder = tmp_path / f"proc/{pid}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stat").write_text(f"{pid} ({name}) {state} {parent} 1 1\n")

    return write


def container(tmp_path: Path, line: str, folder: str) -> Path:
    """The cgroup of process 10 and what is in it: its children, one of them in a cgroup below, and a `docker exec`."""
    (tmp_path / "proc/10/cgroup").write_text(f"{line}\n")
    cgroup = tmp_path / "cgroup" / folder
    (cgroup / "below").mkdir(parents=True)
    (cgroup / "cgroup.procs").write_text("10\n11\n90\n")
    (cgroup / "below/cgroup.procs").write_text("12\n")
    return cgroup


V2 = ("0::/docker/abc", "docker/abc")
V1 = ("7:cpu:/docker/abc\n6:freezer:/docker/abc\n0::/", "freezer/docker/abc")


@pytest.mark.parametrize(("line", "folder"), [V2, V1])
def test_a_stopped_process_of_the_container_is_named(
    tmp_path: Path, proc: Callable[[int, str, str, int], None], line: str, folder: str
) -> None:
    proc(10, "python3", "S", 1)
    proc(11, "sglang::schedul", "R", 10)
    proc(12, "odd) name (", "S", 11)
    proc(90, "bash", "T", 5)
    container(tmp_path, line, folder)
    processes = Processes(10, str(tmp_path / "proc"), str(tmp_path / "cgroup"))
    assert processes.look(0) == ({10: "python3", 11: "sglang::schedul"}, None)
    proc(12, "odd) name (", "T", 11)
    assert processes.look(2)[1] is None
    proc(12, "odd) name (", "S", 11)
    assert processes.look(6)[1] is None
    proc(12, "odd) name (", "T", 11)
    assert processes.look(8)[1] is None
    assert processes.look(13)[1] is None
    failure = processes.look(13.1)[1]
    assert failure == rank.Failure(8, "process 12 (odd) name () is stopped")


def test_what_a_scheduler_forks_may_end(tmp_path: Path, proc: Callable[[int, str, str, int], None]) -> None:
    proc(10, "python3", "S", 1)
    proc(11, "sglang::data_pa", "S", 10)
    proc(12, "sglang::schedul", "R", 11)
    proc(90, "sglang::schedul", "R", 12)  # `ldconfig` in a moment
    container(tmp_path, *V2)
    watched, _ = Processes(10, str(tmp_path / "proc"), str(tmp_path / "cgroup")).look(0)
    assert watched == {10: "python3", 11: "sglang::data_pa", 12: "sglang::schedul"}


@pytest.mark.parametrize(
    ("line", "folder", "name", "text"),
    [(*V2, "cgroup.events", "populated 1\nfrozen 1\n"), (*V1, "freezer.state", "FROZEN\n")],
)
def test_a_frozen_container_is_named(
    tmp_path: Path, proc: Callable[[int, str, str, int], None], line: str, folder: str, name: str, text: str
) -> None:
    proc(10, "python3", "S", 1)
    (container(tmp_path, line, folder) / name).write_text(text)
    processes = Processes(10, str(tmp_path / "proc"), str(tmp_path / "cgroup"))
    assert processes.look(0)[1] is None
    assert processes.look(5.5)[1] == rank.Failure(0, "the container is frozen")


@pytest.mark.parametrize("line", ["0::/", "0::/elsewhere", "rubbish", None])
def test_without_cgroups_the_first_process_is_watched(
    tmp_path: Path, proc: Callable[[int, str, str, int], None], line: str | None
) -> None:
    proc(10, "python3", "T", 1)
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/cgroup.procs").write_text("1\n2\n")
    if line is not None:
        (tmp_path / "proc/10/cgroup").write_text(f"{line}\n")
    processes = Processes(10, str(tmp_path / "proc"), str(tmp_path / "cgroup"))
    assert processes.look(0)[0] == {10: "python3"}
    assert processes.look(6)[1] == rank.Failure(0, "process 10 (python3) is stopped")
    (tmp_path / "proc/10/stat").unlink()
    assert processes.look(7) == ({}, None)


# ---- its health ----


@pytest.fixture
def server() -> Iterator[tuple[str, list[bytes], list[bytes]]]:
    """A URL, the pieces of the answer that it gives to everybody, and what it was asked."""
    pieces: list[bytes] = []
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    link, _ = listener.accept()
                except OSError:
                    return
                asked.append(link.recv(65536))
                for piece in pieces:
                    link.sendall(piece)
                if b"stay" not in asked[-1]:
                    link.close()
                kept.append(link)

        kept: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", pieces, asked
        listener.shutdown(socket.SHUT_RDWR)
        for link in kept:
            link.close()


Server = tuple[str, list[bytes], list[bytes]]


def test_an_answer_is_its_status(server: Server) -> None:
    url, pieces, asked = server
    pieces[:] = [b"HTTP/1.1 50", b"3 Service Unavailable\r\n", b"\r\nx"]
    assert rank.ask(f"{url}/health", 5) == 503
    assert asked[0].startswith(b"GET /health HTTP/1.0\r\nHost: 127.0.0.1:")
    assert rank.ask(f"{url}/generate", 5, b"{}") == 503
    assert asked[1].startswith(b"POST /generate HTTP/1.0\r\n")
    assert asked[1].endswith(b"Content-Length: 2\r\n\r\n{}")


def test_no_answer_and_no_http_are_errors(server: Server) -> None:
    url, pieces, _ = server
    beats: list[int] = []
    with pytest.raises(TimeoutError):
        rank.ask(f"{url}/stay", 1.2, beat=lambda: beats.append(1))
    assert beats
    pieces[:] = [b"SSH-2.0\r\n"]
    with pytest.raises(OSError, match="no HTTP answer"):
        rank.ask(f"{url}/", 5)


def test_a_member_is_healthy_once_it_has_joined_rank_0(server: Server) -> None:
    url, pieces, asked = server
    pieces[:] = [b"HTTP/1.1 200 OK\r\n\r\n"]
    with socket.create_server(("127.0.0.1", 0)) as store:
        there = store.getsockname()
        config = rank.parse_config(
            json.dumps(CONFIG | {"health_url": f"{url}/health", "dist_init": f"127.0.0.1:{there[1]}"})
        )
        health = rank.Health(config, "docker", lambda: None)
        health.bad = health._ask()
        assert health.bad == f"it has no connection to 127.0.0.1:{there[1]}"
        with socket.create_connection(there):
            assert health._ask() == ""
        health.bad = ""
        assert health._ask() == ""
    assert len(asked) == 3


def test_rank_0_is_healthy_once_it_has_made_a_token(server: Server) -> None:
    url, pieces, asked = server
    pieces[:] = [b"HTTP/1.1 503 no\r\n\r\n"]
    urls = {"health_url": f"{url}/health", "generate_url": f"{url}/generate", "dist_init": None}
    config = rank.parse_config(json.dumps(CONFIG | urls))
    health = rank.Health(config, "docker", lambda: None, {"api-key": "secret", "admin-api-key": "other"})
    assert health._ask() == "its /health answers 503"
    pieces[:] = [b"HTTP/1.1 200 OK\r\n\r\n"]
    assert health._ask() == ""
    assert health._ask() == ""
    assert [line.split()[1] for line in asked] == [b"/health", b"/health", b"/generate", b"/health"]
    # With the key of the API, where it is asked for.
    assert [b"\r\nAuthorization: Bearer secret\r\n" in line for line in asked] == [False, False, True, False]


def test_an_address_that_is_gone_for_a_while_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    health = rank.Health(rank.parse_config(json.dumps(CONFIG)), "docker", lambda: None)
    trouble = OSError(errno.ENETUNREACH, "Network is unreachable")

    def ask(*_: object, **__: object) -> int:
        raise trouble

    monkeypatch.setattr(rank, "ask", ask)
    assert health._ask() == "its /health can't be asked: Network is unreachable"  # it was never healthy
    health.bad = ""
    assert health._ask() == ""
    trouble = OSError(errno.ECONNREFUSED, "Connection refused")
    assert health._ask() == "its /health can't be asked: Connection refused"


def test_a_gpu_that_is_lost_while_the_container_runs_is_told(tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text('#!/bin/sh\necho "$@" >> "$0.asked"\n. "$0.now"\n')
    docker.chmod(0o755)
    now = tmp_path / "docker.now"
    health = rank.Health(rank.parse_config(json.dumps(CONFIG | {"gpu_probe": "look"})), str(docker), lambda: None)
    began = health._looked
    now.write_text("echo Failed to initialize NVML: Unknown Error; exit 255")
    assert health._gpu(began + 59) == ""
    assert not (tmp_path / "docker.asked").exists()  # not every few seconds
    assert health._gpu(began + 61) == "Failed to initialize NVML: Unknown Error"
    assert (tmp_path / "docker.asked").read_text() == "exec c python3 -c look\n"
    now.write_text("echo 'GPU 0: NVIDIA GB10 (UUID: GPU-0)'")
    health.gpu = "lost"
    assert health._gpu(began + 62) == "lost"
    assert health._gpu(began + 122) == ""
    now.write_text("exit 1")
    assert health._gpu(began + 183) == "it said nothing"


def test_a_look_at_the_gpu_that_hangs_is_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hangs stays in the container, whatever becomes of the `docker exec`."""
    asked: list[object] = []

    def call(*words: object) -> tuple[int, str]:
        asked.append(words)
        return -1, "docker exec took longer than 10 s"

    monkeypatch.setattr(rank, "call", call)
    health = rank.Health(rank.parse_config(json.dumps(CONFIG | {"gpu_probe": "look"})), "docker", lambda: None)
    began = health._looked
    health.gpu = health._gpu(began + 61)
    assert health.gpu == "docker exec took longer than 10 s"
    assert health._gpu(began + 10**6) == health.gpu
    assert len(asked) == 1


def test_an_established_connection_is_found_by_either_kind_of_socket() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        there = f"127.0.0.1:{port}"
        assert not rank.connected(there)
        for address in ("127.0.0.1", "::ffff:127.0.0.1"):
            with socket.create_connection((address, port)):
                assert rank.connected(there)
                assert not rank.connected(f"127.0.0.2:{port}")
            listener.accept()[0].close()
            assert not rank.connected(there)


def test_what_systemd_could_not_take_is_told_again(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        notifier = Notifier({"NOTIFY_SOCKET": path})
        told = 0
        while notifier.tell("WATCHDOG=1"):
            told += 1
        notifier.status("serving")
        for _ in range(told):
            systemd.recv(4096)
        assert notifier.tell("READY=1")
        notifier.status("serving")
        assert [systemd.recv(4096) for _ in range(2)] == [b"READY=1", b"STATUS=serving"]


def test_progress_is_not_looked_for_in_what_a_client_may_have_written() -> None:
    """A line of 16 KB of the words that progress begins with would keep this process busy for minutes."""
    output = Output(lambda: None)
    read, write = os.pipe()
    os.write(write, b"oading shards" * 4000 + b" 50%\nLoading shards: 25% done\n")
    os.close(write)
    with open(os.devnull, "wb") as nowhere:
        output.follow(read, nowhere.fileno())
    os.close(read)
    assert output.doing == "loading 25 %"


def test_files_that_change_are_seen(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("a")
    files = rank.Files(str(first), None, str(second))
    assert not files.changed()
    second.write_text("")
    assert files.changed()
    second.unlink()
    assert not files.changed()
    # In one step, with the same size and content.
    (tmp_path / "new").write_text("a")
    (tmp_path / "new").replace(first)
    assert files.changed()
