"""Splitting a length-sorted batch for backends that need rectangular input."""

from __future__ import annotations

from collections.abc import Sequence

from models.padding import note_padding

CALL_OVERHEAD_TOKENS = 48
"""What one more forward call costs, in padded tokens (small encoders on CPU)."""


def split_by_length(
    lengths: Sequence[int], overhead: int = CALL_OVERHEAD_TOKENS
) -> list[tuple[int, int]]:
    """The cheapest contiguous split of ascending `lengths`, as (start, end) pairs.

    A part costs `overhead` plus its size times its longest length: padding counts as work.
    Cutting between equal lengths never pays, so only the ends of runs are candidates. What padding
    is left counts as the running batch's.
    """
    ends = [i for i in range(1, len(lengths) + 1) if lengths[i - 1 : i] != lengths[i : i + 1]]
    best = {0: (0, 0)}
    for end in ends:
        longest = lengths[end - 1]
        best[end] = min(
            (cost + overhead + (end - start) * longest, start) for start, (cost, _) in best.items()
        )
    parts = []
    end = len(lengths)
    while end:
        start = best[end][1]
        parts.append((start, end))
        end = start
    computed = sum((end - start) * lengths[end - 1] for start, end in parts)
    note_padding(computed - sum(lengths))
    return parts[::-1]
