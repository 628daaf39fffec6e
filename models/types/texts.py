"""Embeddings and reranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from models.types.common import FloatArray, Usage

Purpose = Literal["query", "document", "classification", "clustering", "similarity"]
TruncationSide = Literal["left", "right"]
Vocabulary = Literal["native", "cl100k"]
EmbeddingKind = Literal["dense", "tokens", "sparse"]


@dataclass(frozen=True, slots=True)
class EmbeddingRequest:
    """`inputs` are texts, or token ids of `vocabulary` ("native": the model's own).

    `dimensions` truncates and renormalises. `truncate` cuts over-long inputs at the model's limit,
    or at `max_tokens` (special tokens included), instead of refusing them, at `truncation_side`
    (None: the side of the model's tokenizer). `prompt_name` is one of the model's own prompts, put
    before every text; else `purpose` chooses among them; else it is the model's default prompt, if
    it has one. `normalize` None: what the model's authors do. `late_chunking`: the inputs are
    parts of one text, read in one context and pooled one by one. `kinds` are what is wanted of
    every input: its vector, the vectors of its tokens, its sparse vector.
    """

    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    truncate: bool = False
    prompt_name: str | None = None
    purpose: Purpose | None = None
    max_tokens: int | None = None
    truncation_side: TruncationSide | None = None
    add_special_tokens: bool = True
    normalize: bool | None = None
    late_chunking: bool = False
    vocabulary: Vocabulary = "native"
    kinds: tuple[EmbeddingKind, ...] = ("dense",)


@dataclass(frozen=True, slots=True)
class SparseVector:
    """What is not zero of a vector over the vocabulary: int32 `indices`, float32 `values`."""

    indices: npt.NDArray[np.int32]
    values: FloatArray


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """`vectors` is float32 [len(inputs), dimensions], without rows unless "dense" was wanted.

    `input_tokens` are the tokens of each input that was computed on its own. `token_vectors` has a
    float32 [tokens, hidden] for each input, `sparse` a vector, where they were wanted.
    """

    vectors: FloatArray
    usage: Usage
    input_tokens: tuple[int, ...] = ()
    token_vectors: tuple[FloatArray, ...] = ()
    sparse: tuple[SparseVector, ...] = ()


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What a loaded bi-encoder is; `prompts` are the names of its own prompts.

    `dimensions` are those of whatever vectors it gives, which `kinds` tells.
    """

    dimensions: int
    max_tokens: int
    max_batch_tokens: int
    pooling: str
    dtype: str
    prompts: tuple[str, ...] = ()
    kinds: tuple[EmbeddingKind, ...] = ("dense",)


@dataclass(frozen=True, slots=True)
class TextToken:
    """A token and the characters [start, stop) it stands for; None for special tokens."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """One query against documents; over-long documents are cut unless `truncate` is False.

    With `windows` above 1 they are not cut but read in up to so many windows, of which neighbours
    share `overlap` tokens; the best window is the document's score. `truncation_side` is where they
    are cut (None: the side of the model's tokenizer).
    """

    query: str
    documents: tuple[str, ...]
    truncate: bool = True
    max_tokens_per_document: int | None = None
    windows: int = 1
    overlap: int = 0
    truncation_side: TruncationSide | None = None


@dataclass(frozen=True, slots=True)
class RerankResult:
    """`logits` are the head's raw outputs, `scores` after the model's own activation."""

    logits: tuple[float, ...]
    scores: tuple[float, ...]
    usage: Usage
