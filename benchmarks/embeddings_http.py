"""Embeddings and reranking over HTTP: the whole server beside three peers, on the same weights.

    python benchmarks/embeddings_http.py [--rounds 3] [--seconds 3] [--threads 1]

The peers: infinity 0.0.77 with its torch engine, a FastAPI server around sentence-transformers, and
sentence-transformers called in a loop without HTTP (one text after the other, or the request's
list). Everybody computes with `--threads` threads (0: with as many as each likes) and is loaded in
turns. The reranker is the trunk of the embedding model under a random head, as speed does not
depend on what weights say. The load generator's own share of a core is noted: near 1 it would be
what is measured.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from harness import (
    ROOT,
    Goal,
    Report,
    counted,
    free_port,
    in_turns,
    load,
    parser,
    quick,
    report,
    serving,
)
from peers.infinity import infinity
from peers.processes import peer_server

from config.catalog import load_catalog
from config.paths import default_weights_dir
from weights.cache import WeightsCache
from weights.fetch import fetch

EMBEDDER, RERANKER = "all-minilm-l6-v2", "minilm-rerank"
WORDS = (
    *("the", "a", "river", "of", "energy", "city", "water", "people", "famous", "bank"),
    *("money", "museum", "light", "year", "capital"),
)
DOCUMENTS, BULK = 16, 64
WARM_S = 1.0
RATE, P50 = "items/s", "p50 ms"
OURS, INFINITY, NAIVE, LOOP = "ours", "infinity", "FastAPI", "loop"


@dataclass(frozen=True, slots=True)
class Case:
    """One kind of load; `items` are the texts or pairs of one request."""

    name: str
    path: str
    bodies: Sequence[Any]
    clients: int
    items: int = 1

    @property
    def goals(self) -> dict[tuple[str, str], Goal]:
        """Three times the best peer on mixed lengths, no slower than infinity for one client."""
        goals = {}
        if self.name.startswith("mixed") and self.clients > 1:
            goals = {(peer, RATE): Goal(3) for peer in (INFINITY, NAIVE, LOOP)}
        if self.clients == 1:
            goals[INFINITY, P50] = Goal(1, at_most=True)
        return goals


# --- loads ----------------------------------------------------------------------------------------


def _text(generator: random.Random, words: int) -> str:
    return " ".join(generator.choices(WORDS, k=words))


def _mixed(generator: random.Random) -> int:
    """5 to 250 tokens, log-uniform."""
    return int(math.exp(generator.uniform(math.log(5), math.log(250)))) - 2


def cases() -> list[Case]:
    generator = random.Random(0)
    lengths = {"short": lambda: 6, "passage": lambda: 118, "mixed": lambda: _mixed(generator)}
    texts = {name: [_text(generator, size()) for _ in range(256)] for name, size in lengths.items()}
    found = [
        Case(
            f"{name}, {counted(clients, 'client')}",
            "embeddings",
            [{"model": EMBEDDER, "input": text} for text in texts[name]],
            clients,
        )
        for name in (("short", "mixed") if quick() else texts)
        for clients in ((1, 32) if quick() else (1, 8, 64))
    ]
    bulk = [{"model": EMBEDDER, "input": generator.sample(texts["mixed"], BULK)} for _ in range(16)]
    found.append(Case(f"mixed, {BULK} texts a request, 2 clients", "embeddings", bulk, 2, BULK))
    questions = [
        {
            "model": RERANKER,
            "query": _text(generator, 6),
            "documents": generator.sample(texts["mixed"], DOCUMENTS),
        }
        for _ in range(64)
    ]
    for clients in (1, 8):
        name = f"rerank {DOCUMENTS} documents, {counted(clients, 'client')}"
        found.append(Case(name, "rerank", questions, clients, DOCUMENTS))
    return found


def over_http(base: str, case: Case, seconds: float) -> dict[str, float]:
    done = load(f"{base}/{case.path}", case.bodies, clients=case.clients, seconds=seconds)
    return {
        RATE: done.rate * case.items,
        P50: 1000 * done.quantile(0.5),
        "client's share of a core": done.client_share,
    }


# --- the library in a loop ------------------------------------------------------------------------


class Loop:
    """sentence-transformers in this process, a request's texts a call."""

    def __init__(self, embedder: Path, reranker: Path, threads: int) -> None:
        import torch
        from sentence_transformers import CrossEncoder, SentenceTransformer

        if threads:
            torch.set_num_threads(threads)
        self._encoder = SentenceTransformer(str(embedder), device="cpu")
        self._judge = CrossEncoder(str(reranker), device="cpu")

    def measure(self, case: Case, seconds: float) -> dict[str, float]:
        answer: Callable[[Any], object] = self._embed if case.path == "embeddings" else self._rank
        bodies, requests = cycle(case.bodies), 0
        begin = time.perf_counter()
        while time.perf_counter() < begin + seconds:
            answer(next(bodies))
            requests += 1
        return {RATE: requests * case.items / (time.perf_counter() - begin)}

    def _embed(self, body: Any) -> object:
        return self._encoder.encode(body["input"], show_progress_bar=False)

    def _rank(self, body: Any) -> object:
        pairs = [(body["query"], document) for document in body["documents"]]
        return self._judge.predict(pairs, show_progress_bar=False)


# --- the comparison -------------------------------------------------------------------------------


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


def settings(reranker: Path, threads: int) -> dict[str, Any]:
    """Of our server."""
    source = {"kind": "path", "path": str(reranker)}
    entry = {"id": RERANKER, "task": "rerank", "engine": "torch", "source": source}
    args: dict[str, Any] = {"models": [entry], "model_roots": [str(reranker)]}
    if threads:
        args |= {"embedding": {"threads": threads}, "rerank": {"threads": threads}}
    return args


@contextmanager
def naive(embedder: Path, reranker: Path, threads: int) -> Iterator[str]:
    port = free_port()
    script = ROOT / "benchmarks" / "peers" / "naive_server.py"
    environment = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    command = [sys.executable, script, str(port), embedder, reranker, str(threads)]
    with peer_server(command, port, environment) as server:
        yield server.url


def compare(found: Report, bases: dict[str, str], loop: Loop, rounds: int, seconds: float) -> None:
    for case in cases():
        for base in bases.values():
            over_http(base, case, WARM_S)
        loop.measure(case, WARM_S)
        sides = {name: partial(over_http, base, case, seconds) for name, base in bases.items()}
        sides[LOOP] = partial(loop.measure, case, seconds)
        measured = in_turns(sides, rounds, warm=False)
        shares = [measured.values[name].pop("client's share of a core") for name in bases]
        found.compare(case.name, measured, OURS, case.goals)
        found.note(f"{case.name}: client's largest share of a core", f"{max(map(max, shares)):.2f}")


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("--threads", type=int, default=1, help="of everybody; 0: its own choice")
    options = arguments.parse_args()
    found = report("Embeddings and reranking over HTTP")
    spec = load_catalog().find(EMBEDDER)
    embedder = fetch(spec, cache=WeightsCache(default_weights_dir())) if spec else None
    if embedder is None:
        raise SystemExit(f"{EMBEDDER} is not in the catalogue")
    with reranker_folder(embedder) as reranker, ExitStack() as stack:
        models = {EMBEDDER: embedder, RERANKER: reranker}
        ours = stack.enter_context(serving(settings(reranker, options.threads)))
        peer = stack.enter_context(infinity(models, options.threads))
        simple = stack.enter_context(naive(embedder, reranker, options.threads))
        bases = {OURS: f"{ours.url}/v1", INFINITY: peer.url, NAIVE: simple}
        loop = Loop(embedder, reranker, options.threads)
        compare(found, bases, loop, options.rounds, options.seconds)
    found.write()


if __name__ == "__main__":
    main()
