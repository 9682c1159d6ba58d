"""Wrong inventories and models: each ends in a finding that names the variable, its value and the mend."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, report
from ansible_collections.dgx_spark.sglang.plugins.module_utils._inventory import (
    Host,
    check_fit,
    check_inventory,
    settings,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._model import check_profile, complete_profile
from ansible_collections.dgx_spark.sglang.plugins.plugin_utils._controller import (
    COLLECTION,
    INTERNAL,
    role_specs,
)

Variables = dict[str, dict[str, Any]]
MODELS = ["glm-4.7-fp8", "glm4-moe-tiny"]


def reference_variables() -> Variables:
    """The variables of the four hosts of inventory/spark4."""
    group = yaml.safe_load((COLLECTION / "inventory/spark4/group_vars/sparks.yml").read_text())
    return {f"spark-{number}": yaml.safe_load(yaml.safe_dump(group)) for number in range(4)}


def reference_profile() -> dict[str, Any]:
    """models/glm-4.7-fp8.yml as it was read."""
    profile: dict[str, Any] = yaml.safe_load((COLLECTION / "models/glm-4.7-fp8.yml").read_text())
    return profile


def hosts_of(variables: Variables) -> list[Host]:
    return [
        Host(name, str(own.pop("ansible_host", name)), own, own.pop("unreadable", {}))
        for name, own in variables.items()
    ]


def findings_of(variables: Variables, profile: dict[str, Any]) -> list[Finding]:
    """What validate_inventory does, without files: inventory, then model, then both."""
    hosts = hosts_of(variables)
    findings = check_inventory(hosts, role_specs(), MODELS) or check_profile("models/glm-4.7-fp8.yml", profile)
    if findings:
        return findings
    return check_fit(hosts, settings(hosts, role_specs()), complete_profile("glm-4.7-fp8", profile))


def everywhere(**changes: Any) -> Callable[[Variables, dict[str, Any]], None]:
    """Set variables on all hosts; None removes one."""

    def change(variables: Variables, profile: dict[str, Any]) -> None:
        for own in variables.values():
            own.update(changes)

    return change


def on(host: str, **changes: Any) -> Callable[[Variables, dict[str, Any]], None]:
    def change(variables: Variables, profile: dict[str, Any]) -> None:
        variables[host].update(changes)

    return change


def rail(index: int, **changes: Any) -> Callable[[Variables, dict[str, Any]], None]:
    def change(variables: Variables, profile: dict[str, Any]) -> None:
        for own in variables.values():
            own["cluster_rails"][index].update(changes)

    return change


def model(**changes: Any) -> Callable[[Variables, dict[str, Any]], None]:
    def change(variables: Variables, profile: dict[str, Any]) -> None:
        profile.update(changes)

    return change


def ranks(*numbers: int | None) -> Callable[[Variables, dict[str, Any]], None]:
    def change(variables: Variables, profile: dict[str, Any]) -> None:
        for own, number in zip(variables.values(), numbers, strict=True):
            own["cluster_rank"] = number

    return change


def only_hosts(count: int) -> Callable[[Variables, dict[str, Any]], None]:
    def change(variables: Variables, profile: dict[str, Any]) -> None:
        for name in list(variables)[count:]:
            del variables[name]

    return change


@dataclass(frozen=True)
class Wrong:
    """A change to the reference that is wrong, and what has to be said of it."""

    name: str
    change: Callable[[Variables, dict[str, Any]], None]
    variable: str
    value: str
    mend: str


TWO_TWINS = [{"interface": f"enp{i}s0", "hca": f"rocep{i}s0", "subnet": f"10.0.{i}.0/24"} for i in range(3)]

WRONG = [
    Wrong("no hosts", only_hosts(0), "group sparks", "no hosts", "List the Sparks"),
    Wrong("model missing", everywhere(cluster_model=None), "cluster_model", "not set", "glm-4.7-fp8"),
    Wrong("model unknown", everywhere(cluster_model="glm-4.7-fp16"), "cluster_model", "glm-4.7-fp16", "`glm-4.7-fp8`"),
    Wrong("model far off", everywhere(cluster_model="qwen"), "cluster_model", "qwen", "models/qwen.yml"),
    Wrong("variable misspelt", everywhere(cluster_modle="x"), "cluster_modle", "x", "`cluster_model`"),
    Wrong("unknown cluster variable", everywhere(cluster_colour="red"), "cluster_colour", "red", "Use one of"),
    Wrong("other role misspelt", everywhere(rank_ulimit={}), "rank_ulimit", "{}", "`rank_ulimits`"),
    Wrong("time server of one", on("spark-2", host_time_servers=["a b"]), "host_time_servers[0]", "a b", "ntp.example"),
    Wrong(
        "port of one",
        on("spark-2", firewall_open_tcp_ports=[70000]),
        "firewall_open_tcp_ports[0]",
        "70000",
        "1 to 65535",
    ),
    Wrong("differs between hosts", on("spark-2", cluster_api_port=1234), "cluster_api_port", "spark-2", "once"),
    Wrong(
        "template fails",
        on("spark-1", unreadable={"cluster_env": "'x' is undefined"}),
        "cluster_env",
        "template",
        "Define",
    ),
    Wrong("three ranks for TP 4", only_hosts(3), "tensor_parallel", "4", "List 4 hosts"),
    Wrong("TP by hand", everywhere(cluster_tensor_parallel=2), "cluster_tensor_parallel", "2", "List 2 hosts"),
    Wrong("TP of zero", everywhere(cluster_tensor_parallel=0), "cluster_tensor_parallel", "0", "from 1 to 1024"),
    Wrong("TP is text", everywhere(cluster_tensor_parallel="four"), "cluster_tensor_parallel", "four", "type int"),
    Wrong("one ssh address twice", on("spark-3", ansible_host="spark-0"), "ansible_host", "spark-0", "Give each host"),
    Wrong("rank twice", ranks(0, 1, 1, 3), "cluster_rank", "1", "Give each host"),
    Wrong("rank out of range", ranks(1, 2, 3, 4), "cluster_rank", "4", "from 0 to 3"),
    Wrong("rank missing on one", ranks(0, 1, None, 3), "cluster_rank", "not set", "Give every host"),
    Wrong("rank is not a number", ranks(0, 1, 2, "three"), "cluster_rank", "three", "type int"),  # type: ignore[arg-type]
    Wrong("no rails", everywhere(cluster_rails=[]), "cluster_rails", "[]", "inventory/spark4"),
    Wrong("rails are a mapping", everywhere(cluster_rails={"a": 1}), "cluster_rails", "{'a': 1}", "type list"),
    Wrong("three rails", everywhere(cluster_rails=TWO_TWINS), "cluster_rails", "3 rails", "two interfaces"),
    Wrong(
        "rails share a subnet",
        rail(1, subnet="192.168.100.0/24"),
        "cluster_rails[1].subnet",
        "192.168.100.0/24",
        "of its own",
    ),
    Wrong("rails overlap", rail(1, subnet="192.168.0.0/16"), "cluster_rails[1].subnet", "192.168.0.0/16", "of its own"),
    Wrong(
        "subnet with host part",
        rail(0, subnet="192.168.100.5/24"),
        "cluster_rails[0].subnet",
        "192.168.100.5/24",
        "host part zero",
    ),
    Wrong("subnet is no network", rail(0, subnet="fabric"), "cluster_rails[0].subnet", "fabric", "prefix length"),
    Wrong("subnet missing", rail(0, subnet=None), "cluster_rails[0].subnet", "not set", "Add `subnet`"),
    Wrong(
        "one interface twice", rail(1, interface="enp1s0f1np1"), "cluster_rails[1].interface", "enp1s0f1np1", "twins"
    ),
    Wrong("key of a rail misspelt", rail(0, interfce="x"), "cluster_rails[0].interfce", "x", "`interface`"),
    Wrong(
        "host numbers too high",
        everywhere(cluster_first_host_number=253),
        "cluster_first_host_number",
        "253",
        "Start between",
    ),
    Wrong(
        "host number zero", everywhere(cluster_first_host_number=0), "cluster_first_host_number", "0", "Start between"
    ),
    Wrong(
        "address outside of the rail",
        on("spark-0", cluster_fabric_addresses=["192.168.100.11", "192.168.99.11"]),
        "cluster_fabric_addresses[1]",
        "192.168.99.11",
        "192.168.101.0/24",
    ),
    Wrong(
        "fabric address of another",
        on("spark-0", cluster_fabric_addresses=["192.168.100.12", "192.168.101.11"]),
        "cluster_fabric_addresses",
        "192.168.100.12",
        "Give each host",
    ),
    Wrong(
        "broadcast address",
        on("spark-0", cluster_fabric_addresses=["192.168.100.255", "192.168.101.11"]),
        "cluster_fabric_addresses[0]",
        "192.168.100.255",
        "host address",
    ),
    Wrong(
        "one address for two rails",
        on("spark-0", cluster_fabric_addresses=["192.168.100.11"]),
        "cluster_fabric_addresses",
        "192.168.100.11",
        "Give 2 addresses",
    ),
    Wrong("API port too high", everywhere(cluster_api_port=70000), "cluster_api_port", "70000", "1024 to 65535"),
    Wrong("API port privileged", everywhere(cluster_api_port=80), "cluster_api_port", "80", "1024 to 65535"),
    Wrong("dist-init port negative", everywhere(cluster_dist_init_port=-1), "cluster_dist_init_port", "-1", "1024"),
    Wrong(
        "API port among the ranks' own", everywhere(cluster_api_port=50001), "cluster_api_port", "50001", "another port"
    ),
    Wrong("API host is a name", everywhere(cluster_api_host="all"), "cluster_api_host", "all", "0.0.0.0"),
    Wrong("device unknown", everywhere(sglang_device="gpu"), "sglang_device", "gpu", "cuda, cpu"),
    Wrong(
        "flag misspelt",
        everywhere(cluster_flags={"context-lenght": 1}),
        "cluster_flags.context-lenght",
        "1",
        "`context-length`",
    ),
    Wrong(
        "flag with underscores",
        everywhere(cluster_flags={"context_length": 1}),
        "cluster_flags.context_length",
        "1",
        "`context-length`",
    ),
    Wrong("flag of the plan", everywhere(cluster_flags={"tp": 2}), "cluster_flags.tp", "2", "tensor_parallel"),
    Wrong(
        "switch with a value",
        everywhere(cluster_flags={"enable-metrics": "on"}),
        "cluster_flags.enable-metrics",
        "on",
        "true or false",
    ),
    Wrong(
        "flag without its value",
        everywhere(cluster_flags={"dtype": True}),
        "cluster_flags.dtype",
        "True",
        "Give the value",
    ),
    Wrong("flags are a list", everywhere(cluster_flags=["--dtype"]), "cluster_flags", "--dtype", "type dict"),
    Wrong(
        "environment of the plan",
        everywhere(cluster_env={"NCCL_IB_HCA": "mlx5_1"}),
        "cluster_env.NCCL_IB_HCA",
        "mlx5_1",
        "cluster_rails",
    ),
    Wrong("environment with a line break", everywhere(cluster_env={"A": "1\n2"}), "cluster_env.A", "1\\n2", "one line"),
    Wrong("environment name", everywhere(cluster_env={"A-B": "1"}), "cluster_env.A-B", "1", "underscores"),
    Wrong(
        "image with a blank",
        everywhere(cluster_image="lmsysorg/sglang: spark"),
        "cluster_image",
        "sglang: spark",
        "name:tag",
    ),
    Wrong(
        "role variable of the wrong type", everywhere(rank_stop_seconds="soon"), "rank_stop_seconds", "soon", "type int"
    ),
    Wrong("time of zero", everywhere(rank_start_seconds=0), "rank_start_seconds", "0", "from 10 to 86400"),
    *(
        Wrong(f"{name} of {seconds}", everywhere(**{name: seconds}), name, str(seconds), "from 15 to 3600")
        for name in ("fabric_confirm_seconds", "firewall_confirm_seconds")
        for seconds in (0, 14, 3601)
    ),
    Wrong("port of a role", everywhere(spread_port=70000), "spread_port", "70000", "1024 to 65535"),
    Wrong("relative directory", everywhere(cluster_data_dir="data"), "cluster_data_dir", "data", "Begin it with `/`"),
    Wrong("unknown smoke check", everywhere(smoke_checks=["HELTH"]), "smoke_checks[0]", "HELTH", "HEALTH"),
    Wrong(
        "list for a single value", everywhere(cluster_flags={"dtype": ["a"]}), "cluster_flags.dtype", "a", "one value"
    ),
    Wrong(
        "secret in the flags",
        everywhere(cluster_flags={"api-key": "x"}),
        "cluster_flags.api-key",
        "x",
        "set cluster_api_key instead",
    ),
    Wrong(
        "other secret in the flags",
        everywhere(cluster_flags={"admin-api-key": "x"}),
        "cluster_flags.admin-api-key",
        "x",
        "set cluster_admin_api_key instead",
    ),
    Wrong("file of flags", everywhere(cluster_flags={"config": "/x.yml"}), "cluster_flags.config", "/x.yml", "options"),
    Wrong("key that is short", everywhere(cluster_api_key="abc"), "cluster_api_key", "***", "openssl rand"),
    *(
        Wrong(f"key that is {key!r}", everywhere(cluster_api_key=key), "cluster_api_key", "***", "Use letters")
        for key in ("-" + 20 * "x", "with a blank" * 2, 'quote"' * 4, "=" * 20, "ä" * 20)
    ),
    Wrong("key of several lines", everywhere(cluster_api_key="line\n" * 4), "cluster_api_key", "***", "on one line"),
    Wrong(
        "one key for all",
        everywhere(cluster_api_key=20 * "x", cluster_admin_api_key=20 * "x"),
        "cluster_admin_api_key",
        "***",
        "a key of its own",
    ),
    *(
        Wrong(
            f"{name} in the environment", everywhere(cluster_env={name: "x"}), f"cluster_env.{name}", "x", "Remove it"
        )
        for name in ("HF_TOKEN", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "SECRET", "db_password")
    ),
    Wrong(
        "privileged container",
        everywhere(rank_docker_options=["--shm-size=1g", "--privileged"]),
        "rank_docker_options[1]",
        "--privileged",
        "--cap-add",
    ),
    *(
        Wrong(
            f"secret of a container, {words[0]}",
            everywhere(rank_docker_options=words),
            "rank_docker_options[0]",
            "HF_TOKEN=...",
            "mount a file",
        )
        for words in (["--env=HF_TOKEN=x"], ["--env", "HF_TOKEN=x"], ["-e", "HF_TOKEN=x"])
    ),
    Wrong(
        "key with several tokenizers",
        everywhere(cluster_api_key=20 * "x", cluster_flags={"tokenizer-worker-num": 2}),
        "tokenizer-worker-num",
        "2",
        "Leave it at 1",
    ),
    Wrong(
        "key with gRPC",
        everywhere(cluster_api_key=20 * "x", cluster_flags={"grpc-mode": True}),
        "grpc-mode",
        "True",
        "Leave it out",
    ),
    Wrong(
        "template of the address",
        on("spark-1", unreadable={"ansible_host": "'x' is undefined"}),
        "ansible_host",
        "template",
        "Define",
    ),
    Wrong(
        "trust in a rail",
        everywhere(firewall_trusted_interfaces=["docker0", "enP*"]),
        "firewall_trusted_interfaces[1]",
        "enP*",
        "interfaces of the containers",
    ),
    Wrong("key of the model misspelt", model(tensor_paralel=4), "tensor_paralel", "4", "`tensor_parallel`"),
    Wrong("key of the model far off", model(colour="red"), "colour", "red", "use one of"),
    Wrong("model without an image", model(image=None), "image", "not set", "lmsysorg/sglang:spark"),
    Wrong(
        "flag of the model misspelt", model(flags={"contextlength": 1}), "flags.contextlength", "1", "`context-length`"
    ),
    Wrong("port of the model", model(api_port=99999), "api_port", "99999", "1024 to 65535"),
    Wrong("model timeout", model(dist_timeout=0), "dist_timeout", "0", "from 1 to 86400"),
]


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.name)
def test_wrong_inventory_is_named_with_its_mend(case: Wrong) -> None:
    variables, profile = reference_variables(), reference_profile()
    case.change(variables, profile)
    findings = findings_of(variables, profile)
    matching = [finding for finding in findings if finding.variable == case.variable]
    assert matching, f"nothing is said of {case.variable}: {findings}"
    assert any(case.value in finding.value for finding in matching), matching
    assert any(case.mend in finding.mend for finding in matching), matching


def test_reference_inventory_is_right() -> None:
    assert findings_of(reference_variables(), reference_profile()) == []


@pytest.mark.parametrize("name", MODELS)
def test_models_that_come_with_the_collection_are_right(name: str) -> None:
    profile = yaml.safe_load((COLLECTION / f"models/{name}.yml").read_text())
    assert check_profile(name, profile) == []


def test_a_node_may_be_somebodys_desk() -> None:
    variables = reference_variables()
    on("spark-2", host_headless=False, host_swap_off=False, firewall_open_tcp_ports=[3389])(variables, {})
    assert findings_of(variables, reference_profile()) == []


def test_what_is_wrong_on_one_host_is_said_of_it_alone() -> None:
    variables = reference_variables()
    on("spark-2", host_time_servers=["a b"])(variables, {})
    (finding,) = findings_of(variables, reference_profile())
    assert finding.where == "spark-2"
    # Also of the first, by whose values those are not judged that have none of their own.
    variables = reference_variables()
    on("spark-0", host_time_servers=["a b"])(variables, {})
    (finding,) = findings_of(variables, reference_profile())
    assert finding.where == "spark-0"


@pytest.mark.parametrize("name", ["spark-0", "spark-2"])
def test_no_host_opens_the_ports_of_the_ranks(name: str) -> None:
    variables = reference_variables()
    on(name, firewall_open_tcp_ports=[3389, 50000], firewall_open_udp_ports=[50001])(variables, {})
    findings = findings_of(variables, reference_profile())
    assert [(finding.where, finding.variable) for finding in findings] == [
        (name, "firewall_open_tcp_ports[1]"),
        (name, "firewall_open_udp_ports[0]"),
    ]


def test_one_node_needs_no_fabric() -> None:
    variables: Variables = {"spark-0": {"cluster_model": "glm-4.7-fp8", "cluster_tensor_parallel": 1}}
    assert findings_of(variables, reference_profile()) == []
    # Nor has it rails that could be opened.
    variables = reference_variables()
    only_hosts(1)(variables, {})
    everywhere(cluster_tensor_parallel=1, firewall_trusted_interfaces=["en*"])(variables, {})
    assert findings_of(variables, reference_profile()) == []


def test_what_is_no_secret_may_stand_in_the_environment() -> None:
    variables = reference_variables()
    everywhere(
        cluster_env={"TOKENIZERS_PARALLELISM": "false", "HF_TOKEN_PATH": "/x", "SGLANG_MAX_TOKENS": 1},
        rank_docker_options=["--env=NCCL_DEBUG=INFO", "--env", "HF_TOKEN", "--privileged=false"],
        cluster_api_key="0123456789abcdef=",
    )(variables, {})
    assert findings_of(variables, reference_profile()) == []


@pytest.mark.parametrize("variable", ["model_hub_token", "model_hub_tokn", "cluster_flags", "cluster_api_key"])
def test_no_secret_is_shown(variable: str) -> None:
    value = {"api-key": "hunter2"} if variable == "cluster_flags" else ["hunter2"]
    variables = reference_variables()
    for own in variables.values():
        own[variable] = value
    findings = findings_of(variables, reference_profile())
    assert findings
    assert "hunter2" not in report(findings, "")
    assert "***" in report(findings, "")


def test_empty_text_is_fine_where_it_is_the_default() -> None:
    variables = reference_variables()
    for own in variables.values():
        own.update(model_hub_token="", image_archive="")
    assert findings_of(variables, reference_profile()) == []


def test_numbers_may_come_as_text() -> None:
    variables = reference_variables()
    for own in variables.values():
        own["cluster_api_port"] = "31000"
    assert findings_of(variables, reference_profile()) == []


def names_set_by_roles() -> set[str]:
    """What the roles register, set as facts or keep in vars/main.yml."""
    names: set[str] = set()
    for path in COLLECTION.glob("roles/*/tasks/*.yml"):
        text = path.read_text()
        names |= set(re.findall(r"^ +register: (\w+)", text, re.MULTILINE))
        for block in re.findall(r"set_fact:\n((?:    +.*\n)+)", text):
            names |= set(re.findall(r"^ +(\w+):", block, re.MULTILINE))
    for path in COLLECTION.glob("roles/*/vars/main.yml"):
        names |= set(yaml.safe_load(path.read_text()))
    return names


def test_what_the_roles_set_is_not_taken_for_a_typing_error() -> None:
    """Two playbooks in one run: the second validation sees the facts of the first."""
    names = names_set_by_roles()
    assert {"cluster_plan", "rank_seen", "image_id"} <= names
    variables = reference_variables()
    for own in variables.values():
        own.update({name: "x" for name in names if name not in INTERNAL})
    assert findings_of(variables, reference_profile()) == []


@pytest.mark.parametrize("seconds", [15, "60", 3600])
def test_a_change_may_be_confirmed_within(seconds: int | str) -> None:
    variables = reference_variables()
    everywhere(fabric_confirm_seconds=seconds, firewall_confirm_seconds=seconds)(variables, {})
    assert findings_of(variables, reference_profile()) == []


def test_all_findings_come_at_once() -> None:
    variables = reference_variables()
    for own in variables.values():
        own.update(cluster_api_port=1, cluster_flags={"context-lenght": 1}, cluster_api_host="all", cluster_modle=1)
    named = {finding.variable for finding in findings_of(variables, reference_profile())}
    assert named == {"cluster_api_port", "cluster_flags.context-lenght", "cluster_api_host", "cluster_modle"}
