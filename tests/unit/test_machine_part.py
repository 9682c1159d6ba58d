# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""Parts of a machine: made as wanted, recorded once, put back to what was there before."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _machine_part as part
from ansible_collections.dgx_spark.sglang.tests.unit import adhoc

SWAPS = """Filename                                Type            Size            Used            Priority
/swap.img                               file            8388604         2048            -2
/dev/dm\\0401                            partition       1024            0               5
"""


def argvs(steps: list[part.Step]) -> list[str]:
    return [" ".join(step.argv) for step in steps]


def unit(enabled: str, active: bool) -> dict[str, Any]:
    return {"enabled": enabled, "active": active}


@pytest.mark.parametrize(
    ("present", "wanted", "commands"),
    [
        (unit("enabled", True), {"enabled": "disabled", "active": False}, ["stop", "--quiet disable"]),
        (unit("disabled", False), {"enabled": "enabled", "active": True}, ["--quiet enable", "start"]),
        (unit("static", False), {"enabled": "masked"}, ["--quiet mask"]),
        (unit("masked", False), unit("static", False), ["--quiet unmask"]),
        (unit("masked", False), unit("enabled", True), ["--quiet unmask", "--quiet enable", "start"]),
        (unit("enabled", True), {"active": False}, ["stop"]),
        (unit("transient", True), {"enabled": "disabled", "active": False}, ["stop"]),
        (unit("enabled", True), {"enabled": "enabled"}, []),
        (unit("disabled", False), unit("", False), []),
        (unit("enabled", True), unit("", False), ["stop", "--quiet disable"]),
    ],
)
def test_units(present: part.State, wanted: part.State, commands: list[str]) -> None:
    thing = part.Thing("unit", "a.service")
    assert argvs(part.steps(thing, present, wanted)) == [f"systemctl {words} a.service" for words in commands]


def test_swap_off_and_on_again() -> None:
    areas = part.swap_areas(SWAPS)
    assert areas == [["/swap.img", -2], ["/dev/dm 1", 5]]
    thing = part.Thing("swap", "all")
    assert argvs(part.steps(thing, {"areas": areas}, {"areas": []})) == [
        "swapoff /swap.img",
        "swapoff /dev/dm 1",
    ]
    assert argvs(part.steps(thing, {"areas": []}, {"areas": areas})) == [
        "swapon /swap.img",
        "swapon --priority 5 /dev/dm 1",
    ]


def test_an_area_that_its_unit_has_turned_off_or_on_is_done() -> None:
    areas = part.swap_areas(SWAPS)
    done = [["swapon", "--priority", "5", "/dev/dm 1"], ["swapoff", "/x"]]
    due = [["swapoff", "/swap.img"], ["swapon", "/other"]]
    assert [part.Step(argv).is_done(areas) for argv in (*done, *due)] == [True, True, False, False]
    words = [["systemctl", "start", "swap.img.swap"], ["apt-mark", "hold", "swapon"], done[0]]
    assert [(part.Step(argv).area, part.Step(argv).unit) for argv in words] == [
        ("", "swap.img.swap"),
        ("", ""),
        ("/dev/dm 1", ""),
    ]


def test_swap_stays_on_where_what_is_in_it_would_not_leave_memory_enough() -> None:
    assert part.swap_in_use(SWAPS) == 2048
    part.check_swap_off(2048, 4096)
    with pytest.raises(part.PartError, match=r"2 MiB are in swap.*playbooks/stop.yml"):
        part.check_swap_off(2049, 4097)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("vm.swappiness", "/proc/sys/vm/swappiness"),
        ("net/ipv4/conf/eth0.1/arp_ignore", "/proc/sys/net/ipv4/conf/eth0.1/arp_ignore"),
    ],
)
def test_kernel_parameters_are_files(name: str, path: str) -> None:
    assert part.sysctl_path(name) == path


def test_a_parameter_that_is_not_there() -> None:
    with pytest.raises(part.PartError, match=r"vm\.nonsense.*Mend:"):
        part.steps(part.Thing("sysctl", "vm.nonsense"), {"value": None}, {"value": "1"})
    assert part.steps(part.Thing("sysctl", "vm.nonsense"), {"value": None}, {"value": None}) == []


def test_holds_are_those_of_installed_packages() -> None:
    installed = ["linux-image-nvidia", "linux-image-6.17-nvidia", "bash"]
    asked = [part.Thing("hold", "linux-image-*", {"held": True}), part.Thing("hold", "*-nvidia", {"held": True})]
    assert [thing.name for thing in part.expanded(asked, installed)] == [
        "linux-image-6.17-nvidia",
        "linux-image-nvidia",
    ]
    assert argvs(part.steps(asked[0], {"held": False}, {"held": True})) == ["apt-mark hold linux-image-*"]
    assert argvs(part.steps(asked[0], {"held": True}, {"held": False})) == ["apt-mark unhold linux-image-*"]


def test_a_package_is_taken_away_and_never_brought() -> None:
    thing = part.Thing("package", "earlyoom")
    assert argvs(part.steps(thing, {"installed": True}, {"installed": False})) == [
        "apt-get --quiet --yes purge earlyoom"
    ]
    assert part.steps(thing, {"installed": False}, {"installed": True}) == []


def test_what_ends_comes_before_the_files_and_what_begins_after() -> None:
    turns = [["systemctl", "stop", "x"], ["swapoff", "x"], ["systemctl", "start", "x"], ["apt-mark", "hold", "x"]]
    assert [part.Step(argv).turn for argv in turns] == [0, 0, 2, 2]
    assert part.Step(["swapon", "x"]).turn == 3
    assert part.Step(path="/etc/x").turn == 1
    assert part.Step(path="/etc/x").is_config
    assert not part.Step(path="/proc/sys/x").is_config


@pytest.mark.parametrize(
    ("present", "back"),
    [
        ({"value": "1"}, {"value": "60"}),
        ({"value": "60"}, {"value": "60"}),
        ({"value": "10"}, None),
    ],
)
def test_what_somebody_else_has_changed_is_left(present: part.State, back: part.State | None) -> None:
    entry = part.Entry(part.Thing("sysctl", "vm.swappiness"), {"value": "60"}, {"value": "1"})
    assert part.to_put_back(entry, present) == back
    only_recorded = part.Entry(entry.thing, entry.former, None)
    assert part.to_put_back(only_recorded, present) == {"value": "60"}


def test_the_first_state_is_recorded_once() -> None:
    thing = part.Thing("sysctl", "vm.swappiness", {"value": "1"})
    first = part.recorded(part.Record(), [(thing, {"value": "60"})], [])
    again = part.Thing("sysctl", "vm.swappiness", {"value": "5"})
    second = part.recorded(first, [(again, {"value": "1"})], [["true"]])
    (entry,) = second.entries.values()
    assert (entry.former, entry.made) == ({"value": "60"}, {"value": "5"})
    document = json.loads(json.dumps(second.as_dict()))
    assert part.read_record(document).as_dict() == second.as_dict()


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("file", {"contents": "x"}), ("unit", {"started": True}), ("package", {"installed": True}), ("sysctl", {})],
)
def test_what_can_not_be_wanted(kind: str, wanted: dict[str, Any]) -> None:
    with pytest.raises(part.PartError, match="Mend:"):
        part.thing_of({"kind": kind, "name": "x", "wanted": wanted})


def systemctl(folder: Path) -> Path:
    """A stand-in for systemctl: units are files of two words in a folder, and what it is asked is written down."""
    script = folder / "bin/systemctl"
    script.parent.mkdir()
    script.write_text(f"""#!/bin/sh
cd {folder}
verb=$1; [ "$verb" = --quiet ] && {{ shift; verb=$1; }}
echo "$@" >> asked
[ "$3" = --property=What ] && {{ echo {folder}/area; exit; }}
[ "$verb" = show ] && {{ [ -e "unit-$4" ] && echo loaded || echo not-found; exit; }}
read enabled active < "unit-$2" 2>/dev/null || [ "$verb" = daemon-reload ] || {{ echo 'No such unit' >&2; exit 1; }}
case $verb in
is-enabled) echo $enabled; [ $enabled = enabled ] ;;
is-active) echo $active; [ $active = active ] ;;
unmask) echo gone $active > "unit-$2" ;;
enable) echo enabled $active > "unit-$2" ;;
disable) echo disabled $active > "unit-$2" ;;
start) [ $enabled != gone ] && echo $enabled active > "unit-$2" ;;
stop) echo $enabled inactive > "unit-$2" ;;
esac
""")
    script.chmod(0o755)
    return script


@pytest.fixture
def node(tmp_path: Path) -> Path:
    systemctl(tmp_path)
    (tmp_path / "unit-a.service").write_text("enabled active\n")
    (tmp_path / "old").write_bytes(b"as it was\r\n\xff")
    (tmp_path / "old").chmod(0o640)
    (tmp_path / "link").symlink_to("graphical.target")
    return tmp_path


def things(node: Path) -> list[dict[str, Any]]:
    return [
        {"kind": "file", "name": str(node / "old"), "wanted": {"content": "new\n"}},
        {"kind": "file", "name": str(node / "d/fresh"), "wanted": {"content": "fresh\n", "mode": "0600"}},
        {"kind": "link", "name": str(node / "link"), "wanted": {"target": "multi-user.target"}},
        {"kind": "unit", "name": "a.service", "wanted": {"enabled": "disabled", "active": False}},
        {"kind": "unit", "name": "absent.service"},
    ]


def attempt(node: Path, *, state: str = "present", check: bool = False, **arguments: Any) -> adhoc.Outcome:
    given = {
        "name": "x",
        "state": state,
        "records": str(node / "records"),
        "after": [["systemctl", "daemon-reload"]],
        **arguments,
    }
    path = {"PATH": f"{node / 'bin'}:{os.environ['PATH']}"}
    return adhoc.run(node, "machine_part", given, check=check, env=path)


def run(node: Path, **arguments: Any) -> adhoc.Outcome:
    outcome = attempt(node, **arguments)
    assert not outcome.result["failed"], outcome.shown
    return outcome


def state_of(node: Path) -> list[Any]:
    names = ["old", "unit-a.service", "d/fresh"]
    files = [(node / name).read_bytes() if (node / name).exists() else None for name in names]
    modes = [(node / name).stat().st_mode if (node / name).exists() else None for name in names]
    return [files, modes, os.readlink(node / "link")]


def test_made_recorded_and_put_back_byte_for_byte(node: Path) -> None:
    before = state_of(node)
    checked = run(node, check=True, things=things(node))
    assert checked.result["changed"]
    assert state_of(node) == before
    assert not (node / "records").exists()
    assert "+new" in checked.shown

    assert run(node, things=things(node)).result["changed"]
    assert state_of(node)[0] == [b"new\n", b"disabled inactive\n", b"fresh\n"]
    assert (node / "d/fresh").stat().st_mode & 0o777 == 0o600
    assert os.readlink(node / "link") == "multi-user.target"
    assert (node / "records/x.json").stat().st_mode & 0o777 == 0o600
    assert not run(node, things=things(node)).result["changed"]
    # Drift is mended, and does not become what was there before.
    (node / "old").write_text("drifted")
    assert run(node, things=things(node)).result["things"] == [f"file {node / 'old'}"]

    assert run(node, state="restored", check=True).result["changed"]
    assert run(node, state="restored").result["changed"]
    assert state_of(node) == before
    assert not (node / "records/x.json").exists()
    assert not run(node, state="restored").result["changed"]


def test_commands_follow_files_and_only_them(node: Path) -> None:
    run(node, things=things(node))
    verbs = [line.split()[0] for line in (node / "asked").read_text().splitlines()]
    assert [verb for verb in verbs if not verb.startswith("is-")] == ["stop", "disable", "daemon-reload"]
    (node / "asked").unlink()
    (node / "unit-a.service").write_text("disabled active\n")
    run(node, things=things(node))
    assert "daemon-reload" not in (node / "asked").read_text()


def test_commands_of_an_interrupted_run_are_made_up_for(node: Path) -> None:
    broken = attempt(node, things=things(node)[:1], after=[["false"]])
    assert broken.result["failed"]
    assert (node / "old").read_text() == "new\n"
    assert run(node, things=things(node)[:1]).result["changed"]
    assert "daemon-reload" in (node / "asked").read_text()
    assert not run(node, things=things(node)[:1]).result["changed"]


def test_what_is_not_listed_any_more_is_put_back_unless_it_may_stay(node: Path) -> None:
    before = state_of(node)
    run(node, things=things(node))
    kept = run(node, things=things(node)[:1], exact=False)
    assert not kept.result["changed"]
    run(node, things=things(node)[:1])
    assert state_of(node)[0] == [b"new\n", before[0][1], None]
    assert len(json.loads((node / "records/x.json").read_text())["things"]) == 1


def test_what_another_has_changed_is_left_and_told(node: Path) -> None:
    run(node, things=things(node))
    (node / "old").write_text("mine")
    outcome = run(node, state="restored")
    assert outcome.result["left"] == [f"file {node / 'old'}"]
    assert (node / "old").read_text() == "mine"


def test_what_is_gone_keeps_nothing_else_from_being_put_back(node: Path) -> None:
    """An area of swap whose file was removed: neither its unit nor swapon bring it back."""
    run(node, things=things(node))
    record = json.loads((node / "records/x.json").read_text())
    gone = str(node / "gone.img")
    record["things"] += [
        {"kind": "swap", "name": "all", "former": {"areas": [[gone, -2]]}, "made": {"areas": []}},
        {"kind": "unit", "name": "gone.swap", "former": unit("generated", True), "made": {"enabled": "masked"}},
    ]
    (node / "records/x.json").write_text(json.dumps(record))
    (node / "unit-gone.swap").write_text("masked inactive\n")
    # Not for a reason of the moment: then it is an error, and nothing is forgotten.
    (node / "area").touch()
    broken = attempt(node, state="restored")
    assert broken.result["failed"]
    assert "systemctl start gone.swap" in broken.result["msg"]
    (node / "area").unlink()
    outcome = run(node, state="restored")
    by_unit, by_swapon = outcome.result["gone"]
    assert outcome.result["left"] == []
    assert "systemctl start gone.swap" in by_unit
    assert f"swapon {gone}" in by_swapon
    assert (node / "old").read_bytes() == b"as it was\r\n\xff"
    assert not (node / "records/x.json").exists()


def test_a_service_that_does_not_start_again_is_an_error_and_is_not_forgotten(node: Path) -> None:
    (node / "unit-a.service").write_text("gone active\n")
    wanted = {"kind": "unit", "name": "a.service", "wanted": {"active": False}}
    run(node, things=[wanted])
    for _ in range(2):
        outcome = attempt(node, state="restored")
        assert outcome.result["failed"]
        assert "systemctl start a.service" in outcome.result["msg"]
    (node / "unit-a.service").write_text("static inactive\n")
    assert run(node, state="restored").result["changed"]
    assert (node / "unit-a.service").read_text() == "static active\n"
    # One that has been taken away since is told, and keeps nothing.
    (node / "unit-a.service").write_text("static active\n")
    run(node, things=[wanted])
    (node / "unit-a.service").unlink()
    (gone,) = run(node, state="restored").result["gone"]
    assert "systemctl start a.service" in gone


def test_an_interrupted_way_back_is_gone_to_its_end(node: Path) -> None:
    """The unit is enabled again and does not run yet: neither as it was, nor as it was made."""
    run(node, things=things(node))
    record = node / "records/x.json"
    (node / "bin/true").write_text("#!/bin/sh\nexit 1\n")
    (node / "bin/true").chmod(0o755)
    # The commands after the files fail: what begins something was not come to.
    document = json.loads(record.read_text()) | {"after": [["true"]]}
    record.write_text(json.dumps(document))
    assert attempt(node, state="restored").result["failed"]
    assert (node / "unit-a.service").read_text() == "disabled inactive\n"
    (node / "unit-a.service").write_text("enabled inactive\n")
    (node / "bin/true").unlink()
    outcome = run(node, state="restored")
    assert (outcome.result["left"], outcome.result["gone"]) == ([], [])
    assert (node / "unit-a.service").read_text() == "enabled active\n"
    assert (node / "old").read_bytes() == b"as it was\r\n\xff"


def test_a_way_forward_that_was_cut_off_goes_back(node: Path) -> None:
    """Stopped and not yet disabled: neither as it was, nor as it is wanted."""
    real = (node / "bin/systemctl").read_text()
    (node / "bin/systemctl").write_text(real.replace("disable) ", "disable) exit 1; "))
    assert attempt(node, things=things(node)).result["failed"]
    assert (node / "unit-a.service").read_text() == "enabled inactive\n"
    (node / "bin/systemctl").write_text(real)
    assert run(node, state="restored").result["left"] == []
    assert (node / "unit-a.service").read_text() == "enabled active\n"


def test_what_another_has_changed_stays_through_an_interruption(node: Path) -> None:
    """Both where it is not listed any more and where all goes back; and it is told in the end."""
    old, *others = things(node)
    (node / "bin/after").write_text(f"#!/bin/sh\ntest ! -e {node}/broken\n")
    (node / "bin/after").chmod(0o755)
    run(node, things=[old, *others], after=[["after"]])
    (node / "old").write_text("mine")
    changed = [{**others[0], "wanted": {"content": "other\n"}}]
    for arguments in ({"things": changed}, {"state": "restored"}):
        (node / "broken").touch()
        assert attempt(node, after=[["after"]], **arguments).result["failed"]
        (node / "broken").unlink()
        assert (node / "old").read_text() == "mine"
    outcome = run(node, state="restored")
    assert outcome.result["left"] == [f"file {node / 'old'}"]
    assert (node / "old").read_text() == "mine"


def test_what_can_not_be_begun_as_wanted_is_an_error(node: Path) -> None:
    (node / "unit-gone.swap").write_text("gone inactive\n")
    wanted = [{"kind": "unit", "name": "gone.swap", "wanted": {"active": True}}]
    outcome = attempt(node, things=wanted)
    assert outcome.result["failed"]
    assert "systemctl start gone.swap" in outcome.result["msg"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda node: (node / "records").mkdir() or (node / "records/x.json").write_text("{"), "is no record"),
        (lambda node: (node / "old").unlink() or (node / "old").mkdir(), "not a regular file"),
    ],
)
def test_trouble_ends_before_anything_is_changed(node: Path, spoil: Any, words: str) -> None:
    spoil(node)
    unit_before = (node / "unit-a.service").read_text()
    outcome = attempt(node, things=things(node))
    assert outcome.result["failed"]
    assert words in outcome.result["msg"]
    assert "Mend:" in outcome.result["msg"]
    assert (node / "unit-a.service").read_text() == unit_before
