"""Cross-encoders in torch: a query and documents in, one relevance logit per document out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from models.batching import BatchListener
from models.encoders.classifier_paths import SequenceClassifierPaths
from models.encoders.rerank_codec import RerankCodec, own_activation, sigmoid
from models.encoders.rerank_heads import label_index, odds_of
from models.encoders.text_engine import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_QUEUED_TOKENS,
    EngineOptions,
    TextEngine,
)
from models.encoders.torch_forward import Dtype, TorchOptions, TorchRunner
from models.encoders.torch_judge import TorchJudge
from models.errors import ModelLoadError
from models.model_folder import ModelFolder, open_transformers_folder
from models.transformers_loading import load_tokenizer
from models.types.texts import RerankRequest, RerankResult


class TorchReranker(TextEngine[RerankRequest, RerankResult]):
    """Any sequence classifier that transformers loads; satisfies `Reranker`.

    Of several labels one must be chosen: a score is its share of the softmax, and a logit its log
    odds.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        label: int | str | None = None,
        dtype: Dtype = "auto",
        device: str = "cpu",
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the folder. Raises ModelLoadError."""
        folder = open_transformers_folder(path)
        tokenizer = load_tokenizer(path)
        limit = folder.read_object("sentence_bert_config.json").get("max_seq_length")
        self.runner = TorchRunner(
            SequenceClassifierPaths(folder),
            tokenizer,
            limit or tokenizer.limit,
            TorchOptions(n_threads, dtype, device),
        )
        index = label_index(_labels(folder, self.runner.features), label)
        own = own_activation(folder)
        super().__init__(
            RerankCodec(tokenizer, self.runner.max_tokens, own if index is None else sigmoid),
            self.runner if index is None else odds_of(self.runner, index),
            max_tokens=self.runner.max_tokens,
            memory_bytes=self.runner.memory_bytes,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )

    def close(self) -> None:
        super().close()
        self.runner.free()


def open_torch_reranker(
    path: Path, *, style: Literal["head", "yes_no"] = "head", **options: Any
) -> TorchReranker | TorchJudge:
    """A classification head, or a language model that answers yes or no. Raises ModelLoadError."""
    if style == "yes_no":
        return TorchJudge(path, **options)
    if style != "head":
        raise ModelLoadError("there is no such style; there are head and yes_no")
    if _is_causal(ModelFolder(path)):
        raise ModelLoadError("this language model has no head for scores: set style to yes_no")
    return TorchReranker(path, **options)


def _is_causal(folder: ModelFolder) -> bool:
    architectures = folder.read_object("config.json").get("architectures") or ()
    return any(str(name).endswith("ForCausalLM") for name in architectures)


def _labels(folder: ModelFolder, count: int) -> tuple[str, ...]:
    names = folder.read_object("config.json").get("id2label") or {}
    return tuple(str(names.get(str(index), index)) for index in range(count))
