"""The Ansible inventory of the lab."""

from __future__ import annotations

from lab import state
from lab.layout import CONTROLLER_LINK, LAN, Node


def render(wanted: list[Node]) -> str:
    """The inventory as YAML text: group `sparks`, one host a node.

    Paths are absolute, so that the inventory works from any folder and wherever it is written.
    Packets of ssh leave by the lab's link only: when the lab is down, ssh fails at once instead of
    knocking at some other machine's door.
    """
    common = " ".join(
        (
            f"-o BindInterface={CONTROLLER_LINK}",
            f"-o UserKnownHostsFile={state.KNOWN_HOSTS}",
            "-o GlobalKnownHostsFile=/dev/null",
            "-o StrictHostKeyChecking=yes",
            "-o IdentitiesOnly=yes",
        )
    )
    lines = ["---", "sparks:", "  hosts:"]
    for node in wanted:
        lines += [f"    {node.name}:", f"      ansible_host: {node.address(LAN)}"]
    lines += [
        "  vars:",
        "    ansible_user: root",
        "    ansible_python_interpreter: /usr/bin/python3",
        f'    ansible_ssh_private_key_file: "{state.PRIVATE_KEY}"',
        f'    ansible_ssh_common_args: "{common}"',
    ]
    return "\n".join(lines) + "\n"
