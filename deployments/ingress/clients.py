"""The tasks as the routes see them: coalesced, with our own deadlines, ignorant of Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypedDict

from config.settings import AppConfig, CoalescingSettings
from deployments.ingress.access.gate import caller_name
from deployments.ingress.access.token_meter import TokenMeter
from deployments.ingress.anomaly_client import AnomalyClient
from deployments.ingress.client_base import BatchClient, TaskClient, deadline_exceeded, within
from deployments.ingress.generation_session import GenerationSession
from deployments.ingress.observing.request_record import note_deltas
from deployments.ingress.replicas import Replicas
from models.types.classification import (
    ClassificationRequest,
    ClassificationResult,
    ClassifierFitRequest,
    ClassifierInfo,
    ClassifierRequest,
    EntityRequest,
    EntityResult,
    LabelScores,
)
from models.types.generation import (
    ChatPrompt,
    ChoiceDelta,
    GenerationRequest,
    TokenizeRequest,
    Tokens,
)
from models.types.pages import (
    DocumentPage,
    DocumentQuestions,
    DocumentRequest,
    OcrRequest,
    OcrResult,
    PageAnswers,
)
from models.types.texts import (
    EmbeddingRequest,
    EmbeddingResult,
    EncoderInfo,
    RerankRequest,
    RerankResult,
    TextToken,
)

CHARS_PER_TOKEN = 4
"""Of English text, about: the measure of requests that come as token ids."""


class GenerationClient(TaskClient):
    """Text generation, and how its models read texts."""

    def __init__(self, replicas: Replicas, *, deadline_s: float, text_deadline_s: float) -> None:
        super().__init__(replicas)
        self._session = GenerationSession(replicas)
        self._deadline_s = deadline_s
        self._text_deadline_s = text_deadline_s

    async def stream(
        self, model_id: str, requests: list[GenerationRequest]
    ) -> AsyncGenerator[list[ChoiceDelta]]:
        """Deltas of all choices, numbered through the requests. Raises ModelError.

        Closing the generator frees the sequences.
        """
        late = deadline_exceeded(self._deadline_s)
        meter = TokenMeter(requests)
        caller = caller_name() or ""
        requests = [replace(request, caller=caller) for request in requests]
        with self._session.call(model_id, requests) as call:
            # One timer for the call: one for every step would cost a third of the step.
            deadline = asyncio.get_running_loop().call_later(self._deadline_s, call.fail, late)
            try:
                while not call.finished:
                    deltas = await call.take()
                    meter.add(deltas)
                    note_deltas(deltas, meter.firsts)
                    yield deltas
            finally:
                deadline.cancel()

    async def tokenize(self, model_id: str, request: TokenizeRequest) -> Tokens:
        async with within(self._text_deadline_s):
            tokens: Tokens = await self._replicas.call("tokenize", model_id, request)
        return tokens

    async def detokenize(self, model_id: str, ids: Sequence[int]) -> str:
        async with within(self._text_deadline_s):
            text: str = await self._replicas.call("detokenize", model_id, ids)
        return text

    async def render(self, model_id: str, prompt: ChatPrompt) -> str:
        """The text that a chat becomes."""
        async with within(self._text_deadline_s):
            text: str = await self._replicas.call("render", model_id, prompt)
        return text


class EmbeddingClient(BatchClient[EmbeddingRequest, EmbeddingResult]):
    """Vectors are coalesced; how a model reads texts is asked at once."""

    async def describe(self, model_id: str) -> EncoderInfo:
        async with self._deadline():
            info: EncoderInfo = await self._replicas.call("describe", model_id)
        return info

    async def tokenize(
        self, model_id: str, texts: Sequence[str], *, specials: bool, prompt_name: str | None
    ) -> list[list[TextToken]]:
        async with self._deadline():
            tokens: list[list[TextToken]] = await self._replicas.call(
                "tokenize", model_id, texts, specials, prompt_name
            )
        return tokens

    async def detokenize(
        self, model_id: str, sequences: Sequence[Sequence[int]], *, skip_specials: bool
    ) -> list[str]:
        async with self._deadline():
            texts: list[str] = await self._replicas.call(
                "detokenize", model_id, sequences, skip_specials
            )
        return texts


class ClassificationClient(TaskClient):
    """Each kind of question is coalesced on its own; fitting and deleting run once."""

    def __init__(
        self,
        replicas: Replicas,
        *,
        settings: CoalescingSettings,
        deadline_s: float,
        fit_deadline_s: float,
    ) -> None:
        super().__init__(replicas)
        shared = _BatchSettings(settings=settings, deadline_s=deadline_s)
        self.labels: BatchClient[ClassificationRequest, ClassificationResult] = BatchClient(
            replicas, "classify", size=classification_size, **shared
        )
        self.entities: BatchClient[EntityRequest, EntityResult] = BatchClient(
            replicas, "find_entities", size=entity_size, **shared
        )
        self.fitted: BatchClient[ClassifierRequest, LabelScores] = BatchClient(
            replicas, "predict", size=classifier_size, **shared
        )
        self._deadline_s = deadline_s
        self._fit_deadline_s = fit_deadline_s

    async def fit(self, model_id: str, request: ClassifierFitRequest) -> ClassifierInfo:
        async with within(self._fit_deadline_s):
            info: ClassifierInfo = await self._replicas.call_once("fit", model_id, request)
        return info

    async def list_classifiers(self, model_id: str) -> list[ClassifierInfo]:
        async with within(self._deadline_s):
            infos: list[ClassifierInfo] = await self._replicas.call("list_classifiers", model_id)
        return infos

    async def get_classifier(self, model_id: str, name: str) -> ClassifierInfo:
        async with within(self._deadline_s):
            info: ClassifierInfo = await self._replicas.call("get_classifier", model_id, name)
        return info

    async def delete_classifier(self, model_id: str, name: str) -> None:
        async with within(self._deadline_s):
            await self._replicas.call_once("delete_classifier", model_id, name)


class OcrClient(BatchClient[OcrRequest, OcrResult]):
    """Images are coalesced; a document has a stream of its own."""

    def __init__(
        self,
        replicas: Replicas,
        *,
        settings: CoalescingSettings,
        deadline_s: float,
        document_deadline_s: float,
    ) -> None:
        super().__init__(
            replicas, "recognize", size=ocr_size, settings=settings, deadline_s=deadline_s
        )
        self._document_deadline_s = document_deadline_s

    def read_document(
        self, model_id: str, request: DocumentRequest
    ) -> AsyncGenerator[DocumentPage]:
        """The pages as they are read; closing the generator ends the reading. Raises ModelError."""
        return self._stream("read_document", model_id, request)

    def answer_document(
        self, model_id: str, ocr_model_id: str, request: DocumentRequest, asked: DocumentQuestions
    ) -> AsyncGenerator[PageAnswers]:
        """What a document model says of each page; closing ends it. Raises ModelError."""
        return self._stream("answer_document", model_id, ocr_model_id, request, asked)

    def page_images(self, request: DocumentRequest) -> AsyncGenerator[tuple[int, bytes]]:
        """Number and PNG file of each page. Raises ModelError."""
        return self._stream("page_images", request)

    async def _stream(self, method: str, *args: Any) -> AsyncGenerator[Any]:
        begun = False
        end = asyncio.get_running_loop().time() + self._document_deadline_s
        items = self._replicas.stream(method, *args, begun=lambda: begun)
        async with aclosing(items):
            while True:
                try:
                    async with asyncio.timeout_at(end):
                        item = await anext(items, None)
                except TimeoutError:
                    raise deadline_exceeded(self._document_deadline_s) from None
                if item is None:
                    return
                begun = True
                yield item


RerankClient = BatchClient[RerankRequest, RerankResult]


@dataclass(frozen=True, slots=True)
class Clients:
    """One client per task."""

    generation: GenerationClient
    embedding: EmbeddingClient
    rerank: RerankClient
    classification: ClassificationClient
    ocr: OcrClient
    anomaly: AnomalyClient

    def by_task(self) -> dict[str, TaskClient]:
        return {name: getattr(self, name) for name in self.__slots__}


class _BatchSettings(TypedDict):
    settings: CoalescingSettings
    deadline_s: float


def make_clients(config: AppConfig, replicas: Mapping[str, Replicas]) -> Clients:
    """A client per task with the configured coalescing and deadlines."""
    shared = _BatchSettings(settings=config.coalescing, deadline_s=config.deadlines.batch_s)
    return Clients(
        generation=GenerationClient(
            replicas["generation"],
            deadline_s=config.deadlines.generation_s,
            text_deadline_s=config.deadlines.batch_s,
        ),
        embedding=EmbeddingClient(replicas["embedding"], "embed", size=embedding_size, **shared),
        rerank=BatchClient(replicas["rerank"], "rank", size=rerank_size, **shared),
        classification=ClassificationClient(
            replicas["classification"], fit_deadline_s=config.deadlines.fit_s, **shared
        ),
        ocr=OcrClient(replicas["ocr"], document_deadline_s=config.deadlines.document_s, **shared),
        anomaly=AnomalyClient(replicas["anomaly"], fit_deadline_s=config.deadlines.fit_s, **shared),
    )


def embedding_size(request: EmbeddingRequest) -> int:
    return sum(len(i) * (1 if isinstance(i, str) else CHARS_PER_TOKEN) for i in request.inputs)


def rerank_size(request: RerankRequest) -> int:
    return len(request.query) * len(request.documents) + sum(map(len, request.documents))


def classification_size(request: ClassificationRequest) -> int:
    """Zero-shot, every text is read once with each label."""
    texts = sum(len(t) if isinstance(t, str) else sum(map(len, t)) for t in request.texts)
    if request.labels is None:
        return texts
    hypotheses = sum(len(request.hypothesis) + len(label) for label in request.labels)
    return texts * len(request.labels) + hypotheses * len(request.texts)


def entity_size(request: EntityRequest) -> int:
    return sum(map(len, request.texts))


def classifier_size(request: ClassifierRequest) -> int:
    """In numbers."""
    return int(request.vectors.size)


def ocr_size(request: OcrRequest) -> int:
    return sum(map(len, request.images))
