"""Less memory while nothing runs: neither Ray nor the C library keeps what nobody will use."""

from __future__ import annotations

import os

VARIABLES = {
    # Ray keeps a started worker per CPU. Replicas have environment variables of their own, which
    # those workers have not, so that none of them is ever used: 47 MB each.
    "RAY_num_workers_soft_limit": "0",
    "RAY_prestart_worker_first_driver": "0",
    # What each of our processes imports anyway, the one that deployments/spare_process.py keeps
    # imports in advance.
    "RAY_preload_python_modules": "ray.serve._private.replica",
    # glibc gives threads their own heaps, up to eight per core, and dozens of threads are idle.
    "MALLOC_ARENA_MAX": "2",
}


def keep_idle_memory_low() -> None:
    """For all processes to come; what the operator has set stays as it is."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
