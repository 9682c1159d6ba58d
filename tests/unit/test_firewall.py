# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The firewall as text, its variables, and whom it would lock out. Packets are in test_firewall_packets.py."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.dgx_spark.sglang.plugins.filter.firewall import firewall_objections, firewall_rules
from ansible_collections.dgx_spark.sglang.plugins.module_utils._firewall import (
    TABLE,
    UNIT,
    Rail,
    Seen,
    Settings,
    check_firewall,
    locked_out,
    objections,
    rails_of,
    render,
    settings,
)

ROLE = Path(__file__).parents[2] / "roles/firewall"
RAILS = [Rail("enp1s0f1np1", ("198.18.100.12", "198.18.100.13")), Rail("enP2p1s0f1np1", ("198.18.101.12",))]
EVERYTHING = Settings(
    ssh_ports=(22, 2222),
    ssh_sources=("198.18.0.0/24", "198.18.0.7", "2001:2::/48"),
    api_sources=("198.18.0.9",),
    open_tcp_ports=(80,),
    open_udp_ports=(51820,),
    trusted_interfaces=("docker0", "br-*", "tailscale0"),
    custom_rules=(
        'ip saddr { 198.18.0.5, 198.18.0.6 } tcp dport 9100 accept comment "a } in text"',
        "udp dport 5 drop",
    ),
    refuse="drop",
)
needs_nft = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("nft"), reason="loading rules needs root and the package nftables"
)

PLAN: dict[str, Any] = {
    "api_port": 30000,
    "ranks": [
        {
            "host": f"spark-{rank}",
            "rank": rank,
            "addresses": [f"198.18.{100 + rail}.{11 + rank}" for rail in range(2)],
            "interfaces": ["enp1s0f1np1", "enP2p1s0f1np1"],
        }
        for rank in range(3)
    ],
}


def nft(text: str) -> subprocess.CompletedProcess[str]:
    """Check a text and load it twice, the second time over itself, in a network of its own; then list it."""
    script = f"nft --check --file - <<'END'\n{text}END\n[ $? = 0 ] || exit 1\n" + (
        f"nft --file - <<'END'\n{text}END\n[ $? = 0 ] || exit 1\n" * 2 + f"nft --stateless list table inet {TABLE}"
    )
    return subprocess.run(["unshare", "--net", "sh", "-c", script], capture_output=True, text=True, check=False)


def rules_of(text: str, chain: str) -> list[str]:
    """The lines of one chain."""
    found = re.search(rf"chain {chain} {{\n(.*?)\n    }}", text, re.DOTALL)
    assert found
    return [line.strip() for line in found[1].splitlines()]


# ---- the text ------------------------------------------------------------------------------------


@needs_nft
@pytest.mark.parametrize("wanted", [Settings(), EVERYTHING], ids=["defaults", "everything"])
@pytest.mark.parametrize("rails", [[], RAILS], ids=["alone", "two rails"])
@pytest.mark.parametrize("api_port", [None, 30000])
def test_nft_takes_it(wanted: Settings, rails: list[Rail], api_port: int | None) -> None:
    done = nft(render(wanted, rails, api_port))
    assert done.returncode == 0, done.stderr
    # Loaded twice, and each rule once.
    assert done.stdout.count("ct state invalid drop") == 1


@needs_nft
def test_nft_refuses_a_wrong_custom_rule() -> None:
    """So `nft --check` in the guarded change stops it before anything is changed."""
    done = nft(render(Settings(custom_rules=("tcp dport acept",)), RAILS, 30000))
    assert done.returncode != 0
    assert "acept" in done.stderr


def test_nothing_of_others_is_flushed() -> None:
    text = render(EVERYTHING, RAILS, 30000)
    assert "flush" not in text
    assert set(re.findall(r"\b(?:table|delete table) (inet \w+)", text)) == {f"inet {TABLE}"}


def test_ranks_that_do_not_serve_have_no_api_port() -> None:
    texts = [firewall_rules(PLAN, f"spark-{rank}", {"ssh_ports": [22]}) for rank in range(3)]
    assert [("30000" in text) for text in texts] == [True, False, False]


def test_members_of_a_rail_are_the_others_on_that_rail() -> None:
    assert rails_of(PLAN, "spark-1") == [
        Rail("enp1s0f1np1", ("198.18.100.11", "198.18.100.13")),
        Rail("enP2p1s0f1np1", ("198.18.101.11", "198.18.101.13")),
    ]
    assert rails_of({"ranks": PLAN["ranks"][:1]}, "spark-0") == []


def test_order_of_the_input_chain() -> None:
    """Rails are closed to others before ssh and custom rules could open them, and the end refuses."""
    chain = rules_of(render(EVERYTHING, RAILS, 30000), "input")
    rail = chain.index('iifname { "enp1s0f1np1", "enP2p1s0f1np1" } goto refuse')
    ssh = chain.index("ip saddr @ssh_from_4 tcp dport { 22, 2222 } accept")
    assert chain[0].endswith("policy drop;")
    assert rail < ssh < chain.index(EVERYTHING.custom_rules[0])
    assert chain[-1] == "goto refuse"


def test_bridges_of_docker_are_closed_to_what_is_routed() -> None:
    """A bridge br-lan, which nobody may trust where it leads to the LAN, is none of them."""
    onto = 'iifname != "{0}" oifname "{0}" goto refuse'
    chain = rules_of(render(EVERYTHING, RAILS, 30000), "forward")
    assert chain[-2:] == [onto.format("docker0"), onto.format("br-*")]
    assert rules_of(render(Settings(trusted_interfaces=()), [], None), "forward")[-1] == onto.format("docker0")


def test_sources_that_overlap_are_joined() -> None:
    text = render(EVERYTHING, [], 30000)
    assert "elements = { 198.18.0.0/24 }" in text
    assert "elements = { 2001:2::/48 }" in text
    # No IPv6 source may use the API: then there is no rule for it, and not one for all.
    assert [rule for rule in rules_of(text, "input") if "30000" in rule] == [
        "ip saddr @api_from_4 tcp dport { 30000 } accept"
    ]


# ---- variables -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("ssh_ports", [0], "not a port"),
        ("ssh_ports", ["ssh"], "not a port"),
        ("ssh_ports", [], "Closes ssh"),
        ("open_tcp_ports", [65536], "not a port"),
        ("open_udp_ports", [-1], "not a port"),
        ("ssh_sources", ["198.18.0.1/24"], "neither an address nor a network"),
        ("ssh_sources", ["office.example"], "neither an address nor a network"),
        ("api_sources", ["198.18.0.300"], "neither an address nor a network"),
        ("trusted_interfaces", ["*"], "every interface"),
        ("trusted_interfaces", ['a" accept'], "not the name"),
        ("trusted_interfaces", ["sixteen-letters-"], "not the name"),
        ("trusted_interfaces", ["a*b"], "not the name"),
        ("trusted_interfaces", [""], "not the name"),
        ("custom_rules", ["accept\n}"], "one statement"),
        ("custom_rules", [" "], "one statement"),
        ("custom_rules", ["accept } chain x {"], "do not match"),
        ("custom_rules", ["tcp dport { 1, 2 accept"], "do not match"),
    ],
)
def test_wrong_variables_are_found(name: str, value: list[Any], word: str) -> None:
    (finding,) = check_firewall({f"firewall_{name}": value})
    assert finding.variable.startswith(f"firewall_{name}")
    assert word in finding.problem
    assert finding.mend.endswith(".")
    with pytest.raises(AnsibleFilterError, match=f"firewall_{name}"):
        firewall_rules(PLAN, "spark-0", {name: value})


def test_the_defaults_and_text_as_numbers_are_right() -> None:
    defaults = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
    assert check_firewall({**defaults, "firewall_ssh_ports": ["22"]}) == []
    names = yaml.safe_load((ROLE / "vars/main.yml").read_text())["firewall_settings"].keys()
    given = {name: defaults[f"firewall_{name}"] for name in names if f"firewall_{name}" in defaults}
    as_lists = {name: list(value) if isinstance(value, tuple) else value for name, value in vars(Settings()).items()}
    assert given == {name: value for name, value in as_lists.items() if name != "ssh_ports"}
    assert settings({"ssh_ports": ["2222", 22]}).ssh_ports == (22, 2222)


def test_the_unit_has_its_names() -> None:
    """The table and the file of the unit are those of the rules and of the role."""
    assert (ROLE / "files" / UNIT).read_text().count(f"inet {TABLE}") == 2
    names = (ROLE / "vars/main.yml").read_text()
    for unit in (UNIT, "nftables.conf"):
        text = (ROLE / "files" / unit).read_text()
        assert set(re.findall(r"/etc/dgx-spark/[\w.]+", text)) == {"/etc/dgx-spark/firewall.nft"}
        assert f"'{unit}'" in names
    assert "path: /etc/dgx-spark/firewall.nft" in names
    assert f"path: /etc/systemd/system/{UNIT}" in names


# ---- who would be locked out ---------------------------------------------------------------------

LAN = "enP7s7"


@pytest.mark.parametrize(
    ("seen", "wanted", "mend"),
    [
        (Seen("198.18.0.1", 22, LAN), Settings(), ""),
        (Seen("198.18.0.1", 2222, LAN), Settings(), "Add 2222 to firewall_ssh_ports."),
        (Seen("198.18.0.1", 2222, LAN), Settings(open_tcp_ports=(2222,)), ""),
        (Seen("198.18.0.1", 22, LAN), Settings(ssh_sources=("198.18.0.0/24",)), ""),
        (Seen("198.18.1.1", 22, LAN), Settings(ssh_sources=("198.18.0.0/24",)), "Add 198.18.1.1 or its network"),
        (Seen("2001:2::1", 22, LAN), Settings(ssh_sources=("198.18.0.0/24",)), "Add 2001:2::1 or its network"),
        (Seen("fe80::1%enP7s7", 22, LAN), Settings(ssh_sources=("fe80::/10",)), ""),
        (Seen("198.18.100.12", 22, "enp1s0f1np1"), Settings(), ""),
        (Seen("198.18.100.99", 22, "enp1s0f1np1"), Settings(), "outside of the fabric"),
        (Seen("198.18.100.99", 22, "enp1s0f1np1"), Settings(open_tcp_ports=(22,)), "outside of the fabric"),
        (Seen("198.18.9.1", 9, "tailscale0"), Settings(trusted_interfaces=("tailscale0",)), ""),
        (Seen("198.18.9.1", 9, "br-0123456789ab"), Settings(), ""),
        (Seen("127.0.0.1", 9, "lo"), Settings(), ""),
        (Seen(), Settings(ssh_sources=("198.18.0.0/24",)), ""),
        (Seen("198.18.0.1", 22, ""), Settings(), ""),
    ],
)
def test_locked_out(seen: Seen, wanted: Settings, mend: str) -> None:
    said = locked_out(seen, wanted, RAILS)
    assert bool(said) == bool(mend)
    assert mend in said


def test_trust_in_the_way_out_is_refused() -> None:
    """A bridge on the LAN may be called br-lan, as those of Docker are called br-0123456789ab."""
    (said,) = objections(Seen(ways_out=["br-lan", "docker0x"]), Settings(), [])
    assert "`br-*`" in said
    assert "br-lan" in said
    assert objections(Seen(ways_out=["br", "enP7s7"]), Settings(), []) == []
    assert len(objections(Seen("198.18.1.1", 23, LAN, ["br-lan"]), Settings(), [])) == 2


def test_trust_in_a_rail_is_refused() -> None:
    """It would let in everyone on the rail, before anything asks who is a member."""
    (said,) = objections(Seen(), Settings(trusted_interfaces=("docker0", "enP*")), RAILS)
    assert said.startswith("firewall_trusted_interfaces[1] = 'enP*': Is true of enP2p1s0f1np1, a rail")
    assert "Mend: Name the interfaces of the containers" in said
    assert len(objections(Seen(), Settings(trusted_interfaces=("en*", "enp1s0f1np1")), RAILS)) == 3
    assert objections(Seen(), Settings(trusted_interfaces=("en*",)), []) == []
    assert objections(Seen(), Settings(trusted_interfaces=("enp1s0f1", "enp1s0f0*")), RAILS) == []


def test_filter_of_objections() -> None:
    seen = {"client": "198.18.0.1", "port": 2222, "interface": LAN, "ways_out": [LAN]}
    assert firewall_objections(seen, PLAN, "spark-0", {"ssh_ports": [2222]}) == []
    assert len(firewall_objections(seen, PLAN, "spark-0", {"ssh_ports": [22]})) == 1
