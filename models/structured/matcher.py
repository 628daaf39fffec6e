"""A grammar at work on one completion."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from llguidance import LLMatcher

from models.errors import ModelError
from models.types import FloatArray

_LIMITS = ("ParserTooComplex", "LexerTooComplex")


def _forbidden_by_byte() -> npt.NDArray[np.uint64]:
    """For each byte of a bit mask, eight booleans that say which of its tokens are forbidden, as
    one number: [256]."""
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    table = np.ascontiguousarray(bits == 0).view(np.uint64)[:, 0]
    table.flags.writeable = False
    return table


_FORBIDDEN_BY_BYTE = _forbidden_by_byte()


class GrammarConstraint:
    """The `TokenConstraint` of a grammar: `matcher` is its own, `size` the size of the vocabulary.

    What it needs per step is allocated once: a bit and a boolean per token.
    """

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self._matcher = matcher
        self._size = size
        words = (size + 31) // 32
        self._mask = np.zeros(words, np.uint32)
        self._bytes = self._mask.view(np.uint8)
        self._forbidden = np.zeros(4 * words, np.uint64)
        self._flags = self._forbidden.view(np.bool_)
        self._finished = matcher.is_stopped()

    @property
    def finished(self) -> bool:
        return self._finished

    def mask(self, logits: FloatArray) -> None:
        """Rows may be longer than the vocabulary (padding is forbidden) or shorter."""
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        np.take(_FORBIDDEN_BY_BYTE, self._bytes, out=self._forbidden, mode="clip")
        known = min(self._size, len(logits))
        np.copyto(logits[:known], -np.inf, where=self._flags[:known])
        logits[known:] = -np.inf

    def accept(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            self._check()
            raise ModelError("A token was chosen that the grammar does not allow.")
        self._check()

    def _check(self) -> None:
        """Look at the state of the matcher, which never raises: in a faulty state, all that it
        says is that the completion should end."""
        if self._matcher.is_error():
            if self._matcher.stop_reason() in _LIMITS:
                raise ModelError("The output's grammar has become too complex to follow.")
            raise ModelError("A token was chosen that the grammar does not allow.")
        self._finished = self._matcher.is_stopped()
