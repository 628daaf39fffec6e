"""Which columns made a row look anomalous, and by how much.

A column's contribution has the unit of the raw score (for an isolation forest, of its log2). It is
above 0 where the column makes the row more anomalous than a typical row is, and the sum over the
column's features. Where parts are exact, a row's contributions add up to its score less the typical
row's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from models.anomaly.calibration import Scores
from models.anomaly.columns import Matrix
from models.anomaly.model import Model
from models.errors import InvalidInputError
from models.types.anomaly import Contribution

MAX_CELLS = 200_000
"""Rows times columns that one request may have explained: each may cost two scores."""


def most_rows(n_columns: int) -> int:
    return max(1, MAX_CELLS // n_columns)


def contributions(model: Model, rows: Matrix, typical: Matrix, blocks: Sequence[slice]) -> Matrix:
    """[rows, columns]. `typical` is one row of features, `blocks` are the features by columns.

    Raises InvalidInputError for more cells than one request may ask for.
    """
    most = most_rows(len(blocks))
    if len(rows) > most:
        message = f"'explain' takes at most {most} anomalous rows of this detector."
        raise InvalidInputError(message, "explain")
    parts, usual = model.parts(rows), model.parts(typical[np.newaxis])
    if parts is None or usual is None:
        return by_replacement(model.raw, rows, typical, blocks)
    parts -= usual
    return np.stack([sum(parts.T[block]) for block in blocks], axis=1)


def by_replacement(
    score: Callable[[Matrix], Scores], rows: Matrix, typical: Matrix, blocks: Sequence[slice]
) -> Matrix:
    """What a column changes, [rows, columns]: the mean of two experiments.

    The row loses its value for the typical one, and the typical row gets the row's value. (These
    are the first and the last term of a Shapley value: one alone says nothing where a second
    column is as anomalous, or where only the combination is.)
    """
    scores, lowest = score(rows), score(typical[np.newaxis])[0]
    found = np.empty((len(rows), len(blocks)))
    for place, block in enumerate(blocks):
        without, alone = rows.copy(), np.tile(typical, (len(rows), 1))
        without[:, block] = typical[block]
        alone[:, block] = rows[:, block]
        lost, gained = np.split(score(np.concatenate([without, alone])), 2)
        found[:, place] = ((scores - lost) + (gained - lowest)) / 2
    return found


def largest(names: Sequence[str], values: Sequence[float], count: int) -> tuple[Contribution, ...]:
    """The `count` contributions of one row that are farthest from 0, the farthest first."""
    order = sorted(range(len(names)), key=lambda place: -abs(values[place]))
    return tuple(Contribution(names[place], values[place]) for place in order[:count])
