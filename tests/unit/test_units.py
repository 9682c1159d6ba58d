"""The units of the four ranks of inventory/spark4, rendered by Ansible from the role's own templates."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.dgx_spark.sglang.roles.rank.files import dgx_spark_rank

ROOT = Path(__file__).resolve().parents[2]

REFERENCE_FLAGS = """
--model-path /models/glm-4.7-fp8 --served-model-name glm-4.7 --host {host} --port 30000 --tp 4 --nnodes 4
--node-rank {rank} --dist-init-addr 192.168.100.11:50000 --dist-timeout 600 --device cuda --trust-remote-code
--max-running-requests 64 --context-length 32768 --reasoning-parser glm45
--speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-num-draft-tokens 8
--speculative-eagle-topk 2 --enable-metrics $SGLANG_FLAGS
"""

DOCKER_OPTIONS = """
docker run --rm --pull=never --name=sglang-rank --log-driver=none --network=host --ipc=host --cap-drop=ALL
--security-opt=no-new-privileges --ulimit=memlock=-1 --ulimit=stack=67108864
--device=/dev/infiniband --cap-add=IPC_LOCK --device=nvidia.com/gpu=all
--env-file=/etc/dgx-spark/rank.env
--volume=/var/lib/dgx-spark/models/zai-org--GLM-4.7-FP8/main:/models/glm-4.7-fp8:ro
--volume=/var/lib/dgx-spark/cache:/root/.cache --label=dgx-spark.release=${SGLANG_RELEASE} $SGLANG_MOUNTS
${SGLANG_IMAGE} python3 -m sglang.launch_server
"""

ENVIRONMENT = {
    "GLOO_SOCKET_IFNAME": "enp1s0f1np1",
    "NCCL_SOCKET_IFNAME": "enp1s0f1np1",
    "NCCL_NET": "IB",
    "NCCL_IB_HCA": "=rocep1s0f1,roceP2p1s0f1",
    "NCCL_IB_MERGE_NICS": "1",
    "NCCL_IB_SUBNET_AWARE_ROUTING": "1",
    "NCCL_CROSS_NIC": "1",
    "NCCL_IGNORE_CPU_AFFINITY": "1",
    "TRITON_CACHE_DIR": "/root/.cache/triton",
    "TORCHINDUCTOR_CACHE_DIR": "/root/.cache/torchinductor",
    "CUDA_CACHE_PATH": "/root/.cache/cuda",
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with <rank>-sglang-rank.service, <rank>-rank.env, and what gates and supervisor are told."""
    out = tmp_path_factory.mktemp("units")
    command = ["ansible-playbook", "-i", "inventory/spark4", "tests/unit/units/render.yml", "-e", f"out={out}"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


SUPERVISOR = "python3 -I /usr/local/libexec/dgx-spark-rank /etc/dgx-spark/supervision.json -- /usr/bin/"


def command_of(unit: Path) -> list[str]:
    """The words of the container's command in ExecStart, its continued lines joined."""
    text = unit.read_text().replace("\\\n", " ")
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    supervisor, dashes, command = " ".join(line.removeprefix("ExecStart=/usr/bin/").split()).partition("-- /usr/bin/")
    assert supervisor + dashes == SUPERVISOR
    return command.split()


@pytest.mark.parametrize("rank", range(4))
def test_command_line_flag_by_flag(rendered: Path, rank: int) -> None:
    words = command_of(rendered / f"{rank}-sglang-rank.service")
    for label in ("group", "plan"):
        (word,) = [word for word in words if word.startswith(f"--label=dgx-spark.{label}=")]
        words.remove(word)
    host = "0.0.0.0" if rank == 0 else f"192.168.100.{11 + rank}"
    assert words == DOCKER_OPTIONS.split() + REFERENCE_FLAGS.format(host=host, rank=rank).split()


REST_OF_UNIT = """\
# Ansible managed
[Unit]
Description=SGLang rank {rank} of 4, glm-4.7-fp8
Documentation=https://docs.sglang.ai
# Not Requires: an upgrade of Docker stops it and starts it, and nothing would start the rank again.
Wants=docker.service network-online.target
After=docker.service network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
# The gates too tell what they wait for.
NotifyAccess=exec
# The release in use; one that is being tried takes its place until it is kept, or until the node boots.
Environment=SGLANG_IMAGE=lmsysorg/sglang:spark
EnvironmentFile=/opt/sglang/current/release.env
EnvironmentFile=-/run/dgx-spark/trial/release.env
ExecStartPre=/usr/bin/python3 -I /usr/local/libexec/dgx-spark-gates /etc/dgx-spark/gates.json
# Where the supervisor itself was killed, or a look at the GPU cut off.
ExecStopPost=-/bin/sh -c 'docker rm --force sglang-rank dgx-spark-gate-gpu >/dev/null 2>&1'
# How long a start may take is theirs to say. A finite time would begin anew, and be over, with each daemon-reload.
TimeoutStartSec=infinity
TimeoutStopSec=105
WatchdogSec=30
# The supervisor ends its container itself.
KillMode=mixed
Restart=always
RestartSec=1
RuntimeDirectory=sglang-rank
RuntimeDirectoryPreserve=yes
# Whatever runs short of memory, this is what brings the rank back.
OOMScoreAdjust=-900
SyslogIdentifier=sglang-rank

[Install]
WantedBy=multi-user.target
"""


@pytest.mark.parametrize("rank", range(4))
def test_rest_of_the_unit(rendered: Path, rank: int) -> None:
    text = (rendered / f"{rank}-sglang-rank.service").read_text().replace("\\\n", " ")
    rest = [line for line in text.splitlines() if not line.startswith("ExecStart=")]
    assert rest == REST_OF_UNIT.format(rank=rank).splitlines()


@pytest.mark.parametrize("rank", range(4))
def test_environment(rendered: Path, rank: int) -> None:
    lines = (rendered / f"{rank}-rank.env").read_text().splitlines()
    group = json.loads((rendered / f"{rank}-supervision.json").read_text())["group"]
    assert f"# dgx-spark.plan={group}" in lines
    environment = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert environment == {"SGLANG_HOST_IP": f"192.168.100.{11 + rank}", **ENVIRONMENT}


@pytest.mark.parametrize("rank", range(4))
def test_gates(rendered: Path, rank: int) -> None:
    gates = json.loads((rendered / f"{rank}-gates.json").read_text())
    assert gates["floor_bytes"] == 96 * 2**30
    assert gates["drop_caches"] is True
    assert gates["gpu_devices"] == ["nvidia.com/gpu=all"]
    assert gates["hcas"] == ["rocep1s0f1", "roceP2p1s0f1"]
    assert [rail["mtu"] for rail in gates["rails"]] == [9000, 9000]
    assert gates["rails"][0]["address"] == f"192.168.100.{11 + rank}"
    assert len(gates["rails"][1]["peers"]) == 3
    assert gates.get("port") == (50000 if rank == 0 else None)


@pytest.mark.parametrize("rank", range(4))
def test_the_supervisor_takes_what_it_is_told(rendered: Path, rank: int) -> None:
    config = dgx_spark_rank.parse_config((rendered / f"{rank}-supervision.json").read_text())
    assert (config.rank, len(config.members), config.port) == (rank, 4, 50001)
    assert config.members[2].address == "192.168.100.13"
    assert config.health_url.startswith("http://127.0.0.1:30000/" if rank == 0 else "http://192.168.100.")
    assert config.generate_url == ("http://127.0.0.1:30000/generate" if rank == 0 else None)
    assert config.dist_init == (None if rank == 0 else "192.168.100.11:50000")
    # All ranks of a plan are of one group, whatever else they are told.
    assert config.group == json.loads((rendered / "0-supervision.json").read_text())["group"]
