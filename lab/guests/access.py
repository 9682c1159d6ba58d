"""How ssh and Ansible reach the guests."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab import state
from lab.guests import qemu
from lab.guests.image import Image
from lab.guests.layout import CONTROLLER_LINK, MGMT, Guest
from lab.inventory import client, hosts
from lab.run import LabError, attempt

FOLDER = state.STATE / "guests"
PRIVATE_KEY = FOLDER / "id_ed25519"
KNOWN_HOSTS = FOLDER / "known_hosts"
SSH_CONFIG = FOLDER / "ssh_config"
# Where the lasting connection of ssh and Ansible to an address is; inventory/guests2 says so too.
CONTROL_PATH = f"{qemu.RUN}/ssh-%h"


def inventory(wanted: Sequence[Guest]) -> str:
    """The inventory as YAML text; inventory/guests2/group_vars holds the rest."""
    return hosts(_addresses(wanted))


def ssh_config(wanted: Sequence[Guest]) -> str:
    """A configuration file for `ssh -F`."""
    lasting = {"ControlPath": CONTROL_PATH, "ControlPersist": "300", "ConnectTimeout": "10"}
    return client(_addresses(wanted), CONTROLLER_LINK, PRIVATE_KEY, KNOWN_HOSTS, lasting)


def _addresses(wanted: Sequence[Guest]) -> dict[str, str]:
    return {guest.name: guest.address(MGMT) for guest in wanted}


def write(wanted: Sequence[Guest], made: Image) -> None:
    """Write what ssh needs to reach the guests."""
    FOLDER.mkdir(mode=0o700, parents=True, exist_ok=True)
    PRIVATE_KEY.unlink(missing_ok=True)
    shutil.copyfile(made.private_key, PRIVATE_KEY)
    PRIVATE_KEY.chmod(0o600)
    KNOWN_HOSTS.write_text("".join(f"{guest.address(MGMT)} {made.host_key}\n" for guest in wanted))
    SSH_CONFIG.write_text(ssh_config(wanted))


def remove() -> None:
    """Remove what `write` has written."""
    shutil.rmtree(FOLDER, ignore_errors=True)


def ask(guest: Guest, script: str, *, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a guest, over a connection of its own. Returns its result, whatever its exit code."""
    command = ["ssh", "-F", str(SSH_CONFIG), "-o", "ControlPath=none", "-o", "BatchMode=yes", guest.name, script]
    return attempt(command, timeout=timeout)


def run(guest: Guest, script: str, *, timeout: float = 60) -> str:
    """Run a shell script in a guest. Returns its standard output; raises LabError when it fails."""
    answer = ask(guest, script, timeout=timeout)
    if answer.returncode:
        raise LabError(f"`{script}` failed on {guest.name} with code {answer.returncode}: {answer.stderr.strip()}")
    return answer.stdout


def hang_up(guest: Guest) -> None:
    """End the lasting connection to a guest, if there is one. A restored guest knows nothing of it: it would hang."""
    path = Path(CONTROL_PATH.replace("%h", guest.address(MGMT)))
    if path.exists():
        attempt(["ssh", "-F", "/dev/null", "-o", f"ControlPath={path}", "-O", "exit", guest.name], timeout=10)
        path.unlink(missing_ok=True)
