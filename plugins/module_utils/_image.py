# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Asks an image by a container of it: no GPU, no network.

A program is source for the image's own Python (3.10 or newer), run with `python3 -c`; it takes one JSON argument and
prints one line of JSON, with "error" in it if it can't answer.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._docker_mount import mount_value

Mounts = Sequence[tuple[str, str]]

FIND = r'''
import importlib.metadata, importlib.util, json, os, re, sys

def fail(message):
    print(json.dumps({"error": message}))
    sys.exit(0)

def package():
    """The package's folder; find_spec of a top-level name imports nothing."""
    spec = importlib.util.find_spec("sglang")
    places = list(spec.submodule_search_locations or []) if spec else []
    return places[0] if places else fail("the image has no SGLang")

def sglang_version(root):
    try:
        return importlib.metadata.version("sglang")
    except importlib.metadata.PackageNotFoundError:
        pass
    for name in ("_version.py", "version.py"):
        path = os.path.join(root, name)
        if os.path.isfile(path):
            with open(path) as file:
                found = re.search(r"""^(?:__version__|version)\b[^\n]*=\s*["']([^"']+)""", file.read(), re.M)
            if found:
                return found.group(1)
    return fail("SGLang in the image does not tell its version")
'''
"""What programs begin with: where SGLang is, which release, and how to end without an answer."""


class ImageError(ValueError):
    """Why an image did not answer, and the mend, as sentences."""


class ImageMissingError(ImageError):
    """There is no Docker, or it does not have the image."""


def image_id(name: str) -> tuple[str, str]:
    """The id of an image on this node; empty if it or Docker is not there, with what there is to say about that."""
    command = ["docker", "image", "inspect", "--format", "{{.Id}}", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return "", str(error)
    return ("", done.stderr.strip()) if done.returncode else (done.stdout.strip(), "")


def ask(
    image: str,
    source: str,
    question: object,
    timeout: int,
    mounts: Mounts = (),
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What a program says to a question. timeout: seconds. mounts: as for docker_argv. ImageError without an answer."""
    if not shutil.which("docker"):
        raise ImageMissingError("The docker command is not installed. Mend: install Docker.")
    name = f"dgx-spark-ask-{uuid.uuid4().hex[:12]}"
    argv = docker_argv(image, source, mounts, [json.dumps(question)], name, environment)
    try:
        # Docker's client ends at the time limit, its container does not.
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)
        raise ImageError(
            f"{image} did not answer in {timeout} s; its container was removed. "
            "Mend: raise the time limit, or look at what slows the node down."
        ) from None
    if done.returncode != 0:
        missing = done.returncode == 125 and _says_missing(done.stderr)
        raise (ImageMissingError if missing else ImageError)(explain(done.returncode, done.stderr, image))
    try:
        return parse(done.stdout)
    except ValueError as error:
        raise ImageError(f"{image}: {error}. Mend: name an image of SGLang.") from None


def docker_argv(
    image: str,
    source: str,
    mounts: Mounts,
    arguments: Sequence[str],
    name: str,
    environment: Mapping[str, str] | None = None,
) -> list[str]:
    """The command that runs a program in the image.

    mounts: host path and container path of what is bound, read-only; name: of the container, to remove it if it
    does not end. The image is never pulled, and the container reaches no network.
    """
    argv = ["docker", "run", "--rm", f"--name={name}", "--pull=never", "--network=none", "--entrypoint=python3"]
    argv += [f"--env={key}={value}" for key, value in (environment or {}).items()]
    argv += [f"--mount={mount_value(host, container)}" for host, container in mounts]
    return [*argv, image, "-c", source, *arguments]


def parse(output: str) -> dict[str, Any]:
    """A program's answer; ValueError when it isn't one, or says that it could not answer."""
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
    try:
        answer = json.loads(last)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ValueError(f"the image gave no answer but {last[:200]!r}")
    if "error" in answer:
        raise ValueError(str(answer["error"]))
    return answer


def explain(code: int, errors: str, image: str) -> str:
    """Why `docker run` ended with a code that isn't 0, from what it wrote on stderr, and the mend."""
    lines = [
        line for line in errors.splitlines() if line.strip() and not line.startswith(("Run 'docker", "See 'docker"))
    ]
    said = lines[-1].strip() if lines else f"it ended with {code}"
    if code == 125 and _says_missing(errors):
        return f"The node does not have the image {image}. Mend: pull it first."
    if code in (126, 127):
        return f"{image} has no python3 to ask: {said}. Mend: name an image of SGLang."
    return (
        f"{image} could not be asked: {said}. Mend: try `docker run --rm --entrypoint=python3 {image} -V` on the node."
    )


def _says_missing(errors: str) -> bool:
    return "no such image" in errors.lower() or "unable to find image" in errors.lower()
