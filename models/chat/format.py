"""How a model's family writes a reply: where reasoning ends, what a tool call looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.chat.reply import ReplyParser
from models.types import ChatPrompt, OutputFormat


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """The reply format of one model, known from its template and its control tokens.

    `visible_texts` are the texts of control tokens that a parser must see: whoever turns tokens
    into text writes these texts for them while a parser is at work. `end_of_reasoning` is template
    text that ends the reasoning (None: the model does not reason); as tokens, with the texts of
    control tokens read as those tokens.
    """

    visible_texts: tuple[str, ...] = ()
    end_of_reasoning: str | None = None

    @classmethod
    def detect(cls, template_source: str, control_tokens: Mapping[str, int]) -> ChatFormat:
        """The format of a model; `control_tokens` maps texts of control tokens to their ids."""
        del template_source, control_tokens
        return cls()

    def parser(self, prompt: ChatPrompt, rendered: str) -> ReplyParser | None:
        """What takes the reply to this prompt apart; None when it can be nothing but content.

        `rendered` is the text that the prompt became: it may have begun or ended the reasoning.
        """
        del prompt, rendered
        return None

    def grammar(
        self, prompt: ChatPrompt, output_format: OutputFormat | None, rendered: str
    ) -> str | None:
        """What the reply must be, as a Lark grammar for llguidance; None: anything.

        Control tokens stand in it by their ids, all other markers as text. Raises
        InvalidInputError when a schema cannot be followed.
        """
        del prompt, output_format, rendered
        return None
