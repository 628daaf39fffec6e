"""One choice while it is being written: from tokens to deltas."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from models.chat.reply import ReplyParser, ReplyPart
from models.continuous_batching.detokenizer import Detokenizer, Emission
from models.types.common import Usage
from models.types.generation import FinishReason, TextDelta, TokenLogprob

NOTHING: Mapping[int, bytes] = {}


@dataclass(slots=True)
class ReasoningLimit:
    """After `budget` tokens of reasoning the tokens `end` follow, whatever the model wants."""

    budget: int
    end: tuple[int, ...]


@dataclass(slots=True, eq=False)
class Completion:
    """Texts of tokens, stop strings, and what a chat's parser makes of them.

    `pieces` are the bytes of every token; `visible` has those of control tokens that the parser
    must see. `opening` is put before the text, with `opening_logprobs`, which may be filled until
    the first token comes. Stop strings are not looked for in the first `min_tokens` tokens.
    """

    pieces: Sequence[bytes] = ()
    visible: Mapping[int, bytes] = field(default_factory=lambda: NOTHING)
    stop: tuple[str, ...] = ()
    min_tokens: int = 0
    parser: ReplyParser | None = None
    limit: ReasoningLimit | None = None
    opening: str = ""
    opening_logprobs: list[TokenLogprob] = field(default_factory=list)
    tokens: int = 0
    reasoning_tokens: int = 0
    forced: deque[int] = field(default_factory=deque)
    """Tokens that must come next."""
    _text: Detokenizer = field(init=False)

    def __post_init__(self) -> None:
        self._text = Detokenizer(self.stop)

    @property
    def stopped(self) -> bool:
        """A stop string is complete; nothing more may be added."""
        return self._text.stopped

    def next_forced(self) -> int | None:
        """The token that must come next, if there is one."""
        return self.forced.popleft() if self.forced else None

    def push(self, token: int, logprob: TokenLogprob | None) -> TextDelta | None:
        """Add a token; what can be sent because of it."""
        self.tokens += 1
        piece = self.visible.get(token) or self.pieces[token]
        emission = self._text.push(piece, logprob, check_stop=self.tokens > self.min_tokens)
        delta = self._delta(emission)
        if self.parser is not None and self.parser.in_reasoning:
            self.reasoning_tokens += 1
            self.check_limit()
        return delta

    def finish(self, last: TextDelta | None, reason: FinishReason, usage: Usage) -> TextDelta:
        """The last delta: what the last token gave, what was held back, and the end."""
        rest = _joined(last, self._delta(self._text.flush()))
        if self.parser is not None:
            rest = _joined(rest, _delta_of(self.parser.finish(), ()))
            if self.parser.called_tools and reason == "stop":
                reason = "tool_calls"
        usage = replace(usage, reasoning_tokens=self.reasoning_tokens)
        return replace(rest or TextDelta(""), finish_reason=reason, usage=usage)

    def check_limit(self) -> None:
        """Force the end of the reasoning once it has used up its tokens, and not within a
        character: no grammar lets one be broken off."""
        limit = self.limit
        if limit is None or self.parser is None or not self.parser.in_reasoning:
            return
        if self._text.mid_character:
            return
        if self.reasoning_tokens >= limit.budget:
            self.limit = None
            self.forced.extend(limit.end)

    def _delta(self, emission: Emission) -> TextDelta | None:
        if self.parser is None or not emission.text:
            part = ReplyPart(emission.text)
        else:
            part = self.parser.push(emission.text)
        delta = _delta_of(part, emission.logprobs)
        if not self.opening and not self.opening_logprobs:
            return delta
        opening = TextDelta(self.opening, tuple(self.opening_logprobs))
        self.opening, self.opening_logprobs = "", []
        return _joined(opening, delta)


def _delta_of(part: ReplyPart, logprobs: tuple[TokenLogprob, ...]) -> TextDelta | None:
    if not (part.content or part.reasoning or part.tool_calls or logprobs):
        return None
    return TextDelta(part.content, logprobs, reasoning=part.reasoning, tool_calls=part.tool_calls)


def _joined(first: TextDelta | None, second: TextDelta | None) -> TextDelta | None:
    if first is None or second is None:
        return first or second
    return TextDelta(
        first.text + second.text,
        first.logprobs + second.logprobs,
        reasoning=first.reasoning + second.reasoning,
        tool_calls=first.tool_calls + second.tool_calls,
    )
