# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""A part of a machine as it is, as it is wanted, and as it was before: what to do to get from one to another.

A part is a list of things: files, units, kernel parameters and so on. What a thing was before its first change is
recorded once, in a file on the node, and is what it is put back to. Here is what can be decided without touching the
node; the module machine_part looks and acts.
"""

from __future__ import annotations

import base64
import fnmatch
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

WANTED: Mapping[str, frozenset[str]] = {
    "file": frozenset({"content", "mode", "absent"}),
    "link": frozenset({"target", "absent"}),
    "unit": frozenset({"enabled", "active"}),
    "sysctl": frozenset({"value"}),
    "hold": frozenset({"held"}),
    "package": frozenset(),
    "swap": frozenset({"areas"}),
}
"""Kind -> what a task may want of it. As states they are:

file: {content: Base64 or None for absent, mode: octal text}. link: {target: text or None for absent}.
unit: {enabled: what `systemctl is-enabled` says, "" without a unit; active: bool}.
sysctl: {value: text, None where there is none}. hold: {held: bool}.
package: {installed: bool}, recorded and taken away, never installed here.
swap: {areas: [[path, priority], ...]}, all swap of the node.
"""

UNIT_FILE_STATES = frozenset(
    {
        "enabled",
        "enabled-runtime",
        "linked",
        "linked-runtime",
        "alias",
        "masked",
        "masked-runtime",
        "static",
        "indirect",
    }
    | {"disabled", "generated", "transient", "bad"}
)
"""What `systemctl is-enabled` may say of a unit that is there, systemctl(1)."""

ENDS = frozenset({"stop", "disable", "mask", "swapoff", "purge"})
"""Words of commands that end something: they come before files change, all others after."""

State = Mapping[str, Any]
"""What a thing is, by its kind. A wanted state may leave keys out: those do not matter."""


class PartError(Exception):
    """What can't be done, where, and the mend. The text goes to the user."""


@dataclass(frozen=True)
class Thing:
    """One thing of a part. wanted: None where it is only recorded, for whoever changes it after this."""

    kind: str
    name: str
    wanted: State | None = None

    @property
    def key(self) -> str:
        """Its name in a record."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Step:
    """One thing to do. argv: a command; else path is written with content, made a link to target, or removed."""

    argv: Sequence[str] = ()
    path: str = ""
    content: bytes | None = None
    mode: int = 0o644
    target: str | None = None

    @property
    def turn(self) -> int:
        """When it is due.

        0 is what ends something, 1 are files, 2 is what begins something, by those files; 3 are areas of swap that
        none of those has turned on.
        """
        return 1 if self.path else 3 if "swapon" in self.argv else 0 if ENDS & set(self.argv) else 2

    @property
    def area(self) -> str:
        """The area of swap that it turns off or on, "" for none."""
        return self.argv[-1] if self.argv and self.argv[0] in ("swapon", "swapoff") else ""

    @property
    def unit(self) -> str:
        """The unit that it is about, "" for none."""
        return self.argv[-1] if self.argv and self.argv[0] == "systemctl" else ""

    def is_done(self, areas: Sequence[Sequence[Any]]) -> bool:
        """Whether a unit has turned this area of swap off or on by now. areas: those that are on."""
        return (self.area in [path for path, _ in areas]) == (self.argv[0] == "swapon")

    @property
    def is_config(self) -> bool:
        """Whether it changes a file that somebody has to be told of."""
        return bool(self.path) and not self.path.startswith("/proc/")


@dataclass(frozen=True)
class Entry:
    """What a record holds of a thing.

    former: as it was before. made: as it was made here, None if it was not. moving: whether a run was about to change
    it, or to put it back: one that was interrupted may have left it in between.
    """

    thing: Thing
    former: State
    made: State | None
    moving: bool = False


@dataclass
class Record:
    """What is known of a part. after: commands to run when files have changed. due: whether they still have to."""

    entries: dict[str, Entry] = field(default_factory=dict)
    after: Sequence[Sequence[str]] = ()
    due: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For a file of JSON."""
        return {
            "things": [
                {
                    "kind": one.thing.kind,
                    "name": one.thing.name,
                    "former": one.former,
                    "made": one.made,
                    **({"moving": True} if one.moving else {}),
                }
                for one in self.entries.values()
            ],
            "after": [list(argv) for argv in self.after],
            "due": self.due,
        }


def read_record(document: Mapping[str, Any]) -> Record:
    """The record in a file of JSON; KeyError or TypeError where it is none."""
    entries = [
        Entry(Thing(one["kind"], one["name"]), one["former"], one["made"], one.get("moving", False))
        for one in document["things"]
    ]
    return Record({one.thing.key: one for one in entries}, document["after"], bool(document["due"]))


def thing_of(options: Mapping[str, Any]) -> Thing:
    """A thing as a task describes it; PartError for what no thing can be."""
    kind, name, wanted = options["kind"], options["name"], options.get("wanted")
    if wanted is None:
        return Thing(kind, name)
    wanted = {key: value for key, value in wanted.items() if value is not None}
    if not wanted or wanted.keys() - WANTED[kind]:
        known = ", ".join(sorted(WANTED[kind])) or "nothing: it is only recorded"
        raise PartError(f"{kind} {name}: wanted = {dict(wanted)}. Mend: Of that kind may be wanted: {known}.")
    if kind == "file":
        content = None if wanted.get("absent") else base64.b64encode(str(wanted["content"]).encode()).decode()
        return Thing(kind, name, {"content": content, "mode": None if content is None else wanted.get("mode", "0644")})
    if kind == "link":
        return Thing(kind, name, {"target": None if wanted.get("absent") else str(wanted["target"])})
    if kind == "sysctl":
        return Thing(kind, name, {"value": " ".join(str(wanted["value"]).split())})
    return Thing(kind, name, wanted)


def expanded(things: Iterable[Thing], installed: Iterable[str]) -> list[Thing]:
    """The things, with a hold's pattern replaced by the installed packages that it matches."""
    found: dict[str, Thing] = {}
    names = sorted(installed)
    for thing in things:
        matching = fnmatch.filter(names, thing.name) if thing.kind == "hold" else [thing.name]
        for name in matching:
            one = Thing(thing.kind, name, thing.wanted)
            found.setdefault(one.key, one)
    return list(found.values())


def differs(present: State, wanted: State) -> bool:
    """Whether a thing is not as it is wanted; what the wanted state leaves out does not matter."""
    return any(present.get(key) != value for key, value in wanted.items())


def recorded(record: Record, seen: Sequence[tuple[Thing, State]], after: Sequence[Sequence[str]]) -> Record:
    """The record with the things that it did not hold yet, as they were seen; what it holds stays."""
    entries = dict(record.entries)
    for thing, present in seen:
        known = entries.get(thing.key)
        if known is None:
            entries[thing.key] = Entry(thing, present, thing.wanted)
        else:
            made = known.made if thing.wanted is None else thing.wanted
            entries[thing.key] = Entry(thing, known.former, made)
    return Record(entries, after, record.due)


def moving(record: Record, keys: Collection[str]) -> Record:
    """The record, with these things and no others marked as being changed."""
    return replace(record, entries={key: replace(one, moving=key in keys) for key, one in record.entries.items()})


def to_put_back(entry: Entry, present: State) -> State | None:
    """The state to put a thing back to: its former one, or None where somebody else has changed it since."""
    if entry.moving or not differs(present, entry.former):
        return entry.former
    if entry.made is not None and differs(present, entry.made):
        return None
    return entry.former


def steps(thing: Thing, present: State, wanted: State) -> list[Step]:
    """What brings a thing from one state to another, in order; nothing where they agree."""
    if not differs(present, wanted):
        return []
    name = thing.name
    if thing.kind == "file":
        if wanted["content"] is None:
            return [Step(path=name)]
        return [Step(path=name, content=base64.b64decode(wanted["content"]), mode=int(wanted["mode"], 8))]
    if thing.kind == "link":
        return [Step(path=name, target=wanted["target"])]
    if thing.kind == "unit":
        return _unit_steps(name, present, wanted)
    if thing.kind == "sysctl":
        if present["value"] is None:
            raise PartError(f"There is no kernel parameter {name}. Mend: Take it out, or load what brings it.")
        return [Step(path=sysctl_path(name), content=f"{wanted['value']}\n".encode())]
    if thing.kind == "hold":
        return [Step(["apt-mark", "hold" if wanted["held"] else "unhold", name])]
    if thing.kind == "package":
        # One that has been taken away since is not brought back by name alone.
        return [Step(["apt-get", "--quiet", "--yes", "purge", name])] if not wanted["installed"] else []
    return _swap_steps(present["areas"], wanted["areas"])


def _unit_steps(name: str, present: State, wanted: State) -> list[Step]:
    is_, want = str(present.get("enabled")), str(wanted.get("enabled", present.get("enabled")))
    stop = [Step(["systemctl", "stop", name])] if present.get("active") and wanted.get("active") is False else []
    start = [Step(["systemctl", "start", name])] if wanted.get("active") and not present.get("active") else []
    verbs = []
    if is_ != want:
        verbs += ["unmask"] if is_ == "masked" else []
        # static, transient, generated and the like: neither enabled nor disabled by a verb.
        # "" is a unit that was not there: its links go before its file does.
        can_be_disabled = want in ("disabled", "") and is_.startswith(("enabled", "linked", "indirect"))
        verbs += {"enabled": ["enable"], "masked": ["mask"]}.get(want, ["disable"] if can_be_disabled else [])
    return [*stop, *(Step(["systemctl", "--quiet", verb, name]) for verb in verbs), *start]


def _swap_steps(present: Sequence[Sequence[Any]], wanted: Sequence[Sequence[Any]]) -> list[Step]:
    off = [path for path, _ in present if path not in [other for other, _ in wanted]]
    on = [(path, int(priority)) for path, priority in wanted if path not in [other for other, _ in present]]
    # The kernel's own priorities are negative and can't be asked for.
    asked = {path: ["--priority", str(priority)] if priority >= 0 else [] for path, priority in on}
    return [*(Step(["swapoff", path]) for path in off), *(Step(["swapon", *asked[path], path]) for path, _ in on)]


def sysctl_path(name: str) -> str:
    """The file of a kernel parameter; a name with slashes may hold dots, as in sysctl(8)."""
    first = re.search(r"[./]", name)
    return f"/proc/sys/{name if first and first[0] == '/' else name.replace('.', '/')}"


def swap_areas(text: str) -> list[list[Any]]:
    """The areas in the text of /proc/swaps: [path, priority] each."""
    rows = [line.split() for line in text.splitlines()[1:] if line.strip()]
    return [[re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), row[0]), int(row[4])] for row in rows]


def swap_in_use(text: str) -> int:
    """How much of the swap in /proc/swaps is in use, in KiB."""
    return sum(int(line.split()[3]) for line in text.splitlines()[1:] if line.strip())


def check_swap_off(in_use_kib: int, available_kib: int) -> None:
    """PartError where what is in swap would not leave memory enough when it is read back: half of it has to stay."""
    if in_use_kib * 2 > available_kib:
        raise PartError(
            f"{in_use_kib // 1024} MiB are in swap, and {available_kib // 1024} MiB of memory are available: swap "
            f"can't be turned off safely; nothing of it was changed. "
            f"Mend: Stop the group (playbooks/stop.yml) and run again."
        )
