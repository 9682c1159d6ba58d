"""How much shared memory SGLang's MoE kernel needs for a tile, from Triton's own compiler, without a GPU."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernel_configs import wheels
from kernel_configs.kernel import Job, Kernel, kernel, launch, write

__all__ = ["Compiled", "CompilerError", "Job", "compile_all", "compile_launches"]

WORKER = Path(__file__).with_name("worker.py")

# Seconds. A compile takes a tenth of one, the start of a worker one or two; both have been seen to take several times
# that on a busy machine, and a worker that hangs has to end.
COMPILE_LIMIT = 120.0
START_LIMIT = 120.0


class CompilerError(RuntimeError):
    """A Triton does not work on this machine; the text says which and why."""


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of a job: the bytes of shared memory a block, or why it refuses, in one line."""

    shared: int | None
    error: str | None


def compile_all(
    jobs: Iterable[Job],
    triton: str,
    sglang: str,
    arch: int = 121,
    workers: int | None = None,
    cache: bool = True,
) -> dict[Job, Compiled]:
    """Compile every job under a release of Triton with the kernel of a release of SGLang.

    arch: compute capability times ten; workers: processes, one a core by default; cache: whether earlier results are
    used. Jobs that SGLang launches alike are compiled once. WheelError, LaunchError or CompilerError when the
    compiler itself can't be had; what it refuses is in the job's own result.
    """
    release = kernel(sglang)
    keys = {job: json.dumps(launch(job, sglang, arch)) for job in dict.fromkeys(jobs)}
    results = compile_launches(keys.values(), triton, release, arch, workers, cache)
    return {job: results[key] for job, key in keys.items()}


def compile_launches(
    launches: Iterable[str], triton: str, release: Kernel, arch: int, workers: int | None = None, cache: bool = True
) -> dict[str, Compiled]:
    """Compile launches, each the JSON text of what kernel.launch returns; errors as compile_all."""
    wanted = dict.fromkeys(launches)
    store = _store(triton, release, arch)
    known = _read(store) if cache else {}
    open_launches = [text for text in wanted if _key(text) not in known]
    if open_launches:
        pool = _Pool(triton, release, arch)
        try:
            pool.run(open_launches, workers or os.cpu_count() or 1)
        finally:
            if cache:
                # Also what was done before an interruption; and what another process wrote meanwhile.
                write(store, json.dumps(_read(store) | pool.lasting, indent=0, sort_keys=True))
        known |= pool.results
    return {text: Compiled(**known[_key(text)]) for text in wanted}


def _key(launch_text: str) -> str:
    return hashlib.sha256(launch_text.encode()).hexdigest()[:32]


def _store(triton: str, release: Kernel, arch: int) -> Path:
    """The file of earlier results; another kernel text or another way to compile has another file."""
    way = hashlib.sha256(release.digest.encode() + WORKER.read_bytes()).hexdigest()[:16]
    return wheels.cache() / "results" / f"triton-{triton}-sm{arch}-{way}.json"


def _read(store: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads(store.read_text())
        return found
    return {}


class _Pool:
    """Worker processes under one Triton, each fed by a thread."""

    def __init__(self, triton: str, release: Kernel, arch: int) -> None:
        self.triton, self.release, self.arch = triton, release, arch
        # Once, before the threads that need it.
        wheels.triton(triton)
        self.results: dict[str, dict[str, Any]] = {}
        # The compiler's own answers; a crash or a time limit may be this machine's and is tried again next time.
        self.lasting: dict[str, dict[str, Any]] = {}
        self.failure: Exception | None = None

    def run(self, launches: list[str], workers: int) -> None:
        """Compile all; raises CompilerError when no worker starts."""
        todo: queue.SimpleQueue[str] = queue.SimpleQueue()
        for text in launches:
            todo.put(text)
        threads = [threading.Thread(target=self._feed, args=(todo,)) for _ in range(min(workers, len(launches)))]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            # Ctrl-C: the threads end after the compile that is under way.
            self.failure = self.failure or CompilerError("interrupted")
            raise
        if self.failure:
            raise self.failure

    def _feed(self, todo: queue.SimpleQueue[str]) -> None:
        worker = None
        try:
            while not self.failure:
                text = todo.get_nowait()
                worker = worker or _Worker(self.triton, self.release, self.arch)
                answer = worker.ask(text)
                result = {"shared": answer.get("shared"), "error": answer.get("error")}
                self.results[_key(text)] = result
                if worker.dead:
                    worker.close()
                    worker = None
                else:
                    self.lasting[_key(text)] = result
        except queue.Empty:
            pass
        except Exception as error:  # handed to the caller's thread
            self.failure = error
        finally:
            if worker:
                worker.close()


def _reason(line: str) -> str | None:
    """The reason in a line of the compiler's own: FILE:LINE:COLUMN: error: REASON."""
    found = re.fullmatch(r"\S+:\d+:\d+: error: (.+)", line)
    return found and f"the compiler says: {found[1]}"


class _Worker:
    """One process that compiles; ends with its first crash or time limit."""

    def __init__(self, triton: str, release: Kernel, arch: int) -> None:
        self.dead = False
        self.late = False
        # Neither TRITON_* settings nor site packages of this machine may change an answer.
        kept = {
            name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH")
        }
        # Appended to by the process, wherever this side reads.
        self.errors = tempfile.TemporaryFile("a+b")  # noqa: SIM115  # closed by close()
        self.read = 0
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(WORKER), str(release.path), str(arch)],
            env={**kept, "PYTHONPATH": str(wheels.triton(triton))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        hello = self._read(START_LIMIT)
        if hello.get("triton") != triton:
            self.close()
            said = hello.get("error") or f"it is {hello.get('triton')}"
            raise CompilerError(
                f"Triton {triton} does not start: {said}. Mend: remove its folder in {wheels.cache()} to fetch it anew."
            )

    def ask(self, launch_text: str) -> dict[str, Any]:
        """The answer to one launch; {"error": ...} when the process ends or is too slow."""
        assert self.process.stdin
        try:
            self.process.stdin.write(launch_text + "\n")
            self.process.stdin.flush()
        except OSError:
            return self._end(COMPILE_LIMIT)
        answer = self._read(COMPILE_LIMIT)
        if answer.get("error") and not self.dead:
            # A pass that fails says why on stderr, before the whole program.
            answer["error"] = next((reason for line in self._said() if (reason := _reason(line))), answer["error"])
        return answer

    def _read(self, limit: float) -> dict[str, Any]:
        assert self.process.stdout
        timer = threading.Timer(limit, self._too_late)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        if not line.endswith("\n"):
            return self._end(limit)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _too_late(self) -> None:
        self.late = True
        self.process.kill()

    def _end(self, limit: float) -> dict[str, Any]:
        self.dead = True
        code = self.process.wait()
        if self.late:
            return {"error": f"no answer in {limit:.0f} s"}
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return {"error": f"the compiler ended with {how}: {(self._said() or ['nothing said'])[-1]}"}

    def _said(self) -> list[str]:
        """The lines that the process wrote on stderr since the last call."""
        self.errors.seek(self.read)
        text = self.errors.read()
        self.read += len(text)
        return [line.strip() for line in text.decode(errors="replace").splitlines() if line.strip()]

    def close(self) -> None:
        """End the process and free what it holds."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()
