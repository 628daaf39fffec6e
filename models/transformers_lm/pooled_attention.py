"""Attention of an unmodified transformers model over keys and values in one pool.

The tokens of a step lie on a single axis (a batch of 1) with explicit positions. The model writes
its keys and values through `PooledCache`, which gives back the whole pool; the attention function,
registered with transformers' AttentionInterface, gathers from it what each query may see. Masks
are the model's own: what transformers would build a mask from, a function of positions, is asked
for the positions of the queries and keys at hand, so that windows and chunks come out right.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, Cache
from transformers.cache_utils import CacheLayerMixin
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function

from models.transformers_lm.step_plan import AttentionCall, StepPlan

POOLED = "pooled_cells"
MAX_SCORES = 2**25
"""Scores that are held at the same time where they must be written out: 128 MB."""

_THREAD = threading.local()


class PooledLayer(CacheLayerMixin):  # type: ignore[misc]  # transformers is untyped here
    """Keys and values of one layer, [cells, heads, dim] each, as large as the first step asks."""

    is_compileable = False
    is_sliding = False

    def __init__(self, cells: int) -> None:
        super().__init__()
        self._cells = cells
        self.plan: StepPlan | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys, self.values = (
            states.new_zeros(self._cells, states.shape[1], states.shape[3])
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        """Store the step's [1, heads, tokens, dim]; returns the pool as [1, heads, cells, dim]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.plan is None:
            raise RuntimeError("the cache is used outside a step")
        self.keys.index_copy_(0, self.plan.cells, key_states[0].transpose(0, 1))
        self.values.index_copy_(0, self.plan.cells, value_states[0].transpose(0, 1))
        return self.keys.transpose(0, 1)[None], self.values.transpose(0, 1)[None]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return self._cells


class PooledCache(Cache):  # type: ignore[misc]  # transformers is untyped here
    """The pool of all layers."""

    def __init__(self, *, layers: int, cells: int) -> None:
        super().__init__(layers=[PooledLayer(cells) for _ in range(layers)])

    @contextmanager
    def step(self, plan: StepPlan) -> Iterator[None]:
        """What this thread's model computes meanwhile is the step of `plan`.

        Not every family passes unknown arguments on to its attention, but all pass their mask,
        and whoever makes the mask finds the plan by the thread.
        """
        for layer in self.layers:
            layer.plan = plan
        _THREAD.plan = plan
        try:
            yield
        finally:
            del _THREAD.plan


class PositionMask:
    """Which key positions a query position may see in the step of `plan`: what a model's layers
    get as their mask. Its values are computed once per step and attention call, not per layer.
    """

    def __init__(
        self, visible: Callable[[int, int, Tensor, Tensor], Tensor], plan: StepPlan
    ) -> None:
        self.plan = plan
        self._visible = visible
        self._causal = visible is causal_mask_function
        self._biases: dict[int, Tensor | None] = {}

    def bias(self, call: AttentionCall, dtype: torch.dtype) -> Tensor | None:
        """0 or minus infinity to add to the scores, None for nothing; broadcasts over heads.

        [sequences, 1, 1, length] for decoding sequences, [1, 1, rows, length] for a chunk.
        """
        if self._causal and call.sees_all:
            return None
        key = id(call)
        if key not in self._biases:
            self._biases[key] = self._computed(call, dtype)
        return self._biases[key]

    def _computed(self, call: AttentionCall, dtype: torch.dtype) -> Tensor | None:
        queries = call.positions[:, None]
        keys = torch.arange(call.length, device=queries.device)[None]
        visible = self._visible(0, 0, queries, keys)
        if bool(visible.all()):
            return None
        bias = torch.zeros(visible.shape, dtype=dtype, device=queries.device)
        bias.masked_fill_(~visible, -torch.inf)
        return bias[None, None] if call.is_chunk else bias[:, None, None]


def _position_mask(*_: Any, mask_function: Any = causal_mask_function, **__: Any) -> PositionMask:
    return PositionMask(mask_function, _THREAD.plan)


def register_pooled_attention() -> None:
    """Make `POOLED` known to transformers, which repeating does not harm."""
    AttentionInterface.register(POOLED, pooled_attention)
    AttentionMaskInterface.register(POOLED, _position_mask)


def pooled_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: PositionMask | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of `query` [1, heads, tokens, dim] over the pool [1, key heads, cells, dim].

    `softcap` bounds the scores (Gemma 2), `s_aux` has one more score per head that takes part in
    the softmax and has no value (gpt-oss). Returns [1, tokens, heads, value dim]. ValueError when
    the model asks for attention of another kind.
    """
    if not isinstance(attention_mask, PositionMask) or position_bias is not None:
        raise ValueError("the model's attention is not a function of positions")
    queries = query[0].transpose(0, 1)
    keys, values = key[0].transpose(0, 1), value[0].transpose(0, 1)
    result = query.new_empty(*queries.shape[:2], values.shape[2])
    for call in attention_mask.plan.calls:
        operands = _operands(call, queries, keys, values)
        bias = attention_mask.bias(call, query.dtype)
        if softcap is None and s_aux is None:
            attended = scaled_dot_product_attention(*operands, attn_mask=bias, scale=scaling)
        else:
            sinks = None if s_aux is None else _sinks(call, s_aux, keys.shape[1])
            attended = _explicit_attention(operands, bias, scaling, softcap, sinks)
        grouped = attended.permute(2, 1, 0, 3) if call.is_chunk else attended
        result[call.rows] = grouped.flatten(1, 2)
    return result[None], None


def _operands(
    call: AttentionCall, queries: Tensor, keys: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Query heads that share a key head (a group) become more queries of it, so that keys are not
    repeated. A chunk: [group, key heads, rows, dim] over one set of keys. Decoding sequences:
    [sequences, key heads, group, dim].
    """
    grouped = queries[call.rows].unflatten(1, (keys.shape[1], -1))
    k, v = (pool.index_select(0, call.cells) for pool in (keys, values))
    if call.is_chunk:
        group = grouped.shape[2]
        k, v = (states.transpose(0, 1).expand(group, -1, -1, -1) for states in (k, v))
        return grouped.permute(2, 1, 0, 3), k, v
    shape = (call.sequences, call.length)
    k, v = (states.unflatten(0, shape).transpose(1, 2) for states in (k, v))
    return grouped, k, v


def _explicit_attention(
    operands: tuple[Tensor, Tensor, Tensor],
    bias: Tensor | None,
    scaling: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attention whose scores are changed before or in the softmax. `sinks` is [1 or groups,
    key heads, 1 or groups, 1], as the scores are laid out. A long chunk goes in blocks of rows.
    """
    query, key, value = operands
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    block = max(1, MAX_SCORES // (query.shape[0] * query.shape[1] * key.shape[2]))
    if bias is None or bias.shape[2] <= block:
        return _scored(operands, bias, scale, softcap, sinks)
    parts = zip(query.split(block, 2), bias.split(block, 2), strict=True)
    return torch.cat(
        [_scored((rows, key, value), part, scale, softcap, sinks) for rows, part in parts], dim=2
    )


def _scored(
    operands: tuple[Tensor, Tensor, Tensor],
    bias: Tensor | None,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    query, key, value = operands
    scores = query @ key.transpose(2, 3) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if bias is not None:
        scores = scores + bias
    scores = scores.float()
    if sinks is None:
        return scores.softmax(-1).to(value.dtype) @ value
    column = sinks.float().expand(*scores.shape[:3], 1)
    weights = torch.cat((scores, column), dim=-1).softmax(-1)[..., :-1]
    return weights.to(value.dtype) @ value


def _sinks(call: AttentionCall, scores: Tensor, key_heads: int) -> Tensor:
    """One score per query head, [heads], in the layout of `_operands`."""
    grouped = scores.view(key_heads, -1)
    return grouped.t()[:, :, None, None] if call.is_chunk else grouped[None, :, :, None]
