# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A stand-in for Docker and for a server in a container: what a rank needs of `run`, `rm`, `stop` and `inspect`.

STANDIN_DIR holds a node's containers. The "server" of rank 0 listens at --dist, those of the others connect to it; when
such a connection closes, both sides die, as SGLang's do. `slow` in STANDIN_DIR: it never becomes healthy. `answer`:
what /health answers instead of 200. `linger`: so many seconds `run` takes to end after the server has.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

FOLDER = Path(os.environ["STANDIN_DIR"])


def option(name: str) -> str:
    """The value of --name=value."""
    return next((word.split("=", 1)[1] for word in sys.argv if word.startswith(f"--{name}=")), "")


def address(text: str) -> tuple[str, int]:
    """HOST:PORT."""
    host, port = text.split(":")
    return host, int(port)


def die(code: int) -> None:
    """The server ends itself."""
    print(f"RuntimeError: Connection closed by peer, {option('rank')}", flush=True)
    os._exit(code)


def hold(link: socket.socket) -> None:
    """Keep a connection of the group."""
    while True:
        try:
            if not link.recv(1):
                break
        except OSError:
            break
    time.sleep(0.1)
    die(9)


def store() -> None:
    """Rank 0's side of the group."""
    listener = socket.create_server(address(option("dist")), reuse_port=False)
    while True:
        link, _ = listener.accept()
        threading.Thread(target=hold, args=(link,), daemon=True).start()


def join() -> None:
    """The others' side of it."""
    while True:
        try:
            link = socket.create_connection(address(option("dist")), source_address=(option("host"), 0))
            break
        except OSError:
            time.sleep(0.05)
    hold(link)


def serve() -> None:
    """What runs in the container."""
    listener = socket.create_server((option("host"), int(option("port"))))
    if option("dist"):
        threading.Thread(target=join if int(option("rank")) else store, daemon=True).start()
    sys.stdout.write("Loading safetensors checkpoint shards:  50% Completed | 1/2\r")
    sys.stdout.write("Loading safetensors checkpoint shards: 100% Completed | 2/2\n")
    sys.stdout.flush()
    while True:
        link, _ = listener.accept()
        request = link.recv(65536).decode()
        answer = "503" if (FOLDER / "slow").exists() else "200"
        if request.startswith("GET /health ") and (FOLDER / "answer").exists():
            answer = (FOLDER / "answer").read_text()
        if request.startswith("POST /generate "):
            (FOLDER / "generated").write_text(request.split("\r\n\r\n", 1)[1])
        link.sendall(f"HTTP/1.1 {answer} x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        link.close()


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def main() -> int:
    """One command of Docker's."""
    verb = sys.argv[1]
    name = option("name") or sys.argv[-1]
    note = FOLDER / f"{name}.pid"
    if verb == "run":
        if note.exists():
            print(f"docker: Error response from daemon: Conflict. The name {name} is in use.", flush=True)
            return 125
        (FOLDER / "argv").write_text("\n".join(sys.argv))
        pid = os.fork()
        if pid == 0:
            os.setsid()
            serve()
        note.write_text(str(pid))
        signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        note.unlink(missing_ok=True)
        time.sleep(float((FOLDER / "linger").read_text()) if (FOLDER / "linger").exists() else 0)
        return code if code >= 0 else 128 - code
    if not note.exists():
        print(f"Error response from daemon: No such container: {name}")
        return 1
    pid = int(note.read_text())
    if verb == "inspect":
        print(pid)
        return 0
    try:
        os.kill(pid, signal.SIGTERM if verb == "stop" else signal.SIGKILL)
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass
    while alive(pid):
        time.sleep(0.02)
    if verb == "rm":
        note.unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
