"""Whether a model, run over the pool, still computes what it computes by itself.

Its plain forward pass gives the logits to compare with, and the sizes of its keys and values. A
family whose attention does not go through the interface, or that keeps another state, shows here
and is refused instead of being wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import LinearAttentionCacheLayerMixin

from models.continuous_batching.batch import Batch
from models.errors import ModelLoadError
from models.transformers_lm.loading import LoadedModel, architecture
from models.transformers_lm.vocabulary import TokenizerVocabulary
from models.types.common import FloatArray

TEXTS = (
    "The keeper of the northern lighthouse had a dog that could count: every evening it barked "
    "once for each ship that had passed.",
    "Of all the rivers in the land, this",
)
"""Random tokens would not do: what models make of them depends on the last bits."""

LENGTHS = (24, 9)
TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.4}
"""Mean difference of a row of logits, in mean deviations of the row. Of SmolLM2, 0.01 in float16
and 0.11 in bfloat16 are the rounding alone; wrong attention gives about 1."""

FORWARD_ERRORS = (
    *(RuntimeError, TypeError, ValueError, KeyError, AttributeError, IndexError),
    *(AssertionError, NotImplementedError),
)

Decode = Callable[[Batch], FloatArray]
"""Rows of logits, [tokens of the batch, vocabulary], all of which the batch asks for."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What the plain model makes of some prompts. `kv_bytes_per_cell` is for one token."""

    prompts: tuple[list[int], ...]
    logits: tuple[Tensor, ...]
    layers: int
    kv_bytes_per_cell: int


def reference_of(loaded: LoadedModel, vocabulary: TokenizerVocabulary) -> Reference:
    """Run the model by itself. ModelLoadError when it fails or its state is not keys and values."""
    prompts = tuple(
        vocabulary.tokenize(text, add_special=True, parse_special=False)[:length]
        for text, length in zip(TEXTS, LENGTHS, strict=True)
    )
    device = loaded.model.device
    try:
        with torch.inference_mode():
            outputs = [
                loaded.model(input_ids=torch.tensor([prompt], device=device), use_cache=True)
                for prompt in prompts
            ]
    except FORWARD_ERRORS as error:
        raise ModelLoadError("the model does not run on its own tokens") from error
    logits = tuple(output.logits[0].float() for output in outputs)
    if not all(bool(rows.isfinite().all()) for rows in logits):
        raise ModelLoadError("the model's logits are not finite numbers")
    if logits[0].shape[-1] != loaded.vocabulary_size:
        raise ModelLoadError("the model has another number of logits than its vocabulary")
    layers = _layers(outputs[0], loaded.model.config)
    return Reference(prompts, logits, len(layers), sum(map(_bytes_per_token, layers)))


def _layers(output: Any, config: Any) -> list[Any]:
    """Layers of the model's cache; those that use another layer's keys have none of their own."""
    layers = list(getattr(getattr(output, "past_key_values", None), "layers", ()))
    recurrent = any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers)
    if recurrent or not any(_has_states(layer) for layer in layers):
        raise ModelLoadError(
            f"{architecture(config)} keeps another state than keys and values (recurrent and "
            "hybrid models do), which this engine cannot share between sequences"
        )
    return layers


def _has_states(layer: Any) -> bool:
    return isinstance(getattr(layer, "keys", None), Tensor) and layer.keys.ndim == 4


def _bytes_per_token(layer: Any) -> int:
    if not _has_states(layer):
        return 0
    return sum(
        states.shape[1] * states.shape[3] * states.element_size()
        for states in (layer.keys, layer.values)
    )


def check_pooled(
    decode: Decode,
    copy: Callable[[int, int, int], None],
    reference: Reference,
    dtype: torch.dtype,
) -> str | None:
    """What is wrong with the logits over the pool, None when nothing is.

    Two prompts are evaluated in chunks beside each other, in slots 0 and 1; slot 2 shares what
    slot 0 begins with, and both go on token by token. Leaves the slots as they are then.
    """
    worst = 0.0
    try:
        for expected, rows in _walk(decode, copy, reference):
            worst = max(worst, _difference(torch.from_numpy(rows), expected.cpu()))
    except FORWARD_ERRORS as error:
        return f"{type(error).__name__}: {error}"
    if worst <= TOLERANCE[dtype]:
        return None
    return f"its logits over the pool differ by {worst:.2g} deviations"


def _walk(decode: Decode, copy: Callable[[int, int, int], None], reference: Reference) -> Any:
    """Pairs of (expected, computed) rows of logits, step by step."""
    long, short = (np.array(prompt, np.int32) for prompt in reference.prompts)
    half, quarter = len(long) // 2, len(short) // 2
    pieces = [
        [(0, long[:half], 0), (1, short[:quarter], 0)],
        [(0, long[half : half + 1], half), (1, short[quarter:], quarter)],
    ]
    expected = dict(enumerate(reference.logits))
    for step in pieces:
        yield from _step(decode, [piece for piece in step if len(piece[1])], expected)
    copy(0, 2, half + 1)
    expected[2] = expected[0]
    for at in range(half + 1, len(long)):
        token = long[at : at + 1]
        yield from _step(decode, [(0, token, at), (2, token, at)], expected)


def _step(decode: Decode, pieces: list[Any], expected: dict[int, Tensor]) -> Any:
    batch = Batch(sum(len(tokens) for _, tokens, _ in pieces))
    lasts = [batch.append(slot, at, tokens, outputs=len(tokens)) for slot, tokens, at in pieces]
    rows = decode(batch)
    for (slot, tokens, at), last in zip(pieces, lasts, strict=True):
        size = len(tokens)
        yield expected[slot][at : at + size], rows[last + 1 - size : last + 1]


def _difference(rows: Tensor, expected: Tensor) -> float:
    deviation = (expected - expected.mean(-1, keepdim=True)).abs().mean(-1)
    difference = (rows - expected).abs().mean(-1) / deviation.clamp_min(1e-6)
    return float(difference.max().nan_to_num(nan=torch.inf))
