"""Writes docs/checks.md from the list of checks of preflight.

Usage: python docs/make_checks.py (tests/unit/test_docs.py holds the page against the list).
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / ".collections"))

from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_check import (  # noqa: E402
    SCOPES,
    SEVERITIES,
    STAGES,
    Check,
)
from ansible_collections.dgx_spark.sglang.plugins.module_utils._preflight_checks import (  # noqa: E402
    AREAS,
    CHECKS,
    area_of,
)

PAGE = ROOT / "docs/checks.md"
HEAD = """# Checks

Made from `plugins/module_utils/_preflight_*.py` by `python docs/make_checks.py`; do not edit. How to run them, and how
to skip one: [preflight.md](preflight.md).

{count} checks: {severities}.

*Before* is what has to hold on a bare node, and what `site.yml` looks at on its way; *ready* holds after `site.yml`.
A check *across* compares the nodes with each other.
"""


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return text.replace("|", "\\|")


def row(check: Check) -> str:
    """One check as a row."""
    kind = check.stage + (", across" if check.compare else "")
    about = f"**{cell(check.title)}.** {cell(check.why)}"
    return f"| `{check.id}` | {check.severity} | {kind} | {SCOPES[check.scope]} | {about} | {cell(check.mend)} |"


def page() -> str:
    """The whole page."""
    numbers = {severity: sum(1 for check in CHECKS if check.severity == severity) for severity in SEVERITIES}
    words = {"error": "fail the run", "warning": "do not, unless `preflight_strict`", "info": "never do"}
    severities = "; ".join(f"{number} of severity {name} {words[name]}" for name, number in numbers.items())
    parts = [HEAD.format(count=len(CHECKS), severities=severities)]
    for area, title in AREAS.items():
        of_area = [check for check in CHECKS if area_of(check) == area]
        of_area.sort(key=lambda check: STAGES.index(check.stage))
        head = "| id | severity | stage | on | what, and why | mend |\n| --- | --- | --- | --- | --- | --- |"
        parts.append("\n".join([f"## {title}\n", head, *(row(check) for check in of_area)]) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
