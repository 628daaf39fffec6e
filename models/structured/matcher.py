"""A grammar at work on one completion."""

from __future__ import annotations

import numpy as np
from llguidance import LLMatcher

from models.errors import InvalidInputError
from models.types.common import FloatArray

_FAILED = "The output cannot be held to its format any further."
"""The grammar became too complex, nothing fits the rest of it (as with the pattern "a\\x00"), or a
token was accepted that it forbids. llguidance's own errors do not tell them apart: past a limit, a
token that was allowed may be said not to fit."""


class GrammarConstraint:
    """The `TokenConstraint` of a grammar; `size` tokens are in the vocabulary, and nobody else has
    the `matcher`. `param` is the request's field that asked for the grammar."""

    def __init__(self, matcher: LLMatcher, size: int, param: str) -> None:
        self._matcher = matcher
        self._size = size
        self._param = param
        self._bits = np.zeros((size + 31) // 32, np.uint32)
        self._bytes = self._bits.view(np.uint8)
        self._finished = matcher.is_stopped()

    @property
    def finished(self) -> bool:
        return self._finished

    def mask(self, logits: FloatArray) -> None:
        """Rows may be longer than the vocabulary (padding is forbidden) or shorter."""
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        np.invert(self._bits, out=self._bits)
        forbidden = np.unpackbits(self._bytes, bitorder="little").view(np.bool_)
        known = min(self._size, len(logits))
        np.copyto(logits[:known], -np.inf, where=forbidden[:known])
        logits[known:] = -np.inf

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            raise InvalidInputError(_FAILED, self._param)
        self._check()

    def _check(self) -> None:
        """Raise what went wrong: a matcher never does, and says in a faulty state that the
        completion should end."""
        if self._matcher.is_error():
            raise InvalidInputError(_FAILED, self._param)
        self._finished = self._matcher.is_stopped()
