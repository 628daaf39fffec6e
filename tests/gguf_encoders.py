"""Encoders as GGUF files, from Hugging Face folders: the same weights for two engines.

BERT (bi-encoders, and cross-encoders with a rank head) and Qwen3 (embedders, rerankers).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

TensorTypes = gguf.TokenType
BERT_NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
BERT_TABLES = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
    "pooler.dense.weight": "cls.weight",
    "pooler.dense.bias": "cls.bias",
    "classifier.weight": "cls.output.weight",
    "classifier.bias": "cls.output.bias",
}
QWEN3_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
QWEN3_TABLES = {
    "embed_tokens.weight": "token_embd.weight",
    "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
POOLINGS = {
    "mean": gguf.PoolingType.MEAN,
    "cls": gguf.PoolingType.CLS,
    "lasttoken": gguf.PoolingType.LAST,
    "rank": gguf.PoolingType.RANK,
}


def write_bert_gguf(
    folder: Path,
    path: Path,
    pooling: str | None,
    *,
    half: bool = False,
    labels: tuple[str, ...] = (),
) -> Path:
    """A BERT folder as one file; `rank` takes pooler and classifier along."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "bert")
    _write_sizes(writer, config)
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    _write_pooling(writer, pooling)
    if labels:
        writer.add_classifier_output_labels(labels)
    writer.add_token_type_count(config["type_vocab_size"])
    _write_word_pieces(writer, folder)
    _write_tensors(writer, _renamed_bert(folder, rank=pooling == "rank"), half)
    return _finish(writer, path)


def write_qwen3_gguf(
    folder: Path,
    path: Path,
    pooling: str | None = None,
    *,
    template: str | None = None,
    answers: Mapping[str, int] | None = None,
) -> Path:
    """A Qwen3 folder with a byte-level BPE tokenizer as one file of float32.

    `template` is that of a reranker, whose head has the rows of the `answers`, token ids by label.
    """
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "qwen3")
    _write_sizes(writer, config)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    _write_pooling(writer, pooling)
    _write_byte_pairs(writer, folder)
    if template is not None:
        writer.add_string("tokenizer.chat_template.rerank", template)
    tensors = _renamed(folder, QWEN3_TABLES, QWEN3_NAMES, ("model.",), "layers.")
    if answers is not None:
        writer.add_classifier_output_labels(list(answers))
        tensors["cls.output.weight"] = tensors["output.weight"][list(answers.values())]
    _write_tensors(writer, tensors, half=False)
    return _finish(writer, path)


def _write_sizes(writer: gguf.GGUFWriter, config: dict[str, Any]) -> None:
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)


def _write_pooling(writer: gguf.GGUFWriter, pooling: str | None) -> None:
    if pooling is not None:
        writer.add_pooling_type(POOLINGS[pooling])


def _write_word_pieces(writer: gguf.GGUFWriter, folder: Path) -> None:
    """llama.cpp marks the beginnings of words where BERT marks their other pieces."""
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    texts = sorted(vocabulary, key=vocabulary.__getitem__)
    control = {text: text.startswith("[") and text.endswith("]") for text in texts}
    pieces = [
        text if control[text] else text[2:] if text.startswith("##") else f"\u2581{text}"
        for text in texts
    ]
    kinds = [TensorTypes.CONTROL if control[text] else TensorTypes.NORMAL for text in texts]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    writer.add_bos_token_id(vocabulary["[CLS]"])
    writer.add_eos_token_id(vocabulary["[SEP]"])
    writer.add_unk_token_id(vocabulary["[UNK]"])
    writer.add_sep_token_id(vocabulary["[SEP]"])
    writer.add_pad_token_id(vocabulary["[PAD]"])
    writer.add_mask_token_id(vocabulary["[MASK]"])


def _write_byte_pairs(writer: gguf.GGUFWriter, folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = dict(tokenizer["model"]["vocab"])
    control = {token["content"] for token in tokenizer["added_tokens"] if token["special"]}
    vocabulary |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    texts = sorted(vocabulary, key=vocabulary.__getitem__)
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(texts)
    writer.add_token_types(
        [TensorTypes.CONTROL if text in control else TensorTypes.NORMAL for text in texts]
    )
    writer.add_token_merges(merges)
    end = next(text for text in texts if text in control)
    writer.add_eos_token_id(vocabulary[end])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def _renamed_bert(folder: Path, *, rank: bool) -> dict[str, np.ndarray]:
    tensors = _renamed(folder, BERT_TABLES, BERT_NAMES, ("bert.",), "encoder.layer.")
    return {name: t for name, t in tensors.items() if rank or not name.startswith("cls")}


def _renamed(
    folder: Path,
    tables: dict[str, str],
    names: dict[str, str],
    prefixes: tuple[str, ...],
    layers: str,
) -> dict[str, np.ndarray]:
    renamed = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        for prefix in prefixes:
            name = name.removeprefix(prefix)
        if name in tables:
            renamed[tables[name]] = tensor
        elif name.startswith(layers):
            layer, _, part = name.removeprefix(layers).partition(".")
            module, _, kind = part.rpartition(".")
            renamed[f"blk.{layer}.{names[module]}.{kind}"] = tensor
    return renamed


def _write_tensors(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray], half: bool) -> None:
    for name, tensor in tensors.items():
        matrix = half and tensor.ndim > 1 and not name.startswith(("position_embd", "token_types"))
        writer.add_tensor(name, tensor.astype(np.float16 if matrix else np.float32))


def _finish(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
