"""What can be seen of a group of simulated Sparks from outside: whether it is whole, its journals, its answers."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType

from lab.faults import CONTAINER, inside
from lab.layout import Node
from lab.run import LabError, wait_for

API = "http://198.18.0.11:30000"
ANSWER_SECONDS = 60.0
"""The longest that a chat may take before it is answered or refused, whatever happens to the group meanwhile."""
SERVE_SECONDS = 300.0
"""Patience for a start of the group on a busy machine."""
NOTICE_SECONDS = 120.0
ENDED = "group ended: "
"""In the journal of each node, with who was first and why."""

_EPOCH = "docker ps --format '{{.Label \"dgx-spark.epoch\"}}'"
# Every process of the server has to be in the one container that there is.
_ORPHANS = (
    f"own=$(docker inspect --format '{{{{.Id}}}}' {CONTAINER}); for pid in $(ps -eo pid,args"
    " | awk '/sglang::|launch_server --model/ && !/awk|docker run/ { print $1 }');"
    ' do grep -q "$own" /proc/$pid/cgroup || ps -o args= $pid; done; true'
)


def active(node: Node) -> bool:
    """Whether the rank's unit says that the group serves."""
    try:
        return inside(node, f"systemctl is-active {CONTAINER}.service") == "active"
    except LabError:
        return False


def epochs(nodes: Sequence[Node]) -> list[str]:
    """The epoch of each container of each node."""
    return [epoch for node in nodes for epoch in inside(node, _EPOCH).splitlines()]


def of_one_start(found: Sequence[str], nodes: Sequence[Node]) -> bool:
    """Whether these are the epochs of one container on each node, all of the same start."""
    return len(found) == len(nodes) and len(set(found)) == 1 and bool(found[0])


def begun(nodes: Sequence[Node], other_than: Sequence[str]) -> list[str] | None:
    """The epochs of the containers once all nodes have one of the same, other epoch than before; None until then."""
    found = epochs(nodes)
    return found if of_one_start(found, nodes) and found != list(other_than) else None


def problem(nodes: Sequence[Node]) -> str:
    """Why the group does not serve as one; "" where it does."""
    idle = [node.name for node in nodes if not active(node)]
    if idle:
        return f"not active: {', '.join(idle)}"
    found = epochs(nodes)
    if not of_one_start(found, nodes):
        return f"containers of epochs {found}"
    orphans = [f"{node.name}: {line}" for node in nodes for line in inside(node, _ORPHANS).splitlines()]
    if orphans:
        return f"processes outside of the container: {orphans}"
    return "" if chat() else "rank 0 does not answer a chat"


def serving(nodes: Sequence[Node]) -> None:
    """Wait until the group serves as one, and nothing else is left. Raises LabError where it does not come to that."""

    def whole() -> bool | None:
        try:
            # A look at all of them costs what their starts would need.
            return (active(nodes[0]) and not problem(nodes)) or None
        except LabError:
            return None  # a node without power, for one

    wait_for("a group that serves as one", whole, seconds=SERVE_SECONDS, pause=1)


def noticed(since: float, nodes: Sequence[Node]) -> tuple[float, str]:
    """When, and in which words, the first of these nodes told of the end of the group. Raises LabError if none does."""

    def told() -> tuple[float, str] | None:
        lines: list[tuple[float, str]] = []
        for node in nodes:
            with contextlib.suppress(LabError):
                lines += journal(node, since, ENDED)
        return min(lines, default=None)

    return wait_for("a word of the end", told, seconds=NOTICE_SECONDS, pause=0.25)


def journal(node: Node, since: float, pattern: str) -> list[tuple[float, str]]:
    """The lines of a rank's unit that match, each with its time: Unix times, by the one clock of all nodes."""
    command = (
        f"journalctl --unit={CONTAINER} --since=@{since:.3f} --output=json --output-fields=MESSAGE,__REALTIME_TIMESTAMP"
        f" --quiet --grep='{pattern}' || true"
    )
    lines = [json.loads(line) for line in inside(node, command).splitlines()]
    return [(int(line["__REALTIME_TIMESTAMP"]) / 1e6, str(line["MESSAGE"])) for line in lines]


def status_text(node: Node) -> str:
    """What the unit says that it is doing."""
    return inside(node, f"systemctl show --value --property=StatusText {CONTAINER}.service")


def waits(node: Node, failed: Node) -> bool:
    """Whether a rank has nothing left of its last start, and says that it waits for another node."""
    said = status_text(node)
    return said.startswith("waiting for ") and failed.name in said and not epochs([node])


def chat(tokens: int = 4) -> bool:
    """Ask the endpoint once. Returns whether it answered; an error is an answer of its own kind."""
    question = {"model": "glm-tiny", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": tokens}
    request = urllib.request.Request(
        f"{API}/v1/chat/completions", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS + 30) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError, OSError):
        return False


@dataclass
class Chats:
    """A steady stream of chats from two clients, as long as the context lasts. seconds: how long each of them took."""

    seconds: list[float] = field(default_factory=list)
    answered: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _clients: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Chats:
        self._clients = [threading.Thread(target=self._ask, daemon=True) for _ in range(2)]
        for client in self._clients:
            client.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for client in self._clients:
            client.join(ANSWER_SECONDS + 60)

    def _ask(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            self.answered += chat(16)
            self.seconds.append(time.monotonic() - began)
            # A refused connection is answered in no time.
            self._over.wait(0.5)


@contextlib.contextmanager
def load(kind: str) -> Iterator[None]:
    """Idle, or under chats. Raises LabError where one of them took longer than an answer or an error may."""
    if kind == "idle":
        yield
        return
    with Chats() as chats:
        wait_for("the first chats", lambda: chats.answered > 1 or None, seconds=ANSWER_SECONDS)
        yield
    if max(chats.seconds) > ANSWER_SECONDS:
        raise LabError(f"a chat took {max(chats.seconds):.0f} s")
