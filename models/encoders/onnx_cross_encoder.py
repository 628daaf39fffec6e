"""Cross-encoders in ONNX Runtime, for checkpoints that ship as model.onnx and tokenizer.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.batching import BatchListener
from models.encoders.onnx_session import OnnxRunner, model_file, token_limit
from models.encoders.rerank_codec import RerankCodec, own_activation
from models.encoders.text_engine import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_QUEUED_TOKENS,
    EngineOptions,
    TextEngine,
)
from models.encoders.tokenization import TextTokenizer, TokenSequence, read_tokenizer_file
from models.errors import ModelLoadError
from models.model_folder import ModelFolder
from models.types.common import FloatArray
from models.types.texts import RerankRequest, RerankResult


class OnnxReranker(TextEngine[RerankRequest, RerankResult]):
    """A cross-encoder with one logit; satisfies `Reranker`.

    In company, a document would score differently by up to 0.74 logits in the int8 export of
    ms-marco-MiniLM-L-12-v2, enough to change the order of more than half of 32 documents: see
    `OnnxRunner` for how that is avoided.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        file: str | None = None,
        max_tokens: int | None = None,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the folder; `max_tokens` lowers the tokenizer's own limit. Raises ModelLoadError."""
        folder = ModelFolder(path)
        limit = token_limit(folder)
        activation = own_activation(folder)
        graph = model_file(path, file)
        runner = OnnxRunner(graph, n_threads, _logits)
        if runner.check().shape != (1,):
            raise ModelLoadError("a reranker must have exactly one label")
        tokenizer = TextTokenizer(read_tokenizer_file(path), has_types=runner.has_types)
        max_tokens = min(max_tokens or limit, limit)
        super().__init__(
            RerankCodec(tokenizer, max_tokens, activation),
            runner,
            max_tokens=max_tokens,
            memory_bytes=graph.stat().st_size,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )
        self._runner = runner

    def close(self) -> None:
        super().close()
        self._runner.free()


def _logits(output: FloatArray, sequences: Sequence[TokenSequence]) -> Sequence[FloatArray]:
    return list(output.reshape(len(sequences), -1))
