"""Models and tokenizers from a checked local folder: no network, no pickles, no code of others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from transformers import AutoImageProcessor, AutoTokenizer

from models.encoders.tokenization import NO_LIMIT, TextTokenizer, lowercased
from models.errors import ModelLoadError
from models.model_folder import ModelFolder

LOGGER = logging.getLogger(__name__)
LOAD_ERRORS = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError)

POOLERS = ("pooler.", "encoder.pooler.")
"""Often not trained and not stored; nothing here uses them."""


def load_transformer(
    auto_class: Any, folder: ModelFolder, *, dtype: torch.dtype = torch.float32, **options: Any
) -> Any:
    """A model in evaluation mode. ModelLoadError when weights are missing or broken."""
    try:
        model, report = auto_class.from_pretrained(
            folder.path,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            output_loading_info=True,
            **options,
        )
    except LOAD_ERRORS as error:
        LOGGER.warning("a model does not load", exc_info=error)
        raise ModelLoadError("the model's weights or configuration cannot be loaded") from error
    missing = [name for name in report["missing_keys"] if not name.startswith(POOLERS)]
    if missing:
        raise ModelLoadError(f"the folder has no weights for {len(missing)} of the model's tensors")
    return model.eval()


def load_fast_tokenizer(path: Path, **options: Any) -> Any:
    """The fast tokenizer of the folder as transformers makes it. Raises ModelLoadError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, **options
        )
    except LOAD_ERRORS as error:
        LOGGER.warning("a tokenizer does not load", exc_info=error)
        raise ModelLoadError("the tokenizer cannot be loaded") from error
    if not tokenizer.is_fast:
        raise ModelLoadError("the tokenizer has no fast (tokenizer.json) version")
    return tokenizer


def own_copy(tokenizer: Any) -> Tokenizer:
    """What encodes in a fast tokenizer, for a thread of its own: nothing is cut and nothing padded.

    Where one thread changes such settings, others must not encode.
    """
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def load_image_processor(path: Path) -> Any:
    """The folder's own preparation of pictures, with Pillow. Raises ModelLoadError."""
    try:
        return AutoImageProcessor.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, backend="pil"
        )
    except LOAD_ERRORS as error:
        LOGGER.warning("an image processor does not load", exc_info=error)
        raise ModelLoadError("the image processor cannot be loaded") from error


def load_tokenizer(path: Path, *, lowercase: bool = False) -> TextTokenizer:
    """The fast tokenizer of the folder, with the settings transformers would give it."""
    tokenizer = load_fast_tokenizer(path)
    if lowercase:
        lowercased(tokenizer.backend_tokenizer)
    return TextTokenizer(
        tokenizer.backend_tokenizer,
        has_types="token_type_ids" in tokenizer.model_input_names,
        limit=min(tokenizer.model_max_length, NO_LIMIT),
        cut_side="left" if tokenizer.truncation_side == "left" else "right",
    )
