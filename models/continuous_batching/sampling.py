"""What sampling parameters an engine accepts. Values that native code would turn into nonsense
(NaN, infinite or out-of-range numbers) are refused here, whatever the HTTP layer let through."""

from __future__ import annotations

import math

from models.errors import InvalidInputError, ModelError
from models.types.common import FloatArray
from models.types.generation import SamplingParams

MAX_LOGPROBS = 20
MAX_LOGIT_BIAS_ENTRIES = 1024
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 512
GREEDY_BELOW = 1e-4
_SEEDS = range(-(2**63), 2**64)

_NUMBERS: tuple[tuple[str, float, float], ...] = (
    ("temperature", 0.0, 100.0),
    ("top_p", 1e-9, 1.0),
    ("min_p", 0.0, 1.0),
    ("presence_penalty", -2.0, 2.0),
    ("frequency_penalty", -2.0, 2.0),
    ("repetition_penalty", 1e-3, 100.0),
)


def check_sampling(params: SamplingParams, vocabulary_size: int) -> None:
    """Raise InvalidInputError naming the first parameter outside its range."""
    for name, low, high in _NUMBERS:
        _require(low <= getattr(params, name) <= high, name, f"between {low:g} and {high:g}")
    _require(0 <= params.top_k < 2**31, "top_k", "0 (off) or a positive 32-bit number")
    _require(params.seed is None or params.seed in _SEEDS, "seed", "a 64-bit integer")
    _require(
        params.logprobs is None or 0 <= params.logprobs <= MAX_LOGPROBS,
        "logprobs",
        f"between 0 and {MAX_LOGPROBS}",
    )
    _check_lengths(params)
    _check_stop(params.stop)
    _check_bias(params.logit_bias, vocabulary_size)


def check_logits(logits: FloatArray) -> None:
    """Raise ModelError for a row of a computation that has overflowed: all of it is NaN then, and
    whatever token is chosen of it means nothing."""
    if math.isnan(logits[0]):
        raise ModelError("The model gives no finite score for this input.")


def is_greedy(params: SamplingParams) -> bool:
    """Whether the likeliest token wins; lower temperatures would only overflow."""
    return params.temperature < GREEDY_BELOW


def _require(valid: bool, param: str, rule: str) -> None:
    if not valid:
        raise InvalidInputError(f"'{param}' must be {rule}", param)


def _check_lengths(params: SamplingParams) -> None:
    limit = params.max_tokens
    _require(limit is None or limit >= 0, "max_tokens", "at least 0")
    _require(params.min_tokens >= 0, "min_tokens", "at least 0")
    _require(limit is None or params.min_tokens <= limit, "min_tokens", "at most max_tokens")


def _check_stop(stop: tuple[str, ...]) -> None:
    _require(len(stop) <= MAX_STOP_STRINGS, "stop", f"at most {MAX_STOP_STRINGS} strings")
    _require(
        all(0 < len(text) <= MAX_STOP_LENGTH for text in stop),
        "stop",
        f"non-empty strings of at most {MAX_STOP_LENGTH} characters",
    )


def _check_bias(bias: tuple[tuple[int, float], ...], vocabulary_size: int) -> None:
    _require(
        len(bias) <= MAX_LOGIT_BIAS_ENTRIES,
        "logit_bias",
        f"at most {MAX_LOGIT_BIAS_ENTRIES} entries",
    )
    for token, value in bias:
        _require(0 <= token < vocabulary_size, "logit_bias", "of token ids of this model")
        finite = math.isfinite(value) and abs(value) <= 100
        _require(finite, "logit_bias", "of finite values between -100 and 100")
