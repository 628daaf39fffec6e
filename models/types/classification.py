"""Classification, entities, and classifiers that clients fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.types.common import FloatArray, Usage

TextOrPair = str | tuple[str, str]
Aggregation = Literal["none", "simple", "first", "average", "max"]
"""How tokens become entities, by the names of transformers' token classification pipeline."""


@dataclass(frozen=True, slots=True)
class ClassificationRequest:
    """Texts, or pairs of texts, for the model's own labels or, zero-shot, for `labels`.

    Zero-shot judges `hypothesis`, with each label in the place of its "{}", by each text;
    `multi_label`: labels do not exclude each other. Over-long inputs are cut unless `truncate` is
    False, to `max_tokens` where that is less than the model's limit.
    """

    texts: tuple[TextOrPair, ...]
    labels: tuple[str, ...] | None = None
    hypothesis: str = "This example is {}."
    multi_label: bool = False
    truncate: bool = True
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class ClassificationResult:
    """Float32 [texts, labels]: the model's `logits`, and `scores` after its own activation."""

    labels: tuple[str, ...]
    logits: FloatArray
    scores: FloatArray
    usage: Usage


@dataclass(frozen=True, slots=True)
class EntityRequest:
    """Find entities in texts of any length."""

    texts: tuple[str, ...]
    aggregation: Aggregation = "simple"


@dataclass(frozen=True, slots=True)
class Entity:
    """A part of a text, from character `start` up to character `end`."""

    label: str
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class EntityResult:
    """The entities of each text, in the order of the text."""

    entities: tuple[tuple[Entity, ...], ...]
    usage: Usage


@dataclass(frozen=True, slots=True)
class LabelledVectors:
    """Embeddings [vectors, dimensions] and the label of each."""

    labels: tuple[str, ...]
    vectors: FloatArray


@dataclass(frozen=True, slots=True)
class ClassifierFitRequest:
    """Fit a linear head on embeddings and keep it under `name`, replacing what was there.

    Labels without examples need a description. `fingerprint` names the weights of `base_model`.
    """

    name: str
    base_model: str
    fingerprint: str
    examples: LabelledVectors
    descriptions: LabelledVectors


@dataclass(frozen=True, slots=True)
class ClassifierInfo:
    """A fitted classifier as the store of artefacts shows it; times are Unix seconds."""

    name: str
    version: int
    created: int
    size_bytes: int
    base_model: str
    fingerprint: str
    dimensions: int
    labels: tuple[str, ...]
    samples: int
    head: Literal["logistic", "similarity"]
    fit_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ClassifierRequest:
    """Embeddings [texts, dimensions] for a fitted classifier, and the weights they are from."""

    name: str
    fingerprint: str
    vectors: FloatArray


@dataclass(frozen=True, slots=True)
class LabelScores:
    """Float32 scores [texts, labels] by one fitted `version`."""

    labels: tuple[str, ...]
    scores: FloatArray
    version: int
