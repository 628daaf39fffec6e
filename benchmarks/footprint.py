"""Start time and idle memory beside bare Ray Serve with two trivial deployments.

    python benchmarks/footprint.py [--rounds 3]

The peer is what Ray's documentation starts with: `serve run` on an ingress and one more deployment,
with Ray's own defaults. Both are started in turns; memory is the proportional set size of all
processes, ten seconds after the first answer.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import psutil
from harness import Server, first_answer, free_port, in_turns, parser, report, serving

SETTLE_S = 10
GOAL_MB = 1000
"""All tasks at zero, every process counted."""
START, MEMORY, OURS = "s to the first 200", "idle PSS MB", "this server"
Figures = dict[str, float]
PEER = """
from ray import serve

@serve.deployment
class Inner:
    def answer(self):
        return "ok"

@serve.deployment
class Outer:
    def __init__(self, inner):
        self.inner = inner
    async def __call__(self, request):
        return await self.inner.answer.remote()

app = Outer.bind(Inner.bind())
"""


@contextmanager
def bare_serve() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "peer.py").write_text(PEER)
        port = free_port()
        config = Path(folder) / "peer.yaml"
        config.write_text(
            f"http_options: {{host: 127.0.0.1, port: {port}}}\n"
            "applications: [{name: peer, route_prefix: /, import_path: 'peer:app'}]\n"
        )
        command = [str(Path(sys.executable).parent / "serve"), "run", str(config)]
        begin = time.monotonic()
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            url = f"http://127.0.0.1:{port}"
            asyncio.run(first_answer(url, process))
            yield Server(url, process, time.monotonic() - begin)
        finally:
            tree = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            process.wait(60)
            for left in psutil.wait_procs(tree, timeout=10)[1]:
                left.kill()


def holders(server: Server) -> Counter[str]:
    """MB by process: Ray's titles, or what the command line runs."""
    found: Counter[str] = Counter()
    for process in server.processes():
        try:
            title = process.cmdline()
            found[_name(title)] += round(process.memory_full_info().pss / 1e6)
        except psutil.Error:  # ended meanwhile
            continue
    return found


def _name(title: list[str]) -> str:
    if title[0].startswith("ray::"):
        return title[0].strip()
    words = [word for word in title if not word.startswith("-")]
    scripts = [word for word in words[1:] if word.endswith(".py") or word == "launcher"]
    return Path(scripts[0] if scripts else words[0]).name


def measure(start: Callable[[], AbstractContextManager[Server]], held: Counter[str]) -> Figures:
    """Of one start; `held` becomes what each process holds."""
    with start() as server:
        time.sleep(SETTLE_S)
        held.clear()
        held.update(holders(server))
        return {START: server.started_s, MEMORY: server.pss_bytes() / 1e6}


def main() -> None:
    options = parser(__doc__ or "", rounds=3).parse_args()
    found = report("Start and idle memory, to bare Ray Serve")
    held: Counter[str] = Counter()
    sides = {
        OURS: partial(measure, serving, held),
        "bare Ray Serve": partial(measure, bare_serve, Counter()),
    }
    rounds = in_turns(sides, options.rounds, warm=False)
    found.compare("all tasks at zero", rounds, OURS)
    memory = statistics.median(rounds.values[OURS][MEMORY])
    found.note("idle PSS of all processes", f"{memory:.0f} MB (goal: at most {GOAL_MB})")
    found.note("by process, MB", ", ".join(f"{name} {size}" for name, size in held.most_common()))
    found.write()


if __name__ == "__main__":
    main()
