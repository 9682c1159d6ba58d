# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""How a rank is run: the command line of its container, and how systemd wants it written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils import _secrets
from ansible_collections.dgx_spark.sglang.plugins.module_utils._container import host_options
from ansible_collections.dgx_spark.sglang.plugins.module_utils._docker_mount import mount_value
from ansible_collections.dgx_spark.sglang.plugins.module_utils._plan import (
    CACHE_IN_CONTAINER,
    MODELS_IN_CONTAINER,
    digest,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._rank import (
    CONTAINER,
    LABEL_GROUP,
    LABEL_PLAN,
    LABEL_RELEASE,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._release import (
    ENV_FLAGS,
    ENV_IMAGE,
    ENV_MOUNTS,
    ENV_RELEASE,
)

RELEASE_WORDS = (f"--label={LABEL_RELEASE}=${{{ENV_RELEASE}}}", f"${ENV_MOUNTS}", f"${{{ENV_IMAGE}}}")
"""What Docker takes from the release in use, the image last: systemd puts it in, and splits the mounts into words."""
RELEASE_ARGUMENTS = f"${ENV_FLAGS}"
"""What the server takes from it, likewise."""

_PLAIN = re.compile(r"[A-Za-z0-9_@+=:,./|-]+\Z")


@dataclass(frozen=True)
class RunOptions:
    """What the container gets from its node.

    ulimits: name -> limit (memlock and stack in bytes, -1 for none). gpu_devices: CDI names, used on cuda only.
    rdma: whether the node has /dev/infiniband. env_file: path on the node. model_digest: names the content of the
    model directory. keys_file: path on the node, mounted where the server is told to read it. docker_options: further
    words, as they are. supervision: what the unit's own programs are and are
    told, as plain data.
    """

    ulimits: Mapping[str, int]
    gpu_devices: Sequence[str]
    rdma: bool
    env_file: str
    model_digest: str
    docker_options: Sequence[str]
    keys_file: str = ""
    supervision: object = None


def plan_digest(plan: Mapping[str, Any], model_digest: str) -> str:
    """What all ranks of a group agree in: the plan and the content of the model."""
    return digest([plan["group_id"], model_digest])


def run_command(plan: Mapping[str, Any], rank: Mapping[str, Any], options: RunOptions) -> list[str]:
    """The whole `docker run` of one rank, a word an element; the label carries a digest of all of it.

    plan, rank: as _plan.Plan.as_dict gives them. Which release is mounted is not written here but read at each start,
    so that a rollout of configs leaves the unit alone.
    """
    # What is not there was removed by somebody, and whatever a registry gave instead would not be what was proved.
    before = ["docker", "run", "--rm", "--pull=never", f"--name={CONTAINER}"]
    after = [
        *host_options(plan["device"], options.ulimits, options.gpu_devices, rdma=options.rdma),
        f"--env-file={options.env_file}",
        f"--volume={plan['paths']['model']}:{MODELS_IN_CONTAINER}/{plan['model']['name']}:ro",
        f"--volume={plan['paths']['cache']}:{CACHE_IN_CONTAINER}",
        *(
            [f"--mount={mount_value(options.keys_file, _secrets.IN_CONTAINER)}"]
            if _secrets.IN_CONTAINER in rank["server_args"]
            else []
        ),
        *options.docker_options,
        *RELEASE_WORDS,
        *("python3", "-m", "sglang.launch_server"),
        *rank["server_args"],
        RELEASE_ARGUMENTS,
    ]
    label = f"--label={LABEL_GROUP}={digest([plan['group_id'], options.model_digest, options.supervision, after])}"
    # systemd may know an older command than the one that is written; the supervisor holds it against what it is told.
    return [*before, label, f"--label={LABEL_PLAN}={plan_digest(plan, options.model_digest)}", *after]


def group_label(command: Sequence[str]) -> str:
    """The digest that `run_command` put into the label. Raises ValueError if there is none."""
    prefix = f"--label={LABEL_GROUP}="
    for word in command:
        if word.startswith(prefix):
            return word[len(prefix) :]
    raise ValueError(f"no {LABEL_GROUP} label in the command")


def systemd_exec(command: Sequence[str]) -> str:
    """A command for ExecStart=, one option a line, quoted as systemd.service(5) says ($ and % doubled)."""
    lines: list[list[str]] = []
    for word in command:
        # An option takes the words after it to its line, unless it carries its value itself (--name=value).
        if not lines or word.startswith(("-", "$")) or "=" in lines[-1][0]:
            lines.append([])
        lines[-1].append(word)
    return " \\\n    ".join(" ".join(systemd_word(word) for word in line) for line in lines)


def systemd_word(word: str) -> str:
    """One word of a command line, quoted where systemd would read it otherwise. Raises ValueError on line breaks."""
    if "\n" in word or "\r" in word:
        raise ValueError(f"a line break in a command line: {word!r}")
    escaped = word.replace("%", "%%").replace("$", "$$")
    if word in (*RELEASE_WORDS, RELEASE_ARGUMENTS):
        return word
    if _PLAIN.match(word):
        return escaped
    quoted = escaped.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{quoted}"'
