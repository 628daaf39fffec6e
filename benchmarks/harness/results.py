"""What a benchmark leaves: a table on the terminal, and JSON, a table and a chart as files."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import psutil

from harness.chart import draw
from harness.rounds import Rounds
from harness.server import ROOT

RESULTS = ROOT / "benchmarks" / "results"
LIBRARIES = ("ray", "torch", "transformers", "llama-cpp-python", "onnxruntime", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Goal:
    """What the ratio of ours to the peer's should be."""

    ratio: float
    at_most: bool = False

    def met(self, ratio: float) -> bool:
        return ratio <= self.ratio if self.at_most else ratio >= self.ratio

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.ratio:g}"


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison: a metric of one case, ours beside one peer's, a value for each round."""

    case: str
    metric: str
    peer: str
    ours: tuple[float, ...]
    peers: tuple[float, ...]
    disturbed: int
    goal: Goal | None = None

    @property
    def ratio(self) -> float:
        return ratio(self.ours, self.peers)

    @property
    def verdict(self) -> str:
        if self.goal is None:
            return ""
        return f"{self.goal} {'met' if self.goal.met(self.ratio) else '**missed**'}"

    def cells(self) -> list[str]:
        return [
            self.case,
            self.metric,
            spread(self.ours),
            f"{self.peer}: {spread(self.peers)}",
            f"{self.ratio:.2f}",
            self.verdict,
            f"{self.disturbed} of {len(self.ours)}",
        ]


HEADER = ("case", "metric", "ours", "peer", "ratio", "goal", "disturbed rounds")


@dataclass(slots=True)
class Report:
    """Rows of one benchmark; `command` reproduces it, `title` heads the chart."""

    name: str
    title: str
    command: str
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    """Figures that have no peer: text -> value."""

    def compare(
        self, case: str, rounds: Rounds, ours: str, goals: dict[tuple[str, str], Goal] | None = None
    ) -> None:
        """A row for every peer and metric that it shares with ours; goals by (peer, metric)."""
        for peer, metrics in rounds.values.items():
            if peer == ours:
                continue
            for metric, values in metrics.items():
                mine = rounds.values[ours].get(metric)
                if mine is None:
                    continue
                goal = (goals or {}).get((peer, metric))
                row = Row(case, metric, peer, tuple(mine), tuple(values), rounds.disturbed, goal)
                self.rows.append(row)
                print(line(row.cells()), flush=True)

    def note(self, text: str, value: str) -> None:
        self.facts[text] = value
        print(f"{text}: {value}", flush=True)

    def write(self, folder: Path = RESULTS) -> None:
        """<name>.json with every value, <name>.md and <name>.png."""
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "name": self.name,
            "title": self.title,
            "command": self.command,
            "quick": quick(),
            "taken": time.strftime("%Y-%m-%d", time.gmtime()),
            "machine": machine(),
            "facts": self.facts,
            "rows": [asdict(row) | {"ratio": row.ratio} for row in self.rows],
        }
        (folder / f"{self.name}.json").write_text(json.dumps(content, indent=1) + "\n")
        (folder / f"{self.name}.md").write_text(self.table())
        if self.rows:
            draw(self.title, self.rows, folder / f"{self.name}.png")
        print(f"\nwritten to {folder.relative_to(ROOT)}/{self.name}.*")

    def table(self) -> str:
        lines = [line(HEADER), line(["---"] * len(HEADER))] if self.rows else []
        lines += [line(row.cells()) for row in self.rows]
        facts = [f"- {text}: {value}" for text, value in self.facts.items()]
        there = machine()
        about = f"{there['cores']} cores of {there['cpu']}, {there['memory']}"
        return "\n".join([f"`{self.command}` ({about})", "", *lines, "", *facts]).rstrip() + "\n"


def quick() -> bool:
    """QUICK=1: few cases and rounds."""
    return os.environ.get("QUICK", "") not in ("", "0")


def machine() -> dict[str, str]:
    """What the figures were taken on."""
    memory = psutil.virtual_memory().total / 2**30
    return {
        "cpu": _cpu_name(),
        "cores": str(psutil.cpu_count()),
        "memory": f"{memory:.0f} GiB",
        "python": platform.python_version(),
        **{name: version(name) for name in LIBRARIES},
    }


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for text in cpuinfo.read_text().splitlines():
            if text.startswith("model name"):
                return text.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def counted(number: int, noun: str) -> str:
    """`1 client`, `8 clients`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def spread(values: Sequence[float]) -> str:
    """Median with the range, three significant digits."""
    median, low, high = map(_digits, (statistics.median(values), min(values), max(values)))
    return f"{median} ({low}-{high})"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def ratio(ours: Sequence[float], peers: Sequence[float]) -> float:
    return statistics.median(ours) / statistics.median(peers)
