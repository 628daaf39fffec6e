"""Ten times the load that the server can bear: how it is refused, and what is still done.

    python benchmarks/overload.py [--rounds 2] [--seconds 20] [--times 10] [--max-wait 5]

First as many clients as saturate the embedding task, then requests at ten times the rate that was
answered, from a process of their own, each sent when its time has come whatever the answers are.
Every answer must be 200, or 429 or 503 with Retry-After; of the saturated rate at least 0.9 must
remain.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

import aiohttp
from harness import Server, load, parser, serving

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
            except aiohttp.ClientError:
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


def show(number: int, saturated: float, found: Flood, grown: int) -> float:
    """Print a round; returns the share of the saturated rate that remained."""
    total = sum(found.statuses.values())
    shares = ", ".join(
        f"{status or 'no answer'}: {count / total:.1%}"
        for status, count in sorted(found.statuses.items())
    )
    kept = found.goodput / saturated
    print(f"round {number}: saturated {saturated:.1f}/s, sent {total}: {shares}")
    print(f"  goodput {found.goodput:.1f}/s, {kept:.2f} of saturated; bare refusals {found.bare}")
    accepted = percentile(found.accepted_s, 0.99)
    half, most = percentile(found.refused_s, 0.5), percentile(found.refused_s, 0.99)
    print(f"  accepted p99 {accepted:.2f} s; refused p50 {half:.2f} s, p99 {most:.2f} s")
    print(f"  memory {grown / MIB:+.0f} MiB", flush=True)
    return kept


def one_round(number: int, server: Server, seconds: float, times: float) -> float:
    url = server.url + ROUTE
    saturated = load(url, BODIES, clients=SATURATING, seconds=seconds).rate
    before = server.pss_bytes()
    found = flood_in_process(url, times * saturated, seconds)
    return show(number, saturated, found, server.pss_bytes() - before)


def main() -> None:
    made = parser(__doc__ or "", rounds=2, seconds=20)
    made.add_argument("--times", type=float, default=10)
    made.add_argument("--max-wait", type=float, default=5, help="coalescing.max_wait_s")
    options = made.parse_args()
    with serving({"coalescing": {"max_wait_s": options.max_wait}}) as server:
        load(server.url + ROUTE, BODIES, clients=1, seconds=1)
        kept = [
            one_round(number, server, options.seconds, options.times)
            for number in range(options.rounds)
        ]
    print(f"goodput: {statistics.median(kept):.2f} of the saturated rate (goal >= 0.9)")


if __name__ == "__main__":
    main()
