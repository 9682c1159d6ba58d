# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Merging into daemon.json: the user's keys stay, a second run changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _docker_daemon
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

MERGES: list[tuple[Any, Any, Any]] = [
    ({}, {"a": 1}, {"a": 1}),
    ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
    ({"a": 1}, {"a": 2}, {"a": 2}),
    ({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}}, {"a": {"x": 1, "y": 3}}),
    ({"a": ["x", "y"]}, {"a": ["z", "x"]}, {"a": ["x", "y", "z"]}),
    ({"a": [1]}, {"a": [True]}, {"a": [1, True]}),
    ({"a": [{"k": 1}]}, {"a": [{"k": 1}]}, {"a": [{"k": 1}]}),
    ({"a": "text"}, {"a": {"x": 1}}, {"a": {"x": 1}}),
    ({"a": ["x"]}, {"a": None}, {"a": None}),
]


@pytest.mark.parametrize(("present", "wanted", "merged"), MERGES)
def test_merge(present: Any, wanted: Any, merged: Any) -> None:
    """The table above; a second merge adds nothing, and the arguments stay as they were."""
    copies = json.dumps([present, wanted])
    once = _docker_daemon.merge(present, wanted)
    assert json.dumps(once) == json.dumps(merged)
    assert _docker_daemon.merge(once, wanted) == once
    assert json.dumps([present, wanted]) == copies


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1,}', ["line 1", "column"]),
        ('{\n  "a": 1\n  "b": 2\n}', ["line 3, column 3"]),
        ("[1]", ["array", "line 1, column 1"]),
        ('"x"', ["string"]),
        ("true", ["boolean"]),
        ("7", ["number"]),
        ("null", ["null"]),
    ],
)
def test_bad_config(text: str, words: list[str]) -> None:
    """A file that isn't a JSON object is refused with its place and the mend."""
    with pytest.raises(_docker_daemon.BadConfigError) as caught:
        _docker_daemon.parse(text, "/etc/docker/daemon.json")
    for word in ["/etc/docker/daemon.json", "Mend:", *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("present", "defaults", "whole"),
    [
        ({}, {"a": {"x": 1}}, {"a": {"x": 1}}),
        ({"a": {"y": 2}}, {"a": {"x": 1, "y": 1}}, {"a": {"y": 2, "x": 1}}),
        ({"a": None}, {"a": {"x": 1}}, {"a": None}),
        ({}, {"log-opts": {"max-size": "50m"}}, {"log-opts": {"max-size": "50m"}}),
        (
            {"log-driver": "local", "log-opts": {"max-size": "1g"}},
            {"log-opts": {"max-size": "50m", "max-file": "3"}},
            {"log-driver": "local", "log-opts": {"max-size": "1g", "max-file": "3"}},
        ),
        ({"log-driver": "journald"}, {"log-opts": {"max-size": "50m"}}, {"log-driver": "journald"}),
    ],
)
def test_defaults(present: Any, defaults: Any, whole: Any) -> None:
    """What the file says stays; a log driver that takes no size gets none, or Docker would not start."""
    assert json.dumps(_docker_daemon.with_defaults(present, defaults)) == json.dumps(whole)


UNDONE: list[tuple[Any, Any, Any, Any]] = [
    ({}, {"a": 1}, {"a": 1}, {}),
    ({"a": 0}, {"a": 1}, {"a": 1}, {"a": 0}),
    ({"a": 0}, {"a": 1}, {"a": 2}, {"a": 2}),
    ({"a": 0}, {"a": 1}, {}, {}),
    ({}, {"a": 1}, {"a": 1, "b": 2}, {"b": 2}),
    ({"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, {"a": {"x": 1, "y": 2, "z": 3}}, {"a": {"x": 1, "z": 3}}),
    ({}, {"a": {"y": 2}}, {"a": {"y": 2, "z": 3}}, {"a": {"z": 3}}),
    ({}, {"a": {"y": 2, "x": 1}}, {"a": {"y": 2}}, {}),
    ({"a": ["x"]}, {"a": ["x", "y"]}, {"a": ["x", "y", "z"]}, {"a": ["x", "z"]}),
]


@pytest.mark.parametrize(("former", "made", "current", "back"), UNDONE)
def test_undone(former: Any, made: Any, current: Any, back: Any) -> None:
    """What we made goes, what was there comes back, what somebody has changed since stays."""
    assert _docker_daemon.undone(former, made, current) == back


def test_same_knows_true_from_one() -> None:
    """JSON's true isn't 1, though Python says so; the order of keys is nothing."""
    assert not _docker_daemon.same({"a": True}, {"a": 1})
    assert _docker_daemon.same({"a": 1, "b": 2}, {"b": 2, "a": 1})


def test_module_merges_backs_up_and_rests(tmp_path: Path) -> None:
    """A real run: the change, the byte-exact backup, the mode, then nothing more to do."""
    path = tmp_path / "daemon.json"
    old = b'{ "log-level" : "warn",\r\n "dns": ["10.0.0.1"] }'
    path.write_bytes(old)
    path.chmod(0o600)
    record = {"path": str(path), "record": str(tmp_path / "records/docker.json")}
    arguments = {
        **record,
        "settings": {"dns": ["10.0.0.2"], "features": {"cdi": True}},
        "defaults": {"log-level": "info"},
    }

    checked = adhoc.run(tmp_path, "docker_daemon_config", arguments, check=True)
    assert checked.result["changed"]
    assert path.read_bytes() == old
    assert '+        "10.0.0.2"' in checked.shown

    done = adhoc.run(tmp_path, "docker_daemon_config", arguments).result
    assert done["changed"]
    assert Path(done["backup_file"]).read_bytes() == old
    assert json.loads(path.read_text()) == {
        "log-level": "warn",
        "dns": ["10.0.0.1", "10.0.0.2"],
        "features": {"cdi": True},
    }
    assert path.stat().st_mode & 0o777 == 0o600

    again = adhoc.run(tmp_path, "docker_daemon_config", arguments).result
    assert not again["changed"]
    assert "backup_file" not in again

    # A second change, then all of it undone, byte for byte; a second time nothing.
    adhoc.run(tmp_path, "docker_daemon_config", {**record, "settings": {"debug": True}})
    assert json.loads(path.read_text())["debug"] is True
    assert adhoc.run(tmp_path, "docker_daemon_config", {**record, "state": "restored"}, check=True).result["changed"]
    assert adhoc.run(tmp_path, "docker_daemon_config", {**record, "state": "restored"}).result["changed"]
    assert path.read_bytes() == old
    assert not (tmp_path / "records").exists()
    assert not adhoc.run(tmp_path, "docker_daemon_config", {**record, "state": "restored"}).result["changed"]


def test_what_is_no_longer_asked_for_goes(tmp_path: Path) -> None:
    """Docker does not start with options for logs that are another driver's."""
    path = tmp_path / "daemon.json"
    path.write_text('{"log-level": "warn"}')
    given = {"path": str(path), "record": str(tmp_path / "records/docker.json")}
    rotation = {"log-driver": "json-file", "log-opts": {"max-size": "50m", "max-file": "3"}}

    def made(settings: dict[str, Any], defaults: dict[str, Any]) -> Any:
        arguments = {**given, "settings": settings, "defaults": defaults}
        assert adhoc.run(tmp_path, "docker_daemon_config", arguments).result["changed"]
        assert not adhoc.run(tmp_path, "docker_daemon_config", arguments).result["changed"]
        return json.loads(path.read_text())

    mirror = {"registry-mirrors": ["https://a", "https://b"]}
    assert made(mirror, rotation) == {"log-level": "warn", **mirror, **rotation}
    smaller = {"log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"}}
    mirror = {"registry-mirrors": ["https://b"]}
    assert made(mirror, smaller) == {"log-level": "warn", **mirror, **smaller}
    assert made({"log-driver": "journald"}, rotation) == {"log-level": "warn", "log-driver": "journald"}
    assert made({}, {}) == {"log-level": "warn"}


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"http-proxy": "http://me:pa-ss@proxy:3128"}, {"pa-ss"}),
        ({"proxies": ["http://a:p@x@host", "https://b:%40q@host/path"]}, {"p@x", "%40q"}),
        ({"http-proxy": 'me:can"äry@proxy:3128'}, {'can"äry'}),
        (["http://me@proxy:3128", "198.18.0.2:5000", "http://proxy:3128/a@b", "http://:@x", 5, True, None], set()),
    ],
)
def test_passwords_in_addresses(settings: Any, found: set[str]) -> None:
    assert _docker_daemon.passwords(settings) == found


def test_passwords_as_a_file_has_them() -> None:
    text = r'{"http-proxy": "http:\/\/me:can\u0026ary@proxy", "no-proxy": "a.example", "https-proxy": "me:x@proxy'
    assert _docker_daemon.written_passwords(text) == {r"can\u0026ary", "x"}


def test_a_proxys_password_is_shown_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(r'{"proxies": {"http-proxy": "http:\/\/me:old\u0026canary@proxy:3128"}}')
    proxies = {"http-proxy": "http://me:new-canary@proxy:3128", "https-proxy": "me:canary-ä@proxy:3128"}
    arguments = {
        "path": str(path),
        "record": str(tmp_path / "records/docker.json"),
        "settings": {"proxies": proxies},
    }
    for check in (True, False):
        outcome = adhoc.run(tmp_path, "docker_daemon_config", arguments, check=check, env={"ANSIBLE_VERBOSITY": "3"})
        assert outcome.result["changed"]
        assert "invocation" in outcome.shown
        assert "canary" not in outcome.shown
        assert "********" in outcome.shown
    assert json.loads(path.read_text())["proxies"] == proxies
    # Nor where the file can't be read, or is none.
    for spoilt in (b'{"http-proxy": "http://me:old-canary@proxy:3128"', b"\xff"):
        path.write_bytes(spoilt)
        outcome = adhoc.run(tmp_path, "docker_daemon_config", arguments, env={"ANSIBLE_VERBOSITY": "3"})
        assert outcome.result["failed"]
        assert "invocation" in outcome.shown
        assert "canary" not in outcome.shown


def test_module_makes_the_directory(tmp_path: Path) -> None:
    """A machine without any Docker configuration."""
    path = tmp_path / "etc" / "docker" / "daemon.json"
    record = {"path": str(path), "record": str(tmp_path / "docker.json")}
    done = adhoc.run(tmp_path, "docker_daemon_config", {**record, "settings": {"a": 1}})
    assert done.result["changed"]
    assert "backup_file" not in done.result
    assert json.loads(path.read_text()) == {"a": 1}
    assert adhoc.run(tmp_path, "docker_daemon_config", {**record, "state": "restored"}).result["changed"]
    assert not path.exists()


def test_module_leaves_a_bad_file_alone(tmp_path: Path) -> None:
    """No traceback, no change."""
    path = tmp_path / "daemon.json"
    path.write_text("{oops")
    done = adhoc.run(tmp_path, "docker_daemon_config", {"path": str(path), "settings": {"a": 1}})
    assert done.result["failed"]
    assert "line 1, column 2" in done.result["msg"]
    assert path.read_text() == "{oops"
    assert os.listdir(tmp_path).count("daemon.json") == 1


@pytest.mark.parametrize(
    ("shown", "written", "stale"),
    [
        ("ActiveState=active\nActiveEnterTimestamp=@1000\n", 1001.5, True),
        ("ActiveState=active\nActiveEnterTimestamp=@1000\n", 1000.9, False),
        ("ActiveState=active\nActiveEnterTimestamp=@1000\n", 999.0, False),
        ("ActiveState=inactive\nActiveEnterTimestamp=@1000\n", 1001.5, False),
        ("ActiveState=inactive\nActiveEnterTimestamp=\n", 1001.5, False),
        ("", 1001.5, False),
    ],
)
def test_stale_means_active_since_before_the_file_was_written(shown: str, written: float, stale: bool) -> None:
    assert _docker_daemon.is_stale(shown, written) is stale
