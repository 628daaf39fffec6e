"""Loading a transformers model for inference and choosing the fastest forward pass that is right.

The packed path and prepacked bfloat16 linears rest on details of transformers and torch, so each is
compared, at load and on a few sequences, with the plain padded float32 model. What does not agree
is not used.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models import prepacked_linear
from models.compute_thread import tick
from models.devices.torch_formats import best_dtype
from models.encoders.packed_transformer import PACKED, position_offset, register_packed_attention
from models.encoders.tokenization import TextTokenizer, TokenSequence
from models.errors import EngineDeadError, ModelLoadError
from models.model_folder import context_limit
from models.torch_cpu import use_cpu_threads
from models.types.common import FloatArray

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Forward = Callable[[Sequence[TokenSequence]], Tensor]
"""Sequences in ascending order of length to float32 [sequences, features].

Of models that say something of every token: [tokens, features], the sequences one after another.
"""

LOGGER = logging.getLogger(__name__)
PACKING_TOLERANCE = 1e-3
PRECISION_TOLERANCE = 0.05
SAMPLE_LENGTHS = (2, 5, 5, 40, 160)
FORWARD_ERRORS = (RuntimeError, TypeError, ValueError, KeyError, AttributeError, IndexError)


@dataclass(frozen=True, slots=True)
class TorchOptions:
    """`dtype` "auto": the fastest of the device, see `devices.number_format`."""

    n_threads: int
    dtype: Dtype = "auto"
    device: str = "cpu"


class ForwardPaths(Protocol):
    """How to load and run one task's model."""

    def load(self) -> Any:
        """The float32 model. Raises ModelLoadError."""

    def plain(self, model: Any) -> Forward:
        """The padded way, which any model can go."""

    def packed(self, model: Any) -> Forward:
        """The way without padding, for models with `PACKED` attention."""

    def trunk(self, model: Any) -> Sequence[nn.Module]:
        """The parts of the model that may run in reduced precision."""


class TorchRunner:
    """A loaded model: token sequences in any order to one row of features each.

    `per_token`: to one row for each token of the sequence instead.
    `max_tokens` is `limit` or what the position table allows, `packed` and `dtype` say which path
    was chosen, `memory_bytes` is the size of the weights.
    """

    def __init__(
        self,
        paths: ForwardPaths,
        tokenizer: TextTokenizer,
        limit: int,
        options: TorchOptions,
        *,
        per_token: bool = False,
    ) -> None:
        use_cpu_threads(options.n_threads)
        register_packed_attention()
        self._paths = paths
        self._options = options
        self._per_token = per_token
        self.packed = False
        self.dtype = _dtype(options)
        model = paths.load().to(options.device)
        self.max_tokens = context_limit(model.config, limit, position_offset(model))
        self.memory_bytes = _bytes(model)
        rows = model.get_input_embeddings().num_embeddings
        tokenizer.vocabulary_size = min(tokenizer.vocabulary_size, rows)
        samples = _samples(tokenizer, self.max_tokens, model.config.pad_token_id)
        with torch.inference_mode():
            forward = self._choose(model, samples)
            if forward is None:
                del model  # before it is there a second time
                forward = self._as_loaded()
            self._forward: Forward | None = forward
            self.features = int(self._forward(samples[:1]).shape[-1])

    def __call__(self, sequences: list[TokenSequence]) -> list[FloatArray]:
        """Float32 features of each sequence; called on the compute thread only.

        Raises MemoryError, and EngineDeadError when the GPU cannot go on.
        """
        use_cpu_threads(self._options.n_threads)
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        rows = self._computed([sequences[i] for i in order])
        results = [rows] * len(order)
        first = 0
        for index in order:
            count = self._matrix_rows(sequences[index])
            end = first + (1 if count is None else count)
            results[index] = rows[first] if count is None else rows[first:end]
            first = end
        return results

    def _computed(self, ascending: Sequence[TokenSequence]) -> FloatArray:
        if self._forward is None:
            raise RuntimeError("the model has been freed")
        try:
            with torch.inference_mode():
                outputs = self._forward(ascending).float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise MemoryError("the GPU has no memory for this batch") from error
        except torch.AcceleratorError:
            _check_device(self._options.device)
            raise
        rows: FloatArray = np.asarray(outputs, dtype=np.float32)
        return rows

    def _matrix_rows(self, sequence: TokenSequence) -> int | None:
        """How many rows a sequence has, or None for one that has a single row."""
        if self._per_token:
            return len(sequence)
        return None if sequence.spans is None else len(sequence.spans)

    def free(self) -> None:
        self._forward = None

    def _choose(self, model: Any, samples: Sequence[TokenSequence]) -> Forward | None:
        """The packed path if this model takes it and agrees with its own plain output.

        None when that is so as long as the model stays as it was loaded.
        """
        reference = self._reference(model, samples)
        implementation = model.config._attn_implementation
        model.set_attn_implementation(PACKED)
        if model.config._attn_implementation == PACKED:
            packed = self._paths.packed(model)
            self.packed = _agrees(packed, samples, reference, PACKING_TOLERANCE)
        if not self.packed:
            LOGGER.info("%s runs on the padded path", type(model).__name__)
            model.set_attn_implementation(implementation)
        return self._reduced(model, samples, reference)

    def _reference(self, model: Any, samples: Sequence[TokenSequence]) -> Tensor:
        try:
            outputs = self._paths.plain(model)(samples)
        except FORWARD_ERRORS as error:
            LOGGER.warning("a model does not run", exc_info=error)
            raise ModelLoadError("the model does not run on its own tokens") from error
        if not bool(outputs.isfinite().all()):
            raise ModelLoadError("the model's outputs are not finite numbers")
        return outputs

    def _reduced(
        self, model: Any, samples: Sequence[TokenSequence], reference: Tensor
    ) -> Forward | None:
        """The same path in the wanted precision with prepacked linears, if it agrees."""
        build = self._paths.packed if self.packed else self._paths.plain
        for part in self._paths.trunk(model):
            part.to(self.dtype)
            if self._options.device == "cpu" and prepacked_linear.available():
                _prepack(part)
        _report_layers(self._paths.trunk(model))
        forward = build(model)
        if _agrees(forward, samples, reference, PRECISION_TOLERANCE):
            self.memory_bytes = self.memory_bytes * self.dtype.itemsize // torch.float32.itemsize
            return forward
        LOGGER.warning("%s runs in plain float32", type(model).__name__)
        return None

    def _as_loaded(self) -> Forward:
        """The chosen path in float32, by a model that nothing was done to."""
        self.dtype = torch.float32
        model = self._paths.load().to(self._options.device)
        if self.packed:
            model.set_attn_implementation(PACKED)
        _report_layers(self._paths.trunk(model))
        build = self._paths.packed if self.packed else self._paths.plain
        return build(model)


def _prepack(part: nn.Module) -> None:
    """Layers stay as they are where this CPU cannot do it in their number format."""
    try:
        prepacked_linear.prepack_linears(part)
    except RuntimeError as error:
        LOGGER.info("linear layers are not prepacked", exc_info=error)


def _check_device(device: str) -> None:
    """Raises EngineDeadError: after some errors a process never computes on a GPU again."""
    try:
        torch.ones(1, device=device).item()
    except RuntimeError as error:
        raise EngineDeadError("The GPU has failed.") from error


def _report_layers(trunk: Sequence[nn.Module]) -> None:
    """Every layer that begins is progress: the watchdog lets a long text on a slow machine end."""
    for part in trunk:
        for stack in part.modules():
            if isinstance(stack, nn.ModuleList):
                for layer in stack:
                    layer.register_forward_pre_hook(_tick)


def _tick(layer: nn.Module, inputs: Any) -> None:
    del layer, inputs
    tick()


def _samples(tokenizer: TextTokenizer, limit: int, padding: int | None) -> list[TokenSequence]:
    """The sequences of the self-test: random tokens, ascending lengths, some of them equal."""
    generator = random.Random(0)  # noqa: S311  # a fixed sample, not a secret
    vocabulary = [i for i in range(min(tokenizer.vocabulary_size, 20_000)) if i != padding]
    samples = []
    for length in sorted(min(n, limit) for n in SAMPLE_LENGTHS):
        types = [int(2 * i >= length) for i in range(length)] if tokenizer.has_types else None
        samples.append(TokenSequence(generator.choices(vocabulary, k=length), types))
    return samples


def _agrees(
    forward: Forward, samples: Sequence[TokenSequence], reference: Tensor, tolerance: float
) -> bool:
    try:
        outputs = forward(samples)
    except FORWARD_ERRORS as error:
        LOGGER.info("a forward path does not fit this model", exc_info=error)
        return False
    if outputs.shape != reference.shape or not bool(outputs.isfinite().all()):
        return False
    scale = reference.abs().max()
    return bool((outputs - reference).abs().max() <= tolerance * scale)


def _dtype(options: TorchOptions) -> Any:
    if options.dtype != "auto":
        return getattr(torch, options.dtype)
    return best_dtype(torch.device(options.device))


def _bytes(model: nn.Module) -> int:
    tensors = (*model.parameters(), *model.buffers())
    return sum(t.numel() * t.element_size() for t in tensors)
