"""Cross-encoders in torch: a query and documents in, one relevance logit per document out."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions

from models.batching import BatchListener
from models.errors import ModelLoadError
from models.length_split import split_by_length
from models.model_folder import ModelFolder, open_transformers_folder
from models.packed_transformer import PackedBackbone, padded_inputs
from models.pooling import pool
from models.rerank_codec import RerankCodec, activation_named
from models.text_engine import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_QUEUED_TOKENS,
    EngineOptions,
    TextEngine,
)
from models.tokenization import TokenSequence
from models.torch_forward import Dtype, Forward, TorchOptions, TorchRunner
from models.transformers_loading import load_tokenizer, load_transformer
from models.types import RerankRequest, RerankResult


class TorchReranker(TextEngine[RerankRequest, RerankResult]):
    """Any sequence classifier with one label that transformers loads; satisfies `Reranker`."""

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        dtype: Dtype = "auto",
        device: str = "cpu",
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the folder. Raises ModelLoadError."""
        folder = open_transformers_folder(path)
        activation = activation_named(_activation_name(folder))
        tokenizer = load_tokenizer(path)
        limit = folder.read_object("sentence_bert_config.json").get("max_seq_length")
        self.runner = TorchRunner(
            _ClassifierPaths(folder),
            tokenizer,
            limit or tokenizer.limit,
            TorchOptions(n_threads, dtype, device),
        )
        super().__init__(
            RerankCodec(tokenizer, self.runner.max_tokens, activation),
            self.runner,
            max_tokens=self.runner.max_tokens,
            memory_bytes=self.runner.memory_bytes,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )

    def close(self) -> None:
        super().close()
        self.runner.free()


def _activation_name(folder: ModelFolder) -> str | None:
    """Where sentence-transformers has written it over the years, newest first."""
    config = folder.read_object("config.json")
    newest = folder.read_object("config_sentence_transformers.json").get("activation_fn")
    newer = (config.get("sentence_transformers") or {}).get("activation_fn")
    return newest or newer or config.get("sbert_ce_default_activation_function")


class _ClassifierPaths:
    """`ForwardPaths` of sequence classifiers.

    Packed: the trunk runs on the flat axis, one pooled state per sequence goes to the unmodified
    head in float32 (a logit in bfloat16 would have two significant digits).
    """

    def __init__(self, folder: ModelFolder) -> None:
        self._folder = folder
        if len(folder.read_objects("modules.json")) > 1:
            raise ModelLoadError("rerankers with modules beyond the transformer are not supported")

    def load(self) -> Any:
        model = load_transformer(AutoModelForSequenceClassification, self._folder)
        if model.config.num_labels != 1:
            raise ModelLoadError("a reranker must have exactly one label")
        return model

    def plain(self, model: Any) -> Forward:
        def forward(sequences: Sequence[TokenSequence]) -> Tensor:
            parts = [
                model(**padded_inputs(model, sequences[start:end])).logits
                for start, end in split_by_length([len(s) for s in sequences])
            ]
            return torch.cat(parts)

        return forward

    def packed(self, model: Any) -> Forward:
        trunk = _without_pooler(model.base_model)
        backbone = PackedBackbone(trunk)
        head = _head(model)
        mode = _read_position(model)

        def forward(sequences: Sequence[TokenSequence]) -> Tensor:
            return head(pool(backbone(sequences), [len(s) for s in sequences], (mode,)))

        return forward

    def trunk(self, model: Any) -> Sequence[nn.Module]:
        return [child for name, child in model.base_model.named_children() if name != "pooler"]


def _read_position(model: Any) -> str:
    """Which state the family's classification head reads."""
    if isinstance(model, GenericForSequenceClassification):  # decoders
        return "lasttoken"
    return "mean" if getattr(model.config, "classifier_pooling", None) == "mean" else "cls"


def _head(model: Any) -> Callable[[Tensor], Tensor]:
    """The classifier's own head: [sequences, hidden] to [sequences, labels]."""
    pooler = getattr(model.base_model, "pooler", None)
    head = _shallow(model)
    setattr(head, model.base_model_prefix, _GivenStates(pooler))

    def forward(pooled: Tensor) -> Tensor:
        states = pooled.unsqueeze(1)
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


def _without_pooler(trunk: nn.Module) -> nn.Module:
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
