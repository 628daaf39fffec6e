"""What a saturating load of embeddings does to a running chat, and the chat to the embeddings.

    python benchmarks/storm.py [--rounds 3] [--seconds 8] [--clients 32] [--args '{"rerank": {}}']

One client reads chat streams and times the gaps between their chunks: alone, then while 32 clients
keep the embedding task busy from a process of their own. `--args` replaces some of the
application's settings, as `{"embedding": {"niceness": 0}}`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import aiohttp
from harness import Goal, counted, in_turns, load, parser, report, serving

CHAT, EMBEDDER = "smollm2-135m-instruct", "all-minilm-l6-v2"
WORDS = ("the", "a", "river", "of", "energy", "city", "water", "people", "famous", "bank")
STREAM_TOKENS = 160
SETTLE_S = 1.0
ALONE, TOGETHER = "alone", "both at once"
P50, P99, EMBEDDINGS = "chat gap p50 ms", "chat gap p99 ms", "embeddings/s"
GOALS = {(ALONE, P99): Goal(2.0, at_most=True)}


def texts() -> list[dict[str, str]]:
    """Bodies of 4 to 100 words."""
    generator = random.Random(0)
    sizes = [generator.randint(4, 100) for _ in range(256)]
    return [
        {"model": EMBEDDER, "input": " ".join(generator.choices(WORDS, k=size))} for size in sizes
    ]


def storm(url: str, clients: int, seconds: float, edge_s: float = 0) -> float:
    """Embeddings per second; the load goes on for `edge_s` before and after what is counted."""
    route = f"{url}/v1/embeddings"
    return load(route, texts(), clients=clients, seconds=seconds, edge_s=edge_s).rate


def chat_gaps(url: str, seconds: float) -> list[float]:
    """Seconds between the chunks of streams that follow each other for so long."""
    return asyncio.run(_chat_gaps(f"{url}/v1/chat/completions", seconds))


async def _chat_gaps(url: str, seconds: float) -> list[float]:
    gaps: list[float] = []
    end = time.perf_counter() + seconds
    async with aiohttp.ClientSession() as session:
        while time.perf_counter() < end:
            times = await _stream(session, url, end)
            gaps += [b - a for a, b in itertools.pairwise(times)]
    return gaps


async def _stream(session: aiohttp.ClientSession, url: str, end: float) -> list[float]:
    body = {
        "model": CHAT,
        "messages": [{"role": "user", "content": f"Tell a story. {random.random()}"}],
        "max_tokens": STREAM_TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    times: list[float] = []
    async with session.post(url, json=body) as reply:
        reply.raise_for_status()
        async for line in reply.content:
            if line.startswith(b"data: {") and _has_text(line):
                times.append(time.perf_counter())
            if time.perf_counter() > end:
                break
    return times


def _has_text(line: bytes) -> bool:
    choices = json.loads(line.removeprefix(b"data: "))["choices"]
    return bool(choices and choices[0]["delta"].get("content"))


def figures(gaps: Sequence[float], rate: float) -> dict[str, float]:
    ordered = sorted(1000 * gap for gap in gaps)
    p50, p99 = (ordered[int(q * (len(ordered) - 1))] for q in (0.5, 0.99))
    return {P50: p50, P99: p99, EMBEDDINGS: rate}


def alone(url: str, clients: int, seconds: float, pool: ProcessPoolExecutor) -> dict[str, float]:
    gaps = chat_gaps(url, seconds)
    return figures(gaps, pool.submit(storm, url, clients, seconds).result())


def together(url: str, clients: int, seconds: float, pool: ProcessPoolExecutor) -> dict[str, float]:
    running = pool.submit(storm, url, clients, seconds, SETTLE_S)
    time.sleep(SETTLE_S)
    gaps = chat_gaps(url, seconds)
    return figures(gaps, running.result())


def main() -> None:
    options_of = parser(__doc__ or "", seconds=8)
    options_of.add_argument("--clients", type=int, default=32)
    options_of.add_argument("--args", type=json.loads, default={}, help="settings to replace, JSON")
    options = options_of.parse_args()
    found = report("A chat beside a load of embeddings")
    with serving(options.args) as server, ProcessPoolExecutor(1) as pool:
        while not chat_gaps(server.url, options.seconds):
            pass  # the model is being loaded
        pool.submit(storm, server.url, 1, 1.0).result()
        given = (server.url, options.clients, options.seconds, pool)
        sides = {TOGETHER: partial(together, *given), ALONE: partial(alone, *given)}
        rounds = in_turns(sides, options.rounds)
    found.compare(counted(options.clients, "client"), rounds, TOGETHER, GOALS)
    found.write()


if __name__ == "__main__":
    main()
