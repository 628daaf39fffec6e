"""Tiny document models, random or taught one thing, in the layouts of Donut and LayoutLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import decoders
from transformers import PreTrainedTokenizerFast

from models.types.pages import Page, TextLine, Word
from tests.tiny_models import VOCABULARY, WIDTH, tokenizer
from tests.tiny_vision import DECODER, END, PAD, START

CORD = ("<s_cord-v2>", "<s_menu>", "</s_menu>", "<s_nm>", "</s_nm>", "<s_total>", "</s_total>")
RECEIPT = "<s_menu><s_nm>tea</s_nm><sep/><s_nm>cake</s_nm></s_menu><s_total>12</s_total>"
"""Of CORD."""
DOCVQA = ("<s_docvqa>", "<s_question>", "</s_question>", "<s_answer>", "</s_answer>", "<yes/>")
RVLCDIP = ("<s_rvlcdip>", "<s_class>", "</s_class>", "<letter/>", "<invoice/>", "<memo/>")
BASE = ("<s_iitcdip>", "<s_synthdog>", "<sep/>")
"""What every checkpoint of Donut has."""
TAGS = ("O", "B-TOTAL", "I-TOTAL", "B-NAME", "I-NAME")
KINDS = ("letter", "invoice", "memo")
FAMILIES = ("layoutlm", "layoutlmv3", "lilt")
LIMIT = 64
"""Tokens of a window."""
HEADS = {"TokenClassification": TAGS, "SequenceClassification": KINDS, "QuestionAnswering": None}


def write_donut(path: Path, tokens: Sequence[str], taught: str = "", prompt: str = "") -> Path:
    """A Swin encoder of 64 x 64 pixels and MBart's decoder, which writes what it was taught."""
    torch.manual_seed(0)
    words = tokenizer(typed=False, limit=LIMIT)
    words.backend_tokenizer.decoder = decoders.WordPiece()
    words.add_tokens([*BASE, *tokens])
    encoder = transformers.DonutSwinConfig(
        image_size=64, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4
    )
    decoder = transformers.MBartConfig(
        **{**DECODER, "vocab_size": len(words), "init_std": 0.3},
        encoder_layers=2,
        is_decoder=True,
        add_cross_attention=True,
    )
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = START, PAD, END
    model = transformers.VisionEncoderDecoderModel(config)
    if taught:
        _teach(model, *_sequence(words, prompt or tokens[0], taught))
    for name in ("decoder_start_token_id", "pad_token_id", "eos_token_id"):
        setattr(model.generation_config, name, getattr(config, name))
    model.eval().save_pretrained(path)
    words.save_pretrained(path)
    transformers.DonutImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(path)
    return path


def _sequence(
    words: PreTrainedTokenizerFast, prompt: str, text: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """What the decoder gets, and what it should say next; nothing (-100) within the prompt."""
    given = words(prompt, add_special_tokens=False)["input_ids"]
    wanted = words(text, add_special_tokens=False)["input_ids"]
    inputs = [*given, *wanted]
    labels = [*[-100] * (len(given) - 1), *wanted, END]
    return torch.tensor([inputs]), torch.tensor([labels])


def _teach(model: Any, inputs: torch.Tensor, labels: torch.Tensor) -> None:
    """Until the decoder says so whatever the page."""
    torch.set_num_threads(1)
    optimizer = torch.optim.Adam(model.decoder.parameters(), lr=5e-3)
    with torch.no_grad():
        seen = model.encoder(torch.stack((torch.ones(3, 64, 64), torch.randn(3, 64, 64))))
    inputs, labels = inputs.expand(2, -1), labels.expand(2, -1)
    for _ in range(60):
        logits = model(encoder_outputs=seen, decoder_input_ids=inputs).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def write_layout(path: Path, family: str, head: str, taught: bool = False) -> Path:
    """`family`: layoutlm, layoutlmv3 or lilt. Taught, a token classifier finds digits (B-TOTAL)."""
    torch.manual_seed(0)
    labels = HEADS[head]
    options: dict[str, Any] = {} if labels is None else {"id2label": dict(enumerate(labels))}
    config = _layout_config(family, options)
    config.initializer_range = 0.02 if taught else config.initializer_range
    name = f"{ {'layoutlm': 'LayoutLM', 'layoutlmv3': 'LayoutLMv3', 'lilt': 'Lilt'}[family] }For"
    model = getattr(transformers, name + head)(config)
    if taught:
        _teach_digits(model)
    model.eval().save_pretrained(path)
    tokenizer(typed=family == "layoutlm", limit=LIMIT).save_pretrained(path)
    if family == "layoutlmv3":
        processor = transformers.LayoutLMv3ImageProcessorPil(
            size={"height": 32, "width": 32}, apply_ocr=False
        )
        processor.save_pretrained(path)
    return path


def _layout_config(family: str, options: dict[str, Any]) -> Any:
    if family == "layoutlm":
        return transformers.LayoutLMConfig(**WIDTH, max_position_embeddings=LIMIT, **options)
    positions = {"max_position_embeddings": LIMIT + 2, "type_vocab_size": 1}
    if family == "lilt":
        return transformers.LiltConfig(**{**WIDTH, "hidden_size": 48}, **positions, **options)
    return transformers.LayoutLMv3Config(
        **WIDTH,
        **positions,
        coordinate_size=6,
        shape_size=4,
        input_size=32,
        patch_size=16,
        **options,
    )


def _teach_digits(model: Any) -> None:
    """Tokens of digits are B-TOTAL, all others O, wherever they stand."""
    torch.set_num_threads(1)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    digits = torch.tensor([token[-1].isdigit() for token in VOCABULARY])
    for _ in range(60):
        ids = torch.randint(5, len(VOCABULARY), (8, 32))
        corners = torch.randint(0, 500, (8, 32, 2))
        places = torch.cat((corners, corners + torch.randint(0, 500, (8, 32, 2))), dim=-1)
        logits = model(input_ids=ids, bbox=places).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), digits[ids].long().flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def text_page(*rows: str, width: int = 400, height: int = 600) -> Page:
    """Words of 10 pixels a letter, lines of 20 pixels, all with the confidence 0.9."""
    lines = []
    for number, row in enumerate(rows):
        words, left = [], 20
        for text in row.split():
            words.append(Word(text, 0.9, _box(left, 30 * number, 10 * len(text))))
            left += 10 * (len(text) + 1)
        lines.append(TextLine(row, 0.9, _box(20, 30 * number, left), words=tuple(words)))
    return Page(width, height, tuple(lines))


def _box(left: int, top: int, width: int) -> Any:
    return ((left, top), (left + width, top), (left + width, top + 20), (left, top + 20))
