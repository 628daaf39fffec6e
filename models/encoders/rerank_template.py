"""Pairs of texts for language models that judge them: what is written around query and document.

The judgement is the odds of one token over another right after the prompt, "yes" and "no" for
Qwen3-Reranker, whose documented prompt is the default.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from models.encoders.tokenization import EncoderTokenizer, TokenSequence
from models.errors import InvalidInputError, ModelLoadError
from models.types.texts import TextToken, TruncationSide

QWEN3_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and "
    'the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}"
    "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)
QWEN3_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True, slots=True)
class RerankTemplate:
    """The prompt is `head`, then the body `lead` query `middle` document, then `tail`.

    Only in head and tail are control tokens read as such, so that no text of a client becomes one.
    The body is tokenised in one piece, as its parts may share tokens.
    """

    head: str
    lead: str
    middle: str
    tail: str


def read_template(text: str, instruction: str, control_tokens: Collection[str]) -> RerankTemplate:
    """Take a template with {query}, {document} and maybe {instruction} apart.

    The head ends with the last control token before the query. Raises ModelLoadError.
    """
    before, query, rest = text.partition("{query}")
    middle, document, tail = rest.partition("{document}")
    if not query or not document or "{query}" in rest or "{document}" in tail + before:
        raise ModelLoadError("a rerank template has {query}, and then {document}, once each")
    before = before.replace("{instruction}", instruction)
    ends = [before.rfind(token) + len(token) for token in control_tokens if token in before]
    end = max(ends, default=0)
    return RerankTemplate(before[:end], before[end:], middle, tail)


@dataclass(slots=True)
class _Text:
    """A query or document; what is cut has the text of the tokens that are left."""

    text: str
    ids: Sequence[int]

    def __len__(self) -> int:
        return len(self.ids)


class TemplateTokenizer:
    """An `EncoderTokenizer` whose pairs are whole prompts of at most `max_tokens`.

    `tokenizer` must read control tokens as text in `contents`, and as tokens in `control`.
    """

    def __init__(
        self, tokenizer: EncoderTokenizer, template: RerankTemplate, max_tokens: int
    ) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._head, self._tail = (tokenizer.control(t) for t in (template.head, template.tail))
        self._room = max_tokens - len(self._head) - len(self._tail)
        self._frame = sum(map(len, tokenizer.contents([template.lead, template.middle])))
        if self._room <= self._frame:
            raise ModelLoadError("the rerank template leaves no room for texts")
        self.vocabulary_size = tokenizer.vocabulary_size
        self.has_types = False

    def contents(self, texts: Sequence[str]) -> list[_Text]:
        """Texts with their tokens."""
        contents = self._tokenizer.contents(texts)
        return [_Text(text, content) for text, content in zip(texts, contents, strict=True)]

    def control(self, text: str) -> list[int]:
        return self._tokenizer.control(text)

    def cut(self, content: _Text, limit: int, side: TruncationSide | None = None) -> None:
        """Keep `limit` tokens."""
        if len(content) > limit:
            content.ids = content.ids[-limit:] if side == "left" else content.ids[:limit]
            content.text = self._tokenizer.text(content.ids)

    def windows(self, content: _Text, limit: int, overlap: int) -> list[_Text]:
        """Pieces of at most `limit` tokens; neighbours share `overlap` of them."""
        starts = range(0, max(len(content) - overlap, 1), limit - overlap)
        pieces = [content.ids[start : start + limit] for start in starts]
        return [_Text(self._tokenizer.text(ids), ids) for ids in pieces]

    def pair(self, query: _Text, document: _Text) -> TokenSequence:
        """The prompt. Texts that fit by themselves may need a few more tokens in company."""
        body = f"{self._template.lead}{query.text}{self._template.middle}{document.text}"
        (content,) = self._tokenizer.contents([body])
        return TokenSequence([*self._head, *content[: self._room], *self._tail])

    def specials(self, *, pair: bool) -> int:
        """How many tokens stand around the two texts."""
        return len(self._head) + self._frame + len(self._tail) if pair else 0

    def single(self, content: _Text, *, specials: bool = True) -> TokenSequence:
        return TokenSequence(content.ids)

    def joined(self, contents: Sequence[_Text]) -> TokenSequence:
        raise InvalidInputError("A reranker does not pool texts.")

    def tokens(self, text: str, *, specials: bool = True) -> list[TextToken]:
        return self._tokenizer.tokens(text, specials=specials)

    def text(self, ids: Sequence[int], *, skip_specials: bool = True) -> str:
        return self._tokenizer.text(ids, skip_specials=skip_specials)


def single_token(tokenizer: EncoderTokenizer, text: str) -> int:
    """The id of an answer. ModelLoadError when it is not one token."""
    (content,) = tokenizer.contents([text])
    if len(content) != 1:
        raise ModelLoadError(f"the answer '{text}' is not one token of the model")
    token: int = content[0]
    return token
