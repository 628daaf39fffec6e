"""A family's own unmodified head over given states, and its trunk without what reads them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions


def family_head(model: Any) -> Callable[[Tensor], Tensor]:
    """The model's own head: states [sequences, tokens, hidden] to its logits."""
    pooler = getattr(model.base_model, "pooler", None)
    head = _shallow(model)
    setattr(head, model.base_model_prefix, _GivenStates(pooler))

    def forward(states: Tensor) -> Tensor:
        mask = torch.ones(states.shape[:2], dtype=torch.long, device=states.device)
        logits: Tensor = head(inputs_embeds=states, attention_mask=mask).logits
        return logits

    return forward


class _GivenStates(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Stands in for the trunk below a head: its output is the states it is given."""

    def __init__(self, pooler: nn.Module | None) -> None:
        super().__init__()
        self.pooler = pooler

    def forward(
        self, *_: Any, inputs_embeds: Tensor, **__: Any
    ) -> BaseModelOutputWithPoolingAndCrossAttentions:
        pooled = self.pooler(inputs_embeds) if self.pooler is not None else None
        return BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=inputs_embeds, pooler_output=pooled
        )


def without_pooler(trunk: nn.Module) -> nn.Module:
    """The same trunk less its pooler, which would read the first token of the whole batch."""
    if getattr(trunk, "pooler", None) is None:
        return trunk
    bare = _shallow(trunk)
    bare.pooler = None
    return bare


def _shallow(module: Any) -> Any:
    """A module with the same children, some of which can be replaced without touching it."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    return twin
