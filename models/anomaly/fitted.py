"""One fitted detector: fit, score, explain, and its form on disk (skops and JSON, never pickle)."""

from __future__ import annotations

import dataclasses
import logging
import warnings
import zipfile
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import sklearn
import skops
import skops.io
from sklearn.exceptions import InconsistentVersionWarning
from skops.io.exceptions import UntrustedTypesFoundException

from models.anomaly import explanations
from models.anomaly.backends import BACKENDS
from models.anomaly.backends_table import (
    AUTO,
    AUTO_INFO,
    DESCRIPTIONS,
    backend_name,
    checked_parameters,
)
from models.anomaly.calibration import Calibration, Scores
from models.anomaly.choosing import choose
from models.anomaly.columns import Column, Matrix
from models.anomaly.model import Model, Scaling, check_rows
from models.anomaly.numeric import rows_of
from models.anomaly.tables import TableEncoder, fit_encoder
from models.errors import InvalidInputError, StorageError
from models.stores.artefacts import Artefact
from models.types.anomaly import Candidate, Contribution, DetectorInfo, FitRequest, Selection

LOGGER = logging.getLogger(__name__)

FORMAT = 3
STATE_FILE = "detector.skops"
TRUSTED_TYPES = (
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.tree._tree.Tree",
)
"""All that our states hold beyond what skops trusts by itself; never extended from a file."""
UNREADABLE = (
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    OSError,
    RuntimeError,
    TypeError,
    UntrustedTypesFoundException,
    ValueError,
    zipfile.BadZipFile,
)
"""What skops raises for files that are not its own, or hold a type that is not trusted."""
ROWS_PER_THREAD = 4096


@dataclass(frozen=True, slots=True)
class FittedDetector:
    """Immutable, and safe to score with from many threads.

    `typical` is one row of features as most training rows are, for explanations.
    """

    info: DetectorInfo
    encoder: TableEncoder
    model: Model
    typical: Matrix
    calibration: Calibration

    @staticmethod
    def fit(request: FitRequest) -> FittedDetector:
        """The version in `info` is 0 until the detector is stored. Raises InvalidInputError."""
        table = rows_of(request.table)
        _check_size(request, len(table.rows))
        encoder = fit_encoder(table, request.schema, request.missing)
        rows = encoder.encode(table)
        backend, values, selection = _chosen(request, rows)
        model, training = Model.fit(backend, rows, values)
        calibration = Calibration.of(training, request.contamination)
        parameters = {name: values[name] for name in DESCRIPTIONS[backend].values({})}
        info = DetectorInfo(
            name=request.name,
            backend=backend,
            version=0,
            created=0,
            size_bytes=0,
            samples=len(rows),
            features=encoder.features,
            schema=encoder.schema,
            contamination=request.contamination,
            threshold=calibration.threshold_in(request.normalization),
            normalization=request.normalization,
            parameters=tuple(sorted(parameters.items())),
            missing=request.missing,
            selection=selection,
        )
        return FittedDetector(info, encoder, model, encoder.typical(rows), calibration)

    def check_backend(self, asked: str | None) -> None:
        """Raises InvalidInputError when a client asks for another backend than the fitted one."""
        fitted = self.info.backend
        if asked is None or (asked == AUTO and self.info.selection is not None):
            return
        if asked == AUTO or backend_name(asked) != fitted:
            message = f"The detector was fitted with the backend '{fitted}'."
            raise InvalidInputError(message, "backend")

    def raw_scores(self, rows: Matrix, threads: Executor, n_threads: int) -> Scores:
        """Raw scores of encoded rows; the rows beside a row, and the threads, change nothing."""
        parts = min(n_threads, 1 + len(rows) // ROWS_PER_THREAD)
        if parts == 1:
            return self._raw(rows)
        return np.concatenate(list(threads.map(self._raw, np.array_split(rows, parts))))

    def _raw(self, rows: Matrix) -> Scores:
        return self.model.raw(rows)

    def explained(
        self, rows: Matrix, anomalous: npt.NDArray[np.bool_], count: int
    ) -> tuple[tuple[Contribution, ...], ...]:
        """The `count` largest contributions to the raw score of each encoded row, by columns.

        Of many rows only the anomalous ones are explained, the others have none. Raises
        InvalidInputError where these are too many as well.
        """
        blocks = self.encoder.blocks
        names = [column.name for column in self.encoder.columns]
        places = np.arange(len(rows))
        if len(rows) > explanations.most_rows(len(blocks)):
            places = np.flatnonzero(anomalous)
        found: list[tuple[Contribution, ...]] = [()] * len(rows)
        if len(places):
            values = explanations.contributions(self.model, rows[places], self.typical, blocks)
            for place, row in zip(places, values.tolist(), strict=True):
                found[place] = explanations.largest(names, row, count)
        return tuple(found)

    def manifest(self) -> dict[str, Any]:
        """All but the state, as JSON."""
        return {
            "format": FORMAT,
            "info": dataclasses.asdict(self.info),
            "columns": [dataclasses.asdict(column) for column in self.encoder.columns],
            "named": self.encoder.named,
            "values": dict(self.model.values),
            "typical": self.typical.tolist(),
            "calibration": dataclasses.asdict(self.calibration),
            "libraries": libraries(),
        }

    def files(self) -> dict[str, bytes]:
        """The state, with the scaling, as a skops archive."""
        scaling = dataclasses.asdict(self.model.scaling) if self.model.scaling else None
        return {STATE_FILE: skops.io.dumps({"scaling": scaling, "state": self.model.state})}


def libraries() -> dict[str, str]:
    """Versions of what wrote the state."""
    return {
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
        "skops": skops.__version__,
    }


def stored_info(version: int, manifest: Mapping[str, Any]) -> DetectorInfo:
    """Raises StorageError."""
    try:
        if manifest["format"] != FORMAT:
            raise StorageError("The stored detector has an unknown format.")
        fields = dict(manifest["info"])
        fields["features"] = tuple(fields["features"])
        fields["schema"] = tuple((name, encoding) for name, encoding in fields["schema"])
        fields["parameters"] = tuple((name, value) for name, value in fields["parameters"])
        fields["selection"] = _selection(fields["selection"])
        fields["version"] = version
        return DetectorInfo(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError("The stored detector cannot be read.") from error


def stored_calibration(manifest: Mapping[str, Any]) -> Calibration:
    """Raises KeyError or TypeError for one that we have not written."""
    fields = manifest["calibration"]
    return Calibration(**{**fields, "highest": tuple(fields["highest"])})


def restored(artefact: Artefact) -> FittedDetector:
    """A detector from disk. Raises StorageError for whatever we have not written."""
    manifest: Mapping[str, Any] = artefact.manifest
    info = stored_info(artefact.pointer.version, manifest)
    if manifest.get("libraries") != libraries():
        LOGGER.warning("a detector was stored by other versions of the libraries")
    try:
        content = _load_state(artefact.files[STATE_FILE])
        scaling, state = content["scaling"], content["state"]
        if not isinstance(state, BACKENDS[info.backend].state_type):
            raise TypeError("state")
        return FittedDetector(
            info,
            TableEncoder(tuple(map(_column, manifest["columns"])), manifest["named"]),
            Model(info.backend, Scaling(**scaling) if scaling else None, state, manifest["values"]),
            np.array(manifest["typical"], dtype=np.float64),
            stored_calibration(manifest),
        )
    except UNREADABLE as error:
        raise StorageError("The stored detector cannot be read.") from error


def _load_state(data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        return skops.io.loads(data, trusted=list(TRUSTED_TYPES))


def _column(fields: Mapping[str, Any]) -> Column:
    lists = {name: tuple(fields[name]) for name in ("categories", "shares")}
    return Column(**{**fields, **lists})


def _selection(fields: Mapping[str, Any] | None) -> Selection | None:
    if fields is None:
        return None
    candidates = tuple(Candidate(**candidate) for candidate in fields["candidates"])
    return Selection(fields["rows"], candidates)


def _check_size(request: FitRequest, count: int) -> None:
    """Before anything is encoded. Raises InvalidInputError."""
    if request.backend != AUTO:
        check_rows(count, backend_name(request.backend))
    elif count > AUTO_INFO.max_rows:
        message = f"auto fits at most {AUTO_INFO.max_rows} rows; {count} were sent."
        raise InvalidInputError(message, "data")


def _chosen(request: FitRequest, rows: Matrix) -> tuple[str, dict[str, Any], Selection | None]:
    """The backend, its checked parameters, and how it was chosen. Raises InvalidInputError."""
    given = dict(request.parameters)
    common = {"contamination": request.contamination, "seed": request.seed}
    values = checked_parameters(request.backend, given)
    if request.backend != AUTO:
        return backend_name(request.backend), values | common, None
    backend, selection = choose(rows, common)
    return backend, DESCRIPTIONS[backend].values({}) | common, selection
