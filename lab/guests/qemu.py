"""One emulated machine: its command line, its process, its monitor."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

from lab.guests.image import Image
from lab.guests.layout import NAMESPACE, NETWORKS, Guest, slot
from lab.layout import LAN_MTU, Network
from lab.run import LabError, run, wait_for

# Sockets and process numbers: short paths that vanish with a boot of this machine.
RUN = Path("/run/dgx-spark-guests")
PROGRAM = "qemu-system-x86_64"
_MEMORY_MIB = 768
_MONITOR_SECONDS = 30
# A machine that nobody attacks and whose processor is emulated: no mitigations, no hardening, no auditing.
_KERNEL = (
    "console=ttyS0 quiet mitigations=off nokaslr nowatchdog audit=0 lsm= init_on_alloc=0 hardened_usercopy=off"
    " tsc=reliable random.trust_cpu=on rcupdate.rcu_expedited=1 systemd.show_status=0"
)


def _file(guest: Guest, suffix: str) -> Path:
    return RUN / f"{guest.name}.{suffix}"


def console(guest: Guest) -> Path:
    """What the guest's kernel printed."""
    return _file(guest, "console")


def _card(guest: Guest, network: Network) -> list[str]:
    size = "" if network.mtu == LAN_MTU else f",host_mtu={network.mtu}"
    return [
        "-netdev",
        f"tap,id={network.bridge},ifname={guest.tap(network)},script=no,downscript=no",
        "-device",
        f"virtio-net-pci,netdev={network.bridge},mac={guest.mac(network)},addr={slot(network):#x},romfile={size}",
    ]


def command(guest: Guest, image: Image, disk: Path, memory: Path | None) -> list[str]:
    """The command line of a guest on its disk: booting, or going on from a state of its memory."""
    return [
        *(PROGRAM, "-name", guest.name, "-machine", "pc", "-nodefaults", "-display", "none"),
        # Never KVM: what a test sees must not depend on the machine that it runs on.
        *("-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max", "-smp", "1", "-m", str(_MEMORY_MIB)),
        *("-kernel", str(image.kernel), "-initrd", str(image.initrd)),
        *("-append", f"{_KERNEL} {guest.kernel_arguments}"),
        *("-drive", f"file={disk},format=qcow2,if=none,id=disk,cache=unsafe,discard=unmap"),
        *("-device", "virtio-blk-pci,drive=disk,addr=0x3", "-device", "virtio-rng-pci,addr=0x4"),
        *(flag for network in NETWORKS for flag in _card(guest, network)),
        *("-serial", f"file:{console(guest)}"),
        *("-qmp", f"unix:{_file(guest, 'qmp')},server=on,wait=off"),
        *("-daemonize", "-pidfile", str(_file(guest, "pid"))),
        *(("-incoming", f"exec:cat '{memory}'") if memory else ()),
    ]


def pid(guest: Guest) -> int | None:
    """The process of a running guest. A number that another process has by now doesn't count."""
    try:
        number = int(_file(guest, "pid").read_text())
        words = Path(f"/proc/{number}/cmdline").read_bytes().decode().split("\0")
    except (OSError, ValueError):
        return None
    return number if str(_file(guest, "pid")) in words else None


def start(guest: Guest, image: Image, disk: Path, memory: Path | None) -> None:
    """Start a guest whose taps are there. It outlives this command."""
    RUN.mkdir(mode=0o700, exist_ok=True)
    run(["ip", "netns", "exec", NAMESPACE, *command(guest, image, disk, memory)], timeout=60)


def end(guest: Guest) -> None:
    """End a guest's process, and wait until it is gone. Nothing happens when there is none."""
    number = pid(guest)
    if number is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
        wait_for(f"the end of {guest.name}", lambda: pid(guest) is None or None, seconds=20, pause=0.02)
    for suffix in ("pid", "qmp"):
        _file(guest, suffix).unlink(missing_ok=True)


def monitor(guest: Guest, *commands: dict[str, Any]) -> Any:
    """Send commands to a guest's monitor (QMP). Returns the answer to the last one.

    Raises LabError when there is no monitor, or when it refuses.
    """
    answer: Any = None
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_MONITOR_SECONDS)
            connection.connect(str(_file(guest, "qmp")))
            with connection.makefile("rw", encoding="utf-8") as stream:
                stream.readline()
                for request in ({"execute": "qmp_capabilities"}, *commands):
                    stream.write(json.dumps(request) + "\n")
                    stream.flush()
                    answer = _answer(guest, stream)
    except OSError as error:
        raise LabError(
            f"the monitor of {guest.name} does not answer: {error}; run `python3 -m lab guests reset`"
        ) from error
    return answer


def _answer(guest: Guest, stream: Any) -> Any:
    """The next answer; events between are skipped."""
    while line := stream.readline():
        message = json.loads(line)
        if "error" in message:
            raise LabError(f"the monitor of {guest.name} refuses: {message['error']['desc']}")
        if "return" in message:
            return message["return"]
    raise LabError(f"the monitor of {guest.name} was closed; see {console(guest)}")


def set_carrier(guest: Guest, network: Network, *, up: bool) -> None:
    """Let the guest's card on a network see a cable, or none."""
    monitor(guest, {"execute": "set_link", "arguments": {"name": network.bridge, "up": up}})


def reset(guest: Guest) -> None:
    """Press the reset button: the guest boots without having shut down."""
    monitor(guest, {"execute": "system_reset"})


def go_on(guest: Guest) -> None:
    """Wait until the state of the memory is read in, and let the guest go on."""

    def read_in() -> bool | None:
        return monitor(guest, {"execute": "query-status"})["status"] != "inmigrate" or None

    wait_for(f"the restored {guest.name}", read_in, seconds=60, pause=0.05)
    # It was stopped when its state was kept, and is still.
    monitor(guest, {"execute": "cont"})


def save(guest: Guest, disk: Path, target: Path) -> None:
    """Keep memory and disk of a running guest as `target`.state and `target`.disk; the guest goes on."""
    parameters = {"max-bandwidth": 1 << 40}
    monitor(
        guest,
        {"execute": "stop"},
        {"execute": "migrate-set-parameters", "arguments": parameters},
        {"execute": "migrate", "arguments": {"uri": f"exec:cat > '{target}.state'"}},
    )

    def saved() -> bool | None:
        state = monitor(guest, {"execute": "query-migrate"}).get("status")
        if state == "failed":
            raise LabError(f"the state of {guest.name} can't be kept; see {console(guest)}")
        return state == "completed" or None

    wait_for(f"the kept state of {guest.name}", saved, seconds=60, pause=0.05)
    shutil.copyfile(disk, f"{target}.disk")
    monitor(guest, {"execute": "cont"})
