"""What an operator does with a group that serves, with the playbooks and by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.tools.operating import NODES, changes, command, environment, flags, on, play, server_info, serves

GROUP_LABEL = "docker inspect --format '{{index .Config.Labels \"dgx-spark.group\"}}' sglang-rank"


def rows(output: str) -> dict[str, list[str]]:
    """The rows of the status table, by node."""
    lines = [line.split() for line in output.splitlines() if line.startswith("spark-") and ":" not in line.split()[0]]
    return {line[0]: line[1:] for line in lines if len(line) > 2 and line[1].isdigit()}


def test_status_has_a_row_for_each_rank() -> None:
    shown = rows(play("playbooks/status.yml"))
    assert list(shown) == NODES
    for number, node in enumerate(NODES):
        assert shown[node][:3] == [str(number), "active", "serving"]
        assert shown[node][-2:] == ["Glm4MoeForCausalLM", "ok"]


def preflight(folder: Path, code: int = 0) -> dict[str, Any]:
    """The report of preflight."""
    play("playbooks/preflight.yml", "-e", f"preflight_out={folder}", code=code)
    assert (folder / "preflight.html").is_file()
    made: dict[str, Any] = json.loads((folder / "preflight.json").read_text())
    return made


def test_preflight_of_a_group_that_serves_finds_no_error_and_disturbs_nothing(tmp_path: Path) -> None:
    made = preflight(tmp_path)
    assert made["counts"]["error"] == 0, made["findings"]
    why = {name: one["why"] for one in made["not_applicable"] for name in one["checks"]}
    assert why["GPU.VISIBLE"] == "the ranks compute on CPUs (sglang_device: cpu)"
    assert why["FABRIC.GID"] == "the rails are not RDMA"
    assert why["HOST.TIME_SYNC"].startswith("the node is a container (podman)")
    states = {row["id"]: set(row["states"].values()) for row in made["checks"]}
    # Looked at, and not passed over: the group itself holds its ports.
    for name in (
        "FABRIC.PING",
        "FABRIC.MTU_EQUAL",
        "NET.PORTS",
        "NET.FIREWALL",
        "IMAGE.EQUAL",
        "MODEL.EQUAL",
        "MEM.GUARD",
    ):
        assert states[name] == {"ok"}, name
    assert serves()


def test_preflight_finds_a_broken_mtu(tmp_path: Path) -> None:
    on("spark-2", "ip link set enP2p1s0f1np1 mtu 1500")
    try:
        made = preflight(tmp_path, code=2)
    finally:
        on("spark-2", "ip link set enP2p1s0f1np1 mtu 9000")
    hosts = {one["id"]: one["hosts"] for one in made["findings"] if one["severity"] == "error"}
    assert set(hosts) == {"FABRIC.MTU", "FABRIC.MTU_EQUAL", "FABRIC.PING"}
    assert hosts["FABRIC.MTU"] == hosts["FABRIC.MTU_EQUAL"] == ["spark-2"]


def test_stopped_stays_stopped() -> None:
    play("playbooks/stop.yml")
    assert not serves()
    for node in NODES:
        # "dead" and not "auto-restart": nothing is going to start it again.
        assert on(node, "systemctl show --value --property SubState sglang-rank") == "dead"
        assert on(node, "docker ps --all --quiet") == ""
    assert {row[1] for row in rows(play("playbooks/status.yml")).values()} == {"inactive"}


def test_start_returns_when_it_serves() -> None:
    play("playbooks/start.yml")
    assert serves()


def test_a_container_stopped_by_hand_comes_back_with_its_group() -> None:
    on("spark-2", "docker stop sglang-rank")
    assert changes(play("site.yml")) == [0] * 4
    assert serves()


def test_a_killed_run_is_made_up_for_by_the_next() -> None:
    """Killed when the new units are written and nothing has been restarted yet."""
    wanted = flags(max_running_requests=3)
    with subprocess.Popen(
        command("site.yml", "--tags", "rank", *wanted),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if "Look at the rank" in line:
                os.killpg(run.pid, signal.SIGKILL)
                break
        run.stdout.read()
    assert run.returncode == -signal.SIGKILL
    assert server_info()["max_running_requests"] != 3
    play("site.yml", "--tags", "rank", *wanted)
    assert server_info()["max_running_requests"] == 3
    units = {
        on(node, "grep --only-matching 'max-running-requests 3' /etc/systemd/system/sglang-rank.service")
        for node in NODES
    }
    assert units == {"max-running-requests 3"}
    # Every rank runs what its own unit says.
    for node in NODES:
        label = on(node, GROUP_LABEL)
        assert label
        assert label in on(node, "cat /etc/systemd/system/sglang-rank.service")


def test_teardown_leaves_the_model_and_nothing_else() -> None:
    play("playbooks/teardown.yml")
    for node in NODES:
        assert on(node, "systemctl show --value --property LoadState sglang-rank") == "not-found"
        assert (
            on(
                node,
                "docker ps --all --quiet; ls -d /etc/dgx-spark/* /var/lib/dgx-spark/cache /opt/sglang/* 2>/dev/null",
            )
            == "/etc/dgx-spark/firewall.nft"
        )
        assert on(node, "ls /var/lib/dgx-spark/models/dgx-spark--glm4-moe-tiny/main/config.json") != ""


def test_teardown_of_data_takes_the_model_and_the_image_too() -> None:
    play("playbooks/teardown.yml", "-e", "rank_remove_data=true")
    for node in NODES:
        assert (
            on(node, "ls /var/lib/dgx-spark/models/dgx-spark--glm4-moe-tiny/main 2>/dev/null; docker image ls --quiet")
            == ""
        )


def test_teardown_of_nodes_that_were_never_set_up() -> None:
    # A node as it comes has nothing for Docker's modules.
    on("spark-1", "dpkg --purge --force-depends python3-requests")
    assert changes(play("playbooks/teardown.yml", "-e", "rank_remove_data=true")) == [0] * 4
