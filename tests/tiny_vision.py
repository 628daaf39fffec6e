"""Tiny random models that turn pictures into text, in the layouts of TrOCR and of Donut."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from transformers import VisionEncoderDecoderConfig, VisionEncoderDecoderModel

from tests.tiny_models import SPECIALS, VOCABULARY, tokenizer

PAD, START, END = (SPECIALS.index(name) for name in ("[PAD]", "[CLS]", "[SEP]"))
DECODER = {
    "vocab_size": len(VOCABULARY),
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 64,
    "max_position_embeddings": 64,
    "init_std": 0.6,
    "pad_token_id": PAD,
    "bos_token_id": START,
    "eos_token_id": END,
    "scale_embedding": False,
}


def write_trocr(path: Path) -> Path:
    """A ViT of 32 x 32 pixels and TrOCR's decoder, for lines."""
    encoder = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        initializer_range=0.6,
    )
    decoder = transformers.TrOCRConfig(**DECODER, cross_attention_hidden_size=32)
    processor = transformers.ViTImageProcessorPil(size={"height": 32, "width": 32})
    return _write(path, encoder, decoder, processor)


def write_donut(path: Path) -> Path:
    """A Swin encoder of 64 x 64 pixels and MBart's decoder, for pages."""
    encoder = transformers.DonutSwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=16,
        depths=[1, 1],
        num_heads=[2, 2],
        window_size=4,
        initializer_range=0.6,
    )
    decoder = transformers.MBartConfig(
        **DECODER, encoder_layers=2, is_decoder=True, add_cross_attention=True
    )
    processor = transformers.DonutImageProcessorPil(size={"height": 64, "width": 64})
    return _write(path, encoder, decoder, processor)


def _write(path: Path, encoder: object, decoder: object, processor: object) -> Path:
    torch.manual_seed(0)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = START, PAD, END
    model = VisionEncoderDecoderModel(config).eval()
    model.generation_config.decoder_start_token_id = START
    model.generation_config.pad_token_id = PAD
    model.generation_config.eos_token_id = END
    model.save_pretrained(path)
    tokenizer(typed=False, limit=64).save_pretrained(path)
    processor.save_pretrained(path)  # type: ignore[attr-defined]
    return path
