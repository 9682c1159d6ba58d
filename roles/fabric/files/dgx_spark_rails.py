#!/usr/bin/python3
# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Brings about what netplan's files say now of the interfaces that are named: `dgx-spark-rails INTERFACE...`.

`netplan apply` would touch the management network too. This works in both directions, for a change and for the way back
from it, so nothing is assumed of what was there before: who manages a rail is read from what netplan generates, the
other one lets go, and a rail that nobody defines any more is bare again. Does all that can be done, then tells what
failed. Needs nothing but Python's standard library.
"""

from __future__ import annotations

import configparser
import fnmatch
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

NETWORKD, NETWORKMANAGER = "systemd-networkd", "NetworkManager"

SYSCTL_FILE = "etc/sysctl.d/40-dgx-spark-fabric.conf"

SETTINGS = ("ipv4/conf/{}/arp_ignore", "ipv4/conf/{}/arp_announce", "ipv6/conf/{}/disable_ipv6")
"""What that file may set of a rail, and what goes back to the kernel's default where it does not."""

BARE_MTU = 1500
"""What a card starts with."""

COMMAND_SECONDS = 20
WAIT_SECONDS = 5
"""For NetworkManager, and for a carrier: a card may lose it for a moment when its MTU changes."""


@dataclass(frozen=True)
class Link:
    """An interface that is there."""

    name: str
    mac: str
    driver: str


@dataclass(frozen=True)
class Definition:
    """What netplan made of a definition. name: the connection's, for NetworkManager."""

    manager: str
    name: str
    mtu: int


def parse(path: Path) -> configparser.ConfigParser:
    """A file of networkd or NetworkManager; of a key that is there more than once, the last."""
    parsed = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",), default_section="")
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(path.read_text(encoding="utf-8"))
    return parsed


def fits(patterns: str, value: str) -> bool:
    """Whether one of the patterns, as networkd (by blanks) or NetworkManager (by semicolons) writes them, is met."""
    return any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns.replace(";", " ").split())


def definition_of(link: Link, root: Path) -> Definition | None:
    """The definition that netplan generated for an interface; None without one."""
    for path in sorted((root / "run/systemd/network").glob("10-netplan-*.network")):
        file = parse(path)
        is_ = {"Name": link.name, "Driver": link.driver, "PermanentMACAddress": link.mac, "MACAddress": link.mac}
        match = [(key, value) for key, value in file["Match"].items() if key in is_]
        if all(fits(value.lower() if "MAC" in key else value, is_[key]) for key, value in match):
            return Definition(NETWORKD, path.name, file.getint("Link", "MTUBytes", fallback=BARE_MTU))
    for path in sorted((root / "run/NetworkManager/system-connections").glob("netplan-*")):
        file = parse(path)
        if (
            file.get("connection", "type", fallback="") == "ethernet"
            and fits(file.get("connection", "interface-name", fallback="*"), link.name)
            and fits(file.get("match", "interface-name", fallback="*"), link.name)
            and fits(file.get("ethernet", "mac-address", fallback="*").lower(), link.mac)
        ):
            mtu = file.getint("ethernet", "mtu", fallback=BARE_MTU)
            return Definition(NETWORKMANAGER, file["connection"]["id"], mtu)
    return None


def run(*argv: str) -> tuple[bool, str]:
    """Run a program. Returns whether it succeeded, and what it printed."""
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=COMMAND_SECONDS, check=False, text=True, errors="replace",
        )  # fmt: skip
    except FileNotFoundError:
        return False, "is not installed"
    except subprocess.TimeoutExpired:
        return False, f"no end within {COMMAND_SECONDS} seconds"
    return done.returncode == 0, done.stdout.strip()


class Rails:
    """Rails by name, and what failed with them. root: where /run, /proc, /sys and /etc lie."""

    def __init__(self, names: Sequence[str], root: Path = Path("/")) -> None:
        self._names, self._root = names, root
        self.problems: list[str] = []
        self._definitions: dict[str, Definition | None] = {}

    def bring_about(self) -> None:
        """Do it all. What failed is in `problems`."""
        if not self._do("netplan", "generate"):
            return  # what is there is not what the files say
        self._look()
        by_networkd, by_manager, bare = (self._of(manager) for manager in (NETWORKD, NETWORKMANAGER, None))
        if by_networkd:
            self._do("systemctl", "start", f"{NETWORKD}.service")
        networkd_runs, manager_runs = self._is_active(NETWORKD), self._is_active(NETWORKMANAGER)
        # First those let go that have nothing to do with a rail any more.
        if manager_runs:
            self._leave([*by_networkd, *bare])
        if networkd_runs:
            self._do("networkctl", "reload")
        for name in bare:
            self._do("ip", "address", "flush", "dev", name)
            self._do("ip", "link", "set", "dev", name, "down")
        self._set_mtu()
        self._set_kernel()
        if by_networkd:
            self._do("networkctl", "reconfigure", *by_networkd)
        if bare and networkd_runs:
            # A file of networkd's own, not of netplan's, may be about them.
            run("networkctl", "reconfigure", *bare)
        if manager_runs:
            self._take([*by_manager, *bare])
            self._connect(by_manager)
        elif by_manager:
            self.problems.append(
                f"NetworkManager is to manage {', '.join(by_manager)}, but it does not run. "
                "Mend: systemctl enable --now NetworkManager, or name networkd in fabric_renderer."
            )

    # ---- what is there -----------------------------------------------------------------------

    def _look(self) -> None:
        there = {link["ifname"]: link for link in json.loads(run("ip", "-json", "link", "show")[1])}
        for name in self._names:
            if name not in there:
                print(f"{name}: there is no such interface")
                continue
            mac = there[name].get("permaddr") or there[name].get("address", "")
            driver = self._root / "sys/class/net" / name / "device/driver"
            link = Link(name, mac.lower(), driver.resolve().name if driver.exists() else "")
            found = self._definitions[name] = definition_of(link, self._root)
            print(f"{name}: {f'{found.manager}, {found.name}' if found else 'nobody defines it'}")

    def _of(self, manager: str | None) -> list[str]:
        return [name for name, found in self._definitions.items() if (found.manager if found else None) == manager]

    def _is_active(self, unit: str) -> bool:
        return run("systemctl", "is-active", "--quiet", f"{unit}.service")[0]

    def _do(self, *argv: str) -> bool:
        done, output = run(*argv)
        if not done:
            self.problems.append(f"`{' '.join(argv)}` failed: {output}")
        return done

    # ---- the kernel's part -------------------------------------------------------------------

    def _set_mtu(self) -> None:
        """Nobody sets an MTU that no file names, and NetworkManager none without a carrier."""
        for name, found in self._definitions.items():
            self._do("ip", "link", "set", "dev", name, "mtu", str(found.mtu if found else BARE_MTU))

    def _set_kernel(self) -> None:
        """What the file sets, else what an interface starts with. Only what differs is written.

        IPv6 that is on for a moment would change the GIDs' indices.
        """
        file, proc = self._root / SYSCTL_FILE, self._root / "proc/sys/net"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        said = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in lines)}
        for setting in (setting for setting in SETTINGS if (proc / setting.format("default")).exists()):
            default = (proc / setting.format("default")).read_text().strip()
            for name in self._definitions:
                value, path = said.get(f"net/{setting.format(name)}", default), proc / setting.format(name)
                if path.read_text().strip() != value:
                    self._write(path, value)

    def _write(self, path: Path, value: str) -> None:
        try:
            path.write_text(value)
        except OSError as error:
            self.problems.append(f"{path} does not take {value}: {error.strerror}")

    # ---- NetworkManager ----------------------------------------------------------------------

    def _leave(self, names: Sequence[str]) -> None:
        """Tell it netplan's rules of whom to leave alone, and wait until it has left these."""
        self._do("nmcli", "general", "reload", "conf")
        for name in self._definitions:
            self._do("udevadm", "trigger", "--action=change", "--settle", f"/sys/class/net/{name}")
        for name in names:
            self._manage(name, yes=False)

    def _take(self, names: Sequence[str]) -> None:
        """Let it read its connections and take these; one without a definition may be for a connection of its own."""
        self._do("nmcli", "connection", "reload")
        for name in names:
            self._manage(name, yes=True)
            if self._is_managed(name):
                # It leaves down what is down when it comes, and then sees no carrier.
                self._do("ip", "link", "set", "dev", name, "up")

    def _manage(self, name: str, *, yes: bool) -> None:
        """Only where it is not so already: what is said by hand outweighs all files until the next boot."""
        if self._is_managed(name) == yes:
            return
        self._do("nmcli", "device", "set", name, "managed", "yes" if yes else "no")
        for _ in ticks(WAIT_SECONDS):
            if self._is_managed(name) == yes:
                return
        if self._definitions[name]:
            self.problems.append(f"NetworkManager does not {'manage' if yes else 'leave'} {name}.")

    def _is_managed(self, name: str) -> bool:
        return not run("nmcli", "--get-values", "GENERAL.STATE", "device", "show", name)[1].startswith("10 ")

    def _connect(self, names: Sequence[str]) -> None:
        """Bring up those with a carrier. The others it would refuse; it brings them up itself once they have one."""
        for _ in ticks(WAIT_SECONDS):
            if all(self._has_carrier(name) for name in names):
                break
        for name in names:
            found = self._definitions[name]
            if found is None or not self._has_carrier(name):
                print(f"{name}: no carrier")
                continue
            done, output = run("nmcli", "--wait", "15", "connection", "up", "id", found.name, "ifname", name)
            if not done and self._has_carrier(name):
                self.problems.append(f"NetworkManager does not connect {name}: {output}")

    def _has_carrier(self, name: str) -> bool:
        try:
            return (self._root / "sys/class/net" / name / "carrier").read_text().strip() == "1"
        except OSError:
            return False  # an interface that is down has nothing to read there


def ticks(seconds: float) -> Iterator[None]:
    """At once, and five times a second until the time is up."""
    end = time.monotonic() + seconds
    yield
    while time.monotonic() < end:
        time.sleep(0.2)
        yield


def main(names: Sequence[str]) -> int:
    """Bring it about. Returns 1 where something failed, and says what."""
    rails = Rails(names)
    rails.bring_about()
    for problem in rails.problems:
        print(problem)
    return 1 if rails.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
