"""Ctrl-C for the server alone.

A terminal sends it to every process of the foreground group, also to the `make` above us, which
would then report an interrupt instead of our exit status.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_foreground_group() -> Iterator[None]:
    """Be the terminal's foreground group until the end; nothing where there is no terminal."""
    previous = _foreground_group()
    if previous != os.getpgrp() or previous == os.getpid():
        yield
        return
    # A stopped group of its own could not be continued by the shell, which does not know it.
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(sys.stdin.fileno(), os.getpgrp())
    try:
        yield
    finally:
        os.tcsetpgrp(sys.stdin.fileno(), previous)


def _foreground_group() -> int | None:
    """The terminal's foreground group; None without a terminal."""
    return os.tcgetpgrp(sys.stdin.fileno()) if sys.stdin and sys.stdin.isatty() else None
