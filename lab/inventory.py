"""How Ansible and ssh find the nodes."""

from __future__ import annotations

from lab import state
from lab.layout import CONTROLLER_LINK, LAN, Node


def render(wanted: list[Node]) -> str:
    """The inventory as YAML text: group `sparks`, one host a node; inventory/sim4/group_vars holds the rest."""
    lines = ["---", "all:", "  children:", "    sparks:", "      hosts:"]
    lines += [f"        {node.name}: {{ansible_host: {node.address(LAN)}}}" for node in wanted]
    return "\n".join(lines) + "\n"


def ssh_config(wanted: list[Node]) -> str:
    """A configuration file for `ssh -F`: `ssh -F .lab/ssh_config spark-0`.

    Packets leave by the lab's link only: when the lab is down, ssh fails at once instead of knocking at some other
    machine's door.
    """
    hosts = [f"Host {node.name}\n  HostName {node.address(LAN)}\n" for node in wanted]
    common = {
        "User": "root",
        "BindInterface": CONTROLLER_LINK,
        "IdentityFile": f'"{state.PRIVATE_KEY}"',
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": f'"{state.KNOWN_HOSTS}"',
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "ControlMaster": "auto",
        "ControlPath": "/run/dgx-spark-lab-%C",
        "ControlPersist": "60",
    }
    return "".join(hosts) + "Host *\n" + "".join(f"  {key} {value}\n" for key, value in common.items())
