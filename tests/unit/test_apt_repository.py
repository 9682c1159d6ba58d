# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The lab's signed apt repository as the real apt reads it by way of apt_source, and the nvidia-ctk in its package."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _apt_source, _container_runtime, _docker_daemon
from ansible_collections.dgx_spark.sglang.roles.rank.files.dgx_spark_gates import in_cdi
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

from lab import apt_repository

NAME = "dgx-spark-nvidia-container-toolkit"


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    apt_repository.publish(root, "1.17.8", "1.19.0")
    return root


def arguments(root: Path, repository: Path, **changes: Any) -> dict[str, Any]:
    key = (repository / "gpgkey").read_text()
    given = {"name": NAME, "uri": f"file:{repository}/$(ARCH)", "suite": "/", "key": key, "root": str(root)}
    return {**given, "fingerprints": _apt_source.fingerprints(key), **changes}


def apt(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The real apt, with all of its files under a root of its own."""
    for folder in (
        "var/lib/apt/lists/partial",
        "var/cache/apt/archives/partial",
        "var/lib/dpkg",
        "etc/apt/preferences.d",
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "var/lib/dpkg/status").touch()
    options = [f"Dir={root}", f"Dir::State::status={root}/var/lib/dpkg/status", "APT::Sandbox::User=root"]
    command = [words[0], *(word for option in options for word in ("-o", option)), *words[1:]]
    (root / "apt.conf").touch()
    environment = {**os.environ, "LC_ALL": "C", "APT_CONFIG": str(root / "apt.conf")}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_apt_takes_what_the_key_has_signed(tmp_path: Path, repository: Path) -> None:
    given = arguments(tmp_path, repository)
    assert adhoc.run(tmp_path, "apt_source", given, check=True).result["changed"]
    assert not (tmp_path / "etc").exists()
    assert adhoc.run(tmp_path, "apt_source", given).result["changed"]
    assert not adhoc.run(tmp_path, "apt_source", given).result["changed"]
    text = (tmp_path / f"etc/apt/sources.list.d/{NAME}.sources").read_text()
    assert f"Signed-By: {tmp_path}/etc/apt/keyrings/{NAME}.asc" in text

    updated = apt(tmp_path, "apt-get", "update")
    assert updated.returncode == 0, updated.stderr
    assert "W:" not in updated.stderr
    policy = apt(tmp_path, "apt-cache", "policy", "nvidia-container-toolkit").stdout
    assert "Candidate: 1.19.0-1" in policy
    assert "1.17.8-1" in policy


@pytest.mark.parametrize("spoil", ["another key", "a changed package list", "no signature"])
def test_apt_refuses_everything_else(tmp_path: Path, spoil: str) -> None:
    """So the key and the signature count: without them the test above would prove nothing."""
    folder = apt_repository.publish(tmp_path / "mine", "1.19.0")
    given = arguments(tmp_path, tmp_path / "mine")
    if spoil == "another key":
        apt_repository.publish(tmp_path / "other", "1.19.0")
        given["key"], given["fingerprints"] = (tmp_path / "other/gpgkey").read_text(), []
    elif spoil == "a changed package list":
        for name in ("Packages", "Packages.gz"):
            (folder / name).write_bytes((folder / name).read_bytes() + b"\n")
    else:
        (folder / "InRelease").unlink()
    assert adhoc.run(tmp_path, "apt_source", given).result["changed"]
    updated = apt(tmp_path, "apt-get", "update")
    assert updated.returncode != 0
    assert apt(tmp_path, "apt-cache", "policy", "nvidia-container-toolkit").stdout == ""


def test_a_key_that_is_not_the_known_one_ends_before_anything_is_written(tmp_path: Path, repository: Path) -> None:
    known = ["C95B 321B 61E8 8C18 09C4  F759 DDCA E044 F796 ECB0"]
    done = adhoc.run(tmp_path, "apt_source", arguments(tmp_path, repository, fingerprints=known))
    assert done.result["failed"]
    assert "C95B321B61E88C1809C4F759DDCAE044F796ECB0" in done.result["msg"]
    assert "Mend:" in done.result["msg"]
    assert not (tmp_path / "etc").exists()


def test_fingerprints_are_those_that_gpg_shows(repository: Path) -> None:
    show = ["gpg", "--homedir", str(repository), "--batch", "--quiet", "--show-keys", "--with-colons"]
    shown = subprocess.run([*show, str(repository / "gpgkey")], capture_output=True, text=True, check=True).stdout
    expected = [line.split(":")[9] for line in shown.splitlines() if line.startswith("fpr:")]
    assert _apt_source.fingerprints((repository / "gpgkey").read_text()) == expected
    spaced = [" ".join(expected[0][at : at + 4] for at in range(0, 40, 4)).lower()]
    _apt_source.check_key((repository / "gpgkey").read_text(), spaced)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no OpenPGP public key"),
        ("<html>404</html>", "no OpenPGP public key"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n", "damaged"),
        ("-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmQ==\n-----END PGP PUBLIC KEY BLOCK-----\n", "damaged"),
    ],
)
def test_what_is_no_key(text: str, words: str) -> None:
    with pytest.raises(_apt_source.BadKeyError, match=words):
        _apt_source.check_key(text, [])


@pytest.mark.parametrize(
    ("head", "size"), [(b"\xc6\x05", 5), (b"\xc6\xc0\x08", 200), (b"\xc6\xff\x00\x00\x00\x05", 5), (b"\x98\x05", 5)]
)
def test_packets_of_both_formats(head: bytes, size: int) -> None:
    body = b"\x04" * size
    assert _apt_source.packets(head + body + b"\xcd\x00") == [(6, body), (13, b"")]
    with pytest.raises((ValueError, IndexError)):
        _apt_source.packets(head + body[:-1])


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The package, unpacked beside a driver."""
    root = tmp_path_factory.mktemp("system")
    (deb,) = repository.glob("*/nvidia-container-toolkit_1.19.0-1_*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(deb), str(root)], check=True)
    (root / "usr/lib/any-linux-gnu").mkdir()
    (root / "usr/lib/any-linux-gnu/libcuda.so.1").touch()
    return root


def ctk(system: Path, words: Sequence[str], root: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "NVIDIA_CTK_DRIVER_ROOT": str(root or system)}
    command = [str(system / "usr/bin/nvidia-ctk"), *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_its_version_is_that_of_the_package(system: Path, repository: Path, tmp_path: Path) -> None:
    assert _container_runtime.version_in(ctk(system, ["--version"]).stdout) == "1.19.0"
    assert (system / "usr/lib/systemd/system/nvidia-cdi-refresh.service").exists()
    (deb,) = repository.glob("*/nvidia-container-toolkit_1.17.8-1_*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(deb), str(tmp_path)], check=True)
    assert _container_runtime.version_in(ctk(tmp_path, ["--version"]).stdout) == "1.17.8"
    assert not (tmp_path / "usr/lib").exists()


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_specification_is_generated_and_listed(system: Path, tmp_path: Path, suffix: str) -> None:
    """By the gates' own reader too."""
    made = ctk(system, ["cdi", "generate", f"--output={tmp_path}/nvidia.{suffix}"])
    assert made.returncode == 0
    assert made.stdout == ""
    assert "Generated CDI spec" in made.stderr
    listed = ctk(system, ["cdi", "list", f"--spec-dir={tmp_path}"])
    assert {"nvidia.com/gpu=0", "nvidia.com/gpu=all"} <= set(listed.stdout.split())
    assert "Found 3 CDI devices" in listed.stderr
    assert in_cdi((tmp_path / f"nvidia.{suffix}").read_text(), "nvidia.com/gpu=all")


def test_without_a_driver_it_fails(system: Path, tmp_path: Path) -> None:
    made = ctk(system, ["cdi", "generate", f"--output={tmp_path}/nvidia.yaml"], root=tmp_path)
    assert made.returncode == 1
    assert "level=error" in made.stderr
    assert not (tmp_path / "nvidia.yaml").exists()


@pytest.mark.parametrize("before", ["", '{"dns": ["10.0.0.1"], "runtimes": {"kata": {"path": "/opt/kata"}}}'])
def test_runtime_configure_and_the_role_come_to_the_same(system: Path, tmp_path: Path, before: str) -> None:
    path = tmp_path / "daemon.json"
    path.write_text(before)
    assert ctk(system, ["runtime", "configure", "--runtime=docker", f"--config={path}"]).returncode == 0
    options = _container_runtime.Options("cuda", ["nvidia.com/gpu=all"], {}, "", 3)
    current = json.loads(before) if before else {}
    ours = _docker_daemon.with_defaults(current, _container_runtime.daemon_defaults(options))
    assert _docker_daemon.same(json.loads(path.read_text()), ours)
