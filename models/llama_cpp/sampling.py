"""From sampling parameters to one llama.cpp sampler chain per request."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterable, Sequence

from models.continuous_batching.sampling import check_logits, is_greedy
from models.llama_cpp.bindings import NativeContext, SamplerChain
from models.structured.constraint import TokenConstraint
from models.types.common import FloatArray
from models.types.generation import SamplingParams

CANDIDATES = 1000
"""`top_k` when the request gives none: sorting and normalising a whole vocabulary costs several
times as much, and what lies beyond the first thousand tokens is noise."""

_SEED_RANGE = 2**32 - 1  # the last 32-bit value means "random" to llama.cpp


class TokenSampler:
    """Chooses the tokens of one request.

    The order is penalties, top_k, temperature, top_p, min_p, draw. Presence and frequency
    penalties see the completion, the repetition penalty sees the prompt too. Every request has its
    own generator, so its draws do not depend on what else is in the batch.
    """

    def __init__(
        self,
        context: NativeContext,
        params: SamplingParams,
        *,
        prompt: Sequence[int],
        vocabulary_size: int,
        window: int,
        end_tokens: Iterable[int],
    ) -> None:
        self._context = context
        self._ban_left = params.min_tokens
        banned = params.ignore_eos or params.min_tokens > 0
        self._keeps_ban = params.ignore_eos
        self._chain: SamplerChain | None = None
        if banned or not is_plain_greedy(params):
            self._chain = SamplerChain(vocabulary_size)
            if banned:
                self._chain.add_bias([(token, -math.inf) for token in end_tokens])
            _fill(self._chain, params, prompt, window)

    def logits(self, index: int) -> FloatArray:
        return self._context.logits(index)

    def choose(self, index: int, constraint: TokenConstraint | None = None) -> int:
        """The token that follows entry `index` of the batch just decoded.

        Raises ModelError where its logits are no numbers.
        """
        logits = self._context.logits(index)
        check_logits(logits)
        if constraint is not None:
            constraint.mask(logits)
        if self._chain is None:
            return int(logits.argmax())
        token = self._context.sample(self._chain, index)
        self._lift_ban(self._chain)
        return token

    def accept(self, token: int) -> None:
        """Take note of a token that was chosen otherwise."""
        if self._chain is not None:
            self._chain.accept(token)
            self._lift_ban(self._chain)

    def _lift_ban(self, chain: SamplerChain) -> None:
        if self._ban_left:
            self._ban_left -= 1
            if not self._ban_left and not self._keeps_ban:
                chain.drop_first()

    def close(self) -> None:
        if self._chain is not None:
            self._chain.close()
            self._chain = None


def is_plain_greedy(params: SamplingParams) -> bool:
    """Whether the most likely token is always the answer, so that no chain is needed."""
    return is_greedy(params) and not params.logit_bias and not _penalises(params)


def _penalises(params: SamplingParams) -> bool:
    return params.repetition_penalty != 1 or _penalises_completion(params)


def _penalises_completion(params: SamplingParams) -> bool:
    return params.presence_penalty != 0 or params.frequency_penalty != 0


def _fill(chain: SamplerChain, params: SamplingParams, prompt: Sequence[int], window: int) -> None:
    if params.logit_bias:
        chain.add_bias(params.logit_bias)
    if params.repetition_penalty != 1:
        chain.add_penalties(window, params.repetition_penalty, 0.0, 0.0, prompt)
    if _penalises_completion(params):
        frequency, presence = params.frequency_penalty, params.presence_penalty
        chain.add_penalties(window, 1.0, frequency, presence, ())
    if is_greedy(params):
        chain.add_greedy()
    else:
        _add_random(chain, params)


def _add_random(chain: SamplerChain, params: SamplingParams) -> None:
    chain.add_top_k(params.top_k or CANDIDATES)
    chain.add_temperature(params.temperature)
    if params.top_p < 1:
        chain.add_top_p(params.top_p)
    if params.min_p > 0:
        chain.add_min_p(params.min_p)
    seed = secrets.randbits(32) if params.seed is None else params.seed
    chain.add_draw(seed % _SEED_RANGE)
