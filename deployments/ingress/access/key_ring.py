"""The keys that an ingress replica knows: read again when their file changes."""

from __future__ import annotations

import hmac
import logging
import time
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
        self._keys = read_keys(path) if path is not None else environment_keys()
        self._looked = time.monotonic()
        self._allowances: dict[Limits, Allowance] = {}

    @property
    def requires_key(self) -> bool:
        """Also while the file has no keys: then nobody is let in."""
        return self._path is not None or bool(self._keys)

    def find(self, presented: bytes) -> ApiKey | None:
        """The key of these bytes, unless it has expired.

        Every key is compared, as hashes of one size, so that the time tells nothing.
        """
        self._refresh()
        digest = digest_of(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
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

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._path is None or now - self._looked < LOOK_S:
            return
        self._looked = now
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._keys = read_keys(self._path)
            logger.info("Read %d keys.", len(self._keys))
        except KeyFileError as error:
            logger.error("The keys stay as they were: %s", error)


def _stamp(path: Path) -> Stamp | None:
    """What changes with a file; None: there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
