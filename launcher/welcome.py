"""What is printed once the server answers: where, what, and one command per task."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

EXAMPLES: dict[str, tuple[str, dict[str, Any]]] = {
    "generation": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Name three colours."}]},
    ),
    "embedding": ("/v1/embeddings", {"input": "The quick brown fox"}),
    "rerank": (
        "/v1/rerank",
        {"query": "capital of France", "documents": ["Berlin", "Paris is the capital."]},
    ),
    "classification": (
        "/v1/classifier/fit",
        {
            "model": "demo",
            "training_data": [
                {"text": "Great, I love it", "label": "good"},
                {"text": "Broken and useless", "label": "bad"},
            ],
        },
    ),
    "anomaly": (
        "/v1/anomaly/fit",
        {"model": "demo", "data": [[1.0], [1.1], [0.9], [1.2], [0.8], [1.0], [9.0], [1.1]]},
    ),
}
JSON = "-H 'content-type: application/json' -d"
OCR = (
    """base64 <page.png | tr -d '\\n' | sed 's|.*|{{"model": "{model}", "images": ["&"]}}|' """
    """| curl {url}/v1/ocr {json} @-"""
)  # piped, because a command's argument may not be as long as an image
WITH_KEY = "  curl {url}/v1/models -H 'authorization: Bearer KEY'"


def welcome(url: str, models: Sequence[dict[str, Any]], started_s: float) -> str:
    """The text for these entries of GET /v1/models; none: only a key may ask for them."""
    ready = f"\nReady after {started_s:.1f} s: {url}  (API page: {url}/docs)\n"
    closed = ["Clients need a key. Try:", WITH_KEY.format(url=url)]
    return "\n".join([ready, *(served(url, models) if models else closed), "", "Ctrl-C ends it."])


def served(url: str, models: Sequence[dict[str, Any]]) -> list[str]:
    """The models, and a command for each task."""
    lines = ["Served:", *(f"  {model['task']:<15} {model['id']}" for model in models), "", "Try:"]
    first: dict[str, str] = {}
    for model in models:
        first.setdefault(model["task"], model["id"])
    return [*lines, *(f"  {example(url, task, model)}" for task, model in first.items())]


def example(url: str, task: str, model: str) -> str:
    """A command that asks this model for what its task is."""
    if task == "ocr":
        return OCR.format(url=url, model=model, json=JSON)
    path, body = EXAMPLES[task]
    data = json.dumps({"model": model, **body})
    return f"curl {url}{path} {JSON} '{data}'"
