"""Names, restarts, deletion, sharing between processes and threads."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.anomaly import fitted
from models.anomaly.detectors import Detectors
from models.errors import (
    InvalidInputError,
    ModelLoadError,
    ModelNotFoundError,
    OverloadedError,
)
from models.types.anomaly import FitRequest
from tests.detector_samples import (
    ROWS,
    again,
    fit,
    score,
    table_of,
)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Detectors]:
    detectors = Detectors(root=tmp_path / "store", n_threads=2)
    yield detectors
    detectors.close()


HOSTILE_NAMES = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "C:\\x",
    "a\0b",
    "a\nb",
    "-rf",
    "!!!",
    "x" * 65,
    "\ud800",
    "name ",
    "é",
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_names_never_become_paths(library: Detectors, tmp_path: Path, name: str) -> None:
    fit(library)
    files = sorted(tmp_path.rglob("*"))
    with pytest.raises(InvalidInputError) as caught:
        fit(library, name)
    assert caught.value.param == "model"
    with pytest.raises(ModelNotFoundError):
        score(library, name)
    with pytest.raises(ModelNotFoundError):
        library.get(name)
    with pytest.raises(ModelNotFoundError):
        library.delete(name)
    assert sorted(tmp_path.rglob("*")) == files


def test_similar_names_are_different_detectors(library: Detectors) -> None:
    for name in ("ab", "a.b", "a-b", "AB"):
        fit(library, name)
    library.delete("a.b")
    assert [info.name for info in library.list()] == ["AB", "a-b", "ab"]


def test_delete_removes_every_trace(library: Detectors) -> None:
    fit(library)
    score(library)
    other = again(library)
    score(other)
    library.delete("pump")
    for view in (library, other):
        with pytest.raises(ModelNotFoundError):
            score(view)
        with pytest.raises(ModelNotFoundError):
            view.delete("pump")
        assert view.list() == []
    assert list((library._store.storage.root / "models").iterdir()) == []


def test_a_refit_elsewhere_is_seen_at_once(library: Detectors) -> None:
    fit(library)
    assert score(library).version == 1
    fit(again(library), backend="mad")
    assert score(library).version == 2
    assert library.get("pump").backend == "mad"


def test_fit_score_and_delete_of_one_name_are_safe(library: Detectors) -> None:
    """Each score is one version's; nothing but the detector's absence is ever reported."""
    tables = [table_of(ROWS + shift) for shift in (0, 50)]
    valid = set()
    for table in tables:
        fit(library, table=table)
        valid.add(tuple(score(library, table=table_of(ROWS[:3])).raw))
    faults: list[object] = []
    scored = []

    def repeat(action: Any) -> None:
        for _ in range(40):
            try:
                action()
            except (ModelNotFoundError, OverloadedError):
                continue
            except BaseException as error:
                faults.append(error)

    other = again(library)
    actions = [
        lambda: fit(library, table=random.choice(tables)),
        lambda: fit(other, table=random.choice(tables)),
        lambda: scored.append(score(library, table=table_of(ROWS[:3]))),
        lambda: scored.append(score(other, table=table_of(ROWS[:3]))),
        lambda: random.choice([library, other]).delete("pump"),
        lambda: (library.list(), other.get("pump")),
    ]
    threads = [threading.Thread(target=repeat, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert {tuple(result.raw) for result in scored} <= valid
    fit(library)
    library.delete("pump")
    assert list((library._store.storage.root / "models").iterdir()) == []


def test_loaded_detectors_are_bounded_by_bytes(tmp_path: Path) -> None:
    library = Detectors(root=tmp_path, n_threads=1, max_cached_bytes=10_000)
    for name in "abcdef":
        fit(library, name, backend="mad")
        score(library, name)
        assert 0 < library.memory_bytes <= 10_000
    assert score(library, "a").version == 1
    fit(library, "large", backend="isolation_forest")
    assert score(library, "large").version == 1
    assert library.memory_bytes <= 10_000
    library.close()
    library.close()
    assert library.memory_bytes == 0


def test_too_many_fits_at_a_time_are_overload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Detectors(root=tmp_path, n_threads=1, max_fits=1)
    started, finish = threading.Event(), threading.Event()
    original = fitted.FittedDetector.fit

    def slow(request: FitRequest) -> Any:
        started.set()
        assert finish.wait(60)
        return original(request)

    monkeypatch.setattr(fitted.FittedDetector, "fit", staticmethod(slow))
    thread = threading.Thread(target=fit, args=(library,))
    thread.start()
    assert started.wait(60)
    with pytest.raises(OverloadedError):
        fit(library)
    finish.set()
    thread.join()
    assert fit(library).version == 2
    library.close()


def test_no_usable_root_is_a_load_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelLoadError):
        Detectors(root=tmp_path / "file", n_threads=1)
