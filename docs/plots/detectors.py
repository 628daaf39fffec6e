"""Draw docs/plots/detectors.png: what six detectors call anomalous on the same rows.

Run from the repository root: `python docs/plots/detectors.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

from models.anomaly.fitted import FittedDetector
from models.types.anomaly import FitRequest, Table

BACKENDS = ("isolation_forest", "ecod", "mcd", "local_outlier_factor", "cblof", "autoencoder")
CONTAMINATION = 0.04
TARGET = Path(__file__).with_suffix(".png")


def pump() -> tuple[Any, Any]:
    """Temperature and pressure of a pump that runs slow or fast; 1 for each odd reading."""
    source = np.random.default_rng(4)
    slow = source.multivariate_normal([20, 2.0], [[0.6, 0.12], [0.12, 0.03]], 260)
    fast = source.multivariate_normal([26, 4.5], [[1.5, 0.55], [0.55, 0.25]], 120)
    temperature = [20.0, 21.9, 23.2, 30.0, 26.0, 17.0, 16.2, 29.5, 23.4, 18.3]
    pressure = [3.3, 1.6, 3.1, 3.4, 7.0, 4.5, 0.9, 7.5, 5.6, 2.5]
    odd = np.stack([temperature, pressure], axis=1)
    rows = np.concatenate([slow, fast, odd])
    return rows, np.repeat([0, 1], [len(rows) - len(odd), len(odd)])


def draw(axes: Any, backend: str, rows: Any, odd: Any) -> None:
    table = Table(tuple(map(tuple, rows.tolist())))
    detector = FittedDetector.fit(FitRequest("pump", backend, table, contamination=CONTAMINATION))
    temperature, pressure = np.meshgrid(np.linspace(14, 32, 160), np.linspace(0, 8.5, 160))
    grid = np.stack([temperature.ravel(), pressure.ravel()], axis=1)
    calibration = detector.calibration
    scores = calibration.normalized(detector.model.raw(grid), "standardization")
    found = detector.model.raw(rows) > calibration.threshold
    shape = temperature.shape
    axes.contourf(temperature, pressure, scores.reshape(shape), levels=12, cmap="Blues")
    limit = calibration.threshold_in("standardization")
    axes.contour(
        temperature, pressure, scores.reshape(shape), levels=[limit], colors="black", linewidths=1
    )
    axes.scatter(*rows[~found].T, s=7, color="white", edgecolor="0.3", linewidth=0.4)
    axes.scatter(*rows[found].T, s=16, color="tab:red", edgecolor="white", linewidth=0.4)
    axes.set_title(f"{backend}: {int((found & (odd == 1)).sum())} of {odd.sum()} found", size=9)
    axes.set_xlim(14, 32)
    axes.set_ylim(0, 8.5)
    axes.tick_params(labelsize=7)


def main() -> None:
    rows, odd = pump()
    figure, panels = plt.subplots(2, 3, figsize=(9, 5.4), sharex=True, sharey=True)
    for axes, backend in zip(panels.flat, BACKENDS, strict=True):
        draw(axes, backend, rows, odd)
    figure.supxlabel("temperature, °C", size=9)
    figure.supylabel("pressure, bar", size=9)
    figure.tight_layout()
    figure.savefig(TARGET, dpi=110)


if __name__ == "__main__":
    main()
