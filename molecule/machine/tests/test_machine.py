"""A machine made ready and put back: what was there before, byte for byte, comes back."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.tools import operating
from tests.tools.operating import ROOT, SSH_CONFIG, changes

NODES = ["spark-0", "spark-1"]
INVENTORY = ROOT / ".lab/machine-inventory"
STAGES = "host,fabric,firewall,container_runtime,memory_guard"
# Off for simulated nodes, since it is the kernel's of the machine; these are a network namespace's own.
PARTS: dict[str, Any] = {
    "host_sysctl": {"net.ipv4.tcp_fin_timeout": 61},
    "host_hold_packages": True,
    "host_hold_patterns": ["openssh-*"],
}
RAILS = [
    {"interface": "enp1s0f1np1", "subnet": "198.18.100.0/24", "hca": "rocep1s0f1"},
    {"interface": "enP2p1s0f1np1", "subnet": "198.18.101.0/24", "hca": "roceP2p1s0f1"},
]
# Debian 12 has no Docker that knows CDI, and there is no GPU to see.
GPU: dict[str, Any] = {
    "sglang_device": "cuda",
    "cluster_rails": RAILS,
    "container_runtime_minimum_engine": "20.10",
    "container_runtime_toolkit_uri": "file:/var/local/nvidia/$(ARCH)",
    "container_runtime_toolkit_key": str(ROOT / ".lab/nvidia/gpgkey"),
    "container_runtime_toolkit_key_fingerprints": [],
}
BEFORE: dict[str, str] = {}

# A guard of the memory that somebody has set up by hand, with thresholds at which it ends everything that serves.
RIVAL = """
install -m 755 /bin/sleep /usr/local/bin/earlyoom
printf '[Service]\\nExecStart=/usr/local/bin/earlyoom 86400\\n[Install]\\nWantedBy=multi-user.target\\n' \
    > /etc/systemd/system/my-oom.service
systemctl daemon-reload && systemctl enable --now my-oom.service
mkdir -p /etc/systemd/system/earlyoom.service.d
printf '[Service]\\nExecStart=\\nExecStart=/usr/local/bin/earlyoom 86400\\n' \
    > /etc/systemd/system/earlyoom.service.d/mine.conf
"""

# What the stages change of a machine, but for packages that stay.
ARP = "/proc/sys/net/ipv4/conf/enp1s0f1np1/arp_ignore"
DEFAULT_TARGET = "readlink /etc/systemd/system/default.target || echo unset"
LOOK = f"""
{DEFAULT_TARGET}
systemctl is-enabled my-oom.service earlyoom.service 2>/dev/null
systemctl is-active my-oom.service earlyoom.service
cat /etc/default/earlyoom /etc/docker/daemon.json 2>/dev/null
dpkg-query --show --showformat='${{db:Status-Abbrev}}' earlyoom 2>/dev/null
apt-mark showhold
find /etc/netplan /etc/systemd/system/earlyoom.service.d /etc/systemd/system/system.slice.d /etc/sysctl.d -type f \
    -exec sha256sum {{}} + 2>/dev/null | sort
nft list tables 2>/dev/null | grep dgx_spark
cat /proc/sys/net/ipv4/tcp_fin_timeout
cat {ARP} /proc/sys/net/ipv4/conf/enP2p1s0f1np1/arp_announce
ip -4 -br address show enp1s0f1np1
ls -d /etc/dgx-spark /var/lib/dgx-spark-host 2>/dev/null
"""


def play(playbook: str, *arguments: str, variables: dict[str, Any] | None = None, code: int = 0) -> str:
    words = [*arguments, *(["-e", json.dumps(variables)] if variables else [])]
    return operating.play(playbook, *words, inventory=INVENTORY, code=code)


def on(node: str, script: str) -> str:
    return operating.on(node, script)


def test_a_bare_machine_is_made_ready_and_then_rests() -> None:
    on("spark-1", RIVAL)
    BEFORE.update({node: on(node, LOOK) for node in NODES})
    checked = play("playbooks/site.yml", "--check", "--tags", STAGES, variables=PARTS)
    assert min(changes(checked)) > 0
    assert {node: on(node, LOOK) for node in NODES} == BEFORE
    play("playbooks/site.yml", "--tags", STAGES, variables=PARTS)
    assert changes(play("playbooks/site.yml", "--tags", STAGES, variables=PARTS)) == [0, 0]
    for node in NODES:
        assert on(node, "systemctl get-default") == "multi-user.target"
        assert on(node, "cat /proc/sys/net/ipv4/tcp_fin_timeout") == "61"
        assert on(node, f"cat {ARP}") == "1"
        assert "openssh-server" in on(node, "apt-mark showhold")
        assert json.loads(on(node, "cat /etc/docker/daemon.json"))["log-opts"]["max-size"] == "50m"


def test_a_setting_of_a_rail_that_has_drifted_is_mended() -> None:
    on("spark-1", f"echo 0 > {ARP}")
    told = play("playbooks/site.yml", "--tags", "fabric", variables=PARTS)
    assert changes(told) == [0, 1]
    assert on("spark-1", f"cat {ARP}") == "1"


def test_the_memory_guard_has_no_rival_left() -> None:
    assert on("spark-1", "systemctl is-active my-oom.service") == "inactive"
    assert on("spark-1", "pgrep --exact --list-full earlyoom").count("\n") == 0
    assert "/usr/bin/earlyoom -M" in on("spark-1", "pgrep --exact --list-full earlyoom")


def test_a_part_that_is_turned_off_is_put_back() -> None:
    off = {**PARTS, "host_headless": False, "host_hold_packages": False}
    assert changes(play("playbooks/site.yml", "--tags", "host", variables=off)) == [2, 2]
    for node in NODES:
        assert on(node, DEFAULT_TARGET) == BEFORE[node].partition("\n")[0].strip()
        assert on(node, "apt-mark showhold") == ""
    assert changes(play("playbooks/site.yml", "--tags", "host", variables=off)) == [0, 0]
    play("playbooks/site.yml", "--tags", "host", variables=PARTS)


def copied(folder: Path) -> None:
    """Put NVIDIA's repository on every node."""
    for node in NODES:
        pack = ["tar", "-C", str(folder), "-cf", "-", "."]
        unpack = ["ssh", "-F", str(SSH_CONFIG), node, "mkdir -p /var/local/nvidia && tar -C /var/local/nvidia -xf -"]
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as tar:
            subprocess.run(unpack, stdin=tar.stdout, check=True)


def test_the_toolkit_comes_from_its_signed_repository() -> None:
    """First a version that does not refresh the specification by itself, then one that does."""
    copied(ROOT / ".lab/nvidia")
    wrong = {**GPU, "container_runtime_toolkit_key_fingerprints": ["C95B321B61E88C1809C4F759DDCAE044F796ECB0"]}
    told = play("playbooks/site.yml", "--tags", "container_runtime", variables=wrong, code=2)
    assert "nothing was changed" in told
    assert on("spark-0", "ls /etc/apt/sources.list.d/dgx-spark-* 2>/dev/null") == ""

    old = {**GPU, "container_runtime_toolkit_packages": ["nvidia-container-toolkit=1.17.8-1"]}
    play("playbooks/site.yml", "--tags", "container_runtime", variables=old)
    assert changes(play("playbooks/site.yml", "--tags", "container_runtime", variables=old)) == [0, 0]
    for node in NODES:
        assert on(node, "systemctl is-enabled dgx-spark-cdi.service") == "enabled"
        assert "nvidia.com/gpu=all" in on(node, "nvidia-ctk cdi list 2>/dev/null")
        daemon = json.loads(on(node, "cat /etc/docker/daemon.json"))
        assert daemon["runtimes"] == {"nvidia": {"path": "nvidia-container-runtime", "args": []}}
        assert daemon["features"] == {"cdi": True}
        assert daemon["insecure-registries"] == ["198.18.0.2:5000"]
        assert "nvidia" in on(node, "docker info --format '{{json .Runtimes}}'")

    on("spark-1", "apt-get -qq -y install nvidia-container-toolkit=1.19.0-1")
    play("playbooks/site.yml", "--tags", "container_runtime", variables=GPU)
    assert (
        on("spark-1", "systemctl is-enabled nvidia-cdi-refresh.service nvidia-cdi-refresh.path") == "enabled\nenabled"
    )
    assert on("spark-1", "ls /etc/systemd/system/dgx-spark-cdi.service 2>/dev/null") == ""
    assert changes(play("playbooks/site.yml", "--tags", "container_runtime", variables=GPU)) == [0, 0]


def test_docker_is_not_restarted_under_a_group_that_serves() -> None:
    """A unit of the rank's name stands in for a rank of one node; the other node waits for it too."""
    started = [on(node, "systemctl show --value --property=MainPID docker") for node in NODES]
    on("spark-1", "systemd-run --quiet --unit=sglang-rank sleep 3600")
    debug = {**GPU, "container_runtime_daemon": {"insecure-registries": ["198.18.0.2:5000"], "debug": True}}
    told = play("playbooks/site.yml", "--tags", "container_runtime", variables=debug)
    assert "Docker runs by older settings" in told
    assert [on(node, "systemctl show --value --property=MainPID docker") for node in NODES] == started
    assert changes(play("playbooks/site.yml", "--tags", "container_runtime", variables=debug)) == [0, 0]
    on("spark-1", "systemctl stop sglang-rank")
    assert changes(play("playbooks/site.yml", "--tags", "container_runtime", variables=debug)) == [
        2,
        2,
    ]  # it is due; the restart
    assert [on(node, "systemctl show --value --property=MainPID docker") for node in NODES] != started


def test_teardown_leaves_the_machine_ready() -> None:
    play("playbooks/teardown.yml")
    for node in NODES:
        assert on(node, "systemctl get-default") == "multi-user.target"
        assert "dgx_spark" in on(node, "nft list tables")
        assert on(node, "ls /etc/dgx-spark") == "firewall.nft"


def test_teardown_of_the_machine_brings_back_what_was_there_before() -> None:
    play("playbooks/teardown.yml", variables={"host_teardown": True})
    assert {node: on(node, LOOK) for node in NODES} == BEFORE
    assert changes(play("playbooks/teardown.yml", variables={"host_teardown": True})) == [0, 0]
