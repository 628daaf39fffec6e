"""Sequence classifiers in ONNX Runtime, for checkpoints that ship as a graph and tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from models.batching import BatchListener
from models.encoders.classification_codec import ClassificationCodec
from models.encoders.label_set import read_labels
from models.encoders.onnx_session import OnnxRunner, model_file, token_limit
from models.encoders.text_engine import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_QUEUED_TOKENS,
    EngineOptions,
    TextEngine,
)
from models.encoders.tokenization import TextTokenizer, TokenSequence, read_tokenizer_file
from models.errors import ModelLoadError
from models.model_folder import ModelFolder
from models.types.classification import ClassificationRequest, ClassificationResult
from models.types.common import FloatArray


class OnnxClassifier(TextEngine[ClassificationRequest, ClassificationResult]):
    """A graph with one row of logits per text; satisfies `Classifier`.

    Labels and activation are those of config.json; `labels` names them for folders without one.
    `moderation_labels` are read by the ingress; here their keys must be labels of the model.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        file: str | None = None,
        labels: Sequence[str] | None = None,
        moderation_labels: Mapping[str, str] | None = None,
        max_tokens: int | None = None,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the folder; `max_tokens` lowers the tokenizer's own limit. Raises ModelLoadError."""
        folder = ModelFolder(path)
        label_set = read_labels(folder.read_object("config.json"), labels)
        label_set.check_known(moderation_labels or ())
        graph = model_file(path, file)
        runner = OnnxRunner(graph, n_threads, _logits, ("logits",))
        if runner.check().shape != (len(label_set.names),):
            raise ModelLoadError(f"the ONNX graph does not have {len(label_set.names)} labels")
        tokenizer = TextTokenizer(read_tokenizer_file(path), has_types=runner.has_types)
        limit = token_limit(folder)
        max_tokens = min(max_tokens or limit, limit)
        self._labels = label_set.names
        super().__init__(
            ClassificationCodec(tokenizer, max_tokens, label_set),
            runner,
            max_tokens=max_tokens,
            memory_bytes=graph.stat().st_size,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )
        self._runner = runner

    @property
    def labels(self) -> tuple[str, ...]:
        return self._labels

    def close(self) -> None:
        super().close()
        self._runner.free()


def _logits(output: FloatArray, sequences: Sequence[TokenSequence]) -> Sequence[FloatArray]:
    return list(output.reshape(len(sequences), -1))
