"""What the engines that read pages have in common: decoding, threads, shared batches."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from models.batching import BatchListener
from models.errors import ModelError
from models.ocr.images import ImageDecoder, ImageLimits
from models.ocr.page_batches import OcrAnswer, PageBatches, PageImage
from models.types.pages import OcrRequest, Page


class PageRecognizer:
    """A `TextRecognizer` whose subclass reads a batch of pages in `_read`, called on one thread.

    `n_threads` is the CPU share, for decoding and for whatever the subclass gives `_threads`.
    `max_queued` counts waiting pages; `on_batch` hears of every batch of pages; `memory_bytes` is
    what its weights hold.
    """

    def __init__(
        self,
        *,
        n_threads: int,
        max_pixels: int,
        max_queued: int,
        batch_pages: int,
        on_batch: BatchListener | None = None,
        memory_bytes: int = 0,
    ) -> None:
        self._memory_bytes = memory_bytes
        self._decoder = ImageDecoder(ImageLimits(max_pixels=max_pixels), workers=n_threads)
        self._threads = ThreadPoolExecutor(n_threads, thread_name_prefix="ocr")
        self._batches = PageBatches(self._read, batch_pages, max_queued, on_batch)

    def _read(self, pages: list[PageImage]) -> Sequence[Page | ModelError]:
        """A page, or what is wrong with it, for each."""
        raise NotImplementedError

    @property
    def memory_bytes(self) -> int:
        return self._memory_bytes

    @property
    def alive(self) -> bool:
        return self._batches.alive

    def submit(self, requests: Sequence[OcrRequest]) -> OcrAnswer:
        return self._batches.submit(requests)

    def close(self) -> None:
        self._batches.close()
        self._threads.shutdown()
        self._decoder.close()
