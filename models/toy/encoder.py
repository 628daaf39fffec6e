"""A bi-encoder and a cross-encoder without weights, for tests and for trying the server out.

Tokens are bytes; a text is the bag of its byte trigrams. So texts that share words are close,
results never change, and everything around the model is the real engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing

from models.batching import BatchListener
from models.encoders.embedding_codec import EmbeddingCodec
from models.encoders.embedding_engine import EmbeddingEngine
from models.encoders.embedding_outputs import sparse_row
from models.encoders.embedding_prompts import PromptBook
from models.encoders.rerank_codec import RerankCodec
from models.encoders.text_engine import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_QUEUED_TOKENS,
    EngineOptions,
    TextEngine,
)
from models.encoders.tokenization import TextTokenizer, TokenSequence
from models.toy.faults import Faults
from models.types.common import FloatArray
from models.types.texts import RerankRequest, RerankResult

DIMENSIONS = 64
MAX_TOKENS = 2048
PROMPTS = {"query": "query: ", "document": ""}
MULTIPLIERS = np.array([1_000_003, 8_191, 131], dtype=np.int64)
BUCKETS = 1 << 20
LOGIT_RANGE = (-6.0, 6.0)
CHARACTERS = (" ", " ", *sorted(ByteLevel.alphabet()))
"""By token id; the special tokens, and the bytes that a tokenizer shows as other characters, are
no letters of ours."""
Compute = Callable[[list[TokenSequence]], Sequence[FloatArray]]


class ToyEncoder(EmbeddingEngine):
    """The weightless twin of `TorchEncoder`: hashed byte trigrams, counted."""

    def __init__(
        self,
        *,
        dimensions: int = DIMENSIONS,
        max_tokens: int = MAX_TOKENS,
        sparse: bool = False,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
        faults: Mapping[str, str | bool] | None = None,
    ) -> None:
        """`sparse`: gives counts of bytes, as sparse vectors, and nothing else."""
        super().__init__(
            EmbeddingCodec(
                byte_tokenizer(),
                dimensions,
                max_tokens,
                PromptBook(PROMPTS),
                normalizes=True,
                late_chunking=not sparse,
                kinds=("sparse",) if sparse else ("dense", "tokens"),
            ),
            faulty(_byte_counts if sparse else self._rows, faults),
            memory_bytes=0,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
            pooling="mean",
        )

    def _rows(self, sequences: list[TokenSequence]) -> list[FloatArray]:
        return [self._row(sequence) for sequence in sequences]

    def _row(self, sequence: TokenSequence) -> FloatArray:
        if sequence.spans is None:
            return _vector(sequence.ids, self.dimensions)
        parts = (sequence.ids[start:stop] for start, stop in sequence.spans)
        return np.stack([_vector(ids, self.dimensions) for ids in parts])


class ToyReranker(TextEngine[RerankRequest, RerankResult]):
    """The weightless twin of `TorchReranker`: the share of the query's trigrams in the document."""

    def __init__(
        self,
        *,
        max_tokens: int = MAX_TOKENS,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
        faults: Mapping[str, str | bool] | None = None,
    ) -> None:
        super().__init__(
            RerankCodec(byte_tokenizer(), max_tokens),
            faulty(_logits, faults),
            max_tokens=max_tokens,
            memory_bytes=0,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )


def byte_tokenizer() -> TextTokenizer:
    """One token per byte between [CLS] and [SEP]."""
    alphabet = ["[CLS]", "[SEP]", *sorted(ByteLevel.alphabet())]
    tokenizer = Tokenizer(BPE({token: i for i, token in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens(["[CLS]", "[SEP]"])
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 0), ("[SEP]", 1)],
    )
    return TextTokenizer(tokenizer, has_types=True)


def faulty(compute: Compute, options: Mapping[str, str | bool] | None) -> Compute:
    """The same with faults on purpose, see `Faults`; has the one of loading at once."""
    faults = Faults.of(options)
    faults.at_load()

    def checked(sequences: list[TokenSequence]) -> Sequence[FloatArray]:
        for sequence in sequences:
            faults.in_text("".join(CHARACTERS[token] for token in sequence.ids))
        return compute(sequences)

    return checked if faults.infer else compute


def _byte_counts(sequences: list[TokenSequence]) -> list[FloatArray]:
    return [sparse_row(np.bincount(s.ids).astype(np.float32)) for s in sequences]


def _trigrams(ids: Sequence[int]) -> npt.NDArray[np.int64]:
    """Hashes of the windows of three tokens, short texts padded with zeros."""
    padded = np.array([0, *ids, 0], dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 3)
    hashes: npt.NDArray[np.int64] = windows @ MULTIPLIERS % BUCKETS
    return hashes


def _vector(ids: Sequence[int], dimensions: int) -> FloatArray:
    hashes = _trigrams(ids)
    signs = np.where(hashes // dimensions % 2, 1.0, -1.0)
    vector = np.bincount(hashes % dimensions, weights=signs, minlength=dimensions)
    vector[0] += 1e-3  # never the zero vector
    return np.asarray(vector, dtype=np.float32)


def _logits(sequences: list[TokenSequence]) -> list[FloatArray]:
    return [np.array([overlap_logit(sequence)], dtype=np.float32) for sequence in sequences]


def overlap_logit(pair: TokenSequence) -> float:
    types = pair.type_ids or [0] * len(pair.ids)  # one text alone has nothing in common
    sides: tuple[list[int], list[int]] = ([], [])
    for token, side in zip(pair.ids, types, strict=True):
        sides[side].append(token)
    query, document = (set(_trigrams(side).tolist()) if side else set() for side in sides)
    low, high = LOGIT_RANGE
    return low + (high - low) * len(query & document) / max(1, len(query))
