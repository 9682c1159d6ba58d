"""The simulated Sparks: systemd containers in the namespaces that `net` has made."""

from __future__ import annotations

import socket

from lab import containers, inventory, net, state
from lab.containers import Container
from lab.host import Host
from lab.layout import LABEL, LAN, NAMESPACE, Node
from lab.run import attempt, each, say, wait_for

KIND = "node"
# Big and busy folders: an engine's layers can't lie on an overlay, and models needn't.
_VOLUMES = {"docker": "/var/lib/docker", "data": "/var/lib/dgx-spark"}
_BOOT_SECONDS = 90
# Run in a node: give it a name, let the lab's key in, wait for the end of the boot, and answer with
# the host key.
_SETTLE = """
set -e
printf '%s\\n' '127.0.0.1 localhost' "127.0.1.1 $(hostname)" '::1 localhost' > /etc/hosts
cat > /root/.ssh/authorized_keys
chmod 600 /root/.ssh/authorized_keys
case $(systemctl is-system-running --wait) in running|degraded) ;; *) exit 1 ;; esac
systemctl --quiet is-active ssh
cat /etc/ssh/ssh_host_ed25519_key.pub
"""


def container(node: Node, host: Host, image: str) -> Container:
    """What the container of a node should be on this host."""
    flags = (
        "--privileged",
        "--systemd=always",
        "--cgroupns=private",
        "--pids-limit=-1",
        "--shm-size=4g",
    )
    return Container(
        name=node.name,
        namespace=node.namespace,
        kind=KIND,
        image=image,
        flags=flags,
        # crun refuses mixed control groups; there the node makes its own view of version 2 before
        # systemd starts.
        command=() if host.pure_cgroup2 else ("/usr/local/sbin/lab-init",),
        volumes={node.volume(purpose): folder for purpose, folder in _VOLUMES.items()},
    )


def ensure(node: Node, host: Host, image: str) -> bool:
    """Make the node, or start it, or leave it as it is. Returns whether it was made or started."""
    if not net.is_whole(node):
        # A running container would hold on to the old namespace; it is found in the wrong one and
        # restarted.
        net.make(node)
    return containers.ensure(container(node, host, image))


def settle(node: Node, public_key: str) -> str:
    """Wait until the node has booted and lets the lab's key in.

    Returns its line for known_hosts.
    """

    def booted() -> str | None:
        answer = attempt(
            ["podman", "exec", "--interactive", node.name, "sh", "-c", _SETTLE],
            text=public_key + "\n",
            timeout=_BOOT_SECONDS,
        )
        return answer.stdout.strip() if answer.returncode == 0 else None

    def listening() -> bool | None:
        try:
            with socket.create_connection((node.address(LAN), 22), timeout=1) as connection:
                return connection.recv(4) == b"SSH-" or None
        except OSError:
            return None

    host_key = wait_for(f"the boot of {node.name}", booted, seconds=_BOOT_SECONDS)
    wait_for(f"an answer of {node.name}'s sshd", listening, seconds=10)
    kind, value = host_key.split()[:2]
    return f"{node.address(LAN)} {kind} {value}"


def remove_except(kept: list[Node]) -> None:
    """Remove all nodes but some: containers, volumes, namespaces."""
    names = {node.name for node in kept}
    found = containers.listed().items()
    containers.remove([name for name, made in found if made["Labels"][LABEL] == KIND and name not in names])
    spaces = {NAMESPACE, *(node.namespace for node in kept)}
    for namespace in net.namespaces():
        if namespace not in spaces:
            net.remove_namespace(namespace)
    own = {node.volume(purpose) for node in kept for purpose in _VOLUMES}
    containers.remove_volumes([volume for volume in containers.volumes() if volume not in own])


def ensure_all(wanted: list[Node], host: Host, image: str) -> None:
    """Bring the wanted nodes to life, remove others, and write what ssh needs."""
    remove_except(wanted)
    public_key = state.ensure_ssh_key()
    changed = each(lambda node: ensure(node, host, image), wanted)
    if any(changed):
        say(f"{sum(changed)} of {len(wanted)} nodes started; waiting for their boot ...")
    lines = each(lambda node: settle(node, public_key), wanted)
    state.KNOWN_HOSTS.write_text("\n".join(lines) + "\n")
    state.SSH_CONFIG.write_text(inventory.ssh_config(wanted))
