"""Where files outside the source tree go by default, as the environment says."""

from __future__ import annotations

import os
from pathlib import Path

APP_DIRECTORY = "inference-server"


def with_home(path: Path) -> Path:
    """The path with a leading `~` replaced, as a shell does; settings come through none."""
    try:
        return path.expanduser()
    except RuntimeError:  # no such user
        return path


def _xdg(variable: str, fallback: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / fallback)


def default_weights_dir() -> Path:
    """`$INFERENCE_WEIGHTS_DIR`, else a folder in the user's cache directory."""
    chosen = os.environ.get("INFERENCE_WEIGHTS_DIR")
    if chosen:
        return with_home(Path(chosen))
    return _xdg("XDG_CACHE_HOME", ".cache") / APP_DIRECTORY / "weights"


def default_data_dir() -> Path:
    """`$INFERENCE_DATA_DIR`, else a folder in the user's data directory."""
    chosen = os.environ.get("INFERENCE_DATA_DIR")
    if chosen:
        return with_home(Path(chosen))
    return _xdg("XDG_DATA_HOME", ".local/share") / APP_DIRECTORY
