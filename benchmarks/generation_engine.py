"""Decode rates of the generation engine against a plain loop, and what a long prompt costs others.

    python benchmarks/generation_engine.py [MODEL.gguf]

The plain loop decodes one sequence with llama.cpp's own calls, greedy sampler and text pieces, in
the same process and with the same number of threads. Rounds are interleaved; ratios are of medians.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import llama_cpp.llama_cpp as api

from config.catalog import load_catalog
from config.paths import default_weights_dir
from models.base import StepListener
from models.errors import ModelError
from models.llama_cpp.engine import LlamaCppGenerator
from models.types import GenerationRequest, SamplingParams, TextDelta, TextPrompt
from weights.cache import WeightsCache
from weights.fetch import fetch

PROMPT = "The history of the lighthouse begins"
LONG_PROMPT = "The keeper of the lighthouse had a dog that could count to seven. " * 100
TOKENS = 64
STREAMS = (1, 2, 8)


class Streams:
    """Arrival times of the deltas of each request."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self._ended: set[str] = set()
        self._heard = threading.Condition()

    def listen(self, events: list[tuple[str, TextDelta | ModelError]]) -> None:
        now = time.perf_counter()
        for name, _ in events:
            self.times.setdefault(name, []).append(now)
        ended = {name for name, event in events if isinstance(event, ModelError) or event.usage}
        if ended:
            with self._heard:
                self._ended |= ended
                self._heard.notify_all()

    def wait(self, *names: str) -> None:
        with self._heard:
            self._heard.wait_for(lambda: self._ended.issuperset(names))
            self._ended.difference_update(names)

    def take(self, name: str) -> list[float]:
        return self.times.pop(name)


@contextmanager
def plain_loop(path: Path, n_threads: int) -> Iterator[Callable[[], float]]:
    """A function that decodes `TOKENS` tokens after the prompt and returns tokens per second."""
    model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
    vocab = api.llama_model_get_vocab(model)
    params = api.llama_context_default_params()
    params.n_ctx, params.n_threads, params.n_threads_batch = 512, n_threads, n_threads
    params.no_perf = True
    context = api.llama_init_from_model(model, params)
    sampler = api.llama_sampler_init_greedy()
    text, buffer = PROMPT.encode(), (api.llama_token * 512)()
    count = api.llama_tokenize(vocab, text, len(text), buffer, 512, True, False)

    def run() -> float:
        api.llama_memory_clear(api.llama_get_memory(context), True)
        api.llama_decode(context, api.llama_batch_get_one(buffer, count))
        one, piece = (api.llama_token * 1)(), bytes(64)
        begin = time.perf_counter()
        for _ in range(TOKENS):
            one[0] = api.llama_sampler_sample(sampler, context, -1)
            api.llama_token_to_piece(vocab, one[0], piece, 64, 0, False)
            api.llama_decode(context, api.llama_batch_get_one(one, 1))
        return TOKENS / (time.perf_counter() - begin)

    yield run
    api.llama_sampler_free(sampler)
    api.llama_free(context)
    api.llama_model_free(model)


def decode_rate(engine: LlamaCppGenerator, streams: Streams, count: int) -> float:
    """Tokens per second of all streams while all of them decode."""
    sampling = SamplingParams(temperature=0, ignore_eos=True, max_tokens=TOKENS + 1)
    names = [f"s{i}" for i in range(count)]
    for name in names:
        engine.add(name, GenerationRequest(TextPrompt(PROMPT), sampling))
    streams.wait(*names)
    times = [streams.take(name) for name in names]
    begin, end = max(t[0] for t in times), min(t[-1] for t in times)
    return count * TOKENS / (end - begin)


def gaps_beside_a_prompt(engine: LlamaCppGenerator, streams: Streams) -> tuple[float, float]:
    """The longest gap of a running stream, as multiples of its median gap: idle, and while a long
    prompt arrives."""
    engine.clear_prefix_cache()
    sampling = SamplingParams(temperature=0, ignore_eos=True, max_tokens=1000)
    engine.add("running", GenerationRequest(TextPrompt(PROMPT), sampling))
    time.sleep(1.0)
    arrival = time.perf_counter()
    engine.add("arriving", GenerationRequest(TextPrompt(LONG_PROMPT), SamplingParams(max_tokens=1)))
    streams.wait("arriving")
    arrived = streams.take("arriving")[0]
    engine.cancel("running")
    time.sleep(0.2)
    times = streams.take("running")
    gaps = [(a, b - a) for a, b in itertools.pairwise(times)]
    idle = [gap for at, gap in gaps if at < arrival]
    busy = [gap for at, gap in gaps if arrival <= at <= arrived]
    typical = statistics.median(idle)
    return _p99(idle) / typical, _p99(busy) / typical


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def starter_model() -> Path:
    [spec] = [spec for spec in load_catalog() if spec.id == "smollm2-135m-instruct"]
    path = fetch(spec, cache=WeightsCache(default_weights_dir()))
    assert path is not None
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("path", type=Path, nargs="?", help="default: the starter model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    streams = Streams()
    listener: StepListener = streams.listen  # type: ignore[assignment]  # events come as lists
    path = options.path or starter_model()
    engine = LlamaCppGenerator(path, listener, n_threads=options.threads, n_ctx=4096)
    rates: dict[str, list[float]] = {"plain": [], **{f"{n} streams": [] for n in STREAMS}}
    idle, busy = [], []
    with plain_loop(path, options.threads) as plain:
        for _ in range(options.rounds):
            rates["plain"].append(plain())
            for count in STREAMS:
                rates[f"{count} streams"].append(decode_rate(engine, streams, count))
    for _ in range(options.rounds):
        gaps = gaps_beside_a_prompt(engine, streams)
        idle.append(gaps[0])
        busy.append(gaps[1])
    engine.close()
    base = statistics.median(rates.pop("plain"))
    print(f"plain loop: {base:.0f} tokens/s, {options.threads} thread(s), {options.rounds} rounds")
    for name, values in rates.items():
        print(f"decode rate, {name}: {statistics.median(values) / base:.2f} x the plain loop")
    print(f"p99 gap of a stream, in median gaps: {statistics.median(idle):.2f}")
    print(f"the same while a prompt of 1,500 tokens arrives: {statistics.median(busy):.2f}")


if __name__ == "__main__":
    main()
