"""Classifiers without weights, for tests and for trying the server out.

Tokens are bytes, as of the other weightless models; everything around the model is the real engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from models.batching import BatchListener
from models.encoders.classification_codec import ClassificationCodec
from models.encoders.entity_codec import EntityCodec
from models.encoders.entity_grouping import EntityGrouping
from models.encoders.label_set import Activation, LabelSet
from models.encoders.text_engine import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_QUEUED_TOKENS,
    EngineOptions,
    TextEngine,
)
from models.encoders.tokenization import TokenSequence
from models.encoders.word_tokenizer import WordTokenizer
from models.toy.encoder import CHARACTERS, MAX_TOKENS, byte_tokenizer, faulty, overlap_logit
from models.types.classification import (
    ClassificationRequest,
    ClassificationResult,
    EntityRequest,
    EntityResult,
)
from models.types.common import FloatArray

KEYWORDS: Mapping[str, Sequence[str]] = {
    "negative": ("bad", "awful", "broken", "hate"),
    "neutral": (),
    "positive": ("good", "great", "works", "love"),
}
NEUTRAL_LOGIT = 0.5
NLI_LABELS = ("contradiction", "neutral", "entailment")
ENTITY_LABELS = ("O", "B-NAME", "I-NAME", "B-NUMBER", "I-NUMBER")
CERTAIN = 5.0
_SPACE = "\u0120"


class ToyClassifier(TextEngine[ClassificationRequest, ClassificationResult]):
    """The weightless twin of `TorchClassifier`: a label's logit counts its keywords in the text.

    A label without keywords has a small logit of its own. `entailment` makes a model of natural
    language inference instead, which judges by the trigrams that text and hypothesis share.
    """

    def __init__(
        self,
        *,
        keywords: Mapping[str, Sequence[str]] = KEYWORDS,
        activation: Activation = "softmax",
        entailment: bool = False,
        moderation_labels: Mapping[str, str] | None = None,
        max_tokens: int = MAX_TOKENS,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
        faults: Mapping[str, str | bool] | None = None,
    ) -> None:
        self._labels = NLI_LABELS if entailment else tuple(keywords)
        self._keywords = tuple(keywords.values())
        labels = LabelSet(self._labels, activation)
        labels.check_known(moderation_labels or ())
        super().__init__(
            ClassificationCodec(byte_tokenizer(), max_tokens, labels),
            faulty(_entailments if entailment else self._counts, faults),
            max_tokens=max_tokens,
            memory_bytes=0,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )

    @property
    def labels(self) -> tuple[str, ...]:
        return self._labels

    def _counts(self, sequences: list[TokenSequence]) -> list[FloatArray]:
        return [
            np.array([_count(_words(s.ids), words) for words in self._keywords], dtype=np.float32)
            for s in sequences
        ]


class ToyEntityRecognizer(TextEngine[EntityRequest, EntityResult]):
    """The weightless twin of `TorchTokenClassifier`: capitalised words are names."""

    def __init__(
        self,
        *,
        max_tokens: int = MAX_TOKENS,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
        faults: Mapping[str, str | bool] | None = None,
    ) -> None:
        grouping = EntityGrouping(ENTITY_LABELS)
        self._entity_labels = grouping.names
        super().__init__(
            EntityCodec(WordTokenizer(byte_tokenizer()), max_tokens, grouping),
            faulty(_tags, faults),
            max_tokens=max_tokens,
            memory_bytes=0,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )

    @property
    def entity_labels(self) -> tuple[str, ...]:
        return self._entity_labels


def toy_classifier(
    *, head: Literal["sequence", "entailment", "token"] = "sequence", **options: Any
) -> ToyClassifier | ToyEntityRecognizer:
    """The kind that a real model's configuration would name."""
    makers: dict[str, Callable[..., ToyClassifier | ToyEntityRecognizer]] = {
        "sequence": ToyClassifier,
        "token": ToyEntityRecognizer,
    }
    if head == "entailment":
        return ToyClassifier(entailment=True, **options)
    return makers[head](**options)


def _words(ids: Sequence[int]) -> list[str]:
    text = "".join(CHARACTERS[token] for token in ids).replace(_SPACE, " ")
    return ["".join(filter(str.isalnum, word)).lower() for word in text.split()]


def _count(words: Sequence[str], keywords: Sequence[str]) -> float:
    return float(sum(word in keywords for word in words)) if keywords else NEUTRAL_LOGIT


def _entailments(sequences: list[TokenSequence]) -> list[FloatArray]:
    rows = ((-overlap_logit(pair), 0.0, overlap_logit(pair)) for pair in sequences)
    return [np.array(row, dtype=np.float32) for row in rows]


def _tags(sequences: list[TokenSequence]) -> list[FloatArray]:
    identity = np.eye(len(ENTITY_LABELS), dtype=np.float32) * np.float32(CERTAIN)
    return [identity[_tags_of([CHARACTERS[token] for token in s.ids])] for s in sequences]


def _tags_of(characters: Sequence[str]) -> list[int]:
    """The place of each character's label: 0 outside, odd at a beginning, even inside."""
    tags: list[int] = []
    before = ""
    for character in characters:
        inside = bool(tags) and tags[-1] > 0
        if inside and character.isascii() and character.isalnum():
            tags.append(tags[-1] + tags[-1] % 2)
        elif character.isascii() and not (before.isascii() and before.isalnum()):
            tags.append(1 if character.isupper() else 3 if character.isdigit() else 0)
        else:
            tags.append(0)
        before = character
    return tags
