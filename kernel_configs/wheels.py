"""Releases of SGLang and Triton, from PyPI by pinned hash, unpacked for reading and compiling; nothing is installed.

wheels/NAME-VERSION.txt pins a release in pip's own format; to support another one, add its file. What is
unpacked stays in $XDG_CACHE_HOME/dgx-spark-kernel (~/.cache by default), once for each pin.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe import OLDEST
from ansible_collections.dgx_spark.sglang.plugins.module_utils._moe_tiles import since

PINS = Path(__file__).parent / "wheels"

# SGLang is only read, so one wheel serves every machine: from 0.5.11 on there is one for each Python and platform.
_SGLANG_TARGET = (
    "--python-version=3.11",
    "--implementation=cp",
    "--abi=cp311",
    "--platform=manylinux_2_34_x86_64",
)


class WheelError(RuntimeError):
    """A release could not be had; the text says why and what to do."""


def _pinned(name: str) -> tuple[str, ...]:
    """The versions of a package that have a pin, oldest first."""
    versions = [pin.stem.removeprefix(f"{name}-") for pin in PINS.glob(f"{name}-*.txt")]
    return tuple(sorted(versions, key=lambda version: [int(number) for number in re.findall(r"\d+", version)]))


# The parser's tests read older releases too.
SGLANG = tuple(version for version in _pinned("sglang") if since(version, OLDEST))
TRITON = _pinned("triton")


def cache() -> Path:
    """The folder that keeps what is downloaded and compiled; not made by this call."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "dgx-spark-kernel"


def sglang(version: str) -> Path:
    """The folder that holds `sglang/` of that release. WheelError when it is not pinned or cannot be had."""
    return _unpacked("sglang", version, "py3", _SGLANG_TARGET, _is_python)


def triton(version: str) -> Path:
    """The folder to put on PYTHONPATH for that release, for this Python and processor. WheelError as above."""
    build = f"{sys.implementation.cache_tag}-{platform.machine()}"
    return _unpacked("triton", version, build, (), _compiles)


def _is_python(member: str) -> bool:
    return member.endswith((".py", ".json"))


def _compiles(member: str) -> bool:
    """Whether a compile down to shared memory needs the file: 60 % of a Triton wheel are profilers and assemblers."""
    # The backends are found by the entry points; the AMD one must import, so its Python stays.
    return member.endswith((".py", "/libtriton.so", "/libdevice.10.bc", ".dist-info/entry_points.txt"))


def _unpacked(name: str, version: str, build: str, options: tuple[str, ...], wanted: Callable[[str], bool]) -> Path:
    pin = PINS / f"{name}-{version}.txt"
    if not pin.is_file():
        known = ", ".join(_pinned(name))
        raise WheelError(f"{name} {version} has no pinned hashes. Mend: take one of {known}; or add {pin}.")
    digest = hashlib.sha256(pin.read_bytes()).hexdigest()[:8]
    target = cache() / f"{name}-{version}-{build}-{digest}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=target.parent) as work:
            wheel = _download(pin, Path(work), options)
            _unpack(wheel, Path(work) / "unpacked", wanted)
            _publish(Path(work) / "unpacked", target)
    return target


def _download(pin: Path, folder: Path, options: tuple[str, ...]) -> Path:
    """Download the wheel of a pin into folder; pip refuses one whose hash is not in the pin."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    # Without pip's own cache: a wheel of 200 MB would be kept twice.
    command += [
        "--no-cache-dir",
        "--only-binary=:all:",
        "--require-hashes",
        f"--dest={folder}",
        *options,
        "-r",
        str(pin),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip said nothing"]
        raise WheelError(
            f"{pin.stem} cannot be downloaded: {errors[-1].removeprefix('ERROR: ')}. "
            f"Mend: let this machine reach PyPI (PIP_INDEX_URL names a mirror), with Python 3.11 to 3.13."
        )
    return wheels[0]


def _unpack(wheel: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    with zipfile.ZipFile(wheel) as archive:
        # zipfile keeps names with ".." inside the folder.
        archive.extractall(folder, [name for name in archive.namelist() if wanted(str(PurePosixPath(name)))])


def _publish(folder: Path, target: Path) -> None:
    """Move a complete folder to its place at once; one that another process put there meanwhile stays."""
    try:
        folder.rename(target)
    except OSError:
        if not target.is_dir():
            raise
        shutil.rmtree(folder)
