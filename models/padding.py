"""How much of a batch was padding: counted where rectangles are made, read by who ran the batch.

Per thread: a batch is formed and split on one compute thread.
"""

from __future__ import annotations

import threading


class _Tally(threading.local):
    positions = 0


_tally = _Tally()


def note_padding(positions: int) -> None:
    """Positions of the running batch that hold no token."""
    _tally.positions += positions


def take_padding() -> int:
    """What was noted on this thread since the last call."""
    positions, _tally.positions = _tally.positions, 0
    return positions
