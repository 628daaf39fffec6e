"""Rerankers in llama.cpp: classification heads, and language models that answer yes or no."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import numpy as np

from models.batching import BatchListener
from models.encoders.rerank_codec import RerankCodec
from models.encoders.rerank_heads import Compute, label_index, odds_of
from models.encoders.rerank_template import (
    QWEN3_INSTRUCTION,
    QWEN3_TEMPLATE,
    TemplateTokenizer,
    read_template,
    single_token,
)
from models.encoders.text_engine import DEFAULT_QUEUED_TOKENS, EngineOptions, TextEngine
from models.encoders.tokenization import EncoderTokenizer, TokenSequence
from models.errors import ModelLoadError
from models.llama_cpp.bindings import NativeModel
from models.llama_cpp.encoder_file import (
    DEFAULT_BATCH_TOKENS,
    EncoderFile,
    await_first,
    read_encoder_file,
)
from models.llama_cpp.encoder_runner import AnswerRunner, CallSizes, EncoderRunner
from models.llama_cpp.tokenization import GgufTokenizer
from models.types.common import FloatArray
from models.types.texts import RerankRequest, RerankResult

LOGGER = logging.getLogger(__name__)
TEMPLATE_KEY = "tokenizer.chat_template.rerank"
SOFTMAX_ARCHITECTURES = frozenset({"qwen3", "qwen3vl"})
"""Their heads give probabilities, where those of others give logits."""
TINY = np.float32(1e-12)
"""Instead of a probability of 0, whose logarithm is none."""


class LlamaCppReranker(TextEngine[RerankRequest, RerankResult]):
    """A GGUF file with a rank head, or with `style` "yes_no" any language model.

    Satisfies `Reranker`. llama.cpp gives every token the type 0, so that BERT cross-encoders
    (whose documents have type 1) score differently from the original: use torch for those.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        n_gpu_layers: int = 0,
        style: Literal["head", "yes_no"] = "head",
        label: int | str | None = None,
        template: str | None = None,
        instruction: str = QWEN3_INSTRUCTION,
        yes_token: str = "yes",  # noqa: S107  # a word of a vocabulary
        no_token: str = "no",  # noqa: S107
        max_tokens: int | None = None,
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the file. Raises ModelLoadError.

        `label` chooses among the labels of a head. `template` has {query} and {document}; None:
        the file's own, if it has one, and for "yes_no" otherwise that of Qwen3-Reranker.
        """
        file = read_encoder_file(path, max_tokens)
        _check_style(style, file)
        model = file.load(n_gpu_layers)
        sizes = CallSizes(file.max_tokens, max_batch_tokens, n_threads)
        try:
            words = GgufTokenizer(model)
            if style == "yes_no":
                answers = (single_token(words, yes_token), single_token(words, no_token))
                runner: EncoderRunner = AnswerRunner(model, sizes, answers)
                compute = odds_of(runner, 0)
                template = template or _own_template(file) or QWEN3_TEMPLATE
            else:
                compute = runner = _head_runner(file, model, sizes)
                index = label_index(model.class_labels, label)
                compute = compute if index is None else _odds_of_head(file, runner, index)
                template = template or _own_template(file)
            tokenizer = _tokenizer(words, template, instruction, file.max_tokens)
        except ModelLoadError:
            model.close()
            raise
        super().__init__(
            RerankCodec(tokenizer, file.max_tokens),
            compute,
            max_tokens=file.max_tokens,
            memory_bytes=model.size_bytes,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )
        self._runner = runner
        try:
            await_first(self.submit([RerankRequest("a", ("b",))]))
        except ModelLoadError:
            self.close()
            raise

    def close(self) -> None:
        super().close()
        self._runner.free()


def _check_style(style: str, file: EncoderFile) -> None:
    if style not in ("head", "yes_no"):
        raise ModelLoadError("there is no such style; there are head and yes_no")
    if style == "yes_no" and not file.header.is_causal:
        raise ModelLoadError("this model does not generate text")


def _own_template(file: EncoderFile) -> str | None:
    template = file.header.values.get(TEMPLATE_KEY)
    return template if isinstance(template, str) else None


def _tokenizer(
    words: GgufTokenizer, template: str | None, instruction: str, max_tokens: int
) -> EncoderTokenizer:
    if template is None:
        return words
    parts = read_template(template, instruction, words.control_names())
    return TemplateTokenizer(words, parts, max_tokens)


def _head_runner(file: EncoderFile, model: NativeModel, sizes: CallSizes) -> EncoderRunner:
    if file.pooling != "rank":
        raise ModelLoadError("this GGUF file has no rank head; its task is not rerank")
    if file.header.architecture == "bert" and file.header.token_types > 1:
        LOGGER.warning("llama.cpp ignores the token types of this model: its scores will differ")
    return EncoderRunner(model, sizes, "rank")


def _odds_of_head(file: EncoderFile, runner: EncoderRunner, index: int) -> Compute:
    if file.header.architecture not in SOFTMAX_ARCHITECTURES:
        return odds_of(runner, index)

    def logarithms(sequences: list[TokenSequence]) -> list[FloatArray]:
        return [np.log(np.maximum(row, TINY)) for row in runner(sequences)]

    return odds_of(logarithms, index)
