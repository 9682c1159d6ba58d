# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Which TCP ports of an address let a client in: all 65,535 are tried, thousands at a time.

python3 tests/tools/scan_ports.py 198.18.0.11
python3 tests/tools/scan_ports.py --namespace sparklab 198.18.0.11 198.18.0.12
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

ALL_PORTS = range(1, 65536)
MOST_IN_FLIGHT = 4000
ATTEMPTS = 3
"""How often a port is tried that does not answer: a packet may be lost, more so among thousands."""

NO_LINGER = struct.pack("ii", 1, 0)
"""Closing resets the connection: no port of ours waits in TIME_WAIT."""

TRY_LATER = (errno.EADDRNOTAVAIL, errno.EAGAIN, errno.ENOBUFS, errno.EMFILE)


class ScanError(Exception):
    """Nothing answered, so nothing is known; or the scan could not be run."""


@dataclass
class Scan:
    """What the ports did: let in, refused (a reset, or an ICMP message by port), or said nothing."""

    open: list[int] = field(default_factory=list)
    reset: int = 0
    prohibited: int = 0
    silent: int = 0


def open_ports(address: str, timeout: float = 1.0, namespace: str | None = None) -> list[int]:
    """The open TCP ports of an address, sorted.

    timeout: seconds to wait for each of a port's ATTEMPTS. namespace: the network namespace to ask from, by name.
    Raises ScanError where no port at all let in or refused: the address may well be dead.
    """
    found = scan(address, timeout) if namespace is None else _from_namespace(address, timeout, namespace)
    if not found.open and not found.reset:
        raise ScanError(f"{address} has answered on no port: {found}. Mend: See whether it is up and routed to.")
    return found.open


def scan(address: str, timeout: float = 1.0, ports: Iterable[int] = ALL_PORTS) -> Scan:
    """Try to connect to every port; a silent one ATTEMPTS times."""
    found = Scan()
    waiting = list(ports)
    for _ in range(ATTEMPTS):
        waiting = _Sweep(address, timeout, found).run(waiting)
    found.silent = len(waiting)
    found.open.sort()
    return found


class _Sweep:
    """One attempt at many ports."""

    def __init__(self, address: str, timeout: float, found: Scan) -> None:
        self._address = address
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._timeout = timeout
        self._found = found
        self._flying: dict[int, tuple[socket.socket, int]] = {}
        # In the order of their deadlines; entries that have been answered meanwhile are passed over.
        self._deadlines: deque[tuple[float, int, int]] = deque()
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = max(1, min(MOST_IN_FLIGHT, soft - 100))

    def run(self, ports: Iterable[int]) -> list[int]:
        """Returns the ports that said nothing."""
        to_do = deque(ports)
        silent: list[int] = []
        with select.epoll() as poll:
            while to_do or self._flying:
                full = False
                while to_do and len(self._flying) < self._most and not full:
                    full = not self._start(to_do[0], poll)
                    if not full:
                        to_do.popleft()
                if full and not self._flying:
                    raise ScanError("No socket can be made. Mend: Close others, or scan fewer addresses at a time.")
                for handle, _ in poll.poll(self._wait(), self._most):
                    self._take(handle)
                silent += self._late()
        return silent

    def _start(self, port: int, poll: select.epoll) -> bool:
        """Send a SYN; False where there is no room for it now."""
        try:
            client = socket.socket(self._family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            if error.errno in TRY_LATER:
                return False
            raise
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
        code = client.connect_ex((self._address, port))
        if code in TRY_LATER:
            client.close()
            return False
        if code not in (0, errno.EINPROGRESS):
            self._note(client, port, code)
            client.close()
            return True
        self._flying[client.fileno()] = (client, port)
        self._deadlines.append((time.monotonic() + self._timeout, client.fileno(), port))
        poll.register(client, select.EPOLLOUT)
        return True

    def _wait(self) -> float:
        return max(0.0, self._deadlines[0][0] - time.monotonic()) if self._deadlines else 0.0

    def _take(self, handle: int) -> None:
        client, port = self._flying.pop(handle)
        self._note(client, port, client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        client.close()

    def _note(self, client: socket.socket, port: int, code: int) -> None:
        if code == 0:
            # On the own machine a client's port may be the very one that it asks for: TCP lets it talk to itself.
            with contextlib.suppress(OSError):
                if client.getsockname()[:2] == client.getpeername()[:2]:
                    code = errno.ECONNREFUSED
        if code == 0:
            self._found.open.append(port)
        elif code == errno.ECONNREFUSED:
            self._found.reset += 1
        elif code in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM):
            self._found.prohibited += 1
        else:
            raise ScanError(f"{self._address}, port {port}: {errno.errorcode.get(code, code)}")

    def _late(self) -> list[int]:
        late: list[int] = []
        now = time.monotonic()
        while self._deadlines and self._deadlines[0][0] <= now:
            _, handle, port = self._deadlines.popleft()
            if self._flying.get(handle, (None, 0))[1] == port:
                self._flying.pop(handle)[0].close()
                late.append(port)
        return late


def _from_namespace(address: str, timeout: float, namespace: str) -> Scan:
    command = ["ip", "netns", "exec", namespace, sys.executable, __file__, "--json", "--timeout", str(timeout), address]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ScanError(f"The scan in the namespace {namespace} failed: {done.stderr.strip()}")
    return Scan(**json.loads(done.stdout)[address])


def main() -> int:
    """Scan the addresses of the command line, and print what is open."""
    parser = argparse.ArgumentParser(description="Scan all TCP ports of addresses.")
    parser.add_argument("addresses", nargs="+")
    parser.add_argument("--timeout", type=float, default=1.0, help="seconds to wait for an attempt (1)")
    parser.add_argument("--namespace", help="the network namespace to scan from")
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    options = parser.parse_args()
    results: dict[str, Scan] = {}
    for address in options.addresses:
        began = time.monotonic()
        if options.namespace:
            results[address] = _from_namespace(address, options.timeout, options.namespace)
        else:
            results[address] = scan(address, options.timeout)
        if not options.json:
            one = results[address]
            others = f"{one.reset} reset, {one.prohibited} prohibited, {one.silent} silent"
            print(f"{address}: open {one.open or 'none'}; {others}; {time.monotonic() - began:.1f} s")
    if options.json:
        print(json.dumps({address: asdict(one) for address, one in results.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
