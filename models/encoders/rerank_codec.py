"""Rerank requests to token pairs, and logits to scores."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from models.encoders.text_engine import estimate_tokens
from models.encoders.tokenization import (
    Content,
    EncoderTokenizer,
    TokenSequence,
    check_text,
    check_unicode,
)
from models.errors import InputTooLongError, InvalidInputError, ModelError, ModelLoadError
from models.model_folder import ModelFolder
from models.types.common import FloatArray, Usage
from models.types.texts import RerankRequest, RerankResult, TruncationSide

Activation = Callable[[float], float]


def sigmoid(logit: float) -> float:
    """Without overflow for large negative logits."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    return math.exp(logit) / (1 + math.exp(logit))


def identity(logit: float) -> float:
    return logit


def activation_named(path: str | None) -> Activation:
    """From the dotted name in a cross-encoder's configuration; sigmoid when there is none."""
    name = (path or "Sigmoid").rpartition(".")[2]
    known: dict[str, Activation] = {"Sigmoid": sigmoid, "Identity": identity}
    if name not in known:
        raise ModelLoadError(f"the activation {name} of a reranker is not supported")
    return known[name]


def own_activation(folder: ModelFolder) -> Activation:
    """The one that the model's folder names, or sigmoid. Raises ModelLoadError.

    Looked for where sentence-transformers has written it over the years, newest first.
    """
    config = folder.read_object("config.json")
    newest = folder.read_object("config_sentence_transformers.json").get("activation_fn")
    newer = (config.get("sentence_transformers") or {}).get("activation_fn")
    return activation_named(newest or newer or config.get("sbert_ce_default_activation_function"))


@dataclass(frozen=True, slots=True)
class RerankCodec:
    """`Codec` of every cross-encoder. Pairs that are too long are cut by the rule of `shares`.

    `max_tokens_per_document` applies to documents before that, whether or not `truncate` is on.
    With windows a document becomes several pairs, of which the best counts.
    """

    tokenizer: EncoderTokenizer
    max_tokens: int
    activation: Activation = sigmoid

    def estimate(self, request: RerankRequest) -> int:
        query = estimate_tokens(request.query)
        sizes = (query + estimate_tokens(document) for document in request.documents)
        return sum(min(size, self.max_tokens * request.windows) for size in sizes)

    def encode(self, requests: Sequence[RerankRequest]) -> list[list[TokenSequence] | ModelError]:
        """All queries and documents of all sound requests go through the tokenizer in one call."""
        faults = [_fault(request) for request in requests]
        texts = [
            text
            for request, fault in zip(requests, faults, strict=True)
            if fault is None
            for text in (request.query, *request.documents)
        ]
        parts = iter(self.tokenizer.contents(texts))
        entries: list[list[TokenSequence] | ModelError] = []
        for request, fault in zip(requests, faults, strict=True):
            if fault is not None:
                entries.append(fault)
                continue
            query, *documents = [next(parts) for _ in range(1 + len(request.documents))]
            entries.append(self._pairs(request, query, documents))
        return entries

    def decode(
        self, request: RerankRequest, sequences: list[TokenSequence], rows: list[FloatArray]
    ) -> RerankResult:
        logits = tuple(float(row[0]) for row in rows)
        if not all(map(math.isfinite, logits)):
            raise ModelError("The model gives no finite score for this input.")
        if request.windows > 1:
            logits = _best_of_each(sequences, logits)
        scores = tuple(self.activation(logit) for logit in logits)
        return RerankResult(logits, scores, Usage(prompt_tokens=sum(map(len, sequences))))

    def _pairs(
        self, request: RerankRequest, query: Content, documents: list[Content]
    ) -> list[TokenSequence] | ModelError:
        if request.max_tokens_per_document is not None:
            for document in documents:
                self.tokenizer.cut(
                    document, request.max_tokens_per_document, request.truncation_side
                )
        specials = self.tokenizer.specials(pair=True)
        room = self.max_tokens - specials
        longest = max(map(len, documents))
        asked = len(query)
        refused = not request.truncate and request.windows == 1
        if asked + longest > room and refused:
            tokens = specials + asked + longest
            at_fault = "documents" if asked < room else "query"
            return InputTooLongError(tokens, self.max_tokens, at_fault)
        side = request.truncation_side if request.windows == 1 else None
        self.tokenizer.cut(query, room, side)  # once: it is copied for documents that leave it less
        if request.windows == 1:
            return [self._pair(query, asked, document, room, side) for document in documents]
        return [
            replace(self._pair(query, asked, piece, room), item=index)
            for index, document in enumerate(documents)
            for piece in self._windows(request, asked, document, room)
        ]

    def _windows(
        self, request: RerankRequest, query: int, document: Content, room: int
    ) -> list[Content]:
        """A document in pieces that fit beside a query of so many tokens."""
        if query + len(document) <= room:
            return [document]
        # At least half of the room: it is a long query that is cut, not the window.
        size = max(room - query, room // 2)
        pieces = self.tokenizer.windows(document, size, min(request.overlap, size // 2))
        return pieces[: request.windows]

    def _pair(
        self,
        query: Content,
        asked: int,
        document: Content,
        room: int,
        side: TruncationSide | None = None,
    ) -> TokenSequence:
        """`asked`: the tokens of the whole query, of which `query` has no more than `room`."""
        query_share, document_share = shares(asked, len(document), room)
        if query_share < len(query):  # other documents may leave it more
            query = copy.copy(query)
            self.tokenizer.cut(query, query_share, side)
        self.tokenizer.cut(document, document_share, side)
        return self.tokenizer.pair(query, document)


def _best_of_each(sequences: Sequence[TokenSequence], logits: Sequence[float]) -> tuple[float, ...]:
    """The highest logit among the windows of every document."""
    best: dict[int, float] = {}
    for sequence, logit in zip(sequences, logits, strict=True):
        best[sequence.item] = max(logit, best.get(sequence.item, logit))
    return tuple(best.values())


def shares(query: int, document: int, room: int) -> tuple[int, int]:
    """Tokens of `room` for each, by the "longest first" rule of Hugging Face tokenizers.

    The longer one is cut; when even the shorter one has more than half of `room`, both get half.
    """
    if query + document <= room:
        return query, document
    shorter = min(query, document)
    if 2 * shorter <= room:
        longer = room - shorter
    else:
        shorter, longer = room // 2, room - room // 2
    return (shorter, longer) if query <= document else (longer, shorter)


def _fault(request: RerankRequest) -> InvalidInputError | None:
    try:
        _check(request)
    except InvalidInputError as error:
        return error
    return None


def _check(request: RerankRequest) -> None:
    if not request.documents:
        raise InvalidInputError("'documents' must not be empty.", "documents")
    if request.max_tokens_per_document is not None and request.max_tokens_per_document < 1:
        raise InvalidInputError("'max_tokens_per_doc' must be positive.", "max_tokens_per_doc")
    if request.windows < 1 or request.overlap < 0:
        message = "There is at least one window, and 'overlap' is not negative."
        raise InvalidInputError(message, "overlap")
    check_text(request.query, "query")
    for document in request.documents:
        check_unicode(document, "documents")
