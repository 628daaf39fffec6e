"""What every model must satisfy, one Protocol per task.

Models are synchronous and know no event loop. `memory_bytes` is what the weights and fixed buffers
hold; `close` frees them and may be called twice. Real models and their weightless twins in
`models/toy/` satisfy the same Protocols and run through the same contract tests.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar, runtime_checkable

from models.errors import ModelError
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
    GenerationRequest,
    TextDelta,
    TokenizeRequest,
    Tokens,
)
from models.types.pages import (
    DocumentQuestions,
    DocumentTask,
    OcrRequest,
    OcrResult,
    PageAnswers,
    PageQuestions,
)
from models.types.texts import (
    EmbeddingRequest,
    EmbeddingResult,
    EncoderInfo,
    RerankRequest,
    RerankResult,
    TextToken,
)

RequestT = TypeVar("RequestT", contravariant=True)
ResultT = TypeVar("ResultT")

StepListener = Callable[[Sequence[tuple[str, TextDelta | ModelError]]], None]
"""Receives, once per engine step and on the engine's thread, what the step added to each request.

The pair is (request id, delta); a `ModelError` ends its request."""


class Model(Protocol):
    """A loaded model."""

    @property
    def memory_bytes(self) -> int: ...

    @property
    def alive(self) -> bool:
        """False once the engine's thread has ended, for whatever reason."""

    def close(self) -> None: ...


class Generator(Model, Protocol):
    """A generation engine with continuous batching: its own thread, its own KV cache."""

    @property
    def context_length(self) -> int: ...

    def add(self, request_id: str, request: GenerationRequest) -> None:
        """Queue one request (of its `n` the engine serves one choice).

        Raises InvalidInputError, InputTooLongError, OverloadedError or EngineDeadError at once;
        afterwards every event goes to the listener given at construction. Thread-safe, but
        tokenises on the calling thread: keep it off an event loop.
        """

    def cancel(self, request_id: str) -> None:
        """Forget a request within one step; unknown ids are ignored. Thread-safe."""

    def tokenize(self, request: TokenizeRequest) -> Tokens:
        """The tokens of a text or a rendered chat, however many. Thread-safe, as are the next.

        Raises InvalidInputError or EngineDeadError.
        """

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of token ids; control tokens have none. InvalidInputError for unknown ids."""

    def render(self, prompt: ChatPrompt) -> str:
        """The text that a chat becomes. InvalidInputError when the model cannot take it."""


class BatchModel(Model, Protocol[RequestT, ResultT]):
    """A model that answers many clients' requests in shared batches."""

    def submit(self, requests: Sequence[RequestT]) -> Future[list[ResultT | ModelError]]:
        """Queue requests and return at once; thread-safe, nothing heavy on the calling thread.

        The future's list has one entry per request, in order; a request that fails alone is its
        `ModelError`. Whatever waits when the compute thread is free leaves in one token-budgeted
        batch; a request larger than the budget is split and takes turns with the others.
        Cancelling the future drops what has not been computed yet.
        Raises OverloadedError when the queue is full, EngineDeadError when the thread has ended.
        """


class Encoder(BatchModel[EmbeddingRequest, EmbeddingResult], Protocol):
    """A bi-encoder: texts in, vectors out."""

    @property
    def dimensions(self) -> int: ...

    @property
    def max_tokens(self) -> int: ...

    @property
    def info(self) -> EncoderInfo: ...

    def tokenize(
        self, texts: Sequence[str], *, specials: bool = True, prompt_name: str | None = None
    ) -> list[list[TextToken]]:
        """Tokens of every text, however many. Thread-safe, as is the next.

        Raises InvalidInputError.
        """

    def detokenize(
        self, sequences: Sequence[Sequence[int]], *, skip_specials: bool = True
    ) -> list[str]:
        """The text of every sequence of ids. Raises InvalidInputError."""


class Reranker(BatchModel[RerankRequest, RerankResult], Protocol):
    """A cross-encoder: a query and documents in, one score per document out."""

    @property
    def max_tokens(self) -> int: ...


@runtime_checkable
class Classifier(BatchModel[ClassificationRequest, ClassificationResult], Protocol):
    """A sequence classifier: texts or pairs in, a score per label out.

    Natural language inference models also take the request's own labels.
    """

    @property
    def labels(self) -> tuple[str, ...]: ...

    @property
    def max_tokens(self) -> int: ...


@runtime_checkable
class EntityRecognizer(BatchModel[EntityRequest, EntityResult], Protocol):
    """A token classifier: texts in, labelled parts of them out."""

    @property
    def entity_labels(self) -> tuple[str, ...]:
        """What entities may be called, without the prefixes of a scheme."""

    @property
    def max_tokens(self) -> int:
        """Of one window; longer texts are read in several."""


@runtime_checkable
class ClassifierLibrary(Model, Protocol):
    """Classifiers that clients have fitted, by name, kept on disk; blocking and thread-safe."""

    def fit(self, request: ClassifierFitRequest) -> ClassifierInfo:
        """Fit, store and replace. Raises InvalidInputError, OverloadedError or StorageError."""

    def predict(
        self, requests: Sequence[ClassifierRequest]
    ) -> builtins.list[LabelScores | ModelError]:
        """One entry per request, in order; a request that fails alone is its error."""

    def list(self) -> builtins.list[ClassifierInfo]: ...

    def get(self, name: str) -> ClassifierInfo:
        """Raises ModelNotFoundError."""

    def delete(self, name: str) -> None:
        """Raises ModelNotFoundError."""


class TextRecognizer(BatchModel[OcrRequest, OcrResult], Protocol):
    """OCR: images in, pages of text lines out."""


@runtime_checkable
class DocumentModel(BatchModel[PageQuestions, PageAnswers], Protocol):
    """Pages and what is asked about them in; fields, answers or labels out.

    `reads_words`: a page must come with its words, which OCR has found; `sees_pixels`: with pixels.
    """

    reads_words: bool
    sees_pixels: bool
    document_tasks: tuple[DocumentTask, ...]

    def check(self, asked: DocumentQuestions) -> None:
        """What is submitted must have passed. Thread-safe.

        Raises UnsupportedTaskError for a task that the model was not trained for, InvalidInputError
        for a question that it cannot take.
        """
