"""infinity-emb with its torch engine, in an environment of its own below build/ (about 1.5 GB)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from harness.server import ROOT, Server, free_port
from peers.processes import peer_server

FOLDER = ROOT / "build" / "infinity"
PINS = (
    "infinity-emb[server,torch]==0.0.77",
    "torch==2.13.0",
    "transformers==4.48.3",  # optimum 1.24 has BetterTransformer, which infinity imports
    "optimum==1.24.0",
    "sentence-transformers==3.4.1",
    "numpy<2",
    "click==8.1.8",  # newer ones do not fit its typer
)


@contextmanager
def infinity(models: Mapping[str, Path], threads: int) -> Iterator[Server]:
    """A running infinity whose routes lie at the root; `threads` 0: as many as it likes."""
    if not (FOLDER / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER], check=True)
        subprocess.run([FOLDER / "bin/python", "-m", "pip", "install", "-q", *PINS], check=True)
        (FOLDER / "installed").touch()
    port = free_port()
    options = ["--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--url-prefix", ""]
    for name, path in models.items():
        options += ["--model-id", str(path), "--served-model-name", name, "--no-model-warmup"]
    options += ["--port", str(port), "--log-level", "error"]
    environment = {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    command = [FOLDER / "bin/infinity_emb", "v2", *options]
    with peer_server(command, port, environment) as server:
        yield server
