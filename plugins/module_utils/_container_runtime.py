# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What a node lacks of Docker and of NVIDIA's Container Toolkit, and how Docker is to be configured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown
from ansible_collections.dgx_spark.sglang.plugins.module_utils._rank import CONTAINER, GATE_CONTAINER

GROUP_WIDE = "group sparks"

ENGINE_WITH_CDI = "25.0"
"""From this version on `docker run --device` takes CDI names, where the feature is on (moby/moby#45134)."""

ENGINE_WITH_CDI_ON = "28.2"
"""From this version on the feature is on without being asked for (release notes of Docker Engine 28.2.0)."""

TOOLKIT_WITH_CDI = "1.12"
"""From this version on there is `nvidia-ctk cdi generate` (NVIDIA's page about CDI support). From 1.18 on the package
brings a service that refreshes the specification; whether it is there is asked, not concluded."""

NVIDIA_RUNTIME = {"path": "nvidia-container-runtime", "args": []}
"""What `nvidia-ctk runtime configure --runtime=docker` writes for the runtime `nvidia`."""


@dataclass(frozen=True)
class Options:
    """The role's variables.

    device: cuda or cpu. gpu_devices: CDI names that the ranks ask for. daemon: settings for daemon.json. log_max_size:
    of one log file, as Docker writes sizes, "" to leave logs alone. log_max_files: how many of them a container has.
    minimum_engine: the oldest version of Docker that will do.
    """

    device: str
    gpu_devices: Sequence[str]
    daemon: Mapping[str, Any]
    log_max_size: str
    log_max_files: int
    minimum_engine: str = ENGINE_WITH_CDI


def check_container_runtime(values: Mapping[str, Any]) -> list[Finding]:
    """What is wrong with the role's variables, beyond their types.

    values: variable -> value, as _inventory.settings gives them; what is not there is not checked.
    """
    wrong = []
    minimum = values.get("container_runtime_minimum_engine")
    if minimum is not None and not version(str(minimum)):
        wrong.append(("container_runtime_minimum_engine", minimum, "Is not a version.", "Give one such as 25.0."))
    size = values.get("container_runtime_log_max_size")
    if size is not None and not re.fullmatch(r"[1-9]\d*[kmg]?", str(size)):
        mend = "Give a number and k, m or g, such as 50m."
        wrong.append(("container_runtime_log_max_size", size, "Is not a size as Docker writes it.", mend))
    files = values.get("container_runtime_log_max_files")
    if files is not None and int(files) < 1:
        wrong.append(("container_runtime_log_max_files", files, "Is no number of files.", "Give 1 or more, such as 3."))
    for variable in ("container_runtime_docker_key_fingerprints", "container_runtime_toolkit_key_fingerprints"):
        for index, value in enumerate(values.get(variable) or ()):
            if not re.fullmatch(r"[0-9A-Fa-f]{40}", re.sub(r"\s", "", str(value))):
                mend = "Give the 40 hexadecimal digits that `gpg --show-keys` shows."
                wrong.append((f"{variable}[{index}]", value, "Is not the fingerprint of a key.", mend))
    return [Finding(GROUP_WIDE, variable, shown(value), problem, mend) for variable, value, problem, mend in wrong]


def version(text: str) -> tuple[int, ...]:
    """The numbers at the beginning of a version: 20.10.24+dfsg1 is (20, 10, 24); () where there are none."""
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def version_in(text: str) -> str:
    """The version that `dockerd --version` or `nvidia-ctk --version` tells, "" where there is none."""
    found = re.search(r"version v?(\d\S*?),?(\s|$)", text)
    return found[1] if found else ""


def needs(seen: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """What is to be done on a node: {engine, toolkit: whether to install it, own_refresh, problems: sentences}.

    seen: what container_runtime_info tells. What is there and new enough is kept. own_refresh: whether the CDI
    specification needs a unit of ours; the toolkit's own is better. problems: what can't be mended from here.
    """
    gpu = options.device == "cuda"
    problems = []
    if gpu and seen["engine"] and version(seen["engine"]) < version(options.minimum_engine):
        problems.append(
            f"Docker {seen['engine']} knows no CDI devices, by which containers get the GPU; that takes "
            f"{options.minimum_engine} or newer. "
            f"Mend: Upgrade it, or remove it and set container_runtime_engine_source: docker."
        )
    if gpu and seen["toolkit"] and version(seen["toolkit"]) < version(TOOLKIT_WITH_CDI):
        problems.append(
            f"NVIDIA Container Toolkit {seen['toolkit']} makes no CDI specification; that takes {TOOLKIT_WITH_CDI} or "
            f"newer. Mend: Upgrade the package nvidia-container-toolkit."
        )
    return {
        "engine": not seen["engine"],
        "toolkit": gpu and not seen["toolkit"],
        "own_refresh": gpu and bool(seen["toolkit"]) and not seen["refresh"],
        "problems": problems,
    }


def missing_devices(seen: Mapping[str, Any], options: Options) -> list[str]:
    """The CDI devices that the ranks ask for and no specification names."""
    if options.device != "cuda":
        return []
    return [name for name in options.gpu_devices if name not in seen["devices"]]


def others(names: str, live_restore: bool) -> list[str]:
    """Containers besides a rank's own that a restart of Docker would end. names: of those that run, one a line."""
    return [] if live_restore else [name for name in names.split() if name not in (CONTAINER, GATE_CONTAINER)]


def daemon_settings(seen: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """What daemon.json has to say: the settings, and CDI where the engine does not have it on by itself."""
    settings = dict(options.daemon)
    if options.device == "cuda" and version(seen["engine"]) < version(ENGINE_WITH_CDI_ON):
        features = settings.get("features")
        settings["features"] = {"cdi": True, **(features if isinstance(features, Mapping) else {})}
    return settings


def daemon_defaults(options: Options) -> dict[str, Any]:
    """What daemon.json says unless it says something else: a bound of the logs, and NVIDIA's runtime."""
    defaults: dict[str, Any] = {}
    if options.log_max_size:
        # Numbers as text: dockerd takes nothing else there.
        defaults["log-opts"] = {"max-size": options.log_max_size, "max-file": str(options.log_max_files)}
    if options.device == "cuda":
        defaults["runtimes"] = {"nvidia": dict(NVIDIA_RUNTIME)}
    return defaults
