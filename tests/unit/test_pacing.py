"""How much of a prompt may join a step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from models.continuous_batching.pacing import PaceLimits, Pacer

CPU = (0.004, 0.001)  # seconds per step and per token
GPU = (0.010, 0.000001)


def step(cost: tuple[float, float], decoding: int, prefill: int) -> float:
    fixed, each = cost
    return fixed + each * (decoding + prefill)


def taught(cost: tuple[float, float], limits: PaceLimits | None = None) -> Pacer:
    pacer = Pacer(512, limits)
    for decoding in (1, 4, 8):
        settle(pacer, decoding, lambda d, p: step(cost, d, p))
    for _ in range(10):
        pacer.observe(0, 200, step(cost, 0, 200))
    return pacer


def settle(pacer: Pacer, decoding: int, cost: Callable[[int, int], float]) -> list[float]:
    """A long prompt beside `decoding` streams; the times of its steps."""
    times = []
    for _ in range(60):
        chunk = pacer.budget(decoding)
        times.append(cost(decoding, chunk))
        pacer.observe(decoding, chunk, times[-1])
    return times


@pytest.mark.parametrize("decoding", [1, 4, 8])
@pytest.mark.parametrize("max_stall", [2.0, 3.0, 5.0])
def test_a_step_lasts_at_most_so_many_decode_steps(decoding: int, max_stall: float) -> None:
    budget = taught(CPU, PaceLimits(max_stall=max_stall)).budget(decoding)
    allowed = max_stall * step(CPU, decoding, 0)
    assert budget >= 4
    assert step(CPU, decoding, budget) <= allowed * 1.05
    assert step(CPU, decoding, budget + 2) >= allowed * 0.95


def test_budgets_shrink_as_a_prompt_gets_dearer() -> None:
    pacer = taught(CPU)
    before = pacer.budget(4)
    for _ in range(10):
        chunk = pacer.budget(4)
        pacer.observe(4, chunk, step((0.004, 0.001), 4, 2 * chunk))
    assert 0.4 * before < pacer.budget(4) < 0.6 * before


def test_a_new_number_of_sequences_gets_one_plain_step() -> None:
    pacer = taught(CPU)
    assert pacer.budget(6) == 0
    pacer.observe(6, 0, step(CPU, 6, 0))
    assert pacer.budget(6) == pacer.budget(4), "until it is known better"


def test_plain_steps_are_measured_again_during_a_long_prompt() -> None:
    pacer = Pacer(512)
    settle(pacer, 4, lambda d, p: step(CPU, d, p))
    budgets = []
    for _ in range(100):
        budgets.append(pacer.budget(4))
        pacer.observe(4, budgets[-1], step(CPU, 4, budgets[-1]))
    assert 3 <= budgets.count(0) <= 4


REPACKED = (0.009, 0.001, 0.006)
"""A CPU with kernels for many rows: a step of one row, more per row, and more for any batch."""


def repacked_step(decoding: int, prefill: int) -> float:
    one, each, batch = REPACKED
    rows = decoding + prefill
    return one + (rows > 1) * batch + each * (rows - 1)


@pytest.mark.parametrize("decoding", [1, 4, 8])
def test_chunks_grow_where_only_the_first_row_is_dear(decoding: int) -> None:
    pacer = Pacer(512, PaceLimits(max_stall=2.7))
    plain = repacked_step(decoding, 0)
    times = settle(pacer, decoding, repacked_step)
    assert max(times) <= 3 * plain
    assert 2.5 * plain <= repacked_step(decoding, pacer.budget(decoding)) <= 2.75 * plain


def test_one_token_that_costs_more_than_a_step_does_not_keep_chunks_at_one() -> None:
    pacer = Pacer(512, PaceLimits(max_stall=2.5))
    times = settle(pacer, 1, lambda _, p: 0.010 + (p > 0) * 0.012 + p * 0.0005)
    assert max(times) <= 0.025 * 1.05
    assert pacer.budget(1) >= 5


@pytest.mark.parametrize("odd", [0.0, 0.1])
def test_a_step_that_seems_to_cost_nothing_is_not_believed(odd: float) -> None:
    pacer = taught(CPU)
    before = pacer.budget(4)
    pacer.observe(4, before, odd * step(CPU, 4, 0) + 1e-9)
    assert pacer.budget(4) <= 1.5 * (before + 1)


def test_the_rest_of_a_prompt_does_not_change_the_next_chunks() -> None:
    pacer = Pacer(512, PaceLimits(max_stall=2.5))
    settle(pacer, 1, repacked_step)
    before = pacer.budget(1)
    assert before >= 6
    for _ in range(10):
        pacer.observe(1, 1, repacked_step(1, 1))
    pacer.observe(1, 0, repacked_step(1, 0))
    assert pacer.budget(1) == before


def test_where_prompts_cost_nothing_chunks_are_as_large_as_allowed() -> None:
    assert taught(GPU).budget(4) == PaceLimits().max_chunk


def test_when_nobody_decodes_a_step_lasts_half_a_second_at_most() -> None:
    assert taught((0.0, 0.01)).budget(0) == pytest.approx(50, abs=3)
    assert taught(CPU).budget(0) == pytest.approx(490, abs=20)
    assert taught(GPU).budget(0) == 512


def test_before_anything_is_known_budgets_are_small_but_not_nothing() -> None:
    pacer = Pacer(512)
    pacer.observe(1, 0, 0.01)
    assert 1 <= pacer.budget(1) <= 64
    assert 32 <= pacer.budget(0) <= 512


def test_a_single_slow_step_is_not_believed() -> None:
    pacer = taught(CPU)
    before = pacer.budget(4)
    pacer.observe(4, before, 10.0)
    assert before / 2 <= pacer.budget(4) < before
