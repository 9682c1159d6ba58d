"""Root file systems by mmdebstrap, kept as podman images named after the hash of their inputs."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from lab import state
from lab.layout import LABEL
from lab.run import attempt, contained, run, say

SUITE = "bookworm"

_NODE_PACKAGES = (
    *(
        "systemd",
        "systemd-sysv",
        "dbus",
        "udev",
        "openssh-server",
        "python3",
        "python3-apt",
        "sudo",
    ),
    *(
        "iproute2",
        "iputils-ping",
        "kmod",
        "ca-certificates",
        "curl",
        "iptables",
        "netplan.io",
    ),
    *("ethtool", "procps", "rdma-core"),
)
# A node is bare: what the roles install lies in its offline repository.
_NODE_REPOSITORY = (
    *("docker.io", "rsync", "python3-requests", "nftables", "earlyoom"),
    *("ibverbs-utils", "rdmacm-utils", "perftest"),
)
_BASE_PACKAGES = ("python3", "ca-certificates")
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")


@dataclass(frozen=True)
class RootFs:
    """A root file system: what it is called, and what it is made from."""

    title: str
    packages: tuple[str, ...]
    hooks: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    config: tuple[str, ...] = ()

    @property
    def image(self) -> str:
        """Name of the podman image, with the hash of everything that goes into it."""
        inputs = (SUITE, *self.packages, *self.hooks, *self.config, *EXCLUDED)
        # The hooks name this checkout's folder; the image must not depend on where it lies.
        texts = [text.replace(str(state.SOURCE), "") for text in inputs]
        return f"localhost/dgx-spark-lab-{self.title}:{state.key(*texts, *self.sources)}"


def node() -> RootFs:
    """A bare Spark: systemd, sshd, network tools, the CUDA driver's stand-in, no container engine."""
    folder, cuda = state.SOURCE / "node", state.SOURCE / "cuda"
    script, source, driver = (shlex.quote(str(path)) for path in (folder / "customize.sh", folder, cuda))
    packages = " ".join(_NODE_REPOSITORY)
    return RootFs(
        title="node",
        packages=_NODE_PACKAGES,
        hooks=(f'sh {script} {source} {driver} "$1" {packages}',),
        sources=(folder, cuda),
        config=("STOPSIGNAL SIGRTMIN+3", 'CMD ["/sbin/init"]'),
    )


def base() -> RootFs:
    """A small system with Python: base of the SGLang image, home of the registry and the hub."""
    return RootFs(title="base", packages=_BASE_PACKAGES)


def exists(rootfs: RootFs) -> bool:
    """Whether the image is there already."""
    return attempt(["podman", "image", "exists", rootfs.image]).returncode == 0


def unmount(image: str) -> None:
    """Undo `podman image mount`, also one of a killed command."""
    attempt(["podman", "image", "unmount", "--force", image])


def images() -> list[str]:
    """Names of all images of the lab, of older inputs too."""
    listed = run(["podman", "images", "--filter", f"label={LABEL}", "--format", "{{.Repository}}:{{.Tag}}"])
    return listed.split()


def remove(names: list[str]) -> None:
    """Remove images. No container may need them."""
    for name in names:
        unmount(name)
        run(["podman", "rmi", "--force", name])


def bootstrap(rootfs: RootFs, target: Path) -> None:
    """Make the root file system as a tar archive."""
    command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"]
    command += [f"--include={','.join(rootfs.packages)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in EXCLUDED]
    command += [f"--customize-hook={hook}" for hook in rootfs.hooks]
    if rootfs.hooks:  # a node keeps the package lists that its hook has made
        command.append("--skip=cleanup/apt/lists")
    command += ["--aptopt=Acquire::Languages none", SUITE, str(target)]
    run(["env", f"TMPDIR={state.scratch()}", *contained(command)])


def ensure(rootfs: RootFs) -> str:
    """Make the image unless it is there. Returns its name."""
    if exists(rootfs):
        return rootfs.image
    say(f"building the {rootfs.title} image ...")
    archive = state.scratch() / f"{rootfs.title}.tar"
    bootstrap(rootfs, archive)
    changes = [flag for line in (*rootfs.config, f"LABEL {LABEL}={rootfs.title}") for flag in ("--change", line)]
    run(["podman", "import", "--quiet", *changes, str(archive), rootfs.image])
    archive.unlink()
    return rootfs.image
