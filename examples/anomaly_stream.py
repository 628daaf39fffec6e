"""Judge readings one by one as they come: python examples/anomaly_stream.py [base URL]"""

from __future__ import annotations

import os
import sys

import httpx
import numpy as np

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
headers = {"authorization": f"Bearer {os.environ.get('INFERENCE_API_KEY', 'unused')}"}
client = httpx.Client(base_url=f"{base_url}/v1/anomaly", timeout=120, headers=headers)
settings = {
    "model": "pump-example",
    "min_samples": 100,
    "contamination": 0.01,
    "rolling_windows": [5],
}

random = np.random.default_rng(0)
usual = [{"pressure": p} for p in random.normal(3.0, 0.1, 120).tolist()]
reply = client.post("/stream", json={**settings, "data": usual}).raise_for_status().json()
print(reply["status"], "after", reply["samples_collected"], "points")

for reading in ({"pressure": 3.05}, {"pressure": 4.2}):
    reply = client.post("/stream", json={**settings, "data": reading}).raise_for_status().json()
    [point] = reply["results"]
    print(reading, f"score {point['score']:.2f}", "ANOMALY" if point["is_anomaly"] else "normal")

day = 3 + np.sin(2 * np.pi * np.arange(120) / 24)
day[100] += 1.5
series = client.post("/timeseries", json={"series": day.tolist()}).raise_for_status().json()
odd = [point for point in series["data"] if point["is_anomaly"]]
print("period", series["period"], "odd hours", [(p["index"], round(p["expected"], 2)) for p in odd])
client.delete("/stream/pump-example").raise_for_status()
