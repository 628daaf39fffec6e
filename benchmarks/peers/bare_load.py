"""One model in a plain Python process: import its engine, load it, answer one request, say so.

    python bare_load.py TASK

The loaders and engines are the server's; what is left out is Ray, HTTP and everything between.
"""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable

from config.catalog import ModelSpec, Task
from config.settings import AppConfig
from deployments.engines import (
    Resources,
    classifier,
    detectors,
    encoder,
    generator,
    reranker,
    text_recognizer,
)
from models.types.generation import GenerationRequest, SamplingParams, TextPrompt
from models.types.pages import OcrRequest
from models.types.texts import EmbeddingRequest, RerankRequest

CONFIG, RESOURCES = AppConfig(), Resources(n_threads=1)


def spec(task: Task) -> ModelSpec:
    """The task's first model."""
    return CONFIG.load_catalog().of_task(task)[0]


def generate() -> None:
    done = threading.Event()
    engine = generator(spec("generation"), CONFIG, RESOURCES, lambda _: done.set())
    engine.add("one", GenerationRequest(TextPrompt("Hello"), SamplingParams(max_tokens=1)))
    done.wait()


def embed() -> None:
    encoder(spec("embedding"), CONFIG, RESOURCES).submit([EmbeddingRequest(("hello",))]).result()


def rerank() -> None:
    model = reranker(spec("rerank"), CONFIG, RESOURCES)
    model.submit([RerankRequest("hello", ("world",))]).result()


def classify() -> None:
    classifier(spec("classification"), CONFIG, RESOURCES)


def read() -> None:
    from PIL import Image, ImageDraw

    picture, file = Image.new("RGB", (200, 60), "white"), io.BytesIO()
    ImageDraw.Draw(picture).text((20, 20), "hello", fill="black")
    picture.save(file, "PNG")
    text_recognizer(spec("ocr"), CONFIG, RESOURCES).submit(
        [OcrRequest((file.getvalue(),))]
    ).result()


def detect() -> None:
    detectors(spec("anomaly"), CONFIG, RESOURCES).backends()


ANSWERS: dict[Task, Callable[[], None]] = {
    "generation": generate,
    "embedding": embed,
    "rerank": rerank,
    "classification": classify,
    "ocr": read,
    "anomaly": detect,
}


if __name__ == "__main__":
    ANSWERS[sys.argv[1]]()  # type: ignore[index]
    print("answered", flush=True)
