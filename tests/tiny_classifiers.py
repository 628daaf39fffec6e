"""Tiny random classifiers, written to a folder: for sequences, for tokens, for entailment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.tiny_models import CONFIGS, LETTERS, TYPED, tokenizer

NLI = ("contradiction", "neutral", "entailment")
IOB = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
BILOU = ("O", "B-PER", "I-PER", "L-PER", "U-PER")
PLAIN = ("O", "PER", "LOC")


def write_classifier(path: Path, family: str, labels: Sequence[str], **options: Any) -> Path:
    """A sequence classifier with these labels; `options` go to its configuration."""
    auto_class = transformers.AutoModelForSequenceClassification
    words = tokenizer(typed=family in TYPED, limit=512)
    return _save(path, auto_class, family, labels, words, options)


def write_token_classifier(
    path: Path, family: str, labels: Sequence[str] = IOB, *, bytes_bpe: bool = False, **options: Any
) -> Path:
    """A token classifier; `bytes_bpe`: with a byte-level tokenizer, as RoBERTa's is."""
    auto_class = transformers.AutoModelForTokenClassification
    words = byte_tokenizer() if bytes_bpe else tokenizer(typed=family in TYPED, limit=512)
    return _save(path, auto_class, family, labels, words, options)


def _save(
    path: Path,
    auto_class: Any,
    family: str,
    labels: Sequence[str],
    words: PreTrainedTokenizerFast,
    options: dict[str, Any],
) -> Path:
    names = dict(enumerate(labels))
    config = CONFIGS[family](
        id2label=names, label2id={name: i for i, name in names.items()}, **options
    )
    torch.manual_seed(0)
    auto_class.from_config(config).eval().save_pretrained(path)
    words.save_pretrained(path)
    return path


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a few merges over the vocabulary of the other tiny models."""
    specials = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")
    merges = [("t", "h"), ("i", "n"), ("e", "r"), ("a", "n")]
    pieces = [*specials, *LETTERS, "\u0120", *(a + b for a, b in merges)]
    bpe = models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="[UNK]")
    backend = Tokenizer(bpe)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )  # fmt: skip
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=512,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "attention_mask"],
    )
