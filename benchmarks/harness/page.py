"""docs/performance.md from what the benchmarks left: `python -m harness.page` in benchmarks/.

The prose is the page's own; between the markers stand the tables and charts of all results, so that
no figure is ever copied by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.results import RESULTS
from harness.server import ROOT

PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def page(text: str, results: Path = RESULTS) -> str:
    """The page with its results as they are now."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    sections = [section(path) for path in sorted(results.glob("*.json"))]
    return "\n".join([head + BEGIN, "", *sections, END + tail])


def section(path: Path) -> str:
    """One benchmark: its title, what took the figures, the table, the chart."""
    found = json.loads(path.read_text())
    table = path.with_suffix(".md").read_text()
    chart = f"![{found['title']}](../benchmarks/results/{path.stem}.png)\n" if found["rows"] else ""
    return f"### {found['title']}\n\n{chart}\n{table}"


def missed(results: Path = RESULTS) -> list[str]:
    """A line for every goal that was not met."""
    lines = []
    for path in sorted(results.glob("*.json")):
        found: dict[str, Any] = json.loads(path.read_text())
        for row in found["rows"]:
            goal = row["goal"]
            if goal is None:
                continue
            ratio = row["ratio"]
            met = ratio <= goal["ratio"] if goal["at_most"] else ratio >= goal["ratio"]
            if not met:
                sign = "<=" if goal["at_most"] else ">="
                what = f"{row['case']}, {row['metric']} to {row['peer']}"
                lines.append(f"{found['name']}: {what}: {ratio:.2f}, goal {sign} {goal['ratio']:g}")
    return lines


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
    print(f"{PAGE.relative_to(ROOT)} is up to date; goals missed:")
    print("\n".join(missed()) or "none")
