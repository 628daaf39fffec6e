"""What a model will take of the host's and of the GPU's memory, from its files' headers, and what
its engine is told so that it takes no more."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from config.catalog import ModelSpec
from models.continuous_batching.pool_plan import PoolWish
from models.devices.device import BYTES, Device, NumberFormat, number_format
from models.errors import ModelLoadError
from models.llama_cpp.gguf_memory import gguf_memory
from models.llama_cpp.placement import Room, StepSizes, needed, placed
from models.model_folder import ModelFolder
from models.model_format import model_files
from weights.sizes import TensorCount, count_safetensors, onnx_bytes

ONNX_BYTES = 48 << 20
"""Of a session with its tokenizer and the buffers of its batches, beside the file's own size."""
PAGE_BYTES = 350 << 20
"""Buffers that a recogniser of text fills for one large page."""
RAPIDOCR_BYTES = 50 << 20
"""PP-OCR's small networks, which come with their package."""
BATCH_TOKENS = 4096
STORED: dict[str, NumberFormat] = {"F16": "float16", "BF16": "bfloat16"}
GPU_ENGINES = frozenset({"auto", "documents", "llama_cpp", "torch", "transformers"})
"""The others compute on the CPU wherever they are."""

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Bytes while the model is loaded, `peak`, and afterwards, `kept`, on the host and the GPU.

    `options` are for the engine's constructor.
    """

    host: int
    gpu: int = 0
    kept: tuple[int, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        return self.host + self.gpu


@dataclass(frozen=True, slots=True)
class Situation:
    """Where a model is going to be loaded; `gpu` is None without one. `own_room`: the room is the
    replica's own, and a pool of which nobody named a size may take it."""

    host: Device
    gpu: Device | None
    room: Room
    own_room: bool = False


def plan_load(spec: ModelSpec, path: Path | None, situation: Situation) -> LoadPlan:
    """The plan for weights that lie at `path`. Raises ModelLoadError for broken files.

    What does not fit is planned in its smallest useful form, and larger than the room.
    """
    if spec.engine == "rapidocr":
        return LoadPlan(RAPIDOCR_BYTES + PAGE_BYTES)
    if path is None:
        return LoadPlan(0)
    if spec.engine == "onnx":
        return _onnx(spec, path)
    if _on_cpu(spec):
        situation = Situation(situation.host, None, Room(situation.room.host), situation.own_room)
    if path.is_dir() and spec.engine == "torch":
        return _encoder(spec, path, situation)
    if spec.task == "generation":
        return _generator(spec, path, situation)
    if spec.engine == "llama_cpp":
        return _gguf_encoder(spec, path, situation)
    if path.is_dir() and not any(path.glob("*.safetensors")):
        return LoadPlan(0)
    buffers = PAGE_BYTES if spec.task == "ocr" else 0
    return _whole(count_safetensors(path), 4, situation.gpu, buffers)


def _on_cpu(spec: ModelSpec) -> bool:
    return spec.engine not in GPU_ENGINES or spec.engine_options.get("device") == "cpu"


def _generator(spec: ModelSpec, path: Path, situation: Situation) -> LoadPlan:
    files = model_files(path)
    if files.format == "gguf" and spec.engine != "transformers":
        return _gguf_generator(spec, files.path, situation)
    if files.format == "gguf":
        return LoadPlan(4 * files.path.stat().st_size)  # dequantised from about 4 bits to 16
    return _causal_lm(spec, files.path, situation)


def _llama_cpp_layers(spec: ModelSpec, situation: Situation) -> tuple[Situation, int | None]:
    """Where llama.cpp will compute, and how many layers the operator wants on a GPU.

    On the host, whatever was asked for, where the installed llama.cpp does not use the GPU.
    """
    wanted = spec.engine_options.get("n_gpu_layers")
    if wanted == 0 or (wanted is None and situation.gpu is None):
        return situation, wanted
    from models.llama_cpp.bindings import computes_on_gpus

    if computes_on_gpus():
        return situation, wanted
    _warn_of_build_without_gpu()
    own = situation.own_room and situation.gpu is None
    return Situation(situation.host, None, Room(situation.room.host), own), 0


@cache
def _warn_of_build_without_gpu() -> None:
    """Once per process: each plan asks."""
    logger.warning(
        "The installed llama.cpp computes on no GPU: its models stay on the host. Build it "
        'for CUDA: CMAKE_ARGS="-DGGML_CUDA=on" .venv/bin/pip install --force-reinstall --no-deps '
        "--no-cache-dir -c constraints.txt llama-cpp-python (docs/operations.md, GPU shares)"
    )


def _wish(spec: ModelSpec, trained: int) -> PoolWish:
    options, limits = spec.engine_options, spec.limits
    return PoolWish(
        trained,
        options.get("n_ctx", limits.context_length),
        options.get("kv_cells"),
        options.get("max_sequences", limits.max_sequences or 16),
        limits.min_context_length,
    )


def _gguf_generator(spec: ModelSpec, path: Path, situation: Situation) -> LoadPlan:
    from models.llama_cpp.generator_file import read_generator_file

    options = spec.engine_options
    situation, layers = _llama_cpp_layers(spec, situation)
    wish = _wish(spec, 0)
    file = read_generator_file(path, wish.max_sequences, options.get("kv_cache", "f16"))
    wish = _wish(spec, file.header.context_length)
    plan = placed(
        file.memory,
        file.sizes,
        wish,
        situation.room,
        gpu_layers=layers,
        generous=situation.own_room,
    )
    sized = {"n_ctx": plan.pool.context, "kv_cells": plan.pool.cells}
    return LoadPlan(plan.host, plan.gpu, options={**sized, "n_gpu_layers": plan.gpu_layers})


def _gguf_encoder(spec: ModelSpec, path: Path, situation: Situation) -> LoadPlan:
    from models.llama_cpp.encoder_file import DEFAULT_BATCH_TOKENS, read_encoder_file
    from models.llama_cpp.encoder_runner import SLOTS

    options = spec.engine_options
    file = read_encoder_file(path, options.get("max_tokens"))
    memory = gguf_memory(file.path, file.header)
    n_batch = max(file.max_tokens, options.get("max_batch_tokens", DEFAULT_BATCH_TOKENS))
    sizes = StepSizes(SLOTS, n_batch, n_batch if file.header.is_causal else 0)
    wish = PoolWish(n_batch, kv_cells=n_batch, min_context=n_batch)
    situation, layers = _llama_cpp_layers(spec, situation)
    plan = placed(memory, sizes, wish, situation.room, gpu_layers=layers)
    host, gpu = needed(memory, sizes, plan.pool.cells, plan.gpu_layers)
    return LoadPlan(host, gpu, options={"n_gpu_layers": plan.gpu_layers})


def _causal_lm(spec: ModelSpec, folder: Path, situation: Situation) -> LoadPlan:
    count = count_safetensors(folder)
    config = _text_config(folder)
    device = situation.gpu or situation.host
    width = BYTES[_format(spec, device, STORED.get(count.stored, "float32"))]
    trained = _number(config, "max_position_embeddings") or 2048
    wish = _wish(spec, trained)
    cell = width * _kv_numbers(config)
    fixed = count.bytes_as(width) + _activations(config, 512, width)
    room = situation.room.host if situation.gpu is None else situation.room.gpu or 0
    largest = wish.full() if situation.own_room else wish.modest(cell)
    pool = wish.fitted(largest, lambda cells: fixed + cells * cell <= room)
    sized = {"n_ctx": pool.context, "kv_cells": pool.cells}
    n_bytes = fixed + pool.cells * cell
    if situation.gpu is None:
        return LoadPlan(n_bytes, options=sized)
    # weights pass through the host on their way
    return LoadPlan(count.bytes_as(width), n_bytes, kept=(0, n_bytes), options=sized)


def _encoder(spec: ModelSpec, folder: Path, situation: Situation) -> LoadPlan:
    """Loaded and compared in float32, then cast."""
    if spec.task == "embedding":
        from models.encoders.embedding_recipe import read_recipe

        folder = folder / read_recipe(ModelFolder(folder)).transformer
    device = situation.gpu or situation.host
    width = BYTES[_format(spec, device, None)]
    tokens = spec.engine_options.get("max_batch_tokens", BATCH_TOKENS)
    buffers = _activations(_text_config(folder), tokens, width)
    return _whole(count_safetensors(folder), width, situation.gpu, buffers)


def _whole(count: TensorCount, width: int, gpu: Device | None, buffers: int) -> LoadPlan:
    """Weights that are float32 while they are loaded and have `width` bytes afterwards."""
    kept = count.bytes_as(width) + buffers
    peak = max(kept, count.bytes_as(4))
    if gpu is None:
        return LoadPlan(peak, kept=(kept, 0))
    return LoadPlan(count.bytes_as(4), peak, kept=(0, kept))


def _onnx(spec: ModelSpec, path: Path) -> LoadPlan:
    from models.encoders.onnx_session import model_file

    graph = model_file(path, spec.engine_options.get("file"))
    return LoadPlan(onnx_bytes(graph) + ONNX_BYTES)


def _format(spec: ModelSpec, device: Device, stored: NumberFormat | None) -> NumberFormat:
    named = spec.engine_options.get("dtype", "auto")
    if named in BYTES:
        return named  # type: ignore[no-any-return]  # one of the keys
    return number_format(device.kind, has_bf16=device.has_bf16, stored=stored)


def _text_config(folder: Path) -> Mapping[str, Any]:
    try:
        config = ModelFolder(folder).read_object("config.json")
    except ModelLoadError:
        return {}
    inner = config.get("text_config")
    return inner if isinstance(inner, dict) else config


def _number(config: Mapping[str, Any], *names: str) -> int:
    """The first that is there; 0 without any."""
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), 0)


def _activations(config: Mapping[str, Any], tokens: int, width: int) -> int:
    """Buffers of one pass: two of the feed-forward's width and eight of the model's."""
    hidden = _number(config, "hidden_size", "dim", "d_model")
    inner = _number(config, "intermediate_size", "hidden_dim", "d_ff") or 4 * hidden
    return tokens * (2 * inner + 8 * hidden) * width


def _kv_numbers(config: Mapping[str, Any]) -> int:
    """Keys and values of one token in all layers; latent attention is kept in full."""
    layers = _number(config, "num_hidden_layers", "n_layer")
    heads = _number(config, "num_attention_heads", "n_head")
    if config.get("kv_lora_rank"):
        lengths = ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
        return layers * heads * sum(_number(config, name) for name in lengths)
    width = _number(config, "head_dim") or _number(config, "hidden_size") // max(heads, 1)
    return layers * (_number(config, "num_key_value_heads") or heads) * 2 * width
