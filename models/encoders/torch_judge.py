"""Language models in torch as rerankers: they read query and document and answer yes or no."""

from __future__ import annotations

from pathlib import Path

from models.batching import BatchListener
from models.encoders.answer_paths import AnswerPaths
from models.encoders.rerank_codec import RerankCodec
from models.encoders.rerank_heads import odds_of
from models.encoders.rerank_template import (
    QWEN3_INSTRUCTION,
    QWEN3_TEMPLATE,
    TemplateTokenizer,
    read_template,
    single_token,
)
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
from models.types.texts import RerankRequest, RerankResult

DEFAULT_MAX_TOKENS = 8192
"""What the cards of Qwen3-Reranker use; the models themselves take more."""


class TorchJudge(TextEngine[RerankRequest, RerankResult]):
    """Satisfies `Reranker`: the logit is that of "yes" less that of "no" after the prompt."""

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        template: str = QWEN3_TEMPLATE,
        instruction: str = QWEN3_INSTRUCTION,
        yes_token: str = "yes",  # noqa: S107  # a word of a vocabulary
        no_token: str = "no",  # noqa: S107
        max_tokens: int = DEFAULT_MAX_TOKENS,
        dtype: Dtype = "auto",
        device: str = "cpu",
        max_batch_tokens: int = DEFAULT_BATCH_TOKENS,
        max_queued_tokens: int = DEFAULT_QUEUED_TOKENS,
        on_batch: BatchListener | None = None,
    ) -> None:
        """Load the folder of a causal language model. Raises ModelLoadError.

        `template` has {query} and {document}, and {instruction} where that belongs.
        """
        folder = open_transformers_folder(path)
        if max_tokens < 1:
            raise ModelLoadError("'max_tokens' must be positive")
        words = load_tokenizer(path)
        words.read_literally()
        answers = (single_token(words, yes_token), single_token(words, no_token))
        self.runner = TorchRunner(
            AnswerPaths(folder, answers),
            words,
            min(max_tokens, words.limit),
            TorchOptions(n_threads, dtype, device),
        )
        parts = read_template(template, instruction, words.control_names())
        tokenizer = TemplateTokenizer(words, parts, self.runner.max_tokens)
        super().__init__(
            RerankCodec(tokenizer, self.runner.max_tokens),
            odds_of(self.runner, 0),
            max_tokens=self.runner.max_tokens,
            memory_bytes=self.runner.memory_bytes,
            options=EngineOptions(max_batch_tokens, max_queued_tokens, on_batch),
        )

    def close(self) -> None:
        super().close()
        self.runner.free()
