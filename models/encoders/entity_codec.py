"""Entity requests to windows of tokens, and logits of windows to entities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import numpy as np

from models.encoders.entity_grouping import EntityGrouping
from models.encoders.label_set import Logits, softmax
from models.encoders.text_engine import estimate_tokens
from models.encoders.tokenization import TokenSequence, check_text
from models.encoders.word_tokenizer import OVERLAP, TokenizedText, Window, WordTokenizer
from models.errors import InvalidInputError, ModelError
from models.types.classification import Entity, EntityRequest, EntityResult
from models.types.common import FloatArray, Usage


@dataclass(frozen=True, slots=True)
class EntityCodec:
    """`Codec` of every token classifier.

    A text of more than `max_tokens` is read in windows that overlap; in the middle of an overlap
    one window hands over to the next, so that every token is judged once, with text on both sides.
    """

    tokenizer: WordTokenizer
    max_tokens: int
    grouping: EntityGrouping

    def estimate(self, request: EntityRequest) -> int:
        return int(sum(map(estimate_tokens, request.texts)) / (1 - OVERLAP))

    def encode(self, requests: Sequence[EntityRequest]) -> list[list[TokenSequence] | ModelError]:
        """All texts of all sound requests go through the tokenizer in one call."""
        faults = [_fault(request) for request in requests]
        sound = [r for r, fault in zip(requests, faults, strict=True) if fault is None]
        tokenized = iter(self.tokenizer.tokenized([t for r in sound for t in r.texts]))
        return [
            fault if fault is not None else self._windows(request, tokenized)
            for request, fault in zip(requests, faults, strict=True)
        ]

    def decode(
        self, request: EntityRequest, sequences: list[TokenSequence], rows: list[FloatArray]
    ) -> EntityResult:
        found: list[tuple[Entity, ...]] = [()] * len(request.texts)
        windows = zip(cast(list[Window], sequences), rows, strict=True)
        for place, entries in groupby(windows, key=lambda entry: entry[0].place):
            text, logits = self._merged(list(entries))
            scores = softmax(logits)
            found[place] = self.grouping.entities(text, scores, request.aggregation)
        return EntityResult(tuple(found), Usage(prompt_tokens=sum(map(len, sequences))))

    def _windows(
        self, request: EntityRequest, tokenized: Iterator[TokenizedText]
    ) -> list[TokenSequence] | ModelError:
        return [
            window
            for place in range(len(request.texts))
            for window in self.tokenizer.windows(next(tokenized), place, self.max_tokens)
        ]

    def _merged(self, entries: Sequence[tuple[Window, FloatArray]]) -> tuple[TokenizedText, Logits]:
        """One text and the logits of its tokens: [tokens, labels]."""
        text = cast(TokenizedText, entries[0][0].text)
        ends = [window.first + window.count for window, _ in entries]
        next_starts = [window.first for window, _ in entries[1:]]
        handovers = [(a + b) // 2 for a, b in zip(next_starts, ends[:-1], strict=True)]
        bounds = zip([0, *handovers], [*handovers, len(text)], strict=True)
        parts = []
        for (window, row), (start, end) in zip(entries, bounds, strict=True):
            offset = self.tokenizer.before - window.first
            parts.append(row[start + offset : end + offset])
        logits: Logits = np.concatenate(parts).astype(np.float64)
        if not np.isfinite(logits).all():
            raise ModelError("The model gives no finite score for this input.")
        return text, logits


def _fault(request: EntityRequest) -> InvalidInputError | None:
    try:
        if not request.texts:
            raise InvalidInputError("'texts' must not be empty.", "texts")
        for text in request.texts:
            check_text(text, "texts")
    except InvalidInputError as error:
        return error
    return None
