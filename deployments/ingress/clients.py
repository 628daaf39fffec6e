"""The tasks as the routes see them: coalesced, with our own deadlines, ignorant of Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypedDict, TypeVar

from config.settings import AppConfig, CoalescingSettings
from deployments.ingress.coalescer import Coalescer
from deployments.ingress.generation_session import GenerationSession
from deployments.ingress.replicas import Replicas
from models.errors import DeadlineExceededError
from models.types import (
    AnomalyScoreRequest,
    AnomalyScores,
    ChatPrompt,
    ChoiceDelta,
    ClassificationRequest,
    ClassificationResult,
    ClassifierFitRequest,
    ClassifierInfo,
    ClassifierRequest,
    DetectorInfo,
    DocumentPage,
    DocumentRequest,
    EmbeddingRequest,
    EmbeddingResult,
    EncoderInfo,
    EntityRequest,
    EntityResult,
    FitRequest,
    GenerationRequest,
    LabelScores,
    OcrRequest,
    OcrResult,
    ReplicaStatus,
    RerankRequest,
    RerankResult,
    TextToken,
    TokenizeRequest,
    Tokens,
)

RequestT = TypeVar("RequestT")
ResultT = TypeVar("ResultT")


class TaskClient:
    """What all tasks share."""

    def __init__(self, replicas: Replicas) -> None:
        self._replicas = replicas

    async def statuses(self) -> list[ReplicaStatus]:
        """One entry per running replica; wakes none."""
        return await self._replicas.broadcast("status")


class BatchClient(TaskClient, Generic[RequestT, ResultT]):
    """A task whose method takes many requests; small ones for one model share calls.

    `size` measures a request in characters (or cells, or bytes).
    """

    def __init__(
        self,
        replicas: Replicas,
        method: str,
        *,
        size: Callable[[RequestT], int],
        settings: CoalescingSettings,
        deadline_s: float,
    ) -> None:
        super().__init__(replicas)
        self._method = method
        self._size = size
        self._settings = settings
        self._deadline_s = deadline_s
        self._coalescers: dict[str, Coalescer[RequestT, ResultT]] = {}

    async def submit(self, model_id: str, request: RequestT) -> ResultT:
        """The request's result. Raises ModelError; DeadlineExceededError after our deadline.

        `model_id` is an id of the catalogue, so there are never more coalescers than models.
        """
        coalescer = self._coalescers.get(model_id)
        if coalescer is None:
            coalescer = self._coalescers[model_id] = self._coalescer(model_id)
        async with self._deadline():
            return await coalescer.submit(request)

    def _deadline(self) -> AbstractAsyncContextManager[None]:
        return within(self._deadline_s)

    def _coalescer(self, model_id: str) -> Coalescer[RequestT, ResultT]:
        settings = self._settings
        return Coalescer(
            partial(self._replicas.call, self._method, model_id),
            shared_call=partial(self._replicas.call_once, self._method, model_id),
            size=self._size,
            max_size=settings.max_request_chars if settings.enabled else -1,
            max_requests=settings.max_requests,
            max_in_flight=settings.max_in_flight,
        )


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
        late = _deadline_exceeded(self._deadline_s)
        with self._session.call(model_id, requests) as call:
            # One timer for the call: one for every step would cost a third of the step.
            deadline = asyncio.get_running_loop().call_later(self._deadline_s, call.fail, late)
            try:
                while not call.finished:
                    yield await call.take()
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


class AnomalyClient(BatchClient[AnomalyScoreRequest, AnomalyScores]):
    """Scores are coalesced; fitting and deleting run once."""

    def __init__(
        self,
        replicas: Replicas,
        *,
        settings: CoalescingSettings,
        deadline_s: float,
        fit_deadline_s: float,
    ) -> None:
        super().__init__(
            replicas, "score", size=score_size, settings=settings, deadline_s=deadline_s
        )
        self._fit_deadline_s = fit_deadline_s

    async def fit(self, model_id: str, request: FitRequest) -> DetectorInfo:
        async with within(self._fit_deadline_s):
            info: DetectorInfo = await self._replicas.call_once("fit", model_id, request)
        return info

    async def list_detectors(self, model_id: str) -> list[DetectorInfo]:
        async with self._deadline():
            detectors: list[DetectorInfo] = await self._replicas.call("list_detectors", model_id)
        return detectors

    async def get_detector(self, model_id: str, name: str) -> DetectorInfo:
        async with self._deadline():
            info: DetectorInfo = await self._replicas.call("get_detector", model_id, name)
        return info

    async def delete_detector(self, model_id: str, name: str) -> None:
        async with self._deadline():
            await self._replicas.call_once("delete_detector", model_id, name)


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
                    raise _deadline_exceeded(self._document_deadline_s) from None
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
    return sum(map(len, request.inputs))


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


def score_size(request: AnomalyScoreRequest) -> int:
    return sum(map(len, request.table.rows))


@asynccontextmanager
async def within(deadline_s: float) -> AsyncGenerator[None]:
    """Raises DeadlineExceededError when the block takes longer."""
    try:
        async with asyncio.timeout(deadline_s):
            yield
    except TimeoutError:
        raise _deadline_exceeded(deadline_s) from None


def _deadline_exceeded(deadline_s: float) -> DeadlineExceededError:
    return DeadlineExceededError(f"Not answered within the server's deadline of {deadline_s:g} s.")
