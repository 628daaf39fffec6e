"""Ten times the load that the server can bear: how it is refused, and what is still done.

    python benchmarks/overload.py [--rounds 2] [--seconds 20] [--times 10] [--max-wait 5]

First as many clients as saturate the embedding task, then requests at ten times the rate that was
answered, from a process of their own, each sent when its time has come whatever the answers are.
Every answer must be 200, or 429 or 503 with Retry-After; of the saturated rate at least 0.9 must
remain.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import aiohttp
from harness import Goal, Report, Rounds, Server, load, parser, report, serving

ROUTE = "/v1/embeddings"
BODIES = [
    {
        "model": "all-minilm-l6-v2",
        "input": [f"text {i} of {j} about a river " * 6 for i in range(16)],
    }
    for j in range(64)
]
SATURATING = 16
ANSWER_S = 120
MIB = 1 << 20
RATE, FLOODED, SATURATED = "good answers/s", "flooded", "saturated"


@dataclass
class Flood:
    """What became of requests that were sent at a given rate."""

    statuses: Counter[int] = field(default_factory=Counter)
    bare: int = 0
    """Refusals without Retry-After."""
    accepted_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    goodput: float = 0.0
    """Good answers per second while requests were sent."""


async def flood(url: str, rate: float, seconds: float) -> Flood:
    found, start = Flood(), time.perf_counter()
    limits = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    async with aiohttp.ClientSession(connector=limits, timeout=timeout) as http:

        async def one(number: int) -> None:
            await asyncio.sleep(max(0.0, start + number / rate - time.perf_counter()))
            sent = time.perf_counter()
            try:
                async with http.post(url, json=BODIES[number % len(BODIES)]) as reply:
                    await reply.read()
                    status, waits = reply.status, "retry-after" in reply.headers
            except (aiohttp.ClientError, TimeoutError):
                status, waits = 0, False
            now = time.perf_counter()
            found.statuses[status] += 1
            if status == 200:
                found.accepted_s.append(now - sent)
                found.goodput += (now - start <= seconds) / seconds
            else:
                found.refused_s.append(now - sent)
                found.bare += not waits

        await asyncio.gather(*(one(number) for number in range(int(rate * seconds))))
    return found


def flood_in_process(url: str, rate: float, seconds: float) -> Flood:
    """Beside the loop that measures, or its own slowness would count as the server's."""
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(_run_flood, url, rate, seconds).result()


def _run_flood(url: str, rate: float, seconds: float) -> Flood:
    return asyncio.run(flood(url, rate, seconds))


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values) or [float("nan")]
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def note(found: Report, number: int, flooded: Flood, grown: int) -> None:
    total = sum(flooded.statuses.values())
    shares = ", ".join(
        f"{status or 'no answer'} {count / total:.1%}"
        for status, count in sorted(flooded.statuses.items())
    )
    seconds = {
        "accepted p99": percentile(flooded.accepted_s, 0.99),
        "refused p50": percentile(flooded.refused_s, 0.5),
        "refused p99": percentile(flooded.refused_s, 0.99),
    }
    times = ", ".join(f"{name} {value:.2f} s" for name, value in seconds.items())
    found.note(
        f"round {number}: {total} requests",
        f"{shares}; without Retry-After {flooded.bare}; {times}; memory {grown / MIB:+.0f} MiB",
    )


def measure(found: Report, server: Server, rounds: int, seconds: float, times: float) -> Rounds:
    url, measured = server.url + ROUTE, Rounds()
    for number in range(rounds):
        with measured.turn():
            saturated = load(url, BODIES, clients=SATURATING, seconds=seconds).rate
            before = server.pss_bytes()
            flooded = flood_in_process(url, times * saturated, seconds)
            grown = server.pss_bytes() - before
        measured.add(FLOODED, {RATE: flooded.goodput})
        measured.add(SATURATED, {RATE: saturated})
        note(found, number + 1, flooded, grown)
    return measured


def main() -> None:
    made = parser(__doc__ or "", rounds=2, seconds=20, quick_seconds=8)
    made.add_argument("--times", type=float, default=10)
    made.add_argument("--max-wait", type=float, default=5, help="coalescing.max_wait_s")
    options = made.parse_args()
    found = report("Ten times the load that can be borne")
    with serving({"coalescing": {"max_wait_s": options.max_wait}}) as server:
        load(server.url + ROUTE, BODIES, clients=1, seconds=1)
        measured = measure(found, server, options.rounds, options.seconds, options.times)
    goal = {(SATURATED, RATE): Goal(0.9)}
    found.compare(f"{options.times:g} times the saturated rate", measured, FLOODED, goal)
    found.write()


if __name__ == "__main__":
    main()
