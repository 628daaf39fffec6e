"""What every generation engine settles before its first step: counts, sizes, the chat's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from models.chat.format import ChatFormat
from models.chat.template import ChatTemplate
from models.errors import ModelLoadError

CELLS_PER_SEQUENCE = 1024
DEFAULT_KV_BYTES = 2 * 2**30
MIN_CELLS = 2048
CELL_STEP = 256  # llama.cpp rounds the pool up to this


class TemplateTokens(Protocol):
    """What a chat template wants to know of a vocabulary."""

    @property
    def bos_text(self) -> str: ...

    @property
    def eos_text(self) -> str: ...

    @property
    def control_tokens(self) -> Mapping[str, int]: ...


def check_counts(*numbers: int | None) -> None:
    """Raise ModelLoadError when an option that counts something is smaller than one."""
    if any(number is not None and number < 1 for number in numbers):
        raise ModelLoadError("an engine option that counts something is smaller than one")


def pool_sizes(
    trained_context: int,
    kv_bytes_per_cell: int,
    *,
    n_ctx: int | None,
    kv_cells: int | None,
    max_sequences: int,
) -> tuple[int, int]:
    """(context length of one request, KV cells of all of them), in tokens.

    The context is the trained one or `n_ctx`, whichever is smaller. The pool holds one full
    context or 1024 tokens for each sequence, whichever is more. Without `n_ctx` and `kv_cells` it
    is bounded to 2 GiB (but at least 2048 cells), and a context never exceeds the pool.
    """
    context = min(n_ctx or trained_context, trained_context)
    if kv_cells is None:
        kv_cells = max(context, max_sequences * CELLS_PER_SEQUENCE)
        if n_ctx is None:
            affordable = DEFAULT_KV_BYTES // max(kv_bytes_per_cell, 1)
            kv_cells = min(kv_cells, max(affordable, MIN_CELLS))
    cells = -(-kv_cells // CELL_STEP) * CELL_STEP
    return min(context, cells), cells


def chat_form(
    source: str | None, tokens: TemplateTokens
) -> tuple[ChatTemplate | None, ChatFormat | None]:
    """A model's compiled chat template and the form of its replies; Nones when it cannot chat.

    Raises ModelLoadError when the template is not valid.
    """
    if not source:
        return None, None
    try:
        template = ChatTemplate(
            source,
            bos_token=tokens.bos_text,
            eos_token=tokens.eos_text,
            control_texts=tokens.control_tokens,
        )
    except ValueError as error:
        raise ModelLoadError(f"this model cannot chat: {error}") from error
    return template, ChatFormat.detect(source, tokens.control_tokens)
