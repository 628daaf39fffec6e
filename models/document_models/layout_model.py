"""LayoutLM and its like: fields, answers or the class of a page from its words and their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.document_models.answer_spans import SpanScores, best_answer
from models.document_models.engine import Answers, DocumentEngine
from models.document_models.layout_network import LayoutNetwork, Scores
from models.document_models.page_words import PageWord, joined, page_words
from models.document_models.word_fields import WordFields, as_object
from models.document_models.word_windows import PageWindows
from models.errors import InvalidInputError
from models.types.pages import DocumentQuestions, PageAnswers, PageField, PageQuestions, PixelArray

SMALLEST_ROOM = 32
"""Tokens of the page that a question must leave in a window."""


@dataclass(frozen=True, slots=True)
class _Pass:
    """A page with one question, or with none."""

    words: list[PageWord]
    windows: PageWindows
    pixels: PixelArray | None
    question: str = ""

    @property
    def tokens(self) -> int:
        return sum(map(len, self.windows.windows))


class LayoutModel(DocumentEngine):
    """Token classifiers extract, question answerers answer, sequence classifiers classify.

    `no_answer`: the model was trained on questions without one. `max_answer_tokens` bounds answers.
    Raises ModelLoadError.
    """

    reads_words = True

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        device: str = "cpu",
        no_answer: bool = False,
        max_answer_tokens: int = 32,
        batch_pages: int = 4,
        batch_windows: int = 8,
        max_queued: int = 256,
    ) -> None:
        self._network = LayoutNetwork(path, device, batch_windows)
        self._encoder = self._network.encoder
        self._labels = self._network.labels
        self._fields = WordFields(self._labels)
        self._no_answer = no_answer
        self._max_answer_tokens = max_answer_tokens
        self.sees_pixels = self._network.kind.sees_pixels
        super().__init__(
            self._network.network,
            [self._network.kind.task],
            n_threads=n_threads,
            batch_pages=batch_pages,
            max_queued=max_queued,
        )

    def check(self, asked: DocumentQuestions) -> None:
        super().check(asked)
        for question in asked.questions:
            if self._encoder.room(question) < SMALLEST_ROOM:
                raise InvalidInputError("A question is too long for the model.", "prompts")

    def _answer(self, pages: list[PageQuestions]) -> Answers:
        """The windows of all questions about all pages are computed together."""
        passes = [self._passes(page) for page in pages]
        every = [one for of_page in passes for one in of_page]
        windows = [(window, one.pixels) for one in every for window in one.windows.windows]
        scores = iter(self._network.scores(*map(list, zip(*windows, strict=True))))
        answers = []
        for of_page in passes:
            found = [(one, [next(scores) for _ in one.windows.windows]) for one in of_page]
            answers.append(self._page_answers(found))
        return answers

    def _passes(self, page: PageQuestions) -> list[_Pass]:
        words = page_words(page.page) if page.page is not None else []
        if not page.asked.questions:
            return [_Pass(words, self._encoder.windows(words), page.pixels)]
        return [
            _Pass(words, self._encoder.windows(words, question), page.pixels, question)
            for question in page.asked.questions
        ]

    def _page_answers(self, found: Sequence[tuple[_Pass, list[Scores]]]) -> PageAnswers:
        tokens = sum(one.tokens for one, _ in found)
        (task,) = self.document_tasks
        if task == "vqa":
            fields = tuple(self._reply(one, scores) for one, scores in found)
            return PageAnswers(fields, prompt_tokens=tokens)
        ((one, scores),) = found
        if task == "classification":
            return PageAnswers(labels=self._label(one, scores), prompt_tokens=tokens)
        fields = self._extract(one, scores)
        return PageAnswers(fields, as_object(fields), prompt_tokens=tokens)

    def _extract(self, one: _Pass, scores: list[Scores]) -> tuple[PageField, ...]:
        """A word is what its first token is, in the window where most is around that."""
        firsts: dict[int, int] = {}
        for token, word in enumerate(one.windows.words):
            firsts.setdefault(word, token)
        places = [one.windows.of_token(token) for token in firsts.values()]
        rows = [scores[window][place] for window, place in places]
        known = [one.words[word] for word in firsts]
        return self._fields.of(known, softmax(np.array(rows))) if rows else ()

    def _reply(self, one: _Pass, scores: list[Scores]) -> PageField:
        if not one.windows.words:
            return PageField(one.question, "", 1.0)
        spans = [
            SpanScores(window.first, *_columns(row[window.context]), _pair(row[0]))
            for window, row in zip(one.windows.windows, scores, strict=True)
        ]
        answer = best_answer(spans, max_tokens=self._max_answer_tokens, may_be_none=self._no_answer)
        if answer.span is None:
            return PageField(one.question, "", answer.probability)
        start, stop = answer.span
        first, last = one.windows.words[start], one.windows.words[stop - 1]
        return joined(one.question, answer.probability, one.words[first : last + 1])

    def _label(self, one: _Pass, scores: list[Scores]) -> tuple[tuple[str, float], ...]:
        """The mean over the windows, by their tokens."""
        weights = [len(window) for window in one.windows.windows]
        mean = np.average(softmax(np.array(scores)), axis=0, weights=weights)
        return tuple(zip(self._labels, mean.tolist(), strict=True))


def softmax(logits: Scores) -> Scores:
    """Of the last axis."""
    weights: Scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    chances: Scores = weights / weights.sum(axis=-1, keepdims=True)
    return chances


def _columns(rows: Scores) -> tuple[Any, Any]:
    return rows[:, 0], rows[:, 1]


def _pair(row: Scores) -> tuple[float, float]:
    return float(row[0]), float(row[1])
