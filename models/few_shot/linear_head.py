"""Few examples on frozen embeddings: a linear head, fitted quickly and stored as two tensors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from models.encoders.label_set import Logits, softmax
from models.errors import InvalidInputError, StorageError
from models.few_shot.label_similarity import SIMILARITY_SCALE, unit_rows
from models.types.classification import LabelledVectors
from models.types.common import FloatArray

HeadKind = Literal["logistic", "similarity"]

WEAKNESS = 10.0
"""C of scikit-learn. Unit vectors are close to each other: its default of 1 leaves the scores of
eight examples per label near to equal, without another order."""
MAX_ITERATIONS = 500
SEED = 0
MAX_LABELS = 256


@dataclass(frozen=True, slots=True)
class LinearHead:
    """`weights` [labels, dimensions] and `bias` [labels], for vectors of unit length."""

    kind: HeadKind
    labels: tuple[str, ...]
    weights: FloatArray
    bias: FloatArray

    def scores(self, vectors: FloatArray) -> FloatArray:
        """Probabilities [texts, labels]."""
        logits: Logits = unit_rows(vectors) @ self.weights.T + self.bias
        return softmax(logits).astype(np.float32)

    def data(self) -> bytes:
        """The tensors as a safetensors file, which takes memory as it lies."""
        weights = np.ascontiguousarray(self.weights)
        return bytes(save({"weights": weights, "bias": self.bias}))


def fit_head(examples: LabelledVectors, descriptions: LabelledVectors) -> LinearHead:
    """Where every label has an example, logistic regression with descriptions as more examples.

    Else the similarity to the mean of what each label has. Raises InvalidInputError.
    """
    labels = tuple(sorted({*examples.labels, *descriptions.labels}))
    if not 2 <= len(labels) <= MAX_LABELS:
        message = f"A classifier has 2 to {MAX_LABELS} labels; these are {len(labels)}."
        raise InvalidInputError(message, "training_data")
    given = [part for part in (examples, descriptions) if part.labels]
    vectors = unit_rows(np.concatenate([part.vectors for part in given]))
    places = np.array([labels.index(label) for part in given for label in part.labels])
    if set(examples.labels) == set(labels):
        weights, bias = _logistic(vectors, places)
        return LinearHead("logistic", labels, weights, bias)
    means = np.stack([vectors[places == place].mean(axis=0) for place in range(len(labels))])
    weights = (SIMILARITY_SCALE * unit_rows(means)).astype(np.float32)
    return LinearHead("similarity", labels, weights, np.zeros(len(labels), np.float32))


def read_head(kind: HeadKind, labels: tuple[str, ...], data: bytes, dimensions: int) -> LinearHead:
    """What `data` of a head gave. Raises StorageError for whatever else."""
    try:
        tensors: Mapping[str, FloatArray] = load(data)
        head = LinearHead(kind, labels, tensors["weights"], tensors["bias"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise StorageError("The stored classifier cannot be read.") from error
    shapes = head.weights.shape, head.bias.shape
    sound = shapes == ((len(labels), dimensions), (len(labels),))
    if not sound or not np.isfinite(head.weights).all() or not np.isfinite(head.bias).all():
        raise StorageError("The stored classifier cannot be read.")
    return head


def _logistic(vectors: FloatArray, places: FloatArray) -> tuple[FloatArray, FloatArray]:
    model = LogisticRegression(
        C=WEAKNESS, class_weight="balanced", max_iter=MAX_ITERATIONS, random_state=SEED
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # bounded on purpose
        model.fit(vectors.astype(np.float64), places)
    weights, bias = model.coef_, model.intercept_
    if len(weights) == 1:  # two labels: half of the difference for, half against
        weights, bias = np.concatenate([-weights, weights]) / 2, np.concatenate([-bias, bias]) / 2
    return weights.astype(np.float32), bias.astype(np.float32)
