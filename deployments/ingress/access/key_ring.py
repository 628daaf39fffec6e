"""The keys that an ingress replica knows: read again when their file changes."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Iterable
from pathlib import Path

from config.access import ApiKey, KeyFileError, digest_of, environment_keys, read_keys
from deployments.ingress.access.rate_limits import Allowance

LOOK_S = 1.0
Stamp = tuple[int, int, int]
Limits = tuple[str, int | None, int | None]

logger = logging.getLogger("ray.serve")


class KeyRing:
    """The keys of a file, or of the environment where there is no file.

    A file that is missing or broken when it is read again changes nothing: the keys of the last
    good one hold, and the log says so.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp = _stamp(path) if path is not None else None
        self._keys = _by_digest(read_keys(path) if path is not None else environment_keys())
        self._looked = time.monotonic()
        self._allowances: dict[Limits, Allowance] = {}

    @property
    def requires_key(self) -> bool:
        """Also while the file has no keys: then nobody is let in."""
        return self._path is not None or bool(self._keys)

    def find(self, presented: bytes) -> ApiKey | None:
        """The key of these bytes, unless it has expired.

        It is looked up by its SHA-256: how long that takes tells of a digest that nobody can
        choose, and so nothing of any key.
        """
        found = self._keys.get(digest_of(presented))
        if found is not None and found.expires is not None and found.expires <= time.time():
            return None
        return found

    def allowance(self, key: ApiKey) -> Allowance:
        """What the key has left; it survives a new reading of the file."""
        limits = (key.name, key.requests_per_minute, key.tokens_per_minute)
        allowance = self._allowances.get(limits)
        if allowance is None:
            allowance = self._allowances[limits] = Allowance(*limits[1:])
        return allowance

    async def refresh(self) -> None:
        """Read the file again if it has changed, in a thread; meanwhile others use what there was.

        Ten thousand keys are seconds of parsing.
        """
        now = time.monotonic()
        if self._path is None or now - self._looked < LOOK_S:
            return
        self._looked = math.inf  # nobody else looks until this has ended
        try:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                await self._read(self._path)
                self._stamp = stamp
        finally:
            self._looked = now

    async def _read(self, path: Path) -> None:
        try:
            self._keys = _by_digest(await asyncio.to_thread(read_keys, path))
            logger.info("Read %d keys.", len(self._keys))
        except KeyFileError as error:
            logger.error("The keys stay as they were: %s", error)


def _by_digest(keys: Iterable[ApiKey]) -> dict[bytes, ApiKey]:
    return {key.digest: key for key in keys}


def _stamp(path: Path) -> Stamp | None:
    """What changes with a file; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
