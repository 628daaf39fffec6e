"""What happens to the models of one replica, for who wants to hear of it."""

from __future__ import annotations

from typing import Literal, Protocol

Reason = Literal["idle", "room", "asked"]
"""Why a model left: nobody has asked for it, another one needed its room, a client said so."""


class ModelEvents(Protocol):
    """Called on the event loop; must not raise."""

    def loaded(self, model_id: str, seconds: float) -> None: ...

    def load_failed(self, model_id: str) -> None: ...

    def unloaded(self, model_id: str, reason: Reason) -> None: ...


class NoEvents:
    """Nobody listens."""

    def loaded(self, model_id: str, seconds: float) -> None: ...

    def load_failed(self, model_id: str) -> None: ...

    def unloaded(self, model_id: str, reason: Reason) -> None: ...
