"""From scores per token to entities, as transformers' token classification pipeline has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from models.encoders.entity_tags import OUTSIDE, Tag, read_tags
from models.encoders.word_tokenizer import TokenizedText
from models.types.classification import Aggregation, Entity

Scores = npt.NDArray[np.floating[Any]]
WORDWISE: frozenset[Aggregation] = frozenset({"first", "average", "max"})


@dataclass(frozen=True, slots=True)
class _Piece:
    """A token, or a word where words agree on one label."""

    place: int
    label: int
    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class EntityGrouping:
    """What a model's labels make of its scores."""

    labels: tuple[str, ...]
    tags: tuple[Tag, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", read_tags(self.labels))

    @property
    def names(self) -> tuple[str, ...]:
        """What entities may be called."""
        return tuple(dict.fromkeys(tag.name for tag in self.tags if tag.name != OUTSIDE))

    def entities(
        self, text: TokenizedText, scores: Scores, aggregation: Aggregation
    ) -> tuple[Entity, ...]:
        """`scores` are [tokens, labels]. The score of an entity is the mean of its pieces'."""
        spans = text.spans
        if aggregation in WORDWISE:
            words = _words(text)
            scores = np.stack([_word_scores(scores[a:b], aggregation) for a, b in words])
            spans = [(spans[a][0], spans[b - 1][1]) for a, b in words]
        pieces = self._pieces(scores, spans)
        if aggregation == "none":
            return tuple(Entity(self.labels[p.label], p.score, p.start, p.end) for p in pieces)
        return tuple(self._entity(group) for group in self._groups(pieces))

    def _pieces(self, scores: Scores, spans: Sequence[tuple[int, int]]) -> list[_Piece]:
        """All that is not outside of entities."""
        best = scores.argmax(axis=1)
        tagged = np.array([label != OUTSIDE for label in self.labels])
        return [
            _Piece(place, int(best[place]), float(scores[place, best[place]]), *spans[place])
            for place in np.flatnonzero(tagged[best]).tolist()
        ]

    def _groups(self, pieces: Iterable[_Piece]) -> list[list[_Piece]]:
        groups: list[list[_Piece]] = []
        for piece in pieces:
            if groups and self._continues(groups[-1][-1], piece):
                groups[-1].append(piece)
            else:
                groups.append([piece])
        return groups

    def _continues(self, last: _Piece, piece: _Piece) -> bool:
        before, tag = self.tags[last.label], self.tags[piece.label]
        adjacent = piece.place == last.place + 1
        return adjacent and tag.name == before.name and not tag.opens and not before.closes

    def _entity(self, group: Sequence[_Piece]) -> Entity:
        score = sum(piece.score for piece in group) / len(group)
        return Entity(self.tags[group[0].label].name, score, group[0].start, group[-1].end)


def _words(text: TokenizedText) -> list[tuple[int, int]]:
    """The tokens [a, b) of each word."""
    starts = [place for place, inside in enumerate(text.continues()) if place == 0 or not inside]
    return list(zip(starts, [*starts[1:], len(text)], strict=True))


def _word_scores(scores: Scores, aggregation: Aggregation) -> Scores:
    """One row of scores out of the rows of a word's tokens."""
    if aggregation == "average":
        average: Scores = scores.mean(axis=0)
        return average
    row: Scores = scores[scores.max(axis=1).argmax() if aggregation == "max" else 0]
    return row
