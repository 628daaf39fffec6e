"""Text from what a CTC network says step by step along a line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

import numpy as np
import numpy.typing as npt

from models.ocr.lines import ReadLine, WordSpan

BLANK = 0


def read_steps(
    probabilities: npt.NDArray[np.float32], alphabet: Sequence[str], line_share: float
) -> ReadLine:
    """`probabilities` [steps, letters], of which class 0 is the blank.

    Repeats of a class are one letter, with the probability of its first step (as PP-OCR counts).
    `line_share` is the part of the steps that the line takes; the rest is padding. A word reaches
    from half a letter before its first letter to half a letter after its last, and to the line's
    own ends.
    """
    classes = probabilities.argmax(axis=1)
    starts = np.flatnonzero((np.diff(classes, prepend=BLANK) != 0) & (classes != BLANK))
    if not len(starts):
        return ReadLine("", 0.0)
    letters = [alphabet[index] for index in classes[starts].tolist()]
    chances = probabilities[starts, classes[starts]].astype(np.float64)
    ends = _ends(classes, starts)
    places = (starts + ends) / 2 / (len(classes) * line_share)
    confidence = round(float(chances.mean()), 5)
    return ReadLine("".join(letters), confidence, _words(letters, chances, places))


def _ends(classes: npt.NDArray[np.int64], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The step after the last one of each letter."""
    changes = np.flatnonzero(np.diff(classes)) + 1
    after = np.append(changes, len(classes))
    return after[np.searchsorted(after, starts, side="right")]


def _words(
    letters: Sequence[str],
    chances: npt.NDArray[np.float64],
    places: npt.NDArray[np.float64],
) -> tuple[WordSpan, ...]:
    groups = [
        list(group)
        for space, group in groupby(range(len(letters)), lambda index: letters[index].isspace())
        if not space
    ]
    centres = [(places[group[0]], places[group[-1]]) for group in groups]
    seams = [(before[1] + after[0]) / 2 for before, after in pairwise(centres)]
    limits = [0.0, *seams, 1.0]
    reach = _pitch(places) / 2
    words = []
    for number, group in enumerate(groups):
        first, last = centres[number]
        start = 0.0 if number == 0 else max(limits[number], first - reach)
        end = 1.0 if number == len(groups) - 1 else min(limits[number + 1], last + reach)
        text = "".join(letters[index] for index in group)
        confidence = round(float(chances[group].mean()), 5)
        words.append(WordSpan(text, confidence, _share(start), _share(end)))
    return tuple(words)


def _pitch(places: npt.NDArray[np.float64]) -> float:
    """The usual distance between two letters of the line."""
    return float(np.median(np.diff(places))) if len(places) > 1 else 1.0


def _share(value: float) -> float:
    return min(1.0, max(0.0, float(value)))
