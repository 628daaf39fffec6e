"""Detectors of streams of points: a sliding window, fitted again and again in the background.

Any replica takes any request: whoever has the lock of a detector owns it, reads what others have
added since, judges the points, and makes them durable before it answers. A point is judged by what
came before it, and joins the window afterwards. Two processes never fit one detector at a time.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice

from models.anomaly.detectors import Detectors
from models.anomaly.stream_features import history_of, with_features
from models.anomaly.stream_points import (
    check_given,
    check_kinds,
    check_names,
    check_settings,
    rows_of,
)
from models.anomaly.stream_state import Stream, StreamStates, Window, key_of, new_generation
from models.errors import (
    InvalidInputError,
    ModelError,
    ModelNotFoundError,
    OverloadedError,
    StorageError,
)
from models.stores.fitting import check_name
from models.types.anomaly import (
    AnomalyScoreRequest,
    FitRequest,
    Row,
    StreamInfo,
    StreamPoint,
    StreamRequest,
    StreamResult,
    StreamStatus,
)

LOGGER = logging.getLogger(__name__)

Judgement = tuple[tuple[StreamPoint, ...], float | None]
"""Points, and the threshold that judged them, None where none was."""
Fitted = tuple[Judgement, int | None]
"""A judgement, and after which point the detector was fitted for it, None where it was not."""

MAX_STREAMS = 10_000
MAX_CACHED = 256
LOCK_CHARS = 16


class StreamingDetectors:
    """Blocking and thread-safe. `library` keeps the fitted detectors, and nothing else."""

    def __init__(self, library: Detectors, clock: Callable[[], float] = time.time) -> None:
        self._library = library
        self._storage = library.store.storage
        self._states = StreamStates(self._storage)
        self._clock = clock
        self._windows: OrderedDict[str, Window] = OrderedDict()
        self._cache_lock = threading.Lock()
        self._retrains: dict[str, threading.Thread] = {}
        self._closing = threading.Event()

    def add(self, request: StreamRequest) -> StreamResult:
        """Judge points and let them join the window; the first request creates the detector.

        Raises InvalidInputError, StorageError, OverloadedError.
        """
        check_name(request.name)
        key = key_of(request.name)
        with self._owned(key):
            stream = self._states.stream(key) or self._create(key, request)
            check_given(stream, request)
            rows = rows_of(stream, request.table)
            window = self._window(key, stream)
            check_kinds(stream, list(islice(window.rows, 1)), rows)
            try:
                (points, threshold), fitted = self._judge(stream, window, rows)
                self._states.append(stream, window, rows)
            except BaseException:
                self._take_back(stream)
                raise
            if fitted is not None:
                self._note_fit(stream, fitted)
            fitted_at = self._states.fitted_at(stream)
        if fitted_at is None:
            return StreamResult(self._info(stream, window.count, None), points, threshold)
        if window.count - fitted_at >= stream.settings.retrain_interval:
            self._retrain_in_background(key, stream)
        return StreamResult(self._info(stream, window.count, fitted_at), points, threshold)

    def list(self) -> list[StreamInfo]:
        infos = []
        for key in self._states.all_keys():
            try:
                stream = self._states.stream(key)
                if stream is not None:
                    infos.append(self._described(stream))
            except StorageError:
                LOGGER.warning("a streaming detector cannot be read and is not listed")
        return sorted(infos, key=lambda info: info.name)

    def get(self, name: str) -> StreamInfo:
        """Raises ModelNotFoundError or StorageError."""
        return self._described(self._stream(name))

    def reset(self, name: str) -> StreamInfo:
        """Forget all points and the fit; the settings stay. Raises as `get`."""
        self._stream(name)
        key = key_of(name)
        with self._owned(key):
            old = self._stream(name)
            new = dataclasses.replace(old, generation=new_generation())
            self._states.create(new)
            self._clear(key, old)
        return self._described(new)

    def delete(self, name: str) -> None:
        """Raises ModelNotFoundError or StorageError."""
        self._stream(name)
        key = key_of(name)
        with self._owned(key):
            old = self._stream(name)
            self._states.delete(key)
            self._clear(key, old)

    def close(self) -> None:
        """Wait for nobody: a fit that is cut short is made again after the next point."""
        self._closing.set()
        self._library.close()

    def settle(self, timeout_s: float = 60.0) -> None:
        """Return when no detector is fitted in the background by this process."""
        for thread in list(self._retrains.values()):
            thread.join(timeout_s)

    def _stream(self, name: str) -> Stream:
        stream = self._states.stream(key_of(name))
        if stream is None:
            raise ModelNotFoundError(name)
        return stream

    def _create(self, key: str, request: StreamRequest) -> Stream:
        if len(self._states.all_keys()) >= MAX_STREAMS:
            raise OverloadedError("There are too many streaming detectors.", retry_after=60.0)
        table, settings = request.table, request.settings
        check_settings(settings)
        names = table.columns or tuple(map(str, range(len(table.rows[0]))))
        stream = Stream(
            name=request.name,
            settings=settings,
            generation=new_generation(),
            columns=tuple(sorted(names)) if table.columns else names,
            named=table.columns is not None,
            created=self._clock(),
        )
        rows = rows_of(stream, table)
        check_kinds(stream, (), rows)
        check_names(stream, rows)
        self._states.create(stream)
        return stream

    def _judge(self, stream: Stream, window: Window, rows: Sequence[Row]) -> Fitted:
        """The first points may complete the window; those after them are judged by the fit."""
        if self._states.fitted_at(stream) is not None:
            return self._scored(stream, list(window.rows), rows), None
        missing = max(0, stream.settings.min_samples - window.count)
        first, rest = rows[:missing], rows[missing:]
        points = tuple(
            StreamPoint(None, None, False, missing - index - 1) for index in range(len(first))
        )
        if len(first) < missing:
            return (points, None), None
        known = [*window.rows, *first][-stream.settings.window_size :]
        if not self._fitted(stream, known):
            unjudged = (StreamPoint(None, None, False) for _ in rest)
            return ((*points, *unjudged), None), None
        judged, threshold = self._scored(stream, known, rest)
        return ((*points, *judged), threshold), window.count + len(first)

    def _scored(self, stream: Stream, known: Sequence[Row], rows: Sequence[Row]) -> Judgement:
        if not rows:
            return (), None
        history = known[len(known) - min(len(known), history_of(stream.settings)) :]
        table = with_features([*history, *rows], stream.columns, stream.settings, len(history))
        request = AnomalyScoreRequest(
            stream.model,
            table,
            threshold=stream.settings.threshold,
            normalization="standardization",
        )
        (result,) = self._library.score([request])
        if isinstance(result, ModelError):
            raise result
        entries = zip(result.scores, result.raw, result.anomalous, strict=True)
        return tuple(StreamPoint(*entry) for entry in entries), result.threshold

    def _fitted(self, stream: Stream, rows: Sequence[Row]) -> bool:
        """Fit, and say whether that could be done with these points.

        The fit counts once its points are durable and the states know of it.
        """
        settings = stream.settings
        request = FitRequest(
            name=stream.model,
            backend=settings.backend,
            table=with_features(rows, stream.columns, settings),
            contamination=settings.contamination,
            parameters=settings.parameters,
            seed=settings.seed,
        )
        try:
            self._library.fit(request, self._closing, wait=True)
        except InvalidInputError as error:
            if error.param is None or not error.param.startswith("data"):
                raise
            LOGGER.info("a streaming detector cannot be fitted to its points yet")
            return False
        return True

    def _note_fit(self, stream: Stream, count: int) -> None:
        """The points are durable already: without the note the next ones are fitted again."""
        try:
            self._states.set_fitted(stream, count)
        except StorageError:
            LOGGER.warning("the fit of a streaming detector could not be noted", exc_info=True)

    def _retrain_in_background(self, key: str, stream: Stream) -> None:
        with self._cache_lock:
            running = self._retrains.get(key)
            if self._closing.is_set() or (running is not None and running.is_alive()):
                return
            thread = threading.Thread(target=self._retrain, args=(key, stream), daemon=True)
            self._retrains[key] = thread
        thread.start()

    def _retrain(self, key: str, stream: Stream) -> None:
        """One process at a time; the others go on with the fit that there is."""
        try:
            with self._storage.try_lock(f"{key[:LOCK_CHARS]}r") as mine:
                if not mine:
                    return
                with self._owned(key):
                    if self._states.stream(key) != stream:
                        return
                    window = self._window(key, stream)
                    rows, count = list(window.rows), window.count
                if self._fitted(stream, rows):
                    self._states.set_fitted(stream, count)
                if self._states.stream(key) != stream:  # deleted or reset meanwhile
                    self._clear(key, stream)
        except (ModelError, OSError):
            LOGGER.warning("a streaming detector could not be fitted again", exc_info=True)

    def _window(self, key: str, stream: Stream) -> Window:
        with self._cache_lock:
            known = self._windows.get(stream.generation)
        window = self._states.catch_up(stream, known)
        with self._cache_lock:
            self._windows[stream.generation] = window
            self._windows.move_to_end(stream.generation)
            while len(self._windows) > MAX_CACHED:
                self._windows.popitem(last=False)
        return window

    def _forget(self, stream: Stream) -> None:
        """What is in memory may be other than what is on disk."""
        with self._cache_lock:
            self._windows.pop(stream.generation, None)

    def _take_back(self, stream: Stream) -> None:
        """Drop what a refused request leaves: its window, and its fit if that was the first."""
        self._forget(stream)
        with suppress(ModelError, OSError):
            if self._states.fitted_at(stream) is None:
                self._library.delete(stream.model)

    def _clear(self, key: str, stream: Stream) -> None:
        """Best effort: what stays is of a generation that nobody looks for."""
        self._forget(stream)
        self._states.forget(key, stream.generation)
        try:
            self._library.delete(stream.model)
        except ModelError:
            return

    def _described(self, stream: Stream) -> StreamInfo:
        fitted_at = self._states.fitted_at(stream)
        return self._info(stream, self._states.count(stream), fitted_at)

    def _info(self, stream: Stream, count: int, fitted_at: int | None) -> StreamInfo:
        thread = self._retrains.get(key_of(stream.name))
        retraining = thread is not None and thread.is_alive()
        status: StreamStatus = "retraining" if retraining else "ready"
        missing = 0
        if fitted_at is None:
            status, missing = "collecting", max(0, stream.settings.min_samples - count)
        return StreamInfo(
            name=stream.name,
            status=status,
            settings=stream.settings,
            samples=count,
            window=min(count, stream.settings.window_size),
            until_ready=missing,
            version=self._version(stream) if fitted_at is not None else 0,
            columns=stream.columns,
            created=stream.created,
        )

    def _version(self, stream: Stream) -> int:
        try:
            return self._library.store.pointer(stream.model).version
        except ModelNotFoundError:
            return 0

    @contextmanager
    def _owned(self, key: str) -> Iterator[None]:
        try:
            with self._storage.lock(key[:LOCK_CHARS]):
                yield
        except OSError as error:
            raise StorageError("The streaming detector cannot be locked.") from error
