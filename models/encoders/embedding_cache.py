"""Vectors that were computed before, for texts that come again. Bounded; the oldest go first."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.types.common import FloatArray, Usage
from models.types.texts import EmbeddingRequest, EmbeddingResult

Key = tuple[str, EmbeddingRequest, bytes]
"""The model, the request without its inputs, the digest of a text."""


@dataclass(frozen=True, slots=True)
class Entry:
    vector: FloatArray
    tokens: int


@dataclass(frozen=True, slots=True)
class Lookup:
    """One request: what is known of each input, and the request for the others, if any."""

    model_id: str
    request: EmbeddingRequest
    known: tuple[Entry | None, ...]
    missing: EmbeddingRequest | None


class EmbeddingCache:
    """At most `entries` vectors of all models together; 0 keeps none.

    Only texts that are embedded on their own are kept: not token ids, nothing of late chunking.
    """

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._kept: OrderedDict[Key, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def look_up(self, model_id: str, request: EmbeddingRequest) -> Lookup:
        if not self._covers(request):
            return Lookup(model_id, request, (None,) * len(request.inputs), request)
        known = tuple(self._find(key) for key in _keys(model_id, request))
        texts = tuple(
            text for text, entry in zip(request.inputs, known, strict=True) if entry is None
        )
        missing = replace(request, inputs=texts) if texts else None
        return Lookup(model_id, request, known, missing)

    def complete(self, lookup: Lookup, computed: EmbeddingResult | None) -> EmbeddingResult:
        """The whole result, in order, with the usage it would have had; keeps what is new."""
        if computed is not None and lookup.missing is lookup.request:  # not one to be kept
            return computed
        new = _entries(computed) if computed is not None else []
        rest = iter(new)
        entries = [entry if entry is not None else next(rest) for entry in lookup.known]
        self._keep(lookup, new)
        tokens = tuple(entry.tokens for entry in entries)
        vectors = np.stack([entry.vector for entry in entries])
        return EmbeddingResult(vectors, Usage(prompt_tokens=sum(tokens)), tokens)

    def _covers(self, request: EmbeddingRequest) -> bool:
        return (
            self._entries > 0
            and request.kinds == ("dense",)
            and not request.late_chunking
            and all(isinstance(entry, str) for entry in request.inputs)
        )

    def _find(self, key: Key) -> Entry | None:
        entry = self._kept.get(key)
        if entry is not None:
            self._kept.move_to_end(key)
        return entry

    def _keep(self, lookup: Lookup, new: Sequence[Entry]) -> None:
        if lookup.missing is None:
            return
        for key, entry in zip(_keys(lookup.model_id, lookup.missing), new, strict=True):
            self._kept[key] = entry
            self._kept.move_to_end(key)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)


def _keys(model_id: str, request: EmbeddingRequest) -> list[Key]:
    options = replace(request, inputs=())
    texts = [text for text in request.inputs if isinstance(text, str)]
    return [(model_id, options, _digest(text)) for text in texts]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _entries(result: EmbeddingResult) -> list[Entry]:
    """Copies: a row of a view would keep all its neighbours in memory."""
    return [
        Entry(row.copy(), tokens)
        for row, tokens in zip(result.vectors, result.input_tokens, strict=True)
    ]
