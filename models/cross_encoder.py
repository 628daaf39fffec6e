"""Cross-encoders in torch: a query and documents in, one relevance logit per document out."""

from __future__ import annotations

from pathlib import Path

from models.batching import BatchListener
from models.classifier_paths import SequenceClassifierPaths
from models.errors import ModelLoadError
from models.model_folder import ModelFolder, open_transformers_folder
from models.rerank_codec import RerankCodec, activation_named
from models.text_engine import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_QUEUED_TOKENS,
    EngineOptions,
    TextEngine,
)
from models.torch_forward import Dtype, TorchOptions, TorchRunner
from models.transformers_loading import load_tokenizer
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
            SequenceClassifierPaths(folder),
            tokenizer,
            limit or tokenizer.limit,
            TorchOptions(n_threads, dtype, device),
        )
        if self.runner.features != 1:
            raise ModelLoadError("a reranker must have exactly one label")
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
