"""Streams of points: windows, features, fits in the background, and what survives."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.anomaly import stream_state, streaming
from models.anomaly.detectors import Detectors
from models.anomaly.stream_features import with_features
from models.anomaly.stream_state import Stream, StreamStates, Window, new_generation
from models.anomaly.streaming import StreamingDetectors
from models.errors import InvalidInputError, ModelNotFoundError, StorageError
from models.stores.storage import open_storage
from models.types.anomaly import StreamRequest, StreamResult, StreamSettings, Table

SETTINGS = StreamSettings(min_samples=20, retrain_interval=30, window_size=50, contamination=0.05)
POINTS = np.random.default_rng(0).normal(size=(400, 2)).tolist()
ODD = [40.0, -40.0]


@pytest.fixture(params=["files", "objects"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "files" else f"memory://{uuid.uuid4().hex}"


def replica(root: str) -> StreamingDetectors:
    return StreamingDetectors(Detectors(root=root, n_threads=1), clock=lambda: 1000.0)


@pytest.fixture
def streams(root: str) -> Iterator[StreamingDetectors]:
    made = replica(root)
    yield made
    made.settle()
    made.close()


def feed(
    streams: StreamingDetectors,
    points: Any,
    name: str = "pump",
    settings: StreamSettings = SETTINGS,
    **fields: Any,
) -> StreamResult:
    table = Table(tuple(map(tuple, points)))
    return streams.add(StreamRequest(name, table, settings, **fields))


def test_points_are_collected_then_judged(streams: StreamingDetectors) -> None:
    collected = feed(streams, POINTS[:19])
    assert collected.info.status == "collecting"
    assert collected.info.until_ready == 1
    assert [point.until_ready for point in collected.points] == [*range(19, 0, -1)]
    assert all(point.score is None and not point.anomalous for point in collected.points)
    judged = feed(streams, [POINTS[19], POINTS[20], ODD])
    assert (judged.info.status, judged.info.samples, judged.info.version) == ("ready", 22, 1)
    assert [point.score is None for point in judged.points] == [True, False, False]
    assert judged.points[2].anomalous
    assert judged.points[2].score > judged.points[1].score  # type: ignore[operator]


def test_a_point_is_judged_by_what_came_before_it(streams: StreamingDetectors) -> None:
    """Alone or among others, and whatever comes after it."""
    feed(streams, POINTS[:20])
    feed(streams, POINTS[:20], "other")
    together = feed(streams, [*POINTS[20:24], ODD])
    alone = [feed(streams, [point], "other").points[0] for point in [*POINTS[20:24], ODD]]
    assert list(together.points) == alone


def test_it_is_fitted_again_on_the_last_points(streams: StreamingDetectors) -> None:
    feed(streams, POINTS[:20])
    shifted = (np.array(POINTS[:60]) + 100).tolist()
    assert feed(streams, shifted[:1]).points[0].anomalous
    info = feed(streams, shifted[1:]).info
    assert info.window == 50
    streams.settle()
    after = feed(streams, shifted[:1])
    assert (after.info.version, after.info.status) == (2, "ready")
    assert not after.points[0].anomalous
    assert feed(streams, [POINTS[0]]).points[0].anomalous


def test_another_replica_goes_on_where_this_one_was(root: str, streams: StreamingDetectors) -> None:
    other = replica(root)
    feed(streams, POINTS[:20])
    results = [
        feed((streams, other)[turn % 2], [point]).points[0]
        for turn, point in enumerate([*POINTS[20:40], ODD])
    ]
    assert other.get("pump").samples == 41
    alone = replica(root)
    feed(alone, POINTS[:20], "alone")
    assert results == [feed(alone, [p], "alone").points[0] for p in [*POINTS[20:40], ODD]]
    for made in (other, alone):
        made.settle()
        made.close()


def test_no_acknowledged_point_is_lost(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the journal has been folded into a snapshot."""
    monkeypatch.setattr(stream_state, "SEGMENTS", 7)
    never = StreamSettings(min_samples=1000, window_size=1000)
    for turn in range(30):
        feed(replica(root), [[float(turn), 1.0]], settings=never)
    last = replica(root)
    assert last.get("pump").samples == 30
    stream = last._stream("pump")
    window = last._states.catch_up(stream, None)
    assert [row[0] for row in window.rows] == [float(turn) for turn in range(30)]
    assert len(window.segments) < 7


def test_a_window_from_before_a_snapshot_is_read_anew(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two replicas in turn: one folds the journal while the other knows an older window."""
    monkeypatch.setattr(stream_state, "SEGMENTS", 4)
    states = [StreamStates(open_storage(root)) for _ in range(2)]
    settings = StreamSettings(min_samples=1000, window_size=1000)
    stream = Stream("pump", settings, new_generation(), ("0",), False, 1000.0)
    states[0].create(stream)
    windows: list[Window | None] = [None, None]
    for turn, who in enumerate([0, 0, 1, 0, 1, 1, 0, 0, 1, 1]):
        window = windows[who] = states[who].catch_up(stream, windows[who])
        states[who].append(stream, window, [(float(turn),)])
    for who in range(2):
        window = states[who].catch_up(stream, windows[who])
        assert (window.count, states[who].count(stream)) == (10, 10)
        assert [row[0] for row in window.rows] == [float(turn) for turn in range(10)]


def test_a_full_disk_refuses_points_and_keeps_those_before(
    root: str, streams: StreamingDetectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed(streams, POINTS[:10])
    with monkeypatch.context() as patch:

        def full(path: str, data: bytes) -> None:
            raise OSError(28, "no space left")

        patch.setattr(streams._storage, "replace", full)
        with pytest.raises(StorageError):
            feed(streams, POINTS[10:15])
    assert streams.get("pump").samples == 10
    assert feed(streams, POINTS[10:15]).info.samples == 15


@pytest.mark.parametrize("part", ["append", "score"])
def test_a_refused_request_leaves_no_fit(
    streams: StreamingDetectors, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise StorageError("The streaming detector could not be stored.")

    feed(streams, POINTS[:10])
    with monkeypatch.context() as patch:
        patch.setattr(streams._states if part == "append" else streams._library, part, refuse)
        with pytest.raises(StorageError):
            feed(streams, POINTS[10:25])
    info = streams.get("pump")
    assert (info.status, info.samples, info.until_ready, info.version) == ("collecting", 10, 10, 0)
    assert streams._library.list() == []
    again = feed(streams, POINTS[10:25])
    assert (again.info.status, again.info.samples, again.info.version) == ("ready", 25, 1)
    assert [point.score is None for point in again.points] == [True] * 10 + [False] * 5


def test_points_are_answered_where_only_the_note_of_their_fit_is_lost(
    streams: StreamingDetectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are durable: a client that was refused would send them twice."""

    def refuse(*args: Any, **options: Any) -> None:
        raise StorageError("The streaming detector could not be stored.")

    with monkeypatch.context() as patch:
        patch.setattr(streams._states, "set_fitted", refuse)
        assert feed(streams, POINTS[:25]).info.status == "collecting"
    again = feed(streams, POINTS[25:26])
    assert (again.info.status, again.info.samples) == ("ready", 26)


def test_reset_and_delete_forget_everything(streams: StreamingDetectors) -> None:
    feed(streams, POINTS[:25])
    assert [info.name for info in streams.list()] == ["pump"]
    info = streams.reset("pump")
    assert (info.status, info.samples, info.version) == ("collecting", 0, 0)
    assert info.settings == SETTINGS
    assert feed(streams, POINTS[:3]).points[0].until_ready == 19
    streams.delete("pump")
    assert streams.list() == []
    assert streams._library.list() == []
    for call in (streams.get, streams.reset, streams.delete):
        with pytest.raises(ModelNotFoundError):
            call("pump")


def test_what_is_fixed_cannot_be_changed(streams: StreamingDetectors) -> None:
    feed(streams, POINTS[:3])
    other = StreamSettings(min_samples=21, retrain_interval=30, window_size=50, contamination=0.05)
    feed(streams, POINTS[:3], settings=other)
    with pytest.raises(InvalidInputError) as caught:
        feed(streams, POINTS[:3], settings=other, given=("backend", "min_samples"))
    assert caught.value.param == "min_samples"
    for rows in ([[1.0]], [[1.0, None]], [[1.0, float("nan")]], [[1.0, 2.0], [1.0]]):
        with pytest.raises(InvalidInputError):
            feed(streams, rows)
    with pytest.raises(InvalidInputError):
        streams.add(StreamRequest("pump", Table(((1.0, 2.0),), ("a", "b")), SETTINGS))
    with pytest.raises(InvalidInputError):
        feed(streams, POINTS[:3], "../x")
    assert streams.get("pump").samples == 6


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        (StreamSettings(min_samples=51, window_size=50), "min_samples"),
        (StreamSettings(backend="auto", parameters=(("n_bins", 5),)), "parameters"),
        (StreamSettings(backend="knn", parameters=(("n_bins", 5),)), "parameters.n_bins"),
        (StreamSettings(backend="one_class_svm", window_size=50_001), "window_size"),
    ],
)
def test_settings_that_could_never_be_fitted_are_refused_at_once(
    streams: StreamingDetectors, settings: StreamSettings, param: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        feed(streams, POINTS[:1], settings=settings)
    assert caught.value.param == param
    assert streams.list() == []


def test_a_column_cannot_be_called_as_a_feature_is(streams: StreamingDetectors) -> None:
    table = Table(((1.0, 2.0),), ("flow", "flow_lag_1"))
    with pytest.raises(InvalidInputError, match="'flow_lag_1'") as caught:
        streams.add(StreamRequest("pump", table, LAGGED))
    assert caught.value.param == "data"
    assert streams.list() == []


LAGGED = StreamSettings(min_samples=20, window_size=50, rolling_windows=(3,), lag_periods=(1,))


@pytest.mark.parametrize("settings", [SETTINGS, LAGGED], ids=["plain", "features"])
@pytest.mark.parametrize("size", [10**400, -(10**400), float("inf")], ids=["+", "-", "infinite"])
def test_numbers_beyond_float64_are_refused_while_points_are_collected(
    streams: StreamingDetectors, settings: StreamSettings, size: float
) -> None:
    with pytest.raises(InvalidInputError):
        feed(streams, [[1.0, size]], settings=settings)
    assert streams.list() == []
    feed(streams, POINTS[:5], settings=settings)
    with pytest.raises(InvalidInputError) as caught:
        feed(streams, [POINTS[5], [1.0, size]], settings=settings)
    assert caught.value.param == "data.1"
    assert feed(streams, POINTS[5:30], settings=settings).info.samples == 30
    feed(streams, [[10**300, -3]], "large", settings)


@pytest.mark.parametrize("settings", [SETTINGS, LAGGED], ids=["plain", "features"])
def test_a_column_is_of_the_kind_that_its_first_point_has(
    streams: StreamingDetectors, settings: StreamSettings
) -> None:
    mixed = [["n/a", 1.0, True], [1.0, 1.0, True]]
    with pytest.raises(InvalidInputError) as caught:
        feed(streams, mixed, settings=settings)
    assert caught.value.param == "data.1"
    assert "column '0'" in caught.value.message
    assert streams.list() == []
    points = [["ab"[turn % 2], value, turn % 3 == 0] for turn, (value, _) in enumerate(POINTS)]
    feed(streams, points[:1], settings=settings)
    for other in ([1.0, 1.0, True], ["a", "n/a", True], ["a", True, True], ["a", 1.0, 1]):
        with pytest.raises(InvalidInputError) as caught:
            feed(streams, [points[1], other], settings=settings)
        assert caught.value.param == "data.1"
    ready = feed(streams, [["new", 3, False], *points[2:45]], settings=settings)
    assert (ready.info.status, ready.info.samples) == ("ready", 45)
    with pytest.raises(InvalidInputError):
        feed(streams, [[1.0, 1.0, True]], settings=settings)


def test_a_reset_forgets_what_kind_the_columns_are(streams: StreamingDetectors) -> None:
    feed(streams, [["n/a", 1.0]], settings=LAGGED)
    with pytest.raises(InvalidInputError):
        feed(streams, POINTS[:1], settings=LAGGED)
    streams.reset("pump")
    assert feed(streams, POINTS[:30], settings=LAGGED).info.status == "ready"


def test_named_points_come_in_any_order_of_keys(streams: StreamingDetectors) -> None:
    table = Table(tuple(map(tuple, POINTS[:20])), ("b", "a"))
    streams.add(StreamRequest("named", table, SETTINGS))
    one = streams.add(StreamRequest("named", Table(((1.0, 2.0),), ("b", "a")), SETTINGS))
    two = streams.add(StreamRequest("named", Table(((2.0, 1.0),), ("a", "b")), SETTINGS))
    assert one.points == two.points
    assert one.info.columns == ("a", "b")
    for columns in (("a", "c"), ("a", "b", "c")):
        row = tuple(float(i) for i in range(len(columns)))
        with pytest.raises(InvalidInputError):
            streams.add(StreamRequest("named", Table((row,), columns), SETTINGS))


def test_writers_of_one_detector_take_turns(root: str, streams: StreamingDetectors) -> None:
    faults: list[BaseException] = []
    never = StreamSettings(min_samples=1000, window_size=1000)
    feed(streams, POINTS[:1], settings=never)

    def work(number: int) -> None:
        try:
            mine = replica(root)
            for turn in range(10):
                feed(mine, [[float(number), float(turn)]], settings=never)
        except BaseException as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    window = streams._states.catch_up(streams._stream("pump"), None)
    for number in range(3):
        turns = [row[1] for row in list(window.rows)[1:] if row[0] == number]
        assert turns == [float(turn) for turn in range(10)]


def test_points_that_cannot_be_fitted_are_collected_on(
    streams: StreamingDetectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise InvalidInputError("The backend cannot be fitted to these rows.", "data")

    with monkeypatch.context() as patch:
        patch.setattr(streams._library, "fit", refuse)
        result = feed(streams, POINTS[:25])
    assert result.info.status == "collecting"
    assert result.info.samples == 25
    assert feed(streams, POINTS[25:26]).info.status == "ready"


# --- features ---------------------------------------------------------------------------------


def test_rolling_statistics_and_lags_are_those_of_the_points_before() -> None:
    rows = [(1.0, "x"), (2.0, "x"), (6.0, "y"), (4.0, "y")]
    settings = StreamSettings(rolling_windows=(3,), lag_periods=(1, 2))
    table = with_features(rows, ("v", "kind"), settings)
    assert table.columns == (
        "v", "kind", "v_rolling_mean_3", "v_rolling_std_3", "v_rolling_min_3", "v_rolling_max_3",
        "v_lag_1", "v_lag_2",
    )  # fmt: skip
    assert [row[2] for row in table.rows] == [1.0, 1.5, 3.0, 4.0]
    assert table.rows[3][3] == pytest.approx(np.std([2.0, 6.0, 4.0]))
    assert [row[4:] for row in table.rows] == [
        (1.0, 1.0, 1.0, 1.0),
        (1.0, 2.0, 1.0, 1.0),
        (1.0, 6.0, 2.0, 1.0),
        (2.0, 6.0, 6.0, 2.0),
    ]
    assert with_features(rows, ("v", "kind"), settings, skip=3).rows == table.rows[3:]
    assert with_features(rows, ("v", "kind"), StreamSettings()).rows == tuple(rows)


def test_features_find_what_a_point_alone_does_not_show(streams: StreamingDetectors) -> None:
    """A value that is usual by itself, at the wrong moment of a saw tooth."""
    wave = [[float(turn % 10)] for turn in range(200)]
    settings = StreamSettings(
        backend="knn", min_samples=150, window_size=200, lag_periods=(1,), contamination=0.01
    )
    plain = StreamSettings(backend="knn", min_samples=150, window_size=200, contamination=0.01)
    feed(streams, wave, "lagged", settings)
    feed(streams, wave, "plain", plain)
    odd = [[7.0]]
    assert feed(streams, odd, "lagged", settings).points[0].anomalous
    assert not feed(streams, odd, "plain", plain).points[0].anomalous


def test_the_threshold_is_that_of_the_contamination_or_the_one_given(
    streams: StreamingDetectors,
) -> None:
    learned = feed(streams, POINTS[:400], "learned")
    assert learned.threshold is not None
    assert learned.threshold > 0.5
    flagged = [point for point in learned.points if point.anomalous]
    assert all(point.score > learned.threshold for point in flagged)  # type: ignore[operator]
    given = StreamSettings(
        min_samples=20, retrain_interval=30, window_size=50, contamination=0.05, threshold=0.0
    )
    result = feed(streams, POINTS[:22], "given", given)
    assert result.threshold == 0.0
    assert [point.anomalous for point in result.points] == [False] * 20 + [True] * 2


def test_there_are_only_so_many(
    streams: StreamingDetectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "MAX_STREAMS", 1)
    feed(streams, POINTS[:1])
    with pytest.raises(streaming.OverloadedError):
        feed(streams, POINTS[:1], "second")
    feed(streams, POINTS[:1])
