"""Tiny random models in the Hugging Face layout, written to a folder: seeded, a few kilobytes.

Weights are drawn wide (`initializer_range` 0.3), so that attention matters: with the usual 0.02 a
model that mixes up its sequences would hardly show.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

SPECIALS = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]")
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'-"
VOCABULARY = (*SPECIALS, *LETTERS, *(f"##{letter}" for letter in LETTERS))
SIZE = {"vocab_size": len(VOCABULARY), "initializer_range": 0.3, "pad_token_id": 1}
WIDTH = {
    **SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}

CONFIGS: dict[str, Callable[..., Any]] = {
    "bert": lambda **o: transformers.BertConfig(**WIDTH, max_position_embeddings=320, **o),
    "distilbert": lambda **o: transformers.DistilBertConfig(
        **SIZE, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=320, **o
    ),
    "roberta": lambda **o: transformers.RobertaConfig(
        **WIDTH, max_position_embeddings=322, type_vocab_size=1, **o
    ),
    "xlm-roberta": lambda **o: transformers.XLMRobertaConfig(
        **WIDTH, max_position_embeddings=322, type_vocab_size=1, **o
    ),
    "mpnet": lambda **o: transformers.MPNetConfig(**WIDTH, max_position_embeddings=322, **o),
    "modernbert": lambda **o: transformers.ModernBertConfig(
        **{**WIDTH, "num_hidden_layers": 4},
        max_position_embeddings=320,
        local_attention=16,
        cls_token_id=2,
        sep_token_id=3,
        bos_token_id=2,
        eos_token_id=3,
        **o,
    ),
    "albert": lambda **o: transformers.AlbertConfig(
        **WIDTH, embedding_size=16, max_position_embeddings=320, **o
    ),
    "electra": lambda **o: transformers.ElectraConfig(
        **WIDTH, embedding_size=16, max_position_embeddings=320, **o
    ),
    "deberta-v2": lambda **o: transformers.DebertaV2Config(
        **WIDTH,
        max_position_embeddings=320,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=64,
        **o,
    ),
    "nomic": lambda **o: transformers.NomicBertConfig(**WIDTH, max_position_embeddings=320, **o),
    "gemma3": lambda **o: transformers.Gemma3TextConfig(
        **WIDTH,
        num_key_value_heads=2,
        head_dim=8,
        query_pre_attn_scalar=8,
        max_position_embeddings=320,
        sliding_window=16,
        layer_types=["sliding_attention", "full_attention"],
        use_bidirectional_attention=True,
        **o,
    ),
    "mistral": lambda **o: transformers.MistralConfig(
        **WIDTH,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=320,
        sliding_window=16,
        **o,
    ),
    "qwen3": lambda **o: transformers.Qwen3Config(
        **WIDTH, num_key_value_heads=2, head_dim=8, max_position_embeddings=320, **o
    ),
}
EMBEDDERS: dict[str, Callable[..., Any]] = {
    **CONFIGS,
    "camembert": lambda **o: transformers.CamembertConfig(
        **WIDTH, max_position_embeddings=322, type_vocab_size=1, **o
    ),
    "deberta": lambda **o: transformers.DebertaConfig(
        **WIDTH,
        max_position_embeddings=320,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        **o,
    ),
    "eurobert": lambda **o: transformers.EuroBertConfig(
        **WIDTH,
        num_key_value_heads=4,
        max_position_embeddings=320,
        bos_token_id=2,
        eos_token_id=3,
        mask_token_id=4,
        **o,
    ),
    "gte": lambda **o: transformers.GteConfig(**WIDTH, max_position_embeddings=320, **o),
    "jina-v3": lambda **o: transformers.JinaEmbeddingsV3Config(
        **WIDTH, max_position_embeddings=320, **o
    ),
    "llama": lambda **o: transformers.LlamaConfig(
        **WIDTH, num_key_value_heads=2, max_position_embeddings=320, **o
    ),
    "qwen2": lambda **o: transformers.Qwen2Config(
        **WIDTH, num_key_value_heads=2, max_position_embeddings=320, **o
    ),
    "t5": lambda **o: transformers.T5Config(
        **SIZE,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=1,
        **o,
    ),
}
"""Families of bi-encoders."""
DECODERS = frozenset({"qwen3", "qwen2", "llama", "mistral"})
UNPACKABLE = frozenset({"mpnet", "deberta-v2", "deberta", "t5"})
"""Families outside transformers' attention interface, and T5, which adds a bias to its scores."""
TYPED = frozenset({"bert"})


def write_encoder(path: Path, family: str, pooling: str = "mean", **options: Any) -> Path:
    """A sentence-transformers folder of this family; `options` go to its configuration."""
    config = EMBEDDERS[family](**options)
    _save(path, transformers.AutoModel, config, typed=family in TYPED)
    write_json(path / "modules.json", _modules("Transformer", "Pooling", "Normalize"))
    write_json(path / "sentence_bert_config.json", {"max_seq_length": 256, "do_lower_case": False})
    hidden = config.hidden_size if hasattr(config, "hidden_size") else config.dim
    write_json(
        path / "1_Pooling" / "config.json",
        {"word_embedding_dimension": hidden, "pooling_mode": pooling},
    )
    return path


def write_reranker(path: Path, family: str, labels: int = 1, **options: Any) -> Path:
    """A cross-encoder folder: a sequence classifier with `labels` labels."""
    config = CONFIGS[family](num_labels=labels, **options)
    _save(path, transformers.AutoModelForSequenceClassification, config, typed=family in TYPED)
    return path


def write_masked_lm(path: Path, family: str) -> Path:
    """A model that fills masks, whose head is tied to its embeddings as usual."""
    config = CONFIGS[family]()
    _save(path, transformers.AutoModelForMaskedLM, config, typed=family in TYPED)
    return path


def write_judge(path: Path, *, positions: int = 1024) -> Path:
    """A causal language model whose tokenizer knows ChatML's control tokens and "yes" and "no"."""
    control = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    merges = [("y", "e"), ("ye", "s"), ("n", "o"), ("Ġ", "a"), ("t", "h"), ("th", "e")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = (*control, *alphabet, *("".join(pair) for pair in merges))
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True) for text in control])
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=positions,
        pad_token=control[0],
        eos_token=control[2],
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(path)
    config = transformers.Qwen3Config(
        **(WIDTH | {"vocab_size": len(tokens), "pad_token_id": 0}),
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
        eos_token_id=2,
    )
    torch.manual_seed(0)
    transformers.AutoModelForCausalLM.from_config(config).eval().save_pretrained(path)
    return path


def write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def _modules(*names: str) -> list[dict[str, Any]]:
    return [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{name}",
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(names)
    ]


def _save(path: Path, auto_class: Any, config: Any, *, typed: bool) -> None:
    torch.manual_seed(0)
    auto_class.from_config(config).eval().save_pretrained(path)
    tokenizer(typed=typed, limit=512).save_pretrained(path)


def tokenizer(*, typed: bool, limit: int) -> PreTrainedTokenizerFast:
    """WordPiece over single characters, with BERT's [CLS] and [SEP]."""
    backend = Tokenizer(
        models.WordPiece({token: i for i, token in enumerate(VOCABULARY)}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length=limit,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=names if typed else [names[0], names[2]],
    )
