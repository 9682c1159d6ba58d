"""The command line: `python3 -m lab guests create | reset | destroy | status | inventory | plug | reboot`."""

from __future__ import annotations

import argparse
import os
from typing import Any

from lab import host, state
from lab.guests import access, layout, machines
from lab.guests.layout import MAX_GUESTS, NETWORKS, UNPLUGGED
from lab.layout import RAILS
from lab.overview import table
from lab.run import say

_RAILS = [network.bridge for network in RAILS]
_HEADINGS = ("GUEST", "PROCESS", "SYSTEM", *(network.interface for network in NETWORKS))


def add(commands: Any) -> None:
    """Add `guests` and its subcommands to the subparsers of the lab's command line."""
    guests = commands.add_parser("guests", help="emulated Sparks with a kernel of their own and Soft-RoCE")
    actions = guests.add_subparsers(dest="action", required=True)
    create = actions.add_parser("create", help="start the guests, or those that are missing")
    reset = actions.add_parser("reset", help="all guests and cables as they were after their first boot")
    show = actions.add_parser("inventory", help="print an Ansible inventory")
    for action in (create, reset, show):
        action.add_argument(
            "--nodes",
            type=int,
            default=os.environ.get("LAB_GUESTS", "2"),
            metavar="N",
            help=f"how many, 1 to {MAX_GUESTS} (default: LAB_GUESTS, else 2)",
        )
    actions.add_parser("destroy", help="end the guests; their image and kept states stay in the cache")
    actions.add_parser("status", help="show the guests and where their cables are plugged in")
    plug = actions.add_parser("plug", help="plug a cable in elsewhere, or pull it")
    plug.add_argument("guest", metavar="GUEST", help="spark-0 and so on")
    plug.add_argument("rail", choices=_RAILS, help="the card: the one that belongs on this rail")
    plug.add_argument("target", choices=[*_RAILS, UNPLUGGED], help="the rail that its cable goes to")
    reboot = actions.add_parser("reboot", help="boot a guest again, and wait until it is up")
    reboot.add_argument("guest", metavar="GUEST", help="spark-0 and so on")
    reboot.add_argument("--hard", action="store_true", help="by the reset button, without a shutdown")


def _create(count: int, *, anew: bool) -> None:
    layout.guests(count)
    host.require_guests(count)
    with state.locked():
        state.empty_scratch()
        machines.create(count, anew=anew)


def _destroy() -> None:
    host.require_root()
    with state.locked():
        machines.destroy()
    say("the guests are gone")


def _status() -> int:
    host.require_root()
    rows = machines.status()
    print(table([_HEADINGS, *rows]) if rows else "There are no guests. `python3 -m lab guests create` makes some.")
    return 0 if rows and all(row[2] in ("running", "degraded") for row in rows) else 1


def work(options: argparse.Namespace) -> int:
    """Do what the command line asks for. Returns the exit code; raises LabError and ValueError."""
    if options.action in ("create", "reset"):
        _create(options.nodes, anew=options.action == "reset")
    elif options.action == "destroy":
        _destroy()
    elif options.action == "status":
        return _status()
    elif options.action == "inventory":
        print(access.inventory(layout.guests(options.nodes)), end="")
    elif options.action == "plug":
        machines.plug(layout.by_name(options.guest), layout.rail(options.rail), options.target)
    elif options.action == "reboot":
        machines.reboot(layout.by_name(options.guest), hard=options.hard)
    return 0
