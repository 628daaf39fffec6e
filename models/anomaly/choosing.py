"""The backend "auto": the one whose ranking of unseen rows is most stable and most agreed on.

Without labels no criterion is the truth. This one takes up to 4500 training rows in three parts,
fits every candidate to the first and to the second, and lets both rank the third. `stability` is
Spearman's correlation of the two rankings, `agreement` that of their mean with the mean ranking of
the other candidates; the largest sum wins, the earlier candidate among equals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import rankdata

from models.anomaly.backends_table import DESCRIPTIONS
from models.anomaly.calibration import Scores
from models.anomaly.columns import Matrix
from models.anomaly.model import Model
from models.errors import ModelError
from models.types.anomaly import Candidate, Selection

CANDIDATES = ("isolation_forest", "ecod", "hbos", "knn", "pca")
"""Cheap ones that differ in kind; the first is taken where there is too little to compare."""
MAX_ROWS = 4500
MIN_ROWS = 30


def choose(rows: Matrix, common: Mapping[str, Any]) -> tuple[str, Selection]:
    """The chosen backend, and why. `common` are the request's `contamination` and `seed`."""
    if len(rows) < MIN_ROWS:
        return CANDIDATES[0], Selection(len(rows), ())
    order = np.random.default_rng(common["seed"]).permutation(len(rows))[:MAX_ROWS]
    first, second, unseen = (rows[part] for part in np.array_split(order, 3))
    pairs = {}
    for backend in CANDIDATES:
        ranks = _ranks(backend, (first, second), unseen, common)
        if ranks is not None:
            pairs[backend] = ranks
    if not pairs:
        return CANDIDATES[0], Selection(len(order), ())
    means = {backend: (one + two) / 2 for backend, (one, two) in pairs.items()}
    candidates = [
        Candidate(backend, _agreement(backend, means), _spearman(*pair))
        for backend, pair in pairs.items()
    ]
    candidates.sort(key=lambda candidate: -(candidate.agreement + candidate.stability))
    return candidates[0].backend, Selection(len(order), tuple(candidates))


def _ranks(
    backend: str, halves: tuple[Matrix, Matrix], unseen: Matrix, common: Mapping[str, Any]
) -> tuple[Scores, Scores] | None:
    """The ranks of the unseen rows by two fits; None when the backend cannot be fitted."""
    values = DESCRIPTIONS[backend].values({}) | dict(common)
    try:
        one, two = (Model.fit(backend, half, values)[0].raw(unseen) for half in halves)
    except ModelError:
        return None
    return rankdata(one), rankdata(two)


def _agreement(backend: str, means: Mapping[str, Scores]) -> float:
    others = [ranks for name, ranks in means.items() if name != backend]
    return _spearman(means[backend], np.mean(others, axis=0)) if others else 0.0


def _spearman(one: Scores, two: Scores) -> float:
    """0 where all are equal."""
    one, two = rankdata(one), rankdata(two)
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return 0.0
    return float(np.corrcoef(one, two)[0, 1])
