"""Bi-encoders in llama.cpp, from a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from models.batching import BatchListener
from models.encoders.embedding_codec import EmbeddingCodec
from models.encoders.embedding_engine import EmbeddingEngine
from models.encoders.embedding_prompts import PromptBook
from models.encoders.text_engine import DEFAULT_QUEUED_TOKENS, EngineOptions
from models.errors import ModelLoadError
from models.llama_cpp.encoder_file import (
    DEFAULT_BATCH_TOKENS,
    await_first,
    embedding_pooling,
    read_encoder_file,
)
from models.llama_cpp.encoder_runner import CallSizes, EncoderRunner
from models.llama_cpp.tokenization import GgufTokenizer
from models.types.texts import EmbeddingRequest


class LlamaCppEncoder(EmbeddingEngine):
    """Satisfies `Encoder`; gives dense vectors alone, and no late chunks."""

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        n_gpu_layers: int = 0,
        pooling: str | None = None,
        normalize: bool = True,
        prompts: Mapping[str, str] | None = None,
        max_tokens: int | None = None,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the file. Raises ModelLoadError.

        A GGUF file says how to pool; `pooling` is for files that do not, and wins. It says nothing
        of normalisation and prompts. `max_tokens` is at most the model's context.
        """
        file = read_encoder_file(path, max_tokens)
        mode = embedding_pooling(file, pooling)
        model = file.load(n_gpu_layers)
        sizes = CallSizes(file.max_tokens, max_batch_tokens, n_threads)
        self._runner = EncoderRunner(model, sizes, mode)
        super().__init__(
            EmbeddingCodec(
                GgufTokenizer(model),
                model.width,
                file.max_tokens,
                PromptBook(dict(prompts or {})),
                normalizes=normalize,
            ),
            self._runner,
            memory_bytes=model.size_bytes,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
            pooling=mode,
            dtype=file.dtype,
        )
        try:
            await_first(self.submit([EmbeddingRequest(("a",))]))
        except ModelLoadError:
            self.close()
            raise

    def close(self) -> None:
        super().close()
        self._runner.free()
