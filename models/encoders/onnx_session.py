"""Encoders in ONNX Runtime: token sequences in any order to one row of features each."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

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

from models.encoders.length_split import split_by_length
from models.encoders.tokenization import NO_LIMIT, TokenSequence
from models.errors import ModelLoadError
from models.model_folder import ModelFolder
from models.types.common import FloatArray

DEFAULT_MAX_TOKENS = 512
MODEL_FILES = ("model.onnx", "onnx/model.onnx", "onnx/model_quantized.onnx", "onnx/model_int8.onnx")
"""What is opened, the first that there is, unless the catalogue names another."""
OFFSET_FAMILIES = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})
"""They count positions from the padding id + 1."""
DYNAMIC_QUANTISATION = b"DynamicQuantize"
INPUTS = frozenset({"input_ids", "attention_mask", "token_type_ids", "position_ids"})
SESSION_ERRORS = (
    Fail,
    InvalidArgument,
    InvalidGraph,
    InvalidProtobuf,
    NoSuchFile,
    NotImplemented,
    RuntimeException,
)

RowReader = Callable[[FloatArray, Sequence[TokenSequence]], Sequence[FloatArray]]
"""The graph's output for some sequences, [sequences, ...], padded on the right, to their rows."""


class OnnxRunner:
    """One graph. Batches are split by length where padding costs more than another call.

    Checkpoints quantised dynamically (int8) choose the scale of their activations over the whole
    batch, so that an input would get another result in other company; such models run one input at
    a time, `n_threads` inputs at once, which also costs no padding. `alone` says so.
    """

    def __init__(
        self, file: Path, n_threads: int, read: RowReader, outputs: Sequence[str] = ()
    ) -> None:
        """`outputs`: the names to look for, best first, before the graph's first output."""
        self.alone = _quantises_dynamically(file)
        self._read = read
        threads_per_run, runs = (1, n_threads) if self.alone else (n_threads, 1)
        self._session: onnxruntime.InferenceSession | None = _open_session(file, threads_per_run)
        self._runs = ThreadPoolExecutor(runs, thread_name_prefix="onnx")
        self._names = frozenset(node.name for node in self._session.get_inputs())
        if not {"input_ids", "attention_mask"} <= self._names <= INPUTS:
            raise ModelLoadError("the ONNX graph does not have the inputs of a text encoder")
        self.has_types = "token_type_ids" in self._names
        present = [node.name for node in self._session.get_outputs()]
        self._output = next((name for name in outputs if name in present), present[0])

    def __call__(self, sequences: list[TokenSequence]) -> list[FloatArray]:
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        ascending = [sequences[i] for i in order]
        parts = [ascending[start:end] for start, end in self._split(ascending)]
        rows = [row for part in self._runs.map(self._run, parts) for row in part]
        results: list[FloatArray] = [rows[0]] * len(rows)
        for row, index in zip(rows, order, strict=True):
            results[index] = row
        return results

    def check(self) -> FloatArray:
        """The row of two tokens. ModelLoadError when the graph does not run."""
        try:
            (row,) = self([TokenSequence((0, 0), (0, 0))])
        except SESSION_ERRORS as error:
            raise ModelLoadError("the ONNX graph does not run") from error
        return row

    def free(self) -> None:
        self._runs.shutdown()
        self._session = None

    def _split(self, ascending: Sequence[TokenSequence]) -> list[tuple[int, int]]:
        if self.alone:
            return [(i, i + 1) for i in range(len(ascending))]
        return split_by_length([len(s) for s in ascending])

    def _run(self, sequences: Sequence[TokenSequence]) -> Sequence[FloatArray]:
        if self._session is None:
            raise RuntimeError("the model has been freed")
        (output,) = self._session.run([self._output], self._feeds(sequences))
        return self._read(np.asarray(output, dtype=np.float32), sequences)

    def _feeds(self, sequences: Sequence[TokenSequence]) -> dict[str, np.ndarray]:
        """Padded on the right with zeros: [sequences, longest], int64."""
        shape = (len(sequences), len(sequences[-1]))
        feeds = {name: np.zeros(shape, dtype=np.int64) for name in self._names}
        for row, sequence in enumerate(sequences):
            feeds["input_ids"][row, : len(sequence)] = sequence.ids
            feeds["attention_mask"][row, : len(sequence)] = 1
            if self.has_types and sequence.type_ids is not None:
                feeds["token_type_ids"][row, : len(sequence)] = sequence.type_ids
        if "position_ids" in feeds:
            feeds["position_ids"][:] = np.arange(shape[1])
        return feeds


def model_file(path: Path, name: str | None) -> Path:
    """The graph in a model folder. ModelLoadError when there is none or it lies outside."""
    names = MODEL_FILES if name is None else (name,)
    files = (path / candidate for candidate in names)
    file = next((file for file in files if file.is_file() and file.stat().st_size), None)
    if file is None or not file.absolute().is_relative_to(path.absolute()) or ".." in file.parts:
        raise ModelLoadError(f"the model folder has no {names[0]}")
    return file


def token_limit(folder: ModelFolder) -> int:
    """Tokens of one input by the tokenizer's configuration, where there are positions for them."""
    limit = folder.read_object("tokenizer_config.json").get("model_max_length", NO_LIMIT)
    return min(int(limit) if limit < NO_LIMIT else DEFAULT_MAX_TOKENS, position_limit(folder))


def position_limit(folder: ModelFolder) -> int:
    """What the position table takes; no bound where config.json does not say."""
    config = folder.read_object("config.json")
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions <= 0:
        return NO_LIMIT
    offset = int(config.get("pad_token_id") or 0) + 1
    return positions - offset * (config.get("model_type") in OFFSET_FAMILIES)


def _quantises_dynamically(file: Path) -> bool:
    """Whether the graph quantises activations as it runs; a node's type is plain text in ONNX."""
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(DYNAMIC_QUANTISATION) >= 0


def _open_session(file: Path, n_threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # CPUs are shared
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except SESSION_ERRORS as error:
        raise ModelLoadError("the ONNX model cannot be loaded") from error
