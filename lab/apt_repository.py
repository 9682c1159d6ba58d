"""A signed apt repository with a stand-in for NVIDIA's Container Toolkit, laid out as NVIDIA's own.

`python3 -m lab.apt_repository FOLDER` makes it: `FOLDER/<architecture>` is the repository, a flat one, and
`FOLDER/gpgkey` the key that has signed it, which is new each time. Needs apt-ftparchive, dpkg-deb and gpg; no root.
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.run import LabError, run

STANDIN = Path(__file__).parent / "toolkit"
OWNER = "Lab of the dgx_spark.sglang collection <lab@example.invalid>"
REFRESH_SINCE = (1, 18)
"""The version from which NVIDIA's package brings the service nvidia-cdi-refresh."""


@dataclass(frozen=True)
class Package:
    """A package to build. files: path in the system -> (content, mode). scripts: maintainer scripts by name."""

    name: str
    version: str
    files: Mapping[str, tuple[bytes, int]]
    scripts: Mapping[str, str]
    depends: str = ""

    def control(self, architecture: str) -> str:
        """Its control file."""
        lines = [f"Package: {self.name}", f"Version: {self.version}", f"Architecture: {architecture}"]
        lines += [f"Maintainer: {OWNER}", *([f"Depends: {self.depends}"] if self.depends else [])]
        return "\n".join([*lines, "Description: stand-in of the lab, for tests", ""])


def toolkit(version: str) -> Package:
    """The stand-in for nvidia-container-toolkit, in a version: MAJOR.MINOR.PATCH."""
    program = (STANDIN / "nvidia_ctk.py").read_text().replace('VERSION = "1.19.0"', f'VERSION = "{version}"')
    files = {
        "usr/bin/nvidia-ctk": (program.encode(), 0o755),
        "usr/bin/nvidia-container-runtime": ((STANDIN / "nvidia-container-runtime").read_bytes(), 0o755),
    }
    scripts = {}
    if tuple(int(part) for part in version.split(".")[:2]) >= REFRESH_SINCE:
        units = ("nvidia-cdi-refresh.path", "nvidia-cdi-refresh.service")
        files.update({f"usr/lib/systemd/system/{name}": ((STANDIN / name).read_bytes(), 0o644) for name in units})
        # As debhelper's: enabled and started at once, where systemd runs.
        start = f"systemctl enable {' '.join(units)}\n[ ! -d /run/systemd/system ] || systemctl start {' '.join(units)}"
        scripts["postinst"] = f"#!/bin/sh\nset -e\n{start} || true\n"
    return Package("nvidia-container-toolkit", f"{version}-1", files, scripts, depends="python3")


def architecture() -> str:
    """As dpkg calls that of this machine."""
    return run(["dpkg", "--print-architecture"]).strip()


def build(package: Package, folder: Path) -> Path:
    """Build a package into a folder; returns its file."""
    arch = architecture()
    target = folder / f"{package.name}_{package.version}_{arch}.deb"
    with tempfile.TemporaryDirectory(prefix="lab-deb-") as scratch:
        tree = Path(scratch) / "tree"
        (tree / "DEBIAN").mkdir(parents=True)
        # What mkdtemp and the umask make too narrow would be so on the node as well.
        (tree / "DEBIAN/control").write_text(package.control(arch))
        for name, text in package.scripts.items():
            (tree / "DEBIAN" / name).write_text(text)
            (tree / "DEBIAN" / name).chmod(0o755)
        for name, (content, mode) in package.files.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            path.chmod(mode)
        for path in (tree, *tree.rglob("*")):
            if path.is_dir():
                path.chmod(0o755)
        run(["dpkg-deb", "--root-owner-group", "--build", str(tree), str(target)])
    return target


class Key:
    """A key pair of its own, in a folder of its own; `close` ends what gpg has started there."""

    def __init__(self, home: Path) -> None:
        """Make the pair. home: an empty folder, whose path is short enough for a socket."""
        home.chmod(0o700)
        self._home = home
        self._gpg("--passphrase", "", "--quick-generate-key", OWNER, "ed25519", "sign", "never")

    def _gpg(self, *words: str) -> str:
        return run(["gpg", "--homedir", str(self._home), "--batch", "--quiet", "--yes", *words])

    def public(self) -> str:
        """The public key, in ASCII armour."""
        return self._gpg("--armor", "--export")

    def sign(self, path: Path, target: Path) -> None:
        """A copy of the file with its signature inside."""
        self._gpg("--clearsign", "--output", str(target), str(path))

    def close(self) -> None:
        """End the agent."""
        run(["gpgconf", "--homedir", str(self._home), "--kill", "all"])


def index(folder: Path, key: Key) -> None:
    """Write the lists of a folder with packages, and sign them."""
    ftparchive = ["env", f"--chdir={folder}", "apt-ftparchive"]
    packages = run([*ftparchive, "packages", "."])
    (folder / "Packages").write_text(packages)
    (folder / "Packages.gz").write_bytes(gzip.compress(packages.encode(), mtime=0))
    for name in ("Release", "InRelease"):
        (folder / name).unlink(missing_ok=True)
    about = [f"APT::FTPArchive::Release::{name}=lab" for name in ("Origin", "Label")]
    release = run([*ftparchive, *(word for one in about for word in ("-o", one)), "release", "."])
    (folder / "Release").write_text(release)
    key.sign(folder / "Release", folder / "InRelease")


def publish(root: Path, *versions: str) -> Path:
    """Make the repository with these versions of the toolkit; returns the folder of the packages."""
    folder = root / architecture()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for version in versions:
        build(toolkit(version), folder)
    with tempfile.TemporaryDirectory(prefix="lab-gpg-") as home:
        key = Key(Path(home))
        try:
            (root / "gpgkey").write_text(key.public())
            index(folder, key)
        finally:
            key.close()
    return folder


def require() -> None:
    """LabError naming the packages of the programs that are missing."""
    packages = {"apt-ftparchive": "apt-utils", "dpkg-deb": "dpkg", "gpg": "gpg", "gpg-agent": "gpg-agent"}
    missing = [package for program, package in packages.items() if not shutil.which(program)]
    if missing:
        raise LabError(f"programs are missing: apt-get install {' '.join(missing)}")


def main() -> None:
    """Make a repository from the command line."""
    require()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--version", action="append", help="of the toolkit; 1.19.0 if none is given")
    words = parser.parse_args()
    print(publish(words.folder, *(words.version or ["1.19.0"])))


if __name__ == "__main__":
    main()
