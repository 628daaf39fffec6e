"""Which sampling parameters are refused, and what each of the others does to a row of logits."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from models.continuous_batching.logprobs import token_logprob
from models.continuous_batching.numpy_sampler import NumpySampler, likeliest
from models.continuous_batching.sampling import check_sampling, is_greedy
from models.errors import InvalidInputError, ModelError
from models.types.generation import SamplingParams

VOCABULARY = 100
LOGITS = np.array([4.0, 3.0, 2.0, 1.0, 0.0], np.float32)

BAD: list[tuple[str, Any]] = [
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("temperature", -0.1),
    ("top_p", 0.0),
    ("top_p", -1.0),
    ("top_p", 1.1),
    ("top_p", math.nan),
    ("min_p", 1.5),
    ("top_k", -1),
    ("top_k", 2**31),
    ("presence_penalty", 2.1),
    ("frequency_penalty", -math.inf),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", math.nan),
    ("seed", 2**70),
    ("max_tokens", -5),
    ("min_tokens", -1),
    ("logprobs", 21),
    ("logprobs", -1),
    ("stop", ("",)),
    ("stop", ("a" * 513,)),
    ("stop", ("a",) * 17),
    ("logit_bias", ((100, 1.0),)),
    ("logit_bias", ((-1, 1.0),)),
    ("logit_bias", ((1, math.inf),)),
    ("logit_bias", ((1, math.nan),)),
    ("logit_bias", ((1, 101.0),)),
    ("logit_bias", ((1, 1.0),) * 1025),
]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_refused(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_sampling(SamplingParams(**{name: value}), VOCABULARY)
    assert refused.value.param == name
    assert name in refused.value.message


def test_fewer_tokens_at_most_than_at_least() -> None:
    with pytest.raises(InvalidInputError) as refused:
        check_sampling(SamplingParams(min_tokens=10, max_tokens=5), VOCABULARY)
    assert refused.value.param == "min_tokens"


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"temperature": 0, "top_k": 1, "seed": -(2**63), "logprobs": 20, "max_tokens": 10**9},
        {"presence_penalty": -2.0, "frequency_penalty": 2.0, "seed": 2**64 - 1},
        {"logit_bias": ((99, -100.0), (0, 100.0)), "stop": ("a",) * 16, "top_p": 1e-6},
    ],
)
def test_accepted(params: dict[str, Any]) -> None:
    check_sampling(SamplingParams(**params), VOCABULARY)


def test_temperatures_that_would_overflow_are_greedy() -> None:
    assert is_greedy(SamplingParams(temperature=0))
    assert is_greedy(SamplingParams(temperature=1e-30))
    assert not is_greedy(SamplingParams(temperature=0.01))


# --- NumpySampler -------------------------------------------------------------------------------


def draws(count: int = 2000, prompt: tuple[int, ...] = (), **params: Any) -> Counter[int]:
    """How often each token is the first one, over as many seeds."""
    return Counter(
        NumpySampler(SamplingParams(seed=seed, **params), prompt=prompt, end_tokens=(0,)).choose(
            LOGITS
        )
        for seed in range(count)
    )


def sequence(count: int, **params: Any) -> list[int]:
    sampler = NumpySampler(SamplingParams(**params), prompt=(), end_tokens=(0,))
    return [sampler.choose(LOGITS) for _ in range(count)]


def test_draws_follow_the_distribution() -> None:
    found = draws(temperature=2.0)
    expected = np.exp(LOGITS / 2) / np.exp(LOGITS / 2).sum()
    assert [found[i] / 2000 for i in range(5)] == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("params", "possible"),
    [
        ({"temperature": 0}, {0}),
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.7}, {0, 1}),  # the shares are 0.64, 0.23, 0.09, ...
        ({"top_p": 0.6}, {0}),
        ({"min_p": 0.3}, {0, 1}),
        ({"min_tokens": 1, "temperature": 3.0}, {1, 2, 3, 4}),
        ({"ignore_eos": True, "temperature": 3.0}, {1, 2, 3, 4}),
        ({"logit_bias": ((4, 100.0),)}, {4}),
        ({"logit_bias": ((0, -100.0),), "temperature": 3.0}, {1, 2, 3, 4}),
    ],
)
def test_what_can_be_drawn(params: dict[str, Any], possible: set[int]) -> None:
    assert draws(400, **params).keys() == possible


def test_penalties() -> None:
    assert sequence(4, temperature=0, frequency_penalty=0.6) == [0, 0, 1, 0]
    assert sequence(4, temperature=0, presence_penalty=1.5) == [0, 1, 0, 0]
    assert sequence(3, temperature=0, repetition_penalty=2.0) == [0, 1, 0]
    assert set(draws(50, prompt=(0,), temperature=0, repetition_penalty=2.0)) == {1}
    assert set(draws(50, prompt=(0,), temperature=0, presence_penalty=2.0)) == {0}


def test_the_logits_are_left_alone() -> None:
    before = LOGITS.copy()
    draws(3, temperature=0.5, logit_bias=((1, 5.0),), repetition_penalty=1.5, prompt=(1,))
    assert np.array_equal(LOGITS, before)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nothing_is_chosen_of_what_is_no_number(temperature: float) -> None:
    sampler = NumpySampler(SamplingParams(temperature=temperature), prompt=(), end_tokens=(0,))
    with pytest.raises(ModelError, match="no finite score"):
        sampler.choose(np.full(5, np.nan, np.float32))


# --- log probabilities --------------------------------------------------------------------------


def test_logprobs_are_those_of_the_distribution() -> None:
    pieces = [b"a", b"b", "é".encode()[:1], b"d", b"e"]
    entry = token_logprob(LOGITS, 2, 3, pieces)
    expected = LOGITS - np.log(np.exp(LOGITS).sum())
    assert entry.logprob == pytest.approx(float(expected[2]))
    assert (entry.raw, entry.text) == (pieces[2], "\ufffd")
    assert [item.raw for item in entry.top] == [b"a", b"b", pieces[2]]
    assert [item.logprob for item in entry.top] == pytest.approx(expected[:3].tolist())


def test_logprobs_of_extreme_logits_are_finite() -> None:
    entry = token_logprob(np.array([1e4, -1e4], np.float32), 1, 20, [b"a", b"b"])
    assert entry.logprob == pytest.approx(-2e4)
    assert len(entry.top) == 2


def test_of_large_vocabularies_the_likeliest_thousand_can_be_drawn() -> None:
    logits = np.zeros(5000, np.float32)
    logits[1000:2000] = 0.5
    drawn = {
        NumpySampler(SamplingParams(seed=seed), prompt=(), end_tokens=()).choose(logits)
        for seed in range(300)
    }
    assert min(drawn) >= 1000
    assert max(drawn) < 2000
    assert len(drawn) > 200


def test_the_likeliest_tokens_come_in_order() -> None:
    scores = np.zeros(5000, np.float32)
    scores[[70, 30, 4000, 20]] = [2, 5, 5, 4]
    assert likeliest(scores, 4).tolist() == [30, 4000, 20, 70]
    assert likeliest(scores, 3).tolist() == [30, 4000, 20]
    assert likeliest(scores[:2], 1000).tolist() == [0, 1]


@pytest.mark.parametrize("seed", [-(2**63), -1, 2**64 - 1])
def test_every_seed_that_is_accepted_works(seed: int) -> None:
    draw = [
        NumpySampler(SamplingParams(seed=seed), prompt=(), end_tokens=()).choose(LOGITS)
        for _ in range(2)
    ]
    assert draw[0] == draw[1]


class Only:
    """A constraint that allows some tokens."""

    finished = False

    def __init__(self, *allowed: int) -> None:
        self._allowed = list(allowed)

    def mask(self, logits: Any) -> None:
        kept = logits[self._allowed]
        logits[:] = -np.inf
        logits[self._allowed] = kept

    def accept(self, token: int) -> None:
        raise NotImplementedError


def test_a_constraint_decides_what_can_be_chosen() -> None:
    before = LOGITS.copy()
    for params in ({"temperature": 0}, {"temperature": 3.0}, {"logit_bias": ((0, 100.0),)}):
        chosen = {
            NumpySampler(SamplingParams(seed=seed, **params), prompt=(), end_tokens=()).choose(
                LOGITS, Only(2, 4)
            )
            for seed in range(60)
        }
        assert chosen <= {2, 4}
    assert np.array_equal(LOGITS, before)


def test_tokens_chosen_otherwise_are_taken_note_of() -> None:
    sampler = NumpySampler(
        SamplingParams(temperature=0, presence_penalty=2.0), prompt=(), end_tokens=()
    )
    sampler.accept(0)
    assert sampler.choose(LOGITS) == 1
