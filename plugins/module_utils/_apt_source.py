# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""An apt repository as a deb822 file, and the key that signs it, held against a fingerprint that is known."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence

_ARMOR = re.compile(
    r"-----BEGIN PGP PUBLIC KEY BLOCK-----\s*?\n(?:[^\n]+: [^\n]*\n)*\s*\n(.*?)(?:\n=[\w+/]{4})?\s*\n"
    r"-----END PGP PUBLIC KEY BLOCK-----",
    re.DOTALL,
)
_PUBLIC_KEY = 6  # the tag of a packet that is a primary key, RFC 9580, section 5
_V4_PREFIX = b"\x99"


class BadKeyError(Exception):
    """The key can't be used: why, and the mend."""


def packets(data: bytes) -> list[tuple[int, bytes]]:
    """The OpenPGP packets as (tag, body), RFC 9580, section 4.2. ValueError or IndexError where they end too early."""
    found = []
    at = 0
    while at < len(data):
        head = data[at]
        if not head & 0x80:
            raise ValueError("not an OpenPGP packet")
        if head & 0x40:
            tag, first = head & 0x3F, data[at + 1]
            if first < 192:
                size, start = first, at + 2
            elif first < 224:
                size, start = ((first - 192) << 8) + data[at + 2] + 192, at + 3
            elif first == 255:
                size, start = int.from_bytes(data[at + 2 : at + 6], "big"), at + 6
            else:
                raise ValueError("a packet in parts")
        else:
            tag, width = head >> 2 & 0x0F, 1 << (head & 3)
            if width == 8:
                raise ValueError("a packet without a length")
            size, start = int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width
        if start + size > len(data):
            raise ValueError("a packet that ends too early")
        found.append((tag, data[start : start + size]))
        at = start + size
    return found


def fingerprints(armored: str) -> list[str]:
    """The fingerprints of the primary keys in ASCII armour, 40 hexadecimal digits each; BadKeyError for none."""
    mend = "Give the key in ASCII armour: `gpg --armor --export KEY`."
    blocks = _ARMOR.findall(armored.replace("\r\n", "\n"))
    if not blocks:
        raise BadKeyError(f"There is no OpenPGP public key in it. Mend: {mend}")
    found = []
    for block in blocks:
        try:
            keys = [body for tag, body in packets(base64.b64decode(block, validate=False)) if tag == _PUBLIC_KEY]
        except (ValueError, IndexError, binascii.Error) as trouble:
            raise BadKeyError(f"The OpenPGP public key is damaged: {trouble}. Mend: {mend}") from None
        for body in keys:
            if body[:1] != b"\x04":
                raise BadKeyError(f"A key of version {body[0]}; only version 4 is known here. Mend: {mend}")
            digest = hashlib.sha1(_V4_PREFIX + len(body).to_bytes(2, "big") + body)  # as RFC 9580, section 5.5.4.2
            found.append(digest.hexdigest().upper())
    return found


def check_key(armored: str, allowed: Sequence[str]) -> None:
    """BadKeyError unless every primary key is one of the allowed, and there is one. allowed: none to take any key."""
    found = fingerprints(armored)
    known = {re.sub(r"\s", "", one).upper() for one in allowed}
    foreign = [one for one in found if known and one not in known]
    if foreign or not found:
        raise BadKeyError(
            f"The key has the fingerprint {', '.join(foreign) or 'none'}, not {', '.join(sorted(known))}. "
            f"Mend: Find out why; if the repository has a new key, check it and give its fingerprint."
        )


def source_text(uri: str, suite: str, components: Sequence[str], key_path: str) -> str:
    """A file of sources.list.d in deb822, sources.list(5). suite: one that ends with / has no components."""
    lines = ["# Written by the role dgx_spark.sglang.container_runtime, which overwrites changes.", "Types: deb"]
    lines += [f"URIs: {uri}", f"Suites: {suite}"]
    lines += [f"Components: {' '.join(components)}"] if components else []
    return "\n".join([*lines, f"Signed-By: {key_path}", ""])
