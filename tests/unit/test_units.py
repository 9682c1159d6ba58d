"""The units of the four ranks of inventory/spark4, rendered by Ansible from the role's own templates."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

REFERENCE_FLAGS = """
--model-path /models/glm-4.7-fp8 --served-model-name glm-4.7 --host {host} --port 30000 --tp 4 --nnodes 4
--node-rank {rank} --dist-init-addr 192.168.100.11:50000 --dist-timeout 600 --device cuda --trust-remote-code
--max-running-requests 64 --context-length 32768 --reasoning-parser glm45
--speculative-algorithm EAGLE --speculative-num-steps 3 --speculative-num-draft-tokens 8
--speculative-eagle-topk 2 --enable-metrics $SGLANG_FLAGS
"""

DOCKER_OPTIONS = """
docker run --rm --pull=never --name=sglang-rank --log-driver=none --network=host --ipc=host --ulimit=memlock=-1
--ulimit=stack=67108864 --device=/dev/infiniband --cap-add=IPC_LOCK --device=nvidia.com/gpu=all
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
    """A folder with <rank>-sglang-rank.service and <rank>-rank.env."""
    out = tmp_path_factory.mktemp("units")
    command = ["ansible-playbook", "-i", "inventory/spark4", "tests/unit/units/render.yml", "-e", f"out={out}"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def command_of(unit: Path) -> list[str]:
    """The words of ExecStart, its continued lines joined."""
    text = unit.read_text().replace("\\\n", " ")
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    return line.removeprefix("ExecStart=/usr/bin/").split()


@pytest.mark.parametrize("rank", range(4))
def test_command_line_flag_by_flag(rendered: Path, rank: int) -> None:
    words = command_of(rendered / f"{rank}-sglang-rank.service")
    labels = [word for word in words if word.startswith("--label=dgx-spark.group=")]
    assert len(labels) == 1
    words.remove(labels[0])
    host = "0.0.0.0" if rank == 0 else f"192.168.100.{11 + rank}"
    assert words == DOCKER_OPTIONS.split() + REFERENCE_FLAGS.format(host=host, rank=rank).split()


REST_OF_UNIT = """\
# Ansible managed
[Unit]
Description=SGLang rank {rank} of 4, glm-4.7-fp8
Documentation=https://docs.sglang.ai
Requires=docker.service
After=docker.service network-online.target
Wants=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
# What a crash of the node or of Docker left; that there is nothing is no error to be told.
ExecStartPre=/bin/sh -c 'docker rm --force sglang-rank 2>/dev/null || true'
# The release in use; one that is being tried takes its place until it is kept, or until the node boots.
Environment=SGLANG_IMAGE=lmsysorg/sglang:spark
EnvironmentFile=/opt/sglang/current/release.env
EnvironmentFile=-/run/dgx-spark/trial/release.env
ExecStop=-/usr/bin/docker stop -t 30 sglang-rank
TimeoutStopSec=45
Restart=always
RestartSec=5
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
    environment = dict(line.split("=", 1) for line in lines if not line.startswith("#"))
    assert environment == {"SGLANG_HOST_IP": f"192.168.100.{11 + rank}", **ENVIRONMENT}
