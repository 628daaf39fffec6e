"""The table of backends: names, parameters, and that it is what is really there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.anomaly.backends import BACKENDS
from models.anomaly.backends_table import (
    AUTO_INFO,
    DESCRIPTIONS,
    backend_infos,
    backend_name,
)
from models.anomaly.model import Model
from models.errors import InvalidInputError
from models.types.anomaly import BackendInfo, ParameterInfo
from tests.detector_samples import ROWS

ROOT = Path(__file__).parents[2]
NAMES = (
    "isolation_forest one_class_svm local_outlier_factor ecod copod hbos knn mcd cblof loda suod "
    "pca autoencoder vae"
)
COMMON = {"contamination": 0.05, "seed": 1}


def test_the_names_of_the_field_are_there() -> None:
    assert set(NAMES.split()) <= set(DESCRIPTIONS)
    assert set(BACKENDS) == set(DESCRIPTIONS)
    assert [info.name for info in backend_infos()] == ["auto", *DESCRIPTIONS]


def test_other_names_lead_to_the_same_backend() -> None:
    assert backend_name("lof") == "local_outlier_factor"
    assert backend_name("elliptic_envelope") == "mcd"
    assert backend_name("mcd") == "mcd"
    with pytest.raises(InvalidInputError, match="no backend 'nope'; there are: auto, ") as caught:
        backend_name("nope")
    assert caught.value.param == "backend"


@pytest.mark.parametrize("info", backend_infos(), ids=lambda info: info.name)
def test_every_backend_is_described(info: BackendInfo) -> None:
    for text in (info.category, info.fit_cost, info.score_cost, info.memory, info.use):
        assert text.strip()
    assert info.max_rows >= 50_000
    assert info.explanation.startswith(("exact", "by replacement", "that of"))


def test_parameters_show_type_default_and_range() -> None:
    by_name = {info.name: info for info in backend_infos()}
    parameters = {parameter.name: parameter for parameter in by_name["knn"].parameters}
    assert replace(parameters["n_neighbors"], description="") == ParameterInfo(
        "n_neighbors", "integer", 5, 1, 1000, (), ""
    )
    assert parameters["method"].type == "string"
    assert parameters["method"].choices == ("largest", "mean")
    assert (parameters["method"].low, parameters["method"].high) == (None, None)
    tol = next(p for p in by_name["hbos"].parameters if p.name == "tol")
    assert (tol.type, tol.default, tol.low, tol.high) == ("number", 0.5, 0.0, 1.0)
    assert by_name["auto"] is AUTO_INFO


CASES = [(name, p.name) for name, entry in DESCRIPTIONS.items() for p in entry.parameters]


@pytest.mark.parametrize(("backend", "name"), CASES)
def test_a_parameter_out_of_range_is_named(backend: str, name: str) -> None:
    entry = DESCRIPTIONS[backend]
    parameter = next(p for p in entry.parameters if p.name == name)
    bad = "nope" if parameter.choices else parameter.high + 1
    with pytest.raises(InvalidInputError, match=f"'{name}' must be") as caught:
        entry.values({name: bad})
    assert caught.value.param == f"parameters.{name}"
    assert entry.values({name: parameter.default})[name] == parameter.default


@pytest.mark.parametrize("backend", DESCRIPTIONS)
def test_an_unknown_parameter_is_named(backend: str) -> None:
    with pytest.raises(InvalidInputError, match="no parameter 'depth'; there are: ") as caught:
        DESCRIPTIONS[backend].values({"depth": 3})
    assert caught.value.param == "parameters.depth"


SILENT = {
    ("one_class_svm", "degree"),  # of another kernel than the default one
    ("autoencoder", "patience"),  # ten epochs end before it does
    ("vae", "patience"),
    ("cblof", "alpha"),  # decides where clusters differ less in size
    *((name, "scaler") for name in ("isolation_forest", "ecod", "copod", "mcd", "zscore", "mad")),
}


@pytest.mark.parametrize(("backend", "name"), [case for case in CASES if case not in SILENT])
def test_every_parameter_changes_the_scores(backend: str, name: str) -> None:
    parameter = next(p for p in DESCRIPTIONS[backend].parameters if p.name == name)
    other: object = parameter.low + (parameter.high - parameter.low) / 50
    if parameter.choices:
        other = next(choice for choice in parameter.choices if choice != parameter.default)
    elif parameter.type == "integer":
        other = int(max(parameter.low + 2, 3)) if parameter.default != 3 else 5
    shifted = ROWS * [1.0, 10.0, 0.1, 1.0] + 3
    asked = np.concatenate([shifted, [shifted.max(axis=0) + 0.3 * np.ptp(shifted, axis=0) / 10]])
    scores = [
        Model.fit(backend, shifted, DESCRIPTIONS[backend].values(given) | COMMON)[0].raw(asked)
        for given in ({}, {name: other})
    ]
    assert not np.allclose(scores[0], scores[1])


def test_describing_loads_no_library() -> None:
    code = "import sys, models.anomaly.backends_table; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"scipy", "sklearn", "torch", "pyod"} & set(run.stdout.split())
