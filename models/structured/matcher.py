"""A grammar at work on one completion."""

from __future__ import annotations

import numpy as np
from llguidance import LLMatcher

from models.errors import ModelError
from models.types import FloatArray

_FORBIDDEN = ("doesn't satisfy the grammar", "parser stopped")
"""In llguidance's message when a token did not fit; all its other errors are limits. Its stop
reasons do not tell the two apart."""

NOT_ALLOWED = "A token was chosen that the output's grammar does not allow."
TOO_COMPLEX = "The output's grammar has become too complex to follow."


class GrammarConstraint:
    """The `TokenConstraint` of a grammar; `size` tokens are in the vocabulary, and nobody else has
    the `matcher`."""

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self._matcher = matcher
        self._size = size
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
        fits = self._matcher.consume_token(token)
        self._check()
        if not fits:
            raise ModelError(NOT_ALLOWED)

    def _check(self) -> None:
        """Raise what went wrong: a matcher never does, and says in a faulty state that the
        completion should end."""
        if self._matcher.is_error():
            error = self._matcher.get_error()
            forbidden = any(part in error for part in _FORBIDDEN)
            raise ModelError(NOT_ALLOWED if forbidden else TOO_COMPLEX)
        self._finished = self._matcher.is_stopped()
