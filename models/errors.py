"""What can go wrong in a model, named by what the caller or the operator must do.

    ModelError                     the request failed for a reason of ours
    ├─ InvalidInputError           the request itself is at fault; `param` names the field
    │  ├─ InputTooLongError        more tokens than the model's context; carries both numbers
    │  ├─ UnsupportedInputError    well-formed, but this model cannot read it (an unreadable image)
    │  ├─ UnsupportedTaskError     the model exists and serves another task
    │  └─ MessageTooLargeError     the request, or its answer, does not pass between processes
    ├─ ModelNotFoundError          no such model id
    ├─ ModelLoadError              weights missing or broken, out of memory, missing dependency
    │  ├─ LoadTimeoutError         still loading when the wait ended: try again later
    │  └─ MemoryRefusedError       other models hold the memory that it needs
    ├─ OutOfMemoryError            there was no memory for it: try again later
    ├─ OverloadedError             a bounded queue is full: try again later
    ├─ DeadlineExceededError       our own deadline passed
    ├─ FitCancelledError           a fit was ended by its client
    ├─ FitCrashedError             the process that fitted has died of the data
    ├─ StorageError                an artefact could not be written or read
    ├─ EngineDeadError             the engine cannot go on; its replica must restart
    └─ ReplicaLostError            the process that served the request died
       └─ ReplicaLostAgainError    and that of the second try too: the request may be at fault

Exceptions know nothing of HTTP: `deployments/ingress/errors.py` holds the one table of statuses.
They cross processes, so every subclass passes its constructor arguments to `super().__init__`
(that is what pickle replays).
"""

from __future__ import annotations


class ModelError(Exception):
    """Base of everything that a model or its replica raises on purpose."""

    @property
    def message(self) -> str:
        """The sentence for the client: no paths, no addresses, no prompt text."""
        return str(self.args[0]) if self.args else "the model failed"


class InvalidInputError(ModelError):
    """The request is at fault. `param` is the wire name of the field, when one is to blame."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message, param)
        self.param = param


class InputTooLongError(InvalidInputError):
    """`tokens` were sent, `limit` is what the model takes."""

    def __init__(self, tokens: int, limit: int, param: str | None = None) -> None:
        ModelError.__init__(self, tokens, limit, param)
        self.tokens = tokens
        self.limit = limit
        self.param = param

    @property
    def message(self) -> str:
        return (
            f"This model's maximum context length is {self.limit} tokens, "
            f"but the input has {self.tokens} tokens."
        )


class UnsupportedInputError(InvalidInputError):
    """Well-formed, but not readable by this model: a broken image, an unknown language."""


class UnsupportedTaskError(InvalidInputError):
    """The model id exists, but the model serves another task."""


class MessageTooLargeError(InvalidInputError):
    """The request or its answer is larger than one message between processes may be."""


class ModelNotFoundError(ModelError):
    """No model of this id in the catalogue or the artefact store."""

    def __init__(self, model_id: str) -> None:
        super().__init__(model_id)
        self.model_id = model_id

    @property
    def message(self) -> str:
        return f"The model '{self.model_id}' does not exist."


class NoModelForTaskError(ModelNotFoundError):
    """The request names no model, and the catalogue has none that could answer it."""

    @property
    def message(self) -> str:
        return f"The catalogue has no model for {self.model_id}; see /v1/models for what there is."


class ModelLoadError(ModelError):
    """The model cannot be loaded now. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 10.0) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after


class LoadTimeoutError(ModelLoadError):
    """The load goes on, but this request has waited long enough."""


class MemoryRefusedError(ModelLoadError):
    """There is no room for the model; the message names what holds the memory.

    `missing` bytes would have to be free besides; 0: nobody can tell how many.
    """

    def __init__(self, message: str, retry_after: float = 10.0, missing: int = 0) -> None:
        ModelError.__init__(self, message, retry_after, missing)
        self.retry_after = retry_after
        self.missing = missing


class OutOfMemoryError(ModelError):
    """There is no memory for the work now. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 10.0) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after


class OverloadedError(ModelError):
    """A bounded queue is full. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after


class DeadlineExceededError(ModelError):
    """The server's own deadline passed before the work was done."""


class FitCancelledError(ModelError):
    """A client ended the fit; what was fitted before under the name is as it was."""


class FitCrashedError(ModelError):
    """The process that fitted these rows has died; it would again."""


class StorageError(ModelError):
    """An artefact could not be written, or is not what its manifest says."""


class EngineDeadError(ModelError):
    """The engine thread has ended: nothing in this replica will be answered any more."""


class ReplicaLostError(ModelError):
    """The process that served the request died, where a retry is not safe."""


class ReplicaLostAgainError(ReplicaLostError):
    """The process died, and so did that of the second try. Trying again would end a third."""
