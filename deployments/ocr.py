"""Optical character recognition."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import ClassVar

from config.catalog import ModelSpec, Task
from config.settings import AppConfig
from deployments.document_pages import read_pages
from deployments.document_questions import answer_pages
from deployments.engines import document_model
from deployments.file_store import FileStore, NoSuchFileError
from deployments.layout import page_recognizer
from deployments.replica import ModelReplica
from models.base import DocumentModel, TextRecognizer
from models.documents.limits import DocumentLimits
from models.documents.opening import Document, as_file, open_document
from models.documents.png import png
from models.errors import InvalidInputError, ModelError, UnsupportedTaskError
from models.types.pages import (
    DocumentPage,
    DocumentQuestions,
    DocumentRequest,
    OcrRequest,
    OcrResult,
    Page,
    PageAnswers,
    PixelArray,
    StoredFile,
)


class Ocr(ModelReplica[TextRecognizer | DocumentModel]):
    """Images and documents in; pages of text lines out, or what a document model says of them."""

    task: ClassVar[Task] = "ocr"

    def __init__(self, specs: Sequence[ModelSpec], config: AppConfig) -> None:
        super().__init__(specs, config)
        self._files = FileStore.of(config)
        self._limits = document_limits(config)
        self._open_documents = asyncio.Semaphore(config.documents.max_open)
        self._open_pictures = asyncio.Semaphore(config.documents.max_open)
        """Apart from those that are read: whoever reads a document may ask for its pictures."""

    def load(self, spec: ModelSpec) -> TextRecognizer | DocumentModel:
        if spec.reads_documents:
            return document_model(spec, self._config, self._resources)
        return page_recognizer(spec, self._config, self.resources_of(spec))

    async def recognize(
        self, model_id: str, requests: list[OcrRequest]
    ) -> list[OcrResult | ModelError]:
        """One result or error per request, in order."""
        async with self._models.use(model_id) as model:
            if isinstance(model, DocumentModel):
                raise UnsupportedTaskError(f"The model '{model_id}' does not read text.", "model")
            return await asyncio.wrap_future(model.submit(requests))

    async def read_document(
        self, model_id: str, request: DocumentRequest
    ) -> AsyncGenerator[DocumentPage]:
        """The pages of a document, each as soon as it has been read.

        Its pages share batches with whatever else waits. Raises ModelError. Closing the generator
        ends rendering at once and drops what has not been recognised yet.
        """
        in_flight = self._config.documents.pages_in_flight
        # The model first: a load is not the document's time.
        async with self._models.use(model_id), self._opened(request) as document:
            recognize = partial(self._recognize_page, model_id, request.languages)
            pages = read_pages(document, recognize, in_flight=in_flight)
            async with aclosing(pages):
                async for page in pages:
                    yield page

    async def answer_document(
        self, model_id: str, ocr_model_id: str, request: DocumentRequest, asked: DocumentQuestions
    ) -> AsyncGenerator[PageAnswers]:
        """What a document model says of the pages, each as soon as it is said.

        The OCR model finds words where the document model needs them and the document has none.
        Raises ModelError; closing the generator is as for `read_document`.
        """
        async with AsyncExitStack() as stack:
            model = await stack.enter_async_context(self._models.use(model_id))
            if not isinstance(model, DocumentModel):
                raise UnsupportedTaskError(f"The model '{model_id}' only reads text.", "model")
            await asyncio.to_thread(model.check, asked)
            if model.reads_words:
                await stack.enter_async_context(self._models.use(ocr_model_id))
            document = await stack.enter_async_context(self._opened(request))
            recognize = partial(self._recognize_page, ocr_model_id, request.languages)
            in_flight = self._config.documents.pages_in_flight
            pages = answer_pages(document, model, asked, recognize, in_flight=in_flight)
            async with aclosing(pages):
                async for answers in pages:
                    yield answers

    async def _recognize_page(
        self, model_id: str, languages: tuple[str, ...], pixels: PixelArray
    ) -> Page:
        (result,) = await self.recognize(model_id, [OcrRequest((pixels,), languages)])
        if isinstance(result, ModelError):
            raise result
        return result.pages[0]

    async def page_images(self, request: DocumentRequest) -> AsyncGenerator[tuple[int, bytes]]:
        """Number and PNG file of each page; needs no model. Raises ModelError."""
        async with self._opened(request, self._open_pictures) as document:
            for index in document.selected:
                page = await asyncio.to_thread(document.picture, index)
                if not isinstance(page.content, Page):
                    yield index, await asyncio.to_thread(png, page.content)

    @asynccontextmanager
    async def _opened(
        self, request: DocumentRequest, slots: asyncio.Semaphore | None = None
    ) -> AsyncGenerator[Document]:
        """The document; it is closed, which ends its process, before the file is."""
        async with slots or self._open_documents:
            stack = ExitStack()
            opening = asyncio.ensure_future(asyncio.to_thread(self._open, request, stack))
            try:
                yield await asyncio.shield(opening)
            finally:
                await asyncio.shield(asyncio.ensure_future(_close(opening, stack)))

    def _open(self, request: DocumentRequest, stack: ExitStack) -> Document:
        source = request.source
        if isinstance(source, StoredFile):
            try:
                file = stack.enter_context(self._files.local_file(source.id))
            except NoSuchFileError:
                raise InvalidInputError("The file does not exist.", request.param) from None
        else:
            file = stack.enter_context(as_file(source))
        document = open_document(file, request, self._limits)
        stack.callback(document.close)
        return document


async def _close(opening: asyncio.Future[Document], stack: ExitStack) -> None:
    """A thread cannot be interrupted: what it opens is closed once it has been opened."""
    await asyncio.wait([opening])
    if not opening.cancelled():
        opening.exception()  # already raised to the caller, or the caller has gone
    await asyncio.to_thread(stack.close)


def document_limits(config: AppConfig) -> DocumentLimits:
    return DocumentLimits(
        max_pages=config.documents.max_pages,
        max_pixels=config.documents.max_page_pixels,
        max_image_bytes=config.limits.max_upload_bytes,
        page_seconds=config.documents.page_s,
    )
