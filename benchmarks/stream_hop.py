"""What a streamed token costs between the generation replica and the client, by stream layout.

A  one handle stream per request, one item per engine step
B  one handle stream per ingress: each item holds one engine step's deltas of all its requests
C, D  A and B coalesced: the first item at once, then at most one item per 20 ms

    python benchmarks/stream_hop.py [--rounds 3] [--tokens 200]

A toy engine emits one token per step for every running request, at 40 steps/s ("paced") or as soon
as the event loop has taken the last step ("unpaced"). CPU is that of HAProxy and the two replicas,
less their idle use and the engine's.
"""

import asyncio
import itertools
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import psutil
from harness import Measure, Report, free_port, in_turns, parser, report
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

PACES = {"paced": 40, "unpaced": 0}  # steps per second
WINDOWS_S = {"A": 0.0, "B": 0.0, "C": 0.02, "D": 0.02}
LAYOUTS = {
    "A": "a stream per request",
    "B": "a stream per ingress",
    "C": "A in windows",
    "D": "B in windows",
}
TOKEN, LAST = "~", "~."
Deltas = dict[str, str]  # request id -> text
Sink = asyncio.Queue[Deltas]
Texts = AsyncIterator[str]


class ToyEngine(threading.Thread):
    """One token per step for each running request; one call into the event loop per step."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(daemon=True)
        self._loop, self._pace, self.cpu_s = loop, 0, 0.0
        self._wake = threading.Condition()
        self._taken = threading.Semaphore()
        self._running: dict[str, tuple[Sink, int]] = {}

    def add(self, request_id: str, tokens: int, pace: int, sink: Sink) -> None:
        with self._wake:
            self._running[request_id] = (sink, tokens)
            self._pace = pace
            self._wake.notify()

    def run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._running)
            time.sleep(1 / self._pace if self._pace else 0)
            self._taken.acquire()
            self._loop.call_soon_threadsafe(self._deliver, self._step())
            self.cpu_s = time.thread_time()

    def _step(self) -> dict[Sink, Deltas]:
        step: dict[Sink, Deltas] = {}
        with self._wake:
            for request_id, (sink, left) in self._running.items():
                step.setdefault(sink, {})[request_id] = LAST if left == 1 else TOKEN
            self._running = {i: (s, left - 1) for i, (s, left) in self._running.items() if left > 1}
        return step

    def _deliver(self, step: dict[Sink, Deltas]) -> None:
        self._taken.release()
        for sink, deltas in step.items():
            sink.put_nowait(deltas)


async def drain(sink: Sink, window_s: float) -> AsyncIterator[Deltas]:
    """The sink's steps, those of one window joined into one item; endless."""
    clock, next_at = asyncio.get_running_loop().time, 0.0
    while True:
        deltas = await sink.get()
        if (wait_s := next_at - clock()) > 0:
            await asyncio.sleep(wait_s)
        while window_s and not sink.empty():
            for request_id, text in sink.get_nowait().items():
                deltas[request_id] = deltas.get(request_id, "") + text
        next_at = clock() + window_s
        yield deltas


class Generation:
    def __init__(self) -> None:
        self._sinks: dict[str, Sink] = defaultdict(asyncio.Queue)
        self._engine = ToyEngine(asyncio.get_running_loop())
        self._engine.start()

    async def submit(self, session: str, request_id: str, tokens: int, pace: int) -> None:
        self._engine.add(request_id, tokens, pace, self._sinks[session])

    async def deltas(self, session: str, window_s: float) -> AsyncIterator[Deltas]:
        try:
            async for deltas in drain(self._sinks[session], window_s):
                yield deltas
        finally:
            del self._sinks[session]

    async def generate(self, name: str, tokens: int, pace: int, window_s: float) -> Texts:
        await self.submit(name, name, tokens, pace)
        async for deltas in drain(self._sinks.pop(name), window_s):
            yield deltas[name]
            if deltas[name].endswith(LAST):
                return

    async def cpu_s(self) -> float:
        return time.process_time() - self._engine.cpu_s


class Session:
    """One stream from a replica, split into a queue per request; open while any request runs."""

    def __init__(self, generation: Any, window_s: float) -> None:
        self._generation, self._window_s = generation, window_s
        self._queues: dict[str, asyncio.Queue[str]] = {}

    async def generate(self, request_id: str, tokens: int, pace: int) -> Texts:
        if not self._queues:
            self._name = request_id
            self._reader = asyncio.create_task(self._read(self._name))
        queue = self._queues[request_id] = asyncio.Queue()
        await self._generation.submit.remote(self._name, request_id, tokens, pace)
        text = ""
        while not text.endswith(LAST):
            text = await queue.get()
            yield text
        del self._queues[request_id]
        if not self._queues:
            self._reader.cancel()

    async def _read(self, name: str) -> None:
        stream = self._generation.options(stream=True).deltas.remote(name, self._window_s)
        async for deltas in stream:
            for request_id, text in deltas.items():
                self._queues[request_id].put_nowait(text)


class Ingress:
    def __init__(self, generation: Any) -> None:
        self._generation = generation
        self._sessions = {v: Session(generation, WINDOWS_S[v]) for v in "BD"}
        self._names = map(str, itertools.count())

    def __serve_build_asgi_app__(self) -> Starlette:
        path = "/{layout}/{tokens:int}/{pace:int}"
        return Starlette(routes=[Route("/cpu", self._cpu_s), Route(path, self._stream)])

    async def _cpu_s(self, _: Request) -> Response:
        return Response(str(time.process_time() + await self._generation.cpu_s.remote()))

    async def _stream(self, request: Request) -> Response:
        return StreamingResponse(self._events(**request.path_params))

    async def _events(self, layout: str, tokens: int, pace: int) -> AsyncIterator[bytes]:
        call = (next(self._names), tokens, pace)
        if layout in self._sessions:
            texts = self._sessions[layout].generate(*call)
        else:
            stream = self._generation.options(stream=True)
            texts = stream.generate.remote(*call, WINDOWS_S[layout])
        async for text in texts:
            yield f'data: {{"text": "{text}"}}\n\n'.encode()


@contextmanager
def served(port: int, folder: str) -> Iterator[None]:
    """The graph on Serve's fast path, on ports and files of its own."""
    switches = "ENABLE_HA_PROXY THROUGHPUT_OPTIMIZED USE_GRPC_BY_DEFAULT"
    files = "CONFIG_FILE_LOC SOCKET_PATH METRICS_SOCKET_PATH SERVER_STATE_BASE SERVER_STATE_FILE"
    names = "HAPROXY_METRICS HAPROXY_STATS FALLBACK_PROXY_HTTP FALLBACK_PROXY_GRPC"
    variables = dict.fromkeys(switches.split(), "1") | {"DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0"}
    variables |= {f"HAPROXY_{name}": f"{folder}/{name.lower()}" for name in files.split()}
    variables |= {f"{name}_PORT": str(free_port()) for name in names.split()}
    os.environ.update({f"RAY_SERVE_{name}": value for name, value in variables.items()})
    import ray  # reads the environment
    from ray import serve

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployment = serve.deployment(max_ongoing_requests=100, ray_actor_options={"num_cpus": 0})
    serve.run(deployment(serve.ingress()(Ingress)).bind(deployment(Generation).bind()))
    yield
    serve.shutdown()
    ray.shutdown()


async def get(port: int, path: str) -> tuple[str, float]:
    """The response, and the seconds to its first token."""
    begin, text, first_s = time.perf_counter(), "", 0.0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    while chunk := (await reader.read(1 << 16)).decode():
        if not first_s and TOKEN in chunk:
            first_s = time.perf_counter() - begin
        text += chunk
    writer.close()
    return text, first_s


async def cpu_s(port: int) -> float:
    processes = psutil.Process().children(recursive=True)
    haproxy = [p.cpu_times() for p in processes if p.name() == "haproxy"]
    return float((await get(port, "/cpu"))[0].split()[-1]) + sum(t.user + t.system for t in haproxy)


async def measure(port: int, tokens: int, streams: int, pace: int, layout: str) -> dict[str, float]:
    before = await cpu_s(port)
    await asyncio.sleep(1)
    used, begin, firsts = await cpu_s(port), time.perf_counter(), list[float]()
    path, repeats = f"/{layout}/{tokens}/{pace}", 1 if pace else 5
    for _ in range(repeats):
        results = await asyncio.gather(*(get(port, path) for _ in range(streams)))
        if not all(text.count(TOKEN) == tokens for text, _ in results):
            raise SystemExit(f"layout {layout} has lost tokens")
        firsts += [first_s for _, first_s in results]
    wall_s, total = time.perf_counter() - begin, tokens * streams * repeats
    spent_s = await cpu_s(port) - used - (used - before) * wall_s
    return {
        "CPU us/token": 1e6 * spent_s / total,
        "tokens/s": total / wall_s,
        "first token ms": 1e3 * median(firsts),
    }


def compare(found: Report, port: int, rounds: int, tokens: int) -> None:
    def side(streams: int, pace: int, layout: str) -> Measure:
        return lambda: asyncio.run(measure(port, tokens, streams, pace, layout))

    for streams, (name, pace) in itertools.product((1, 4, 16), PACES.items()):
        sides = {LAYOUTS[layout]: side(streams, pace, layout) for layout in ("B", "A", "C", "D")}
        found.compare(f"{streams} streams, {name}", in_turns(sides, rounds), LAYOUTS["B"])


def main() -> None:
    arguments = parser(__doc__ or "", rounds=3)
    arguments.add_argument("--tokens", type=int, default=200)
    options = arguments.parse_args()
    found = report("A streamed token between replica and client, by stream layout")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="hop") as folder, served(port, folder):
        compare(found, port, options.rounds, options.tokens)
    found.write()


if __name__ == "__main__":
    main()
