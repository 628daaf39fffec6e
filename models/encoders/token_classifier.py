"""Token classifiers in torch: texts in, their entities with character offsets out."""

from __future__ import annotations

from pathlib import Path

from models.batching import BatchListener
from models.encoders.classifier_paths import TokenClassifierPaths
from models.encoders.entity_codec import EntityCodec
from models.encoders.entity_grouping import EntityGrouping
from models.encoders.label_set import read_labels
from models.encoders.text_engine import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_QUEUED_TOKENS,
    EngineOptions,
    TextEngine,
)
from models.encoders.torch_forward import Dtype, TorchOptions, TorchRunner
from models.encoders.word_tokenizer import WordTokenizer, check_window
from models.errors import ModelLoadError
from models.model_folder import open_transformers_folder
from models.transformers_loading import load_tokenizer
from models.types.classification import EntityRequest, EntityResult


class TorchTokenClassifier(TextEngine[EntityRequest, EntityResult]):
    """Any token classifier that transformers loads; satisfies `EntityRecognizer`.

    `max_tokens` makes the windows in which long texts are read smaller than the model allows.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        dtype: Dtype = "auto",
        device: str = "cpu",
        max_tokens: int | None = None,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the folder. Raises ModelLoadError."""
        folder = open_transformers_folder(path)
        labels = read_labels(folder.read_object("config.json"))
        tokenizer = load_tokenizer(path)
        self.runner = TorchRunner(
            TokenClassifierPaths(folder),
            tokenizer,
            min(max_tokens or tokenizer.limit, tokenizer.limit),
            TorchOptions(n_threads, dtype, device),
            per_token=True,
        )
        if self.runner.features != len(labels.names):
            raise ModelLoadError("the model does not have as many labels as its configuration")
        window = check_window(self.runner.max_tokens)
        grouping = EntityGrouping(labels.names)
        self._entity_labels = grouping.names
        super().__init__(
            EntityCodec(WordTokenizer(tokenizer), window, grouping),
            self.runner,
            max_tokens=window,
            memory_bytes=self.runner.memory_bytes,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )

    @property
    def entity_labels(self) -> tuple[str, ...]:
        return self._entity_labels

    def close(self) -> None:
        super().close()
        self.runner.free()
