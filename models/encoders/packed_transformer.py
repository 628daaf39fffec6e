"""An unmodified transformers model over unpadded sequences.

All sequences of a batch lie one after another on a single token axis (a batch of 1) with explicit
positions; linears, norms and embeddings then see real tokens only. Attention, the one operation
that mixes tokens, is a function registered with transformers' AttentionInterface: it runs
`scaled_dot_product_attention` once per group of equally long sequences, or on GPUs a kernel that
takes all of them at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad, scaled_dot_product_attention
from transformers import AttentionInterface

from models.encoders.length_split import split_by_length
from models.encoders.tokenization import TokenSequence
from models.encoders.varlen_attention import (
    Offsets,
    fits_kernel,
    moved,
    offsets_of,
    varlen_attention,
)

PACKED = "packed_groups"


@dataclass(frozen=True, slots=True)
class Packing:
    """`groups` are (first token, number of sequences, length of each), in token order.

    `offsets` are there where the device has a kernel for all lengths at once.
    """

    groups: tuple[tuple[int, int, int], ...]
    offsets: Offsets | None = None


def packing_of(lengths: Sequence[int], device: torch.device | None = None) -> Packing:
    """Neighbours of equal length form a group: sort by length first to have few groups."""
    runs = [(len(list(run)), length) for length, run in groupby(lengths)]
    starts = accumulate((count * length for count, length in runs), initial=0)
    groups = tuple((at, count, length) for at, (count, length) in zip(starts, runs))  # noqa: B905  # one more start than runs
    return Packing(groups, None if device is None else offsets_of(lengths, device))


def register_packed_attention() -> None:
    """Make `PACKED` a known attention implementation of transformers; repeating it is harmless."""
    AttentionInterface.register(PACKED, packed_attention)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: Packing,
    scaling: float | None = None,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention within each sequence, on transformers' layout [1, heads, tokens, dim].

    `attention_mask` is always None: transformers builds masks only for implementations it knows.
    Returns [1, tokens, heads, dim].
    """
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    if packing.offsets is not None and fits_kernel(query, key, value):
        attended = varlen_attention(
            *(query, key, value),
            packing.offsets,
            causal=causal,
            window=sliding_window,
            scale=scaling,
        )
        return attended, None
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:  # grouped-query attention
        key, value = (t.repeat_interleave(repeats, dim=1) for t in (key, value))
    outputs = []
    for group in packing.groups:
        band = _band(group[2], sliding_window, causal, query.device)
        attended = scaled_dot_product_attention(
            _rectangle(query, group),
            _rectangle(key, group),
            _rectangle(value, group),
            attn_mask=band,
            is_causal=causal and band is None,
            scale=scaling,
        )
        outputs.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs).unsqueeze(0), None


def _rectangle(states: Tensor, group: tuple[int, int, int]) -> Tensor:
    """The states [1, heads, tokens, dim] of one group as [sequences, heads, length, dim]."""
    start, count, length = group
    rows = states[0, :, start : start + count * length].unflatten(1, (count, length))
    return rows.transpose(0, 1)


def _band(length: int, window: int | None, causal: bool, device: torch.device) -> Tensor | None:
    """The mask of sliding-window attention where the window is shorter than the sequence."""
    if window is None or length <= window:
        return None
    positions = torch.arange(length, device=device)
    distance = positions[:, None] - positions[None, :]
    near = distance.abs() < window
    return near & (distance >= 0) if causal else near


def position_offset(model: nn.Module) -> int:
    """RoBERTa and its kin count positions from the padding id + 1; others from 0."""
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            return int(table.padding_idx) + 1
    return 0


class PackedBackbone:
    """Hidden states of sequences sorted by length, without padding."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._offset = position_offset(model)

    def __call__(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """[tokens, hidden], the sequences one after another."""
        lengths = [len(s) for s in sequences]
        positions = [torch.arange(self._offset, self._offset + n) for n in lengths]
        inputs = _flat_inputs(sequences) | {"position_ids": torch.cat(positions)}
        device = next(self._model.parameters()).device
        inputs = {name: moved(tensor.unsqueeze(0), device) for name, tensor in inputs.items()}
        outputs = self._model(**inputs, use_cache=False, packing=packing_of(lengths, device))
        hidden: Tensor = outputs.last_hidden_state[0]
        return hidden


class PaddedBackbone:
    """The same for models outside the attention interface: padded, but split where it pays."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def __call__(self, sequences: Sequence[TokenSequence]) -> Tensor:
        """[tokens, hidden], the sequences one after another."""
        parts = []
        for start, end in split_by_length([len(s) for s in sequences]):
            inputs = padded_inputs(self._model, sequences[start:end])
            hidden = self._model(**inputs).last_hidden_state
            parts.append(hidden[inputs["attention_mask"].bool()])
        return torch.cat(parts)


def padded_inputs(model: nn.Module, sequences: Sequence[TokenSequence]) -> dict[str, Tensor]:
    """Rectangular inputs, padded on the right: [sequences, longest]."""
    config: Any = model.config
    longest = max(len(s) for s in sequences)
    columns: dict[str, list[tuple[Sequence[int], int]]] = {
        "input_ids": [(s.ids, config.pad_token_id or 0) for s in sequences],
        "attention_mask": [([1] * len(s), 0) for s in sequences],
    }
    if sequences[0].type_ids is not None:
        columns["token_type_ids"] = [(s.type_ids or (), 0) for s in sequences]
    device = next(model.parameters()).device
    return {
        name: moved(torch.stack([_padded(ids, longest, fill) for ids, fill in rows]), device)
        for name, rows in columns.items()
    }


def _padded(ids: Sequence[int], length: int, fill: int) -> Tensor:
    return pad(torch.tensor(ids, dtype=torch.long), (0, length - len(ids)), value=fill)


def _flat_inputs(sequences: Sequence[TokenSequence]) -> dict[str, Tensor]:
    inputs = {"input_ids": torch.tensor([i for s in sequences for i in s.ids])}
    if sequences[0].type_ids is not None:
        inputs["token_type_ids"] = torch.tensor([i for s in sequences for i in s.type_ids or ()])
    return inputs
