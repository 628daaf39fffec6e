"""From token pieces to text that may be sent: whole characters, and nothing of a stop string."""

from __future__ import annotations

import codecs
from collections import deque
from dataclasses import dataclass

from models.types.generation import TokenLogprob


@dataclass(frozen=True, slots=True)
class Emission:
    """Text that is final, and the log probabilities of the tokens whose text it completes."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class Detokenizer:
    """Joins the byte pieces of one completion.

    A character split over tokens waits for its last byte, and text that may be the beginning of a
    stop string waits until it is known not to be; `stopped` becomes True once a stop string is
    complete, and neither it nor anything after it is ever emitted. Bytes that are not UTF-8
    become U+FFFD; a character still incomplete at the end is dropped.
    """

    def __init__(self, stop: tuple[str, ...] = ()) -> None:
        self.stopped = False
        self._stop = stop
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._emitted = 0
        self._logprobs: deque[tuple[int, int, TokenLogprob]] = deque()

    @property
    def mid_character(self) -> bool:
        """The last token ended within a character, whose other bytes are still to come."""
        return bool(self._decoder.getstate()[0])

    def push(
        self, piece: bytes, logprob: TokenLogprob | None = None, *, check_stop: bool = True
    ) -> Emission:
        """Add one token's bytes; returns what can be sent because of it.

        Without `check_stop` all of it is sent, whatever stop strings it completes or begins.
        """
        start = self._emitted + len(self._held)
        self._held += self._decoder.decode(piece)
        if logprob is not None:
            end = self._emitted + len(self._held) + self.mid_character
            self._logprobs.append((start, end, logprob))
        if not self._stop or not check_stop:
            return self._emit(len(self._held))
        found = [index for text in self._stop if (index := self._held.find(text)) >= 0]
        if found:
            self.stopped = True
            return self._cut(min(found))
        return self._emit(len(self._held) - self._ambiguous_tail())

    def flush(self) -> Emission:
        """What was held back, when the completion ends for another reason than a stop string."""
        return self._cut(len(self._held))

    def _ambiguous_tail(self) -> int:
        """Length of the longest end of the held text that begins a stop string."""
        longest = 0
        for text in self._stop:
            for size in range(min(len(text) - 1, len(self._held)), longest, -1):
                if self._held.endswith(text[:size]):
                    longest = size
                    break
        return longest

    def _emit(self, size: int) -> Emission:
        text, self._held = self._held[:size], self._held[size:]
        self._emitted += size
        ready = []
        while self._logprobs and self._logprobs[0][1] <= self._emitted:
            ready.append(self._logprobs.popleft()[2])
        return Emission(text, tuple(ready))

    def _cut(self, size: int) -> Emission:
        """Emit `size` held characters as the last ones, with every token that starts in them."""
        end = self._emitted + size
        whole = size == len(self._held)
        kept = tuple(item for start, _, item in self._logprobs if whole or start < end)
        self._logprobs.clear()
        text, self._held, self._emitted = self._held[:size], "", end
        return Emission(text, kept)
