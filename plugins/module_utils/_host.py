# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""What the role host decides from how a node is: who fights the memory guard, and what only a reboot brings about."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.dgx_spark.sglang.plugins.module_utils._findings import Finding, shown

GROUP_WIDE = "group sparks"

RIVALS = ("nohang.service", "nohang-desktop.service", "oomd.service")
"""Services that end processes by thresholds of their own, as earlyoom does. systemd-oomd looks at other things."""

TIME_DAEMONS = (
    *("systemd-timesyncd.service", "chrony.service", "chronyd.service", "ntpsec.service"),
    *("ntp.service", "ntpd.service", "openntpd.service"),
)
"""Services that set the clock by the network, as Debian and Ubuntu package them."""

CHRONY = frozenset({"chrony.service", "chronyd.service"})
CHRONY_CONFIG = ("/etc/chrony/chrony.conf", "/etc/chrony/conf.d/*.conf")
CHRONY_SOURCES = "/etc/chrony/sources.d"
"""A folder for servers, by Debian's and Ubuntu's configuration; another one need not read it."""

SWAP_MAKERS = ("zramswap.service", "zram-config.service", "dphys-swapfile.service", "swapspace.service")
"""Services that turn swap on by themselves, as zram-tools, zram-config, dphys-swapfile and swapspace package them."""

GUARDED_SLICES = ("-.slice", "system.slice")
"""Control groups above those of Docker's containers: where systemd-oomd kills for them, it may kill the engine."""

DROP_IN = "90-dgx-spark.conf"
HEAD = "# Written by the role dgx_spark.sglang.host, which overwrites changes.\n"
EARLYOOM, EARLYOOM_FILE = "earlyoom.service", "/etc/default/earlyoom"
EARLYOOM_OVERRIDES = (f"/etc/systemd/system/{EARLYOOM}", f"/etc/systemd/system/{EARLYOOM}.d/*.conf")
"""Where somebody may have changed its unit by hand: the whole of it, or parts."""
GUARD_MARK = "dgx_spark.sglang.memory_guard"
"""What the role memory_guard writes into its file."""

OOMD_TEXT = """\
# Written by the role dgx_spark.sglang.host, which overwrites changes. The memory guard is earlyoom: docs/memory.md.
[Slice]
ManagedOOMSwap=auto
ManagedOOMMemoryPressure=auto
"""

_OVERRIDES = re.compile(r"^\s*(ExecStart|EnvironmentFile|Environment=.*EARLYOOM_ARGS)", re.MULTILINE)
_SYSCTL_NAME = re.compile(r"[A-Za-z0-9_-]+([./][A-Za-z0-9_:-]+)+\Z")
_SERVER = re.compile(r"[A-Za-z0-9.:_-]+\Z")


def blocks(text: str) -> list[dict[str, str]]:
    """The properties of each unit in the output of `systemctl show UNIT...`, in its order."""
    found = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in text.split("\n\n")]
    return [one for one in found if one]


def unit_of(cgroup: str) -> str:
    """The service of a process, from its /proc/PID/cgroup, "" where it has none."""
    names = re.findall(r"([^/\n]+\.service)\b", cgroup)
    return names[-1] if names else ""


def oom_rivals(texts: Mapping[str, str], running: Sequence[str], active: Sequence[str]) -> dict[str, list[str]]:
    """Who else would guard the memory: {files: what overrides earlyoom's unit by hand, units: what runs beside it}.

    texts: path -> content of EARLYOOM_OVERRIDES, whether or not the package is there. running: the units whose process
    is an earlyoom. active: which of RIVALS are.
    """
    files = [path for path, text in texts.items() if _OVERRIDES.search(text)]
    units = [name for name in running if name and name != EARLYOOM]
    return {"files": files, "units": sorted({*units, *active})}


def oom_things(seen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What belongs to the hand-over to the memory guard: what it replaces, recorded; what would fight it, set aside.

    seen: what host_info tells.
    """
    things: list[dict[str, Any]] = []
    if not seen["guarded"]:
        things += [{"kind": "file", "name": EARLYOOM_FILE}, {"kind": "package", "name": "earlyoom"}]
        # One that was forbidden has to be allowed; it is forbidden again in the end.
        things += [
            {"kind": "unit", "name": EARLYOOM, **({"wanted": {"enabled": "disabled"}} if seen["masked"] else {})}
        ]
    rivals = seen["oom_rivals"]
    things += [{"kind": "file", "name": path, "wanted": {"absent": True}} for path in rivals["files"]]
    aside = {"enabled": "disabled", "active": False}
    things += [{"kind": "unit", "name": name, "wanted": aside} for name in rivals["units"]]
    for name in seen["oomd_slices"]:
        path = f"/etc/systemd/system/{name}.d/{DROP_IN}"
        things.append({"kind": "file", "name": path, "wanted": {"content": OOMD_TEXT}})
    return things


def swap_things(seen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Whatever may turn swap on, and all areas that are on. seen: what host_info tells.

    Each unit is masked, as some versions of systemd start it without swap.target; one that somebody has put where the
    mask would be is disabled.
    """
    aside = {"enabled": "disabled", "active": False}
    units = {
        **dict.fromkeys(seen["swap_makers"], aside),
        "swap.target": {"enabled": "masked"},
        **{name: {"enabled": "disabled" if own else "masked"} for name, own in seen["swap_units"].items()},
    }
    things = [{"kind": "unit", "name": name, "wanted": wanted} for name, wanted in units.items()]
    return [*things, {"kind": "swap", "name": "all", "wanted": {"areas": []}}]


def swap_units(shown: Sequence[Mapping[str, str]]) -> dict[str, bool]:
    """Unit by which systemd may turn swap on -> whether its file is where a mask would be.

    shown: Id, LoadState, UnitFileState and FragmentPath of all. Those without a file are there because swap is on; one
    that is masked already turns nothing on, nor does one of one's own that is not enabled.
    """
    found = {}
    for one in shown:
        if one.get("LoadState") == "loaded" and one.get("FragmentPath"):
            own = one["FragmentPath"].startswith("/etc/")
            if not own or one.get("UnitFileState") == "enabled":
                found[one["Id"]] = own
    return found


def sysctl_things(wanted: Mapping[str, Any], path: str) -> list[dict[str, Any]]:
    """The parameters, now and at every boot. path: the file of sysctl.d(5)."""
    if not wanted:
        return []
    lines = [f"{name} = {value}\n" for name, value in wanted.items()]
    text = HEAD + "".join(lines)
    now = [{"kind": "sysctl", "name": name, "wanted": {"value": str(value)}} for name, value in wanted.items()]
    return [{"kind": "file", "name": path, "wanted": {"content": text}}, *now]


def hold_things(patterns: Sequence[str]) -> list[dict[str, Any]]:
    """The packages to hold."""
    return [{"kind": "hold", "name": pattern, "wanted": {"held": True}} for pattern in patterns]


def time_things(seen: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What sets the clock where nobody does, systemd-timesyncd; whoever does goes on. seen: what host_info tells."""
    if seen["time_daemons"]:
        return []
    wanted = {"enabled": "enabled", "active": True}
    unit = {"kind": "unit", "name": TIME_DAEMONS[0], "wanted": wanted}
    return [{"kind": "package", "name": "systemd-timesyncd"}, unit]


def reads_sources(text: str) -> bool:
    """Whether a configuration of chrony reads CHRONY_SOURCES."""
    return bool(re.search(rf"^\s*sourcedir\s+{CHRONY_SOURCES}/?\s*$", text, re.MULTILINE))


def time_server_things(seen: Mapping[str, Any], servers: Sequence[str]) -> dict[str, Any]:
    """Servers of one's own, for what sets the clock: {things, after, refused}. seen: what host_info tells.

    refused: the service that sets the clock and takes no servers from here, "" where it does.
    """
    unit = next(iter(seen["time_daemons"]), TIME_DAEMONS[0])
    takes = unit == TIME_DAEMONS[0] or (unit in CHRONY and seen["chrony_sources"])
    if not servers or not takes:
        return {"things": [], "after": [], "refused": unit if servers else ""}
    if unit == TIME_DAEMONS[0]:
        path = f"/etc/systemd/timesyncd.conf.d/{DROP_IN}"
        text = f"{HEAD}[Time]\nNTP={' '.join(servers)}\n"
    else:
        path = f"{CHRONY_SOURCES}/dgx-spark.sources"
        text = HEAD + "".join(f"server {name} iburst\n" for name in servers)
    # By a pattern, which may fit nothing: the service may be gone when this is put back.
    after = [["systemctl", "try-restart", unit.replace(".", "[.]")]]
    return {"things": [{"kind": "file", "name": path, "wanted": {"content": text}}], "after": after, "refused": ""}


def pending(host: str, seen: Mapping[str, Any], wanted: Mapping[str, bool]) -> list[dict[str, Any]]:
    """What is set and only in force after a boot: rows {host, what, why, mend}.

    seen: what host_info tells, after the changes. wanted: headless, kho_off, memlock.
    """
    rows = []
    if wanted["headless"] and seen["desktop"]:
        rows.append(("no desktop", "it runs until the next boot", "Boot the node, or set host_headless_now."))
    if wanted["kho_off"] and "kho=off" not in seen["cmdline"]:
        rows.append(("kho=off", "the kernel takes it when it boots", "Boot the node, or set host_reboot."))
    if wanted["memlock"] and seen["memlock"] != "infinity":
        why = f"systemd gives its services {seen['memlock']} bytes"
        rows.append(("memlock limit", why, "Run site.yml --tags host while the group is stopped, or boot the node."))
    return [{"host": host, "what": what, "why": why, "mend": mend} for what, why, mend in rows]


def check_host(values: Mapping[str, Any], rails: Sequence[str] = ()) -> list[Finding]:
    """What is wrong with the role's variables, beyond their types.

    values: variable -> value, as _inventory.settings gives them; what is not there is not checked. rails: interfaces.
    """
    findings = []
    for name, value in (values.get("host_sysctl") or {}).items():
        if not _SYSCTL_NAME.match(str(name)):
            problem, mend = "Is not the name of a kernel parameter.", "Write it as sysctl does, such as vm.swappiness."
            findings.append(Finding(GROUP_WIDE, "host_sysctl", shown(name), problem, mend))
        elif any(re.search(rf"[./]conf[./]{re.escape(rail)}[./](arp_|disable_ipv6)", str(name)) for rail in rails):
            problem = "Is a rail's, which the role fabric sets: each run would undo the other."
            findings.append(Finding(GROUP_WIDE, "host_sysctl", shown(name), problem, "Take it out."))
        elif isinstance(value, (bool, dict, list)) or not str(value).strip() or "\n" in str(value):
            problem, mend = "Is not the value of a kernel parameter.", "Give a number or text."
            findings.append(Finding(GROUP_WIDE, f"host_sysctl.{name}", shown(value), problem, mend))
    for index, name in enumerate(values.get("host_time_servers") or ()):
        if not _SERVER.match(str(name)):
            problem = "Is not the name or address of a server."
            where = f"host_time_servers[{index}]"
            findings.append(Finding(GROUP_WIDE, where, shown(name), problem, "Give one such as ntp.example.org."))
    for index, name in enumerate(values.get("host_hold_patterns") or ()):
        if not re.fullmatch(r"[a-z0-9][a-z0-9+.*?\[\]-]*", str(name)):
            problem = "Is not the name of a package, or a pattern of one."
            where = f"host_hold_patterns[{index}]"
            findings.append(Finding(GROUP_WIDE, where, shown(name), problem, "Give one such as linux-image-*."))
    return findings
