"""Load a model with its progress, keep it, let it go: model_lifecycle.py [base URL]"""

from __future__ import annotations

import json
import os
import sys

import httpx

base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
headers = {"authorization": f"Bearer {os.environ.get('INFERENCE_API_KEY', 'unused')}"}
MODEL = "all-minilm-l6-v2"

with httpx.Client(base_url=base_url, timeout=300, headers=headers) as client:

    def show() -> None:
        entry = client.get(f"/v1/models/{MODEL}").raise_for_status().json()
        seconds = entry["expires_in_s"]  # null: it is pinned, in use, or not there
        leaves = "" if seconds is None else f", leaves in {seconds:.0f} s"
        memory = f"{entry['memory_bytes'] >> 20} MiB"
        print(f"{entry['state']}, {memory}, pinned: {entry['pinned']}{leaves}")

    # Downloads the weights where need be; an event every half second.
    body = {"model": MODEL, "stream": True}
    shown = ""
    with client.stream("POST", "/v1/models/load", json=body) as events:
        for line in events.iter_lines():
            if line.startswith("data: {"):
                step = json.loads(line.removeprefix("data: "))
                text = f"{step['model']}: {step['state']} {step['percent'] or ''}"
                if text != shown:
                    print(text)
                shown = text

    # Every route that names a model takes keep_alive: here it stays for ten idle minutes.
    request = {"model": MODEL, "input": "The sea is calm.", "keep_alive": "10m"}
    client.post("/v1/embeddings", json=request).raise_for_status()
    show()

    client.post("/v1/models/pin", json={"model": MODEL}).raise_for_status()
    show()
    client.post("/v1/models/unload", json={"model": MODEL}).raise_for_status()
    show()
