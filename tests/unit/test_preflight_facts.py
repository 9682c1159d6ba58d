# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What preflight gathers from a node: formats that are read, sources that fail or hang, and this machine itself."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_facts as facts
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_parse as parse
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_node import Node
from ansible_collections.dgx_spark.sglang.plugins.module_utils._rank import UNIT

from tests.unit import adhoc
from tests.unit.preflight_nodes import TEXTS, gathered, plan

QUESTIONS: dict[str, Any] = {"image": "none.example/none:1", "model": "/nonexistent/models/x"}


def node(**told: Any) -> Node:
    """Rank 0 of the group, with other answers under some names."""
    answers = gathered(0)
    answers.update({name: {"value": value, "problem": ""} for name, value in told.items()})
    return Node(plan()["ranks"][0], answers)


def test_meminfo() -> None:
    told = parse.meminfo(TEXTS["meminfo"])
    assert (told["MemTotal"], told["CmaFree"]) == (127535104 * 1024, 61440 * 1024)
    assert "HugePages_Total" not in told  # counts pages, not kB


def test_units_and_packages() -> None:
    assert parse.units(TEXTS["units"])["earlyoom.service"] == {
        "Id": "earlyoom.service",
        "ActiveState": "active",
        "LoadState": "loaded",
    }
    packages = parse.packages(TEXTS["packages"])
    assert packages["nvidia-driver-580-open"] == ("580.95.05-0ubuntu0.24.04.2", True)
    assert packages["docker-ce"].held is False
    # Removed, with its settings left.
    assert "linux-image-6.11.0-1016-nvidia" not in packages
    assert parse.packages("ii  nvidia-driver-580:arm64 1.0\n") == {"nvidia-driver-580": ("1.0", False)}


@pytest.mark.parametrize(
    ("text", "on"),
    [
        (TEXTS["updates"], True),
        ('APT::Periodic::Unattended-Upgrade "0";\n', False),
        ('APT::Periodic::Unattended-Upgrade "7";\n', True),
        ("", False),
    ],
)
def test_updates(text: str, on: bool) -> None:
    assert parse.updates(text) is on


def test_gpus_of_a_gb10_and_of_one_that_tells_little() -> None:
    assert parse.gpus(TEXTS["nvidia_smi"]) == [("NVIDIA GB10", "580.95.05", "12.1", 2405, 3003, 96)]
    assert parse.gpus("NVIDIA GB10, 580.95.05, 12.1, [N/A], [N/A], [Not Supported]\n")[0][3:] == (None, None, None)
    assert parse.gpus("No devices were found\n") == []
    assert parse.apps(TEXTS["gpu_apps"]) == [(4711, "sglang::scheduler")]


@pytest.mark.parametrize("form", ["cdi_yaml", "cdi_json"])
def test_cdi_specifications(form: str) -> None:
    assert parse.cdi_names(TEXTS[form]) == ["nvidia.com/gpu=0", "nvidia.com/gpu=all"]


@pytest.mark.parametrize("text", ["", "devices:\n- name: all\n", '{"kind": "nvidia.com/gpu"}', "[]"])
def test_what_is_no_cdi_specification_names_nothing(text: str) -> None:
    assert parse.cdi_names(text) == []


def test_sockets_of_listeners_alone() -> None:
    assert parse.sockets(TEXTS["proc_net_tcp"], parse.TCP_LISTEN, [30000, 50000]) == {"31001": 30000, "31002": 50000}
    assert parse.sockets(TEXTS["proc_net_udp"], parse.UDP_OPEN, [50001]) == {"31005": 50001}


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("5:28.5.1-1~ubuntu.24.04~noble", (28, 5, 1)),
        ("255.4-1ubuntu8.10", (255, 4)),
        ("580.95.05", (580, 95, 5)),
        ("20.10.24+dfsg1", (20, 10, 24)),
        ("v1.2", (1, 2)),
        ("unknown", ()),
    ],
)
def test_versions(text: str, numbers: tuple[int, ...]) -> None:
    assert parse.version(text) == numbers


def test_no_secret_leaves_the_node() -> None:
    """A proxy's password stands in `docker info`, others in an image's environment."""
    info, image = parse.docker_info(TEXTS["docker_info"]), parse.inspected(TEXTS["inspect_image"])
    assert (info["ServerVersion"], info["CDISpecDirs"]) == ("28.5.1", ["/etc/cdi", "/var/run/cdi"])
    assert image == {"id": json.loads(TEXTS["inspect_image"])[0]["Id"], "running": False, "nccl": "2.27.7"}
    assert "hunter2" not in json.dumps([info, image])


def test_docker_without_a_daemon() -> None:
    assert parse.docker_info('{"ID": "", "Driver": "", "ServerErrors": ["Cannot connect"]}\n') == {}
    assert parse.docker_info("") == {}


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("lmsysorg/sglang:spark", "registry-1.docker.io"),
        ("ubuntu", "registry-1.docker.io"),
        ("nvcr.io/nvidia/sglang:25.10-py3", "nvcr.io"),
        ("localhost:5000/x", "localhost"),
        ("198.18.0.2:5000/sglang-cpu:0.5.4.post2", "198.18.0.2"),
        ("https://huggingface.co", "huggingface.co"),
        ("http://user:pass@hub.example:8080/path", "hub.example"),
    ],
)
def test_the_machine_in_an_image_or_url(reference: str, name: str) -> None:
    assert parse.host_of(reference) == name


def test_whose_a_process_is() -> None:
    one = node()
    assert [one.is_ours(TEXTS[f"cgroup_{who}"]) for who in ("unit", "container", "other")] == [True, True, False]
    # Without a rank's container no container is ours.
    assert not node(container=None).is_ours(TEXTS["cgroup_container"])
    assert UNIT in TEXTS["cgroup_unit"]


def test_a_source_that_hangs_is_left_behind_and_one_that_fails_says_why() -> None:
    release = threading.Event()

    def refuses() -> None:
        raise facts.SourceError("it is not installed")

    def breaks() -> None:
        raise ValueError("no JSON")

    began = time.monotonic()
    told = facts.gather({"good": lambda: 1, "hangs": release.wait, "refuses": refuses, "breaks": breaks}, seconds=0.3)
    assert time.monotonic() - began < 2
    release.set()
    assert told["good"] == {"value": 1, "problem": ""}
    assert told["hangs"]["problem"] == "no answer within 0.3 s"
    assert told["refuses"]["problem"] == "it is not installed"
    assert told["breaks"]["problem"] == "breaks can't be read: no JSON"


def test_a_command_that_is_missing_or_hangs() -> None:
    with pytest.raises(facts.SourceError, match="no-such-tool is not installed"):
        facts.run("no-such-tool")
    with pytest.raises(facts.SourceError, match="`sleep 60` gave no answer"):
        facts.run("sleep", "60", seconds=0.1)
    assert facts.run("sh", "-c", "echo out; echo bad >&2; exit 3") == {"code": 3, "out": "out\n", "error": "bad"}


def test_who_holds_a_port() -> None:
    with (
        socket.socket() as listening,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound,
        socket.socket() as idle,
    ):
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        bound.bind(("127.0.0.1", 0))
        idle.bind(("127.0.0.1", 0))  # does not listen
        tcp, udp, free = (one.getsockname()[1] for one in (listening, bound, idle))
        holders = facts.holders([tcp, free], [udp])
    assert [(one["protocol"], one["port"], one["pid"]) for one in holders] == [
        ("tcp", tcp, str(os.getpid())),
        ("udp", udp, str(os.getpid())),
    ]
    assert all(one["name"] and one["cgroup"] for one in holders)


ENDED = {"pid": "7", "cgroup": ""}
LIVES = {"pid": "8", "cgroup": "0::/user.slice"}


def test_who_ends_while_it_is_looked_at_holds_nothing() -> None:
    looks = iter([[ENDED, LIVES], [LIVES]])
    assert facts.settled(lambda: next(looks)) == [LIVES]


def test_who_has_no_process_is_told_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "ENDING_SECONDS", 0.2)
    assert facts.settled(lambda: [ENDED]) == [ENDED]


@pytest.mark.parametrize("source", ["listeners", "gpu_users"])
def test_holders_are_looked_at_until_they_are_settled(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([[ENDED], []])
    for look in ("holders", "gpu_users"):
        monkeypatch.setattr(facts, look, lambda *_: next(looks))
    assert facts.sources_of(facts.Questions(image="", model="", cuda=True))[source]() == []


def test_the_container_is_known_before_it_is_asked_who_holds_what(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    sources = {name: lambda name=name: asked.append(name) for name in ("listeners", "container", "gpu_users")}
    monkeypatch.setattr(facts, "sources_of", lambda questions: sources)
    told = facts.answers(facts.Questions(image="", model=""))
    assert asked[0] == "container"
    assert set(told) == {"listeners", "container", "gpu_users"}


def test_disk_of_what_is_not_there_yet(tmp_path: Path) -> None:
    assert facts.disk(str(tmp_path / "a/b/c"))["path"] == str(tmp_path)
    assert facts.disk(str(tmp_path / "a/b/c"))["free"] > 0


def test_docker_may_keep_its_images_elsewhere(tmp_path: Path) -> None:
    settings = tmp_path / "daemon.json"
    assert facts.docker_root(str(settings)) == "/var/lib/docker"
    settings.write_text('{"data-root": "/srv/docker"}')
    assert facts.docker_root(str(settings)) == "/srv/docker"
    settings.write_text("{ broken")
    assert facts.docker_root(str(settings)) == "/var/lib/docker"


def test_module_on_this_machine(tmp_path: Path) -> None:
    """The real tools and files of whatever runs the tests, in bounded time, with GPUs asked for that are not there."""
    began = time.time()
    arguments: dict[str, Any] = {
        **QUESTIONS,
        "interfaces": ["lo"],
        "addresses": ["127.0.0.1"],
        "tcp": [9],
        "udp": [9],
        "cuda": True,
    }
    peers = [{"interface": "lo", "address": "127.0.0.1", "host": "myself"}]
    result = adhoc.run(tmp_path, "preflight_facts", {**arguments, "peers": peers, "names": ["localhost"]}).result
    assert not result["failed"], result
    assert not result["changed"]
    told = result["gathered"]
    assert set(told) == set(facts.sources_of(facts.Questions(**{**arguments, "peers": peers})))
    assert all((one["value"] is None) or not one["problem"] for one in told.values())
    assert told["system"]["value"]["kernel"] == os.uname().release
    assert parse.meminfo(told["files"]["value"]["/proc/meminfo"])["MemTotal"] > 0
    assert told["names"]["value"]["localhost"]
    sent, received = result["window"]
    assert began <= sent <= told["clock"]["value"]["now"] <= received <= time.time()
    assert received - sent < facts.ALL_SECONDS + 15


def test_module_refuses_what_is_no_address(tmp_path: Path) -> None:
    result = adhoc.run(tmp_path, "preflight_facts", {**QUESTIONS, "addresses": ["192.168.100.11/24"]}).result
    assert result["failed"]
    assert "is not an IPv4 address. Mend:" in result["msg"]
