# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The form that a text has to have, by the name of its variable: addresses, paths, names of interfaces and the like."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from urllib.parse import urlsplit

Told = tuple[str, str]

# Linux keeps 15 characters of an interface's name (IFNAMSIZ is 16 with the closing NUL); udev and netplan take no more
# than these, and a colon is an alias to ip.
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}\Z")
# IB_DEVICE_NAME_MAX is 64 with the closing NUL.
_HCA = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}\Z")
# What may stand in a mount of Docker, in a unit and in rsyncd.conf without a second meaning.
_NODE_PATH = re.compile(r"/[A-Za-z0-9._/@+-]*\Z")
# Debian Policy 5.6.1, and apt's own `name=version`, `name:architecture` and `name/release`.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?::[a-z0-9-]+)?(?:[=/][A-Za-z0-9.+:~-]+)?\Z")
# vendor/class=device of the Container Device Interface.
_CDI = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_-]*=[A-Za-z0-9][A-Za-z0-9_.:-]*\Z")
_RELEASE = re.compile(r"[0-9a-f]{12}\Z")
_BACKUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]*\Z")
_ADDRESS = re.compile(r"[A-Za-z0-9_.:%-]+\Z")
_USER = re.compile(r"[^\s/:@]+\Z")
# huggingface_hub's validate_repo_id: up to 96 characters, one slash at most, no "--" or "..", not ".git" at the end.
_HUB_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"(?!.*(?:--|\.\.|\.git\Z))(?=.{{1,96}}\Z){_HUB_NAME}(?:/{_HUB_NAME})?\Z")
# git check-ref-format, as far as it matters: no blanks, nothing that git reads as an operator.
_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./+-]*\Z")
_SERVED = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./:+-]*\Z")
_PROFILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*\Z")
_CLASS = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def _matching(pattern: re.Pattern[str], problem: str, mend: str) -> Callable[[str], Told | None]:
    return lambda text: None if pattern.match(text) else (problem, mend)


def _interface(text: str) -> Told | None:
    if text == "lo":
        return "Is the loopback: nobody else is on it.", "Name an interface of the QSFP cage, such as enp1s0f1np1."
    if len(text) > 15:
        mend = "Use the name that `ip link` shows, of 15 characters at most."
        return f"Has {len(text)} characters: Linux keeps 15 of an interface's name.", mend
    return (
        None if _INTERFACE.match(text) else ("Is not the name of an interface.", "Use the name that `ip link` shows.")
    )


def _url(text: str) -> Told | None:
    mend = "Write https:// and the host, as in https://huggingface.co."
    try:
        parts = urlsplit(text)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return "Is not a URL.", mend
    if not right or re.search(r"\s", text):
        return "Is not a URL.", mend
    if parts.username is not None:
        return "Has a name or password in it, which every log would show.", "Take it out of the URL."
    return ("Has more than host and path.", mend) if parts.query or parts.fragment else None


def _node_path(text: str) -> Told | None:
    if not text:
        return None
    if not text.startswith("/"):
        return "Is not an absolute path.", "Begin it with `/`."
    if text.rstrip("/") == "":
        return "Is the root of the node's file system.", "Name a directory of its own, such as /var/lib/dgx-spark."
    if not _NODE_PATH.match(text) or ".." in text.split("/"):
        mend = "Use letters, digits and . _ - @ + / alone, and no `..`."
        return "Has characters that mean something else to Docker or rsync.", mend
    return None


def _memlock(text: str) -> Told | None:
    if text == "unlimited" or (text.isascii() and text.isdigit()):
        return None
    return "Is no limit of locked memory.", "Use unlimited, or a number of KiB."


_FORMS: Mapping[str, Callable[[str], Told | None]] = MappingProxyType(
    {
        "ansible_host": _matching(
            _ADDRESS, "Is neither a host name nor an address.", "Give what ssh can reach, such as spark-1.local."
        ),
        "ansible_user": _matching(_USER, "Is not the name of a user.", "Give the user alone, without the host."),
        "cluster_model": _matching(
            _PROFILE, "Is not the name of a model profile.", "Use letters, digits and . _ - alone: glm-4.7-fp8."
        ),
        "cluster_rails[].interface": _interface,
        "cluster_rails[].hca": _matching(
            _HCA, "Is not the name of an RDMA device.", "Use the name that `rdma link` shows, such as rocep1s0f1."
        ),
        "fabric_memlock": _memlock,
        "fabric_restore_to": _matching(
            _BACKUP, "Is not the id of a backup.", "Use newest, first, or the id of a backup on the nodes."
        ),
        "rank_gpu_devices[]": _matching(_CDI, "Is not a CDI name.", "Write vendor/class=device: nvidia.com/gpu=all."),
        "release_to": _matching(
            _RELEASE,
            "Is not the id of a release.",
            "Use one of those that `playbooks/rollback.yml` lists: 12 hex digits.",
        ),
        # Keys of a model profile.
        "hf_id": _matching(_HUB_ID, "Is not the id of a model on the hub.", "Write owner/name: zai-org/GLM-4.7-FP8."),
        "revision": _matching(
            _REVISION, "Is no branch, tag or commit.", "Use the name that the hub shows, such as main."
        ),
        "served_name": _matching(
            _SERVED, "Is not a name that clients can ask for.", "Use letters, digits and . _ - / : + alone: glm-4.7."
        ),
        "architecture": _matching(
            _CLASS, "Is not the name of a class.", "Copy it from `architectures` in config.json: Glm4MoeForCausalLM."
        ),
    }
)

_FORMS_BY_ENDING: Mapping[str, Callable[[str], Told | None]] = MappingProxyType(
    {
        "_endpoint": _url,
        "_packages[]": _matching(_PACKAGE, "Is not the name of a package.", "Use the name that apt knows it by."),
    }
)


def malformed(variable: str, kind: str, value: object) -> Told | None:
    """The problem and the mend of a text that has not the form which its variable wants, else None.

    kind: the type in the argument specs. A path that is not an element of a list lies on the nodes.
    """
    if kind not in ("str", "path"):
        return None
    name = re.sub(r"\[\d+\]", "[]", variable)
    if kind == "path" and not name.endswith("[]"):
        return _node_path(str(value))
    form = _FORMS.get(name) or next((form for end, form in _FORMS_BY_ENDING.items() if name.endswith(end)), None)
    return form(str(value)) if form else None
