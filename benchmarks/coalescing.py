"""CPU per small embedding request, with coalescing in the ingress and without.

    python benchmarks/coalescing.py [--rounds 3] [--seconds 3]

Two servers on the same weights, loaded in turns; CPU time is that of all processes of a server,
the load generator's not included.
"""

from __future__ import annotations

from functools import partial

from harness import Goal, Server, counted, in_turns, load, parser, report, serving

CLIENTS = (1, 8, 64)
BODIES = [
    {"model": "all-minilm-l6-v2", "input": f"query number {i} about rivers"} for i in range(256)
]
CPU, RATE = "CPU ms/request", "requests/s"
APART = "one call per request"
GOALS = {(APART, CPU): Goal(1.05, at_most=True)}


def measure(server: Server, clients: int, seconds: float) -> dict[str, float]:
    before = server.cpu_seconds()
    done = load(f"{server.url}/v1/embeddings", BODIES, clients=clients, seconds=seconds)
    return {CPU: 1000 * (server.cpu_seconds() - before) / done.requests, RATE: done.rate}


def main() -> None:
    options = parser(__doc__ or "").parse_args()
    found = report("Small embedding requests, coalesced in the ingress and not")
    with serving() as joined, serving({"coalescing": {"enabled": False}}) as separate:
        for clients in CLIENTS:
            sides = {
                name: partial(measure, server, clients, options.seconds)
                for name, server in (("coalesced", joined), (APART, separate))
            }
            rounds = in_turns(sides, options.rounds)
            found.compare(counted(clients, "client"), rounds, "coalesced", GOALS)
    found.write()


if __name__ == "__main__":
    main()
