"""How much of a prompt may join a step."""

from __future__ import annotations

import pytest

from models.continuous_batching.pacing import PaceLimits, Pacer

CPU = (0.004, 0.001)  # seconds per step and per token
GPU = (0.010, 0.000001)


def taught(cost: tuple[float, float], limits: PaceLimits | None = None) -> Pacer:
    fixed, each = cost
    pacer = Pacer(512, limits)
    for tokens in [1, 4, 40, 2, 100, 8] * 10:
        pacer.observe(tokens, fixed + each * tokens)
    return pacer


@pytest.mark.parametrize("decoding", [1, 4, 8])
@pytest.mark.parametrize("max_stall", [2.0, 3.0, 5.0])
def test_a_step_lasts_at_most_so_many_decode_steps(decoding: int, max_stall: float) -> None:
    pacer = taught(CPU, PaceLimits(max_stall=max_stall))
    fixed, each = CPU
    plain = fixed + each * decoding
    budget = pacer.budget(decoding)
    assert budget >= 4
    assert fixed + each * (decoding + budget) <= max_stall * plain * 1.05
    assert fixed + each * (decoding + budget + 2) >= max_stall * plain * 0.95


def test_where_prompts_cost_nothing_chunks_are_as_large_as_allowed() -> None:
    assert taught(GPU).budget(4) == PaceLimits().max_chunk


def test_when_nobody_decodes_a_step_lasts_half_a_second_at_most() -> None:
    assert taught((0.0, 0.01)).budget(0) == pytest.approx(50, abs=3)
    assert taught(CPU).budget(0) == pytest.approx(500, abs=20)
    assert taught(GPU).budget(0) == 512


def test_before_anything_is_known_budgets_are_small_but_not_nothing() -> None:
    pacer = Pacer(512)
    assert 4 <= pacer.budget(1) <= 64
    assert 32 <= pacer.budget(0) <= 512


def test_one_size_only() -> None:
    pacer = Pacer(512)
    for _ in range(20):
        pacer.observe(4, 0.01)
    assert 4 <= pacer.budget(4) <= 64


def test_a_single_slow_step_is_not_believed() -> None:
    pacer = taught(CPU)
    before = pacer.budget(4)
    pacer.observe(4, 10.0)
    assert pacer.budget(4) == pytest.approx(before, rel=0.6)
