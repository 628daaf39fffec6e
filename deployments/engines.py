"""Engine name -> engine: how a catalogue entry and its weights become a loaded model.

One function per engine, which imports its library inside, so that a replica only ever imports what
its models need and a missing library is a typed load error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from config.catalog import ModelSpec
from config.settings import AppConfig
from models.base import (
    Classifier,
    ClassifierLibrary,
    DocumentModel,
    Encoder,
    EntityRecognizer,
    Generator,
    Model,
    Reranker,
    StepListener,
    TextRecognizer,
)
from models.batching import BatchListener
from models.devices.device import Device
from models.errors import ModelLoadError
from weights.cache import open_cache
from weights.fetch import fetch
from weights.pip_download import Progress

if TYPE_CHECKING:
    from models.anomaly.service import AnomalyService

M = TypeVar("M", bound=Model)
ClassificationModel = Classifier | EntityRecognizer | ClassifierLibrary


def _no_plan(model_id: str) -> Mapping[str, Any]:
    del model_id
    return {}


@dataclass(frozen=True, slots=True)
class Resources:
    """What a replica may use for one model."""

    n_threads: int
    gpu: Device | None = None
    gpu_part: float = 1.0
    """How much of the GPU's memory its models may fill."""
    on_batch: BatchListener | None = None
    """Hears of every batch of text encoders."""
    planned: Callable[[str], Mapping[str, Any]] = _no_plan
    """Model id -> options of its engine that keep it within the memory that was reserved."""

    @property
    def gpu_layers(self) -> int:
        """For llama.cpp, of a model without a plan: all layers, or none."""
        return 0 if self.gpu is None else -1

    def torch_device(self) -> str:
        """torch's name of the device. On a GPU it also keeps torch within the replica's part."""
        if self.gpu is None:
            return "cpu"
        from models.devices.torch_formats import limit_memory

        limit_memory(self.gpu.torch_name, self.gpu_part)
        return self.gpu.torch_name


def weights_of(spec: ModelSpec, config: AppConfig) -> Path:
    """The local path of the model's weights, downloaded if need be. Blocking.

    Raises ModelLoadError.
    """
    path = fetch_weights(spec, config)
    if path is None:
        raise ModelLoadError(f"The model '{spec.id}' has no weights to load.")
    return path


def fetch_weights(
    spec: ModelSpec, config: AppConfig, progress: Progress | None = None
) -> Path | None:
    """As `weights_of`; None for a model that has none."""
    return fetch(
        spec,
        cache=open_cache(config.weights_dir, config.weights_url),
        roots=config.model_roots,
        offline=config.offline,
        progress=progress,
    )


def build(
    spec: ModelSpec,
    make: Callable[..., M],
    planned: Mapping[str, Any] = MappingProxyType({}),
    **options: Any,
) -> M:
    """Call an engine's constructor with the catalogue's `engine_options` on top, and above those
    what was `planned` of its memory.

    Raises ModelLoadError, also for options the engine does not know.
    """
    try:
        return make(**{**options, **spec.engine_options, **planned})
    except TypeError as error:
        raise ModelLoadError(f"The engine options of '{spec.id}' are not valid: {error}") from error
    except ImportError as error:
        raise ModelLoadError(f"The engine '{spec.engine}' is not installed: {error}") from error


def generator(
    spec: ModelSpec, config: AppConfig, resources: Resources, listener: StepListener
) -> Generator:
    if spec.engine == "toy":
        from models.toy.generator import ToyGenerator

        return build(spec, ToyGenerator, listener=listener)
    from models.model_format import model_files

    files = model_files(weights_of(spec, config))
    engine = spec.engine
    if engine == "auto":
        engine = "llama_cpp" if files.format == "gguf" else "transformers"
    options: dict[str, Any] = {
        "path": files.path,
        "listener": listener,
        "n_ctx": spec.limits.context_length,
        "max_sequences": spec.limits.max_sequences or 16,
        "n_threads": resources.n_threads,
    }
    planned = resources.planned(spec.id)
    if engine == "transformers":
        from models.transformers_lm.engine import TransformersGenerator

        return build(
            spec, TransformersGenerator, planned, **options, device=resources.torch_device()
        )
    if files.format != "gguf":
        raise ModelLoadError(f"'{spec.id}' has safetensors: it needs the engine transformers.")
    from models.llama_cpp.engine import LlamaCppGenerator

    return build(spec, LlamaCppGenerator, planned, **options, n_gpu_layers=resources.gpu_layers)


def _text_options(path: Path, resources: Resources) -> dict[str, Any]:
    """What the engines that compute batches from a folder have in common."""
    return {"path": path, "n_threads": resources.n_threads, "on_batch": resources.on_batch}


def encoder(spec: ModelSpec, config: AppConfig, resources: Resources) -> Encoder:
    if spec.engine == "toy":
        from models.toy.encoder import ToyEncoder

        return build(spec, ToyEncoder, on_batch=resources.on_batch)
    options = _text_options(weights_of(spec, config), resources)
    if spec.engine == "onnx":
        from models.encoders.onnx_encoder import OnnxEncoder

        return build(spec, OnnxEncoder, **options)
    if spec.engine == "llama_cpp":
        from models.llama_cpp.encoder import LlamaCppEncoder

        planned, layers = resources.planned(spec.id), resources.gpu_layers
        return build(spec, LlamaCppEncoder, planned, **options, n_gpu_layers=layers)
    from models.encoders.encoder import TorchEncoder

    return build(spec, TorchEncoder, **options, device=resources.torch_device())


def reranker(spec: ModelSpec, config: AppConfig, resources: Resources) -> Reranker:
    if spec.engine == "toy":
        from models.toy.encoder import ToyReranker

        return build(spec, ToyReranker, on_batch=resources.on_batch)
    options = _text_options(weights_of(spec, config), resources)
    if spec.engine == "onnx":
        from models.encoders.onnx_cross_encoder import OnnxReranker

        return build(spec, OnnxReranker, **options)
    if spec.engine == "llama_cpp":
        from models.llama_cpp.reranker import LlamaCppReranker

        planned, layers = resources.planned(spec.id), resources.gpu_layers
        return build(spec, LlamaCppReranker, planned, **options, n_gpu_layers=layers)
    from models.encoders.cross_encoder import open_torch_reranker

    return build(spec, open_torch_reranker, **options, device=resources.torch_device())


def classifier(spec: ModelSpec, config: AppConfig, resources: Resources) -> ClassificationModel:
    """Of sequences or of tokens, as the weights' own configuration says, or the fitted ones."""
    if spec.engine == "classifiers":
        from models.few_shot.classifier_library import Classifiers

        return build(spec, Classifiers, root=config.data_root("classifiers"))
    if spec.engine == "toy":
        from models.toy.classifier import toy_classifier

        return build(spec, toy_classifier, on_batch=resources.on_batch)
    path = weights_of(spec, config)
    if spec.engine == "onnx":
        return _onnx_classifier(spec, path, resources)
    return _torch_classifier(spec, path, resources)


def _onnx_classifier(spec: ModelSpec, path: Path, resources: Resources) -> ClassificationModel:
    from models.encoders.classifier_kinds import kind_of
    from models.encoders.onnx_classifier import OnnxClassifier
    from models.encoders.onnx_token_classifier import OnnxTokenClassifier

    kinds = {"sequence": OnnxClassifier, "token": OnnxTokenClassifier}
    make: Callable[..., ClassificationModel] = kinds[kind_of(path)]
    return build(spec, make, **_text_options(path, resources))


def _torch_classifier(spec: ModelSpec, path: Path, resources: Resources) -> ClassificationModel:
    from models.encoders.classifier import TorchClassifier
    from models.encoders.classifier_kinds import kind_of
    from models.encoders.token_classifier import TorchTokenClassifier

    kinds = {"sequence": TorchClassifier, "token": TorchTokenClassifier}
    make: Callable[..., ClassificationModel] = kinds[kind_of(path)]
    return build(spec, make, **_text_options(path, resources), device=resources.torch_device())


def text_recognizer(spec: ModelSpec, config: AppConfig, resources: Resources) -> TextRecognizer:
    options: dict[str, Any] = {"n_threads": resources.n_threads, "on_batch": resources.on_batch}
    if spec.engine == "toy":
        from models.toy.ocr import ToyTextRecognizer

        return build(spec, ToyTextRecognizer, on_batch=resources.on_batch)
    if spec.engine == "tesseract":
        from models.ocr.tesseract import TesseractRecognizer

        return build(spec, TesseractRecognizer, **options)
    if spec.engine == "transformers":
        return _transformers_recognizer(spec, weights_of(spec, config), resources)
    from models.ocr.rapid import RapidOcrRecognizer

    return build(spec, RapidOcrRecognizer, **options)


def _transformers_recognizer(spec: ModelSpec, path: Path, resources: Resources) -> TextRecognizer:
    """PP-OCR's pair of networks, or else a vision encoder with a text decoder."""
    from models.ocr.paddle_torch import PaddleTorchRecognizer, is_paddle_folder
    from models.ocr.vision_decoder import vision_decoder_recognizer

    make: Callable[..., TextRecognizer] = (
        PaddleTorchRecognizer if is_paddle_folder(path) else vision_decoder_recognizer
    )
    return build(spec, make, **_text_options(path, resources), device=resources.torch_device())


def document_model(spec: ModelSpec, config: AppConfig, resources: Resources) -> DocumentModel:
    from models.document_models.families import document_model as make

    options: dict[str, Any] = {
        "n_threads": resources.n_threads,
        "device": resources.torch_device(),
    }
    return build(spec, make, path=weights_of(spec, config), **options)


def detectors(spec: ModelSpec, config: AppConfig, resources: Resources) -> AnomalyService:
    from models.anomaly.service import AnomalyService

    settings = config.anomaly
    return build(
        spec,
        AnomalyService,
        root=config.data_root("detectors"),
        n_threads=resources.n_threads,
        fit_memory_bytes=settings.fit_memory_bytes,
        fit_s=config.deadlines.fit_s,
        max_fits=settings.max_fits,
        keep_versions=settings.keep_versions,
        max_cached_bytes=settings.cache_bytes,
        cache_ttl_s=settings.cache_ttl_s,
    )
