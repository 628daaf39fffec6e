"""What every bi-encoder on a `TextEngine` has beside its batches: its description, its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from models.encoders.embedding_codec import EmbeddingCodec
from models.encoders.text_engine import EngineOptions, TextEngine
from models.encoders.tokenization import TokenSequence, check_unicode
from models.types.common import FloatArray
from models.types.texts import EmbeddingRequest, EmbeddingResult, EncoderInfo, TextToken


class EmbeddingEngine(TextEngine[EmbeddingRequest, EmbeddingResult]):
    """An `Encoder` out of its codec and a function from token sequences to rows.

    A row is the pooled vector before normalisation; see `TokenSequence.spans` for the others.
    """

    def __init__(
        self,
        codec: EmbeddingCodec,
        compute: Callable[[list[TokenSequence]], Sequence[FloatArray]],
        *,
        memory_bytes: int,
        options: EngineOptions,
        pooling: str,
        dtype: str = "float32",
    ) -> None:
        super().__init__(
            codec,
            compute,
            max_tokens=codec.max_tokens,
            memory_bytes=memory_bytes,
            options=options,
        )
        self._tokens = codec.tokenizer
        self.info = EncoderInfo(
            dimensions=codec.dimensions,
            max_tokens=codec.max_tokens,
            max_batch_tokens=options.max_batch_tokens,
            pooling=pooling,
            dtype=dtype,
            prompts=tuple(sorted(codec.prompts.prompts)),
            kinds=codec.kinds,
        )
        self._prompts = codec.prompts

    @property
    def dimensions(self) -> int:
        return self.info.dimensions

    def tokenize(
        self, texts: Sequence[str], *, specials: bool = True, prompt_name: str | None = None
    ) -> list[list[TextToken]]:
        """Tokens of every text, after the prompt of that name. InvalidInputError, as it says."""
        prefix = ""
        if prompt_name is not None:
            prefix = self._prompts.prefix(EmbeddingRequest((), prompt_name=prompt_name))
        for text in texts:
            check_unicode(text, "inputs")
        return [self._tokens.tokens(prefix + text, specials=specials) for text in texts]

    def detokenize(
        self, sequences: Sequence[Sequence[int]], *, skip_specials: bool = True
    ) -> list[str]:
        """The text of every sequence of ids. InvalidInputError for ids that are none."""
        return [self._tokens.text(ids, skip_specials=skip_specials) for ids in sequences]
