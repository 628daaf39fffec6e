"""What all document models have in common: one thread, batches that pages of all requests share."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

import torch

from models.batching import BatchLimits, DynamicBatcher
from models.errors import InvalidInputError, ModelError, UnsupportedTaskError
from models.torch_cpu import use_cpu_threads
from models.types.pages import DocumentQuestions, DocumentTask, PageAnswers, PageQuestions

Answers = Sequence[PageAnswers | ModelError]
PASS_SECONDS = 30.0
"""What one pass over a page may take on one busy CPU core: seeing all of it is a single step."""


class DocumentEngine:
    """A `DocumentModel` whose subclass answers a batch of pages in `_answer`.

    `batch_pages` bounds the passes of one batch: a page with three questions counts as three.
    `max_queued` counts in the same way what waits.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        tasks: Sequence[DocumentTask],
        *,
        n_threads: int,
        batch_pages: int,
        max_queued: int,
    ) -> None:
        self.document_tasks = tuple(tasks)
        self._memory_bytes: int = sum(tensor.nbytes for tensor in network.state_dict().values())
        self._batch_pages = batch_pages
        self._n_threads = n_threads
        self._batcher: DynamicBatcher[PageQuestions, PageAnswers] = DynamicBatcher(
            self._run,
            cost=lambda page: max(1, len(page.asked.questions)),
            limits=BatchLimits(
                batch_cost=batch_pages,
                batch_items=batch_pages,
                queued_cost=max_queued,
                unit_seconds=PASS_SECONDS,
            ),
            name="documents",
        )

    def check(self, asked: DocumentQuestions) -> None:
        if asked.task not in self.document_tasks:
            able = " and ".join(self.document_tasks)
            raise UnsupportedTaskError(f"This model does {able}, not {asked.task}.", "task")
        if not all(question.strip() for question in asked.questions):
            raise InvalidInputError("A question is empty.", "prompts")

    def _answer(self, pages: list[PageQuestions]) -> Answers:
        """The answers to each page's questions, or what is wrong with them; in inference mode."""
        raise NotImplementedError

    def _run(self, pages: list[PageQuestions]) -> Answers:
        with torch.inference_mode():
            use_cpu_threads(self._n_threads)
            return self._answer(pages)

    @property
    def memory_bytes(self) -> int:
        return self._memory_bytes

    @property
    def alive(self) -> bool:
        return self._batcher.alive

    def submit(self, pages: Sequence[PageQuestions]) -> Future[list[PageAnswers | ModelError]]:
        return self._batcher.submit(pages)

    def close(self) -> None:
        self._batcher.close()
