"""What the points before a point say: rolling statistics and lags of numeric columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from models.anomaly.columns import Matrix
from models.types.anomaly import Cell, Row, StreamSettings, Table

STATISTICS = ("mean", "std", "min", "max")


def history_of(settings: StreamSettings) -> int:
    """How many points before a point its features need."""
    return max((0, *(n - 1 for n in settings.rolling_windows), *settings.lag_periods))


def with_features(
    rows: Sequence[Row], columns: Sequence[str], settings: StreamSettings, skip: int = 0
) -> Table:
    """The rows from `skip` on, with the features that all of them give.

    At the beginning a window is as long as there are points, and a lag is the first value.
    """
    kept = tuple(rows[skip:])
    numeric = [index for index in range(len(columns)) if _is_numeric(rows, index)]
    if not numeric or not (settings.rolling_windows or settings.lag_periods):
        return Table(kept, tuple(columns))
    values = np.array([[row[index] for index in numeric] for row in rows], dtype=np.float64)
    names, blocks = [], []
    for kind, block in _blocks(values, settings):
        names += [f"{columns[index]}_{kind}" for index in numeric]
        blocks.append(block[skip:])
    features = np.concatenate(blocks, axis=1).tolist()
    extended = (row + tuple(more) for row, more in zip(kept, features, strict=True))
    return Table(tuple(extended), (*columns, *names))


def _blocks(values: Matrix, settings: StreamSettings) -> Iterator[tuple[str, Matrix]]:
    for width in settings.rolling_windows:
        for statistic in STATISTICS:
            yield f"rolling_{statistic}_{width}", _rolling(values, width, statistic)
    for lag in settings.lag_periods:
        yield f"lag_{lag}", values[np.maximum(np.arange(len(values)) - lag, 0)]


def _rolling(values: Matrix, width: int, statistic: str) -> Matrix:
    """Of the last `width` rows up to each row, float64 [rows, columns]."""
    reduce = getattr(np, statistic)
    start = min(width - 1, len(values))
    first = [reduce(values[: index + 1], axis=0) for index in range(start)]
    if len(values) < width:
        return np.array(first)
    full = reduce(np.lib.stride_tricks.sliding_window_view(values, width, axis=0), axis=-1)
    return np.concatenate([np.array(first).reshape(start, values.shape[1]), full])


def _is_numeric(rows: Sequence[Row], index: int) -> bool:
    return all(_is_number(row[index]) for row in rows)


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, float | int) and not isinstance(cell, bool)
