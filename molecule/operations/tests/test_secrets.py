"""Secrets of a bring-up from bare nodes, looked for wherever somebody who is not root could find them.

They come from the environment of the playbook. On the nodes nobody has a command line with one: patterns match the
canaries, and not themselves.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.tools.operating import API, NODES, on, on_all, play, serves

KEY, TOKEN = "canary-of-the-api-0123456789", "canary-of-the-hub-0123456789"
PATTERN = "'[c]anary-of-the'"
# Reads to the end; prints the number of lines with a canary, and that of all bytes.
LOOK = (
    "python3 -c 'import functools, re, sys; "
    'has = re.compile(b"[c]anary-of-the").search; '
    "print(*functools.reduce(lambda sums, line: (sums[0] + bool(has(line)), sums[1] + len(line)), "
    "sys.stdin.buffer, (0, 0)))'"
)
KEYS_FILE = "/etc/dgx-spark/server-keys.yaml"
# The folders of Docker's layers are closed to others than root (0710).
FILES = "find /etc /home /opt /root /run /srv /tmp /var -xdev -path /var/lib/docker -prune -o -type f"


def status_of(key: str | None) -> int:
    """What the API answers to a chat."""
    question = {"model": "glm-tiny", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 4}
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    request = urllib.request.Request(f"{API}/v1/chat/completions", json.dumps(question).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code


@pytest.fixture(scope="module")
def shown() -> Iterator[str]:
    """What Ansible tells of a whole bring-up that gets both canaries, with all that it can tell."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SGLANG_API_KEY", KEY)
        environment.setenv("LAB_HUB_TOKEN", TOKEN)
        # Else there would be nothing to download, and no use for the token.
        play("playbooks/teardown.yml", "-e", "rank_remove_data=true")
        yield play("site.yml", "-vvv", "--diff", seconds=1200)


def test_ansible_tells_none(shown: str) -> None:
    assert "canary" not in shown
    assert "fingerprint:" in shown  # it did tell the plan


def test_the_api_wants_its_key(shown: str) -> None:
    assert serves()
    assert status_of(None) == 401
    assert status_of(f"{KEY}0") == 401
    assert status_of(KEY) == 200


@pytest.mark.parametrize(
    "script",
    [
        "ps auxww",
        "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null",
        "docker inspect $(docker ps --all --quiet)",
        "journalctl --no-pager --all",
        "systemctl cat sglang-rank; systemctl show sglang-rank",
        f"{FILES} -perm -o=r -exec cat {{}} + 2>/dev/null",
        f"{FILES} -perm -g=r -exec cat {{}} + 2>/dev/null",
    ],
)
def test_nothing_on_the_nodes_holds_one(shown: str, script: str) -> None:
    for found in on_all(f"{{ {script}; }} | {LOOK}"):
        lines, size = map(int, found.split())
        assert lines == 0
        # There was something to look at.
        assert size > 200


def test_the_key_is_on_rank_0_for_root_and_the_token_is_gone(shown: str) -> None:
    for node in NODES:
        holders = on(node, f"{FILES} -exec grep --text --files-with-matches {PATTERN} {{}} + 2>/dev/null")
        assert holders == (KEYS_FILE if node == NODES[0] else "")
    assert on(NODES[0], f"stat --format '%U %G %a' {KEYS_FILE}") == "root root 600"


def test_the_server_was_told_its_key_and_the_journal_was_not(shown: str) -> None:
    """SGLang logs all of its arguments when it starts."""
    said = on(NODES[0], "journalctl --unit sglang-rank --output cat | grep 'server_args='")
    assert "api_key='***'" in said


def test_without_the_key_the_api_is_open_again(shown: str) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv("SGLANG_API_KEY")
        # Its stage alone: a whole run has been.
        play("site.yml", "--tags", "rank")
    assert status_of(None) == 200
    assert on(NODES[0], f"ls {KEYS_FILE} 2>/dev/null") == ""
