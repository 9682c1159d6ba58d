# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Wrong inventories, loaded by Ansible: each is told with variable, value and mend, before any host is touched.

A case changes one thing of the reference, and names all variables that something is said of: none besides.
tests/integration/test_validate.py runs some of them through ansible-playbook.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible.plugins.loader import connection_loader
from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, report
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import read_cluster
from ansible_collections.dgx_spark.sglang.tests.unit.inventories import (
    Change,
    Tree,
    both,
    flags,
    group,
    host,
    hosts,
    load,
    model,
    model_without,
    named,
    rail,
    ranks,
    reference,
    shape,
    text,
    without,
)


@pytest.fixture(scope="module", autouse=True)
def _restored_imports() -> Iterator[None]:
    """Ansible's loader of plugins changes how this process imports, which the tests after these don't expect."""
    yield
    _AnsibleCollectionFinder._remove()


@dataclass(frozen=True)
class Wrong:
    """A change, and what has to be said of it: the variable, its value and the mend, or a part of them."""

    name: str
    change: Change
    variable: str
    value: str
    mend: str


def every(variable: str, *cases: tuple[str, Any, str, str]) -> list[Wrong]:
    """Cases of one variable of the group: (name, value, how it is shown, mend)."""
    return [Wrong(f"{variable} {name}", group(**{variable: value}), variable, *said) for name, value, *said in cases]


VAULT = """\
model_hub_token: !vault |
  $ANSIBLE_VAULT;1.1;AES256
  34373437313766373837326538653834323065353434363733666331346537633431303535373765
  3330373465613032633461326337383266353433326538640a313937393962666365373464386436
  61343862363739363830393537643233666262323964653966353137346363303136646132626161
  3937336566363534370a636339653039616435326139303735346535306166653661326132303132
  6661
"""

TYPES = [
    *every(
        "rank_start_seconds",
        ("text", "soon", "'soon'", "of type int"),
        ("float", 1800.5, "1800.5", "of type int"),
        ("unit", "30m", "'30m'", "of type int"),
        ("digits with a line", "1_800", "'1_800'", "of type int"),
        ("true", True, "True", "of type int"),
        ("list", [1800], "[1800]", "of type int"),
        ("empty", "", "''", "of type int"),
        ("null", None, "null", "remove the line"),
        ("zero", 0, "0", "10 to 86400"),
        ("negative", -1, "-1", "10 to 86400"),
        ("a year", 31536000, "31536000", "10 to 86400"),
    ),
    *every(
        "firewall_enabled",
        ("word", "enabled", "'enabled'", "of type bool"),
        ("misspelt in quotes", "flase", "'flase'", "of type bool"),
        ("with a space in quotes", "false ", "'false '", "of type bool"),
        ("number", 2, "2", "of type bool"),
        ("list", [], "[]", "of type bool"),
        ("null", None, "null", "remove the line"),
    ),
    *every(
        "fabric_test_write_bandwidth_warn",
        ("text", "fast", "'fast'", "of type float"),
        ("unit", "90G", "'90G'", "of type float"),
        ("infinite", float("inf"), "inf", "of type float"),
        ("no number", float("nan"), "nan", "of type float"),
        ("negative", -1, "-1", "0 to 200"),
        ("in megabits", 98000, "98000", "0 to 200"),
    ),
    *every(
        "container_runtime_daemon",
        ("list", ["log-driver"], "['log-driver']", "of type dict"),
        ("text", "log-driver: journald", "'log-driver: journald'", "of type dict"),
    ),
    *every(
        "fabric_packages",
        ("text for a list", "rdma-core", "'rdma-core'", "of type list"),
        ("mapping for a list", {"rdma-core": "50"}, "{'rdma-core': '50'}", "of type list"),
    ),
    Wrong("number in a list of words", group(fabric_packages=[1.5]), "fabric_packages[0]", "1.5", "in quotes"),
    Wrong("whole number in a list of words", group(memory_guard_avoid=[7]), "memory_guard_avoid[0]", "7", "in quotes"),
    Wrong("null in a list", group(fabric_packages=[None]), "fabric_packages[0]", "null", "remove the line"),
    Wrong("empty word in a list", group(fabric_packages=[""]), "fabric_packages[0]", "''", "Give it a value"),
    Wrong("package with a space", group(fabric_packages=["a b"]), "fabric_packages[0]", "'a b'", "apt knows"),
    *every(
        "cluster_data_dir",
        ("relative", "data", "'data'", "Begin it with `/`"),
        ("root", "/", "'/'", "directory of its own"),
        ("with a space", "/var/lib/my models", "'/var/lib/my models'", "letters, digits"),
        ("with a colon", "/var/lib/a:b", "'/var/lib/a:b'", "letters, digits"),
        ("with two dots", "/var/lib/../x", "'/var/lib/../x'", "no `..`"),
        ("with a line break", "/var/lib/a\n", "'/var/lib/a\\n'", "on one line"),
        ("true", True, "True", "in quotes"),
        ("empty", "", "''", "leave it out"),
        ("null", None, "null", "remove the line"),
    ),
]

NAMES = [
    Wrong("letters that changed places", group(cluster_modle="x"), "cluster_modle", "'x'", "`cluster_model`"),
    Wrong("other unit", group(rank_memory_floor_gb=96), "rank_memory_floor_gb", "96", "`rank_memory_floor_gib`"),
    Wrong("role misspelt", group(clutser_api_port=1), "clutser_api_port", "1", "`cluster_api_port`"),
    Wrong("without a line", group(clusterapi_port=1), "clusterapi_port", "1", "`cluster_api_port`"),
    Wrong("capital letters", group(Cluster_Rails=[]), "Cluster_Rails", "[]", "`cluster_rails`"),
    Wrong("singular", group(firewall_ssh_source=[]), "firewall_ssh_source", "[]", "`firewall_ssh_sources`"),
    Wrong("far off", group(cluster_colour="red"), "cluster_colour", "'red'", "Use one of"),
    Wrong("on one host", host(1, rank_dorp_caches=False), "rank_dorp_caches", "False", "`rank_drop_caches`"),
    Wrong("key of a rail", rail(0, interfce="x"), "cluster_rails[0].interfce", "'x'", "`interface`"),
    Wrong("choice", group(firewall_refuse="regect"), "firewall_refuse", "'regect'", "`reject`"),
    Wrong("choice far off", group(sglang_device="tpu"), "sglang_device", "'tpu'", "cuda, cpu"),
    Wrong("element", group(smoke_checks=["HEALTH", "CHATT"]), "smoke_checks[1]", "'CHATT'", "`CHAT`"),
    Wrong("gate", group(rank_gate_seconds={"pears": 1}), "rank_gate_seconds", "{'pears': 1}", "docker, image"),
    Wrong("time of a gate", group(rank_gate_seconds={"gpu": 0}), "rank_gate_seconds", "{'gpu': 0}", "above 0"),
    Wrong("limit", group(rank_ulimits={"memlok": -1}), "rank_ulimits.memlok", "-1", "memlock"),
    Wrong("value of a limit", group(rank_ulimits={"stack": "64M"}), "rank_ulimits.stack", "'64M'", "whole number"),
]

HOSTS = [
    Wrong("no group", named("nodes"), "group sparks", "no hosts", "List the Sparks"),
    Wrong("group misspelt", named("spark"), "group sparks", "no hosts", "Did you mean `spark`? Name it sparks."),
    Wrong("empty group", hosts(0), "group sparks", "no hosts", "List the Sparks"),
    Wrong(
        "syntax error",
        text(hosts_text="all:\n  children: [\n"),
        "group sparks",
        "no hosts",
        "could not parse",
    ),
    Wrong("three for four ranks", hosts(3), "tensor_parallel", "4", "List 4 hosts"),
    Wrong("five for four ranks", hosts(5), "tensor_parallel", "4", "cluster_tensor_parallel: 5"),
    Wrong("rank twice", ranks(0, 1, 1, 3), "cluster_rank", "'1'", "Give each host its own"),
    Wrong("rank twice, once as text", ranks(0, 1, "01", 3), "cluster_rank", "'1'", "Give each host its own"),
    Wrong("rank too high", ranks(1, 2, 3, 4), "cluster_rank", "4", "from 0 to 3"),
    Wrong("rank negative", ranks(-1, 1, 2, 3), "cluster_rank", "-1", "from 0 to 3"),
    Wrong("rank missing", ranks(0, 1, None, 3), "cluster_rank", "(not set)", "Give every host"),
    Wrong("rank is a name", ranks(0, 1, 2, "spark-9"), "cluster_rank", "'spark-9'", "of type int"),
    Wrong("ranks by name", ranks(*[{"spark-9": 0}] * 4), "cluster_rank", "{'spark-9': 0}", "of type int"),
    Wrong(
        "address twice", host(3, ansible_host="spark-0.invalid"), "ansible_host", "'spark-0.invalid'", "Give each host"
    ),
    Wrong(
        "address twice, in capitals",
        host(3, ansible_host="SPARK-0.invalid"),
        "ansible_host",
        "spark-0",
        "Give each host",
    ),
    Wrong("address null", host(1, ansible_host=None), "ansible_host", "null", "remove the line"),
    Wrong("address empty", host(1, ansible_host=""), "ansible_host", "''", "Give it a value"),
    Wrong("address with user", host(1, ansible_host="me@spark"), "ansible_host", "'me@spark'", "ssh can reach"),
    Wrong("address with a space", host(1, ansible_host="spark 1"), "ansible_host", "'spark 1'", "ssh can reach"),
    Wrong("address list", host(1, ansible_host=["a"]), "ansible_host", "['a']", "of type str"),
    Wrong(
        "name with a space",
        lambda tree: tree.hosts.update({"spark 4": None, "spark-3": None}) or tree.hosts.pop("spark-3"),
        "ansible_host",
        "'spark 4' (the host's name)",
        "ssh can reach",
    ),
    Wrong("ssh port out of range", host(1, ansible_port=70000), "ansible_port", "70000", "1 to 65535"),
    Wrong("ssh port is text", host(1, ansible_port="ssh"), "ansible_port", "'ssh'", "of type int"),
    Wrong("user null", group(ansible_user=None), "ansible_user", "null", "remove the line"),
    Wrong("user with host", group(ansible_user="me@spark"), "ansible_user", "'me@spark'", "without the host"),
    Wrong("user undefined", group(ansible_user="{{ me }}"), "ansible_user", "'{{ me }}' (template)", "Define"),
    Wrong("differs", host(2, cluster_data_dir="/data"), "cluster_data_dir", "'/data' on spark-2", "Set it once"),
]

RAILS = [
    Wrong("none", group(cluster_rails=[]), "cluster_rails", "[]", "Describe the rails"),
    Wrong("null", group(cluster_rails=None), "cluster_rails", "null", "remove the line"),
    Wrong("one mapping", group(cluster_rails={"interface": "a"}), "cluster_rails", "{'interface': 'a'}", "type list"),
    Wrong("names alone", group(cluster_rails=["enp1s0f1np1"]), "cluster_rails[0]", "'enp1s0f1np1'", "type dict"),
    Wrong("subnet twice", rail(1, subnet="192.168.100.0/24"), "cluster_rails[1].subnet", "192.168.100.0/24", "its own"),
    Wrong("subnets overlap", rail(1, subnet="192.168.0.0/16"), "cluster_rails[1].subnet", "192.168.0.0/16", "its own"),
    Wrong(
        "host bits", rail(0, subnet="192.168.100.5/24"), "cluster_rails[0].subnet", "192.168.100.5/24", "host part zero"
    ),
    Wrong("no prefix", rail(0, subnet="192.168.100.0"), "cluster_rails[0].subnet", "192.168.100.0", "prefix length"),
    Wrong("prefix too long", rail(0, subnet="192.168.100.0/33"), "cluster_rails[0].subnet", "/33", "prefix length"),
    Wrong(
        "netmask of nobody", rail(0, subnet="10.0.0.0/255.0.255.0"), "cluster_rails[0].subnet", "/255.0.255.0", "prefix"
    ),
    Wrong("IPv6", rail(0, subnet="fd00::/64"), "cluster_rails[0].subnet", "fd00::/64", "such as 192.168"),
    Wrong("no network", rail(0, subnet="fabric"), "cluster_rails[0].subnet", "'fabric'", "prefix length"),
    Wrong("number", rail(0, subnet=5), "cluster_rails[0].subnet", "'5'", "prefix length"),
    Wrong("null subnet", rail(0, subnet=None), "cluster_rails[0].subnet", "(not set)", "Add `subnet`"),
    Wrong("loopback", rail(0, subnet="127.0.0.0/8"), "cluster_rails[0].subnet", "127.0.0.0/8", "such as 192.168"),
    Wrong("multicast", rail(0, subnet="224.0.0.0/24"), "cluster_rails[0].subnet", "224.0.0.0/24", "such as 192.168"),
    Wrong("everything", rail(0, subnet="0.0.0.0/0"), "cluster_rails[0].subnet", "0.0.0.0/0", "such as 192.168"),
    Wrong("room for none", rail(0, subnet="192.168.100.0/31"), "cluster_rails[0].subnet", "/31", "Widen the subnet"),
    Wrong("room for two", rail(0, subnet="192.168.100.0/30"), "cluster_rails[0].subnet", "/30", "Widen the subnet"),
    Wrong("numbers too high", group(cluster_first_host_number=253), "cluster_first_host_number", "253", "1 and 251"),
    Wrong("number zero", group(cluster_first_host_number=0), "cluster_first_host_number", "0", "1 and 251"),
    Wrong("number negative", group(cluster_first_host_number=-5), "cluster_first_host_number", "-5", "1 and 251"),
    Wrong("Docker's bridge", rail(1, subnet="172.17.9.0/24"), "cluster_rails[1].subnet", "172.17.9.0/24", "its own"),
    Wrong(
        "Docker's bridge by its own setting",
        group(container_runtime_daemon={"bip": "192.168.101.1/24"}),
        "cluster_rails[1].subnet",
        "192.168.101.0/24",
        "its own",
    ),
    Wrong(
        "Docker's pools",
        group(container_runtime_daemon={"default-address-pools": [{"base": "192.168.0.0/16", "size": 24}]}),
        "cluster_rails[0].subnet cluster_rails[1].subnet",
        "192.168.101.0/24",
        "its own",
    ),
    Wrong("LAN", host(2, ansible_host="192.168.100.77"), "cluster_rails[0].subnet", "192.168.100.0/24", "its own"),
    Wrong("interface twice", rail(1, interface="enp1s0f1np1"), "cluster_rails[1].interface", "enp1s0f1np1", "twins"),
    Wrong(
        "interface too long",
        rail(0, interface="enp1s0f1np1.12345"),
        "cluster_rails[0].interface",
        "enp1s0f1np1.12345",
        "15 characters",
    ),
    Wrong("interface with a slash", rail(0, interface="net/0"), "cluster_rails[0].interface", "'net/0'", "ip link"),
    Wrong("interface with a space", rail(0, interface="enp1 s0"), "cluster_rails[0].interface", "'enp1 s0'", "ip link"),
    Wrong("interface empty", rail(0, interface=""), "cluster_rails[0].interface", "''", "Give it a value"),
    Wrong("loopback interface", rail(0, interface="lo"), "cluster_rails[0].interface", "'lo'", "QSFP cage"),
    Wrong("HCA with a port", rail(0, hca="rocep1s0f1:1"), "cluster_rails[0].hca", "'rocep1s0f1:1'", "rdma link"),
    Wrong("HCA twice", both(rail(0, hca="mlx5_0"), rail(1, hca="mlx5_0")), "cluster_rails[1].hca", "'mlx5_0'", "twins"),
    Wrong(
        "third rail",
        lambda tree: tree.variables["cluster_rails"].append({"interface": "e3", "subnet": "10.0.0.0/24"}),
        "cluster_rails",
        "3 rails",
        "two interfaces",
    ),
    Wrong(
        "address of a peer",
        host(0, cluster_fabric_addresses=["192.168.100.12", "192.168.101.11"]),
        "cluster_fabric_addresses",
        "'192.168.100.12'",
        "Give each host",
    ),
    Wrong(
        "address outside",
        host(0, cluster_fabric_addresses=["192.168.100.11", "10.0.0.1"]),
        "cluster_fabric_addresses[1]",
        "'10.0.0.1'",
        "192.168.101.0/24",
    ),
    Wrong(
        "address of the broadcast",
        host(0, cluster_fabric_addresses=["192.168.100.255", "192.168.101.11"]),
        "cluster_fabric_addresses[0]",
        "'192.168.100.255'",
        "host address",
    ),
    Wrong(
        "one address",
        host(0, cluster_fabric_addresses=["192.168.100.11"]),
        "cluster_fabric_addresses",
        "['192.168.100.11']",
        "Give 2",
    ),
    Wrong(
        "address is a name",
        host(0, cluster_fabric_addresses=["spark-0", "192.168.101.11"]),
        "cluster_fabric_addresses[0]",
        "'spark-0'",
        "host address",
    ),
    *every(
        "fabric_mtu",
        ("too low", 576, "576", "1500 to 9978"),
        ("too high", 65520, "65520", "1500 to 9978"),
        ("negative", -9000, "-9000", "1500 to 9978"),
    ),
    *every(
        "fabric_memlock",
        ("unit", "64G", "'64G'", "number of KiB"),
        ("negative", -1, "-1", "number of KiB"),
    ),
]

PORTS = [
    *every(
        "cluster_api_port",
        ("privileged", 80, "80", "1024 to 65535"),
        ("too high", 70000, "70000", "1024 to 65535"),
        ("zero", 0, "0", "1024 to 65535"),
        ("negative", -1, "-1", "1024 to 65535"),
        ("text", "http", "'http'", "of type int"),
        ("dist-init", 50000, "50000", "another port"),
        ("among the ranks' own", 50007, "50007", "another port"),
        ("of the copying", 8730, "8730", "another port"),
    ),
    Wrong("dist-init privileged", group(cluster_dist_init_port=1), "cluster_dist_init_port", "1", "1024 to 65535"),
    Wrong("copying among the ranks", group(spread_port=50001), "spread_port", "50001", "such as 8730"),
    Wrong(
        "ssh",
        both(group(cluster_api_port=2222), host(0, ansible_port=2222)),
        "ansible_port",
        "2222",
        "cluster_api_port",
    ),
    Wrong("pairs beyond the last", group(fabric_test_port=65530), "fabric_test_port", "65530", "65520 at most"),
    Wrong("supervisors", group(rank_group_port=99999), "rank_group_port", "99999", "1 to 65535"),
    Wrong(
        "opens dist-init",
        group(firewall_open_tcp_ports=[9100, 50000]),
        "firewall_open_tcp_ports[1]",
        "50000",
        "Take it",
    ),
    Wrong(
        "opens the supervisors",
        group(firewall_open_udp_ports=[50001]),
        "firewall_open_udp_ports[0]",
        "50001",
        "Take it",
    ),
    Wrong("opens no port", group(firewall_open_tcp_ports=[0]), "firewall_open_tcp_ports[0]", "0", "1 to 65535"),
    Wrong(
        "opens a name", group(firewall_open_tcp_ports=["http"]), "firewall_open_tcp_ports[0]", "'http'", "of type int"
    ),
    Wrong("ssh closed", group(firewall_ssh_ports=[]), "firewall_ssh_ports", "[]", "leave the variable out"),
    *every(
        "cluster_api_host",
        ("name", "spark-0", "'spark-0'", "0.0.0.0"),
        ("IPv6", "::", "'::'", "0.0.0.0"),
        ("multicast", "224.0.0.1", "'224.0.0.1'", "0.0.0.0"),
        ("of rank 1", "192.168.100.12", "'192.168.100.12'", "address of rank 0"),
    ),
]

TIMES = [
    Wrong(
        "frozen longer than a start",
        group(rank_later_start_seconds=60, rank_health_seconds=90),
        "rank_health_seconds",
        "90",
        "Use 60 at most",
    ),
    Wrong(
        "silent longer than a start",
        group(rank_later_start_seconds=60, rank_silence_seconds=61),
        "rank_silence_seconds",
        "61",
        "Use 60 at most",
    ),
    Wrong("later start longer", group(rank_start_seconds=600), "rank_later_start_seconds", "1800", "Use 600 at most"),
    Wrong(
        "first pause longer",
        group(rank_backoff_first_seconds=600),
        "rank_backoff_first_seconds",
        "600",
        "Use 300 at most",
    ),
    Wrong("health at once", group(rank_health_seconds=1), "rank_health_seconds", "1", "2 to 3600"),
    Wrong("silence at once", group(rank_silence_seconds=1), "rank_silence_seconds", "1", "5 to 3600"),
    Wrong("confirmed at once", group(fabric_confirm_seconds=1), "fabric_confirm_seconds", "1", "15 to 3600"),
    Wrong(
        "confirmed tomorrow", group(firewall_confirm_seconds=86400), "firewall_confirm_seconds", "86400", "15 to 3600"
    ),
    Wrong("no attempts", group(rank_start_attempts=0), "rank_start_attempts", "0", "1 to 1000"),
    Wrong("never failing", group(rank_failing_after=0), "rank_failing_after", "0", "1 to 1000"),
    Wrong("one release", group(release_keep=1), "release_keep", "1", "2 to 1000"),
    Wrong("release unknown", group(release_to="latest"), "release_to", "'latest'", "12 hex digits"),
    Wrong("backup unknown", group(fabric_restore_to="../x"), "fabric_restore_to", "'../x'", "newest"),
    Wrong("kill before terminate", group(memory_guard_kill_mib=8192), "memory_guard_kill_mib", "8192", "1 to 4096"),
    Wrong(
        "terminate too early", group(memory_guard_terminate_mib=65536), "memory_guard_terminate_mib", "65536", "16384"
    ),
    Wrong("no memory", group(memory_guard_terminate_mib=-1), "memory_guard_terminate_mib", "-1", "16384"),
    Wrong("guard above the floor", group(rank_memory_floor_gib=2), "rank_memory_floor_gib", "2", "such as 96"),
    Wrong("floor in MiB", group(rank_memory_floor_gib=98304), "rank_memory_floor_gib", "98304", "0 to 4096"),
    Wrong("guards a pattern", group(memory_guard_avoid=["a|b"]), "memory_guard_avoid[0]", "'a|b'", "ps -e"),
    Wrong(
        "fails before it warns",
        group(fabric_test_write_bandwidth_fail=95),
        "fabric_test_write_bandwidth_fail",
        "95",
        "Use 90.0 at most",
    ),
    Wrong(
        "sums nothing", group(fabric_test_all_reduce_sizes=[]), "fabric_test_all_reduce_sizes", "[]", "size in bytes"
    ),
    Wrong(
        "sums too much",
        group(fabric_test_all_reduce_sizes=[2**34]),
        "fabric_test_all_reduce_sizes[0]",
        str(2**34),
        "to 1073741824",
    ),
]

OTHERS = [
    Wrong(
        "ssh from nowhere", group(firewall_ssh_sources=["lan"]), "firewall_ssh_sources[0]", "'lan'", "192.168.1.0/24"
    ),
    Wrong(
        "source with host bits",
        group(firewall_api_sources=["10.0.0.1/8"]),
        "firewall_api_sources[0]",
        "10.0.0.1/8",
        "networks",
    ),
    Wrong(
        "source of five",
        group(firewall_api_sources=["10.0.0.0.0"]),
        "firewall_api_sources[0]",
        "10.0.0.0.0",
        "addresses",
    ),
    Wrong(
        "trusts all", group(firewall_trusted_interfaces=["*"]), "firewall_trusted_interfaces[0]", "'*'", "its beginning"
    ),
    Wrong(
        "trusts a rail",
        group(firewall_trusted_interfaces=["en*"]),
        "firewall_trusted_interfaces[0]",
        "'en*'",
        "containers",
    ),
    Wrong(
        "rule of two lines", group(firewall_custom_rules=["a\nb"]), "firewall_custom_rules[0]", "'a\\nb'", "one line"
    ),
    Wrong(
        "rule with a brace", group(firewall_custom_rules=["}"]), "firewall_custom_rules[0]", "'}'", "one nft statement"
    ),
    *every(
        "model_hub_endpoint",
        ("without a scheme", "huggingface.co", "'huggingface.co'", "https://"),
        ("file", "file:///models", "'file:///models'", "https://"),
        ("without a host", "https://", "'https://'", "https://"),
        ("port too high", "https://hub:99999", "'https://hub:99999'", "https://"),
        ("with a password", "https://me:hunter2@hub", "'https://***@hub'", "Take it out"),
        ("with a question", "https://hub/?a=1", "'https://hub/?a=1'", "https://"),
        ("brackets", "https://[::1", "'https://[::1'", "https://"),
    ),
    Wrong("token is a list", group(model_hub_token=["hunter2"]), "model_hub_token", "***", "of type str"),
    Wrong("token with a line break", group(model_hub_token="hunter2\n"), "model_hub_token", "***", "on one line"),
    Wrong("token misspelt", group(model_hub_tokn="hunter2"), "model_hub_tokn", "***", "`model_hub_token`"),
    Wrong("token differs", host(1, model_hub_token="hunter2"), "model_hub_token", "***", "Set it once"),
    Wrong("token in a vault", text(more_text=VAULT), "model_hub_token", "***", "--ask-vault-pass"),
    Wrong(
        "GPU without its class", group(rank_gpu_devices=["all"]), "rank_gpu_devices[0]", "'all'", "nvidia.com/gpu=all"
    ),
    Wrong("archive relative", group(image_archive="sglang.tar"), "image_archive", "'sglang.tar'", "Begin it with `/`"),
    Wrong(
        "undefined", group(cluster_env={"A": "{{ nope }}"}), "cluster_env", "{'A': '{{ nope }}'} (template)", "Define"
    ),
    Wrong(
        "template cut off", group(fabric_mtu="{{ 9000"), "fabric_mtu", "'{{ 9000' (template)", "write the value itself"
    ),
    Wrong(
        "divided by nothing",
        group(fabric_mtu="{{ 9000 / 0 }}"),
        "fabric_mtu",
        "'{{ 9000 / 0 }}' (template)",
        "write the value itself",
    ),
    Wrong(
        "no such filter",
        group(fabric_mtu="{{ 9000 | mtu }}"),
        "fabric_mtu",
        "'{{ 9000 | mtu }}' (template)",
        "write the value itself",
    ),
    Wrong(
        "of itself",
        group(fabric_mtu="{{ fabric_mtu }}"),
        "fabric_mtu",
        "'{{ fabric_mtu }}' (template)",
        "write the value itself",
    ),
    Wrong("no such file", group(model_hub_token="{{ lookup('file', '/nope') }}"), "model_hub_token", "***", "Define"),
    Wrong("environment with a dash", group(cluster_env={"A-B": "1"}), "cluster_env.A-B", "'1'", "underscores"),
    Wrong(
        "environment of the plan",
        group(cluster_env={"NCCL_IB_HCA": "a"}),
        "cluster_env.NCCL_IB_HCA",
        "'a'",
        "cluster_rails",
    ),
    Wrong("environment of two lines", group(cluster_env={"A": "1\n2"}), "cluster_env.A", "'1\\n2'", "one line"),
    Wrong("image with a space", group(cluster_image="a b:c"), "cluster_image", "'a b:c'", "name:tag"),
    Wrong("image null", group(cluster_image=""), "cluster_image", "''", "leave it out"),
    Wrong(
        "own models elsewhere",
        group(cluster_model_dirs=["/nope"]),
        "cluster_model_dirs cluster_model",
        "/nope",
        "Make it",
    ),
]

MODELS = [
    Wrong("none", without("cluster_model"), "cluster_model", "(not set)", "glm-4.7-fp8"),
    Wrong("unknown", group(cluster_model="glm-4.7"), "cluster_model", "'glm-4.7'", "`glm-4.7-fp8`"),
    Wrong("path", group(cluster_model="../mine"), "cluster_model", "'../mine'", "letters, digits"),
    Wrong("file is empty", text(profile_text="---\n"), "(file)", "(not set)", "models/glm-4.7-fp8.yml"),
    Wrong("file is a list", text(profile_text="- a\n"), "(file)", "['a']", "models/glm-4.7-fp8.yml"),
    Wrong("file is broken", text(profile_text="flags: [\n"), "(file)", "models/mine.yml", "Mend the YAML"),
    Wrong("key twice", text(profile_text="hf_id: a/b\nhf_id: a/c\n"), "(file)", "models/mine.yml", "Mend the YAML"),
    Wrong("key misspelt", model(tensor_paralel=4), "tensor_paralel", "4", "`tensor_parallel`"),
    Wrong("key far off", model(colour="red"), "colour", "'red'", "use one of"),
    *(
        Wrong(f"without {key}", model_without(key), key, "(not set)", f"Add `{key}`")
        for key in ("hf_id", "served_name", "architecture", "image", "tensor_parallel", "shape")
    ),
    Wrong("hub id without an owner's end", model(hf_id="zai-org/"), "hf_id", "'zai-org/'", "owner/name"),
    Wrong("hub id is a URL", model(hf_id="https://hub/a/b"), "hf_id", "'https://hub/a/b'", "owner/name"),
    Wrong("hub id with three parts", model(hf_id="a/b/c"), "hf_id", "'a/b/c'", "owner/name"),
    Wrong("hub id with a space", model(hf_id="a/b c"), "hf_id", "'a/b c'", "owner/name"),
    Wrong("revision is a number", model(revision=1.1), "revision", "1.1", "in quotes"),
    Wrong("revision with a space", model(revision="the main"), "revision", "'the main'", "such as main"),
    Wrong("name for clients with a space", model(served_name="glm 4.7"), "served_name", "'glm 4.7'", "letters"),
    Wrong("name for clients is a number", model(served_name=4.70), "served_name", "4.7", "in quotes"),
    Wrong("class", model(architecture="Glm4-Moe"), "architecture", "'Glm4-Moe'", "config.json"),
    Wrong("image in capitals", model(image="LMSYS/SGLang"), "image", "'LMSYS/SGLang'", "name:tag"),
    Wrong("image with a short digest", model(image="a/b@sha256:12"), "image", "'a/b@sha256:12'", "64 hex digits"),
    Wrong("port", model(api_port=80), "api_port", "80", "1024 to 65535"),
    Wrong("ports equal", model(api_port=50000), "api_port", "50000", "another port"),
    Wrong("no time", model(dist_timeout=0), "dist_timeout", "0", "1 to 86400"),
    Wrong("port null", model(api_port=None), "api_port", "null", "remove the line"),
    Wrong("no heads", shape(num_attention_heads=0), "shape.num_attention_heads", "0", "1 to 4096"),
    Wrong(
        "heads missing",
        lambda tree: tree.profile["shape"].pop("num_attention_heads"),
        "shape.num_attention_heads",
        "(not set)",
        "Add `num_attention_heads`",
    ),
    Wrong("key of the shape", shape(num_heads=96), "shape.num_heads", "96", "use one of"),
    Wrong(
        "heads over three",
        both(hosts(3), group(cluster_tensor_parallel=3), shape(num_attention_heads=64)),
        "shape.num_attention_heads shape.num_key_value_heads",
        "64",
        "1, 2, 4, 8, 16",
    ),
    Wrong("experts over ranks", flags(ep_size=3), "flags.ep-size", "3", "Use 1, 2, 4"),
    Wrong("inner size", shape(moe_intermediate_size=1538), "shape.moe_intermediate_size", "1538", "divides it: 1, 2"),
    Wrong("flag misspelt", flags(context_lenght=1), "flags.context-lenght", "1", "`context-length`"),
    Wrong("flag of the plan", flags(tp_size=4), "flags.tp-size", "4", "tensor_parallel"),
    Wrong("flag with a unit", flags(context_length="32k"), "flags.context-length", "'32k'", "without a unit"),
    Wrong("flag with a fraction", flags(max_running_requests=1.5), "flags.max-running-requests", "1.5", "whole number"),
    Wrong("flag out of range", flags(mem_fraction_static=85), "flags.mem-fraction-static", "85", "0.01 to 0.99"),
    Wrong("flag negative", flags(context_length=-1), "flags.context-length", "-1", "from 1 up"),
    Wrong("switch with a value", flags(enable_metrics="on"), "flags.enable-metrics", "'on'", "true or false"),
    Wrong(
        "flag null",
        lambda tree: tree.profile["flags"].update({"dtype": None}),
        "flags.dtype",
        "(not set)",
        "Give the value",
    ),
    Wrong("flags are a list", model(flags=["--dtype"]), "flags", "['--dtype']", "of type dict"),
    Wrong("secret flag", flags(api_key="hunter2"), "flags.api-key", "***", "set cluster_api_key"),
    Wrong(
        "speculation half set",
        flags(speculative_eagle_topk=None),
        "flags.speculative-algorithm",
        "speculative-num-steps: 3, speculative-num-draft-tokens: 8",
        "Add speculative-eagle-topk",
    ),
    Wrong(
        "speculation without its kind",
        flags(speculative_algorithm=None),
        "flags.speculative-num-steps flags.speculative-eagle-topk flags.speculative-num-draft-tokens",
        "2",
        "EAGLE",
    ),
    Wrong(
        "speculation unknown", flags(speculative_algorithm="EGALE"), "flags.speculative-algorithm", "'EGALE'", "`EAGLE`"
    ),
    Wrong(
        "speculation without a draft",
        flags(speculative_algorithm="EAGLE3"),
        "flags.speculative-algorithm",
        "'EAGLE3'",
        "speculative-draft-model-path",
    ),
    Wrong(
        "speculation of one branch",
        flags(speculative_eagle_topk=1),
        "flags.speculative-num-draft-tokens",
        "8",
        "Set it to 4",
    ),
    Wrong("speculation of no steps", flags(speculative_num_steps=0), "flags.speculative-num-steps", "0", "from 1 up"),
]

WRONG = [
    pytest.param(case, id=f"{part}: {case.name}")
    for part, cases in {
        "types": TYPES,
        "names": NAMES,
        "hosts": HOSTS,
        "rails": RAILS,
        "ports": PORTS,
        "times": TIMES,
        "others": OTHERS,
        "models": MODELS,
    }.items()
    for case in cases
]


@pytest.fixture
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks Ansible for a way to a host fails the test."""

    def connect(*arguments: object, **options: object) -> None:
        raise AssertionError(f"a host was touched: {arguments}")

    for name in ("get", "get_with_context"):
        monkeypatch.setattr(connection_loader, name, connect)


def findings_of(tree: Tree, folder: Path) -> list[Finding]:
    """What validate_inventory would report; there is a plan where there is nothing."""
    findings, plan = read_cluster(load(tree.write(folder)))
    assert bool(plan) is not bool(findings)
    return findings


def test_there_are_enough() -> None:
    assert len(WRONG) >= 100


@pytest.mark.parametrize("case", WRONG)
def test_wrong_inventory_is_told_with_variable_value_and_mend(
    case: Wrong, tmp_path: Path, no_connections: None
) -> None:
    tree = reference()
    case.change(tree)
    findings = findings_of(tree, tmp_path)
    told = report(findings, "")
    assert {finding.variable for finding in findings} == set(
        case.variable.split() if case.variable != "group sparks" else [case.variable]
    ), told
    assert any(case.mend in finding.mend for finding in findings), told
    assert f"{case.value}" in told, told
    assert "hunter2" not in told
    for finding in findings:
        assert finding.where
        assert is_for_a_person(finding.problem), finding
        assert is_for_a_person(finding.mend), finding


def is_for_a_person(line: str) -> bool:
    """Whether a line is one sentence or more for a person: no traceback, no object's address."""
    begins = line[0].isupper() or line[0].isdigit() or line[0] == "'"
    return begins and line[-1] in ".?)" and "\n" not in line and "Traceback" not in line and "0x" not in line


RIGHT: list[tuple[str, Change]] = [
    ("the reference", group()),
    (
        "numbers as text",
        group(cluster_api_port="31000", fabric_test_write_bandwidth_warn="80.5", rank_start_seconds="+3600"),
    ),
    ("booleans as text", group(firewall_enabled="no", rank_drop_caches="True", fabric_migrate_netplan="on")),
    ("whole numbers for others", group(fabric_test_write_bandwidth_warn=80, fabric_memlock=65536)),
    ("null where nothing is the default", group(cluster_image=None, cluster_api_port=None, release_to=None)),
    ("empty where that is the default", group(model_hub_token="", image_archive="", fabric_renderer="")),
    ("empty lists", group(firewall_open_tcp_ports=[], rank_docker_options=[], memory_guard_avoid=[])),
    ("templates", group(cluster_tensor_parallel="{{ groups.sparks | length }}", fabric_mtu="{{ 9000 }}")),
    ("someone's own variables", group(site_name="here", my_models=[], ntp_servers=[], modest=1, hosts_port=1)),
    ("addresses of a LAN", host(0, ansible_host="192.168.1.10", ansible_port=22)),
    ("IPv6 for ssh", host(0, ansible_host="fd00::10")),
    ("ranks by hand", ranks(3, "2", 1, 0)),
    ("addresses by hand", host(0, cluster_fabric_addresses=["192.168.100.77", "192.168.101.77"])),
    ("just enough room", both(rail(0, subnet="10.1.0.0/29"), group(cluster_first_host_number=3))),
    ("the API on one address", group(cluster_api_host="192.168.1.10")),
    ("the API on the fabric", group(cluster_api_host="192.168.100.11")),
    (
        "Docker's bridge elsewhere",
        both(rail(0, subnet="172.17.0.0/24"), group(container_runtime_daemon={"bip": "10.9.0.1/24"})),
    ),
    ("ssh elsewhere", both(host(0, ansible_port=2222), group(firewall_ssh_ports=[2222]))),
    ("sources of both families", group(firewall_api_sources=["10.0.0.1", "10.0.0.0/8", "fd00::/8"])),
    (
        "rules and interfaces",
        group(firewall_custom_rules=["ip saddr 10.0.0.5 accept"], firewall_trusted_interfaces=["br-*"]),
    ),
    ("packages with versions", group(fabric_packages=["rdma-core=50.0-2", "libc6:arm64"])),
    ("a hub with a path", group(model_hub_endpoint="http://198.18.0.2:8080/hub")),
    ("no guard", group(memory_guard_enabled="false", rank_memory_floor_gib=2)),
    ("no floor", group(rank_memory_floor_gib=0, memory_guard_terminate_mib=2, memory_guard_kill_mib=1)),
    ("image by digest", group(cluster_image=f"registry:5000/a/b@sha256:{'0' * 64}")),
    ("two nodes", both(hosts(2), group(cluster_tensor_parallel=2))),
    ("eight nodes", both(hosts(8), group(cluster_tensor_parallel=8))),
    ("one node without rails", both(hosts(1), group(cluster_tensor_parallel=1, cluster_rails=[]))),
    ("speculation of one branch", flags(speculative_eagle_topk=1, speculative_num_draft_tokens=4)),
    (
        "speculation as the server likes",
        flags(speculative_num_steps=None, speculative_eagle_topk=None, speculative_num_draft_tokens=None),
    ),
    ("speculation by n-grams", flags(speculative_algorithm="NGRAM")),
    ("a flag taken away", both(group(cluster_flags={"enable-metrics": False}), flags(context_length="32768"))),
    ("experts apart", flags(ep_size=4)),
    ("chunks turned off", flags(chunked_prefill_size=-1)),
    ("a dense model", lambda tree: tree.profile.update(shape={"num_attention_heads": 32, "num_key_value_heads": 2})),
]


@pytest.mark.parametrize("change", [change for _, change in RIGHT], ids=[name for name, _ in RIGHT])
def test_right_inventory_is_left_alone(change: Change, tmp_path: Path, no_connections: None) -> None:
    tree = reference()
    change(tree)
    assert findings_of(tree, tmp_path) == []


def test_all_errors_come_at_once(tmp_path: Path, no_connections: None) -> None:
    """Of types, ranges, names, cross-checks and the model: none keeps another from being told."""
    tree = reference()
    for change in (
        group(rank_start_seconds="soon", fabric_mtu=1, cluster_modle="x", firewall_ssh_sources=["lan"]),
        rail(1, subnet="192.168.100.0/24"),
        host(0, ansible_port=0),
        host(1, cluster_env={"A": "{{ nope }}"}),
        model(api_port=80, hf_id="a b"),
        flags(context_lenght=1),
        hosts_of_three,
    ):
        change(tree)
    assert {finding.variable for finding in findings_of(tree, tmp_path)} == {
        "rank_start_seconds",
        "fabric_mtu",
        "cluster_modle",
        "firewall_ssh_sources[0]",
        "cluster_rails[1].subnet",
        "ansible_port",
        "cluster_env",
        "api_port",
        "hf_id",
        "flags.context-lenght",
        "tensor_parallel",
    }


def hosts_of_three(tree: Tree) -> None:
    del tree.hosts["spark-3"]
