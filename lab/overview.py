"""What `status` shows."""

from __future__ import annotations

from collections.abc import Sequence

from lab import containers, net, services
from lab.layout import HUB, LAN, MAX_NODES, MODEL_ID, RAILS, REGISTRY, Node, nodes
from lab.run import attempt, each

_HEADINGS = (
    "NODE",
    "CONTAINER",
    "SYSTEM",
    "LAN",
    *(rail.bridge.upper() for rail in RAILS),
    "LINKS",
)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as text in columns, two blanks apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _row(node: Node, state: str) -> tuple[str, ...]:
    system = "-"
    if state == "running":
        answer = attempt(["podman", "exec", node.name, "systemctl", "is-system-running"], timeout=10)
        system = answer.stdout.strip() or "no answer"
    addresses = (node.address(network) for network in (LAN, *RAILS))
    return (node.name, state, system, *addresses, "up" if net.is_whole(node) else "missing")


def render() -> tuple[str, bool]:
    """The status as text, and whether a lab is there and all of it works."""
    found = {name: str(container["State"]) for name, container in containers.listed().items()}
    present = [node for node in nodes(MAX_NODES) if node.name in found]
    if not present:
        return "There is no lab. `python3 -m lab create` makes one.", False
    rows = each(lambda node: _row(node, found[node.name]), present)
    works = {
        f"registry http://{REGISTRY}": services.answers(f"http://{REGISTRY}/v2/"),
        f"model hub {HUB}": services.answers(f"{HUB}/api/models/{MODEL_ID}"),
    }
    lines = [table([_HEADINGS, *rows]), ""]
    lines += [f"{name}: {'answers' if answers else 'no answer'}" for name, answers in works.items()]
    healthy = all(row[1:3] in (("running", "running"), ("running", "degraded")) and row[-1] == "up" for row in rows)
    return "\n".join(lines), healthy and all(works.values())
