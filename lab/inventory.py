"""How Ansible and ssh find the nodes; the guests are found in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lab import state
from lab.layout import CONTROLLER_LINK, LAN, Node


def render(wanted: list[Node]) -> str:
    """The inventory as YAML text; inventory/sim4/group_vars holds the rest."""
    return hosts(_addresses(wanted))


def ssh_config(wanted: list[Node]) -> str:
    """A configuration file for `ssh -F`: `ssh -F .lab/ssh_config spark-0`."""
    lasting = {"ControlPath": "/run/dgx-spark-lab-%C", "ControlPersist": "60"}
    return client(_addresses(wanted), CONTROLLER_LINK, state.PRIVATE_KEY, state.KNOWN_HOSTS, lasting)


def hosts(addresses: Mapping[str, str]) -> str:
    """An inventory as YAML text: group `sparks`, one host a name, with its address."""
    lines = ["---", "all:", "  children:", "    sparks:", "      hosts:"]
    lines += [f"        {name}: {{ansible_host: {address}}}" for name, address in addresses.items()]
    return "\n".join(lines) + "\n"


def client(addresses: Mapping[str, str], link: str, key: Path, known_hosts: Path, lasting: Mapping[str, str]) -> str:
    """A configuration of ssh for hosts by name.

    link: packets leave by it only, so that without the lab ssh fails at once instead of knocking at some other
    machine's door. key, known_hosts: files. lasting: options of the connections that stay.
    """
    named = [f"Host {name}\n  HostName {address}\n" for name, address in addresses.items()]
    common = {
        "User": "root",
        "BindInterface": link,
        "IdentityFile": f'"{key}"',
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f'"{known_hosts}"',
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "ControlMaster": "auto",
        **lasting,
    }
    return "".join(named) + "Host *\n" + "".join(f"  {option} {value}\n" for option, value in common.items())


def _addresses(wanted: list[Node]) -> dict[str, str]:
    return {node.name: node.address(LAN) for node in wanted}
