"""Detectors against the bare library: ROC-AUC on bundled data sets, and the speed of bulk scoring.

    python benchmarks/anomaly_quality.py [--rounds 3] [--rows 100000] [--backends NAME ...]

Both sides are fitted to the same rows with the same seed. Scoring runs in one process and one
thread, in turn: of a matrix, and of cells that have to become features first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from harness import Measure, Report, in_turns, parser, quick, report
from peers.bare_detectors import BARE, LOOSE
from peers.outlier_sets import SETS
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from models.anomaly.columns import Matrix
from models.anomaly.fitted import FittedDetector
from models.types.anomaly import FitRequest, Table

SEED, CONTAMINATION = 42, 0.1
SECONDS = "seconds"


def table_of(rows: Any) -> Table:
    return Table(tuple(map(tuple, np.asarray(rows).tolist())))


def ours(backend: str, rows: Matrix) -> FittedDetector:
    return FittedDetector.fit(
        FitRequest("x", backend, table_of(rows), contamination=CONTAMINATION, seed=SEED)
    )


def areas(backend: str, rows: Matrix, truth: Any) -> tuple[float, float]:
    """Ours and the bare library's."""
    bare = BARE[backend].fit(rows, SEED, CONTAMINATION)
    scores = ours(backend, rows).model.raw(rows)
    return float(roc_auc_score(truth, scores)), float(roc_auc_score(truth, bare(rows)))


def groups(source: np.random.Generator, count: int) -> Matrix:
    """Rows of 20 features in three groups, of which one is small (CBLOF refuses a single one)."""
    return source.normal(size=(count, 20)) + 3 * source.choice(3, (count, 1), p=(0.6, 0.35, 0.05))


def timed(run: Callable[[], Any]) -> Measure:
    def measure() -> dict[str, float]:
        started = time.perf_counter()
        run()
        return {SECONDS: time.perf_counter() - started}

    return measure


def compare_speed(found: Report, backend: str, train: Matrix, rows: Matrix, rounds: int) -> None:
    """The bare call beside ours on a matrix, and ours on cells."""
    bare = replace(BARE[backend], own_scores=False).fit(train, SEED, CONTAMINATION)
    detector = ours(backend, train)
    table = table_of(rows)
    with ThreadPoolExecutor(1) as threads:
        theirs = timed(lambda: bare(rows))
        forms = {
            "matrix": lambda: detector.raw_scores(rows, threads, 1),
            "cells": lambda: detector.raw_scores(detector.encoder.encode(table), threads, 1),
        }
        for form, run in forms.items():
            measured = in_turns({"ours": timed(run), "the library": theirs}, rounds)
            found.compare(f"{backend}, {form}", measured, "ours")


def note_areas(found: Report, backends: Sequence[str]) -> None:
    """Both sides' areas, once where they are equal."""
    data = {name: load() for name, load in SETS.items()}
    for backend in backends:
        cells = []
        for name, (rows, truth) in data.items():
            mine, theirs = areas(backend, rows, truth)
            cells.append(f"{name} {mine:.4f}" + ("" if mine == theirs else f" (bare {theirs:.4f})"))
        why = f"; {LOOSE[backend]}" if backend in LOOSE else ""
        found.note(f"ROC-AUC, {backend}", ", ".join(cells) + why)


def main() -> None:
    arguments = parser(__doc__ or "", rounds=3)
    arguments.add_argument("--backends", nargs="*", default=list(BARE))
    arguments.add_argument("--train", type=int, default=2000)
    arguments.add_argument("--rows", type=int, default=10_000 if quick() else 100_000)
    options = arguments.parse_args()
    found = report("Detectors to the bare library, seconds for a bulk of rows, one thread")
    source = np.random.default_rng(0)
    known, rows = groups(source, options.train), groups(source, options.rows)
    with threadpool_limits(limits=1):
        note_areas(found, options.backends)
        for backend in options.backends:
            compare_speed(found, backend, known, rows, options.rounds)
    found.write()


if __name__ == "__main__":
    main()
