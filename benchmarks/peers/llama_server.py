"""llama-server out of the prebuilt xllamacpp wheel, in a process of its own. Runs in the peer's own
environment, which `benchmarks/llama_server.py` makes. Prints its port, ends when stdin closes.

    python llama_server.py MODEL.gguf SLOTS CELLS
"""

from __future__ import annotations

import sys

import xllamacpp


def main() -> None:
    path, slots, cells = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel, params.n_ctx, params.kv_unified = slots, cells, True
    params.n_batch = params.n_ubatch = 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cont_batching = True
    params.verbosity = -1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    print(xllamacpp.get_system_info(), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
