"""Taking named members out of a package's archive, a zip file whose content is not trusted."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from models.errors import ModelLoadError
from weights.safety import is_data_file

MAX_MEMBERS = 10_000
MAX_BYTES = 64 << 30
MAX_RATIO = 200
"""Weights barely compress; beyond 64 MiB a larger ratio is a decompression bomb."""


def unpack_folder(archive: Path, member: str, target: Path) -> None:
    """Copy the data files below `member` (ends in "/") to `target`, under their relative names.

    Files that no engine reads as data (Python code, pickles, readme files) stay behind.
    Raises ModelLoadError.
    """
    with _opened(archive) as zipped:
        infos = [
            info
            for info in zipped.infolist()
            if info.filename.startswith(member) and not info.is_dir()
        ]
        chosen = [info for info in infos if is_data_file(info.filename)]
        _check_members(chosen)
        for info in chosen:
            path = target / info.filename[len(member) :]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                _copy(zipped, info, file)


def unpack_file(archive: Path, member: str, file: IO[bytes]) -> None:
    """Append the content of one member to `file`. Raises ModelLoadError."""
    with _opened(archive) as zipped:
        infos = [info for info in zipped.infolist() if info.filename == member]
        _check_members(infos)
        _copy(zipped, infos[0], file)


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(archive) as zipped:
            yield zipped
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise ModelLoadError(f"The package's archive is broken: {error}") from error


def _check_members(infos: list[zipfile.ZipInfo]) -> None:
    if not infos:
        raise ModelLoadError("The package does not contain the member that the catalogue names.")
    names = {info.filename for info in infos}
    if len(names) != len(infos) or len(infos) > MAX_MEMBERS:
        raise ModelLoadError("The package's archive names a member twice or has too many members.")
    if sum(info.file_size for info in infos) > MAX_BYTES:
        raise ModelLoadError("The package's archive unpacks to an absurd size.")
    for info in infos:
        if fault := _fault(info):
            raise ModelLoadError(f"The package's archive is refused: a member {fault}.")


def _fault(info: zipfile.ZipInfo) -> str | None:
    name = info.filename
    path = PurePosixPath(name)
    # what follows a folder and a second "/" would be an absolute path
    if path.is_absolute() or ".." in path.parts or any(part in name for part in ("\\", ":", "//")):
        return "leads outside its folder"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is not a regular file"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.file_size > 64 << 20 and info.file_size > MAX_RATIO * info.compress_size:
        return "unpacks to an absurd size"
    return None


def _copy(zipped: zipfile.ZipFile, info: zipfile.ZipInfo, file: IO[bytes]) -> None:
    with zipped.open(info) as content:
        shutil.copyfileobj(content, file, 1 << 20)
