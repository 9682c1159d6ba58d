# Copyright (c) 2026 the dgx_spark.sglang contributors
# SPDX-License-Identifier: MIT
"""The role preflight: what it asks, what it makes of the answers, its page, and what an inventory may skip."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.dgx_spark.sglang.plugins.filter.preflight import preflight_questions, preflight_report
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_facts, _preflight_html
from ansible_collections.dgx_spark.sglang.plugins.module_utils import _preflight_report as report_of
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_checks import check_preflight

from tests.unit.preflight_nodes import HOSTS, gathered, plan

ROLES = Path(__file__).parents[2] / "roles"
SETTINGS = {
    "mtu": 9000,
    "floor_gib": "96",
    "image_gib": 40,
    "gpu_devices": ["nvidia.com/gpu=all"],
    "migrate_netplan": False,
    "guard": True,
    "firewall": True,
    "group_port": "50001",
    "hub": "https://huggingface.co",
}
ABOUT = {"made": "2026-11-27 10:00 UTC", "stage": "ready", "skip": {}, "strict": False, "hosts": list(HOSTS)}


def hostvars() -> dict[str, dict[str, Any]]:
    return {
        host: {"preflight_seen": {"gathered": gathered(number), "window": [1000.0, 1001.0]}}
        for number, host in enumerate(HOSTS)
    }


def test_questions_for_each_rank() -> None:
    first, second = (preflight_questions(plan(), rank, SETTINGS, "ready") for rank in plan()["ranks"][:2])
    # Only rank 0 listens where the ranks meet, and fetches anything.
    assert (first["tcp"], second["tcp"], first["udp"]) == ([30000, 50000], [30000], [50001])
    assert (first["names"], second["names"]) == (["registry-1.docker.io", "huggingface.co"], [])
    assert second["addresses"] == ["192.168.100.12", "192.168.101.12"]
    assert {(peer["host"], peer["interface"], peer["address"]) for peer in second["peers"]} == {
        ("spark-0", "enp1s0f1np1", "192.168.100.11"),
        ("spark-0", "enP2p1s0f1np1", "192.168.101.11"),
        ("spark-2", "enp1s0f1np1", "192.168.100.13"),
        ("spark-2", "enP2p1s0f1np1", "192.168.101.13"),
    }
    _preflight_facts.Questions(**first)


def test_nobody_is_pinged_where_nothing_is_set_up_and_a_node_alone_has_no_fabric() -> None:
    assert preflight_questions(plan(), plan()["ranks"][0], SETTINGS, "before")["peers"] == []
    alone = {**plan(), "ranks": plan()["ranks"][:1]}
    asked = preflight_questions(alone, alone["ranks"][0], SETTINGS, "ready")
    assert (asked["addresses"], asked["interfaces"], asked["peers"]) == ([], [], [])


def test_report_of_a_group_that_is_well() -> None:
    made = preflight_report(plan(), hostvars(), SETTINGS, ABOUT)
    assert (made["verdict"], made["nodes"], made["findings"]) == ("ok", list(HOSTS), [])
    assert report_of.summary(made).startswith("Preflight of 3 nodes: nothing to mend (")
    json.dumps(made)


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        (
            {"unreachable": True, "msg": "Failed to connect\nto the host via ssh"},
            "Failed to connect to the host via ssh",
        ),
        ({"failed": False, "msg": "", "module_stderr": "sudo: a password is required"}, "sudo: a password is required"),
        (None, "it was not asked"),
    ],
)
def test_a_node_that_does_not_answer_is_a_finding_and_the_others_are_judged(seen: Any, said: str) -> None:
    known = hostvars()
    known["spark-1"] = {"preflight_seen": seen} if seen else {}
    made = preflight_report(plan(), known, SETTINGS, ABOUT)
    assert [(one["id"], one["hosts"]) for one in made["findings"]] == [("HOST.REACHABLE", ["spark-1"])]
    assert said in made["findings"][0]["found"]
    assert made["failed"]
    states = {row["id"]: row["states"] for row in made["checks"]}
    assert states["HOST.ARCH"] == {"spark-0": "ok", "spark-1": "n/a", "spark-2": "ok"}


def test_limit_judges_the_hosts_of_the_play_alone() -> None:
    made = preflight_report(plan(), hostvars(), SETTINGS, {**ABOUT, "hosts": ["spark-1"]})
    assert made["nodes"] == ["spark-1"]
    assert made["findings"] == []
    assert "Preflight of 1 node:" in report_of.summary(made)


class Page(HTMLParser):
    """Counts tags, and collects what the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.cells = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href")]
        self.cells += tag == "td"
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_and_fetches_nothing() -> None:
    known = hostvars()
    known["spark-2"]["preflight_seen"]["gathered"]["system"]["value"]["kernel"] = "<script>alert(1)</script>"
    made = preflight_report(plan(), known, SETTINGS, {**ABOUT, "skip": {"GPU.MODEL": "a <b>lab</b>"}})
    text = _preflight_html.page(made)
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.fetched == []
    assert "<script>" not in text
    assert "a &lt;b&gt;lab&lt;/b&gt;" in text
    assert page.cells > len(made["checks"]) * len(HOSTS)
    assert all(f"<b>{row['id']}</b>" in text for row in made["checks"])
    assert not re.search(r"https?://", text)


@pytest.mark.parametrize(
    ("skip", "said"),
    [
        ({"FABRIC.MTU_EQUALS": "x"}, "Did you mean `FABRIC.MTU_EQUAL`?"),
        ({"gpu.clocks": "x"}, "Did you mean `GPU.CLOCKS`?"),
        ({"NONSENSE": "x"}, "Use an id of docs/checks.md."),
        ({"GPU.CLOCKS": ""}, "Say in a few words why"),
        ({"GPU.CLOCKS": "  "}, "Say in a few words why"),
        ({"GPU.CLOCKS": True}, "Say in a few words why"),
        ({"GPU.CLOCKS": None}, "Say in a few words why"),
    ],
)
def test_skipping_what_is_no_check_or_without_a_reason(skip: dict[str, Any], said: str) -> None:
    (finding,) = check_preflight({"preflight_skip": skip})
    assert finding.mend.startswith(said)
    assert finding.variable == f"preflight_skip.{next(iter(skip))}"


def test_skipping_with_a_reason_is_fine() -> None:
    assert check_preflight({"preflight_skip": {"GPU.CLOCKS": "its power supply is on order"}}) == []
    assert check_preflight({}) == []


def test_defaults_of_other_roles_are_theirs() -> None:
    """playbooks/preflight.yml does not bring them along."""
    settings = yaml.safe_load((ROLES / "preflight/vars/main.yml").read_text())["preflight_settings"]
    pairs = re.findall(r"\{\{ (\w+) \| default\((.+?)\)(?: \| bool)? \}\}", " ".join(map(str, settings.values())))
    assert len(pairs) == len(settings) - 1  # one is the role's own
    for variable, default in pairs:
        role = next(path for path in ROLES.iterdir() if variable.startswith(f"{path.name}_"))
        assert yaml.safe_load((role / "defaults/main.yml").read_text())[variable] == yaml.safe_load(default), variable
