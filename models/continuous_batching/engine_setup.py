"""What every generation engine settles before its first step: counts and the chat's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from models.chat.format import ChatFormat
from models.chat.template import ChatTemplate
from models.errors import ModelLoadError


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
