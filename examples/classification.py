"""Fit a classifier on a few examples, then ask it: python examples/classification.py [base URL]"""

from __future__ import annotations

import os
import sys

import httpx

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
headers = {"authorization": f"Bearer {os.environ.get('INFERENCE_API_KEY', 'unused')}"}
client = httpx.Client(base_url=f"{base_url}/v1", timeout=300, headers=headers)

examples = {
    "positive": ["I love this phone.", "Great service!", "The film was a joy.", "Works perfectly."],
    "negative": ["I hate this phone.", "Awful service!", "The film was a bore.", "It is broken."],
}
training_data = [
    {"text": text, "label": label} for label, texts in examples.items() for text in texts
]
client.post(
    "/classifier/fit", json={"model": "mood", "training_data": training_data}
).raise_for_status()

texts = ["A dreadful hotel, never again.", "What a wonderful garden!"]
predicted = client.post("/classifier/predict", json={"model": "mood", "texts": texts})
for row in predicted.raise_for_status().json()["data"]:
    print(f"{row['label']}  {row['score']:.2f}  {row['text']}")

# Without any example: the labels' own words.
body = {"model": "all-minilm-l6-v2", "input": texts, "labels": ["a hotel", "a garden"]}
for row in client.post("/classify", json=body).raise_for_status().json()["data"]:
    print(f"{row['prediction']}  {row['score']:.2f}  {texts[row['index']]}")
