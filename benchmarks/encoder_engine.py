"""The packed encoder against sentence-transformers on the same texts, in process, one thread.

python benchmarks/encoder_engine.py [--rounds 3] [--model ID]
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from harness import Goal, Measure, Report, Rounds, in_turns, parser, report
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from config.catalog import load_catalog
from config.paths import default_weights_dir
from models.encoders.cross_encoder import TorchReranker
from models.encoders.encoder import TorchEncoder
from models.types.texts import EmbeddingRequest, RerankRequest
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
RATE, PEER = "items/s", "sentence-transformers"


def texts_of(shortest: int, longest: int, count: int = BATCH) -> list[str]:
    """Random words, their number log-uniform between the bounds."""
    generator = random.Random(0)
    counts = [round(shortest * (longest / shortest) ** generator.random()) for _ in range(count)]
    return [" ".join(generator.choices(WORDS, k=n)) for n in counts]


def timed(run: Contender, items: int = BATCH) -> Measure:
    """Items per second of one call."""

    def measure() -> dict[str, float]:
        started = time.perf_counter()
        run()
        return {RATE: items / (time.perf_counter() - started)}

    return measure


def embed(encoder: TorchEncoder, texts: Sequence[str]) -> Contender:
    request = EmbeddingRequest(tuple(texts), truncate=True)
    return lambda: encoder.submit([request]).result()


def embed_apart(encoder: TorchEncoder, texts: Sequence[str]) -> Contender:
    requests = [EmbeddingRequest((text,), truncate=True) for text in texts]

    def run() -> None:
        for future in [encoder.submit([request]) for request in requests]:
            future.result()

    return run


def compare_embeddings(found: Report, folder: Path, rounds: int) -> None:
    reference = SentenceTransformer(str(folder), device="cpu")
    for dtype in ("float32", "bfloat16"):
        packed = TorchEncoder(folder, n_threads=1, dtype=dtype)
        for name, bounds in WORKLOADS.items():
            texts = texts_of(*bounds)
            together, apart = embed(packed, texts), embed_apart(packed, texts)
            theirs = timed(lambda texts=texts: reference.encode(texts, batch_size=BATCH))
            for form, run in (("", together), (", 64 submissions", apart)):
                measured = in_turns({"packed": timed(run), PEER: theirs}, rounds)
                found.compare(f"embed {name}, {dtype}{form}", measured, "packed")
        if dtype == "bfloat16":
            compare_waiting(found, packed, rounds)
        packed.close()


def compare_waiting(found: Report, encoder: TorchEncoder, rounds: int) -> None:
    """A short query beside a job of 2,048 texts, and without it."""
    query = embed(encoder, ["a short query"])
    measured = Rounds()
    for _ in range(rounds):
        with measured.turn():
            running = encoder.submit([EmbeddingRequest(tuple(texts_of(4, 40, BULK)))])
            begin = time.perf_counter()
            query()
            waited = time.perf_counter() - begin
            running.result()
            job = time.perf_counter() - begin
        measured.add("query", {"seconds": waited})
        measured.add("the job", {"seconds": job})
    goal = {("the job", "seconds"): Goal(0.1, at_most=True)}
    found.compare("a query beside a job of 2,048 texts", measured, "query", goal)


def compare_reranking(found: Report, folder: Path, rounds: int) -> None:
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
        sides = {
            "packed": timed(lambda request=request: reranker.submit([request]).result()),
            "CrossEncoder": timed(lambda pairs=pairs: reference.predict(pairs, batch_size=BATCH)),
        }
        found.compare(f"rerank {name}", in_turns(sides, rounds), "packed")
    reranker.close()


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--model", default="all-minilm-l6-v2", help="a torch embedding model")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    found = report("Packed encoders to sentence-transformers")
    spec = load_catalog().find(options.model)
    folder = fetch(spec, cache=WeightsCache(default_weights_dir())) if spec else None
    if folder is None:
        raise SystemExit("no such model")
    compare_embeddings(found, folder, options.rounds)
    compare_reranking(found, folder, options.rounds)
    found.write()


if __name__ == "__main__":
    main()
