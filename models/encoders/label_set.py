"""A classifier's labels, and how its logits become scores, from its own configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.errors import ModelLoadError

Activation = Literal["softmax", "sigmoid", "none"]
Logits = npt.NDArray[np.floating[Any]]

ACTIVATIONS: dict[str, Activation] = {
    "single_label_classification": "softmax",
    "multi_label_classification": "sigmoid",
    "regression": "none",
}
"""By `problem_type`."""
DEFAULT_LABELS = 2
"""Of transformers' configurations that say nothing."""


def softmax(logits: Logits) -> Logits:
    """Along the last axis, without overflow."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    scores: Logits = exponents / exponents.sum(axis=-1, keepdims=True)
    return scores


def sigmoid(logits: Logits) -> Logits:
    """Element by element, without overflow."""
    scores: Logits = np.exp(-np.logaddexp(0, -logits))
    return scores


@dataclass(frozen=True, slots=True)
class LabelSet:
    """`names` in the order of the logits.

    `entailment` and `contradiction` are the places of these two labels in models of natural
    language inference, None in all others.
    """

    names: tuple[str, ...]
    activation: Activation = "softmax"

    @property
    def entailment(self) -> int | None:
        return self._first("entail")

    @property
    def contradiction(self) -> int | None:
        """By its name, else the end of the labels that entailment is not at."""
        if self.entailment is None:
            return None
        named = self._first("contra")
        if named is not None:
            return named
        return len(self.names) - 1 if self.entailment == 0 else 0

    def check_known(self, names: Iterable[str]) -> None:
        """Raises ModelLoadError for a name that is none of the labels."""
        unknown = sorted(set(names) - set(self.names))
        if unknown:
            raise ModelLoadError(f"the model has no label {unknown[0]!r}")

    def scores(self, logits: Logits) -> Logits:
        """[inputs, labels] after the model's own activation."""
        if self.activation == "none":
            return logits
        return softmax(logits) if self.activation == "softmax" else sigmoid(logits)

    def _first(self, beginning: str) -> int | None:
        places = (i for i, n in enumerate(self.names) if n.lower().startswith(beginning))
        return next(places, None)


def read_labels(config: Mapping[str, Any], names: Sequence[str] | None = None) -> LabelSet:
    """As transformers' text classification pipeline reads a config.json.

    `names` stand for those of the configuration. Raises ModelLoadError.
    """
    labels = tuple(names) if names is not None else _configured(config)
    problem = config.get("problem_type")
    activation = ACTIVATIONS.get("single_label_classification" if problem is None else problem)
    if activation is None:
        raise ModelLoadError(f"the problem type {problem} of a classifier is not known")
    if activation == "softmax" and len(labels) == 1:  # it would be 1 for every text
        activation = "sigmoid"
    return LabelSet(labels, activation)


def _configured(config: Mapping[str, Any]) -> tuple[str, ...]:
    named = config.get("id2label")
    if named is None:
        count = config.get("num_labels") or DEFAULT_LABELS
        return tuple(f"LABEL_{index}" for index in range(count))
    try:
        return tuple(str(named[str(index)]) for index in range(len(named)))
    except (KeyError, TypeError) as error:
        raise ModelLoadError("config.json does not number its labels from 0 (id2label)") from error
