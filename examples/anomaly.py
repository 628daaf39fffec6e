"""Fit a detector on readings of a pump, find the odd ones: python examples/anomaly.py [base URL]"""

from __future__ import annotations

import os
import sys

import httpx
import numpy as np

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
headers = {"authorization": f"Bearer {os.environ.get('INFERENCE_API_KEY', 'unused')}"}
client = httpx.Client(base_url=f"{base_url}/v1/anomaly", timeout=120, headers=headers)

random = np.random.default_rng(0)
normal = random.normal([20.0, 3.0], [0.5, 0.1], (500, 2)).round(2).tolist()
training = [
    {"temperature": t, "pressure": p, "mode": "eco" if i % 3 else "boost"}
    for i, (t, p) in enumerate(normal)
]
training[7]["temperature"] = None
fitted = client.post(
    "/fit",
    json={
        "model": "pump",
        "backend": "auto",
        "contamination": 0.01,
        "missing": "median",
        "schema": {"mode": "frequency"},
        "data": training,
    },
).raise_for_status()
print("auto chose", fitted.json()["backend"])

readings = [
    {"temperature": 20.1, "pressure": 3.05, "mode": "eco"},
    {"temperature": 27.5, "pressure": 1.2, "mode": "eco"},
    {"temperature": 20.0, "pressure": 3.0, "mode": "test"},
]
answer = client.post("/score", json={"model": "pump", "data": readings, "explain": 2})
for reading, row in zip(readings, answer.raise_for_status().json()["data"], strict=True):
    verdict = "ANOMALY" if row["is_anomaly"] else "normal"
    why = ", ".join(f"{part['feature']} {part['contribution']:+.2f}" for part in row["explanation"])
    print(*reading.values(), f"score {row['score']:.2f} {verdict}: {why}")
