"""What a config-only rollout does to a group that serves, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.tools.glm47_outputs import OUTPUTS, TOOLS, Output
from tests.tools.operating import (
    NODES,
    asked,
    changes,
    command,
    environment,
    flags,
    on,
    on_all,
    play,
    server_info,
    serves,
    until,
)

# The tiny model over four ranks: 16 experts, 256 / 4 columns each; a Spark's GPU as the lab's nodes show it.
UP = "E=16,N=64,device_name=NVIDIA_GB10.json"
TILE = {"BLOCK_SIZE_M": 16, "BLOCK_SIZE_N": 64, "BLOCK_SIZE_K": 64, "GROUP_SIZE_M": 1, "num_warps": 4, "num_stages": 3}
# The lab's stand-in for a GPU fails on it at the first forward, and no check before it does.
FAULTY = {**TILE, "num_warps": 32}
# (128 + 256) * 128 * 2 bytes * (4 - 1) stages.
TOO_LARGE = {**TILE, "BLOCK_SIZE_M": 128, "BLOCK_SIZE_N": 256, "BLOCK_SIZE_K": 128, "num_stages": 4}

INVOCATION = "systemctl show --value --property InvocationID sglang-rank"
RESTARTS = "systemctl show --value --property NRestarts sglang-rank"
USED = "docker inspect --format '{{index .Config.Labels \"dgx-spark.release\"}}' sglang-rank"
CURRENT = "basename $(readlink /opt/sglang/current); readlink /run/dgx-spark/trial"
RELEASES = "ls -A /opt/sglang/releases"
UNIT = "sha256sum /etc/systemd/system/sglang-rank.service"
IMAGE = "docker inspect --format '{{.Config.Image}}' sglang-rank"
# One restart is enough to see that a server does not start; three are for what may have been a bad moment.
ONE_TRY = ("-e", "rank_start_attempts=1")
MOUNTS = "docker inspect --format '{{range .Mounts}}{{println .Destination}}{{end}}' sglang-rank"
MOUNTED = f"{MOUNTS} | grep -c 'function_call/\\|/configs/'"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("configs")


def rollout(folder: Path, entries: dict[str, dict[str, int]] | str, *more: str, code: int = 0) -> str:
    """Write the user's file and roll it out."""
    (folder / UP).write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return play("site.yml", *arguments(folder), *more, code=code)


def arguments(folder: Path) -> list[str]:
    return ["--tags", "config", "-e", json.dumps({"moe_config_dirs": [str(folder)]})]


def mounted(node: str) -> dict[str, dict[str, int]]:
    """The entries in the running container, where SGLang says that it read them."""
    path = on(node, 'journalctl -u sglang-rank --output cat --grep "Using MoE kernel config" | tail -n 1')
    file = path.partition(" from ")[2].rstrip(".")
    entries: dict[str, dict[str, int]] = json.loads(on(node, f"docker exec sglang-rank cat '{file}'"))
    return entries


def test_a_parser_that_the_image_has_needs_no_patch() -> None:
    assert len(set(on_all(USED))) == 1
    assert on_all(CURRENT) == on_all(USED)
    assert on("spark-0", "grep MOUNTS /opt/sglang/current/release.env") == 'SGLANG_MOUNTS=""'


def test_without_the_patch_the_unit_fails_with_the_reason() -> None:
    play("site.yml", "--tags", "config", "--skip-tags", "parser_patch", "-e", "release_restart=false")
    output = play("playbooks/restart.yml", *ONE_TRY, code=2)
    assert "Reason in the log: argument --tool-call-parser: invalid choice: 'glm47'" in output
    assert ": argument --tool-call-parser: invalid choice: 'glm47'" in play("playbooks/status.yml")
    # Supervisor and systemd have tried again and again; a stop ends the count of both, at whatever moment it comes.
    play("playbooks/stop.yml")
    assert on_all("ls /run/sglang-rank | grep history || true") == [""] * 4
    assert on_all(RESTARTS) == ["0"] * 4


def test_the_patch_and_a_file_of_the_users_come_with_one_restart(folder: Path) -> None:
    units = on_all(UNIT)
    output = rollout(folder, {"1": TILE, "64": TILE})
    assert "invalid choice" not in output
    assert on_all(RESTARTS) == ["0"] * 4
    assert serves()
    assert server_info()["tool_call_parser"] == "glm47"
    assert [mounted(node) for node in NODES] == [{"1": TILE, "64": TILE}] * 4
    assert on_all(MOUNTED) == ["4"] * 4
    # Which parser is used goes with the release.
    assert on_all(UNIT) == units


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.about)
def test_the_server_reads_what_glm47_writes(output: Output) -> None:
    question = {"text": output.text, "tools": TOOLS, "tool_call_parser": "glm47"}
    answer = asked("/parse_function_call", question)
    calls = [[call["name"], json.loads(call["parameters"])] for call in answer["calls"]]
    assert (answer["normal_text"], calls) == (output.normal_text, output.calls)
    assert [call["tool_index"] for call in answer["calls"]] == list(range(len(calls)))


def test_a_second_run_changes_nothing(folder: Path) -> None:
    before = on_all(INVOCATION)
    output = play("site.yml", *arguments(folder))
    assert changes(output) == [0] * 4
    assert on_all(INVOCATION) == before


def test_one_entry_changed_restarts_all_ranks_once_and_changes_nothing_else(folder: Path) -> None:
    before, units = on_all(INVOCATION), on_all(UNIT)
    # A flag that is changed as well waits for a run of its stage.
    rollout(folder, {"1": TILE, "64": {**TILE, "BLOCK_SIZE_N": 32}}, *flags(max_running_requests=3))
    assert all(one != other for one, other in zip(before, on_all(INVOCATION), strict=True))
    assert on_all(RESTARTS) == ["0"] * 4
    assert [mounted(node)["64"]["BLOCK_SIZE_N"] for node in NODES] == [32] * 4
    assert server_info()["max_running_requests"] != 3
    assert on_all(UNIT) == units


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ({"1": TILE, "512": TOO_LARGE}, "M 512: 294,912 bytes of shared memory, over the 101,376 of NVIDIA GB10"),
        ('{"1": ', "Is not JSON"),
    ],
)
def test_a_bad_file_changes_nothing(folder: Path, entries: dict[str, dict[str, int]] | str, told: str) -> None:
    before = [on_all(INVOCATION), on_all(CURRENT), on_all(RELEASES)]
    good = (folder / UP).read_text()
    output = rollout(folder, entries, code=2)
    (folder / UP).write_text(good)
    assert told in output
    assert str(folder / UP) in output
    assert changes(output) == [0] * 4
    assert [on_all(INVOCATION), on_all(CURRENT), on_all(RELEASES)] == before


def test_what_the_server_fails_on_is_rolled_back(folder: Path) -> None:
    used = on_all(USED)
    output = rollout(folder, {"1": FAULTY}, *ONE_TRY, code=2)
    assert f"did not serve, so the group is back on {used[0]}." in output
    assert serves()
    assert on_all(USED) == used
    assert on_all(CURRENT) == used
    assert on_all(RESTARTS) == ["0"] * 4
    assert [set(mounted(node)) for node in NODES] == [{"1", "64"}] * 4


def lose_power_when_all_have_switched(lost: str, folder: Path) -> None:
    """A power cut in the middle of a rollout, when no rank has been restarted."""
    with subprocess.Popen(
        command("site.yml", *arguments(folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    ) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if "Stop all ranks if one of them runs anything else" in line:
                subprocess.run(["podman", "kill", lost], check=True, capture_output=True)
                break
        rest = run.stdout.read()
    assert run.returncode != 0
    assert "unreachable=1" in rest


def test_a_node_that_goes_down_leaves_all_on_the_old_release(folder: Path) -> None:
    used = on_all(USED)
    (folder / UP).write_text(json.dumps({"1": TILE, "128": TILE}))
    try:
        lose_power_when_all_have_switched("spark-3", folder)
        others = NODES[:3]
        assert [on(node, CURRENT) for node in others] == used[:3]

        # While it is down, nothing is even begun.
        output = rollout(folder, {"1": TILE, "256": TILE}, code=4)
        assert [on(node, CURRENT) for node in others] == used[:3]
        assert changes(output) == [0] * 4
    finally:
        subprocess.run(["podman", "start", "spark-3"], check=True, capture_output=True)
    until("the group serves again", lambda: serves() and on("spark-3", USED) == used[3], 300)
    assert on_all(USED) == used
    assert on_all(CURRENT) == used


def test_a_parser_that_is_not_there_changes_nothing(folder: Path) -> None:
    before = [on_all(INVOCATION), on_all(CURRENT), on_all(RELEASES)]
    output = play("site.yml", *arguments(folder), *flags(tool_call_parser="glm-47"), code=2)
    assert "has no tool-call parser glm-47; there are" in output
    assert "Mend: set cluster_flags: {tool-call-parser: glm47}" in output
    assert changes(output) == [0] * 4
    assert [on_all(INVOCATION), on_all(CURRENT), on_all(RELEASES)] == before


def test_rollback_lists_and_goes_back(folder: Path) -> None:
    used = on("spark-0", USED)
    output = play("playbooks/rollback.yml", "-e", "release_to=000000000000", code=2)
    assert "There is no release 000000000000" in output
    assert used in output
    before = on_all(INVOCATION)
    output = play("playbooks/rollback.yml")
    assert "current" in output.partition(used)[2].partition("\n")[0]
    assert all(one != other for one, other in zip(before, on_all(INVOCATION), strict=True))
    assert [mounted(node) for node in NODES] == [{"1": TILE, "64": TILE}] * 4
    assert on_all(CURRENT) == on_all(USED)
    assert used not in on_all(USED)


def test_both_can_be_baked_into_an_image(folder: Path) -> None:
    rollout(folder, {"1": TILE}, "-e", "image_bake=true")
    images = on_all(IMAGE)
    assert images[0].startswith("localhost/dgx-spark/sglang:")
    assert images == images[:1] * 4
    assert on_all(MOUNTED) == ["0"] * 4
    assert [mounted(node) for node in NODES] == [{"1": TILE}] * 4
    assert server_info()["tool_call_parser"] == "glm47"
    assert changes(play("site.yml", *arguments(folder), "-e", "image_bake=true")) == [0] * 4


def test_a_rollback_goes_back_with_the_parser_too() -> None:
    """From an image with the patch to the stock image, and its parser."""
    first = on("spark-0", "grep --files-without-match glm47 /opt/sglang/releases/*/release.env").split("/")[-2]
    output = play("playbooks/rollback.yml", "-e", f"release_to={first}")
    assert "baked in" in output
    assert on_all(USED) == [first] * 4
    assert serves()
    assert server_info()["tool_call_parser"] == "glm"
    assert on_all(MOUNTED) == ["0"] * 4
    assert set(on_all(IMAGE)) == {"198.18.0.2:5000/sglang-cpu:0.5.4.post2"}
