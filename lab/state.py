"""What the lab keeps: this user's cache, this checkout's files, and this machine's lock."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.run import LabError, attempt, run, say, wait_for

SOURCE = Path(__file__).resolve().parent
CHECKOUT = SOURCE.parent
STATE = CHECKOUT / ".lab"
PRIVATE_KEY = STATE / "id_ed25519"
KNOWN_HOSTS = STATE / "known_hosts"
SSH_CONFIG = STATE / "ssh_config"
# Names of containers and namespaces are the machine's, so the lock is too.
_LOCK = Path("/run/lock/dgx-spark-lab.lock")


def cache() -> Path:
    """Folder of everything that is slow to make and survives `destroy`."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "dgx-spark-lab"


def scratch() -> Path:
    """Folder for half-made things. It is emptied by every command that holds the lock."""
    folder = cache() / "scratch"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def empty_scratch() -> None:
    """Remove what a killed command left half-made.

    Its last processes may still be dying, so this is tried again.
    """
    folder = cache() / "scratch"

    def gone() -> bool | None:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists() or None

    wait_for(f"the end of what still writes to {folder}", gone, seconds=10)


def key(*inputs: str | Path) -> str:
    """Content hash (16 hex digits) of texts and files; a folder counts with all that is in it."""
    digest = hashlib.sha256()
    for item in inputs:
        if isinstance(item, str):
            digest.update(b"text\0" + item.encode() + b"\0")
            continue
        files = sorted(path for path in item.rglob("*")) if item.is_dir() else [item]
        for path in files:
            if "__pycache__" in path.parts or path.is_dir():
                continue
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            name = str(path.relative_to(item.parent))
            executable = bool(path.lstat().st_mode & 0o100)
            digest.update(f"file\0{name}\0{executable}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def ensure_ssh_key() -> str:
    """Make the lab's ssh key pair unless it is there. Returns the public key's line."""
    STATE.mkdir(mode=0o700, exist_ok=True)
    public = PRIVATE_KEY.with_suffix(".pub")
    if not PRIVATE_KEY.exists() or attempt(["ssh-keygen", "-y", "-f", str(PRIVATE_KEY)]).returncode:
        PRIVATE_KEY.unlink(missing_ok=True)
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(PRIVATE_KEY)])
    PRIVATE_KEY.chmod(0o600)
    line = run(["ssh-keygen", "-y", "-f", str(PRIVATE_KEY)]).strip()
    public.write_text(line + "\n")
    return line


@contextmanager
def locked() -> Iterator[None]:
    """Hold the machine's lab lock. A second command says that it waits, and waits."""
    try:
        _LOCK.parent.mkdir(parents=True, exist_ok=True)
        handle = _LOCK.open("w")
    except OSError as error:
        raise LabError(f"cannot open the lock {_LOCK}: {error.strerror}; run this as root") from error
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another lab command is at work; waiting for it ...")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
