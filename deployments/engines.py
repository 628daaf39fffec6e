"""Engine name -> engine: how a catalogue entry and its weights become a loaded model.

One function per engine, which imports its library inside, so that a replica only ever imports what
its models need and a missing library is a typed load error.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from config.catalog import ModelSpec
from config.settings import AppConfig, TaskSettings
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
from models.errors import ModelLoadError
from weights.cache import open_cache
from weights.fetch import fetch
from weights.pip_download import Progress

if TYPE_CHECKING:
    from models.anomaly.service import AnomalyService

M = TypeVar("M", bound=Model)
ClassificationModel = Classifier | EntityRecognizer | ClassifierLibrary


@dataclass(frozen=True, slots=True)
class Resources:
    """What a replica may use for one model."""

    n_threads: int
    gpu: bool = False
    on_batch: BatchListener | None = None
    """Hears of every batch of text encoders."""

    @property
    def device(self) -> str:
        return "cuda" if self.gpu else "cpu"

    @property
    def gpu_layers(self) -> int:
        """llama.cpp's way to say the same: all layers, or none."""
        return -1 if self.gpu else 0


def threads_of(settings: TaskSettings, node_cpus: int) -> int:
    """The configured thread count, else half of the node's CPUs, at least one."""
    return settings.threads or max(1, node_cpus // 2)


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


def build(spec: ModelSpec, make: Callable[..., M], **options: Any) -> M:
    """Call an engine's constructor with the catalogue's `engine_options` on top.

    Raises ModelLoadError, also for options the engine does not know.
    """
    try:
        return make(**{**options, **spec.engine_options})
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
    if engine == "transformers":
        from models.transformers_lm.engine import TransformersGenerator

        return build(spec, TransformersGenerator, **options, device=resources.device)
    if files.format != "gguf":
        raise ModelLoadError(f"'{spec.id}' has safetensors: it needs the engine transformers.")
    from models.llama_cpp.engine import LlamaCppGenerator

    return build(spec, LlamaCppGenerator, **options, n_gpu_layers=resources.gpu_layers)


def _text_options(path: Path, resources: Resources) -> dict[str, Any]:
    """What the engines of encoders, rerankers and classifiers have in common."""
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

        return build(spec, LlamaCppEncoder, **options, n_gpu_layers=resources.gpu_layers)
    from models.encoders.encoder import TorchEncoder

    return build(spec, TorchEncoder, **options, device=resources.device)


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

        return build(spec, LlamaCppReranker, **options, n_gpu_layers=resources.gpu_layers)
    from models.encoders.cross_encoder import open_torch_reranker

    return build(spec, open_torch_reranker, **options, device=resources.device)


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
    return build(spec, make, **_text_options(path, resources), device=resources.device)


def text_recognizer(spec: ModelSpec, config: AppConfig, resources: Resources) -> TextRecognizer:
    if spec.engine == "toy":
        from models.toy.ocr import ToyTextRecognizer

        return build(spec, ToyTextRecognizer)
    if spec.engine == "tesseract":
        from models.ocr.tesseract import TesseractRecognizer

        return build(spec, TesseractRecognizer, n_threads=resources.n_threads)
    if spec.engine == "transformers":
        return _transformers_recognizer(spec, weights_of(spec, config), resources)
    from models.ocr.rapid import RapidOcrRecognizer

    return build(spec, RapidOcrRecognizer, n_threads=resources.n_threads)


def _transformers_recognizer(spec: ModelSpec, path: Path, resources: Resources) -> TextRecognizer:
    """PP-OCR's pair of networks, or else a vision encoder with a text decoder."""
    from models.ocr.paddle_torch import PaddleTorchRecognizer, is_paddle_folder
    from models.ocr.vision_decoder import vision_decoder_recognizer

    make: Callable[..., TextRecognizer] = (
        PaddleTorchRecognizer if is_paddle_folder(path) else vision_decoder_recognizer
    )
    return build(spec, make, path=path, n_threads=resources.n_threads, device=resources.device)


def document_model(spec: ModelSpec, config: AppConfig, resources: Resources) -> DocumentModel:
    from models.document_models.families import document_model as make

    options = {"n_threads": resources.n_threads, "device": resources.device}
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
