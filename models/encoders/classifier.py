"""Sequence classifiers in torch: texts or pairs of texts in, a score per label out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from models.batching import BatchListener
from models.encoders.classification_codec import ClassificationCodec
from models.encoders.classifier_paths import SequenceClassifierPaths
from models.encoders.label_set import read_labels
from models.encoders.text_engine import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_QUEUED_TOKENS,
    EngineOptions,
    TextEngine,
)
from models.encoders.torch_forward import Dtype, TorchOptions, TorchRunner
from models.errors import ModelLoadError
from models.model_folder import open_transformers_folder
from models.transformers_loading import load_tokenizer
from models.types.classification import ClassificationRequest, ClassificationResult


class TorchClassifier(TextEngine[ClassificationRequest, ClassificationResult]):
    """Any sequence classifier that transformers loads; satisfies `Classifier`.

    Labels and activation are the folder's own, as transformers' pipeline reads them. A model with
    an entailment label also judges labels of the request, as the zero-shot pipeline does.
    `moderation_labels` are read by the ingress; here their keys must be labels of the model.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        dtype: Dtype = "auto",
        device: str = "cpu",
        moderation_labels: Mapping[str, str] | None = None,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the folder. Raises ModelLoadError."""
        folder = open_transformers_folder(path)
        labels = read_labels(folder.read_object("config.json"))
        labels.check_known(moderation_labels or ())
        tokenizer = load_tokenizer(path)
        self.runner = TorchRunner(
            SequenceClassifierPaths(folder),
            tokenizer,
            tokenizer.limit,
            TorchOptions(n_threads, dtype, device),
        )
        if self.runner.features != len(labels.names):
            raise ModelLoadError("the model does not have as many labels as its configuration")
        self._labels = labels.names
        super().__init__(
            ClassificationCodec(tokenizer, self.runner.max_tokens, labels),
            self.runner,
            max_tokens=self.runner.max_tokens,
            memory_bytes=self.runner.memory_bytes,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )

    @property
    def labels(self) -> tuple[str, ...]:
        return self._labels

    def close(self) -> None:
        super().close()
        self.runner.free()
