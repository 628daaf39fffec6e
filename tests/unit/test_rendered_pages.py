"""The measure that the tests of recognisers go by, and the pages they draw."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rendered_pages import SAMPLES, character_error_rate, noisy, page, rotated, tight


@pytest.mark.parametrize(
    ("expected", "read", "rate"),
    [
        *[("abcd", "abcd", 0.0), ("abcd", "", 1.0), ("abcd", "abxd", 0.25)],
        *[("abcd", "abd", 0.25), ("abcd", "aabcd", 0.25), ("abcd", "badc", 0.75)],
        *[("", "", 0.0), ("", "ab", 2.0), ("ä", "a", 1.0)],
    ],
)
def test_edits_per_expected_character(expected: str, read: str, rate: float) -> None:
    assert character_error_rate(expected, read) == rate


@pytest.mark.parametrize("name", SAMPLES)
def test_samples_are_the_same_every_time(name: str) -> None:
    first, second = SAMPLES[name](), SAMPLES[name]()
    assert first.text == second.text
    assert np.array_equal(np.asarray(first.image), np.asarray(second.image))
    assert np.asarray(first.image.convert("L")).std() > 5


def test_a_tight_picture_has_its_margin() -> None:
    ink = np.asarray(tight("Ink", 32, 7).convert("L")) < 128
    rows, columns = np.nonzero(ink)
    height, width = ink.shape
    edges = [rows.min(), columns.min(), height - 1 - rows.max(), width - 1 - columns.max()]
    assert np.allclose(edges, 7, atol=4)


def test_rotation_and_noise_change_the_page() -> None:
    image = page(["text"], 20, 200)
    assert rotated(image, 3).size > image.size
    assert np.asarray(noisy(image)).std() > np.asarray(image).std()
