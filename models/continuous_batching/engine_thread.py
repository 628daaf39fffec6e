"""The thread that owns an engine: it loads, steps and frees it, and obeys the other threads."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from models.base import StepListener
from models.compute_thread import ComputeThread
from models.continuous_batching.decode_loop import DecodeLoop
from models.continuous_batching.places import Places
from models.continuous_batching.sequence import Sequence
from models.errors import (
    EngineDeadError,
    MemoryRefusedError,
    ModelError,
    ModelLoadError,
)

Command = Callable[[DecodeLoop], None]
STEP_SECONDS = 5.0
"""What a step may take before any was seen."""
_log = logging.getLogger(__name__)


class EngineThread:
    """Runs a `DecodeLoop`. The constructor blocks until `load`, called on the thread, is done.

    `listener` is called on the thread, once per step that added anything. At most `max_open`
    requests run or wait. When the loop fails, the thread ends and every open request gets an
    EngineDeadError. Raises ModelLoadError.
    """

    def __init__(
        self, load: Callable[[], DecodeLoop], listener: StepListener, *, max_open: int, name: str
    ) -> None:
        self._listener = listener
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._lock = threading.Lock()
        self._places = Places(max_open)
        self._alive = False
        self._closing = False
        started: SimpleQueue[DecodeLoop | ModelLoadError] = SimpleQueue()
        self._thread = ComputeThread(lambda: self._run(load, started), name, STEP_SECONDS)
        self._thread.start()
        outcome = started.get()
        if isinstance(outcome, ModelLoadError):
            self._thread.join()
            raise outcome
        self.loop = outcome

    @property
    def alive(self) -> bool:
        return self._alive

    def add(self, request_id: str, prepare: Callable[[], Sequence], caller: str = "") -> None:
        """Queue the sequence that `prepare` makes on the calling thread, for one of the callers.

        A request that is cancelled while it is being prepared is dropped. Raises what `prepare`
        raises, InvalidInputError for an id in use, OverloadedError and EngineDeadError.
        """
        with self._lock:
            if not self._alive:
                raise EngineDeadError("the engine has stopped")
            ticket = self._places.take(request_id, caller)
        try:
            sequence = prepare()
        except BaseException:
            with self._lock:
                self._places.leave(request_id)
            raise
        with self._lock:
            if not self._alive:
                raise EngineDeadError("the engine has stopped")
            if self._places.holds(request_id, ticket):
                self._commands.put(lambda loop: loop.submit(sequence))

    def cancel(self, request_id: str) -> None:
        """Drop a request before the next step; unknown ids are ignored."""
        with self._lock:
            if self._places.leave(request_id):
                self._commands.put(lambda loop: loop.cancel(request_id))

    def run(self, command: Command) -> None:
        """Let the thread do something between two steps."""
        self._commands.put(command)

    def close(self) -> None:
        """End the thread after its current step and free everything. May be called twice."""
        self._closing = True
        self._commands.put(lambda loop: None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # --- on the thread ------------------------------------------------------------------------

    def _run(
        self,
        load: Callable[[], DecodeLoop],
        started: SimpleQueue[DecodeLoop | ModelLoadError],
    ) -> None:
        try:
            loop = load()
        except ModelLoadError as error:
            started.put(error)
            return
        except MemoryError:
            started.put(MemoryRefusedError("there is not enough memory to load the model"))
            return
        except Exception as error:
            _log.exception("loading failed")
            started.put(ModelLoadError(f"the model cannot be loaded ({type(error).__name__})"))
            return
        self._alive = True
        started.put(loop)
        try:
            self._serve(loop)
        except BaseException:  # the thread's outermost frame: nobody else can report it
            _log.exception("the engine thread failed")
        finally:
            self._bury(loop)

    def _serve(self, loop: DecodeLoop) -> None:
        while not self._closing:
            self._obey(loop)
            self._thread.begin()
            events = loop.step()
            self._thread.end()
            if events:
                with self._lock:
                    self._places.finish(name for name, event in events if _ends(event))
                self._listener(events)

    def _obey(self, loop: DecodeLoop) -> None:
        """Run the commands that other threads have left; when idle, wait for one."""
        if not loop.busy:
            self._commands.get()(loop)
        while not self._commands.empty():
            self._commands.get()(loop)

    def _bury(self, loop: DecodeLoop) -> None:
        """Free everything on the thread that owns it, and answer whoever still waits."""
        with self._lock:
            self._alive = False
            pending = self._places.leave_all()
        loop.close()
        if not pending:
            return
        try:
            self._listener([(name, EngineDeadError("the engine has stopped")) for name in pending])
        except Exception:  # the listener may be what ended the engine
            _log.exception("open requests could not be told of the engine's end")


def _ends(event: object) -> bool:
    return isinstance(event, ModelError) or getattr(event, "finish_reason", None) is not None
