"""Decode rates of the generation engine against a plain loop.

    python benchmarks/generation_engine.py [MODEL.gguf]

The plain loop decodes one sequence with llama.cpp's own calls, greedy sampler and text pieces, in
the same process and with the same number of threads. Rounds are interleaved; ratios are of medians.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import llama_cpp.llama_cpp as api
from harness import Measure, counted, in_turns, parser, report

from config.catalog import load_catalog
from config.paths import default_weights_dir
from models.base import StepListener
from models.errors import ModelError
from models.llama_cpp.engine import LlamaCppGenerator
from models.types.generation import GenerationRequest, SamplingParams, TextDelta, TextPrompt
from weights.cache import WeightsCache
from weights.fetch import fetch

PROMPT = "The history of the lighthouse begins"
TOKENS = 64
STREAMS = (1, 2, 8)
RATE = "decode tokens/s"


class Streams:
    """Arrival times of the deltas of each request."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self._ended: set[str] = set()
        self._failures: list[ModelError] = []
        self._heard = threading.Condition()

    def listen(self, events: list[tuple[str, TextDelta | ModelError]]) -> None:
        now = time.perf_counter()
        for name, _ in events:
            self.times.setdefault(name, []).append(now)
        ended = {name for name, event in events if isinstance(event, ModelError) or event.usage}
        if ended:
            with self._heard:
                self._failures += [event for _, event in events if isinstance(event, ModelError)]
                self._ended |= ended
                self._heard.notify_all()

    def wait(self, *names: str) -> None:
        """Until these requests have ended. Raises what one of them has failed of."""
        with self._heard:
            self._heard.wait_for(lambda: self._ended.issuperset(names))
            self._ended.difference_update(names)
        if self._failures:
            raise self._failures[0]

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
    return sum(begin < at <= end for stream in times for at in stream) / (end - begin)


def starter_model() -> Path:
    [spec] = [spec for spec in load_catalog() if spec.id == "smollm2-135m-instruct"]
    path = fetch(spec, cache=WeightsCache(default_weights_dir()))
    assert path is not None
    return path


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("path", type=Path, nargs="?", help="default: the starter model")
    arguments.add_argument("--threads", type=int, default=1)
    options = arguments.parse_args()
    found = report("Decode rate of the engine to a plain one-sequence loop")
    streams = Streams()
    listener: StepListener = streams.listen  # type: ignore[assignment]  # events come as lists
    path = options.path or starter_model()
    engine = LlamaCppGenerator(path, listener, n_threads=options.threads, n_ctx=4096)
    with plain_loop(path, options.threads) as plain:
        for count in STREAMS:
            sides: dict[str, Measure] = {
                "engine": lambda count=count: {RATE: decode_rate(engine, streams, count)},
                "plain loop": lambda: {RATE: plain()},
            }
            found.compare(counted(count, "stream"), in_turns(sides, options.rounds), "engine")
    engine.close()
    found.write()


if __name__ == "__main__":
    main()
