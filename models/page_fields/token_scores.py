"""How sure a model was of a part of what it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import exp

from models.types.generation import TokenLogprob


class TokenScores:
    """Tokens of a text, by the bytes that each covers."""

    def __init__(self, text: str, tokens: Sequence[TokenLogprob]) -> None:
        written = [token for token in tokens if token.raw and token.logprob is not None]
        whole = b"".join(token.raw for token in written)
        self._text = text
        self._offset = whole.rfind(text.encode())
        """Of the text in all that was generated: reasoning may stand before it."""
        stops = list(accumulate(len(token.raw) for token in written))
        self._spans = list(zip([0, *stops], stops, written, strict=False))

    def probability(self, start: int, stop: int) -> float | None:
        """The geometric mean of the probabilities of the tokens of those characters.

        They are the model's own, before a schema limits what it may write. None where the text is
        not what the tokens spell.
        """
        logprobs = self._logprobs(start, stop)
        return exp(sum(logprobs) / len(logprobs)) if logprobs else None

    def log_probability(self) -> float | None:
        """Of the whole text."""
        logprobs = self._logprobs(0, len(self._text))
        return sum(logprobs) if logprobs else None

    def _logprobs(self, start: int, stop: int) -> list[float]:
        if self._offset < 0:
            return []
        first = self._offset + len(self._text[:start].encode())
        last = first + len(self._text[start:stop].encode())
        return [
            token.logprob
            for begin, end, token in self._spans
            if begin < last and end > first and token.logprob is not None
        ]
