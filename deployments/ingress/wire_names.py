"""The engines name a request's fields one way; each wire shape has names of its own."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

from models.errors import InvalidInputError


@contextmanager
def wire_names(names: Mapping[str, str]) -> Generator[None]:
    """Refusals that leave the block name fields as the client wrote them (engine's -> wire's)."""
    try:
        yield
    except InvalidInputError as error:
        old = error.param
        new = names.get(old) if old is not None else None
        if new is not None:
            _rename(error, f"'{old}'", f"'{new}'")
            error.param = new
        raise


def _rename(error: InvalidInputError, old: str, new: str) -> None:
    sentence, *rest = error.args
    if isinstance(sentence, str):  # others compose theirs when they are asked
        error.args = (sentence.replace(old, new), *rest)
