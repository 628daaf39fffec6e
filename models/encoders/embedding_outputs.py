"""What a row of features holds for each kind of embedding, and how it is read.

A row is a vector; of a sequence with spans a matrix, a vector per span. The vectors of a sequence's
tokens are asked for as spans of one token each, after one of all tokens for the dense vector. A
sparse row is [2, entries]: indices (exact in float32, as vocabularies are far below 2^24), values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.encoders.tokenization import TokenSequence
from models.errors import ModelError
from models.types.common import FloatArray, Usage
from models.types.texts import EmbeddingKind, EmbeddingResult, SparseVector


def with_token_spans(sequence: TokenSequence, kinds: Sequence[EmbeddingKind]) -> TokenSequence:
    """The sequence with the spans that `kinds` need, or as it is."""
    if "tokens" not in kinds:
        return sequence
    each = [(start, start + 1) for start in range(len(sequence))]
    whole = [(0, len(sequence))] if "dense" in kinds else []
    return replace(sequence, spans=(*whole, *each))


def read_rows(
    kinds: Sequence[EmbeddingKind],
    sequences: Sequence[TokenSequence],
    rows: Sequence[FloatArray],
    dimensions: int,
) -> EmbeddingResult:
    """The vectors as the model gave them. ModelError when some number is not finite."""
    if not all(np.isfinite(row).all() for row in rows):
        raise ModelError("The model gives no finite vector for this input.")
    lengths = tuple(map(len, sequences))
    usage = Usage(prompt_tokens=sum(lengths))
    none = np.zeros((0, dimensions), dtype=np.float32)
    if "sparse" in kinds:
        return EmbeddingResult(none, usage, lengths, sparse=tuple(map(_sparse, rows)))
    if "tokens" not in kinds:
        return EmbeddingResult(np.stack(rows), usage, lengths)
    if "dense" not in kinds:
        return EmbeddingResult(none, usage, lengths, token_vectors=tuple(rows))
    dense = np.stack([row[0] for row in rows])
    return EmbeddingResult(dense, usage, lengths, token_vectors=tuple(row[1:] for row in rows))


def sparse_row(values: FloatArray) -> FloatArray:
    """A vector over the vocabulary as the row [2, entries] of what is not zero in it."""
    indices = np.flatnonzero(values)
    return np.stack([indices.astype(np.float32), values[indices]])


def _sparse(row: FloatArray) -> SparseVector:
    return SparseVector(row[0].astype(np.int32), row[1].copy())


def unit_length(vectors: FloatArray) -> FloatArray:
    """Rows of unit length (a zero vector stays one)."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(norms, 1e-12), dtype=np.float32)
