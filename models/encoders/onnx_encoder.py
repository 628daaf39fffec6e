"""Bi-encoders in ONNX Runtime, for checkpoints that ship an ONNX graph and a tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.batching import BatchListener
from models.encoders.embedding_codec import EmbeddingCodec
from models.encoders.embedding_engine import EmbeddingEngine
from models.encoders.embedding_recipe import EmbeddingRecipe, read_recipe, with_options
from models.encoders.onnx_session import OnnxRunner, model_file, position_limit, token_limit
from models.encoders.row_pooling import pooled_row
from models.encoders.text_engine import DEFAULT_BATCH_TOKENS, DEFAULT_QUEUED_TOKENS, EngineOptions
from models.encoders.tokenization import (
    TextTokenizer,
    TokenSequence,
    lowercased,
    read_tokenizer_file,
)
from models.errors import ModelLoadError
from models.model_folder import ModelFolder
from models.types.common import FloatArray

HIDDEN_STATES = ("last_hidden_state", "token_embeddings")
POOLED = ("sentence_embedding",)


class OnnxEncoder(EmbeddingEngine):
    """A graph of hidden states, pooled as the folder says, or of pooled vectors.

    Results are those of the graph: an int8 export is that much less exact than the original
    (bge-small-en-v1.5 in int8: cosine 0.996 to 0.998 to its own dequantised weights).
    """

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        file: str | None = None,
        pooling: str | None = None,
        normalize: bool | None = None,
        prompts: Mapping[str, str] | None = None,
        max_tokens: int | None = None,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the folder. Raises ModelLoadError.

        `file` names the graph in it. `pooling`, `normalize` and `prompts` stand in for the
        sentence-transformers files of folders that have none; `max_tokens` lowers the limit.
        """
        recipe = with_options(
            read_recipe(ModelFolder(path)), pooling=pooling, normalize=normalize, prompts=prompts
        )
        if recipe.output != "dense":
            raise ModelLoadError("ONNX graphs give dense vectors here, and those of their tokens")
        modes = recipe.pooling
        graph = model_file(path, file)
        reader = _Reader(modes)
        outputs = (*POOLED, *HIDDEN_STATES) if recipe.steps else (*HIDDEN_STATES, *POOLED)
        runner = OnnxRunner(graph, n_threads, reader.read, outputs)
        (dimensions,) = runner.check().shape
        if recipe.steps and reader.pools:
            raise ModelLoadError("the ONNX graph lacks the layers that follow pooling")
        tokenizer = _tokenizer(ModelFolder(path / recipe.transformer), recipe, runner)
        codec = EmbeddingCodec(
            tokenizer,
            dimensions,
            min(max_tokens or tokenizer.limit, tokenizer.limit),
            recipe.prompts,
            normalizes=recipe.normalizes,
            late_chunking=reader.pools and modes == ("mean",),
            kinds=("dense", "tokens") if reader.pools and len(modes) == 1 else ("dense",),
        )
        super().__init__(
            codec,
            runner,
            memory_bytes=graph.stat().st_size,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
            pooling="+".join(modes),
            dtype="int8" if runner.alone else "float32",
        )
        self._runner = runner

    def close(self) -> None:
        super().close()
        self._runner.free()


@dataclass(slots=True)
class _Reader:
    """Pools what the graph gives; `pools` turns False when it has pooled already."""

    modes: Sequence[str]
    pools: bool = True

    def read(self, output: FloatArray, sequences: Sequence[TokenSequence]) -> Sequence[FloatArray]:
        self.pools = output.ndim == 3
        if not self.pools:
            return list(output.reshape(len(sequences), -1))
        return [
            pooled_row(states, sequence, self.modes)
            for states, sequence in zip(output, sequences, strict=True)
        ]


def _tokenizer(folder: ModelFolder, recipe: EmbeddingRecipe, runner: OnnxRunner) -> TextTokenizer:
    backend = read_tokenizer_file(folder.path)
    if recipe.lowercase:
        lowercased(backend)
    side = folder.read_object("tokenizer_config.json").get("truncation_side")
    return TextTokenizer(
        backend,
        has_types=runner.has_types,
        limit=min(recipe.max_tokens or token_limit(folder), position_limit(folder)),
        cut_side="left" if side == "left" else "right",
    )
