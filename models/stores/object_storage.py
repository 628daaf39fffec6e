"""Storage in an object store, through fsspec: S3, Google Cloud Storage, Azure, or a folder.

A write of one object is complete or not there, which is all that `replace` and `add` need: what is
added is found only through an object that is replaced afterwards. Credentials come from where the
store's own fsspec package looks for them. The store must list what has been written at once, as S3
does since 2020.
"""

from __future__ import annotations

import errno
import json
import logging
import random
import secrets
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import fsspec
from fsspec.callbacks import Callback

from models.stores.storage import Copied, ignore

LOGGER = logging.getLogger(__name__)

LEASE_S = 300.0
"""A ticket older than this is of a holder that died: a living one renews its own."""
RENEW_S = 60.0
LONGEST_WAIT_S = 120.0
PAUSE_S = 0.05


class ObjectStorage:
    """`Storage` under a URL such as s3://bucket/prefix."""

    def __init__(self, url: str) -> None:
        try:
            self._fs, self._root = fsspec.url_to_fs(url, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise OSError(f"no file system for {url.partition('://')[0]}://") from error
        self._root = self._root.rstrip("/")

    def read(self, path: str) -> bytes:
        with as_os_errors():
            data: bytes = self._fs.cat_file(self._at(path))
        return data

    def exists(self, path: str) -> bool:
        with as_os_errors():
            return bool(self._fs.exists(self._at(path)))

    def add(self, folder: str, files: Mapping[str, bytes]) -> None:
        try:
            for name, data in files.items():
                self.replace(f"{folder}/{name}", data)
        except OSError:
            self.remove_folder(folder)
            raise

    def replace(self, path: str, data: bytes) -> None:
        target = self._at(path)
        with as_os_errors():
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.pipe_file(target, data)

    def upload(self, source: Path, path: str) -> None:
        target = self._at(path)
        with as_os_errors():
            self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(source), target)

    def download(self, path: str, target: Path, copied: Copied = ignore) -> None:
        with as_os_errors():
            self._fs.get_file(self._at(path), str(target), callback=_listening(copied))

    def remove(self, path: str) -> None:
        with as_os_errors():
            self._fs.rm_file(self._at(path))

    def remove_folder(self, folder: str) -> None:
        try:
            with as_os_errors():
                self._fs.rm(self._at(folder), recursive=True)
        except OSError:
            return

    def folders(self, folder: str) -> list[str]:
        return self._names(folder, "directory")

    def files(self, folder: str) -> list[str]:
        return self._names(folder, "file")

    @contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Raises TimeoutError, an OSError, when the lock stays taken."""
        deadline = time.monotonic() + LONGEST_WAIT_S
        while True:
            with self.try_lock(name) as mine:
                if mine:
                    yield
                    return
            if time.monotonic() > deadline:
                raise TimeoutError("the lock stays taken")
            time.sleep(PAUSE_S * (1 + random.random()))  # noqa: S311 - a back-off, no secret

    @contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Put a ticket down, then look: alone is the holder, everybody else steps back.

        Of two that put a ticket down at once, the one that looks later sees the other's, so that
        never both are alone; they may both step back, and come again after a random pause.
        """
        folder, ticket = f"locks/{name}", secrets.token_hex(16)
        path = f"{folder}/{ticket}"
        self._write_ticket(path)
        try:
            mine = not any(
                self._living(folder, other) for other in self.files(folder) if other != ticket
            )
            with self._renewed(path) if mine else nullcontext():
                yield mine
        finally:
            with suppress(FileNotFoundError):  # whoever took its holder for dead removed it
                self.remove(path)

    def _write_ticket(self, path: str) -> None:
        self.replace(path, json.dumps({"at": time.time()}).encode())

    @contextmanager
    def _renewed(self, path: str) -> Iterator[None]:
        """Keep a ticket young: what is done under a lock, such as a fit, has no bound of time."""
        done = threading.Event()
        thread = threading.Thread(
            target=self._renew, args=(path, done), name="renew-lock", daemon=True
        )
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()  # a write after the ticket's removal would lock everybody out

    def _renew(self, path: str, done: threading.Event) -> None:
        while not done.wait(RENEW_S):
            try:
                self._write_ticket(path)
            except OSError:
                LOGGER.warning("a lock in the object store could not be renewed", exc_info=True)

    def _living(self, folder: str, ticket: str) -> bool:
        """Whether the holder of a ticket may live; the ticket of a dead one is removed."""
        try:
            at = float(json.loads(self.read(f"{folder}/{ticket}"))["at"])
            if time.time() - at < LEASE_S:
                return True
            self.remove(f"{folder}/{ticket}")
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, TypeError):
            return True
        return False

    def _names(self, folder: str, kind: str) -> list[str]:
        path = self._at(folder)
        with as_os_errors():
            self._fs.invalidate_cache()
            try:
                entries: list[dict[str, Any]] = self._fs.ls(path, detail=True)
            except FileNotFoundError:
                return []
        return [entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == kind]

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}"


def _listening(copied: Copied) -> Callback:
    """fsspec tells how many bytes of a file there are so far."""
    before = 0

    def told(size: int | None, value: int, **_: Any) -> None:
        nonlocal before
        del size
        copied(value - before)
        before = value

    return Callback(hooks={"copied": told})


@contextmanager
def as_os_errors() -> Iterator[None]:
    """Every store's package raises errors of its own."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise OSError(errno.EIO, "the object store has failed") from error
