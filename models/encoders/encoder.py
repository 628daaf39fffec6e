"""Bi-encoders: texts or token ids in, vectors out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoModel, AutoModelForTextEncoding

from models.batching import BatchListener
from models.encoders.embedding_codec import EmbeddingCodec
from models.encoders.embedding_engine import EmbeddingEngine
from models.encoders.embedding_outputs import sparse_row
from models.encoders.embedding_recipe import EmbeddingRecipe, read_recipe, with_options
from models.encoders.packed_transformer import PackedBackbone, PaddedBackbone
from models.encoders.pooling import pool, pooled_parts
from models.encoders.splade_paths import SpladePaths
from models.encoders.text_engine import DEFAULT_BATCH_TOKENS, DEFAULT_QUEUED_TOKENS, EngineOptions
from models.encoders.tokenization import TokenSequence
from models.encoders.torch_forward import Dtype, Forward, ForwardPaths, TorchOptions, TorchRunner
from models.encoders.vector_steps import build_steps
from models.model_folder import ModelFolder, open_transformers_folder
from models.transformers_loading import load_tokenizer, load_transformer
from models.types.common import FloatArray
from models.types.texts import EmbeddingKind

HALVES = ("t5", "mt5", "umt5")
"""Encoder-decoder families of which the encoder alone embeds, as in sentence-transformers."""


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
        pooling: str | None = None,
        normalize: bool | None = None,
        prompts: Mapping[str, str] | None = None,
        dtype: Dtype = "auto",
        device: str = "cpu",
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the folder. Raises ModelLoadError.

        `pooling`, `normalize` and `prompts` stand in for the sentence-transformers files of folders
        that have none; pooling "splade" makes sparse vectors with a language modelling head.
        """
        recipe = with_options(
            read_recipe(ModelFolder(path)), pooling=pooling, normalize=normalize, prompts=prompts
        )
        tokenizer = load_tokenizer(path / recipe.transformer, lowercase=recipe.lowercase)
        self.runner = TorchRunner(
            _paths(path, recipe),
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
            late_chunking=recipe.output == "dense" and recipe.pooling == ("mean",),
            kinds=_kinds(recipe),
        )
        super().__init__(
            codec,
            self.runner if recipe.output != "sparse" else self._sparse_rows,
            memory_bytes=self.runner.memory_bytes,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
            pooling="+".join(recipe.pooling),
            dtype=str(self.runner.dtype).removeprefix("torch."),
        )

    def close(self) -> None:
        super().close()
        self.runner.free()

    def _sparse_rows(self, sequences: list[TokenSequence]) -> list[FloatArray]:
        return [sparse_row(row) for row in self.runner(sequences)]


def _kinds(recipe: EmbeddingRecipe) -> tuple[EmbeddingKind, ...]:
    """Hidden states are the vectors of tokens where pooling one token gives its state."""
    plain = recipe.output == "dense" and len(recipe.pooling) == 1 and not recipe.steps
    return ("dense", "tokens") if plain else (recipe.output,)


def _paths(path: Path, recipe: EmbeddingRecipe) -> ForwardPaths:
    folder = open_transformers_folder(path / recipe.transformer, halves=HALVES)
    if recipe.output == "sparse":
        return SpladePaths(folder, recipe.splade)
    return _EmbeddingPaths(folder, recipe, build_steps(ModelFolder(path), recipe.steps))


class _EmbeddingPaths:
    """`ForwardPaths` of bi-encoders: both pool a flat axis of hidden states."""

    def __init__(self, folder: ModelFolder, recipe: EmbeddingRecipe, steps: nn.Sequential) -> None:
        self._folder = folder
        self._modes = recipe.pooling
        self._steps = steps

    def load(self) -> Any:
        half = self._folder.read_object("config.json").get("model_type") in HALVES
        model = load_transformer(AutoModelForTextEncoding if half else AutoModel, self._folder)
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
