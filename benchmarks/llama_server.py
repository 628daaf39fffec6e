"""Generation beside llama-server: the engine alone, then the whole server over HTTP.

    python benchmarks/llama_server.py [MODEL.gguf] [--rounds 3]

The peer is the real llama-server out of the prebuilt `xllamacpp` wheel, which is installed into an
environment of its own below build/ and measured through its HTTP interface on loopback. Everybody
has the same file, one thread, 16 slots over one KV pool of 16,384 cells, flash attention where
llama.cpp wants it, greedy sampling, prompts that nobody has seen. The serial executor is our
engine with one request after the other. Rounds are interleaved; ratios are of medians.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path

import aiohttp
from generation_engine import Streams, starter_model
from harness import ROOT, Goal, Report, Server, counted, in_turns, parser, quick, report, serving

from models.base import StepListener
from models.llama_cpp.engine import LlamaCppGenerator
from models.types.generation import GenerationRequest, SamplingParams, TextPrompt

PEER = "xllamacpp==2026.10.11549"
SLOTS, CELLS, TOKENS = 16, 16_384, 48
STREAMS = (1, 2, 4, 8, 16)
HTTP_STREAMS = (1, 8, 16)
MODEL = "smollm2-135m-instruct"
STORY = "The keeper of this lighthouse wrote down every ship that passed, its flag and its cargo. "
_numbers = count(int(time.time()) % 100_000 * 100)


DECODE, WHOLE, FIRST, CPU = (
    "decode tokens/s",
    "tokens/s of whole requests",
    "first token ms",
    "CPU us/token",
)

Times = Sequence[Sequence[float]]
Run = Callable[[list[str]], tuple[float, Times]]
"""Sends prompts at once; returns when that was, and when each one's tokens came."""


def prompts(amount: int, sentences: int) -> list[str]:
    """Prompts of about 20 tokens per sentence that share no beginning."""
    return [f"{next(_numbers)}"[::-1] + f". {STORY * sentences}" for _ in range(amount)]


def measure(run: Run, amount: int, cpu_seconds: Callable[[], float]) -> dict[str, float]:
    """Decoding is measured on short prompts, while all streams decode; the rest on longer ones."""
    _, times = run(prompts(amount, 0))
    decode = decode_rate(times)
    cpu = cpu_seconds()
    begin, times = run(prompts(amount, 3))
    cpu = cpu_seconds() - cpu
    tokens = sum(map(len, times))
    whole = tokens / (max(t[-1] for t in times) - begin)
    first = statistics.mean(t[0] - begin for t in times)
    return {DECODE: decode, WHOLE: whole, FIRST: 1e3 * first, CPU: 1e6 * cpu / tokens}


def decode_rate(times: Times) -> float:
    """Tokens per second; of streams that ran one after the other, while any of them ran."""
    first, last = max(t[0] for t in times), min(t[-1] for t in times)
    if first < last:
        decoded = sum(first < at <= last for stream in times for at in stream)
        return decoded / (last - first)
    return sum(len(t) - 1 for t in times) / sum(t[-1] - t[0] for t in times)


# --- the engine in this process -------------------------------------------------------------------


@contextmanager
def engine(path: Path) -> Iterator[tuple[LlamaCppGenerator, Streams]]:
    streams = Streams()
    listener: StepListener = streams.listen  # type: ignore[assignment]  # events come as lists
    generator = LlamaCppGenerator(path, listener, n_threads=1, kv_cells=CELLS)
    yield generator, streams
    generator.close()


def request(prompt: str) -> GenerationRequest:
    sampling = SamplingParams(temperature=0, ignore_eos=True, max_tokens=TOKENS)
    return GenerationRequest(TextPrompt(prompt), sampling)


def batched(generator: LlamaCppGenerator, streams: Streams) -> Run:
    def run(texts: list[str]) -> tuple[float, Times]:
        begin = time.perf_counter()
        names = [f"s{i}" for i in range(len(texts))]
        for name, prompt in zip(names, texts, strict=True):
            generator.add(name, request(prompt))
        streams.wait(*names)
        return begin, [streams.take(name) for name in names]

    return run


def serial(generator: LlamaCppGenerator, streams: Streams) -> Run:
    def run(texts: list[str]) -> tuple[float, Times]:
        begin, times = time.perf_counter(), []
        for prompt in texts:
            generator.add("only", request(prompt))
            streams.wait("only")
            times.append(streams.take("only"))
        return begin, times

    return run


# --- over HTTP ------------------------------------------------------------------------------------


@dataclass
class Peer(Server):
    """`build`: what its llama.cpp was compiled for."""

    build: str = ""


@contextmanager
def llama_server(path: Path) -> Iterator[Peer]:
    """The peer, in its own environment and process."""
    folder = ROOT / "build" / "peer"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "-q", PEER], check=True)
    script = Path(__file__).parent / "peers" / "llama_server.py"
    command = [str(python), str(script), str(path), str(SLOTS), str(CELLS)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        yield Peer(url, process, 0.0, process.stdout.readline().decode().strip())
        process.terminate()


def over_http(server: Server) -> Run:
    return lambda texts: asyncio.run(_burst(f"{server.url}/v1/completions", texts))


async def _burst(url: str, texts: list[str]) -> tuple[float, Times]:
    connector = aiohttp.TCPConnector(limit=len(texts))
    async with aiohttp.ClientSession(connector=connector) as session:
        begin = time.perf_counter()
        return begin, await asyncio.gather(*(arrivals(session, url, text) for text in texts))


async def arrivals(
    session: aiohttp.ClientSession, url: str, prompt: str, tokens: int = TOKENS
) -> list[float]:
    """When each chunk with text came."""
    body = {
        "model": MODEL, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "stream": True,
        "ignore_eos": True, "cache_prompt": False, "samplers": ["temperature"],
    }  # fmt: skip
    times: list[float] = []
    async with session.post(url, json=body) as reply:
        reply.raise_for_status()
        async for line in reply.content:
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0]["text"]:
                    times.append(time.perf_counter())
    return times


# --- the comparison -------------------------------------------------------------------------------

ENGINE, SERVER, SERIAL, PEER_NAME = "engine", "server", "serial executor", "llama-server"
Sides = dict[str, tuple[Run, Callable[[], float]]]


def goals(streams: int) -> dict[tuple[str, str], Goal]:
    """Never slower than llama-server; twice the serial executor's rate at 8 streams."""
    found = {
        (PEER_NAME, DECODE): Goal(1.0),
        (PEER_NAME, WHOLE): Goal(1.0),
        (PEER_NAME, FIRST): Goal(1.0, at_most=True),
    }
    return found | ({(SERIAL, DECODE): Goal(2.0)} if streams == 8 else {})


def compare(found: Report, case: str, sides: Sides, streams: Sequence[int], rounds: int) -> None:
    ours = next(iter(sides))
    for n in streams:
        turns = {name: partial(measure, run, n, cpu) for name, (run, cpu) in sides.items()}
        found.compare(f"{case}, {counted(n, 'stream')}", in_turns(turns, rounds), ours, goals(n))


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("path", type=Path, nargs="?", help="default: the starter model")
    options = arguments.parse_args()
    found = report("Generation beside llama-server")
    path = options.path or starter_model()
    with llama_server(path) as peer:
        found.note("llama-server", peer.build)
        with engine(path) as (generator, streams):
            own = time.process_time
            sides: Sides = {
                ENGINE: (batched(generator, streams), own),
                SERIAL: (serial(generator, streams), own),
                PEER_NAME: (over_http(peer), peer.cpu_seconds),
            }
            compare(found, "engine", sides, (1, 8) if quick() else STREAMS, options.rounds)
        if not options.path:
            with serving({"generation": {"threads": 1}}) as server:
                sides = {
                    SERVER: (over_http(server), server.cpu_seconds),
                    PEER_NAME: (over_http(peer), peer.cpu_seconds),
                }
                compare(found, "HTTP", sides, (8,) if quick() else HTTP_STREAMS, options.rounds)
    found.write()


if __name__ == "__main__":
    main()
