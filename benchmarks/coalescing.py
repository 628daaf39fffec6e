"""CPU per small embedding request, with coalescing in the ingress and without.

    python benchmarks/coalescing.py [--rounds 5] [--seconds 4]

Two servers on the same weights, loaded in turns; CPU time is that of all processes of a server,
the load generator's not included.
"""

from __future__ import annotations

import argparse

from harness import Server, load, ratio, serving, spread

CLIENTS = (1, 8, 64)
BODIES = [
    {"model": "all-minilm-l6-v2", "input": f"query number {i} about rivers"} for i in range(256)
]


def measure(server: Server, clients: int, seconds: float) -> tuple[float, float]:
    """(CPU milliseconds per request, requests per second)."""
    before = server.cpu_seconds()
    done = load(f"{server.url}/v1/embeddings", BODIES, clients=clients, seconds=seconds)
    return 1000 * (server.cpu_seconds() - before) / done.requests, done.rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    options = parser.parse_args()
    with serving() as joined, serving({"coalescing": {"enabled": False}}) as separate:
        for server in (joined, separate):
            measure(server, 8, options.seconds)  # wakes the task, loads the model
        print("| clients | CPU ms/request, coalesced | separate | CPU ratio | rate ratio |")
        print("|---|---|---|---|---|")
        for clients in CLIENTS:
            pairs = [
                [measure(server, clients, options.seconds) for server in (joined, separate)]
                for _ in range(options.rounds)
            ]
            cpu = [[pair[side][0] for pair in pairs] for side in (0, 1)]
            rate = [[pair[side][1] for pair in pairs] for side in (0, 1)]
            print(
                f"| {clients} | {spread(cpu[0])} | {spread(cpu[1])} "
                f"| {ratio(cpu[0], cpu[1]):.2f} | {ratio(rate[0], rate[1]):.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
