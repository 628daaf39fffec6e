"""Shared fixtures: markers from the path, and the starter weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from config.catalog import OPTIONAL_CATALOG, load_catalog
from config.paths import default_weights_dir
from weights.cache import WeightsCache
from weights.fetch import fetch

TESTS = Path(__file__).parent
MARKERS = {
    "contract": "contract",
    "faults": "integration",
    "integration": "integration",
    "quality": "quality",
}

# The same examples at every run, and no verdict by the clock: what runs tests may be slow.
settings.register_profile(
    "suite",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        if folder in MARKERS:
            item.add_marker(MARKERS[folder])


def pytest_unconfigure() -> None:
    """Close what llama-cpp-python opens when it is imported, lest the interpreter warn of it."""
    if opened := sys.modules.get("llama_cpp._utils"):
        opened.outnull_file.close()
        opened.errnull_file.close()


@pytest.fixture(scope="session")
def starter_weights() -> Callable[[str], Path]:
    """`starter_weights(model_id)` is where that model's weights lie, fetched if need be."""
    specs = (*load_catalog(), *load_catalog(OPTIONAL_CATALOG))
    catalog = {spec.id: spec for spec in specs}
    cache = WeightsCache(default_weights_dir())

    def path_of(model_id: str) -> Path:
        path = fetch(catalog[model_id], cache=cache)
        assert path is not None, f"{model_id} has no weights"
        return path

    return path_of
