"""Detectors against the bare library: ROC-AUC on bundled data sets, and the speed of bulk scoring.

Both sides are fitted to the same rows with the same seed. Scoring runs in one process and one
thread, in turn: ours includes turning the rows' cells into features.
Run from the repository root: `python -m benchmarks.anomaly_quality`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from benchmarks.peers.bare_detectors import BARE, LOOSE
from benchmarks.peers.outlier_sets import SETS
from models.anomaly.columns import Matrix
from models.anomaly.fitted import FittedDetector
from models.types import FitRequest, Table

SEED, CONTAMINATION = 42, 0.1


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


def seconds(run: Callable[[], Any]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def speed(backend: str, train: Matrix, rows: Matrix, rounds: int) -> tuple[float, float, float]:
    """Seconds of the bare call, of our call on a matrix, and of ours on cells."""
    bare = replace(BARE[backend], own_scores=False).fit(train, SEED, CONTAMINATION)
    detector = ours(backend, train)
    table = table_of(rows)
    with ThreadPoolExecutor(1) as threads:
        runs: tuple[Callable[[], Any], ...] = (
            lambda: bare(rows),
            lambda: detector.raw_scores(rows, threads, 1),
            lambda: detector.raw_scores(detector.encoder.encode(table), threads, 1),
        )
        times = [[seconds(run) for run in runs] for _ in range(rounds)]
    bare_s, matrix_s, cells_s = map(statistics.median, zip(*times, strict=True))
    return bare_s, matrix_s, cells_s


def print_areas(backends: Sequence[str]) -> None:
    print("| backend | " + " | ".join(SETS) + " |")
    print("|---|" + "---|" * len(SETS))
    data = {name: load() for name, load in SETS.items()}
    for backend in backends:
        cells = []
        for rows, truth in data.values():
            mine, theirs = areas(backend, rows, truth)
            cells.append(f"{mine:.4f}" if mine == theirs else f"{mine:.4f} (bare {theirs:.4f})")
        print(f"| {backend}{' *' if backend in LOOSE else ''} | " + " | ".join(cells) + " |")
    for backend, why in LOOSE.items():
        print(f"* {backend}: {why}")


def print_speed(backends: Sequence[str], train: int, count: int, rounds: int) -> None:
    source = np.random.default_rng(0)
    known, rows = groups(source, train), groups(source, count)
    print(f"\nScoring {count} x 20 rows, fitted to {train} rows, one thread:")
    print("| backend | bare, s | ours / bare, a matrix | ours / bare, cells |")
    print("|---|---|---|---|")
    for backend in backends:
        bare, matrix, cells = speed(backend, known, rows, rounds)
        print(f"| {backend} | {bare:.3f} | {matrix / bare:.2f} | {cells / bare:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", nargs="*", default=list(BARE))
    parser.add_argument("--train", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-speed", action="store_true")
    args = parser.parse_args()
    with threadpool_limits(limits=1):
        print_areas(args.backends)
        if not args.no_speed:
            print_speed(args.backends, args.train, args.rows, args.rounds)


if __name__ == "__main__":
    main()
