"""How one model comes into memory and leaves it: each step in a thread of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from config.catalog import ModelSpec
from deployments.memory.ledger import MemoryLedger, NoLedger
from deployments.threads import in_own_thread
from models.base import Model
from models.errors import MemoryRefusedError, ModelError, ModelLoadError
from models.process_memory import give_back
from weights.pip_download import Progress

M = TypeVar("M", bound=Model)
logger = logging.getLogger("ray.serve")


def _nothing_to_fetch(spec: ModelSpec, progress: Progress) -> None:
    del spec, progress


def _unknown(spec: ModelSpec) -> int:
    del spec
    return 0


class ModelLoader(Generic[M]):
    """The blocking steps of a load. Whatever a library raises is a ModelLoadError after it."""

    def __init__(
        self,
        load: Callable[[ModelSpec], M],
        *,
        fetch: Callable[[ModelSpec, Progress], Any] = _nothing_to_fetch,
        estimate: Callable[[ModelSpec], int] = _unknown,
        ledger: MemoryLedger | None = None,
    ) -> None:
        self._load = load
        self._fetch = fetch
        self._estimate = estimate
        self._ledger = ledger or NoLedger()

    async def fetch(self, spec: ModelSpec, progress: Progress) -> None:
        """Have the weights on this machine. Raises ModelLoadError."""

        def fetch() -> None:
            with _typed(spec):
                self._fetch(spec, progress)

        await in_own_thread(fetch)

    async def estimate(self, spec: ModelSpec) -> int:
        """Bytes of memory that the model will take, 0 where nobody can tell."""

        def estimate() -> int:
            with _typed(spec):
                return self._estimate(spec)

        return await in_own_thread(estimate)

    async def load(self, spec: ModelSpec) -> M:
        """Raises ModelLoadError; MemoryRefusedError when other models hold the memory."""

        def load() -> M:
            with _typed(spec):
                self._ledger.reserve(spec.id)
                try:
                    return self._load(spec)
                except BaseException:
                    _tried(spec, lambda: self._ledger.release(spec.id))
                    raise

        return await in_own_thread(load)

    async def unload(self, spec: ModelSpec, model: list[M]) -> None:
        """Free the model, which is taken out of the list so that nothing refers to it.

        What fails of it is only logged: the model is gone for its clients.
        """

        def unload() -> None:
            _tried(spec, lambda: model.pop().close())
            _tried(spec, give_back)
            _tried(spec, lambda: self._ledger.release(spec.id))

        await in_own_thread(unload)


def _tried(spec: ModelSpec, step: Callable[[], None]) -> None:
    try:
        step()
    except Exception:
        logger.exception("Freeing model %s failed", spec.id)


@contextmanager
def _typed(spec: ModelSpec) -> Iterator[None]:
    try:
        yield
    except ModelLoadError:
        raise
    except ModelError as error:
        raise ModelLoadError(error.message) from error
    except MemoryError as error:
        message = f"There is not enough memory to load the model '{spec.id}' now."
        raise MemoryRefusedError(message) from error
    except Exception as error:
        logger.exception("Loading model %s failed", spec.id)
        raise ModelLoadError(f"The model '{spec.id}' cannot be loaded.") from error
