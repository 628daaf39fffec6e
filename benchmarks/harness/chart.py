"""Ratios as bars on a logarithmic axis, goals as marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.results import Row

MET, MISSED, PLAIN = "#2a7f62", "#b5483a", "#4a6fa5"
BAR_INCHES = 0.34


def draw(title: str, rows: Sequence[Row], path: Path) -> None:
    """A PNG file with one bar per row: our median over the peer's."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    places = range(len(rows))
    figure, axes = plt.subplots(figsize=(9, 1.4 + BAR_INCHES * len(rows)), layout="constrained")
    values = [row.ratio for row in rows]
    axes.barh(places, [v - 1 for v in values], left=1, color=[_colour(row) for row in rows])
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(0.5, *values) / 1.3, max(2.0, *values) * 1.5)
    for place, row in zip(places, rows, strict=True):
        side = "left" if row.ratio >= 1 else "right"
        axes.annotate(
            f"{row.ratio:.2f}", (row.ratio, place), xytext=(4 if side == "left" else -4, 0),
            textcoords="offset points", va="center", ha=side, fontsize=8,
        )  # fmt: skip
        if row.goal is not None:
            axes.plot([row.goal.ratio] * 2, [place - 0.4, place + 0.4], color="black", lw=2)
    axes.axvline(1, color="black", lw=0.8)
    axes.set_yticks(
        places, [f"{row.case}: {row.metric}, to {row.peer}" for row in rows], fontsize=8
    )
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(LogLocator(base=2))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="x", alpha=0.3)
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("ratio of ours to the peer\u2019s (medians); black marks are goals", fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _colour(row: Row) -> str:
    if row.goal is None:
        return PLAIN
    return MET if row.goal.met(row.ratio) else MISSED
