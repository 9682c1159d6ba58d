# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""One rank of the all-reduce: NCCL's log, the container, and the module with a stand-in for Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _fabric_all_reduce as rank_of
from ansible_collections.dgx_spark.sglang.plugins.modules import fabric_all_reduce as module
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "roles/fabric_test/files/all_reduce.py"
OUTPUTS: dict[str, str] = yaml.safe_load((Path(__file__).parent / "fixtures/fabric_test.yml").read_text())
ENDED_ITSELF = """\
Timeout (0:00:09)!
Thread 0x00007f0b1c9d3740 (most recent call first):
  File "/torch/distributed/distributed_c10d.py", line 1764 in init_process_group
  File "<string>", line 70 in main
"""
HCAS = ["rocep1s0f1", "roceP2p1s0f1"]


@pytest.mark.parametrize("name", ["nccl_ib", "nccl_ib_new"])
def test_nccl_over_both_rails(name: str) -> None:
    seen = rank_of.nccl(OUTPUTS[name])
    assert seen.taken == ("IB",)
    assert list(seen.hcas) == HCAS
    assert seen.bootstrap == "enp1s0f1np1 192.168.100.11"
    assert rank_of.network_problem(seen, HCAS) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("nccl_sockets", "NCCL took sockets, not RDMA by rocep1s0f1, roceP2p1s0f1"),
        ("nccl_2_28_sockets", "NCCL took sockets, not RDMA by rocep1s0f1, roceP2p1s0f1"),
        ("nccl_2_28_no_network", "NCCL's log names no network"),
        ("nccl_sockets_found", "NCCL took sockets, not RDMA by rocep1s0f1, roceP2p1s0f1"),
        # One channel is enough to drag all others.
        ("nccl_sockets_for_one_channel", "NCCL took sockets, not RDMA by rocep1s0f1, roceP2p1s0f1"),
        ("nccl_one_rail", "NCCL uses rocep1s0f1, but not roceP2p1s0f1"),
        ("nccl_other_plugin", "NCCL took Libfabric, not RDMA by rocep1s0f1, roceP2p1s0f1"),
        ("", "NCCL's log names no network"),
    ],
)
def test_nccl_over_anything_else(name: str, problem: str) -> None:
    """Sockets are a failure, as is a device that is not used; each has its mend."""
    found = rank_of.network_problem(rank_of.nccl(OUTPUTS.get(name, "")), HCAS)
    assert found
    assert found[0] == problem
    assert re.match(r"[A-Z].*\.$", found[1])


def test_its_own_answer() -> None:
    """The rank's line is found among the library's."""
    answer = rank_of.answer_of(OUTPUTS["nccl_ib"])
    assert answer
    assert answer["results"] == [{"bytes": 67108864, "seconds": 0.003, "right": True}]
    assert rank_of.answer_of(OUTPUTS["nccl_ib_new"]) is None
    assert rank_of.answer_of(f"{rank_of.MARK}[1]") is None
    assert rank_of.answer_of(f"{rank_of.MARK}oops") is None
    assert f'MARK = "{rank_of.MARK}"' in SCRIPT.read_text()


def test_what_is_kept_of_a_log() -> None:
    """NCCL tells its network first, then of all its channels."""
    channels = "".join(f"vm:470:470 [0] NCCL INFO Channel {n:02}/64 : 0\n" for n in range(64))
    kept = rank_of.telling(OUTPUTS["nccl_2_28_sockets"] + channels)
    told = [line.split("NCCL INFO ")[1] for line in kept[:-40]]
    assert "NET/IB : No device found." in told
    assert "Using network Socket" in told
    assert not [line for line in told if line.startswith(("Channel", "RAS", "comm "))]
    assert kept[-1].endswith("Channel 63/64 : 0")
    assert rank_of.telling("one\ntwo") == ["one", "two"]


@pytest.mark.parametrize(
    ("code", "output", "problem", "mend"),
    [
        (1, OUTPUTS["nccl_no_network"], "NCCL has no RDMA: Error: network IB not found.", "See that the container has"),
        (
            1,
            OUTPUTS["nccl_2_28_no_network"],
            "NCCL has no RDMA: Failed to initialize any NET",
            "See that the container",
        ),
        (1, "RuntimeError: broken", "it ended with 1: RuntimeError: broken", "See the end of its log"),
        (1, f"a\nb\nc\n{ENDED_ITSELF}", "it did not end in 9 s: b; c", "See whether a firewall keeps the nodes apart"),
        (None, "waiting", "it did not end in 9 s: waiting", "See whether a firewall keeps the nodes apart"),
        (
            125,
            "docker: Error response from daemon: No such image: a:1.",
            "the node does not have the image",
            "Run site",
        ),
        (1, "EADDRINUSE: address already in use", "the port is in use", "Set fabric_test_all_reduce_port"),
    ],
)
def test_why_there_is_no_answer(code: int | None, output: str, problem: str, mend: str) -> None:
    found = rank_of.why(code, output, 9)
    assert found[0].startswith(problem)
    assert found[1].startswith(mend)


def test_container() -> None:
    """It gets what the rank's own container has, and of its environment only what is about the fabric."""
    container = rank_of.Container("i:1", "cuda", True, {"memlock": -1}, ["nvidia.com/gpu=all"], ["--shm-size=1g"])
    argv = rank_of.docker_argv(container, ["RANK"], "code")
    assert argv[:3] == ["docker", "run", "--rm"]
    assert argv[-3:] == ["i:1", "-c", "code"]
    told = {"--network=host", "--ipc=host", "--ulimit=memlock=-1", "--device=/dev/infiniband", "--cap-add=IPC_LOCK"}
    told |= {
        "--device=nvidia.com/gpu=all",
        "--env=RANK",
        "--shm-size=1g",
        "--pull=never",
        f"--name={rank_of.CONTAINER}",
    }
    assert told <= set(argv)
    plain = rank_of.docker_argv(rank_of.Container("i:1", "cpu", False, {}, ["nvidia.com/gpu=all"], []), [], "code")
    assert not [word for word in plain if word.startswith(("--device", "--cap-add", "--ulimit"))]
    environment = rank_of.fabric_environment({"NCCL_NET": "IB", "HF_TOKEN": "secret", "GLOO_SOCKET_IFNAME": "e"})
    assert environment == {
        "NCCL_NET": "IB",
        "GLOO_SOCKET_IFNAME": "e",
        "NCCL_DEBUG": "INFO",
        "NCCL_DEBUG_SUBSYS": "INIT,NET",
    }


def docker(folder: Path, body: str) -> dict[str, str]:
    """A docker that notes its calls; `docker rm` does no more. Returns the PATH with it."""
    folder.mkdir()
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\necho "$1 $2 $3" >> {folder}/calls\n[ "$1" = rm ] && exit 0\n{body}\n')
    program.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def ask(tmp_path: Path, env: dict[str, str], **changes: Any) -> dict[str, Any]:
    arguments = {
        "image": "i:1", "device": "cuda", "script": "code", "rank": 1, "ranks": 2, "hcas": HCAS,
        "master_address": "192.168.100.11", "environment": {"NCCL_NET": "IB"}, **changes,
    }  # fmt: skip
    return adhoc.run(tmp_path, "fabric_all_reduce", arguments, env=env).result


def test_module(tmp_path: Path) -> None:
    """What the container gets, and what is made of its output."""
    (tmp_path / "output").write_text(OUTPUTS["nccl_ib"])
    body = f'env > {tmp_path}/env; for word; do echo "$word"; done > {tmp_path}/argv; cat {tmp_path}/output'
    result = ask(tmp_path, docker(tmp_path / "bin", body))
    assert result["ok"]
    assert not result["changed"]
    assert result["nccl"]["hcas"] == HCAS
    assert result["versions"] == {"torch": "2.9.0", "nccl": "2.20.5"}
    assert result["log"] == []
    told = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line)
    names = [word[6:] for word in (tmp_path / "argv").read_text().splitlines() if word.startswith("--env=")]
    assert {name: told[name] for name in names} == {
        "NCCL_NET": "IB", "NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NET", "RANK": "1", "WORLD_SIZE": "2",
        "MASTER_ADDR": "192.168.100.11", "MASTER_PORT": "29500", "ALL_REDUCE_BACKEND": "nccl",
        "ALL_REDUCE_SIZES": "1048576,8388608,67108864", "ALL_REDUCE_WARM_UP": "5", "ALL_REDUCE_ITERATIONS": "20",
        "ALL_REDUCE_SECONDS": "300",
    }  # fmt: skip
    calls = (tmp_path / "bin/calls").read_text().splitlines()
    assert calls == ["rm --force dgx-spark-all-reduce", "run --rm --pull=never", "rm --force dgx-spark-all-reduce"]


def test_module_tells_sockets_and_wrong_sums(tmp_path: Path) -> None:
    (tmp_path / "output").write_text(OUTPUTS["nccl_ib"].replace("NET/IB", "NET/Socket"))
    env = docker(tmp_path / "bin", f"cat {tmp_path}/output")
    result = ask(tmp_path, env)
    assert not result["failed"]
    assert (result["ok"], result["problem"][:17]) == (False, "NCCL took sockets")
    assert result["results"]
    assert result["log"]
    # Without GPUs there is no NCCL to look for.
    assert ask(tmp_path, env, device="cpu")["ok"]
    (tmp_path / "output").write_text(OUTPUTS["nccl_ib"].replace("true", "false"))
    assert ask(tmp_path, env)["problem"] == "sums are wrong"


def test_module_ends_what_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's client is ended, and its container removed by its name."""
    env = docker(tmp_path / "bin", f"echo $$ > {tmp_path}/pid; echo stuck; exec sleep 60")
    monkeypatch.setenv("PATH", env["PATH"])
    monkeypatch.setattr(module, "SPARE_SECONDS", 0)
    params = {
        "image": "i:1", "device": "cpu", "script": "", "rank": 0, "ranks": 1, "master_address": "", "port": 1,
        "environment": {}, "hcas": [], "sizes": [4], "warm_up": 0, "iterations": 1, "seconds": 1, "ulimits": {},
        "gpu_devices": [], "docker_options": [],
    }  # fmt: skip
    began = time.monotonic()
    result = module.run(params)
    assert time.monotonic() - began < 10
    assert result["problem"] == "it did not end in 1 s: stuck"
    assert (tmp_path / "bin/calls").read_text().splitlines()[-1] == "rm --force dgx-spark-all-reduce"
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}").exists()


def test_module_refuses_large_buffers(tmp_path: Path) -> None:
    env = docker(tmp_path / "bin", "exit 1")
    result = ask(tmp_path, env, sizes=[1 << 31], iterations=0, rank=2)
    assert result["failed"]
    assert [line.split(" ")[0] for line in result["msg"].splitlines()] == ["sizes", "iterations", "rank"]
    assert "1073741824 bytes: larger ones have frozen nodes" in result["msg"]
    assert not (tmp_path / "bin/calls").exists()


STANDIN_TORCH = '''
"""Two floats that know their sums: as much of torch as the program uses, for one rank of three."""
import os
__version__ = "9"
float32 = "f"
class Answer:
    def __init__(self, yes): self.yes = yes
    def all(self): return self
    def item(self): return self.yes
class Buffer:
    def __init__(self, count): self.count, self.value = count, 0
    def fill_(self, value): self.value = value
    def zero_(self): self.value = 0
    def numel(self): return self.count
    def __eq__(self, other): return Answer(self.value == other)
def empty(count, dtype, device): return Buffer(count)
'''
STANDIN_DISTRIBUTED = """
import ctypes, os, time
# It holds Python's lock: no thread of Python's and no handler of a signal could run.
def init_process_group(backend, timeout): ctypes.PyDLL(None).sleep(int(os.environ.get("HANG", "0")))
def get_rank(): return int(os.environ["RANK"])
def get_world_size(): return int(os.environ["WORLD_SIZE"])
def barrier(): pass
def destroy_process_group(): pass
def all_reduce(buffer):
    time.sleep(0.01)
    if buffer.value: buffer.value = int(os.environ.get("SUM", "6"))
"""


def run_script(tmp_path: Path, *within: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The program that runs in the image, with a stand-in for torch. within: the command that starts it."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(STANDIN_TORCH)
    (tmp_path / "torch/distributed.py").write_text(STANDIN_DISTRIBUTED)
    asked = {
        "PYTHONPATH": str(tmp_path), "RANK": "1", "WORLD_SIZE": "3", "ALL_REDUCE_BACKEND": "gloo",
        "ALL_REDUCE_SIZES": "8,4096", "ALL_REDUCE_WARM_UP": "1", "ALL_REDUCE_ITERATIONS": "2",
        "ALL_REDUCE_SECONDS": "1",
    }  # fmt: skip
    command = [*within, sys.executable, "-c", SCRIPT.read_text()]
    environment = {**os.environ, **asked, **env}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)


def test_program(tmp_path: Path) -> None:
    """It tells sizes, times of one all-reduce each, and that the sums of 1, 2 and 3 are 6."""
    done = run_script(tmp_path)
    answer = rank_of.answer_of(done.stdout)
    assert answer, done.stderr
    assert (answer["ranks"], answer["torch"], answer["nccl"]) == (3, "9", "")
    assert [(result["bytes"], result["right"]) for result in answer["results"]] == [(8, True), (4096, True)]
    assert all(0.01 <= result["seconds"] < 5 for result in answer["results"])


def test_program_tells_wrong_sums(tmp_path: Path) -> None:
    answer = rank_of.answer_of(run_script(tmp_path, SUM="7").stdout)
    assert answer
    assert not any(result["right"] for result in answer["results"])
    assert json.dumps(answer)


CONTAINED = pytest.param(
    ["unshare", "--pid", "--fork", "--kill-child"],
    marks=pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a PID namespace needs root"),
    id="process 1",
)


@pytest.mark.parametrize("within", [pytest.param([], id="process"), CONTAINED])
def test_program_ends_itself(tmp_path: Path, within: list[str]) -> None:
    """Where a peer never comes, nobody has to end it; in a container it is process 1, which no default signal ends."""
    done = run_script(tmp_path, *within, HANG="15")
    assert "in init_process_group" in done.stderr
    problem, mend = rank_of.why(done.returncode, f"Joining.\n{done.stderr}", 1)
    assert problem == "it did not end in 1 s: Joining."
    assert mend.startswith("See whether a firewall keeps the nodes apart")
