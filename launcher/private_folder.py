"""What one running server keeps on disk and nobody else may read."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder with mode 0700 for sockets and secrets, gone afterwards.

    A Unix socket's path may be 107 characters long, so the folder is as near to / as may be.
    """
    with tempfile.TemporaryDirectory(prefix="inference-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def write_token(folder: Path) -> Path:
    """A new random token in a file with mode 0600."""
    path = folder / "ray-token"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return path


def ray_variables(token: Path) -> dict[str, str]:
    """Ray's settings: every call needs the token (the default would be a file of mode 0644)."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
