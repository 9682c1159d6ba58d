"""The command line: `python3 -m lab create | destroy | status | inventory | guests ...`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lab import (
    containers,
    host,
    inventory,
    layout,
    model,
    net,
    nodes,
    overview,
    rootfs,
    services,
    sglang_image,
    state,
)
from lab.guests import access, machines
from lab.guests import cli as guests_cli
from lab.run import LabError, each, say


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python3 -m lab", description="Simulated Sparks on this machine.")
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make the lab, or what is missing of it")
    destroy = commands.add_parser("destroy", help="remove the lab; the cache of slow things stays")
    destroy.add_argument("--cache", action="store_true", help="remove the cache too")
    commands.add_parser("status", help="show the nodes")
    show = commands.add_parser("inventory", help="print an Ansible inventory")
    for command in (create, show):
        command.add_argument(
            "--nodes",
            type=int,
            default=os.environ.get("LAB_NODES", "4"),
            metavar="N",
            help=f"how many, 1 to {layout.MAX_NODES} (default: LAB_NODES, else 4)",
        )
    guests_cli.add(commands)
    return parser


def _create(wanted: list[layout.Node]) -> None:
    host.require(len(wanted))
    with state.locked():
        state.empty_scratch()
        node_image, base_image = each(rootfs.ensure, (rootfs.node(), rootfs.base()))
        net.ensure_lab()
        nodes.ensure_all(wanted, host.detect(), node_image)
        services.ensure_registry(base_image)
        services.ensure_hub(base_image, model.ensure())
        sglang_image.ensure(base_image)
        rootfs.remove([image for image in rootfs.images() if image not in (node_image, base_image)])
        state.empty_scratch()
    say(f"the lab is up: {len(wanted)} nodes, {layout.IMAGE}, {layout.HUB}")


def forget(keep: Path | None) -> None:
    """Remove this checkout's files of the lab; `keep` is what belongs to the guests while they run."""
    for path in state.STATE.glob("*"):
        if path.is_dir() and not path.is_symlink():
            if path != keep:
                shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if keep is None:
        shutil.rmtree(state.STATE, ignore_errors=True)


def _destroy(*, with_cache: bool) -> None:
    host.require_root()
    with state.locked():
        say("removing the lab ...")
        containers.remove(list(containers.listed()))
        nodes.remove_except([])
        net.remove_all()
        rootfs.unmount(rootfs.base().image)
        state.empty_scratch()
        if with_cache:
            machines.destroy(with_cache=True)
            rootfs.remove(rootfs.images())
            shutil.rmtree(state.cache(), ignore_errors=True)
        forget(keep=access.FOLDER if machines.running() else None)
    say("the lab is gone")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns the exit code: 1 with a message on standard error when it can't be done.
    """
    options = _parser().parse_args(arguments)
    try:
        if options.command == "create":
            _create(layout.nodes(options.nodes))
        elif options.command == "destroy":
            _destroy(with_cache=options.cache)
        elif options.command == "status":
            host.require_root()
            text, healthy = overview.render()
            print(text)
            return 0 if healthy else 1
        elif options.command == "inventory":
            print(inventory.render(layout.nodes(options.nodes)), end="")
        elif options.command == "guests":
            return guests_cli.work(options)
    except (LabError, ValueError) as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; the next create or destroy tidies up", file=sys.stderr)
        return 130
    return 0
