"""Processes of ours that read files from strangers and may be killed at any time."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from models.errors import ModelLoadError


class ChildProcess:
    """One script that answers on its standard output what it reads from its standard input.

    Used by one thread at a time; `kill` may come from any. A child that ended, for whatever reason,
    shows as EOFError or BrokenPipeError.
    """

    def __init__(
        self, script: Path, arguments: Sequence[object], inherited: Sequence[int] = ()
    ) -> None:
        self._killed = False
        # -I: neither the working directory nor the environment decides what the child imports.
        command = [sys.executable, "-I", str(script), *map(str, arguments)]
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own script, no shell
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=inherited,
            )
        except OSError as error:
            raise ModelLoadError("The process that reads files could not be started.") from error

    @property
    def alive(self) -> bool:
        return not self._killed and self._process.poll() is None

    def kill(self) -> None:
        self._killed = True
        self._process.kill()

    def stop(self) -> None:
        """Kill the process and bury it."""
        self._process.kill()
        self._process.communicate()

    def send(self, *parts: bytes) -> None:
        stdin, _ = self._pipes()
        for part in parts:
            stdin.write(part)
        stdin.flush()

    def receive(self, count: int) -> bytes:
        data = self._pipes()[1].read(count)
        if len(data) < count:
            raise EOFError
        return data

    def receive_into(self, buffer: memoryview) -> None:
        """Fill the buffer, bytes."""
        stdout = self._pipes()[1]
        while buffer:
            count = stdout.readinto(buffer)  # type: ignore[attr-defined]  # typeshed: IO
            if not count:
                raise EOFError
            buffer = buffer[count:]

    @contextmanager
    def killed_after(self, seconds: float) -> Iterator[None]:
        """Kill the process if the block takes longer."""
        timer = threading.Timer(seconds, self.kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        stdin, stdout = self._process.stdin, self._process.stdout
        if stdin is None or stdout is None:
            raise EOFError
        return stdin, stdout
