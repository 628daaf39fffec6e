"""Blocking work beside the event loop. A thread cannot be interrupted."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


async def in_own_thread(work: Callable[..., T], *args: Any) -> T:
    """The result of work that may take minutes, or for ever: it keeps no pool's thread."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result = work(*args)
        except BaseException as error:  # the outermost frame of a thread
            future.set_exception(error)
        else:
            future.set_result(result)

    threading.Thread(target=run, name=work.__name__, daemon=True).start()
    return await asyncio.wrap_future(future)


async def to_the_end(work: Callable[..., T], *args: Any) -> T:
    """The result of short work, which has ended when this returns, also when it is cancelled.

    So what the work uses can be freed afterwards.
    """
    running = asyncio.ensure_future(asyncio.to_thread(work, *args))
    try:
        return await asyncio.shield(running)
    finally:
        if not running.done():
            await asyncio.wait([running])
            running.exception()  # nobody waits for it any more
