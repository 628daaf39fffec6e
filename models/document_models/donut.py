"""Donut: fields, answers or the class of a page from its pixels, without OCR."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, takewhile
from pathlib import Path

import torch

from models.document_models.donut_fields import FieldReader, Piece, flat, plain
from models.document_models.donut_prompts import QUESTION, STRUCTURE, prompts_of
from models.document_models.donut_writer import DonutWriter
from models.document_models.engine import Answers, DocumentEngine
from models.errors import InvalidInputError
from models.types.pages import (
    DocumentQuestions,
    DocumentTask,
    PageAnswers,
    PageField,
    PageQuestions,
)

MAX_NEW_TOKENS = {"extraction": 1536, "vqa": 128}
TEXT = "text_sequence"
"""transformers' name for what has no fields."""


class DonutModel(DocumentEngine):
    """A checkpoint that was fine-tuned to write fields.

    `prompts` (task -> what the decoder starts with) replaces what its tokens tell of its task.
    Raises ModelLoadError.
    """

    reads_words = False
    sees_pixels = True

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        device: str = "cpu",
        prompts: Mapping[str, str] | None = None,
        max_new_tokens: int | None = None,
        batch_pages: int = 4,
        max_queued: int = 256,
    ) -> None:
        self._writer = DonutWriter(path, device)
        self._prompts = prompts_of(self._writer.tokens, prompts)
        self._fields = FieldReader(self._writer.text, self._writer.tokens.added)
        self._max_new_tokens = max_new_tokens
        super().__init__(
            self._writer.network,
            tuple(self._prompts),
            n_threads=n_threads,
            batch_pages=batch_pages,
            max_queued=max_queued,
        )

    def check(self, asked: DocumentQuestions) -> None:
        super().check(asked)
        for question in asked.questions:
            if any(token in question for token in self._writer.tokens.added):
                raise InvalidInputError("A question has control tokens of the model.", "prompts")
            if self._limit(self._ids(asked.task, question), asked.task) < 1:
                raise InvalidInputError("A question is too long for the model.", "prompts")

    def _answer(self, pages: list[PageQuestions]) -> Answers:
        """Every page is seen once, however many questions it has."""
        seen = self._writer.see([page.pixels for page in pages if page.pixels is not None])
        jobs = [
            _Job(place, page.asked.task, question, tuple(self._ids(page.asked.task, question)))
            for place, page in enumerate(pages)
            for question in page.asked.questions or ("",)
        ]
        answers: dict[int, PageAnswers] = {}
        for part in self._parts(jobs):
            done = self._done(seen, [jobs[number] for number in part])
            answers.update(zip(part, done, strict=True))
        found: list[list[PageAnswers]] = [[] for _ in pages]
        for number, job in enumerate(jobs):
            found[job.page].append(answers[number])
        return [_together(of_page) for of_page in found]

    def _parts(self, jobs: Sequence[_Job]) -> Iterator[list[int]]:
        """Numbers of jobs of one kind, of a batch at most: each takes memory for a whole page."""
        alike = sorted(range(len(jobs)), key=lambda number: jobs[number].kind)
        for _, group in groupby(alike, key=lambda number: jobs[number].kind):
            numbers = list(group)
            for start in range(0, len(numbers), self._batch_pages):
                yield numbers[start : start + self._batch_pages]

    def _done(self, seen: torch.Tensor, jobs: Sequence[_Job]) -> Iterator[PageAnswers]:
        """Of jobs of one kind, in their order."""
        task, prompts = jobs[0].task, [job.ids for job in jobs]
        seen = seen[[job.page for job in jobs]]
        if task == "classification":
            classes = self._writer.tokens.classes
            scores = self._writer.next_token(seen, prompts[0], list(classes))
            for row in scores.tolist():
                labels = tuple(zip(classes.values(), row, strict=True))
                yield PageAnswers(labels=labels, completion_tokens=1)
            return
        limit = self._limit(prompts[0], task)
        for job, pieces in zip(jobs, self._writer.write(seen, prompts, limit), strict=True):
            yield self._reply(job, pieces) if task == "vqa" else self._extract(pieces)

    def _reply(self, job: _Job, pieces: Sequence[Piece]) -> PageAnswers:
        """The answer is what comes before the end of its field, or of all."""
        answer = list(takewhile(lambda piece: not STRUCTURE.fullmatch(piece.token), pieces))
        leaf = self._fields.leaf(answer, *pieces[len(answer) : len(answer) + 1])
        field = PageField(job.question, leaf.value, leaf.probability)
        return PageAnswers((field,), prompt_tokens=len(job.ids), completion_tokens=len(pieces))

    def _extract(self, pieces: Sequence[Piece]) -> PageAnswers:
        tree = self._fields.tree(pieces)
        data = plain(tree) or {TEXT: self._fields.leaf(pieces).value}
        return PageAnswers(tuple(flat(tree)), data, completion_tokens=len(pieces))

    def _ids(self, task: DocumentTask, question: str) -> list[int]:
        return self._writer.ids(self._prompts[task].replace(QUESTION, question))

    def _limit(self, prompt: Sequence[int], task: DocumentTask) -> int:
        """Tokens that the decoder may write."""
        wanted = self._max_new_tokens or MAX_NEW_TOKENS[task]
        room = self._writer.room(prompt)
        return wanted if room is None else min(wanted, room)


@dataclass(frozen=True, slots=True)
class _Job:
    """One pass of the decoder over a page; those of one `kind` may run together."""

    page: int
    task: DocumentTask
    question: str
    ids: tuple[int, ...]

    @property
    def kind(self) -> tuple[str, int]:
        return self.task, len(self.ids)


def _together(answers: Sequence[PageAnswers]) -> PageAnswers:
    """Of all questions about a page."""
    if len(answers) == 1:
        return answers[0]
    return PageAnswers(
        tuple(field for answer in answers for field in answer.fields),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        completion_tokens=sum(answer.completion_tokens for answer in answers),
    )
