"""The networks of the LayoutLM family: windows of words with places to scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers

from models.compute_thread import tick
from models.document_models.page_words import NOWHERE, SCALE, Place
from models.document_models.word_windows import Window, WindowEncoder
from models.errors import ModelLoadError
from models.model_folder import context_limit, open_transformers_folder
from models.ocr.page_shapes import AS_READ
from models.transformers_loading import (
    load_fast_tokenizer,
    load_image_processor,
    load_transformer,
)
from models.types.pages import DocumentTask, PixelArray

CLASSES = {"layoutlm": "LayoutLM", "layoutlmv3": "LayoutLMv3", "lilt": "Lilt"}
"""transformers' `model_type` -> how its classes begin."""
NEEDS_DETECTRON = frozenset({"layoutlmv2", "layoutxlm"})
HEADS: dict[str, DocumentTask] = {
    "ForTokenClassification": "extraction",
    "ForQuestionAnswering": "vqa",
    "ForSequenceClassification": "classification",
}
CORNER: Place = (SCALE, SCALE, SCALE, SCALE)
Scores = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class LayoutKind:
    """Which network a folder has, and what its head is for."""

    family: str
    head: str

    @property
    def task(self) -> DocumentTask:
        return HEADS[self.head]

    @property
    def sees_pixels(self) -> bool:
        return self.family == "layoutlmv3"


def layout_kind(config: dict[str, Any]) -> LayoutKind:
    """By a folder's config.json. Raises ModelLoadError for what is not of the family."""
    family = config.get("model_type")
    if family in NEEDS_DETECTRON:
        message = f"{family} needs detectron2, which is not supported: use LayoutLMv3 or LiLT"
        raise ModelLoadError(message)
    name = str((config.get("architectures") or [""])[0])
    head = name.removeprefix(CLASSES.get(str(family), "?"))
    if head not in HEADS:
        raise ModelLoadError(f"'{name}' is no document model: there are Donut, LayoutLM and LiLT")
    return LayoutKind(str(family), head)


class LayoutNetwork:
    """A folder of transformers' LayoutLM, LayoutLMv3 or LiLT with one of the three heads.

    Raises ModelLoadError. One call at a time, in inference mode.
    """

    def __init__(self, path: Path, device: str, batch_windows: int) -> None:
        folder = open_transformers_folder(path)
        self.kind = layout_kind(folder.read_object("config.json"))
        auto_class = getattr(transformers, CLASSES[self.kind.family] + self.kind.head)
        self.network = load_transformer(auto_class, folder).to(device)
        self._processor = load_image_processor(path) if self.kind.sees_pixels else None
        self._batch_windows = batch_windows
        tokenizer = load_fast_tokenizer(path, **self._tokenizer_options)
        self._padding = tokenizer.pad_token_id
        self.encoder = WindowEncoder(tokenizer, self._max_tokens(tokenizer), self._separator)

    @property
    def labels(self) -> tuple[str, ...]:
        names: dict[int, str] = self.network.config.id2label
        return tuple(names[index] for index in sorted(names))

    def scores(
        self, windows: Sequence[Window], pictures: Sequence[PixelArray | None]
    ) -> list[Scores]:
        """Logits of the head for each window: [tokens, labels], [tokens, 2] or [labels].

        `pictures`: RGB, of the window's page. Windows of similar length are computed together.
        """
        found: list[Scores | None] = [None] * len(windows)
        seen = self._seen(pictures)
        order = sorted(range(len(windows)), key=lambda place: len(windows[place]))
        for start in range(0, len(order), self._batch_windows):
            places = order[start : start + self._batch_windows]
            batch = [windows[place] for place in places]
            inputs = self._inputs(batch)
            if seen:
                pixels = torch.stack([seen[id(pictures[place])] for place in places])
                inputs["pixel_values"] = pixels.to(self.network.device)
            rows = self._head(self.network(**inputs))
            tick()
            for place, window, row in zip(places, batch, rows, strict=True):
                found[place] = row if row.ndim == 1 else row[: len(window)]
        return [scores for scores in found if scores is not None]

    def _seen(self, pictures: Sequence[PixelArray | None]) -> dict[int, torch.Tensor]:
        """What the network sees of each picture, by its id: once, however many windows it has."""
        if self._processor is None:
            return {}
        different = {id(picture): picture for picture in pictures if picture is not None}
        return {
            name: self._processor([picture], apply_ocr=False, **AS_READ)["pixel_values"][0]
            for name, picture in different.items()
        }

    def _head(self, outputs: Any) -> Scores:
        if self.kind.task == "vqa":
            logits = torch.stack((outputs.start_logits, outputs.end_logits), dim=-1)
        else:
            logits = outputs.logits
        scores: Scores = logits.float().cpu().numpy()
        return scores

    def _inputs(self, windows: Sequence[Window]) -> dict[str, torch.Tensor]:
        longest = max(map(len, windows))
        rows = {
            "input_ids": [_padded(w.ids, longest, self._padding) for w in windows],
            "bbox": [_padded(w.places, longest, NOWHERE) for w in windows],
            "attention_mask": [_padded([1] * len(w), longest, 0) for w in windows],
        }
        if self.network.config.type_vocab_size > 1:
            rows["token_type_ids"] = [_padded(w.types, longest, 0) for w in windows]
        device = self.network.device
        return {name: torch.tensor(values, device=device) for name, values in rows.items()}

    @property
    def _separator(self) -> Place:
        return CORNER if self.kind.family == "layoutlm" else NOWHERE

    @property
    def _tokenizer_options(self) -> dict[str, Any]:
        """RoBERTa's tokens of a word begin with a space, also in a list of words."""
        return {} if self.kind.family == "layoutlm" else {"add_prefix_space": True}

    def _max_tokens(self, tokenizer: Any) -> int:
        config = self.network.config
        offset = 0 if self.kind.family == "layoutlm" else config.pad_token_id + 1
        return context_limit(config, tokenizer.model_max_length, offset)


def _padded(values: Sequence[Any], size: int, padding: Any) -> list[Any]:
    return [*values, *[padding] * (size - len(values))]
