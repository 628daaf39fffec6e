"""The state of one request inside the engine."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from models.continuous_batching.completion import Completion
from models.continuous_batching.runner import Sampler
from models.structured.constraint import TokenConstraint
from models.types.generation import SamplingParams, TokenLogprob

IntArray = npt.NDArray[np.int32]
NO_SLOT = -1


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens of one request: `length` are known, the first `evaluated` of them are in the KV pool.

    A sequence with one token left to evaluate decodes, one with more is in prefill; a parked
    sequence is one that lost its slot and is in prefill again, its sampler and text untouched.
    `prompt_logprobs` is None unless those of the prompt are wanted; they are gathered there, the
    first token's included, while the prompt is evaluated.
    """

    request_id: str
    prompt_tokens: int
    max_new: int
    tokens: IntArray
    sampling: SamplingParams = field(default_factory=SamplingParams)
    length: int = 0
    evaluated: int = 0
    slot: int = NO_SLOT
    order: int = 0
    since: float = 0.0
    cached_tokens: int | None = None
    sampler: Sampler | None = None
    constraint: TokenConstraint | None = None
    completion: Completion = field(default_factory=Completion)
    prompt_logprobs: list[TokenLogprob] | None = None
    caller: str = ""

    @classmethod
    def start(
        cls,
        request_id: str,
        prompt: list[int],
        max_new: int,
        sampling: SamplingParams,
        completion: Completion,
        constraint: TokenConstraint | None = None,
    ) -> Sequence:
        tokens = np.empty(len(prompt) + max_new, np.int32)
        tokens[: len(prompt)] = prompt
        return cls(
            request_id,
            len(prompt),
            max_new,
            tokens,
            sampling,
            length=len(prompt),
            completion=completion,
            constraint=constraint,
        )

    @property
    def remaining(self) -> int:
        """Known tokens that are not evaluated yet."""
        return self.length - self.evaluated

    @property
    def generated(self) -> int:
        return self.length - self.prompt_tokens

    @property
    def scores_prompt(self) -> bool:
        """Log probabilities of prompt tokens are still missing."""
        scores = self.prompt_logprobs
        return scores is not None and len(scores) < self.prompt_tokens

    @property
    def known(self) -> IntArray:
        return self.tokens[: self.length]

    @property
    def next_token(self) -> int:
        return int(self.tokens[self.evaluated])

    def append(self, token: int) -> None:
        self.tokens[self.length] = token
        self.length += 1
