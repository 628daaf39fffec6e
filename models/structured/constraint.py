"""How a grammar governs the tokens of one request, whatever the engine."""

from __future__ import annotations

from typing import Protocol

from models.types.common import FloatArray


class TokenConstraint(Protocol):
    """Which tokens may follow. Used by one thread, one request."""

    @property
    def finished(self) -> bool:
        """Nothing may follow: the completion is complete."""

    def mask(self, logits: FloatArray) -> None:
        """Set the logits of forbidden tokens to minus infinity, in place; [vocabulary].

        At least one token stays allowed unless `finished`; end tokens are among the allowed ones
        when the completion may end here.
        """

    def accept(self, token: int) -> None:
        """Go on past a token that was chosen. Raises ModelError when it was not allowed."""
