"""Fit a detector on readings of a pump, find the odd ones: python examples/anomaly.py [base URL]"""

from __future__ import annotations

import sys

import httpx
import numpy as np

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
client = httpx.Client(base_url=f"{base_url}/v1/anomaly", timeout=120)

random = np.random.default_rng(0)
normal = random.normal([20.0, 3.0], [0.5, 0.1], (500, 2))
fitted = client.post(
    "/fit",
    json={
        "model": "pump",
        "backend": "isolation_forest",
        "contamination": 0.01,
        "data": [{"temperature": t, "pressure": p} for t, p in normal.tolist()],
    },
).raise_for_status()
print("fitted version", fitted.json()["version"])

readings = [
    {"temperature": 20.1, "pressure": 3.05},
    {"temperature": 27.5, "pressure": 1.2},
]
scores = client.post("/score", json={"model": "pump", "data": readings}).raise_for_status()
for reading, row in zip(readings, scores.json()["data"], strict=True):
    print(reading, f"score {row['score']:.2f}", "ANOMALY" if row["is_anomaly"] else "normal")
