"""From hidden states to vectors: pooling, as sentence-transformers defines it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from models.encoders.tokenization import TokenSequence

Reduction = Literal["max", "mean", "sum"]
_REDUCTIONS: dict[Reduction, Callable[[Tensor], Tensor]] = {
    "max": lambda states: states.amax(0),
    "mean": lambda states: states.mean(0),
    "sum": lambda states: states.sum(0),
}


def pool(hidden: Tensor, lengths: Sequence[int], modes: Sequence[str]) -> Tensor:
    """[tokens, hidden] of sequences one after another to float32 [sequences, hidden * modes]."""
    sizes = torch.tensor(lengths, device=hidden.device)
    ends = sizes.cumsum(0)
    parts = [_pooled(hidden, sizes, ends, mode) for mode in modes]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def pooled_parts(hidden: Tensor, sequences: Sequence[TokenSequence]) -> tuple[Tensor, list[int]]:
    """What `pool` takes: of sequences with spans only those, one after another."""
    if all(sequence.spans is None for sequence in sequences):
        return hidden, [len(sequence) for sequence in sequences]
    kept, lengths, first = [], [], 0
    for sequence in sequences:
        for start, stop in sequence.spans or ((0, len(sequence)),):
            kept.append(torch.arange(first + start, first + stop))
            lengths.append(stop - start)
        first += len(sequence)
    return hidden[torch.cat(kept).to(hidden.device)], lengths


def reduced(states: Tensor, sizes: Tensor, how: Reduction) -> Tensor:
    """[tokens, features] of sequences one after another, of these sizes, to a row for each."""
    try:
        return torch.segment_reduce(states, how, lengths=sizes)
    except NotImplementedError:  # Apple's GPUs: https://github.com/pytorch/pytorch/issues/197880
        return torch.stack([_REDUCTIONS[how](part) for part in states.split(sizes.tolist())])


def _pooled(hidden: Tensor, sizes: Tensor, ends: Tensor, mode: str) -> Tensor:
    if mode == "cls":
        return hidden[ends - sizes].float()
    if mode == "lasttoken":
        return hidden[ends - 1].float()
    states = hidden.float()
    if mode == "max":
        return reduced(states, sizes, "max")
    if mode == "mean":
        return reduced(states, sizes, "mean")
    if mode == "mean_sqrt_len_tokens":
        return reduced(states, sizes, "sum") / sizes.sqrt()[:, None]
    # weightedmean: the n-th token of a sequence weighs n
    ranks = torch.arange(1, len(states) + 1, device=hidden.device)
    ranks = ranks - (ends - sizes).repeat_interleave(sizes)
    weighted = reduced(states * ranks[:, None], sizes, "sum")
    return weighted / (sizes * (sizes + 1) / 2)[:, None]
