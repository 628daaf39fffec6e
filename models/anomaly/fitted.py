"""One fitted detector: fit, score, and its form on disk (skops and JSON, never pickle)."""

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
from sklearn.preprocessing import RobustScaler, StandardScaler
from skops.io.exceptions import UntrustedTypesFoundException

from models.anomaly.backends import BACKENDS, Backend, State, backend_of
from models.anomaly.calibration import Calibration, Scores, bounded
from models.anomaly.tables import MAX_MAGNITUDE, Column, Matrix, TableEncoder, fit_encoder
from models.artefacts import Artefact
from models.errors import InvalidInputError, ModelError, StorageError
from models.types import DetectorInfo, FitRequest

LOGGER = logging.getLogger(__name__)

FORMAT = 1
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
MIN_ROWS = 2
ROWS_PER_THREAD = 4096


@dataclass(frozen=True, slots=True)
class Scaling:
    """(rows - center) / scale; both are float64 [features]."""

    center: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]

    @staticmethod
    def of(rows: Matrix, scaler: str) -> Scaling | None:
        """As scikit-learn's `StandardScaler` and `RobustScaler`; None for the scaler "none"."""
        if scaler == "standard":
            standard = StandardScaler().fit(rows)
            return Scaling(standard.mean_, standard.scale_)
        if scaler == "robust":
            robust = RobustScaler().fit(rows)
            return Scaling(robust.center_, robust.scale_)
        return None

    def apply(self, rows: Matrix) -> Matrix:
        return np.clip((rows - self.center) / self.scale, -MAX_MAGNITUDE, MAX_MAGNITUDE)


@dataclass(frozen=True, slots=True)
class FittedDetector:
    """Immutable, and safe to score with from many threads. `values` are checked parameters."""

    info: DetectorInfo
    encoder: TableEncoder
    scaling: Scaling | None
    state: State
    values: Mapping[str, Any]
    calibration: Calibration

    @staticmethod
    def fit(request: FitRequest) -> FittedDetector:
        """The version in `info` is 0 until the detector is stored. Raises InvalidInputError."""
        backend = backend_of(request.backend)
        values = backend.values(dict(request.parameters))
        values |= {"contamination": request.contamination, "seed": request.seed}
        _check_rows(len(request.table.rows), request.backend, backend)
        encoder = fit_encoder(request.table, request.schema)
        rows = encoder.encode(request.table)
        scaling = Scaling.of(rows, values["scaler"])
        state, training = _fit(backend, scaling.apply(rows) if scaling else rows, values)
        calibration = Calibration.of(bounded(training), request.contamination)
        info = DetectorInfo(
            name=request.name,
            backend=request.backend,
            version=0,
            created=0,
            size_bytes=0,
            samples=len(rows),
            features=encoder.features,
            schema=encoder.schema,
            contamination=request.contamination,
            threshold=calibration.threshold_in(request.normalization),
            normalization=request.normalization,
        )
        return FittedDetector(info, encoder, scaling, state, values, calibration)

    def raw_scores(self, rows: Matrix, threads: Executor, n_threads: int) -> Scores:
        """Raw scores of encoded rows; the rows beside a row, and the threads, change nothing."""
        parts = min(n_threads, 1 + len(rows) // ROWS_PER_THREAD)
        if parts == 1:
            return self._raw(rows)
        return np.concatenate(list(threads.map(self._raw, np.array_split(rows, parts))))

    def _raw(self, rows: Matrix) -> Scores:
        scaled = self.scaling.apply(rows) if self.scaling else rows
        with np.errstate(all="ignore"):
            raw = BACKENDS[self.info.backend].score(self.state, scaled, self.values)
        if np.isnan(raw).any():
            raise ModelError("The detector has no score for a row.")
        return bounded(raw)

    def manifest(self) -> dict[str, Any]:
        """All but the state, as JSON."""
        return {
            "format": FORMAT,
            "info": dataclasses.asdict(self.info),
            "columns": [dataclasses.asdict(column) for column in self.encoder.columns],
            "named": self.encoder.named,
            "values": dict(self.values),
            "calibration": dataclasses.asdict(self.calibration),
            "libraries": libraries(),
        }

    def files(self) -> dict[str, bytes]:
        """The state, with the scaling, as a skops archive."""
        scaling = dataclasses.asdict(self.scaling) if self.scaling else None
        return {STATE_FILE: skops.io.dumps({"scaling": scaling, "state": self.state})}


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
        fields["version"] = version
        return DetectorInfo(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError("The stored detector cannot be read.") from error


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
            Scaling(**scaling) if scaling else None,
            state,
            manifest["values"],
            Calibration(**manifest["calibration"]),
        )
    except UNREADABLE as error:
        raise StorageError("The stored detector cannot be read.") from error


def _load_state(data: bytes) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentVersionWarning)
        return skops.io.loads(data, trusted=list(TRUSTED_TYPES))


def _column(fields: Mapping[str, Any]) -> Column:
    return Column(
        fields["name"], fields["encoding"], tuple(fields["categories"]), tuple(fields["shares"])
    )


def _check_rows(count: int, name: str, backend: Backend) -> None:
    if count < MIN_ROWS:
        raise InvalidInputError(f"A fit needs at least {MIN_ROWS} rows.", "data")
    if count > backend.max_rows:
        message = f"{name} fits at most {backend.max_rows} rows; {count} were sent."
        raise InvalidInputError(message, "data")


def _fit(backend: Backend, rows: Matrix, values: Mapping[str, Any]) -> tuple[State, Scores]:
    """Raises InvalidInputError, also when the library cannot fit these rows."""
    try:
        with np.errstate(all="ignore"):
            state, training = backend.fit(rows, values)
    except (ValueError, np.linalg.LinAlgError, FloatingPointError) as error:
        LOGGER.info("a fit has failed", exc_info=error)
        raise InvalidInputError("The backend cannot be fitted to these rows.", "data") from error
    if not np.isfinite(bounded(training)).all():
        raise InvalidInputError("The backend cannot be fitted to these rows.", "data")
    return state, training
