"""The catalogue of metrics, its documentation and the dashboard say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from deployments.metrics.catalog import CATALOG

ROOT = Path(__file__).parents[1]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy" / "grafana" / "inference.json").read_text())
BY_RAY = {"deployment", "replica", "application", "le"}
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
LABELS = {
    metric.exported_name + suffix: {*metric.labels, *BY_RAY}
    for metric in CATALOG
    for suffix in SUFFIXES[metric.kind]
}
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [target["expr"] for panel in PANELS for target in panel["targets"]]


def test_names_are_unique_and_those_of_prometheus() -> None:
    names = [metric.name for metric in CATALOG]
    assert len(set(names)) == len(names) > 20
    assert all(re.fullmatch(r"inference_[a-z_]+[a-z]", name) for name in names)
    assert not [name for name in names if name.endswith("_total")]  # Ray appends it


def test_histograms_have_ascending_buckets_and_others_none() -> None:
    for metric in CATALOG:
        assert (metric.kind == "histogram") == bool(metric.buckets), metric.name
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric.name


def test_every_metric_is_documented_and_no_other() -> None:
    rows = re.findall(
        r"^\| `(ray_inference_\w+)` \| (\w+) \| ([^|]+) \| (.+) \|$", OPERATIONS, re.MULTILINE
    )
    assert rows == [
        (m.exported_name, m.kind, ", ".join(m.labels) or "–", m.description) for m in CATALOG
    ]


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_dashboard_has_metrics_and_labels_that_are_there(query: str) -> None:
    names = set(re.findall(r"ray_\w+", query))
    assert names
    assert names <= set(LABELS)
    grouped = {
        label for group in re.findall(r"by \(([^)]*)\)", query) for label in group.split(", ")
    }
    matched = set(re.findall(r"(\w+)=~", query))
    for name in names:
        assert grouped | matched <= LABELS[name], name


def test_every_metric_is_on_the_dashboard() -> None:
    shown = set(re.findall(r"ray_\w+", " ".join(QUERIES)))
    missing = [
        metric.name
        for metric in CATALOG
        if not shown & {metric.exported_name + suffix for suffix in SUFFIXES[metric.kind]}
    ]
    assert not missing


def test_parentheses_of_queries_are_balanced() -> None:
    for query in QUERIES:
        for opening, closing in ("()", "[]", "{}"):
            assert query.count(opening) == query.count(closing), query


def test_the_dashboard_has_the_form_that_grafana_imports() -> None:
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD["uid"]
    assert DASHBOARD["title"]
    assert "id" not in DASHBOARD  # Grafana gives one, and refuses another's
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    kinds = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert kinds == {"datasource": "datasource", "task": "query", "model": "query"}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_asks_the_chosen_prometheus_and_names_what_it_draws(panel: dict[str, Any]) -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == chosen
    assert panel["fieldConfig"]["defaults"]["unit"]
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs) > 0
    for target in panel["targets"]:
        assert target["datasource"] == chosen
        legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        last = re.findall(r"by \(([^)]*)\)", target["expr"])[-1:]
        assert legend <= {label for group in last for label in group.split(", ")}


def test_panels_lie_in_the_grid_without_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
