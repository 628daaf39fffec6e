"""Embedding requests to token sequences, and rows of features to vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from models.encoders.embedding_outputs import read_rows, unit_length, with_token_spans
from models.encoders.embedding_prompts import PromptBook
from models.encoders.text_engine import estimate_tokens
from models.encoders.tokenization import Content, EncoderTokenizer, TokenSequence, check_text
from models.errors import InputTooLongError, InvalidInputError, ModelError
from models.types.common import FloatArray
from models.types.texts import EmbeddingKind, EmbeddingRequest, EmbeddingResult

KIND_NAMES: dict[EmbeddingKind, str] = {
    "dense": "dense vectors",
    "tokens": "vectors of its tokens",
    "sparse": "sparse vectors",
}


@dataclass(frozen=True, slots=True)
class EmbeddingCodec:
    """`Codec` of every bi-encoder. Prompts are put before texts, never before token ids.

    `normalizes`: the model's vectors have unit length, and its rows come before that step.
    `late_chunking`: its pooling can be applied to parts of a sequence. `kinds` are what it gives,
    either sparse vectors or any of the others.
    """

    tokenizer: EncoderTokenizer
    dimensions: int
    max_tokens: int
    prompts: PromptBook = field(default_factory=PromptBook)
    normalizes: bool = False
    late_chunking: bool = False
    kinds: tuple[EmbeddingKind, ...] = ("dense",)

    def estimate(self, request: EmbeddingRequest) -> int:
        sizes = (estimate_tokens(i) if isinstance(i, str) else len(i) for i in request.inputs)
        return sum(min(size, self.max_tokens) for size in sizes)

    def encode(
        self, requests: Sequence[EmbeddingRequest]
    ) -> list[list[TokenSequence] | ModelError]:
        """All texts of all sound requests go through the tokenizer in one call."""
        prepared = [self._prepared(request) for request in requests]
        texts = [text for entry in prepared if isinstance(entry, list) for text in entry]
        contents = iter(self.tokenizer.contents(texts))
        return [
            self._sequences(request, contents) if isinstance(entry, list) else entry
            for request, entry in zip(requests, prepared, strict=True)
        ]

    def decode(
        self, request: EmbeddingRequest, sequences: list[TokenSequence], rows: list[FloatArray]
    ) -> EmbeddingResult:
        if request.late_chunking:  # one sequence, and a row for each of its parts
            rows = list(rows[0])
        result = read_rows(request.kinds, sequences, rows, self.dimensions)
        normalize = self.normalizes if request.normalize is None else request.normalize
        if self.kinds == ("tokens",):
            if not normalize:
                return result
            return replace(result, token_vectors=tuple(map(unit_length, result.token_vectors)))
        vectors = result.vectors
        if request.dimensions is not None:
            vectors = vectors[:, : request.dimensions]
            normalize = normalize or request.normalize is None
        return replace(result, vectors=unit_length(vectors) if normalize else vectors)

    def _prepared(self, request: EmbeddingRequest) -> list[str] | InvalidInputError:
        """The texts with their prompts, or what is wrong with the request."""
        try:
            self._check(request)
            prefix = self.prompts.prefix(request)
        except InvalidInputError as error:
            return error
        texts = [text for text in request.inputs if isinstance(text, str)]
        if request.late_chunking:  # one text in parts
            return [prefix + texts[0], *texts[1:]]
        return [prefix + text for text in texts]

    def _check(self, request: EmbeddingRequest) -> None:
        if not request.inputs:
            raise InvalidInputError("'input' must not be empty.", "input")
        missing = [kind for kind in request.kinds if kind not in self.kinds]
        if missing:
            raise InvalidInputError(f"This model gives no {KIND_NAMES[missing[0]]}.", "model")
        if request.dimensions is not None and "dense" not in request.kinds:
            raise InvalidInputError("Only dense vectors can be shortened.", "dimensions")
        if request.dimensions is not None and not 1 <= request.dimensions <= self.dimensions:
            raise InvalidInputError(
                f"'dimensions' must be between 1 and {self.dimensions}.", "dimensions"
            )
        if request.late_chunking:
            self._check_late_chunking(request)
        for entry in request.inputs:
            if isinstance(entry, str):
                check_text(entry, "input")
            else:
                self._check_tokens(entry)

    def _check_late_chunking(self, request: EmbeddingRequest) -> None:
        if request.kinds != ("dense",):
            raise InvalidInputError("Late chunking gives dense vectors alone.", "late_chunking")
        if not self.late_chunking:
            raise InvalidInputError("This model does not pool by mean.", "late_chunking")
        if not all(isinstance(entry, str) for entry in request.inputs):
            raise InvalidInputError("Late chunking takes texts, not tokens.", "late_chunking")

    def _check_tokens(self, ids: tuple[int, ...]) -> None:
        if not ids:
            raise InvalidInputError("'input' must not contain an empty list of tokens.", "input")
        if min(ids) < 0 or max(ids) >= self.tokenizer.vocabulary_size:
            raise InvalidInputError("'input' has a token outside the model's vocabulary.", "input")

    def _sequences(
        self, request: EmbeddingRequest, contents: Iterator[Content]
    ) -> list[TokenSequence] | ModelError:
        """What one request asks for; takes one of `contents` for each of its texts."""
        inputs = [next(contents) if isinstance(i, str) else i for i in request.inputs]
        specials = self._specials(request)
        sizes = [len(i) + specials * (not isinstance(i, tuple)) for i in inputs]
        if not all(map(len, inputs) if request.late_chunking else sizes):
            return InvalidInputError("'input' has a text without any token.", "input")
        if request.late_chunking:
            return self._in_one_context(inputs)
        limit = min(self.max_tokens, request.max_tokens or self.max_tokens)
        if max(sizes) > limit and not request.truncate:
            return InputTooLongError(max(sizes), limit, "input")
        if limit <= specials:
            message = f"'{limit}' tokens leave no room beside {specials} special tokens."
            return InvalidInputError(message, "max_tokens")
        return [
            with_token_spans(self._sequence(request, source, limit, specials), request.kinds)
            for source in inputs
        ]

    def _specials(self, request: EmbeddingRequest) -> int:
        """How many special tokens the texts of a request get."""
        if not request.add_special_tokens or not any(isinstance(i, str) for i in request.inputs):
            return 0
        return self.tokenizer.specials(pair=False)

    def _sequence(
        self,
        request: EmbeddingRequest,
        source: Content | tuple[int, ...],
        limit: int,
        specials: int,
    ) -> TokenSequence:
        """Cut to the limit; special tokens are added to texts, not to token ids."""
        side = request.truncation_side
        if not isinstance(source, tuple):
            self.tokenizer.cut(source, limit - specials, side)
            return self.tokenizer.single(source, specials=specials > 0)
        ids = source[-limit:] if side == "left" else source[:limit]
        return TokenSequence(ids, [0] * len(ids) if self.tokenizer.has_types else None)

    def _in_one_context(self, inputs: Sequence[Content]) -> list[TokenSequence] | ModelError:
        """One sequence of all inputs, each pooled on its own. Never cut: parts would be lost."""
        sequence = self.tokenizer.joined(inputs)
        if len(sequence) > self.max_tokens:
            return InputTooLongError(len(sequence), self.max_tokens, "input")
        return [sequence]
