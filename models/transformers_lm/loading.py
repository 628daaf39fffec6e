"""A causal language model and its tokenizer, from a Hugging Face folder or a GGUF file."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from models.errors import ModelLoadError
from models.llama_cpp.gguf_header import read_gguf_header
from models.model_folder import ModelFolder, open_transformers_folder
from models.model_format import model_files
from models.transformers_lm.precision import Dtype, chosen_dtype, stored_dtype
from models.transformers_loading import LOAD_ERRORS, load_fast_tokenizer, load_transformer

LOGGER = logging.getLogger(__name__)
CHANGING_ROPE = ("dynamic", "longrope")
"""Rotations that depend on the longest sequence of a batch, which here is not one user's."""

PLAIN_SPLITS = ("default", "gpt-2", "mpt", "olmo", "jais", "phi-2", "trillion")
DIGIT_SPLITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
"""Names in `tokenizer.ggml.pre` of GPT-2's splitting, and of the same with single digits."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """`context_length` is the trained one, `vocabulary_size` the rows of logits."""

    model: Any
    tokenizer: Any
    context_length: int
    vocabulary_size: int
    end_tokens: frozenset[int]
    chat_template: str | None


def load_causal_lm(path: Path, *, dtype: Dtype, device: torch.device) -> LoadedModel:
    """Load what lies at `path` without network, pickles or code of others.

    Of a GGUF file the weights are dequantised: llama.cpp serves those with less memory and
    faster. Raises ModelLoadError, which names the architecture when it cannot be served.
    """
    files = model_files(path)
    if files.format == "gguf":
        folder, options = ModelFolder(files.path.parent), {"gguf_file": files.path.name}
        split = _gguf_split(files.path)
    else:
        folder, options = open_transformers_folder(files.path), {}
        split = None
    config = _config(folder, options)
    stored = torch.float16 if options else stored_dtype(config)
    number_format = chosen_dtype(dtype, stored, device)
    tokenizer = load_fast_tokenizer(folder.path, **options)
    if split is not None:
        tokenizer.backend_tokenizer.pre_tokenizer = split
    model = load_transformer(AutoModelForCausalLM, folder, dtype=number_format, **options)
    text = config.get_text_config()
    return LoadedModel(
        model.to(device),
        tokenizer,
        _context_length(text),
        int(text.vocab_size),
        _end_tokens(model.generation_config, text),
        _chat_template(tokenizer.chat_template),
    )


def _config(folder: ModelFolder, options: dict[str, str]) -> Any:
    try:
        config = AutoConfig.from_pretrained(
            folder.path, local_files_only=True, trust_remote_code=False, **options
        )
    except LOAD_ERRORS as error:
        LOGGER.warning("a configuration does not load", exc_info=error)
        raise ModelLoadError("transformers does not know this model's configuration") from error
    if config.is_encoder_decoder or type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelLoadError(f"{architecture(config)} is not a causal language model")
    return config


def architecture(config: Any) -> str:
    """The name of a model's class, or of its family."""
    names = getattr(config, "architectures", None)
    return str(names[0] if names else config.model_type)


def _context_length(config: Any) -> int:
    """Tokens that the model was trained for; those before its rotations change, if they do."""
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        raise ModelLoadError(f"{architecture(config)} does not state a context length")
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = rope.values() if all(isinstance(v, dict) for v in rope.values()) else (rope,)
    for kind in kinds:
        if kind.get("rope_type") in CHANGING_ROPE:
            limit = min(limit, kind.get("original_max_position_embeddings") or limit)
    return limit


def _end_tokens(*configs: Any) -> frozenset[int]:
    stated = (getattr(config, "eos_token_id", None) for config in configs)
    lists = (ids if isinstance(ids, list) else [ids] for ids in stated)
    return frozenset(int(token) for ids in lists for token in ids if token is not None)


def _chat_template(template: str | dict[str, str] | None) -> str | None:
    """Of several named templates the default one."""
    return template.get("default") if isinstance(template, dict) else template


def _gguf_split(path: Path) -> Any | None:
    """How text is split before merging, where transformers does not know it; None where it does.

    For names it does not know transformers takes GPT-2's way, which changes the tokens of white
    space before digits. Raises ModelLoadError for names that are unknown here, too.
    """
    values = read_gguf_header(path).values
    name = values.get("tokenizer.ggml.pre", "default")
    if values.get("tokenizer.ggml.model") != "gpt2" or name in GGUF_PRE_TOKENIZER_SPLITS:
        return None
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in PLAIN_SPLITS:
        return byte_level
    if name in DIGIT_SPLITS:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    raise ModelLoadError(f"how '{name}' splits text is not known here; llama_cpp can serve it")
