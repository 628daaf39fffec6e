"""Tiny random causal language models in the Hugging Face layout, one for each kind of attention.

Seeded, a few hundred kilobytes; weights are drawn wide, so that attention matters. The tokenizer
is byte-level, with the vocabulary of `tests.tiny_gguf`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tests.chat_templates import CHATML
from tests.tiny_gguf import CONTEXT, CONTROL, MERGES

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = (*CONTROL, *ALPHABET, *("".join(pair) for pair in MERGES))
END, PADDING = 2, 0
WIDTH: dict[str, Any] = {
    "vocab_size": len(TOKENS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.4,
    "bos_token_id": 0,
    "eos_token_id": END,
    "pad_token_id": PADDING,
}
WINDOW = 8
MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**WIDTH),
    "qwen2": lambda: transformers.Qwen2Config(**WIDTH, tie_word_embeddings=True),
    "qwen3": lambda: transformers.Qwen3Config(**WIDTH, head_dim=8),
    "mistral": lambda: transformers.MistralConfig(**WIDTH, head_dim=8, sliding_window=WINDOW),
    "gemma2": lambda: transformers.Gemma2Config(
        **WIDTH,
        **MIXED,
        head_dim=8,
        query_pre_attn_scalar=8,
        attn_logit_softcapping=5.0,
        final_logit_softcapping=20.0,
    ),
    "gemma3": lambda: transformers.Gemma3TextConfig(
        **WIDTH, **MIXED, head_dim=8, query_pre_attn_scalar=8
    ),
    "gpt-oss": lambda: transformers.GptOssConfig(
        **WIDTH, **MIXED, head_dim=8, num_local_experts=4, num_experts_per_tok=2
    ),
    "phi3": lambda: transformers.Phi3Config(**WIDTH, sliding_window=WINDOW),
    "cohere2": lambda: transformers.Cohere2Config(**WIDTH, **MIXED),
    "olmo2": lambda: transformers.Olmo2Config(**WIDTH),
    "granite": lambda: transformers.GraniteConfig(**WIDTH),
    "qwen3-moe": lambda: transformers.Qwen3MoeConfig(
        **WIDTH, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16
    ),
    "deepseek-v3": lambda: transformers.DeepseekV3Config(
        **(WIDTH | {"num_key_value_heads": 4}),
        q_lora_rank=None,
        kv_lora_rank=16,
        qk_nope_head_dim=8,
        qk_rope_head_dim=8,
        v_head_dim=12,
        first_k_dense_replace=2,
    ),
    "stablelm": lambda: transformers.StableLmConfig(**WIDTH),
    "gemma3n": lambda: transformers.Gemma3nTextConfig(
        **(WIDTH | {"num_hidden_layers": 3, "intermediate_size": [64] * 3}),
        head_dim=8,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention", "full_attention"],
        num_kv_shared_layers=1,
        vocab_size_per_layer_input=len(TOKENS),
        hidden_size_per_layer_input=8,
        activation_sparsity_pattern=[0.0] * 3,
        altup_num_inputs=2,
        laurel_rank=4,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=len(TOKENS),
        n_positions=CONTEXT,
        n_embd=32,
        n_layer=2,
        n_head=4,
        initializer_range=0.4,
        bos_token_id=0,
        eos_token_id=END,
    ),
    "llama4": lambda: transformers.Llama4TextConfig(
        **WIDTH,
        head_dim=8,
        attention_chunk_size=WINDOW,
        num_local_experts=2,
        intermediate_size_mlp=64,
        layer_types=["chunked_attention", "full_attention"],
    ),
}
"""Grouped queries, normalised queries, windows on all or some layers, capped scores, sinks,
chunks, values narrower than keys, keys of another layer, learned positions, experts."""


def write_causal_lm(path: Path, family: str = "llama", **tokenizer_options: Any) -> Path:
    """A folder with model, tokenizer and chat template; `path` is returned."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family]())
    for name, parameter in model.named_parameters():
        if name.endswith("sinks"):
            torch.nn.init.normal_(parameter)
    model.eval().save_pretrained(path)
    byte_level_tokenizer(**tokenizer_options).save_pretrained(path)
    return path


def byte_level_tokenizer(
    *, adds_bos: bool = False, chat_template: str | None = CHATML
) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(TOKENS)}, list(MERGES)))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True) for text in CONTROL])
    if adds_bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{CONTROL[0]} $A", special_tokens=[(CONTROL[0], 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=CONTROL[0],
        eos_token=CONTROL[END],
        pad_token=CONTROL[PADDING],
        chat_template=chat_template,
    )
