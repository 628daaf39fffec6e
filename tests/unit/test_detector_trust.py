"""Artefacts that others have planted or changed are refused, and their code never runs."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.ensemble import IsolationForest

from models.anomaly import fitted
from models.anomaly.detectors import Detectors
from models.errors import (
    StorageError,
)
from models.stores.artefacts import CURRENT, ArtefactStore, _folder
from tests.detector_samples import (
    again,
    fit,
    score,
)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Detectors]:
    detectors = Detectors(root=tmp_path / "store", n_threads=2)
    yield detectors
    detectors.close()


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def planted(library: Detectors, state: bytes, **changes: Any) -> None:
    """A version with a consistent manifest and digests, whose state is `state`."""
    fit(library)
    store: ArtefactStore = library._store
    artefact = store.read("pump")
    manifest = {key: value for key, value in artefact.manifest.items() if key != "digests"}
    store.publish("pump", {**manifest, **changes}, {fitted.STATE_FILE: state})


def archived_pickle(marker: Path) -> bytes:
    """A good archive whose array is one of objects: what numpy would unpickle."""
    objects = io.BytesIO()
    np.save(objects, np.array([Bomb(marker)], dtype=object), allow_pickle=True)
    good = skops.io.dumps({"scaling": None, "state": {"x": np.arange(3.0)}})
    changed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as source, zipfile.ZipFile(changed, "w") as target:
        for name in source.namelist():
            target.writestr(
                name, objects.getvalue() if name.endswith(".npy") else source.read(name)
            )
    return changed.getvalue()


def hostile_states(marker: Path) -> dict[str, bytes]:
    good = skops.io.dumps({"scaling": None, "state": {"x": np.arange(3.0)}})
    return {
        "pickle": pickle.dumps(Bomb(marker)),
        "untrusted type": skops.io.dumps({"scaling": None, "state": Path("x")}),
        "other state": skops.io.dumps({"scaling": None, "state": IsolationForest()}),
        "no state": skops.io.dumps({"scaling": None}),
        "pickle in an archive": archived_pickle(marker),
        "not a dictionary": skops.io.dumps([1, 2]),
        "cut": good[: len(good) // 2],
        "empty": b"",
    }


@pytest.mark.parametrize("name", hostile_states(Path("unused")))
def test_a_foreign_state_is_refused_and_never_runs(
    library: Detectors, tmp_path: Path, name: str
) -> None:
    marker = tmp_path / "marker"
    planted(library, hostile_states(marker)[name])
    for view in (library, again(library)):
        with pytest.raises(StorageError) as caught:
            score(view)
        assert str(tmp_path) not in caught.value.message
    assert not marker.exists()
    assert fit(library).version == 3
    assert score(library).version == 3


def test_the_bomb_works(tmp_path: Path) -> None:
    """Else the test above proves nothing."""
    pickle.loads(pickle.dumps(Bomb(tmp_path / "marker")))  # noqa: S301 - our own
    assert (tmp_path / "marker").exists()


def test_a_reduce_node_is_refused(library: Detectors, tmp_path: Path) -> None:
    """A skops file whose schema calls a function of its choice."""
    node = {
        "__class__": "system",
        "__module__": "posix",
        "__loader__": "ReduceNode",
        "__id__": 1,
        "args": {
            "__class__": "tuple",
            "__module__": "builtins",
            "__loader__": "TupleNode",
            "__id__": 2,
            "content": [
                {
                    "__class__": "str",
                    "__module__": "builtins",
                    "__loader__": "JsonNode",
                    "__id__": 3,
                    "content": json.dumps(f"touch {tmp_path / 'marker'}"),
                    "is_json": True,
                }
            ],
        },
        "content": None,
        "protocol": 2,
        "_skops_version": "0.16.0",
    }
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("schema.json", json.dumps(node))
    planted(library, file.getvalue())
    with pytest.raises(StorageError):
        score(library)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 99},
        {"format": None},
        {"info": {}},
        {"columns": [{}]},
        {"calibration": {}},
        {"info": None},
    ],
)
def test_a_foreign_manifest_is_refused(library: Detectors, changes: dict[str, Any]) -> None:
    fit(library)
    planted(library, library._store.read("pump").files[fitted.STATE_FILE], **changes)
    with pytest.raises(StorageError):
        score(library)
    assert len(library.list()) <= 1


SUFFIXES = ("skops", "json", "safetensors", "npy", "npz", "bin", "pt", "pkl", "joblib", "onnx")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pickle_by_any_name_never_runs(library: Detectors, tmp_path: Path, suffix: str) -> None:
    """As one more file of a version that is whole otherwise, and in the place of its state."""
    marker = tmp_path / "marker"
    fit(library)
    before = score(library)
    artefact = library._store.read("pump")
    manifest = {key: value for key, value in artefact.manifest.items() if key != "digests"}
    bomb = pickle.dumps(Bomb(marker))
    added = {**artefact.files, f"detector2.{suffix}": bomb}
    library._store.publish("pump", manifest, added)
    assert score(again(library)).raw == before.raw
    library._store.publish("pump", manifest, {f"detector.{suffix}": bomb})
    with pytest.raises(StorageError):
        score(again(library))
    assert not marker.exists()


@pytest.mark.parametrize("file", [fitted.STATE_FILE, "manifest.json", CURRENT])
def test_a_pickle_in_the_place_of_a_file_never_runs(
    library: Detectors, tmp_path: Path, file: str
) -> None:
    fit(library)
    (path,) = tmp_path.joinpath("store").rglob(file)
    path.write_bytes(pickle.dumps(Bomb(tmp_path / "marker")))
    with pytest.raises(StorageError):
        score(again(library))
    assert again(library).list() == [] or file == fitted.STATE_FILE
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("file", [fitted.STATE_FILE, "manifest.json", CURRENT])
def test_one_changed_byte_is_noticed(library: Detectors, file: str) -> None:
    fit(library)
    (path,) = (library._store.storage.root / "models").rglob(file)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageError):
        score(again(library))


def test_a_detector_moved_to_another_name_is_refused(library: Detectors) -> None:
    fit(library, "one")
    store = library._store
    folders = store.storage.root / "models"
    (folders / _folder("one")).rename(folders / _folder("two"))
    with pytest.raises(StorageError):
        score(library, "two")


def test_only_known_types_are_trusted() -> None:
    assert all(name.startswith("sklearn.") for name in fitted.TRUSTED_TYPES)
    assert len(fitted.TRUSTED_TYPES) == 3
