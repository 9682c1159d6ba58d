"""The life of the guests: booted once, kept as they were then, and started from there ever after.

A guest's disk is a layer above the image's; with the state of its memory it lies in the cache under the hash of what
it was made from. A run works on a further layer, so that nothing in the cache is ever written to.
"""

from __future__ import annotations

import shutil
import socket
import time
from pathlib import Path

from lab import state
from lab.guests import access, image, net, qemu
from lab.guests.image import Image
from lab.guests.layout import CONTROLLER_LINK, MAX_GUESTS, MGMT, NETWORKS, UNPLUGGED, Guest, guests
from lab.layout import Network
from lab.run import LabError, each, run, say, wait_for

_BOOT_SECONDS = 240
_RESTORE_SECONDS = 60
# Kept when they change: all that shapes a kept guest, besides the image and the command line.
_KEPT_VERSION = "1"
DEVICES = ("rocep1s0f1", "roceP2p1s0f1")
# Run in a guest: set the clock of a restored one right, and answer with the identity of its boot when all is there.
_READY = f"""
date --set=@%.1f > /dev/null
case $(systemctl is-system-running --wait) in running|degraded) ;; *) exit 1 ;; esac
for device in {" ".join(DEVICES)}; do test -d /sys/class/infiniband/$device || exit 1; done
cat /proc/sys/kernel/random/boot_id
"""


def _disks() -> Path:
    return image.folder() / "run"


def _kept(made: Image) -> Path:
    """Folder of the kept guests that belong to an image, this QEMU and the command line."""
    version = run([qemu.PROGRAM, "--version"]).splitlines()[0]
    shape = " ".join(qemu.command(guests(1)[0], made, Path("disk"), Path("memory")))
    return image.folder() / f"kept-{state.key(_KEPT_VERSION, version, shape)}"


def _layer(above: Path, below: Path, kind: str) -> None:
    above.parent.mkdir(parents=True, exist_ok=True)
    above.unlink(missing_ok=True)
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", str(below), str(above)])


def _listens(guest: Guest) -> bool:
    """Whether the guest's sshd answers, asked by the guests' link alone."""
    try:
        with socket.socket() as connection:
            connection.settimeout(3)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, CONTROLLER_LINK.encode())
            connection.connect((guest.address(MGMT), 22))
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _boot_id(guest: Guest, seconds: float) -> str:
    """Wait until the guest is ready. Returns the identity of its boot (it changes with every boot)."""

    def ready() -> str | None:
        if qemu.pid(guest) is None:
            raise LabError(f"{guest.name} has ended; see {qemu.console(guest)}")
        if not _listens(guest):
            return None
        answer = access.ask(guest, _READY % time.time(), timeout=seconds)
        return answer.stdout.strip() if answer.returncode == 0 else None

    return wait_for(f"the boot of {guest.name} (see {qemu.console(guest)})", ready, seconds=seconds, pause=0.2)


def _start(guest: Guest, made: Image, kept: Path) -> None:
    """Start a guest that doesn't run: from the kept one, else by a boot after which it is kept."""
    memory, disk = kept / f"{guest.name}.state", _disks() / f"{guest.name}.qcow2"
    net.plug_in(guest)
    if memory.exists():
        _layer(disk, kept / f"{guest.name}.disk", "qcow2")
        qemu.start(guest, made, disk, memory)
        qemu.go_on(guest)
        _boot_id(guest, _RESTORE_SECONDS)
        return
    say(f"booting {guest.name} for the first time ...")
    _layer(disk, made.disk, "raw")
    qemu.start(guest, made, disk, None)
    _boot_id(guest, _BOOT_SECONDS)
    access.run(guest, "sync; fstrim / || true")
    unfinished = kept / f"new-{guest.name}"
    qemu.save(guest, disk, unfinished)
    # The state comes last: with it the guest counts as kept.
    for suffix in ("disk", "state"):
        Path(f"{unfinished}.{suffix}").rename(kept / f"{guest.name}.{suffix}")


def _end(guest: Guest) -> None:
    access.hang_up(guest)
    qemu.end(guest)
    net.unplug(guest)
    (_disks() / f"{guest.name}.qcow2").unlink(missing_ok=True)
    _origin(guest).unlink(missing_ok=True)


def _origin(guest: Guest) -> Path:
    """File that names the kept folder which a running guest belongs to."""
    return qemu.RUN / f"{guest.name}.origin"


def _is_current(guest: Guest, kept: Path) -> bool:
    origin = _origin(guest)
    return qemu.pid(guest) is not None and origin.exists() and origin.read_text() == str(kept)


def running() -> list[Guest]:
    """The guests that run."""
    return [guest for guest in guests(MAX_GUESTS) if qemu.pid(guest) is not None]


def create(count: int, *, anew: bool = False) -> None:
    """Let `count` guests run and no others; with `anew` each as it was after its first boot."""
    wanted = guests(count)
    made = image.ensure()
    kept = _kept(made)
    for folder in image.folder().glob("kept-*"):
        if folder != kept:
            shutil.rmtree(folder)
    kept.mkdir(exist_ok=True)
    bare = net.ensure()
    for guest in guests(MAX_GUESTS):
        if bare or anew or guest not in wanted or not _is_current(guest, kept):
            _end(guest)
    access.write(wanted, made)
    missing = [guest for guest in wanted if qemu.pid(guest) is None]
    if missing:
        say(f"starting {len(missing)} guests ...")

    def start(guest: Guest) -> None:
        _start(guest, made, kept)
        _origin(guest).write_text(str(kept))

    each(start, missing)
    say(f"the guests are up: {', '.join(guest.name for guest in wanted)}")


def destroy(*, with_cache: bool = False) -> None:
    """End all guests, and remove what they left."""
    for guest in guests(MAX_GUESTS):
        _end(guest)
    net.remove()
    access.remove()
    shutil.rmtree(qemu.RUN, ignore_errors=True)
    shutil.rmtree(image.folder() if with_cache else _disks(), ignore_errors=True)


def _alive(guest: Guest) -> Guest:
    if qemu.pid(guest) is None:
        raise LabError(f"{guest.name} does not run; run `python3 -m lab guests create`")
    return guest


def plug(guest: Guest, rail: Network, target: str) -> None:
    """Plug the cable of a guest's card on `rail` into the bridge `target`, or into nothing (UNPLUGGED)."""
    net.move(_alive(guest), rail, target)
    qemu.set_carrier(guest, rail, up=target != UNPLUGGED)


def reboot(guest: Guest, *, hard: bool = False) -> None:
    """Boot a guest again, with a shutdown before or (`hard`) as by the reset button. Returns when it is up again."""
    before = access.run(_alive(guest), "cat /proc/sys/kernel/random/boot_id").strip()
    access.hang_up(guest)
    if hard:
        qemu.reset(guest)
    else:
        access.run(guest, "systemctl reboot")

    def other() -> bool | None:
        return _boot_id(guest, _BOOT_SECONDS) != before or None

    wait_for(f"another boot of {guest.name}", other, seconds=_BOOT_SECONDS)
    say(f"{guest.name} is up again")


def status() -> list[tuple[str, ...]]:
    """A row a guest that runs: name, process, state of its system, and where each of its cables is plugged in."""

    def row(guest: Guest) -> tuple[str, ...]:
        system = access.ask(guest, "systemctl is-system-running", timeout=20).stdout.strip() or "no answer"
        cables = net.cables(guest)
        return guest.name, str(qemu.pid(guest)), system, *(cables[network.interface] for network in NETWORKS)

    return each(row, running())
