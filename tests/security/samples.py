"""An ordinary request of every route that takes JSON: what the hostile ones are made from.

A route without one fails test_requests.py, so that a new one is attacked too.
"""

from __future__ import annotations

import base64
from typing import Any

from PIL import Image

from tests.rendered_pages import encoded

DETECTOR = "sample"
ROWS = [[float(i % 7), float(i % 5)] for i in range(40)]
IMAGE = base64.b64encode(encoded(Image.new("L", (20, 10), 0))).decode()
DATA_URI = f"data:image/png;base64,{IMAGE}"
MESSAGES = [{"role": "user", "content": "hi"}]
PAIR = {"query": "sea", "documents": ["the sea", "a lake"]}
POINTS = [
    {"timestamp": f"2026-01-{day:02}T00:00:00Z", "value": float(day % 3)} for day in range(1, 29)
]
EXAMPLES = [{"text": f"{word} {i}", "label": word} for word in ("good", "bad") for i in range(3)]

TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "d",
        "parameters": {"type": "object", "properties": {"word": {"type": "string"}}},
        "strict": False,
    },
}
CHAT: dict[str, Any] = {
    "model": "chat-model",
    "messages": [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "n"},
    ],
    "max_tokens": 4,
    "temperature": 0,
    "tools": [TOOL],
    "tool_choice": "none",
    "logit_bias": {"5": 1},
    "stop": ["zzz"],
    "metadata": {"a": "b"},
    "chat_template_kwargs": {"a": 1},
    "stream_options": {"include_usage": True},
}
QUESTIONS = [
    {"type": "predicate", "name": "angry", "instructions": "Is angry."},
    {"type": "choice", "instructions": "About", "choices": [{"value": "a"}, {"value": "b"}]},
    {"type": "score", "instructions": "Is", "levels": [{"label": "low"}, {"label": "high"}]},
]
OCR: dict[str, Any] = {
    "model": "ocr-model",
    "document": {"type": "image_url", "image_url": {"url": DATA_URI}},
    "pages": [0],
}
SERIES = {"series": POINTS, "granularity": "daily"}
TEXTS = {"inputs": ["a text", "another"], "model": "embedding-model"}

SAMPLES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {
        "model": "chat-model", "prompt": "x", "max_tokens": 2, "stop": "zz", "logit_bias": {"5": 1},
    },
    "/tokenize": {"model": "chat-model", "prompt": "x"},
    "/v1/tokenize": {"model": "chat-model", "messages": MESSAGES},
    "/detokenize": {"model": "chat-model", "tokens": [5, 6]},
    "/v1/detokenize": {"model": "chat-model", "tokens": [5, 6]},
    "/apply-template": {"model": "chat-model", "messages": MESSAGES, "tools": [TOOL]},
    "/v1/apply-template": {"model": "chat-model", "messages": MESSAGES},
    "/v1/embeddings": {"model": "embedding-model", "input": ["a text"]},
    "/embeddings": {"model": "embedding-model", "input": "a text"},
    "/v1/embed": {"model": "embedding-model", "texts": ["a"], "input_type": "query"},
    "/v2/embed": {
        "model": "embedding-model", "input_type": "query", "embedding_types": ["float"],
        "inputs": [{"content": [{"type": "text", "text": "x"}]}],
    },
    "/embed": TEXTS,
    "/embed_all": TEXTS,
    "/embed_sparse": {"inputs": "x", "model": "sparse-model"},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b"]}},
    "/decode": {"ids": [[5, 6]]},
    "/v1/rerank": {"model": "rerank-model", **PAIR, "top_n": 1},
    "/v2/rerank": {"model": "rerank-model", **PAIR},
    "/rerank": {"query": "sea", "texts": ["the sea"]},
    "/score": {"model": "rerank-model", "text_1": "a", "text_2": ["b", "c"]},
    "/v1/score": {"model": "rerank-model", "queries": "a", "documents": ["b", "c"]},
    "/v1/classify": {"model": "entailment-model", "texts": ["x"], "labels": ["a", "b"]},
    "/classify": {"model": "classifier-model", "input": ["x"]},
    "/predict": {"model": "classifier-model", "inputs": [["x", "y"]]},
    "/v1/ner": {"model": "entity-model", "texts": ["Ann in Rome"]},
    "/v1/classifier/fit": {"model": DETECTOR, "training_data": EXAMPLES},
    "/v1/classifier/predict": {"model": DETECTOR, "texts": ["good one"]},
    "/v1/classifier/load": {"model": DETECTOR},
    "/v1/classifier/save": {"model": DETECTOR},
    "/v1/moderations": {"model": "moderator", "input": "x"},
    "/v1/decisions": {"model": "entailment-model", "input": MESSAGES, "questions": QUESTIONS},
    "/v1/models/load": {"model": "chat-model"},
    "/v1/models/unload": {"model": "chat-model"},
    "/v1/models/pin": {"model": "chat-model"},
    "/v1/models/unpin": {"model": "chat-model"},
    "/v1/models/download": {"model": "chat-model"},
    "/models/load": {"model": "chat-model"},
    "/models/unload": {"model": "chat-model"},
    "/v1/ocr": OCR,
    "/v1/vision/ocr": {"model": "ocr-model", "images": [IMAGE], "return_boxes": True},
    "/ocr": OCR,
    "/process": OCR,
    "/v1/documents/extract": {
        "document": OCR["document"], "model": "chat-model", "max_tokens": 600, "task": "vqa",
        "prompts": ["What is it?"],
    },
    "/v1/anomaly/fit": {"model": "again", "backend": "zscore", "data": ROWS, "parameters": {}},
    "/v1/anomaly/score": {"model": DETECTOR, "data": [[1.0, 2.0]]},
    "/v1/anomaly/detect": {"model": DETECTOR, "data": [[1.0, 2.0]]},
    "/v1/anomaly/save": {"model": DETECTOR},
    "/v1/anomaly/load": {"model": DETECTOR},
    "/v1/anomaly/models/{name}/rename": {"name": "renamed"},
    "/v1/anomaly/models/{name}/threshold": {"contamination": 0.1},
    "/v1/anomaly/models/{name}/alias": {"alias": "other-name"},
    "/v1/anomaly/stream": {"model": "stream", "data": {"a": 1.0, "b": 2.0}, "min_samples": 10},
    "/v1/anomaly/timeseries": {"series": [float(i % 5) for i in range(40)]},
    "/anomalydetector/v1.1/timeseries/entire/detect": SERIES,
    "/anomalydetector/v1.1/timeseries/last/detect": SERIES,
    "/anomalydetector/v1.1/timeseries/changepoint/detect": SERIES,
}  # fmt: skip
