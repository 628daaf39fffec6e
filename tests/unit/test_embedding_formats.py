"""Vectors as numbers of fewer bits: values by hand, and what they are worth."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from deployments.ingress.embedding_formats import EmbeddingType, formatted

VECTOR = np.array([[0.6, -0.8, 0.0, 0.004, 0.003, -1.0, 1.0, 0.5, 0.1]], dtype=np.float32)
BITS = [0b10011011, 0b10000000]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("int8", [76, -102, 0, 1, 0, -127, 127, 64, 13]),
        ("uint8", [204, 26, 128, 129, 128, 1, 255, 192, 141]),
        ("ubinary", BITS),
        ("binary", [byte - 128 for byte in BITS]),
    ],
)
def test_values(kind: EmbeddingType, values: list[int]) -> None:
    (row,) = formatted(VECTOR, kind)
    assert row.tolist() == values
    assert row.dtype == (np.uint8 if kind.startswith("u") else np.int8)


def test_base64_is_little_endian_float32() -> None:
    (text,) = formatted(VECTOR, "base64")
    assert np.array_equal(np.frombuffer(base64.b64decode(text), "<f4"), VECTOR[0])


def test_vectors_that_are_not_of_unit_length_saturate() -> None:
    (row,) = formatted(np.array([[9.0, -9.0]], dtype=np.float32), "int8")
    assert row.tolist() == [127, -128]


def test_products_of_int8_are_cosines() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    vectors += 2 * vectors[:1]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    as_int8 = np.stack(formatted(vectors, "int8")).astype(np.int64)
    cosines = as_int8 @ as_int8.T / 127**2
    assert np.abs(cosines - vectors @ vectors.T).max() < 0.02
