"""Opening a GGUF file for encoding: its limit, its pooling, its weights."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf.constants import GGMLQuantizationType

from models.errors import ModelError, ModelLoadError
from models.llama_cpp.bindings import POOLINGS, NativeModel
from models.llama_cpp.gguf_header import GgufHeader, read_gguf_header
from models.model_format import model_files

DEFAULT_BATCH_TOKENS = 512
"""Of one call: llama.cpp computes the attention of a call as one square of all its tokens."""
DEFAULT_MAX_TOKENS = 2048
"""What models of a longer context get: the buffers of a call hold its longest input."""
LOAD_SECONDS = 600.0
_METADATA_POOLINGS = {1: "mean", 2: "cls", 3: "lasttoken", 4: "rank"}


@dataclass(frozen=True, slots=True)
class EncoderFile:
    """A checked GGUF file; `pooling` is the one it states, or None."""

    path: Path
    header: GgufHeader
    max_tokens: int
    pooling: str | None

    @property
    def dtype(self) -> str:
        """The number format of most weights, as quantisations are called: "Q8_0", "F16"."""
        main = self.header.main_format
        return "none" if main is None else str(GGMLQuantizationType(main).name)

    def load(self, n_gpu_layers: int) -> NativeModel:
        """The weights. Raises ModelLoadError."""
        return NativeModel(self.path, n_gpu_layers=n_gpu_layers)


def read_encoder_file(path: Path, max_tokens: int | None) -> EncoderFile:
    """`max_tokens` lowers the limit, or lifts it up to the model's own. Raises ModelLoadError."""
    files = model_files(path)
    if files.format != "gguf":
        raise ModelLoadError("the folder has no GGUF file")
    header = read_gguf_header(files.path)
    if header.context_length <= 0:
        raise ModelLoadError("this GGUF file does not state a context length")
    if max_tokens is not None and max_tokens < 1:
        raise ModelLoadError("'max_tokens' must be positive")
    stated = header.values.get(f"{header.architecture}.pooling_type")
    return EncoderFile(
        files.path,
        header,
        min(header.context_length, max_tokens or DEFAULT_MAX_TOKENS),
        _METADATA_POOLINGS.get(stated) if isinstance(stated, int) else None,
    )


def embedding_pooling(file: EncoderFile, chosen: str | None) -> str:
    """What was chosen, else what the file states, else what the model's attention suggests.

    Raises ModelLoadError.
    """
    pooling = chosen or file.pooling or ("lasttoken" if file.header.is_causal else "mean")
    if pooling == "rank":
        raise ModelLoadError("this model scores pairs of texts: its task is rerank")
    if pooling not in POOLINGS or pooling == "none":
        raise ModelLoadError("llama.cpp pools by mean, cls or lasttoken")
    return pooling


def await_first(future: Future[list[Any]]) -> None:
    """Wait for an engine's first answer, which creates its context. Raises ModelLoadError."""
    try:
        (result,) = future.result(LOAD_SECONDS)
    except (ModelError, TimeoutError) as error:
        raise ModelLoadError("the model does not run") from error
    if isinstance(result, ModelLoadError):
        raise result
    if isinstance(result, ModelError):
        raise ModelLoadError("the model does not run") from result
