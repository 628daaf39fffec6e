"""Weights that the operator keeps on disk, under one of the allowed folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from config.catalog import PathSource
from config.paths import with_home
from models.errors import ModelLoadError
from weights.safety import check_weights, file_names
from weights.selection import part_names


def locate_local(source: PathSource, roots: Sequence[Path]) -> Path:
    """The file or folder, after resolving every symbolic link.

    A relative path is looked up below each of `roots`. What lies, or leads by a link, outside all
    of them is treated as if it did not exist. Raises ModelLoadError, without the path.
    """
    allowed = [root.resolve() for root in roots]
    for candidate in _candidates(source, allowed):
        path = candidate.resolve()
        if path.exists() and _is_below(path, allowed):
            path = _named(candidate, path, allowed)
            _check_links(path, allowed)
            check_weights(path)
            return path
    raise ModelLoadError(
        "There is nothing at the path of its catalogue entry below the server's `model_roots`."
    )


def _candidates(source: PathSource, roots: Sequence[Path]) -> Iterator[Path]:
    path = with_home(Path(source.path))
    yield from [path] if path.is_absolute() else [root / path for root in roots]


def _named(candidate: Path, path: Path, roots: Sequence[Path]) -> Path:
    """A linked file by the link's name: that of what it leads to may not tell the format."""
    named = candidate.parent.resolve() / candidate.name
    return named if path.is_file() and _is_below(named, roots) else path


def _is_below(path: Path, roots: Sequence[Path]) -> bool:
    return any(path.is_relative_to(root) for root in roots)


def _check_links(path: Path, roots: Sequence[Path]) -> None:
    single = path.is_file()
    folder = path.parent if single else path
    for name in part_names(path.name) if single else file_names(path):
        if not _is_below((folder / name).resolve(), roots):
            raise ModelLoadError(f"{name} is a link that leads outside the server's `model_roots`.")
