"""The real server on four nodes, looked at as a client and as an operator would."""

from __future__ import annotations

import json
import re
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from testinfra.host import Host

API = "http://198.18.0.11:30000"
RAIL = "198.18.100"
RANKS = 4
MODEL = "glm-tiny"
QUESTION: dict[str, Any] = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "Say something."}],
    "max_tokens": 12,
}


def number_of(host: Host) -> int:
    """The rank of a node, by its host name (spark-2 -> 2)."""
    return int(host.run("hostname").stdout.strip().rpartition("-")[2])


def ask(path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    """One request to rank 0, as a client on the LAN: (status, body)."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(API + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return answer.status, answer.read().decode()


def journal(host: Host) -> str:
    return str(host.check_output("journalctl --unit sglang-rank --output cat"))


@pytest.fixture(autouse=True)
def journal_on_failure(request: pytest.FixtureRequest, host: Host) -> Iterator[None]:
    """Show the end of the node's journal with a failure: the nodes are destroyed right after."""
    before = request.session.testsfailed
    yield
    if request.session.testsfailed > before:
        print("\n".join(journal(host).splitlines()[-40:]))


def test_unit_is_active_and_starts_at_boot(host: Host) -> None:
    unit = host.service("sglang-rank")
    assert unit.is_running
    assert unit.is_enabled


def test_started_once_since_the_bring_up(host: Host) -> None:
    """Neither the second run nor the check run stopped or restarted anything."""
    assert journal(host).count("server_args=ServerArgs(") == 1


def test_environment_is_for_root_only(host: Host) -> None:
    file = host.file("/etc/dgx-spark/rank.env")
    assert (file.user, file.mode) == ("root", 0o600)
    assert f"SGLANG_HOST_IP={RAIL}.{11 + number_of(host)}\n" in file.content_string


def test_container_has_no_privileges(host: Host) -> None:
    """The rails of the lab are no RDMA devices, so that nothing is kept of root's capabilities."""
    pid = host.check_output("docker inspect --format '{{.State.Pid}}' sglang-rank")
    status = dict(line.split(":\t", 1) for line in host.file(f"/proc/{pid}/status").content_string.splitlines())
    assert {name: int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {
        "CapPrm": 0,
        "CapEff": 0,
        "CapBnd": 0,
    }
    assert status["NoNewPrivs"] == "1"


def test_native_model_class(host: Host) -> None:
    assert "type=Glm4MoeForCausalLM" in journal(host)


def test_rank_is_its_own_part_of_the_tensor_parallel_group(host: Host) -> None:
    assert set(re.findall(r" TP(\d+)\] Load weight end", journal(host))) == {str(number_of(host))}


def test_rank_meets_rank_0_on_the_fabric(host: Host) -> None:
    if number_of(host) == 0:
        listening = host.check_output("ss --no-header --tcp --numeric state established src :50000")
        peers = set(re.findall(rf"{RAIL}\.(\d+)", listening)) - {"11"}
        assert peers == {"12", "13", "14"}
    else:
        sockets = host.check_output("ss --no-header --tcp --numeric state established dst :50000")
        # Written [::ffff:198.18.100.11]:50000 where the socket speaks IPv6 too.
        assert re.search(rf"{re.escape(RAIL)}\.11\]?:50000", sockets)


def test_every_rank_is_healthy_but_only_rank_0_serves(host: Host) -> None:
    number = number_of(host)
    address = "127.0.0.1" if number == 0 else f"{RAIL}.{11 + number}"
    code = "curl --silent --output /dev/null --write-out %{http_code} --max-time 30 http://" + address
    assert host.check_output(f"{code}:30000/health") == "200"
    assert host.check_output(f"{code}:30000/v1/models") == ("200" if number == 0 else "404")


@pytest.fixture(scope="module")
def seen_images() -> set[str]:
    """One set for the nodes, which are looked at one after another."""
    return set()


def test_all_nodes_hold_the_same_image(host: Host, seen_images: set[str]) -> None:
    name = "198.18.0.2:5000/sglang-cpu:0.5.4.post2"
    own = host.check_output(f"docker image inspect --format '{{{{.Id}}}}' {name}")
    running = host.check_output("docker inspect --format '{{.Image}}' sglang-rank")
    assert own == running
    seen_images.add(own)
    assert len(seen_images) == 1


def test_nothing_is_left_of_passing_files_on(host: Host) -> None:
    assert not host.service("dgx-spark-spread").is_running
    assert not host.file("/var/lib/dgx-spark/spread").exists
    assert not host.file("/run/dgx-spark-hub-token").exists


def test_health() -> None:
    assert ask("/health")[0] == 200


def test_models() -> None:
    assert [model["id"] for model in json.loads(ask("/v1/models")[1])["data"]] == [MODEL]


def test_chat() -> None:
    answer = json.loads(ask("/v1/chat/completions", QUESTION)[1])
    assert answer["usage"]["completion_tokens"] >= 1
    assert answer["choices"][0]["finish_reason"] in ("length", "stop")


def test_stream_ends_with_usage_and_done() -> None:
    body = {**QUESTION, "stream": True, "stream_options": {"include_usage": True}}
    _, text = ask("/v1/chat/completions", body)
    events = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert chunks[-1]["usage"]["completion_tokens"] >= 1
    assert any(choice["delta"] for chunk in chunks for choice in chunk["choices"])


def test_metrics() -> None:
    series = [line for line in ask("/metrics")[1].splitlines() if line.startswith("sglang:")]
    assert any(line.startswith("sglang:prompt_tokens_total") for line in series)


def test_server_knows_of_all_ranks() -> None:
    info = json.loads(ask("/get_server_info")[1])
    assert (info["tp_size"], info["nnodes"], info["device"]) == (RANKS, RANKS, "cpu")
