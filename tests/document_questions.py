"""What the tests of document models ask them, and about which pages."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.types.pages import DocumentQuestions, Page, PageAnswers, PageQuestions, PixelArray
from tests.tiny_documents import text_page

WAIT = 120.0
SHORT = text_page("total 12", "name bob")
LONG = text_page(*["the quick brown fox has 31 dogs"] * 4, "total 12 euro")


def picture(seed: int = 0) -> PixelArray:
    return np.random.default_rng(seed).integers(0, 255, (120, 90, 3), dtype=np.uint8)


def asked(model: Any, *questions: str) -> DocumentQuestions:
    (task,) = model.document_tasks
    return DocumentQuestions(task, questions or (("who",) if task == "vqa" else ()))


def answers(model: Any, *pages: PageQuestions) -> list[PageAnswers]:
    found = model.submit(pages).result(WAIT)
    assert all(isinstance(answer, PageAnswers) for answer in found), found
    return list(found)


def ask(model: Any, page: Page = SHORT, *questions: str, seed: int = 0) -> PageAnswers:
    (answer,) = answers(model, PageQuestions(asked(model, *questions), page, picture(seed)))
    return answer
