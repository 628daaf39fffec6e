"""From hidden states to vectors: pooling, as sentence-transformers defines it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.encoders.tokenization import TokenSequence


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


def _pooled(hidden: Tensor, sizes: Tensor, ends: Tensor, mode: str) -> Tensor:
    if mode == "cls":
        return hidden[ends - sizes].float()
    if mode == "lasttoken":
        return hidden[ends - 1].float()
    states = hidden.float()
    if mode == "max":
        return torch.segment_reduce(states, "max", lengths=sizes)
    if mode == "mean":
        return torch.segment_reduce(states, "mean", lengths=sizes)
    if mode == "mean_sqrt_len_tokens":
        return torch.segment_reduce(states, "sum", lengths=sizes) / sizes.sqrt()[:, None]
    # weightedmean: the n-th token of a sequence weighs n
    ranks = torch.arange(1, len(states) + 1, device=hidden.device)
    ranks = ranks - (ends - sizes).repeat_interleave(sizes)
    weighted = torch.segment_reduce(states * ranks[:, None], "sum", lengths=sizes)
    return weighted / (sizes * (sizes + 1) / 2)[:, None]
