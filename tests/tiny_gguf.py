"""A random-weight llama of a few hundred kilobytes in the GGUF format, seeded.

Its vocabulary is the 256 bytes, a few joined pieces and control tokens; its weights are drawn
wide, so that the next token depends on all that came before. It writes nonsense, bytes that are
no UTF-8 included.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests.chat_templates import CHATML

CONTEXT = 1024
INFILL = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *INFILL)
MERGES = (("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "n"), ("i", "n"))
WIDTH, HEADS, KV_HEADS, LAYERS, FEED_FORWARD = 32, 4, 2, 2, 64
SPREAD = 0.4


def write_gguf(
    path: Path,
    *,
    seed: int = 0,
    chat_template: str | None = CHATML,
    kind: str = "F32",
    width: int = WIDTH,
) -> Path:
    """Write the model to `path` and return it; `kind` is the format of its matrices."""
    writer = gguf.GGUFWriter(path, "llama")
    tokens = _vocabulary()
    file_type = "ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"
    _write_hyperparameters(writer, len(tokens), gguf.LlamaFileType[file_type], width)
    _write_tokenizer(writer, tokens)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    for name, values in _tensors(np.random.default_rng(seed), len(tokens), width).items():
        stored = gguf.GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
        writer.add_tensor(name, gguf.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _vocabulary() -> list[str]:
    return [*CONTROL, *map(_byte_character, range(256)), *("".join(pair) for pair in MERGES)]


def _byte_character(byte: int) -> str:
    """GPT-2's printable stand-in for a byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in printable:
        return chr(byte)
    return chr(256 + sum(other not in printable for other in range(byte)))


def _write_hyperparameters(
    writer: gguf.GGUFWriter, vocabulary_size: int, file_type: gguf.LlamaFileType, width: int
) -> None:
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(width)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(width // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(vocabulary_size)
    writer.add_file_type(file_type)


def _write_tokenizer(writer: gguf.GGUFWriter, tokens: list[str]) -> None:
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([control if token in CONTROL else normal for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in MERGES])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)


def _tensors(
    random: np.random.Generator, vocabulary_size: int, width: int
) -> dict[str, np.ndarray]:
    def matrix(rows: int, columns: int) -> np.ndarray:
        return random.normal(0, SPREAD, (rows, columns)).astype(np.float32)

    norm = np.ones(width, np.float32)
    kv_width = width // HEADS * KV_HEADS
    tensors = {
        "token_embd.weight": matrix(vocabulary_size, width),
        "output_norm.weight": norm,
        "output.weight": matrix(vocabulary_size, width),
    }
    for layer in range(LAYERS):
        block = {
            "attn_norm": norm,
            "attn_q": matrix(width, width),
            "attn_k": matrix(kv_width, width),
            "attn_v": matrix(kv_width, width),
            "attn_output": matrix(width, width),
            "ffn_norm": norm,
            "ffn_gate": matrix(FEED_FORWARD, width),
            "ffn_up": matrix(FEED_FORWARD, width),
            "ffn_down": matrix(width, FEED_FORWARD),
        }
        tensors |= {f"blk.{layer}.{name}.weight": values for name, values in block.items()}
    return tensors
