"""What the graph costs: CPU per small request, beside a bare Starlette app and stock Ray Serve.

    python benchmarks/graph_overhead.py [--rounds 3] [--seconds 3]

The embedding model is the weightless one, so that all that is measured is the way there and back:
the front, Serve's proxy, the ingress with its schemas and limits, the handle, the replica. Stock is
the same graph with Serve's own settings in place of ours; Starlette is one route in one process
that answers with a vector of the same length and checks nothing. CPU time is that of all processes
of a server.
"""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from typing import Any

from harness import ROOT, Goal, Server, counted, free_port, in_turns, load, parser, report, serving
from peers.processes import peer_server

CLIENTS = (1, 8, 64)
DIMENSIONS = 384
MODEL = "weightless"
ARGS: dict[str, Any] = {
    "models": [
        {
            "id": MODEL,
            "task": "embedding",
            "engine": "toy",
            "source": {"kind": "builtin"},
            "engine_options": {"dimensions": DIMENSIONS},
        }
    ]
}
BODIES = [{"model": MODEL, "input": f"query number {i} about rivers"} for i in range(256)]
CPU, P50, RATE = "CPU ms/request", "p50 ms", "requests/s"
OURS, STOCK, BARE = "the graph", "stock Ray Serve", "bare Starlette"


def measure(server: Server, clients: int, seconds: float) -> dict[str, float]:
    before = server.cpu_seconds()
    done = load(f"{server.url}/v1/embeddings", BODIES, clients=clients, seconds=seconds)
    used = server.cpu_seconds() - before
    return {CPU: 1000 * used / done.requests, P50: 1000 * done.quantile(0.5), RATE: done.rate}


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    found = report("The graph's own cost per small request")
    port = free_port()
    script = ROOT / "benchmarks" / "peers" / "bare_starlette.py"
    with ExitStack() as stack:
        command = [sys.executable, script, str(port), str(DIMENSIONS)]
        servers = {
            OURS: stack.enter_context(serving(ARGS)),
            STOCK: stack.enter_context(serving(ARGS, stock=True)),
            BARE: stack.enter_context(peer_server(command, port)),
        }
        for clients in CLIENTS:
            sides = {
                name: partial(measure, server, clients, options.seconds)
                for name, server in servers.items()
            }
            goals = {(STOCK, CPU): Goal(0.5, at_most=True)}
            found.compare(counted(clients, "client"), in_turns(sides, options.rounds), OURS, goals)
    found.write()


if __name__ == "__main__":
    main()
