"""The packed path against the plain padded forward of the same unmodified model."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from models.encoders.length_split import split_by_length
from models.encoders.packed_transformer import (
    PACKED,
    PackedBackbone,
    Packing,
    PaddedBackbone,
    packing_of,
    position_offset,
    register_packed_attention,
)
from models.encoders.tokenization import TokenSequence
from models.prepacked_linear import PrepackedLinear, available, prepack_linears
from tests.tiny_models import EMBEDDERS, UNPACKABLE, write_encoder

PACKABLE = sorted(set(EMBEDDERS) - UNPACKABLE)
LENGTHS = (1, 2, 5, 5, 5, 17, 40, 40, 100)


@pytest.fixture
def sequences() -> list[TokenSequence]:
    generator = random.Random(1)
    return [TokenSequence(generator.choices(range(5, 80), k=n)) for n in LENGTHS]


def _model(family: str) -> torch.nn.Module:
    torch.manual_seed(0)
    model: torch.nn.Module = AutoModel.from_config(EMBEDDERS[family]()).eval()
    return model


@pytest.mark.parametrize("family", PACKABLE)
def test_packed_equals_padded(family: str, sequences: Sequence[TokenSequence]) -> None:
    register_packed_attention()
    model = _model(family)
    with torch.inference_mode():
        padded = PaddedBackbone(model)(sequences)
        model.set_attn_implementation(PACKED)
        packed = PackedBackbone(model)(sequences)
    torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", PACKABLE)
def test_a_sequence_is_the_same_alone(family: str, sequences: Sequence[TokenSequence]) -> None:
    register_packed_attention()
    model = _model(family)
    model.set_attn_implementation(PACKED)
    backbone = PackedBackbone(model)
    with torch.inference_mode():
        together = backbone(sequences)
        alone = torch.cat([backbone([sequence]) for sequence in sequences])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", sorted(UNPACKABLE - {"t5"}))
def test_other_families_do_not_take_packed_attention(family: str) -> None:
    register_packed_attention()
    model = _model(family)
    model.set_attn_implementation(PACKED)
    assert model.config._attn_implementation != PACKED


@pytest.mark.parametrize(("family", "offset"), [("bert", 0), ("roberta", 2), ("qwen3", 0)])
def test_position_offset(family: str, offset: int) -> None:
    assert position_offset(_model(family)) == offset


def test_equal_lengths_form_groups() -> None:
    assert packing_of([3, 3, 5]) == Packing(((0, 2, 3), (6, 1, 5)))


def test_prepacked_linears_compute_the_same() -> None:
    if not available():
        pytest.skip("this torch has no oneDNN")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.Linear(8, 4, bias=False))
    inputs = torch.randn(5, 16)
    with torch.inference_mode():
        expected = model(inputs)
        prepack_linears(model)
        assert all(isinstance(layer, PrepackedLinear) for layer in model)
        torch.testing.assert_close(model(inputs), expected)


def _cost(lengths: Sequence[int], parts: Sequence[tuple[int, int]], overhead: int) -> int:
    return sum(overhead + (end - start) * lengths[end - 1] for start, end in parts)


def test_the_split_covers_the_batch_in_order() -> None:
    parts = split_by_length([1, 1, 2, 90, 100, 300])
    assert parts[0][0] == 0
    assert parts[-1][1] == 6
    assert all(a[1] == b[0] for a, b in itertools.pairwise(parts))


def test_the_split_is_the_cheapest() -> None:
    lengths = [2, 3, 3, 8, 20, 21]
    inner = range(1, len(lengths))
    every = [
        [(a, b) for a, b in zip((0, *cuts), (*cuts, len(lengths)), strict=True)]
        for mask in range(1 << len(inner))
        for cuts in [tuple(c for i, c in enumerate(inner) if mask >> i & 1)]
    ]
    best = min(_cost(lengths, parts, 10) for parts in every)
    assert _cost(lengths, split_by_length(lengths, 10), 10) == best


@pytest.mark.parametrize(
    ("lengths", "parts"),
    [([], []), ([7], [(0, 1)]), ([7, 7], [(0, 2)]), ([1, 400], [(0, 1), (1, 2)])],
)
def test_small_splits(lengths: list[int], parts: list[tuple[int, int]]) -> None:
    assert split_by_length(lengths) == parts


def test_no_pickles_are_written(tmp_path: Path) -> None:
    """The tiny models of the other tests are what the loader accepts."""
    folder = write_encoder(tmp_path, "bert")
    assert {p.suffix for p in folder.rglob("*") if p.is_file()} <= {".json", ".safetensors"}
