"""Where results stand: tables between markers in docs/benchmarks.md."""

from __future__ import annotations

from benchmarks.runner import ROOT

PAGE = ROOT / "docs/benchmarks.md"


def put(name: str, text: str) -> None:
    """Replace what stands between the markers of a benchmark."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, _, rest = PAGE.read_text().partition(begin)
    _, _, after = rest.partition(end)
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}")
