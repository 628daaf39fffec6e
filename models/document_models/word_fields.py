"""From labels of words to fields: neighbours of one label, by the prefixes of its scheme."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.document_models.page_words import PageWord, joined
from models.encoders.entity_tags import OUTSIDE, read_tags
from models.types.pages import PageField


class WordFields:
    """`labels` are the model's, with or without prefixes; "O" is outside of fields."""

    def __init__(self, labels: Sequence[str]) -> None:
        self._tags = read_tags(labels)

    def of(
        self, words: Sequence[PageWord], chances: npt.NDArray[np.floating[Any]]
    ) -> tuple[PageField, ...]:
        """`chances` are [words, labels]. A field is as probable as its words are on average."""
        best = chances.argmax(axis=1).tolist()
        groups: list[list[int]] = []
        for place, label in enumerate(best):
            tag = self._tags[label]
            if tag.name == OUTSIDE:
                continue
            last = groups[-1][-1] if groups else -2
            before = self._tags[best[last]] if groups else tag
            continues = last == place - 1 and before.name == tag.name and not before.closes
            if continues and not tag.opens:
                groups[-1].append(place)
            else:
                groups.append([place])
        return tuple(
            joined(
                self._tags[best[group[0]]].name,
                float(np.mean([chances[place, best[place]] for place in group])),
                [words[place] for place in group],
            )
            for group in groups
        )


def as_object(fields: Sequence[PageField]) -> dict[str, Any]:
    """Values by key; a list where a key has several."""
    values: dict[str, list[str]] = {}
    for field in fields:
        values.setdefault(field.key, []).append(field.value)
    return {key: found[0] if len(found) == 1 else found for key, found in values.items()}
