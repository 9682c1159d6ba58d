# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The firewall of a node: its variables, its rules as text for nft, and whom they would lock out.

Pure functions: loading the text is the unit's business, looking at what is loaded that of the module firewall_info.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown

TABLE = "dgx_spark"
"""The table of family inet that holds all of our rules, and nothing of anyone else's."""

UNIT = "dgx-spark-firewall.service"

GROUP_WIDE = "group sparks"

# Linux: IFNAMSIZ is 16 with the closing NUL. nft takes a trailing * for any ending, and \ for itself.
_INTERFACE = re.compile(r'(?=.{1,15}$)[^\s/"\\*]*\*?$')


@dataclass(frozen=True)
class Settings:
    """The role's variables, by their names without `firewall_`.

    ssh_sources, api_sources: addresses or networks, IPv4 and IPv6; empty for anyone. refuse: "reject" or "drop".
    """

    ssh_ports: Sequence[int] = (22,)
    ssh_sources: Sequence[str] = ()
    api_sources: Sequence[str] = ()
    open_tcp_ports: Sequence[int] = ()
    open_udp_ports: Sequence[int] = ()
    trusted_interfaces: Sequence[str] = ("docker0", "br-*")
    custom_rules: Sequence[str] = ()
    refuse: str = "reject"


@dataclass(frozen=True)
class Rail:
    """One rail as a node sees it: its own interface, and the IPv4 addresses of the other members."""

    interface: str
    peers: Sequence[str] = field(default=())


@dataclass(frozen=True)
class Seen:
    """How a node is reached.

    client, port: where Ansible's ssh connection comes from, and the TCP port that it came to; "" and 0 where there is
    none. interface: by which the node answers it. ways_out: the interfaces of its default routes.
    """

    client: str = ""
    port: int = 0
    interface: str = ""
    ways_out: Sequence[str] = ()


# ---- variables -----------------------------------------------------------------------------------


def check_firewall(values: Mapping[str, Any], rails: Sequence[str] = ()) -> list[Finding]:
    """What is wrong with the role's variables, beyond their types.

    values: variable -> value, as _inventory.settings gives them; what is not there is not checked. rails: interfaces.
    """
    findings = []
    for name, problem_of, mend in _CHECKS:
        for index, value in enumerate(values.get(f"firewall_{name}") or ()):
            problem = problem_of(value)
            if problem:
                findings.append(Finding(GROUP_WIDE, f"firewall_{name}[{index}]", shown(value), problem, mend))
    if values.get("firewall_ssh_ports") == []:
        mend = "Give the TCP port of sshd, or leave the variable out."
        findings.append(Finding(GROUP_WIDE, "firewall_ssh_ports", "[]", "Closes ssh to everyone.", mend))
    return [*findings, *_trust_in_rails(values.get("firewall_trusted_interfaces") or (), rails)]


def _trust_in_rails(patterns: Sequence[str], rails: Sequence[str]) -> list[Finding]:
    """What is trusted is let in before anything asks whether a packet comes from a member."""
    return [
        Finding(
            GROUP_WIDE,
            f"firewall_trusted_interfaces[{index}]",
            shown(pattern),
            f"Is true of {name}, a rail of the fabric: everyone on it would be let in, members or not.",
            _TRUST_MEND,
        )
        for index, pattern in enumerate(patterns)
        for name in rails
        if _matches(name, str(pattern))
    ]


_TRUST_MEND = "Name the interfaces of the containers alone."


def _port_problem(value: object) -> str:
    try:
        right = 1 <= int(str(value)) <= 65535
    except ValueError:
        right = False
    return "" if right else "Is not a port."


def _source_problem(value: object) -> str:
    try:
        ipaddress.ip_network(str(value))
    except ValueError as error:
        return f"Is neither an address nor a network: {error}."
    return ""


def _interface_problem(value: object) -> str:
    if str(value) == "*":
        return "Trusts every interface."
    return "" if _INTERFACE.match(str(value)) else "Is not the name of an interface."


def _rule_problem(value: object) -> str:
    text = str(value)
    if not text.strip() or "\n" in text:
        return "Is not one statement on one line."
    # A brace too many would end the chain, and what follows would be outside of it.
    depth = 0
    for character in re.sub(r'"[^"]*"', "", text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            break
    return "Has braces that do not match." if depth else ""


_A_PORT = "Use a port from 1 to 65535."
_A_SOURCE = "Use addresses such as 192.168.1.10 or networks such as 192.168.1.0/24 or fd00::/8."
_CHECKS: list[tuple[str, Callable[[object], str], str]] = [
    ("ssh_ports", _port_problem, _A_PORT),
    ("ssh_sources", _source_problem, _A_SOURCE),
    ("api_sources", _source_problem, _A_SOURCE),
    ("open_tcp_ports", _port_problem, _A_PORT),
    ("open_udp_ports", _port_problem, _A_PORT),
    ("trusted_interfaces", _interface_problem, "Use a name as `ip link` shows it, or its beginning and a *."),
    ("custom_rules", _rule_problem, "Write one nft statement, such as `ip saddr 10.0.0.5 tcp dport 9100 accept`."),
]


def settings(values: Mapping[str, Any]) -> Settings:
    """The variables (without `firewall_`) as Settings; ports may be text. ValueError with all that is wrong."""
    findings = check_firewall({f"firewall_{name}": value for name, value in values.items()})
    if findings:
        raise ValueError("; ".join(f"{one.variable} = {one.value}: {one.problem} {one.mend}" for one in findings))
    typed: dict[str, Any] = {
        name: tuple(sorted({int(port) for port in value})) if name.endswith("_ports") else value
        for name, value in values.items()
    }
    return Settings(**typed)


def rails_of(plan: Mapping[str, Any], host: str) -> list[Rail]:
    """The rails of one host; none where it is alone. KeyError where the plan has no such host."""
    ranks = {rank["host"]: rank for rank in plan["ranks"]}
    others = [rank for rank in plan["ranks"] if rank["host"] != host]
    if not others:
        return []
    return [
        Rail(interface, tuple(rank["addresses"][number] for rank in others))
        for number, interface in enumerate(ranks[host]["interfaces"])
    ]


# ---- the text ------------------------------------------------------------------------------------


def render(wanted: Settings, rails: Sequence[Rail], api_port: int | None) -> str:
    """The file for `nft --file`. It replaces our table in one transaction and touches no other.

    api_port: the TCP port of the API; None on the ranks that do not serve it.
    """
    rail_names = _among([f'"{rail.interface}"' for rail in rails])
    services = [
        *_open("tcp", wanted.ssh_ports, "ssh", wanted.ssh_sources),
        *_open("tcp", [api_port] if api_port else [], "api", wanted.api_sources),
        *_open("tcp", wanted.open_tcp_ports),
        *_open("udp", wanted.open_udp_ports),
    ]
    inside = [
        'iifname "lo" accept',
        *(f'iifname "{name}" accept' for name in wanted.trusted_interfaces),
        *(f'iifname "{rail.interface}" ip saddr @members_{number} accept' for number, rail in enumerate(rails)),
    ]
    known = ["ct state established,related accept", "ct state invalid drop"]
    only_members = [f"iifname {rail_names} goto refuse"] if rails else []
    incoming = [*inside, *known, *only_members, *_NETWORK, *services, *wanted.custom_rules, "goto refuse"]
    # Docker's own chains say the rest: accepting here ends this chain, not theirs.
    published = [
        f"ct status dnat meta l4proto {protocol} ct original proto-dst {_among(ports)} accept"
        for protocol, ports in (("tcp", wanted.open_tcp_ports), ("udp", wanted.open_udp_ports))
        if ports
    ]
    # Else a neighbour on the LAN could send to the other members with a member's address.
    onto_rails = [f"oifname {rail_names} goto refuse"] if rails else []
    # Who has a route to a container's own address needs no published port.
    onto_bridges = [
        f'iifname != "{name}" oifname "{name}" goto refuse' for name in _bridges_of_docker(wanted.trusted_interfaces)
    ]
    forwarded = [
        *("ct state established,related accept", *inside[1:], *onto_rails, *only_members),
        *(*published, "ct status dnat goto refuse", *onto_bridges),
    ]
    refused = [
        "meta pkttype { broadcast, multicast } drop",
        "counter name refused",
        *(
            ["meta l4proto tcp reject with tcp reset", "reject with icmpx admin-prohibited"]
            * (wanted.refuse == "reject")
        ),
        *(["drop"] * (wanted.refuse == "drop")),
    ]
    sets = [
        *(_set(f"members_{number}", 4, rail.peers) for number, rail in enumerate(rails)),
        *(
            _set(f"{name}_from_{family}", family, _of_family(sources, family), interval=True)
            for name, sources in (("ssh", wanted.ssh_sources), ("api", wanted.api_sources))
            for family in (4, 6)
            if _of_family(sources, family)
        ),
    ]
    blocks = [
        *("    counter refused {\n    }\n", *sets),
        _chain("refuse", "", refused),
        _chain("input", "type filter hook input priority filter - 10; policy drop;", incoming),
        _chain("forward", "type filter hook forward priority filter - 10; policy accept;", forwarded),
    ]
    return _HEAD + f"table inet {TABLE} {{\n" + "\n".join(blocks) + "}\n"


_HEAD = f"""\
# Written by the role dgx_spark.sglang.firewall, which overwrites changes. Loaded by {UNIT}.
# It replaces its own table in one step, and leaves those of Docker and of everyone else alone.
table inet {TABLE}
delete table inet {TABLE}

"""

_NETWORK = (
    "icmp type { echo-request, destination-unreachable, time-exceeded, parameter-problem } accept",
    # RFC 4890, 4.4.1: without these there is no IPv6, and without listener reports no multicast behind a switch.
    "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request } accept",
    "icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
    "icmpv6 type { mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept",
    "ip protocol igmp accept",
    "udp sport 67 udp dport 68 accept",
    "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
    "ip daddr 224.0.0.251 udp dport 5353 accept",
    "ip6 daddr ff02::fb udp dport 5353 accept",
)
"""ICMP, DHCP's answers to a client, and the names of mDNS (`spark-0.local`)."""


def _bridges_of_docker(trusted: Sequence[str]) -> list[str]:
    """The interfaces of Docker's networks, as patterns; br-* only as it is trusted: it may be a bridge to the LAN."""
    return ["docker0", *(name for name in trusted if name.startswith("br-"))]


def _among(values: Sequence[object]) -> str:
    return "{ " + ", ".join(str(value) for value in values) + " }"


def _open(protocol: str, ports: Sequence[int], name: str = "", sources: Sequence[str] = ()) -> list[str]:
    if not ports:
        return []
    rule = f"{protocol} dport {_among(ports)} accept"
    if not sources:
        return [rule]
    words = {4: "ip", 6: "ip6"}
    families = [family for family in words if _of_family(sources, family)]
    return [f"{words[family]} saddr @{name}_from_{family} {rule}" for family in families]


def _of_family(sources: Sequence[str], family: int) -> list[str]:
    """The sources of IP version 4 or 6, those that overlap joined: nft takes none that do."""
    networks: list[Any] = [ipaddress.ip_network(source) for source in sources]
    return [str(one) for one in ipaddress.collapse_addresses(one for one in networks if one.version == family)]


def _set(name: str, family: int, elements: Sequence[str], *, interval: bool = False) -> str:
    flags = "        flags interval\n" if interval else ""
    kind = f"        type ipv{family}_addr\n"
    return f"    set {name} {{\n{kind}{flags}        elements = {_among(elements)}\n    }}\n"


def _chain(name: str, hook: str, rules: Sequence[str]) -> str:
    lines = [hook, *rules] if hook else list(rules)
    return f"    chain {name} {{\n" + "".join(f"        {line}\n" for line in lines) + "    }\n"


# ---- who would be locked out ---------------------------------------------------------------------


def objections(seen: Seen, wanted: Settings, rails: Sequence[Rail]) -> list[str]:
    """Why these rules must not be put in force on a node, each with its mend; empty where nothing speaks against it."""
    open_wide = [
        f"firewall_trusted_interfaces holds `{pattern}`, which is true of {name}, by which the node reaches the world: "
        f"everything would be open. Mend: {_TRUST_MEND}"
        for pattern in wanted.trusted_interfaces
        for name in seen.ways_out
        if _matches(name, pattern)
    ]
    open_rails = [
        f"{one.variable} = {one.value}: {one.problem} Mend: {one.mend}"
        for one in _trust_in_rails(wanted.trusted_interfaces, [rail.interface for rail in rails])
    ]
    return [*open_wide, *open_rails, *([message] if (message := locked_out(seen, wanted, rails)) else [])]


def locked_out(seen: Seen, wanted: Settings, rails: Sequence[Rail]) -> str:
    """Why the rules would close the way by which Ansible came, with the mend; "" where they would not.

    Custom rules are not looked at: what they let in can't be told from their text.
    """
    if not seen.client or seen.interface == "lo":
        return ""
    if any(_matches(seen.interface, pattern) for pattern in wanted.trusted_interfaces):
        return ""
    way = f"Ansible comes from {seen.client} by {seen.interface or 'an unknown interface'} to port {seen.port}"
    for rail in rails:
        if rail.interface == seen.interface:
            if seen.client in rail.peers:
                return ""
            mend = "Let ansible_host be an address outside of the fabric."
            return f"{way}: a rail of the fabric, which only members may use. Mend: {mend}"
    if seen.port in wanted.open_tcp_ports:
        return ""
    if seen.port not in wanted.ssh_ports:
        ports = ", ".join(str(port) for port in wanted.ssh_ports)
        mend = f"Add {seen.port} to firewall_ssh_ports."
        return f"{way}, which would be closed: ssh would be open on {ports}. Mend: {mend}"
    client = ipaddress.ip_address(seen.client.partition("%")[0])
    networks = [ipaddress.ip_network(source) for source in wanted.ssh_sources]
    if networks and not any(client in network for network in networks):
        mend = f"Add {client} or its network to firewall_ssh_sources."
        return f"{way}, which would be closed to it: it is in none of firewall_ssh_sources. Mend: {mend}"
    return ""


def _matches(interface: str, pattern: str) -> bool:
    """Whether nft's pattern, a name or its beginning and a *, is true of an interface."""
    literal = pattern.replace("[", "[[]").replace("?", "[?]")
    return fnmatchcase(interface, literal)
