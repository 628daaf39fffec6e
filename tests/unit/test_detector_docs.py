"""The documents describe the backends that are there, with their parameters and bounds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from models.anomaly.backends_table import backend_infos
from models.anomaly.columns import ENCODINGS
from models.types.anomaly import BackendInfo, MissingPolicy, ParameterInfo, ScoreNormalization

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "api.md").read_text()
GUIDE = (ROOT / "docs" / "anomaly.md").read_text()
CASES = [(info.name, parameter) for info in backend_infos() for parameter in info.parameters]


def section(anchor: str) -> str:
    return API.partition(f'<a id="{anchor}"></a>')[2].partition("<a id=")[0]


def shown(value: float | int | str | None) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("info", backend_infos(), ids=lambda info: info.name)
def test_a_backend_is_documented(info: BackendInfo) -> None:
    names = ", ".join(f"`{name}`" for name in (info.name, *info.aliases))
    kind = info.explanation.partition(":")[0]
    costs = f"{info.fit_cost}; {info.score_cost}"
    row = f"| {names} | {info.category} | {costs} | {kind} | {info.use} |"
    assert row in section("anomaly-backends").splitlines()
    assert f"`{info.name}`" in GUIDE


def test_no_other_backend_is_documented() -> None:
    table = section("anomaly-backends").partition("| parameter |")[0]
    documented = set(re.findall(r"^\| `(\w+)`", table, flags=re.MULTILINE))
    assert documented == {info.name for info in backend_infos()}


@pytest.mark.parametrize(
    ("backend", "parameter"), CASES, ids=lambda case: getattr(case, "name", case)
)
def test_a_parameter_is_documented(backend: str, parameter: ParameterInfo) -> None:
    bounds = f"{shown(parameter.low)} to {shown(parameter.high)}"
    if parameter.choices:
        bounds = ", ".join(f"`{choice}`" for choice in parameter.choices)
    rest = f" | {shown(parameter.default)} | {bounds} | {parameter.description} |"
    rows = [
        line
        for line in section("anomaly-backends").splitlines()
        if line.startswith(f"| `{parameter.name}` | ") and line.endswith(rest)
    ]
    assert any(backend in row.split(" | ")[1].split(", ") for row in rows)
    assert parameter.description


def test_encodings_policies_and_normalisations_are_documented() -> None:
    def cells(anchor: str) -> set[str]:
        return set(re.findall(r"^\| `(\w+)`", section(anchor), flags=re.MULTILINE))

    assert cells("anomaly-encodings") == {*ENCODINGS, *get_args(MissingPolicy), "missing"}
    assert cells("anomaly-scores") == {*get_args(ScoreNormalization), "normalization"}


def test_the_bounds_of_rows_are_documented() -> None:
    text = " ".join(section("anomaly-backends").split())
    (sentence,) = re.findall(r"`max_rows` bounds the rows of a fit: (.*?) for the others", text)
    groups = re.findall(r"([\d,]+)(?: for (.*?))?(?:, (?=[\d,]{6})|$)", sentence)
    documented = {
        name: int(count.replace(",", ""))
        for count, names in groups
        for name in re.findall(r"`(\w+)`", names)
    }
    (others,) = [int(count.replace(",", "")) for count, names in groups if not names]
    for info in backend_infos():
        assert documented.get(info.name, others) == info.max_rows, info.name


def test_the_picture_is_there() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)", GUIDE)
    assert any(target.endswith(".png") for target in targets)
    for target in targets:
        assert (ROOT / "docs" / target).exists(), target
