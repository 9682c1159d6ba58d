"""The model hub, asked over HTTP as its clients ask."""

from __future__ import annotations

import hashlib
import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import hub

CONFIG = b'{"model_type": "tiny"}\n'
WEIGHTS = bytes(range(256)) * 8


@pytest.fixture
def server(tmp_path: Path) -> Iterator[hub.HubServer]:
    folder = tmp_path / "org" / "tiny"
    (folder / "sub").mkdir(parents=True)
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "sub" / "model.safetensors").write_bytes(WEIGHTS)
    with hub.HubServer(("127.0.0.1", 0), tmp_path) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(
    server: hub.HubServer, method: str, path: str, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=5)
    connection.request(method, path, headers=headers or {})
    answer = connection.getresponse()
    read = answer.status, dict(answer.getheaders()), answer.read()
    connection.close()
    return read


def asked_json(server: hub.HubServer, path: str) -> Any:
    status, _, body = ask(server, "GET", path)
    assert status == 200
    return json.loads(body)


def test_the_model_names_its_commit_and_files(server: hub.HubServer) -> None:
    info = asked_json(server, "/api/models/org/tiny/revision/main")
    assert [entry["rfilename"] for entry in info["siblings"]] == [
        "config.json",
        "sub/model.safetensors",
    ]
    assert (
        info
        == asked_json(server, f"/api/models/org/tiny/revision/{info['sha']}")
        == asked_json(server, "/api/models/org/tiny")
    )


def test_the_tree_tells_sizes_and_digests(server: hub.HubServer) -> None:
    small, big = asked_json(server, "/api/models/org/tiny/tree/main?recursive=True")
    assert small["oid"] == hashlib.sha1(b"blob %d\0" % len(CONFIG) + CONFIG).hexdigest()
    assert "lfs" not in small
    assert big["lfs"] == {
        "oid": hashlib.sha256(WEIGHTS).hexdigest(),
        "size": len(WEIGHTS),
        "pointerSize": 134,
    }


def test_a_head_tells_all_and_sends_nothing(server: hub.HubServer) -> None:
    status, headers, body = ask(server, "HEAD", "/org/tiny/resolve/main/sub/model.safetensors")
    digest = f'"{hashlib.sha256(WEIGHTS).hexdigest()}"'
    assert (status, body) == (200, b"")
    assert headers["ETag"] == headers["X-Linked-Etag"] == digest
    assert headers["Content-Length"] == headers["X-Linked-Size"] == str(len(WEIGHTS))
    assert headers["X-Repo-Commit"] == server.models["org/tiny"].commit


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        (None, 200, WEIGHTS),
        ("bytes=0-", 200, WEIGHTS),
        ("bytes=100-", 206, WEIGHTS[100:]),
        ("bytes=100-199", 206, WEIGHTS[100:200]),
        ("bytes=-10", 206, WEIGHTS[-10:]),
        ("bytes=99999-", 416, b""),
    ],
)
def test_a_download_can_start_anywhere(server: hub.HubServer, asked: str | None, status: int, content: bytes) -> None:
    headers = {"Range": asked} if asked else {}
    assert ask(server, "GET", "/org/tiny/resolve/main/sub/model.safetensors", headers)[::2] == (
        status,
        content,
    )


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/models/org/other", "RepoNotFound"),
        ("/api/models/org/tiny/revision/v2", "RevisionNotFound"),
        ("/org/tiny/resolve/main/absent", "EntryNotFound"),
        ("/org/tiny/resolve/main/../../../etc/passwd", "EntryNotFound"),
        ("/", "EntryNotFound"),
    ],
)
def test_a_refusal_carries_the_hubs_code(server: hub.HubServer, path: str, code: str) -> None:
    status, headers, _ = ask(server, "GET", path)
    assert (status, headers["X-Error-Code"]) == (404, code)
