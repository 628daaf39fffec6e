"""The same weights for both engines: a quantised GGUF file of a llama as an F16 GGUF file and as a
Hugging Face folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

OWN_FIELDS = ("GGUF.", "general.architecture", "general.file_type", "general.quantization_version")
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write_half_precision(source: Path, gguf_path: Path, folder: Path) -> None:
    """Dequantise `source` and round to float16; norms stay float32 in the GGUF file."""
    reader = gguf.GGUFReader(source)
    tensors = {
        t.name: dequantize(t.data, t.tensor_type).reshape(t.shape[::-1].tolist())
        for t in reader.tensors
    }
    halves = {n: t.astype(np.float16) if t.ndim > 1 else t for n, t in tensors.items()}
    _write_gguf(reader, halves, gguf_path)
    folder.mkdir(parents=True, exist_ok=True)
    config = _config(reader)
    _write_weights(halves, config, folder)
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(reader, folder)


def _value(reader: gguf.GGUFReader, name: str) -> Any:
    return reader.fields[name].contents()


def _write_gguf(reader: gguf.GGUFReader, tensors: dict[str, Any], path: Path) -> None:
    writer = gguf.GGUFWriter(path, _value(reader, "general.architecture"))
    for name, field in reader.fields.items():
        if not name.startswith(OWN_FIELDS):
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _config(reader: gguf.GGUFReader) -> dict[str, Any]:
    width, heads = (
        _value(reader, "llama.embedding_length"),
        _value(reader, "llama.attention.head_count"),
    )
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": _value(reader, "llama.feed_forward_length"),
        "num_hidden_layers": _value(reader, "llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": _value(reader, "llama.attention.head_count_kv"),
        "max_position_embeddings": _value(reader, "llama.context_length"),
        "rms_norm_eps": _value(reader, "llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": _value(reader, "llama.rope.freq_base"),
        "vocab_size": len(_value(reader, "tokenizer.ggml.tokens")),
        "bos_token_id": _value(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": _value(reader, "tokenizer.ggml.eos_token_id"),
        "tie_word_embeddings": True,
        "dtype": "float16",
    }


def _write_weights(tensors: dict[str, Any], config: dict[str, Any], folder: Path) -> None:
    weights = {
        "model.embed_tokens.weight": tensors["token_embd.weight"],
        "model.norm.weight": tensors["output_norm.weight"],
    }
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for layer in range(config["num_hidden_layers"]):
        for short, long in LAYER_NAMES.items():
            values = tensors[f"blk.{layer}.{short}.weight"]
            if short in heads:
                values = _uninterleaved(values, heads[short])
            weights[f"model.layers.{layer}.{long}.weight"] = values
    half = {name: np.ascontiguousarray(v.astype(np.float16)) for name, v in weights.items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})


def _uninterleaved(rows: Any, heads: int) -> Any:
    """llama.cpp rotates neighbouring pairs of rows, transformers the halves of a head."""
    half = rows.shape[0] // heads // 2
    return rows.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _write_tokenizer(reader: gguf.GGUFReader, folder: Path) -> None:
    texts = _value(reader, "tokenizer.ggml.tokens")
    kinds = _value(reader, "tokenizer.ggml.token_type")
    merges = [tuple(m.split(" ")) for m in _value(reader, "tokenizer.ggml.merges")]
    control = [text for text, kind in zip(texts, kinds, strict=True) if kind == 3]
    backend = Tokenizer(models.BPE({text: i for i, text in enumerate(texts)}, merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in control]
    )
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": texts[_value(reader, "tokenizer.ggml.bos_token_id")],
        "eos_token": texts[_value(reader, "tokenizer.ggml.eos_token_id")],
        "chat_template": _value(reader, "tokenizer.chat_template"),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
