"""Podman containers of the lab: made when their wanted shape changed, started when stopped."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from lab import net, state
from lab.host import detect
from lab.layout import LABEL, SPEC_LABEL
from lab.run import attempt, run


@dataclass(frozen=True)
class Container:
    """What a container should be.

    `inputs` are further texts that make it another one when they change.
    """

    name: str
    namespace: str
    kind: str
    image: str
    flags: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    volumes: dict[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """Arguments of `podman run`."""
        mounts = [flag for name, folder in self.volumes.items() for flag in ("--volume", f"{name}:{folder}")]
        network = f"ns:{net.path(self.namespace)}"
        return [
            *("--name", self.name, "--hostname", self.name, "--network", network),
            *(
                "--no-hosts",
                "--dns=none",
                "--label",
                f"{LABEL}={self.kind}",
                *detect().container_flags(),
            ),
            *(*self.flags, *mounts, self.image, *self.command),
        ]

    @property
    def spec(self) -> str:
        """Hash of the wanted shape."""
        return state.key(*self.arguments(), *self.inputs)


def listed() -> dict[str, dict[str, Any]]:
    """All containers of the lab by name, as `podman ps --all` shows them."""
    answer = run(["podman", "ps", "--all", "--filter", f"label={LABEL}", "--format", "json"])
    return {container["Names"][0]: container for container in json.loads(answer)}


def volumes() -> list[str]:
    """Names of all volumes of the lab."""
    return run(["podman", "volume", "ls", "--quiet", "--filter", f"label={LABEL}"]).split()


def remove(names: list[str]) -> None:
    """Remove containers, running or not, with what is left of half-made ones.

    Their volumes stay.
    """
    if names:
        # Of a killed `podman run` something may be left that isn't a container yet: it has a name
        # all the same. One that ends while it is being killed makes podman fail, and is gone all the same: it is asked
        # again, and then nothing is left to fail with.
        command = ["podman", "rm", "--force", "--ignore", "--time=2", *names]
        if attempt(command).returncode != 0:
            run(command)


def remove_volumes(names: list[str]) -> None:
    """Remove volumes and what is in them."""
    if names:
        run(["podman", "volume", "rm", "--force", *names])


def _in_namespace(found: dict[str, Any], wanted: Container) -> bool:
    """Whether a running container is in the namespace that stands now under the wanted name."""
    try:
        return net.path(wanted.namespace).samefile(f"/proc/{found['Pid']}/ns/net")
    except OSError:
        return False


def _make(wanted: Container) -> None:
    remove([wanted.name])
    for volume in wanted.volumes:
        if not volume.startswith("/"):
            attempt(["podman", "volume", "rm", "--force", volume])
            run(["podman", "volume", "create", "--label", f"{LABEL}={wanted.kind}", volume])
    command = [
        "podman",
        "--runtime=runc",
        "run",
        "--detach",
        "--label",
        f"{SPEC_LABEL}={wanted.spec}",
    ]
    run([*command, *wanted.arguments()])


def ensure(wanted: Container) -> bool:
    """Make, start or leave alone. Returns whether it had to be made or started."""
    found = listed().get(wanted.name)
    same = found is not None and found["Labels"].get(SPEC_LABEL) == wanted.spec
    if found and same and found["State"] == "running" and _in_namespace(found, wanted):
        return False
    if found and same and found["State"] in ("running", "exited", "stopped"):
        run(["podman", "stop", "--time=2", wanted.name])
        run(["podman", "start", wanted.name])
        return True
    _make(wanted)
    return True
