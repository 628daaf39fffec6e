"""Cross-encoders in ONNX Runtime, for checkpoints that ship as model.onnx and tokenizer.json."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
from models.tokenization import NO_LIMIT, TextTokenizer, TokenSequence, read_tokenizer_file
from models.types import FloatArray, RerankRequest, RerankResult

DEFAULT_MAX_TOKENS = 512
MODEL_FILE = "model.onnx"
DYNAMIC_QUANTISATION = b"DynamicQuantizeLinear"
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
    dynamically (int8) choose the scale of their activations over the whole batch, so a document
    would score differently in different company: by up to 0.74 logits for the int8 export of
    ms-marco-MiniLM-L-12-v2, enough to change the order of more than half of 32 documents. Such
    models run one document at a time, `n_threads` documents at once, which also costs no padding.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        max_tokens: int | None = None,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the folder; `max_tokens` lowers the tokenizer's own limit. Raises ModelLoadError."""
        folder = ModelFolder(path)
        own_limit = folder.read_object("tokenizer_config.json").get("model_max_length", NO_LIMIT)
        limit = own_limit if own_limit < NO_LIMIT else DEFAULT_MAX_TOKENS
        activation = folder.read_object("config_sentence_transformers.json").get("activation_fn")
        runner = _SessionRunner(path, n_threads)
        runner.check()
        tokenizer = TextTokenizer(read_tokenizer_file(path), has_types=runner.has_types)
        max_tokens = min(max_tokens or limit, limit)
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
        self.alone = _quantises_dynamically(path / MODEL_FILE)
        threads_per_run, runs = (1, n_threads) if self.alone else (n_threads, 1)
        self._session: onnxruntime.InferenceSession | None = _open_session(path, threads_per_run)
        self._runs = ThreadPoolExecutor(runs, thread_name_prefix="onnx")
        self._names = frozenset(node.name for node in self._session.get_inputs())
        if not {"input_ids", "attention_mask"} <= self._names <= INPUTS:
            raise ModelLoadError("the ONNX graph does not have the inputs of a text encoder")
        self.has_types = "token_type_ids" in self._names

    def __call__(self, sequences: list[TokenSequence]) -> list[FloatArray]:
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        ascending = [sequences[i] for i in order]
        parts = [ascending[start:end] for start, end in self._split(ascending)]
        rows = [row for part in self._runs.map(self._run, parts) for row in part]
        results: list[FloatArray] = [rows[0]] * len(rows)
        for row, index in zip(rows, order, strict=True):
            results[index] = row
        return results

    def check(self) -> None:
        """Try one pair of tokens. ModelLoadError when the graph does not give one logit."""
        try:
            (row,) = self([TokenSequence((0, 0), (0, 0))])
        except SESSION_ERRORS as error:
            raise ModelLoadError("the ONNX graph does not run") from error
        if row.shape != (1,):
            raise ModelLoadError("a reranker must have exactly one label")

    def free(self) -> None:
        self._runs.shutdown()
        self._session = None

    def _split(self, ascending: Sequence[TokenSequence]) -> list[tuple[int, int]]:
        if self.alone:
            return [(i, i + 1) for i in range(len(ascending))]
        return split_by_length([len(s) for s in ascending])

    def _run(self, sequences: Sequence[TokenSequence]) -> FloatArray:
        """Logits [sequences, labels]."""
        if self._session is None:
            raise RuntimeError("the model has been freed")
        logits = self._session.run(None, self._feeds(sequences))[0]
        return np.asarray(logits, dtype=np.float32).reshape(len(sequences), -1)

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


def _quantises_dynamically(model: Path) -> bool:
    """Whether the graph quantises activations as it runs; a node's type is plain text in ONNX."""
    if not model.is_file() or not model.stat().st_size:
        raise ModelLoadError(f"the model folder has no {MODEL_FILE}")
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(DYNAMIC_QUANTISATION) >= 0


def _open_session(path: Path, n_threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # CPUs are shared
    try:
        return onnxruntime.InferenceSession(
            str(path / MODEL_FILE), options, providers=["CPUExecutionProvider"]
        )
    except SESSION_ERRORS as error:
        raise ModelLoadError("the ONNX model cannot be loaded") from error
