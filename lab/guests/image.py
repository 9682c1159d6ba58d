"""The image of a guest: kernel, initial file system and disk, kept in the cache under the hash of their inputs."""

from __future__ import annotations

import platform
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from lab import state
from lab.rootfs import EXCLUDED, SUITE
from lab.run import LabError, contained, run, say

_FOLDER = state.SOURCE / "guests" / "files"
_PACKAGES = (
    *("systemd", "systemd-sysv", "udev", "dbus", "openssh-server", "python3", "python3-apt", "python3-yaml"),
    *("iproute2", "iputils-ping", "ethtool", "kmod", "netplan.io", "nftables", "procps", "sudo", "pciutils"),
    *("rdma-core", "ibverbs-providers", "ca-certificates", "network-manager", "grub2-common"),
)
# What the roles install lies in the guest's offline repository.
_REPOSITORY = ("perftest", "rdmacm-utils", "ibverbs-utils", "systemd-timesyncd")
_DISK = "3G"


@dataclass(frozen=True)
class Image:
    """Where the parts of an image lie."""

    folder: Path

    @property
    def kernel(self) -> Path:
        """Debian's kernel."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """The initial file system."""
        return self.folder / "initrd"

    @property
    def disk(self) -> Path:
        """The root file system, never written to: each guest has a layer of its own above it."""
        return self.folder / "root.ext4"

    @property
    def private_key(self) -> Path:
        """The key that all guests let in."""
        return self.folder / "id_ed25519"

    @property
    def host_key(self) -> str:
        """Public host key of all guests, as `TYPE KEY`."""
        kind, value = (self.folder / "ssh_host_ed25519_key.pub").read_text().split()[:2]
        return f"{kind} {value}"


def folder() -> Path:
    """Everything of the guests in the cache."""
    return state.cache() / "guests"


def wanted() -> Image:
    """The image that belongs to this source, whether it is there or not."""
    inputs = (SUITE, *_PACKAGES, "--", *_REPOSITORY, *EXCLUDED, _DISK)
    return Image(folder() / f"image-{state.key(*inputs, _FOLDER)}")


def ensure() -> Image:
    """Make the image unless it is there; remove those of older inputs.

    Raises LabError on a machine for whose processor there is no image.
    """
    image = wanted()
    if not image.folder.exists():
        if platform.machine() != "x86_64":
            raise LabError(
                f"guests run on x86_64 machines only, this is {platform.machine()}; use the lab of containers"
            )
        say("building the guests' image ...")
        _build(image)
    for other in folder().glob("image-*"):
        if other != image.folder:
            shutil.rmtree(other)
    return image


def _build(image: Image) -> None:
    """Build in the scratch folder, and move the whole into place last."""
    made = state.scratch() / "guest-image"
    root = state.scratch() / "guest-root"
    made.mkdir()
    for name in ("id_ed25519", "ssh_host_ed25519_key"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(made / name)])
    script, source, out = (shlex.quote(str(path)) for path in (_FOLDER / "customize.sh", _FOLDER, made))
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory"]
    command += [f"--include={','.join(_PACKAGES)}", "--aptopt=APT::Install-Recommends false"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
    command += ["--skip=cleanup/apt/lists", "--aptopt=Acquire::Languages none"]
    command += [f'--customize-hook=sh {script} {source} {out} "$1" {" ".join(_REPOSITORY)}', SUITE, str(root)]
    run(["env", f"TMPDIR={state.scratch()}", *contained(command)], timeout=900)
    say("making the guests' disk ...")
    disk = made / "root.ext4"
    run(["truncate", f"--size={_DISK}", str(disk)])
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-L", "root", "-d", str(root), str(disk)])
    shutil.rmtree(root)
    image.folder.parent.mkdir(parents=True, exist_ok=True)
    made.rename(image.folder)
