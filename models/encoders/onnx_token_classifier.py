"""Token classifiers in ONNX Runtime, for checkpoints that ship as a graph and tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.batching import BatchListener
from models.encoders.entity_codec import EntityCodec
from models.encoders.entity_grouping import EntityGrouping
from models.encoders.label_set import read_labels
from models.encoders.onnx_session import OnnxRunner, model_file, token_limit
from models.encoders.text_engine import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_QUEUED_TOKENS,
    EngineOptions,
    TextEngine,
)
from models.encoders.tokenization import TextTokenizer, TokenSequence, read_tokenizer_file
from models.encoders.word_tokenizer import WordTokenizer, check_window
from models.errors import ModelLoadError
from models.model_folder import ModelFolder
from models.types.classification import EntityRequest, EntityResult
from models.types.common import FloatArray


class OnnxTokenClassifier(TextEngine[EntityRequest, EntityResult]):
    """A graph with a row of logits per token; satisfies `EntityRecognizer`.

    Labels are those of config.json; `labels` names them for folders without one. `max_tokens` makes
    the windows in which long texts are read smaller than the tokenizer's limit.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        file: str | None = None,
        labels: Sequence[str] | None = None,
        max_tokens: int | None = None,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the folder. Raises ModelLoadError."""
        folder = ModelFolder(path)
        names = read_labels(folder.read_object("config.json"), labels).names
        graph = model_file(path, file)
        runner = OnnxRunner(graph, n_threads, _logits, ("logits",))
        if runner.check().shape[1:] != (len(names),):
            raise ModelLoadError(f"the ONNX graph does not give {len(names)} labels to a token")
        tokenizer = TextTokenizer(read_tokenizer_file(path), has_types=runner.has_types)
        limit = token_limit(folder)
        max_tokens = check_window(min(max_tokens or limit, limit))
        grouping = EntityGrouping(names)
        self._entity_labels = grouping.names
        super().__init__(
            EntityCodec(WordTokenizer(tokenizer), max_tokens, grouping),
            runner,
            max_tokens=max_tokens,
            memory_bytes=graph.stat().st_size,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )
        self._runner = runner

    @property
    def entity_labels(self) -> tuple[str, ...]:
        return self._entity_labels

    def close(self) -> None:
        super().close()
        self._runner.free()


def _logits(output: FloatArray, sequences: Sequence[TokenSequence]) -> Sequence[FloatArray]:
    """[sequences, longest, labels] without the padding."""
    return [row[: len(sequence)] for row, sequence in zip(output, sequences, strict=True)]
