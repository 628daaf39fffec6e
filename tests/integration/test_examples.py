"""Every example runs as it is written, and says what it is meant to say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, RunningServer

EXPECTED = {
    "chat": "sea",
    "embeddings": "Interest rates",
    "binary_embeddings": "Interest rates",
    "rerank": "giant panda",
    "classification": "negative",
    "model_lifecycle": "all-minilm-l6-v2: loaded",
    "ocr": "Invoice 2041",
    "documents": "# Invoice 2041",
    "anomaly": "ANOMALY",
    "anomaly_stream": "ANOMALY",
    "structured_output": "of 5, recommended: ",
    "tools": "get_temperature: ",
}


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_example(path: Path, server: RunningServer) -> None:
    run = subprocess.run(
        [sys.executable, str(path), server.url], capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 0, run.stderr
    first_lines = "\n".join(run.stdout.splitlines()[:3])
    assert EXPECTED[path.stem] in first_lines
