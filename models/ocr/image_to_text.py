"""Text from pictures with an image encoder and a text decoder (TrOCR, Donut, Nougat).

Any folder of transformers' `VisionEncoderDecoderModel`: its own preprocessing with Pillow (no
torchvision), its own tokenizer, greedy decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import LogitsProcessor, VisionEncoderDecoderModel

from models.compute_thread import tick
from models.errors import ModelLoadError
from models.model_folder import open_transformers_folder
from models.ocr.lines import ReadLine
from models.ocr.page_shapes import AS_READ, with_bounded_shapes
from models.torch_cpu import use_cpu_threads
from models.transformers_loading import (
    load_fast_tokenizer,
    load_image_processor,
    load_transformer,
)
from models.types.pages import PixelArray

FAMILY = "vision-encoder-decoder"
PAGE_ENCODERS = frozenset({"donut-swin"})
"""Donut's and Nougat's, which see a whole page."""
MAX_NEW_TOKENS = {"lines": 128, "pages": 1536}

Reads = Literal["lines", "pages"]


class ImageToText:
    """Pictures in, text and confidence out. `reads`: what the model was trained on, lines or pages.

    `prompt` is what the decoder starts with, in the model's own tokens ("<s_cord-v2>"). Raises
    ModelLoadError. One call at a time.
    """

    def __init__(
        self,
        path: Path,
        *,
        n_threads: int,
        device: str = "cpu",
        reads: Reads | None = None,
        prompt: str = "",
        max_new_tokens: int | None = None,
        batch_images: int = 8,
    ) -> None:
        folder = open_transformers_folder(path, halves={FAMILY})
        if folder.read_object("config.json").get("model_type") != FAMILY:
            raise ModelLoadError(f"the folder is not a model of the family {FAMILY}")
        self._model = load_transformer(VisionEncoderDecoderModel, folder).to(device)
        self._tokenizer = load_fast_tokenizer(path)
        sees_pages = self._model.config.encoder.model_type in PAGE_ENCODERS
        processor = load_image_processor(path)
        self._processor = with_bounded_shapes(processor) if sees_pages else processor
        self._n_threads = n_threads
        self._batch_images = batch_images
        self.reads: Reads = reads or ("pages" if sees_pages else "lines")
        self._prompt = self._tokenizer(prompt, add_special_tokens=False)["input_ids"]
        self._max_new_tokens = self._token_limit(max_new_tokens or MAX_NEW_TOKENS[self.reads])

    @property
    def memory_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._model.state_dict().values())

    def read(self, images: Sequence[PixelArray]) -> list[ReadLine]:
        """RGB pictures, in batches of `batch_images`; the model scales them all to one size."""
        starts = range(0, len(images), self._batch_images)
        batches = [images[start : start + self._batch_images] for start in starts]
        with torch.inference_mode():
            use_cpu_threads(self._n_threads)
            return [line for batch in batches for line in self._read(batch)]

    def _read(self, images: Sequence[PixelArray]) -> list[ReadLine]:
        device = self._model.device
        seen = self._processor(list(images), **AS_READ)
        pixels = seen["pixel_values"].to(device)
        options: dict[str, Any] = {}
        if self._prompt:
            prompt = torch.tensor([self._prompt] * len(images), device=device)
            options["decoder_input_ids"] = prompt
        chances = Chances()
        tokens = self._model.generate(
            pixels,
            **options,
            max_new_tokens=self._max_new_tokens,
            do_sample=False,
            num_beams=1,
            logits_processor=[chances],
        )
        new = tokens[:, tokens.shape[1] - len(chances.steps) :]
        texts = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        confidences = chances.means(new, self._model.generation_config.pad_token_id)
        return [
            ReadLine(text.strip(), confidence)
            for text, confidence in zip(texts, confidences, strict=True)
        ]

    def _token_limit(self, wanted: int) -> int:
        positions = getattr(self._model.config.decoder, "max_position_embeddings", None)
        room = wanted if positions is None else positions - max(1, len(self._prompt)) - 1
        return min(wanted, room)


class Chances(LogitsProcessor):  # type: ignore[misc]  # transformers has no types here
    """Remembers how sure the model was of each token it took; changes nothing."""

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        del input_ids
        tick()
        self.steps.append(scores.float().log_softmax(dim=-1).amax(dim=-1))
        return scores

    def means(self, tokens: torch.Tensor, padding: int) -> list[float]:
        """The geometric mean of the chances of each row's tokens, padding left out."""
        own = tokens != padding
        own[:, 0] = True
        logs = torch.stack(self.steps, dim=1).masked_fill(~own, 0.0)
        means = (logs.sum(dim=1) / own.sum(dim=1)).exp()
        return [round(value, 5) for value in means.tolist()]
