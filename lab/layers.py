"""Image layers as compressed archives whose bytes depend on nothing but what is in them."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

# All files carry this time, so that compiled Python files stay valid and the same content gives the
# same digest.
MTIME = 1735689600
# Level 1: a layer is read a few times on the same machine, while compressing it costs each cold
# creation.
_LEVEL = 1
_GZIP_WINDOW = 31


@dataclass(frozen=True)
class Layer:
    """A layer as a registry knows it. `diff_id` is the digest of the uncompressed archive."""

    digest: str
    diff_id: str
    size: int


class _Compressor(io.RawIOBase):
    """A sink for tarfile that compresses and takes both digests on the way."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._zip = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)
        self._plain = hashlib.sha256()
        self._packed = hashlib.sha256()
        self._size = 0

    def write(self, data: Buffer, /) -> int:
        data = bytes(data)
        self._plain.update(data)
        self._put(self._zip.compress(data))
        return len(data)

    def _put(self, packed: bytes) -> None:
        self._packed.update(packed)
        self._size += len(packed)
        self._sink.write(packed)

    def writable(self) -> bool:
        return True

    def finish(self) -> Layer:
        self._put(self._zip.flush())
        return Layer(
            digest=f"sha256:{self._packed.hexdigest()}",
            diff_id=f"sha256:{self._plain.hexdigest()}",
            size=self._size,
        )


def _plain_member(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Drop devices and sockets; take away what differs from one making to the next."""
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        return None
    member.mtime = MTIME
    member.uname = member.gname = ""
    return member


def pack(sources: dict[str, Path], target: Path, *, owned_by_root: bool = False) -> Layer:
    """Write a layer.

    `sources` maps paths in the image (without leading slash, "." for the root) to files or folders.
    With `owned_by_root` all files belong to root, whoever owns the sources.
    """

    def member(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        if owned_by_root:
            info.uid = info.gid = 0
        return _plain_member(info)

    with target.open("wb") as sink:
        compressor = _Compressor(sink)
        with tarfile.open(fileobj=compressor, mode="w|", bufsize=1 << 20, format=tarfile.PAX_FORMAT) as archive:
            for name in sorted(sources):
                archive.add(sources[name], arcname=name, filter=member)
        return compressor.finish()


def freeze_times(folder: Path) -> None:
    """Give all files of a folder the time that they will have in the layer."""
    for path in folder.rglob("*"):
        os.utime(path, (MTIME, MTIME), follow_symlinks=False)
