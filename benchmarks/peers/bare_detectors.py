"""Every backend as the bare library has it, with our defaults: PyOD's, or scikit-learn's.

PyOD's ECOD and COPOD count the scored rows among the training rows, so only their training scores
can be compared. Its PCA is another formula (weighted distances to the ends of the eigenvectors);
the bare detector here is the reconstruction error of scikit-learn's. Its SUOD needs a package of
its own; without approximations it is the mean of its members' z-scores, which is taken here.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pyod.models.auto_encoder import AutoEncoder
    from pyod.models.cblof import CBLOF
    from pyod.models.copod import COPOD
    from pyod.models.ecod import ECOD
    from pyod.models.hbos import HBOS
    from pyod.models.iforest import IForest
    from pyod.models.knn import KNN
    from pyod.models.loda import LODA
    from pyod.models.lof import LOF
    from pyod.models.mcd import MCD
    from pyod.models.ocsvm import OCSVM
    from pyod.models.vae import VAE


class Reconstruction:
    """scikit-learn's PCA by the interface of PyOD."""

    def __init__(self, explained_variance: float) -> None:
        self._pca = PCA(explained_variance, svd_solver="full")

    def fit(self, rows: Any) -> Reconstruction:
        self._pca.fit(rows)
        return self

    def decision_function(self, rows: Any) -> Any:
        rebuilt = self._pca.inverse_transform(self._pca.transform(rows))
        return ((rows - rebuilt) ** 2).sum(axis=1)


class Ensemble:
    """PyOD's own detectors as its SUOD combines them."""

    def __init__(self, seed: int) -> None:
        self._members = [
            LOF(n_neighbors=20),
            HBOS(n_bins=10),
            COPOD(),
            IForest(n_estimators=100, random_state=seed),
        ]

    def fit(self, rows: Any) -> Ensemble:
        for member in self._members:
            member.fit(rows)
        return self

    def decision_function(self, rows: Any) -> Any:
        """Of the training rows, the scores of the two that depend on the batch are the fit's."""
        return np.mean([self._scaled(member, rows) for member in self._members], axis=0)

    def _scaled(self, member: Any, rows: Any) -> Any:
        known = member.decision_scores_
        alone = isinstance(member, COPOD) and len(rows) == len(known)
        return ((known if alone else member.decision_function(rows)) - known.mean()) / known.std()


@dataclass(frozen=True)
class Bare:
    """`scaled` rows as ours are by default; `own_scores` where only training scores compare."""

    make: Callable[[int, float], Any]
    scaled: bool = True
    own_scores: bool = False

    def fit(self, rows: Any, seed: int, contamination: float) -> Callable[[Any], Any]:
        """Scores of rows, high for outliers."""
        scaler = StandardScaler().fit(rows) if self.scaled else None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ready = scaler.transform(rows) if scaler else rows
            detector = self.make(seed, contamination)
            detector.fit(ready)

        def score(rows: Any) -> Any:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return detector.decision_function(scaler.transform(rows) if scaler else rows)

        return (lambda _: detector.decision_scores_) if self.own_scores else score


BARE: dict[str, Bare] = {
    "isolation_forest": Bare(lambda seed, _: IForest(random_state=seed), scaled=False),
    "one_class_svm": Bare(lambda _, share: OCSVM(nu=share, gamma="scale")),
    "local_outlier_factor": Bare(lambda *_: LOF()),
    "knn": Bare(lambda *_: KNN()),
    "ecod": Bare(lambda *_: ECOD(), scaled=False, own_scores=True),
    "copod": Bare(lambda *_: COPOD(), scaled=False, own_scores=True),
    "hbos": Bare(lambda *_: HBOS()),
    "loda": Bare(lambda seed, _: LODA(random_state=seed)),
    "mcd": Bare(lambda seed, _: MCD(random_state=seed), scaled=False),
    "pca": Bare(lambda *_: Reconstruction(0.9)),
    "cblof": Bare(lambda seed, _: CBLOF(random_state=seed)),
    "suod": Bare(lambda seed, _: Ensemble(seed)),
    "autoencoder": Bare(lambda seed, _: AutoEncoder(random_state=seed, verbose=0)),
    "vae": Bare(lambda seed, _: VAE(random_state=seed, verbose=0)),
}

LOOSE = {
    "loda": "PyOD reads each bar one place off and gives values outside of all bars a full bar",
    "autoencoder": "another network: PyOD's has batch normalisation, dropout and no early stop",
    "vae": "another network: as for autoencoder",
}
"""Backends whose scores are not the bare library's, and why."""
