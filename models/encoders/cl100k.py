"""Text out of token ids of OpenAI's vocabulary cl100k_base.

Clients that take every server for OpenAI cut long texts at tokens and send those. Reading them
needs no tokenizer: the vocabulary's file lists the bytes of every token.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

from models.errors import InvalidInputError, ModelLoadError

TOKENS = 100_256
SPECIAL = {
    100_257: b"<|endoftext|>",
    100_258: b"<|fim_prefix|>",
    100_259: b"<|fim_middle|>",
    100_260: b"<|fim_suffix|>",
    100_276: b"<|endofprompt|>",
}
"""The ids above the ranks that stand for something; the others of that range are not used."""


class Cl100k:
    """The bytes of every token."""

    def __init__(self, path: Path) -> None:
        """Read a rank file: lines of base64 and rank, in order. Raises ModelLoadError."""
        try:
            lines = path.read_bytes().splitlines()
            pieces = [base64.b64decode(line.split()[0], validate=True) for line in lines]
        except (OSError, IndexError, binascii.Error) as error:
            raise ModelLoadError("The cl100k vocabulary cannot be read.") from error
        if len(pieces) != TOKENS:
            raise ModelLoadError("The cl100k vocabulary is not complete.")
        self._pieces = dict(enumerate(pieces)) | SPECIAL

    def text(self, ids: Sequence[int], max_chars: int) -> str:
        """What the tokens say; bytes of characters cut in half become U+FFFD.

        Raises InvalidInputError for ids outside the vocabulary, and for texts that are certain to
        have more than `max_chars` characters, before they are put together (a token may be long).
        """
        try:
            pieces = [self._pieces[token] for token in ids]
        except KeyError as error:
            message = f"{error.args[0]} is no token of the cl100k vocabulary."
            raise InvalidInputError(message, "input") from None
        # At most four bytes make a character.
        if sum(map(len, pieces)) > 4 * max_chars:
            raise InvalidInputError(f"The text has more than {max_chars} characters.", "input")
        return b"".join(pieces).decode("utf-8", "replace")
