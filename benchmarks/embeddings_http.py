"""Embeddings and reranking over HTTP: the whole server beside infinity, on the same weights.

    python benchmarks/embeddings_http.py [--rounds 5] [--seconds 5] [--quick] [--peer-threads 1]

The peer is infinity-emb 0.0.77 with its torch engine, in an environment of its own under build/,
which the first run makes (about 1.5 GB). Both servers run with their own defaults and are loaded in
turns; the reranker is the trunk of the embedding model under a random head, as speed does not
depend on what weights say. `client` is the share of a core that the load generator took: near 1 it
would be the load generator that is measured.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import ROOT, Load, free_port, load, ratio, serving, spread

sys.path.insert(0, str(ROOT))
from config.catalog import load_catalog
from config.paths import default_weights_dir
from weights.cache import WeightsCache
from weights.fetch import fetch

PEER = ROOT / "build" / "infinity"
PINS = (
    "infinity-emb[server,torch]==0.0.77",
    "torch==2.13.0",
    "transformers==4.48.3",  # optimum 1.24 has BetterTransformer, which infinity imports
    "optimum==1.24.0",
    "sentence-transformers==3.4.1",
    "numpy<2",
    "click==8.1.8",  # newer ones do not fit its typer
)
EMBEDDER, RERANKER = "all-minilm-l6-v2", "minilm-rerank"
WORDS = (
    *("the", "a", "river", "of", "energy", "city", "water", "people", "famous", "bank"),
    *("money", "museum", "light", "year", "capital"),
)
DOCUMENTS = 16
START_S = 180


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table; `items` are the texts or pairs of one request."""

    name: str
    path: str
    bodies: Sequence[Any]
    clients: int
    items: int = 1


def _text(generator: random.Random, words: int) -> str:
    return " ".join(generator.choices(WORDS, k=words))


def _mixed(generator: random.Random) -> int:
    """5 to 250 tokens, log-uniform."""
    return int(math.exp(generator.uniform(math.log(5), math.log(250)))) - 2


def cases(quick: bool) -> list[Case]:
    generator = random.Random(0)
    lengths = {"short": lambda: 6, "passage": lambda: 118, "mixed": lambda: _mixed(generator)}
    texts = {name: [_text(generator, size()) for _ in range(256)] for name, size in lengths.items()}
    found = [
        Case(
            f"{name}, {clients} clients",
            "embeddings",
            [{"model": EMBEDDER, "input": text} for text in texts[name]],
            clients,
        )
        for name in texts
        for clients in ((1, 32) if quick else (1, 8, 32, 64))
    ]
    bulk = [{"model": EMBEDDER, "input": generator.sample(texts["mixed"], 64)} for _ in range(16)]
    found.append(Case("mixed, 64 texts a request, 2 clients", "embeddings", bulk, 2, 64))
    questions = [
        {
            "model": RERANKER,
            "query": _text(generator, 6),
            "documents": generator.sample(texts["mixed"], DOCUMENTS),
        }
        for _ in range(64)
    ]
    for clients in (1, 8):
        name = f"rerank {DOCUMENTS} documents, {clients} clients"
        found.append(Case(name, "rerank", questions, clients, DOCUMENTS))
    return found


@contextmanager
def reranker_folder(embedder: Path) -> Iterator[Path]:
    """The embedding model's trunk under a random head with one label."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        model = AutoModelForSequenceClassification.from_pretrained(embedder, num_labels=1)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(embedder).save_pretrained(folder)
        yield Path(folder)


@contextmanager
def infinity(models: dict[str, Path], threads: int) -> Iterator[str]:
    """A running infinity; yields the address of its routes. `threads` 0: as many as it likes."""
    if not (PEER / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", PEER], check=True)
        subprocess.run([PEER / "bin/python", "-m", "pip", "install", "-q", *PINS], check=True)
        (PEER / "installed").touch()
    port = free_port()
    options = ["--engine", "torch", "--device", "cpu", "--no-bettertransformer", "--url-prefix", ""]
    for name, path in models.items():
        options += ["--model-id", str(path), "--served-model-name", name, "--no-model-warmup"]
    options += ["--port", str(port), "--log-level", "error"]
    quiet = os.environ | {"DO_NOT_TRACK": "1", "INFINITY_ANONYMOUS_USAGE_STATS": "0"}
    if threads:
        quiet |= {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.Popen(
        [PEER / "bin/infinity_emb", "v2", *options],
        env=quiet,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _await(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    import urllib.error
    import urllib.request

    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  # a fixed http address
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.2)
    raise RuntimeError("infinity does not answer")


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one side in one round: items per second, median latency in ms, client's CPU share."""

    rate: float
    p50: float
    client: float


def measure(base: str, case: Case, seconds: float) -> Figures:
    cpu, begin = time.process_time(), time.perf_counter()
    done: Load = load(f"{base}/{case.path}", case.bodies, clients=case.clients, seconds=seconds)
    share = (time.process_time() - cpu) / (time.perf_counter() - begin)
    return Figures(done.rate * case.items, 1000 * done.quantile(0.5), share)


def report(case: Case, ours: Sequence[Figures], peers: Sequence[Figures]) -> str:
    rates = [[figures.rate for figures in side] for side in (ours, peers)]
    p50s = [[figures.p50 for figures in side] for side in (ours, peers)]
    client = max(figures.client for figures in (*ours, *peers))
    return (
        f"| {case.name} | {spread(rates[0])} | {spread(rates[1])} | {ratio(*rates):.2f} "
        f"| {statistics.median(p50s[0]):.3g} | {statistics.median(p50s[1]):.3g} "
        f"| {ratio(*p50s):.2f} | {client:.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--quick", action="store_true", help="few cases, two rounds of 3 s")
    parser.add_argument(
        "--peer-threads", type=int, default=0, help="OpenMP threads of the peer; by default its own"
    )
    options = parser.parse_args()
    rounds, seconds = (2, 3.0) if options.quick else (options.rounds, options.seconds)
    spec = load_catalog().find(EMBEDDER)
    embedder = fetch(spec, cache=WeightsCache(default_weights_dir())) if spec else None
    assert embedder is not None
    with reranker_folder(embedder) as folder:
        entry = {
            "id": RERANKER,
            "task": "rerank",
            "engine": "torch",
            "source": {"kind": "path", "path": str(folder)},
        }
        args = {"models": [entry], "model_roots": [str(folder)]}
        models = {EMBEDDER: embedder, RERANKER: folder}
        with serving(args) as server, infinity(models, options.peer_threads) as peer:
            sides = (f"{server.url}/v1", peer)
            print(
                "| load | ours, items/s | infinity | ratio | p50 ms | infinity | ratio | client |"
            )
            print("|---|---|---|---|---|---|---|---|")
            for case in cases(options.quick):
                for side in sides:
                    measure(side, case, 1.0)
                found = [[measure(side, case, seconds) for side in sides] for _ in range(rounds)]
                print(report(case, *zip(*found, strict=True)), flush=True)


if __name__ == "__main__":
    main()
