"""The two services that a cluster needs from outside: an image registry and a model hub."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from lab import containers, state
from lab.containers import Container
from lab.layout import HUB, MODEL_ID, NAMESPACE, REGISTRY, SERVICES_ADDRESS
from lab.run import run, say, wait_for

KIND = "service"
# The lab is next door: a proxy that this machine may have for the world outside must not be asked.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
_REGISTRY_PACKAGE = "docker-registry"
_REGISTRY_CONTAINER = f"{NAMESPACE}-registry"
_REGISTRY_SETTINGS = "/etc/registry.yml"


def _registry_program() -> Path:
    """Debian's registry, unpacked into the cache: it is one program and needs no installation."""
    folder = state.cache() / _REGISTRY_PACKAGE
    program = folder / "usr/bin/docker-registry"
    if not program.exists():
        say("fetching the registry ...")
        work = state.scratch() / _REGISTRY_PACKAGE
        work.mkdir()
        run(["env", "-C", str(work), "apt-get", "-qq", "download", _REGISTRY_PACKAGE])
        (package,) = work.glob("*.deb")
        unpacked = work / "unpacked"
        run(["dpkg-deb", "--extract", str(package), str(unpacked)])
        unpacked.rename(folder)
    return program


def answers(url: str) -> bool | None:
    """Whether a service answers: True or None, as `wait_for` likes it."""
    try:
        with _OPENER.open(url, timeout=2) as answer:
            return answer.status == 200 or None
    except OSError:
        return None


def ensure_registry(base_image: str) -> None:
    """Start the registry. What it stores lies in the cache and outlives it."""
    storage = state.cache() / "registry"
    storage.mkdir(parents=True, exist_ok=True)
    settings = state.SOURCE / "registry.yml"
    containers.ensure(
        Container(
            name=_REGISTRY_CONTAINER,
            namespace=NAMESPACE,
            kind=KIND,
            image=base_image,
            flags=("--env", f"REGISTRY_HTTP_ADDR={REGISTRY}"),
            command=("docker-registry", "serve", _REGISTRY_SETTINGS),
            volumes={
                f"{_registry_program()}": "/usr/bin/docker-registry:ro",
                f"{settings}": f"{_REGISTRY_SETTINGS}:ro",
                f"{storage}": "/var/lib/registry",
            },
            inputs=(settings.read_text(),),
        )
    )
    wait_for("an answer of the registry", lambda: answers(f"http://{REGISTRY}/v2/"), seconds=15)


def collect_garbage() -> None:
    """Let the registry forget the layers of replaced images. Nothing may be pushed meanwhile."""
    run(
        [
            *("podman", "exec", "--env", f"REGISTRY_HTTP_ADDR={REGISTRY}", _REGISTRY_CONTAINER),
            *("docker-registry", "garbage-collect", "--delete-untagged", _REGISTRY_SETTINGS),
        ]
    )


def ensure_hub(base_image: str, model: Path) -> None:
    """Start the model hub with the tiny model."""
    program = state.SOURCE / "hub.py"
    containers.ensure(
        Container(
            name=f"{NAMESPACE}-hub",
            namespace=NAMESPACE,
            kind=KIND,
            image=base_image,
            command=(
                "python3",
                "/hub.py",
                "--listen",
                f"{SERVICES_ADDRESS}:{HUB.rsplit(':', 1)[1]}",
                "/models",
            ),
            volumes={f"{program}": "/hub.py:ro", f"{model}": f"/models/{MODEL_ID}:ro"},
            inputs=(program.read_text(),),
        )
    )
    wait_for("an answer of the model hub", lambda: answers(f"{HUB}/api/models/{MODEL_ID}"), seconds=15)
