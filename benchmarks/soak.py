"""A mixed load with faults: no wrong answer, and memory that does not grow.

    python benchmarks/soak.py [--seconds 300] [--clients 12] [--seed 0]

Clients ask weightless models of all tasks for answers that are known from the start; a third of
them leaves early, and every few seconds the replica of some task is killed. An answer may be the
right one, or a refusal in the server's format that says to come again. QUICK=1 takes a minute.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from typing import Any

import aiohttp
import numpy as np
import psutil
from harness import Server, parser, report, serving

KILL_EVERY_S = 8.0
SAMPLE_S = 2.0
LEAVING = 1 / 3
REFUSALS = {429, 500, 503}
ERROR_FIELDS = {"message", "type", "param", "code"}
MIB = 1 << 20
KILLED = ("Generation", "Embedding", "Rerank", "Classification")
TASKS = ("generation", "embedding", "rerank", "classification")
ROWS = [[float(i % 7), float(i % 5)] for i in range(64)]
FIT = {"model": "soaked", "data": ROWS, "backend": "ecod"}
Body = dict[str, Any]


def requests() -> list[tuple[str, str, Body]]:
    """Path, the field that is compared, body."""
    texts = [f"text {number} about a river " * (number % 5 + 1) for number in range(40)]
    made: list[tuple[str, str, Body]] = []
    for text in texts:
        chat = {"messages": [{"role": "user", "content": text}], "temperature": 0}
        made += [
            ("/v1/chat/completions", "choices", {"model": "soak-generation", **chat}),
            ("/v1/embeddings", "data", {"model": "soak-embedding", "input": [text] * 3}),
            ("/v1/classify", "data", {"model": "soak-classification", "input": text}),
            (
                "/v1/rerank",
                "results",
                {"model": "soak-rerank", "query": text, "documents": texts[:5]},
            ),
        ]
    return [*made, ("/v1/anomaly/score", "data", {"model": "soaked", "data": ROWS[:9]})]


def toys() -> list[Body]:
    source = {"kind": "builtin"}
    return [
        {"id": f"soak-{task}", "task": task, "engine": "toy", "source": source} for task in TASKS
    ]


class Soak:
    """The load, the faults, and what was seen."""

    def __init__(self, server: Server, seed: int, end: float) -> None:
        self._server = server
        self._chance = random.Random(seed)
        self._end = end
        self._known: list[tuple[str, str, Body, Any]] = []
        self.outcomes: Counter[str] = Counter()
        self.kills = 0
        self.memory: list[tuple[float, float]] = []

    async def run(self, http: aiohttp.ClientSession, clients: int) -> None:
        async with http.post("/v1/anomaly/fit", json=FIT) as reply:
            reply.raise_for_status()
        for path, field, body in requests():
            async with http.post(path, json=body) as reply:
                reply.raise_for_status()
                self._known.append((path, field, body, (await reply.json())[field]))
        await asyncio.gather(
            *(self._client(http) for _ in range(clients)), self._kill(), self._sample()
        )

    async def _client(self, http: aiohttp.ClientSession) -> None:
        while time.monotonic() < self._end:
            path, field, body, known = self._chance.choice(self._known)
            if self._chance.random() < LEAVING:
                limit = aiohttp.ClientTimeout(total=self._chance.expovariate(20))
            else:
                limit = aiohttp.ClientTimeout(total=240)
            try:
                async with http.post(path, json=body, timeout=limit) as reply:
                    answer = await reply.read()
                    waits = "retry-after" in reply.headers
                self.outcomes[_judged(reply.status, answer, waits, field, known)] += 1
            except TimeoutError:
                self.outcomes["left"] += 1
            except aiohttp.ClientError:
                self.outcomes["connection lost"] += 1

    async def _kill(self) -> None:
        while time.monotonic() < self._end - KILL_EVERY_S:
            await asyncio.sleep(KILL_EVERY_S)
            name = f"ray::ServeReplica:inference:{self._chance.choice(KILLED)}"
            for process in self._server.processes():
                try:
                    if name in " ".join(process.cmdline()):
                        process.kill()
                        self.kills += 1
                except psutil.Error:
                    continue

    async def _sample(self) -> None:
        """Of the processes that are never killed."""
        while time.monotonic() < self._end:
            held = 0
            for process in self._server.processes():
                try:
                    if "Ingress" in " ".join(process.cmdline()):
                        held += process.memory_info().rss
                except psutil.Error:
                    continue
            self.memory.append((time.monotonic(), held / MIB))
            await asyncio.sleep(SAMPLE_S)


def _judged(status: int, answer: bytes, waits: bool, field: str, known: Any) -> str:
    """`waits`: whether it says when to come again."""
    try:
        found = json.loads(answer)
    except ValueError:
        return f"UNEXPECTED {status}"
    if status == 200:
        return "right" if found.get(field) == known else "WRONG"
    error = found.get("error", {})
    if status in REFUSALS and set(error) == ERROR_FIELDS and (waits or status == 500):
        return f"{status} {error['code']}"
    return f"UNEXPECTED {status}"


def slope(memory: list[tuple[float, float]]) -> float:
    """MiB per minute over the second half: pools fill up in the first."""
    later = np.array(memory[len(memory) // 2 :])
    return float(np.polyfit(later[:, 0] / 60, later[:, 1], 1)[0])


async def soak(server: Server, seconds: float, clients: int, seed: int) -> Soak:
    made = Soak(server, seed, time.monotonic() + seconds)
    async with aiohttp.ClientSession(server.url) as http:
        await made.run(http, clients)
    return made


def main() -> None:
    made = parser(__doc__ or "", seconds=300)
    made.add_argument("--clients", type=int, default=12)
    made.add_argument("--seed", type=int, default=0)
    options = made.parse_args()
    seconds = max(options.seconds, 60)
    report_of = report("A mixed load with faults")
    with serving({"models": toys()}) as server:
        found = asyncio.run(soak(server, seconds, options.clients, options.seed))
    wrong = sum(count for name, count in found.outcomes.items() if name[:2] in {"WR", "UN"})
    report_of.note("wrong answers", str(wrong))
    for outcome, count in found.outcomes.most_common():
        report_of.note(outcome, str(count))
    report_of.note("replicas killed", str(found.kills))
    report_of.note("memory of the ingress", f"{slope(found.memory):+.1f} MiB/min")
    report_of.write()


if __name__ == "__main__":
    main()
