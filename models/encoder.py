"""Bi-encoders: texts or token ids in, vectors out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoModel

from models.batching import BatchListener
from models.embedding_codec import EmbeddingCodec
from models.embedding_engine import EmbeddingEngine
from models.embedding_recipe import EmbeddingRecipe, read_recipe
from models.model_folder import ModelFolder, open_transformers_folder
from models.packed_transformer import PackedBackbone, PaddedBackbone
from models.pooling import build_steps, pool, pooled_parts
from models.text_engine import DEFAULT_BATCH_TOKENS, DEFAULT_QUEUED_TOKENS, EngineOptions
from models.tokenization import TokenSequence
from models.torch_forward import Dtype, Forward, TorchOptions, TorchRunner
from models.transformers_loading import load_tokenizer, load_transformer
from models.types import EmbeddingKind


class TorchEncoder(EmbeddingEngine):
    """Any encoder or decoder embedder that transformers loads; satisfies `Encoder`.

    Pooling, normalisation, prompts and the length limit are the folder's own. A text's vector alone
    and in a batch agree to a cosine of 0.9999 in bfloat16 and 0.999999 in float32.
    """

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
        recipe = read_recipe(ModelFolder(path))
        paths = _EmbeddingPaths(path, recipe)
        tokenizer = load_tokenizer(path / recipe.transformer, lowercase=recipe.lowercase)
        self.runner = TorchRunner(
            paths,
            tokenizer,
            recipe.max_tokens or tokenizer.limit,
            TorchOptions(n_threads, dtype, device),
        )
        codec = EmbeddingCodec(
            tokenizer,
            self.runner.features,
            self.runner.max_tokens,
            recipe.prompts,
            normalizes=recipe.normalizes,
            late_chunking=recipe.pooling == ("mean",),
            kinds=_kinds(recipe),
        )
        super().__init__(
            codec,
            self.runner,
            memory_bytes=self.runner.memory_bytes,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
            pooling="+".join(recipe.pooling),
            dtype=str(self.runner.dtype).removeprefix("torch."),
        )

    def close(self) -> None:
        super().close()
        self.runner.free()


def _kinds(recipe: EmbeddingRecipe) -> tuple[EmbeddingKind, ...]:
    """Hidden states are the vectors of tokens where pooling one token gives its state."""
    plain = len(recipe.pooling) == 1 and not recipe.steps
    return ("dense", "tokens") if plain else ("dense",)


class _EmbeddingPaths:
    """`ForwardPaths` of bi-encoders: both pool a flat axis of hidden states."""

    def __init__(self, path: Path, recipe: EmbeddingRecipe) -> None:
        self._folder = open_transformers_folder(path / recipe.transformer)
        self._modes = recipe.pooling
        self._steps = build_steps(ModelFolder(path), recipe.steps)

    def load(self) -> Any:
        model = load_transformer(AutoModel, self._folder)
        if hasattr(model, "pooler"):
            model.pooler = None  # never part of a sentence-transformers vector
        return model

    def plain(self, model: Any) -> Forward:
        return self._pooled(PaddedBackbone(model), model)

    def packed(self, model: Any) -> Forward:
        return self._pooled(PackedBackbone(model), model)

    def trunk(self, model: Any) -> Sequence[nn.Module]:
        return (model,)

    def _pooled(self, backbone: Callable[[Sequence[TokenSequence]], Tensor], model: Any) -> Forward:
        steps = self._steps.to(model.device)

        def forward(sequences: Sequence[TokenSequence]) -> Tensor:
            hidden = backbone(sequences)
            vectors: Tensor = steps(pool(*pooled_parts(hidden, sequences), self._modes))
            return vectors

        return forward
