"""Cross-encoders in ONNX Runtime, for checkpoints that ship as model.onnx and tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from onnxruntime.capi.onnxruntime_pybind11_state import (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
    RuntimeException,
)

from models.batching import BatchListener
from models.errors import ModelLoadError
from models.length_split import split_by_length
from models.model_folder import ModelFolder
from models.rerank_codec import RerankCodec, activation_named
from models.text_engine import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_QUEUED_TOKENS,
    EngineOptions,
    TextEngine,
)
from models.tokenization import TextTokenizer, TokenSequence, read_tokenizer_file
from models.types import FloatArray, RerankRequest, RerankResult

DEFAULT_MAX_TOKENS = 512
MODEL_FILE = "model.onnx"
INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
SESSION_ERRORS = (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
    RuntimeException,
)


class OnnxReranker(TextEngine[RerankRequest, RerankResult]):
    """A cross-encoder with one logit; satisfies `Reranker`.

    Batches are split by length where padding costs more than another call. Checkpoints quantised
    dynamically to int8 score a document slightly differently in different company.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the folder. Raises ModelLoadError."""
        folder = ModelFolder(path)
        limit = folder.read_object("tokenizer_config.json").get("model_max_length", max_tokens)
        activation = folder.read_object("config_sentence_transformers.json").get("activation_fn")
        runner = _SessionRunner(path, n_threads)
        tokenizer = TextTokenizer(read_tokenizer_file(path), has_types=runner.has_types)
        max_tokens = min(max_tokens, limit)
        super().__init__(
            RerankCodec(tokenizer, max_tokens, activation_named(activation)),
            runner,
            max_tokens=max_tokens,
            memory_bytes=(path / MODEL_FILE).stat().st_size,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )
        self._runner = runner

    def close(self) -> None:
        super().close()
        self._runner.free()


class _SessionRunner:
    """Token sequences in any order to rows of one logit each."""

    def __init__(self, path: Path, n_threads: int) -> None:
        self._session: onnxruntime.InferenceSession | None = _open_session(path, n_threads)
        self._names = frozenset(node.name for node in self._session.get_inputs())
        if not {"input_ids", "attention_mask"} <= self._names <= INPUTS:
            raise ModelLoadError("the ONNX graph does not have the inputs of a text encoder")
        self.has_types = "token_type_ids" in self._names

    def __call__(self, sequences: list[TokenSequence]) -> list[FloatArray]:
        if self._session is None:
            raise RuntimeError("the model has been freed")
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        ascending = [sequences[i] for i in order]
        rows = [
            row
            for start, end in split_by_length([len(s) for s in ascending])
            for row in self._session.run(None, self._feeds(ascending[start:end]))[0]
        ]
        results: list[FloatArray] = [rows[0]] * len(rows)
        for row, index in zip(rows, order, strict=True):
            results[index] = np.asarray(row, dtype=np.float32).reshape(-1)
        return results

    def free(self) -> None:
        self._session = None

    def _feeds(self, sequences: Sequence[TokenSequence]) -> dict[str, np.ndarray]:
        """Padded on the right with zeros: [sequences, longest], int64."""
        feeds = {
            name: np.zeros((len(sequences), len(sequences[-1])), dtype=np.int64)
            for name in self._names
        }
        for row, sequence in enumerate(sequences):
            feeds["input_ids"][row, : len(sequence)] = sequence.ids
            feeds["attention_mask"][row, : len(sequence)] = 1
            if self.has_types and sequence.type_ids is not None:
                feeds["token_type_ids"][row, : len(sequence)] = sequence.type_ids
        return feeds


def _open_session(path: Path, n_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # CPUs are shared
    if not (path / MODEL_FILE).is_file():
        raise ModelLoadError(f"the model folder has no {MODEL_FILE}")
    try:
        return onnxruntime.InferenceSession(
            str(path / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )
    except SESSION_ERRORS as error:
        raise ModelLoadError("the ONNX model cannot be loaded") from error
