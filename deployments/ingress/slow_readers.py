"""Clients that do not take their answer are cut off: what is computed for them piles up."""

from __future__ import annotations

import asyncio
import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.ingress.observing.request_record import note_cut_off

logger = logging.getLogger("ray.serve")


class UnreadDeadline:
    """Ends a request when one piece of its answer cannot be sent for `seconds`.

    One timer per request, which looks again: one per piece would cost more than the piece.
    """

    def __init__(self, app: ASGIApp, seconds: float) -> None:
        self._app = app
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        loop = asyncio.get_running_loop()
        sending_since: float | None = None
        timer: asyncio.TimerHandle

        async def timed_send(message: Message) -> None:
            nonlocal sending_since
            sending_since = loop.time()
            await send(message)
            sending_since = None

        def look() -> None:
            nonlocal timer
            waited = 0.0 if sending_since is None else loop.time() - sending_since
            if waited >= self._seconds:
                patience.reschedule(loop.time())
            else:
                timer = loop.call_later(self._seconds - waited, look)

        timer = loop.call_later(self._seconds, look)
        try:
            async with asyncio.timeout(None) as patience:
                await self._app(scope, receive, timed_send)
        except TimeoutError:
            if not patience.expired():
                raise
            logger.info("The client did not take its answer.")
            note_cut_off()
        finally:
            timer.cancel()
