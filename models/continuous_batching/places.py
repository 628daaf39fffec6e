"""Who may run or wait in an engine: a bounded number, and not all of one caller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from models.drain_rate import DrainRate
from models.errors import InvalidInputError, OverloadedError

RESERVED = 4
"""The last quarter is for callers that hold less than a quarter themselves."""


class Places:
    """The open requests by id. The owner locks."""

    def __init__(self, limit: int, rate: DrainRate | None = None) -> None:
        self._limit = limit
        self._callers: dict[str, str] = {}
        self._tickets: dict[str, object] = {}
        self._held: Counter[str] = Counter()
        self._rate = rate or DrainRate()

    def take(self, request_id: str, caller: str) -> object:
        """A ticket, which tells the request from a later one of the same id.

        Raises InvalidInputError for an id in use, and OverloadedError.
        """
        if request_id in self._tickets:
            raise InvalidInputError("a request with this id is already running")
        if not self._has_room(caller):
            wait = self._rate.retry_after(len(self._tickets))
            raise OverloadedError("Too many requests are waiting for this model.", wait)
        self._callers[request_id] = caller
        self._held[caller] += 1
        ticket = self._tickets[request_id] = object()
        return ticket

    def holds(self, request_id: str, ticket: object) -> bool:
        return self._tickets.get(request_id) is ticket

    def finish(self, request_ids: Iterable[str]) -> None:
        """Give the places of completed requests back."""
        count = sum(map(self.leave, request_ids))
        if count:
            self._rate.left(count, more=bool(self._tickets))

    def leave(self, request_id: str) -> bool:
        """Give a place back early; False when there is none."""
        if self._tickets.pop(request_id, None) is None:
            return False
        caller = self._callers.pop(request_id)
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        return True

    def leave_all(self) -> list[str]:
        open_ids = list(self._tickets)
        for request_id in open_ids:
            self.leave(request_id)
        return open_ids

    def _has_room(self, caller: str) -> bool:
        free = self._limit - len(self._tickets)
        if free <= 0:
            return False
        share = self._limit / RESERVED
        return not caller or free > share or self._held[caller] < share
