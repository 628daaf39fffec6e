"""Embedding requests to token sequences, and rows of features to vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from tokenizers import Encoding

from models.errors import InputTooLongError, InvalidInputError, ModelError
from models.text_engine import estimate_tokens
from models.tokenization import TextTokenizer, TokenSequence, check_text
from models.types import EmbeddingRequest, EmbeddingResult, FloatArray, Usage


@dataclass(frozen=True, slots=True)
class EmbeddingCodec:
    """`Codec` of every bi-encoder. `prompts` are prefixes by name; token ids get none."""

    tokenizer: TextTokenizer
    dimensions: int
    max_tokens: int
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None

    def estimate(self, request: EmbeddingRequest) -> int:
        sizes = (estimate_tokens(i) if isinstance(i, str) else len(i) for i in request.inputs)
        return sum(min(size, self.max_tokens) for size in sizes)

    def encode(
        self, requests: Sequence[EmbeddingRequest]
    ) -> list[list[TokenSequence] | ModelError]:
        """All texts of all sound requests go through the tokenizer in one call."""
        faults = [self._fault(request) for request in requests]
        texts = [
            text
            for request, fault in zip(requests, faults, strict=True)
            if fault is None
            for text in self._prompted(request)
        ]
        contents = iter(self.tokenizer.contents(texts))
        return [
            fault if fault is not None else self._sequences(request, contents)
            for request, fault in zip(requests, faults, strict=True)
        ]

    def decode(
        self, request: EmbeddingRequest, sequences: list[TokenSequence], rows: list[FloatArray]
    ) -> EmbeddingResult:
        vectors = np.stack(rows)
        if not np.isfinite(vectors).all():
            raise ModelError("The model gives no finite vector for this input.")
        if request.dimensions is not None:
            vectors = _shortened(vectors, request.dimensions)
        return EmbeddingResult(vectors, Usage(prompt_tokens=sum(map(len, sequences))))

    def _prompted(self, request: EmbeddingRequest) -> list[str]:
        name = request.prompt_name or self.default_prompt
        prompt = self.prompts.get(name, "") if name else ""
        return [prompt + text for text in request.inputs if isinstance(text, str)]

    def _fault(self, request: EmbeddingRequest) -> InvalidInputError | None:
        try:
            self._check(request)
        except InvalidInputError as error:
            return error
        return None

    def _check(self, request: EmbeddingRequest) -> None:
        if not request.inputs:
            raise InvalidInputError("'input' must not be empty.", "input")
        if request.dimensions is not None and not 1 <= request.dimensions <= self.dimensions:
            raise InvalidInputError(
                f"'dimensions' must be between 1 and {self.dimensions}.", "dimensions"
            )
        if request.prompt_name is not None and request.prompt_name not in self.prompts:
            raise InvalidInputError("This model has no prompt of this name.", "prompt_name")
        for entry in request.inputs:
            if isinstance(entry, str):
                check_text(entry, "input")
            else:
                self._check_tokens(entry)

    def _check_tokens(self, ids: tuple[int, ...]) -> None:
        if not ids:
            raise InvalidInputError("'input' must not contain an empty list of tokens.", "input")
        if min(ids) < 0 or max(ids) >= self.tokenizer.vocabulary_size:
            raise InvalidInputError("'input' has a token outside the model's vocabulary.", "input")

    def _sequences(
        self, request: EmbeddingRequest, contents: Iterator[Encoding]
    ) -> list[TokenSequence] | ModelError:
        """What one request asks for; takes one of `contents` for each of its texts."""
        inputs = [next(contents) if isinstance(i, str) else i for i in request.inputs]
        specials = self.tokenizer.specials(pair=False)
        sizes = [len(i) + specials * isinstance(i, Encoding) for i in inputs]
        if not all(sizes):
            return InvalidInputError("'input' has a text without any token.", "input")
        if max(sizes) > self.max_tokens and not request.truncate:
            return InputTooLongError(max(sizes), self.max_tokens, "input")
        return [self._sequence(i, self.max_tokens - specials) for i in inputs]

    def _sequence(self, source: Encoding | tuple[int, ...], room: int) -> TokenSequence:
        """Cut to the limit; special tokens are added to texts, not to token ids."""
        if isinstance(source, Encoding):
            self.tokenizer.cut(source, room)
            return self.tokenizer.single(source)
        ids = source[: self.max_tokens]
        return TokenSequence(ids, [0] * len(ids) if self.tokenizer.has_types else None)


def _shortened(vectors: FloatArray, dimensions: int) -> FloatArray:
    """The first `dimensions`, back to unit length (a zero vector stays one)."""
    vectors = vectors[:, :dimensions]
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)
