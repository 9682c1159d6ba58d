# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The API's keys: where they may stand, and how the server gets them without anyone else.

A key as an argument would stand in the unit, in `ps` and in `docker inspect`; as a variable of the environment in
`docker inspect`. SGLang has no option that reads one from a file, but it has `--config FILE`: YAML whose entries it
takes for options before it parses them (server_args_config_parser.py of 0.5.4 to 0.5.14, in utils/ in 0.5.23). So the
keys go into such a file, for root only, on rank 0 alone: the others serve no API.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import HIDDEN, Finding
from ansible_collections.dgx_spark.sglang.plugins.module_utils._image import FIND

KEYS = {"cluster_api_key": "api-key", "cluster_admin_api_key": "admin-api-key"}
"""The variables that hold a key -> the server's option for it."""

IN_CONTAINER = "/run/secrets/sglang.yaml"
"""Where the server finds the file; SGLang refuses one that does not end in .yaml or .yml."""

PROBE = (
    FIND
    + r"""
asked = json.loads(sys.argv[1])
root = package()
places = [os.path.join(root, "srt", "server_args.py")]
for folder, _, names in os.walk(os.path.join(root, "srt", "arg_groups")):
    places += [os.path.join(folder, name) for name in names if name.endswith(".py")]
text = ""
for path in places:
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            text += file.read()
words = {word.replace("-", "_") for word in re.findall(r"[A-Za-z][\w-]*", text)}
print(json.dumps({
    "sglang": sglang_version(root),
    "file": "ConfigArgumentMerger" in words,
    "options": [option for option in asked if option.replace("-", "_") in words],
}))
"""
)
"""Asks the image which of the options it knows, and whether it takes options from a file. It imports nothing."""

# What RFC 6750 lets a bearer token be. The same text in JSON, in YAML, in Python's repr and in a header, so that it is
# found in a log; not with "-" first, which argparse would take for an option.
_KEY = re.compile(r"[A-Za-z0-9._~+/][A-Za-z0-9._~+/-]*=*\Z")
_LEAST = 16  # characters; what `openssl rand -hex 32` makes has 64

# scrypt with the parameters of RFC 7914's second example: 16 MiB, some 50 ms.
_SCRYPT = {"n": 16384, "r": 8, "p": 1}

_SECRET_NAME = re.compile(r"(?:\A|_)(?:TOKEN|API_?KEY|ACCESS_KEY|SECRET(?:_KEY)?|PASSWORD|PASSWD|CREDENTIALS?)\Z", re.I)


def check_keys(where: str, values: Mapping[str, Any]) -> list[Finding]:
    """What is wrong with the keys. values: variable -> value; no finding holds a key."""
    findings = []
    given = {name: str(values.get(name) or "") for name in KEYS}
    for name, key in given.items():
        if not key:
            continue
        if not _KEY.match(key):
            problem = "Is not a key that a client can send."
            mend = "Use letters, digits and . _ ~ + / -, the last not in front; `openssl rand -hex 32` makes one."
        elif len(key) < _LEAST:
            problem = f"Has fewer than {_LEAST} characters: it could be guessed."
            mend = "Take a longer one; `openssl rand -hex 32` makes one."
        else:
            continue
        findings.append(Finding(where, name, HIDDEN, problem, mend))
    if not findings and given["cluster_api_key"] and len(set(given.values())) == 1:
        problem, mend = "Is the API's key too: every client would be an administrator.", "Give it a key of its own."
        findings.append(Finding(where, "cluster_admin_api_key", HIDDEN, problem, mend))
    return findings


def check_served(where: str, flags: Mapping[str, Any], options: Sequence[str]) -> list[Finding]:
    """Flags with which SGLang would not ask for a key. options: as `given_options` gives them."""
    findings = []
    if options and int(flags.get("tokenizer-worker-num") or 1) > 1:
        problem = "SGLang asks for no key where it has several tokenizer workers (http_server.py, 0.5.4)."
        mend = "Leave it at 1, or leave cluster_api_key out."
        findings.append(Finding(where, "tokenizer-worker-num", str(flags["tokenizer-worker-num"]), problem, mend))
    if options and flags.get("grpc-mode"):
        problem = "SGLang's gRPC server asks for no key."
        findings.append(Finding(where, "grpc-mode", "True", problem, "Leave it out, or leave cluster_api_key out."))
    return findings


def given_options(values: Mapping[str, Any]) -> list[str]:
    """The server's options that a key is given for."""
    return [option for name, option in KEYS.items() if values.get(name)]


def fingerprint(values: Mapping[str, Any]) -> str:
    """12 hex digits that change with the keys, "" without any.

    It stands in the container's label, for all on the node to read, so that a new key restarts the group: hence a
    function that is slow to try words with.
    """
    keys = {option: str(values[name]) for name, option in KEYS.items() if values.get(name)}
    if not keys:
        return ""
    text = json.dumps(keys, sort_keys=True)
    return hashlib.scrypt(text.encode(), salt=b"dgx_spark.sglang", dklen=6, **_SCRYPT).hex()


def server_file(api_key: object, admin_api_key: object) -> str:
    """The text of the server's file: JSON, which is YAML too and needs no YAML to be read. Empty without a key."""
    given = dict(zip(KEYS.values(), (str(api_key or ""), str(admin_api_key or ""))))
    keys = {option: key for option, key in given.items() if key}
    return json.dumps(keys, indent=1) + "\n" if keys else ""


def looks_secret(name: str) -> bool:
    """Whether a variable of the environment is named like one that holds a secret (HF_TOKEN, not HF_TOKEN_PATH)."""
    return bool(_SECRET_NAME.search(name))


def unknown_options(answer: Mapping[str, Any], options: Sequence[str]) -> str | None:
    """What keeps an image from taking its keys from a file, with the mend; None if nothing does. answer: of PROBE."""
    release = answer["sglang"]
    if not answer["file"]:
        return f"SGLang {release} takes no options from a file (--config). Mend: take an image with 0.5.4 or newer."
    missing = [option for option in options if option not in answer["options"]]
    if missing:
        names = " and ".join(name for name, option in KEYS.items() if option in missing)
        return f"SGLang {release} has no --{missing[0]}. Mend: leave {names} out, or take a newer image."
    return None
