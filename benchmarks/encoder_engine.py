"""The packed encoder against sentence-transformers on the same texts, in process, one thread.

Every round runs all contenders in turn, so that other load on the machine meets all of them; the
table has medians as ratios. Run from the repository root: `python -m benchmarks.encoder_engine`.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from config.catalog import load_catalog
from config.paths import default_weights_dir
from models.encoders.cross_encoder import TorchReranker
from models.encoders.encoder import TorchEncoder
from models.types import EmbeddingRequest, RerankRequest
from weights.cache import WeightsCache
from weights.fetch import fetch

SENTENCE = (
    "berlin has many people who live near the river and a museum with paintings from the capital "
    "of france where energy prices for solar and wind are paid by banks in loans"
)
WORDS = SENTENCE.split()
WORKLOADS = {"short": (6, 6), "passage": (90, 90), "mixed": (4, 180)}
BATCH = 64
BULK = 2048

Contender = Callable[[], Any]


def texts_of(shortest: int, longest: int, count: int = BATCH) -> list[str]:
    """Random words, their number log-uniform between the bounds."""
    generator = random.Random(0)
    counts = [round(shortest * (longest / shortest) ** generator.random()) for _ in range(count)]
    return [" ".join(generator.choices(WORDS, k=n)) for n in counts]


def medians(contenders: dict[str, Contender], rounds: int) -> dict[str, float]:
    """Seconds per contender, all of them in turn in every round; the first round only warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, run in contenders.items():
            started = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def report(title: str, contenders: dict[str, Contender], rounds: int) -> None:
    """One line: how many times faster than the first contender each of the others is."""
    times = medians(contenders, rounds)
    base, *others = times
    ratios = ", ".join(f"{name} {times[base] / times[name]:.2f}x" for name in others)
    print(f"{title:<16} {base} 1.00x, {ratios}")


def embed(encoder: TorchEncoder, texts: Sequence[str]) -> Contender:
    request = EmbeddingRequest(tuple(texts), truncate=True)
    return lambda: encoder.submit([request]).result()


def embed_apart(encoder: TorchEncoder, texts: Sequence[str]) -> Contender:
    requests = [EmbeddingRequest((text,), truncate=True) for text in texts]

    def run() -> None:
        for future in [encoder.submit([request]) for request in requests]:
            future.result()

    return run


def compare_embeddings(folder: Path, rounds: int) -> None:
    reference = SentenceTransformer(str(folder), device="cpu")
    packed = {
        dtype: TorchEncoder(folder, n_threads=1, dtype=dtype) for dtype in ("float32", "bfloat16")
    }
    for name, bounds in WORKLOADS.items():
        texts = texts_of(*bounds)
        contenders: dict[str, Contender] = {
            "sentence-transformers": lambda texts=texts: reference.encode(texts, batch_size=BATCH)
        }
        contenders |= {f"packed {dtype}": embed(e, texts) for dtype, e in packed.items()}
        contenders["64 submits"] = embed_apart(packed["bfloat16"], texts)
        report(f"embed {name}", contenders, rounds)
    compare_waiting(packed["bfloat16"], rounds)
    for encoder in packed.values():
        encoder.close()


def compare_waiting(encoder: TorchEncoder, rounds: int) -> None:
    """A short query while a job of 2,048 texts runs, as a share of the job alone."""
    query, bulk = embed(encoder, ["a short query"]), embed(encoder, texts_of(4, 40, BULK))
    job = medians({"bulk": bulk}, 1)["bulk"]
    running = encoder.submit([EmbeddingRequest(tuple(texts_of(4, 40, BULK)))])
    time.sleep(job / 10)
    waited = medians({"query": query}, rounds)["query"]
    assert not running.done(), "the job ended too early"
    running.result()
    idle = medians({"query": query}, rounds)["query"]
    print(f"{'query in bulk':<16} {waited / job:.3f} of the job's time (idle {idle / job:.4f})")


def compare_reranking(folder: Path, rounds: int) -> None:
    """The trunk of the bi-encoder under a random head: speed does not depend on the weights."""
    with tempfile.TemporaryDirectory() as written:
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
        model.save_pretrained(written)
        AutoTokenizer.from_pretrained(folder).save_pretrained(written)
        reference = CrossEncoder(written, device="cpu")
        reranker = TorchReranker(Path(written), n_threads=1)
    for name, bounds in WORKLOADS.items():
        documents = texts_of(*bounds)
        pairs = [("what is the capital?", document) for document in documents]
        request = RerankRequest("what is the capital?", tuple(documents))
        contenders: dict[str, Contender] = {
            "sentence-transformers": lambda pairs=pairs: reference.predict(pairs, batch_size=BATCH),
            "packed": lambda request=request: reranker.submit([request]).result(),
        }
        report(f"rerank {name}", contenders, rounds)
    reranker.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="all-minilm-l6-v2", help="id of a torch embedding model")
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = load_catalog().find(options.model)
    folder = fetch(spec, cache=WeightsCache(default_weights_dir())) if spec else None
    if folder is None:
        raise SystemExit("no such model")
    compare_embeddings(folder, options.rounds)
    compare_reranking(folder, options.rounds)


if __name__ == "__main__":
    main()
