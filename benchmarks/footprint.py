"""Start time and idle memory beside bare Ray Serve with two trivial deployments.

    python benchmarks/footprint.py [--rounds 3]

The peer is what Ray's documentation starts with: `serve run` on an ingress and one more deployment,
with Ray's own defaults. Both are started in turns; memory is the proportional set size of all
processes, ten seconds after the first answer, and then process by process for the last start of
this server. It exits with 1 when that is more than an idle server may hold.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from harness import Server, first_answer, free_port, ratio, serving, spread

SETTLE_S = 10
GOAL_MB = 1000
"""All tasks at zero, every process counted."""
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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    start: tuple[list[float], list[float]] = ([], [])
    memory: tuple[list[float], list[float]] = ([], [])
    held: Counter[str] = Counter()
    for _ in range(rounds):
        for side, start_server in enumerate((serving, bare_serve)):
            with start_server() as server:
                time.sleep(SETTLE_S)
                start[side].append(server.started_s)
                memory[side].append(server.pss_bytes() / 1e6)
                if not side:
                    held = holders(server)
    print("| | this server | bare Ray Serve | ratio |")
    print("|---|---|---|---|")
    for name, (ours, peers) in (("start to first 200, s", start), ("idle PSS, MB", memory)):
        print(f"| {name} | {spread(ours)} | {spread(peers)} | {ratio(ours, peers):.2f} |")
    print("\n| process | PSS, MB |\n|---|---|")
    for name, size in held.most_common():
        print(f"| {name} | {size} |")
    return int(statistics.median(memory[0]) > GOAL_MB)


if __name__ == "__main__":
    sys.exit(main())
