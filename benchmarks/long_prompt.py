"""What a long prompt costs the streams that run, and what a known beginning saves.

    python benchmarks/long_prompt.py [MODEL.gguf] [--rounds 3]

One or four streams decode; a prompt of 1,472 tokens arrives. Reported are the gaps between the
tokens of the running streams while it is evaluated, as multiples of the same figure before, and the
newcomer's time to its first token, as a multiple of the same prompt's when nobody else runs. Then
a prompt whose first 1,024 of 1,040 tokens are known, against one of which nothing is. The engine
runs in this process, llama-server (see llama_server.py) behind its HTTP interface.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from generation_engine import Streams, starter_model
from harness import Goal, Rounds, Server, parser, report
from llama_server import MODEL, engine, llama_server

from models.llama_cpp.engine import LlamaCppGenerator
from models.types.generation import GenerationRequest, SamplingParams, TokenPrompt

LONG, KNOWN, NEW = 1472, 1024, 16
RUNNING = (1, 4)
IDLE_TOKENS, ENDLESS = 120, 1000
Ids = tuple[int, ...]
_random = random.Random(time.time_ns())


def ids(amount: int) -> Ids:
    """Tokens that nobody has seen in this order."""
    return tuple(_random.randrange(1000, 40_000) for _ in range(amount))


@dataclass(frozen=True, slots=True)
class Arrival:
    """Gaps of the running streams in seconds, before and while a prompt is evaluated; how long
    that took."""

    idle: list[float]
    busy: list[float]
    seconds: float


def arrival(times: Sequence[Sequence[float]], begin: float, end: float) -> Arrival:
    pairs = [pair for stream in times for pair in itertools.pairwise(stream)]
    idle = [b - a for a, b in pairs if b < begin]
    busy = [b - a for a, b in pairs if b >= begin and a <= end]
    return Arrival(idle, busy, end - begin)


class Engine:
    """Ours, in this process."""

    def __init__(self, generator: LlamaCppGenerator, streams: Streams) -> None:
        self._generator, self._streams = generator, streams

    def first_token(self, prompt: Ids) -> float:
        """Seconds until a prompt's first token, when nobody else runs."""
        begin = time.perf_counter()
        self._add("alone", prompt, 1)
        self._streams.wait("alone")
        return self._streams.take("alone")[0] - begin

    def disturb(self, running: int) -> Arrival:
        names = [f"running-{i}" for i in range(running)]
        for name in names:
            self._add(name, ids(8), ENDLESS)
        while any(len(self._streams.times.get(name, ())) < IDLE_TOKENS for name in names):
            time.sleep(0.01)
        begin = time.perf_counter()
        self._add("newcomer", ids(LONG), 1)
        self._streams.wait("newcomer")
        end = self._streams.take("newcomer")[0]
        for name in names:
            self._generator.cancel(name)
        time.sleep(0.3)
        return arrival([self._streams.take(name) for name in names], begin, end)

    def _add(self, name: str, prompt: Ids, tokens: int) -> None:
        sampling = SamplingParams(temperature=0, ignore_eos=True, max_tokens=tokens)
        self._generator.add(name, GenerationRequest(TokenPrompt(prompt), sampling))


class Peer:
    """llama-server, over HTTP."""

    def __init__(self, server: Server) -> None:
        self._url = f"{server.url}/completion"

    def first_token(self, prompt: Ids) -> float:
        async def run() -> float:
            async with aiohttp.ClientSession() as session:
                begin = time.perf_counter()
                times: list[float] = []
                await self._complete(session, prompt, 1, times)
                return times[0] - begin

        return asyncio.run(run())

    def disturb(self, running: int) -> Arrival:
        return asyncio.run(self._disturb(running))

    async def _disturb(self, running: int) -> Arrival:
        times: list[list[float]] = [[] for _ in range(running)]
        async with aiohttp.ClientSession() as session:
            tasks = [
                asyncio.create_task(self._complete(session, ids(8), ENDLESS, stream))
                for stream in times
            ]
            while any(len(stream) < IDLE_TOKENS for stream in times):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            begin, newcomer = time.perf_counter(), list[float]()
            await self._complete(session, ids(LONG), 1, newcomer)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.3)
        return arrival(times, begin, newcomer[0])

    async def _complete(
        self, session: aiohttp.ClientSession, prompt: Ids, tokens: int, times: list[float]
    ) -> None:
        body = {
            "model": MODEL, "prompt": list(prompt), "n_predict": tokens, "temperature": 0,
            "stream": True, "ignore_eos": True, "samplers": ["temperature"],
        }  # fmt: skip
        async with session.post(self._url, json=body) as reply:
            reply.raise_for_status()
            async for line in reply.content:
                if line.startswith(b"data: ") and not json.loads(line[6:])["stop"]:
                    times.append(time.perf_counter())


Subject = Engine | Peer


def p99(values: Sequence[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


BESIDE, BEFORE = "beside the prompt", "before it"
GAP_P50, GAP_P99, FIRST = "median gap ms", "99th percentile gap ms", "first token s"


def pauses(subject: Subject, running: int, rounds: int) -> Rounds:
    """Sides: beside the prompt, and before it (or, of its first token, with nobody beside)."""
    found = Rounds()
    subject.disturb(running)
    for _ in range(rounds):
        with found.turn():
            one = subject.disturb(running)
            alone = subject.first_token(ids(LONG))
        for side, gaps, first in ((BESIDE, one.busy, one.seconds), (BEFORE, one.idle, alone)):
            milliseconds = [1e3 * gap for gap in gaps]
            found.add(
                side,
                {
                    GAP_P50: statistics.median(milliseconds),
                    GAP_P99: p99(milliseconds),
                    FIRST: first,
                },
            )
    return found


def known_beginning(subject: Subject, rounds: int) -> Rounds:
    """Sides: the first token of a prompt whose beginning is known, and of one that is new."""
    found = Rounds()
    for _ in range(rounds):
        beginning = ids(KNOWN)
        with found.turn():
            found.add("new", {FIRST: subject.first_token(beginning + ids(NEW))})
            found.add("known", {FIRST: subject.first_token(beginning + ids(NEW))})
    return found


def main() -> None:
    arguments = parser(__doc__ or "")
    arguments.add_argument("path", type=Path, nargs="?", help="default: the starter model")
    options = arguments.parse_args()
    found = report("What a long prompt costs running streams; what a known beginning saves")
    path = options.path or starter_model()
    with llama_server(path) as peer, engine(path) as (generator, streams):
        subjects: dict[str, Subject] = {
            "engine": Engine(generator, streams), "llama-server": Peer(peer),
        }  # fmt: skip
        for running, (name, subject) in itertools.product(RUNNING, subjects.items()):
            goals = {(BEFORE, GAP_P99): Goal(3, at_most=True)} if name == "engine" else {}
            measured = pauses(subject, running, options.rounds)
            found.compare(f"{name}, {running} running", measured, BESIDE, goals)
        for name, subject in subjects.items():
            goals = {("new", FIRST): Goal(0.1, at_most=True)} if name == "engine" else {}
            measured = known_beginning(subject, options.rounds)
            found.compare(
                f"{name}, {KNOWN} of {KNOWN + NEW} tokens known", measured, "known", goals
            )
    found.write()


if __name__ == "__main__":
    main()
