"""What a document model is given of each page, and in which order its answers come."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
import pytest
import torch

from deployments.document_questions import answer_pages
from models.compute_thread import stuck_threads
from models.document_models.engine import DocumentEngine
from models.documents.opening import SourcePage
from models.errors import ModelError, UnsupportedTaskError
from models.types.pages import (
    DocumentQuestions,
    Page,
    PageAnswers,
    PageField,
    PageQuestions,
    PixelArray,
)

OWN_TEXT, RECOGNISED = Page(1, 1, ()), Page(2, 2, ())
ASKED = DocumentQuestions("vqa", ("who", "what"))


class Paper:
    """Three pages, of which the first brings its text along."""

    selected = (0, 1, 2)

    def __init__(self) -> None:
        self.pictures: list[int] = []

    def page(self, index: int) -> SourcePage:
        return SourcePage(0, OWN_TEXT, 72) if index == 0 else self.picture(index)

    def picture(self, index: int) -> SourcePage:
        self.pictures.append(index)
        return SourcePage(index, np.full((1, 1, 3), index, np.uint8), 72)

    def close(self) -> None:
        pass


class Reader:
    document_tasks = ("vqa",)
    memory_bytes = 0
    alive = True

    def __init__(self, *, words: bool, pixels: bool) -> None:
        self.reads_words, self.sees_pixels = words, pixels
        self.asked: list[PageQuestions] = []

    def submit(self, pages: Sequence[PageQuestions]) -> Future[list[PageAnswers | ModelError]]:
        self.asked += pages
        answer: Future[list[PageAnswers | ModelError]] = Future()
        answer.set_result([PageAnswers((PageField("who", "me", 0.5),)) for _ in pages])
        return answer

    def check(self, asked: DocumentQuestions) -> None:
        pass

    def close(self) -> None:
        pass


async def recognize(pixels: PixelArray) -> Page:
    del pixels
    return RECOGNISED


@pytest.mark.parametrize(
    ("words", "pixels", "pages", "seen"),
    [
        (True, False, [OWN_TEXT, RECOGNISED, RECOGNISED], [None, None, None]),
        (True, True, [OWN_TEXT, RECOGNISED, RECOGNISED], [0, 1, 2]),
        (False, True, [None, None, None], [0, 1, 2]),
    ],
)
async def test_models_get_what_they_want_of_every_page(
    words: bool, pixels: bool, pages: list[Page | None], seen: list[int | None]
) -> None:
    paper, reader = Paper(), Reader(words=words, pixels=pixels)
    stream = answer_pages(paper, reader, ASKED, recognize, in_flight=1)  # type: ignore[arg-type]
    answers = [answer async for answer in stream]
    assert [answer.index for answer in answers] == [0, 1, 2]
    assert [question.asked for question in reader.asked] == [ASKED] * 3
    assert [question.page for question in reader.asked] == pages
    assert [None if q.pixels is None else q.pixels[0, 0, 0] for q in reader.asked] == seen
    assert paper.pictures == ([0, 1, 2] if pixels else [1, 2])


async def test_a_page_that_fails_ends_the_answers() -> None:
    reader = Reader(words=False, pixels=True)

    def refuse(pages: Sequence[PageQuestions]) -> Future[list[PageAnswers | ModelError]]:
        del pages
        answer: Future[list[PageAnswers | ModelError]] = Future()
        answer.set_result([UnsupportedTaskError("no", "task")])
        return answer

    reader.submit = refuse  # type: ignore[method-assign]
    stream = answer_pages(Paper(), reader, ASKED, recognize, in_flight=2)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedTaskError):
        await anext(stream)


class Engine(DocumentEngine):
    """Looks at a page until it is told what time it is."""

    def __init__(self) -> None:
        self.looking, self.go_on = threading.Event(), threading.Event()
        network = torch.nn.Linear(1, 1)
        super().__init__(network, ["vqa"], n_threads=1, batch_pages=4, max_queued=4)

    def _answer(self, pages: list[PageQuestions]) -> list[PageAnswers]:
        self.looking.set()
        assert self.go_on.wait(60)
        return [PageAnswers() for _ in pages]


def test_a_page_may_take_long_to_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    answer = engine.submit([PageQuestions(ASKED)])
    assert engine.looking.wait(60)
    began = time.monotonic()
    monkeypatch.setattr("models.compute_thread.time.monotonic", lambda: began + 60)
    assert "documents" not in stuck_threads(grace=15)
    monkeypatch.setattr("models.compute_thread.time.monotonic", lambda: began + 600)
    assert "documents" in stuck_threads(grace=15)
    engine.go_on.set()
    assert answer.result(60) == [PageAnswers()]
    engine.close()
