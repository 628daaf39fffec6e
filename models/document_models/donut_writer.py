"""Donut's network: pictures to what the encoder sees, and on to tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import VisionEncoderDecoderModel
from transformers.modeling_outputs import BaseModelOutput

from models.document_models.donut_fields import Piece
from models.document_models.donut_prompts import CATEGORY, DonutTokens
from models.errors import ModelLoadError
from models.model_folder import open_transformers_folder
from models.ocr.image_to_text import FAMILY, PAGE_ENCODERS, Chances
from models.ocr.page_shapes import AS_READ, with_bounded_shapes
from models.transformers_loading import (
    load_fast_tokenizer,
    load_image_processor,
    load_transformer,
    own_copy,
)
from models.types.pages import PixelArray


class DonutWriter:
    """A folder of transformers' `VisionEncoderDecoderModel` whose encoder sees whole pages.

    Raises ModelLoadError. One call at a time, in inference mode.
    """

    def __init__(self, path: Path, device: str) -> None:
        folder = open_transformers_folder(path, halves={FAMILY})
        self.network = load_transformer(VisionEncoderDecoderModel, folder).to(device)
        if self.network.config.encoder.model_type not in PAGE_ENCODERS:
            raise ModelLoadError("the encoder does not see whole pages: this is no Donut")
        self._tokenizer = load_fast_tokenizer(path)
        self._reader = own_copy(self._tokenizer)
        self._processor = with_bounded_shapes(load_image_processor(path))
        settings = self.network.generation_config
        start, ends = settings.decoder_start_token_id, settings.eos_token_id
        self._ends = frozenset(ends if isinstance(ends, list) else [ends])
        added = frozenset(self._tokenizer.get_added_vocab())
        self.tokens = DonutTokens(added, "" if start is None else self._tokenizer.decode([start]))

    def ids(self, prompt: str) -> list[int]:
        """Thread-safe."""
        ids: list[int] = self._reader.encode(prompt, add_special_tokens=False).ids
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """Special tokens are left out, but for those that are values."""
        names = self._tokenizer.convert_ids_to_tokens(list(ids))
        special = set(self._tokenizer.all_special_ids)
        kept = [
            id_
            for id_, name in zip(ids, names, strict=True)
            if id_ not in special or CATEGORY.fullmatch(name)
        ]
        text: str = self._tokenizer.decode(kept)
        return text

    def room(self, prompt: Sequence[int]) -> int | None:
        """Tokens that may follow; None where the decoder has no limit."""
        positions = getattr(self.network.config.decoder, "max_position_embeddings", None)
        return None if positions is None else positions - max(1, len(prompt)) - 1

    def see(self, pictures: Sequence[PixelArray]) -> torch.Tensor:
        """What the encoder makes of RGB pictures: [pictures, places, width]."""
        pixels = self._processor(list(pictures), **AS_READ)["pixel_values"]
        seen = self.network.encoder(pixels.to(self.network.device))
        hidden: torch.Tensor = seen.last_hidden_state
        return hidden

    def write(
        self, seen: torch.Tensor, prompts: Sequence[Sequence[int]], max_tokens: int
    ) -> list[list[Piece]]:
        """What follows each prompt, greedily. `prompts` are equally long, one for each of `seen`.

        What is written together is what is written alone.
        """
        start = torch.tensor(list(prompts), device=self.network.device)
        chances = Chances()
        written = self.network.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=seen),
            decoder_input_ids=start,
            max_new_tokens=max_tokens,
            do_sample=False,
            num_beams=1,
            logits_processor=[chances],
        )[:, start.shape[1] :]
        logs = torch.stack(chances.steps, dim=1)
        return [self._pieces(*row) for row in zip(written.tolist(), logs.tolist(), strict=True)]

    def next_token(
        self, seen: torch.Tensor, prompt: Sequence[int], among: Sequence[str]
    ) -> torch.Tensor:
        """How probable each of some tokens is as the next, of these only: [pictures, tokens]."""
        start = torch.tensor([list(prompt)] * len(seen), device=self.network.device)
        outputs: Any = self.network(
            encoder_outputs=BaseModelOutput(last_hidden_state=seen), decoder_input_ids=start
        )
        ids = self._tokenizer.convert_tokens_to_ids(list(among))
        logits: torch.Tensor = outputs.logits[:, -1, ids].float()
        return logits.softmax(dim=-1)

    def _pieces(self, ids: list[int], logs: list[float]) -> list[Piece]:
        names = self._tokenizer.convert_ids_to_tokens(ids)
        pieces = [Piece(*piece) for piece in zip(ids, names, logs, strict=True)]
        ends = (place for place, piece in enumerate(pieces) if piece.id in self._ends)
        return pieces[: next(ends, len(pieces))]
